/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded, armed: the Nth call below $FAULTY_ROOT that writes, renames or synchronizes fails or kills
   the process, or the Nth large allocation anywhere fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define LARGE (1 << 14) /* bytes: of frames, tensors and files, hardly of the interpreter's own */

static _Atomic long left; /* 0: not armed */
static char how;          /* f(ail), k(ill) or m(emory) */

void faulty_arm(long nth, char what) {
  how = what;
  left = nth;
}

/* Return how many more calls would have been let through; 0 or less: the fault has come. */
long faulty_left(void) { return left; }

static int is_ours(const char *path) {
  const char *root = getenv("FAULTY_ROOT");
  return root && !strncmp(path, root, strlen(root));
}

static int fails(void) {
  if (left <= 0 || --left) return 0;
  if (how == 'k') raise(SIGKILL);
  errno = ENOSPC;
  return 1;
}

static int fd_fails(int fd) {
  char link[64], path[PATH_MAX];
  if (left <= 0 || how == 'm') return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_ours(path) && fails();
}

static int path_fails(const char *path) { return left > 0 && how != 'm' && is_ours(path) && fails(); }

static int memory_fails(size_t size) {
  if (left <= 0 || how != 'm' || size < LARGE || --left) return 0;
  errno = ENOMEM;
  return 1;
}

#define REAL(type, name) static type (*real)() = NULL; if (!real) real = dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, "write");
  return fd_fails(fd) ? -1 : real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(ssize_t, "writev");
  return fd_fails(fd) ? -1 : real(fd, parts, count);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) {
  REAL(ssize_t, "pwrite64");
  return fd_fails(fd) ? -1 : real(fd, data, size, offset);
}

ssize_t sendfile64(int to, int from, off_t *offset, size_t size) {
  REAL(ssize_t, "sendfile64");
  return fd_fails(to) ? -1 : real(to, from, offset, size);
}

int fsync(int fd) {
  REAL(int, "fsync");
  return fd_fails(fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
  REAL(int, "fdatasync");
  return fd_fails(fd) ? -1 : real(fd);
}

int rename(const char *from, const char *to) {
  REAL(int, "rename");
  return path_fails(to) ? -1 : real(from, to);
}

/* glibc's own names: dlsym allocates. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

void *malloc(size_t size) { return memory_fails(size) ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size) {
  return memory_fails(count * size) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) { return memory_fails(size) ? NULL : __libc_realloc(old, size); }

int posix_memalign(void **to, size_t alignment, size_t size) {
  void *made = memory_fails(size) ? NULL : __libc_memalign(alignment, size);
  if (!made) return ENOMEM;
  *to = made;
  return 0;
}
