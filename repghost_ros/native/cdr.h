// SPDX-License-Identifier: Apache-2.0
// Reads serialized sensor_msgs images, little-endian CDR only; see vision/cdr.py for the format.

#ifndef REPGHOST_CDR_H
#define REPGHOST_CDR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { CDR_HEADER = 4 };  // bytes before the content; alignment counts from their end

static inline size_t cdr_aligned(size_t offset, size_t size) {
  return CDR_HEADER + (offset - CDR_HEADER + size - 1) / size * size;
}

static inline uint32_t cdr_uint32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

// Where the std_msgs/Header that a message begins with ends; 0 if there is none.
static inline size_t cdr_header_end(const uint8_t *raw, size_t length) {
  const size_t text = CDR_HEADER + 12;
  if (length < text || raw[0] != 0 || raw[1] != 1) return 0;
  const uint32_t size = cdr_uint32(raw + CDR_HEADER + 8);
  return size <= length - text ? text + size : 0;
}

#endif
