// SPDX-License-Identifier: Apache-2.0
// What Python and the compiled helper share; repghost_ros/native/__init__.py declares the same.

#ifndef REPGHOST_NATIVE_H
#define REPGHOST_NATIVE_H

#include <stddef.h>
#include <stdint.h>

enum { REPGHOST_INTERFACE = 1, REPGHOST_MOST_CLASSES = 16 };

// A frame on its way through the device: the request and its answer.
struct repghost_frame {
  const uint8_t *message;  // a serialized Image to fill the input from; NULL: the input is filled
  uint64_t length;
  double converted, inferred;  // seconds on the monotonic clock
  double threshold;
  int32_t wanted;  // how many classes to name; 0: none
  int32_t named;   // how many were; -1: the logits are not finite
  int32_t index[REPGHOST_MOST_CLASSES];
  double score[REPGHOST_MOST_CLASSES];
  float logits[];  // as many as the model has classes
};

#endif
