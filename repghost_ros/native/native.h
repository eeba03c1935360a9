// SPDX-License-Identifier: Apache-2.0
// The structures that Python fills for the compiled helper, and reads; native/__init__.py checks their sizes.

#ifndef REPGHOST_NATIVE_H
#define REPGHOST_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REPGHOST_INTERFACE = 6, REPGHOST_MOST_CLASSES = 16 };

// The most probable classes, best first.
struct repghost_best {
  int32_t count;  // -1: the logits are not finite
  int32_t index[REPGHOST_MOST_CLASSES];
  double score[REPGHOST_MOST_CLASSES];
};

// A frame's pass through the device: the request and its answer.
struct repghost_pass {
  const uint8_t *message;  // a serialized image to fill the input from; NULL: the input is filled
  uint64_t length;
  const struct repghost_conversion *conversions;  // of which one may be for it
  uint8_t *nv12;  // the pixels of its input
  double converted, inferred;  // seconds on the monotonic clock
  double threshold;
  int32_t number;  // of its input
  int32_t wanted;  // how many classes to rank; 0: none
  struct repghost_best best;
  float logits[];  // as many as the model has classes
};

// One compiled batch size of a slot: what an inference needs, made once.
struct repghost_program {
  int32_t (*flush)(void *memory, int32_t how);
  int32_t (*infer)(void **task, void **outputs, const void *inputs, void *model, void *control);
  int32_t (*wait)(void *task, int32_t timeout_ms);
  int32_t (*release)(void *task);
  void *model, *control, *outputs, *answer;
  const void *inputs;
  void *const *images;  // hbSysMem of each input
  const void *values;   // the answers as the device writes them
  const float *factors, *offsets;  // one a class: logit = (value - offset) * factor
  double *scores;  // room for those of all classes
  int64_t image_step, class_step;
  int32_t batch, timeout_ms, classes, element;
  int32_t status;  // of libdnn, where a step failed
};

// Which points of a row or column a pixel is made of; see vision/scaling.py.
struct repghost_axis {
  const int32_t *index;     // of each point: a row, or a byte within a row or within rows woven into one; ascending
  const uint16_t *weights;  // rows: 4 for each line and pixel; columns: of a tap for all values of points, then the next tap's
  int32_t size;             // pixels made
  int32_t points;           // from a pixel's first point to the next pixel's
  int32_t taps;             // points that make a pixel
};

enum { REPGHOST_LUMA = 1, REPGHOST_CHROMA = 2, REPGHOST_HALVED_CHROMA = 4 };

// How one or two planes become luma, chroma or both.
struct repghost_scaling {
  struct repghost_axis rows, columns;
  int32_t gains[3][5];  // of Y, U and V: for the values of a pixel, then what is added, in 65536ths
  int32_t makes;        // REPGHOST_LUMA, ...
  int32_t lines;        // planes that share their points: 2 for both rows of a Bayer cell, and for U and V
  int32_t lanes;        // values of a pixel: 1, 2 or 4
  int32_t bytes;        // of a row
};

int32_t repghost_scale(const struct repghost_scaling *scaling, const uint8_t *const *lines, const int64_t *steps,
                       uint8_t *y, uint8_t *uv, int64_t stride);

void repghost_relevel(uint8_t *out, const uint8_t *in, uint16_t factor, int16_t added, size_t bytes);

// One or two planes of a picture, and the part of the model's input that they become.
struct repghost_part {
  const struct repghost_scaling *scaling;
  const uint8_t *planes[2];  // first rows: of a JPEG
  int64_t offsets[2];        // of another image, in its data
  int64_t steps[2];          // bytes from one row to the next
  int64_t y, uv;             // offsets in the input
  uint16_t factor;           // not 0: nothing is scaled, levels alone change; see repghost_relevel
  int16_t added;
};

// How JPEGs framed like the first one are decoded, by libturbojpeg.
struct repghost_jpeg {
  void *(*open)(void);
  int32_t (*close)(void *decoder);
  int32_t (*read_header)(void *decoder, const uint8_t *data, unsigned long size, int32_t *width, int32_t *height,
                         int32_t *sampling, int32_t *colors);
  int32_t (*decode)(void *decoder, const uint8_t *data, unsigned long size, uint8_t *const *planes, int32_t width,
                    int32_t *steps, int32_t height, int32_t flags);
  const uint8_t *frame;  // the frame header: size and sampling
  uint64_t frame_size;
  uint64_t interval;   // MCUs between two restart markers; 0: there are none
  uint8_t *planes[3];  // into which it is decoded
  int32_t width, height, sampling, colors, decoded_width, decoded_height;
  uint32_t restarts;  // markers, at least
};

// How messages with the same fields become the model's input, in offsets from their data and from that input.
struct repghost_conversion {
  const struct repghost_conversion *next;
  const uint8_t *fields;  // an Image's height, width, encoding and is_bigendian; a CompressedImage's format
  uint64_t fields_size;
  const struct repghost_jpeg *jpeg;  // NULL: for an Image
  struct repghost_part parts[2];
  int64_t stride;
  int32_t height;
  uint32_t step, size;  // an Image's, and that of its data
  int32_t count;        // of the parts
  int32_t black;        // luma of letterbox's bars, or -1
  int32_t gray;         // whether there is chroma that no part makes
};

bool repghost_convert(const struct repghost_conversion *conversion, const uint8_t *message, size_t length,
                      uint8_t *nv12);

// What rcl_wait_set_t begins with.
struct repghost_wait_set {
  const void **subscriptions;
  size_t subscription_count;
  const void **guard_conditions;
};

// Several subscriptions, and how to wait for their messages.
struct repghost_receiver {
  int32_t (*wait)(struct repghost_wait_set *set, int64_t nanoseconds);
  int32_t (*clear)(struct repghost_wait_set *set);
  int32_t (*add_subscription)(struct repghost_wait_set *set, const void *subscription, size_t *index);
  int32_t (*add_guard)(struct repghost_wait_set *set, const void *guard, size_t *index);
  int32_t (*take)(const void *subscription, void *message, void *info, void *allocation);
  struct repghost_wait_set *set;
  const void *guard;
  const void *const *subscriptions;
  int32_t count;
  int32_t turn;       // the subscription to ask next
  int32_t unasked;    // how many may have a message
  int32_t status;     // of rcl, where it failed
  int32_t wake;       // eventfd to write to before anything else, or -1
};

// The names of all classes, one after the other.
struct repghost_labels {
  const char *texts;
  const uint32_t *ends;
  int32_t count;
};

#endif
