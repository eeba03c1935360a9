// SPDX-License-Identifier: Apache-2.0
// Waits for the messages of several subscriptions and takes them, through rcl, without Python.

#include <sys/eventfd.h>

#include "native.h"

enum { TIMEOUT = 2, TAKE_FAILED = 401 };  // RCL_RET_*
enum { NOTHING = -1, FAILED = -2 };

static int32_t take(struct repghost_receiver *r, void *message) {
  for (; r->unasked > 0; --r->unasked) {
    const int32_t asked = r->turn;
    r->turn = (asked + 1) % r->count;
    r->status = r->take(r->subscriptions[asked], message, NULL, NULL);
    if (!r->status) {
      r->unasked = r->count;
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
  r->unasked = r->count;
  return r->set->guard_conditions[0] ? NOTHING : 0;
}

// Takes a message into `message`, an rcl_serialized_message_t, and returns its subscription's place; NOTHING
// once the time is over or the guard condition was triggered; FAILED with rcl's status.
int32_t repghost_receive(struct repghost_receiver *r, void *message, int64_t nanoseconds) {
  // The woken thread needs Python's lock first; the calling one does not hold it here.
  if (r->wake >= 0) eventfd_write(r->wake, 1);
  const int32_t taken = take(r, message);
  if (taken != NOTHING) return taken;
  const int32_t waited = wait(r, nanoseconds);
  return waited ? waited : take(r, message);
}
