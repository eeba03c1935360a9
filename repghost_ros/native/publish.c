// SPDX-License-Identifier: Apache-2.0
// The best classes -> vision_msgs/Classification in CDR -> rcl, without Python.

#include <stdio.h>
#include <stdlib.h>

#include "cdr.h"
#include "native.h"

enum { NOT_MADE = -1 };  // the image has no header in little-endian CDR, or there is no memory

// rcl_serialized_message_t
struct serialized {
  uint8_t *buffer;
  size_t length, capacity;
  void *allocator[5];
};

static uint8_t *align(uint8_t *out, uint8_t *at, size_t size) {
  uint8_t *end = out + cdr_aligned((size_t)(at - out), size);
  memset(at, 0, (size_t)(end - at));
  return end;
}

static uint8_t *put(uint8_t *at, const void *value, size_t size) {
  memcpy(at, value, size);
  return at + size;
}

// The name of a class, a label or else its index in decimal; `digits` has room for that.
static const char *name(const struct repghost_labels *labels, int32_t class, char *digits, uint32_t *size) {
  if (!labels) {
    *size = (uint32_t)sprintf(digits, "%d", class);
    return digits;
  }
  const uint32_t start = class ? labels->ends[class - 1] : 0;
  *size = labels->ends[class] - start;
  return labels->texts + start;
}

// Writes the answer to an image, whose header it takes over; returns its size, at most `capacity`, or 0.
size_t repghost_serialize(const uint8_t *image, size_t length, const struct repghost_best *best,
                          const struct repghost_labels *labels, uint8_t *out, size_t capacity) {
  const size_t end = cdr_header_end(image, length);
  size_t needed = end + 8;
  char digits[12];
  uint32_t size;
  for (int32_t i = 0; i < best->count; ++i) {
    name(labels, best->index[i], digits, &size);
    needed += size + 32;  // and its length, score and padding
  }
  if (!end || needed > capacity) return 0;
  uint8_t *at = put(out, image, end);
  out[2] = out[3] = 0;
  at = align(out, at, 4);
  at = put(at, &best->count, 4);
  for (int32_t i = 0; i < best->count; ++i) {
    const char *text = name(labels, best->index[i], digits, &size);
    const uint32_t with_end = size + 1;
    at = align(out, at, 4);
    at = put(at, &with_end, 4);
    at = put(at, text, size);
    *at++ = 0;
    at = align(out, at, 8);
    at = put(at, &best->score[i], 8);
  }
  return (size_t)(at - out);
}

// Serializes and publishes with rcl_publish_serialized_message; returns its status, or NOT_MADE.
int32_t repghost_publish(int32_t (*publish)(const void *publisher, const void *message, void *allocation),
                         const void *publisher, const uint8_t *image, size_t length, const struct repghost_best *best,
                         const struct repghost_labels *labels) {
  if (!cdr_header_end(image, length)) return NOT_MADE;
  uint8_t small[2048];
  struct serialized message = {.buffer = small, .capacity = sizeof small};
  message.length = repghost_serialize(image, length, best, labels, small, sizeof small);
  if (!message.length) {
    message.capacity = length + (size_t)(labels ? labels->ends[labels->count - 1] : 0) + 64 * REPGHOST_MOST_CLASSES;
    message.buffer = malloc(message.capacity);
    if (!message.buffer) return NOT_MADE;
    message.length = repghost_serialize(image, length, best, labels, message.buffer, message.capacity);
  }
  const int32_t status = publish(publisher, &message, NULL);
  if (message.buffer != small) free(message.buffer);
  return status;
}
