// SPDX-License-Identifier: Apache-2.0
// Waits for the messages of several subscriptions and takes them, through rcl, without Python.

#include <semaphore.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { TIMEOUT = 2, TAKE_FAILED = 401 };  // RCL_RET_*
enum { NOTHING = -1, FAILED = -2 };

// What rcl_wait_set_t begins with.
struct wait_set {
  const void **subscriptions;
  size_t subscription_count;
  const void **guard_conditions;
};

struct repghost_receiver {
  int32_t (*wait)(struct wait_set *set, int64_t nanoseconds);
  int32_t (*clear)(struct wait_set *set);
  int32_t (*add_subscription)(struct wait_set *set, const void *subscription, size_t *index);
  int32_t (*add_guard)(struct wait_set *set, const void *guard, size_t *index);
  int32_t (*take)(const void *subscription, void *message, void *info, void *allocation);
  struct wait_set *set;
  const void *guard;
  const void *const *subscriptions;
  int32_t count;
  int32_t turn;    // the subscription to ask next
  int32_t untold;  // how many may have a message
  int32_t status;  // of rcl, where it failed
  sem_t *due;      // to be posted before anything else, or NULL
};

static int32_t take(struct repghost_receiver *r, void *message) {
  for (; r->untold > 0; --r->untold) {
    const int32_t asked = r->turn;
    r->turn = (asked + 1) % r->count;
    r->status = r->take(r->subscriptions[asked], message, NULL, NULL);
    if (!r->status) {
      r->untold = r->count;
      return asked;
    }
    if (r->status != TAKE_FAILED) return FAILED;
  }
  return NOTHING;
}

// 0 once there may be messages, NOTHING where there are none or somebody wants the caller back.
static int32_t wait(struct repghost_receiver *r, int64_t nanoseconds) {
  if ((r->status = r->clear(r->set))) return FAILED;
  for (int32_t i = 0; i < r->count; ++i)
    if ((r->status = r->add_subscription(r->set, r->subscriptions[i], NULL))) return FAILED;
  if ((r->status = r->add_guard(r->set, r->guard, NULL))) return FAILED;
  r->status = r->wait(r->set, nanoseconds);
  if (r->status == TIMEOUT) return NOTHING;
  if (r->status) return FAILED;
  r->untold = r->count;
  return r->set->guard_conditions[0] ? NOTHING : 0;
}

sem_t *repghost_make_semaphore(void) {
  sem_t *made = malloc(sizeof *made);
  if (made) sem_init(made, 0, 0);
  return made;
}

void repghost_acquire(sem_t *semaphore) {
  while (sem_wait(semaphore)) continue;  // interrupted by a signal
}

void repghost_release(sem_t *semaphore) { sem_post(semaphore); }

void repghost_free_semaphore(sem_t *semaphore) {
  sem_destroy(semaphore);
  free(semaphore);
}

// Takes a message into `message`, an rcl_serialized_message_t, and returns its subscription's place; NOTHING
// once the time is over or the guard condition was triggered; FAILED with rcl's status.
int32_t repghost_receive(struct repghost_receiver *r, void *message, int64_t nanoseconds) {
  // The woken thread needs Python's lock first; the calling one does not hold it here.
  if (r->due) sem_post(r->due);
  r->due = NULL;
  const int32_t taken = take(r, message);
  if (taken != NOTHING) return taken;
  const int32_t waited = wait(r, nanoseconds);
  return waited ? waited : take(r, message);
}
