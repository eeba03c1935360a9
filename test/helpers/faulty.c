/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded: the Nth write, rename or fsync below $FAULTY_ROOT fails, or kills the process, once armed. */
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

static _Atomic long left; /* 0: not armed */
static int kills;

void faulty_arm(long nth, int kill) {
  kills = kill;
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
  if (kills) raise(SIGKILL);
  errno = ENOSPC;
  return 1;
}

static int fd_fails(int fd) {
  char link[64], path[PATH_MAX];
  if (left <= 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_ours(path) && fails();
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

int fsync(int fd) {
  REAL(int, "fsync");
  return fd_fails(fd) ? -1 : real(fd);
}

int rename(const char *from, const char *to) {
  REAL(int, "rename");
  return left > 0 && is_ours(to) && fails() ? -1 : real(from, to);
}
