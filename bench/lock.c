// Counts how often Python's lock was held when a thread that needs none looked. See lock.py.
#include <pthread.h>
#include <stdint.h>
#include <time.h>

// Of Python 3.10 and 3.11: the thread that holds the lock, whoever asks; NULL where none does.
extern void *_PyThreadState_UncheckedGet(void);

enum { PERIOD_NS = 50000 };

static pthread_t thread;
static volatile int ending;

static void *look(void *counts) {
  volatile int64_t *held = counts, *looked = held + 1;
  while (!ending) {
    nanosleep(&(struct timespec){.tv_nsec = PERIOD_NS}, NULL);
    if (_PyThreadState_UncheckedGet()) *held += 1;
    *looked += 1;
  }
  return NULL;
}

int watch(int64_t *counts) {
  return pthread_create(&thread, NULL, look, counts);
}

int end(void) {
  ending = 1;
  return pthread_join(thread, NULL);
}
