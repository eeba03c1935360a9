// SPDX-License-Identifier: Apache-2.0
// Planes of any encoding -> luma and chroma of the model's size. vision/scaling.py describes the filter, makes
// its tables, and does the same in Python. Integers alone, so that every processor gives the same pixels.

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

enum { ROWS = 4, POINTS = 4, COLUMNS = 8 };  // a pixel is made of; from one pixel to the next; a pixel is made of
enum { ROW_SHIFT = 8, GAIN_SHIFT = 22 };     // weights of rows add up to 256, of columns to 64; gains are 65536ths
enum { LANES = 4 };                          // values of a point
enum { PADDING = 4 };                        // bytes that may be read behind a row of pixels of three bytes
enum { LINE = 64, SHORT = 4096 };            // bytes of a cache line; of a row over before the processor reads ahead

// One binary for every x86-64, which has twice as wide vectors since 2013. Sanitizers run before the choice is made.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define VECTORIZED __attribute__((target_clones("avx2", "default")))
#else
#define VECTORIZED
#endif
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS uint8_t level(int32_t value) { return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value); }

// Weighted rows -> a row.
VECTORIZED static void blend(uint8_t *restrict out, const uint8_t *const *rows, const uint16_t *weights, size_t bytes) {
  const uint8_t *restrict a = rows[0], *restrict b = rows[1], *restrict c = rows[2], *restrict d = rows[3];
  const uint16_t w[ROWS] = {weights[0], weights[1], weights[2], weights[3]};
  for (size_t i = 0; i < bytes; ++i) {
    const uint16_t sum = (uint16_t)(a[i] * w[0] + b[i] * w[1] + c[i] * w[2] + d[i] * w[3] + (1 << (ROW_SHIFT - 1)));
    out[i] = (uint8_t)(sum >> ROW_SHIFT);
  }
}

ALWAYS void prefetch(const uint8_t *row, size_t bytes) {
  for (size_t at = 0; at < bytes; at += LINE) __builtin_prefetch(row + at);
}

// Several rows -> one, `unit` bytes of each in turn.
ALWAYS void weave_units(uint8_t *restrict out, const uint8_t *restrict rows, size_t step, size_t bytes, size_t unit) {
  for (size_t i = 0; i < bytes / unit; ++i)
    for (size_t n = 0; n < LANES / unit; ++n) memcpy(out + i * LANES + n * unit, rows + n * step + i * unit, unit);
}

VECTORIZED static void weave_of_4(uint8_t *out, const uint8_t *rows, size_t step, size_t bytes) {
  weave_units(out, rows, step, bytes, 1);
}

VECTORIZED static void weave_of_2(uint8_t *out, const uint8_t *rows, size_t step, size_t bytes) {
  weave_units(out, rows, step, bytes, 2);
}

// The points of a row, point n of every pixel in plane n % points.
ALWAYS void pick_points(uint8_t *out, const uint8_t *row, const int32_t *at, size_t plane, size_t points) {
  for (size_t i = 0; i < plane; ++i, at += points)
    for (size_t n = 0; n < points; ++n) memcpy(out + (n * plane + i) * LANES, row + at[n], LANES);
}

static void pick(uint8_t *out, const uint8_t *row, const struct repghost_axis *x, size_t plane) {
  if (x->points == POINTS)
    pick_points(out, row, x->index, plane, POINTS);
  else
    pick_points(out, row, x->index, plane, 1);
}

// Weighted points -> pixels, `values` of them.
ALWAYS void weigh(uint16_t *restrict out, const uint8_t *restrict points, const uint16_t *restrict weights,
                  size_t plane, size_t values, size_t taps) {
  for (size_t i = 0; i < values; ++i) {
    uint16_t sum = 0;
#pragma GCC unroll 8
    for (size_t n = 0; n < taps; ++n)
      sum = (uint16_t)(sum + points[n % POINTS * plane + n / POINTS * LANES + i] * weights[n * values + i]);
    out[i] = sum;
  }
}

VECTORIZED static void narrow(uint16_t *out, const uint8_t *points, const uint16_t *weights, size_t plane,
                              size_t values) {
  weigh(out, points, weights, plane, values, COLUMNS);
}

VECTORIZED static void interpolate(uint16_t *out, const uint8_t *points, const uint16_t *weights, size_t plane,
                                   size_t values) {
  weigh(out, points, weights, plane, values, POINTS);
}

VECTORIZED static void keep(uint16_t *out, const uint8_t *points, const uint16_t *weights, size_t values) {
  weigh(out, points, weights, 0, values, 1);
}

// Sums of 2x2 pixels of two rows.
VECTORIZED static void halve(uint16_t *restrict out, const uint16_t *restrict a, const uint16_t *restrict b,
                             size_t pixels) {
  for (size_t i = 0; i < pixels; ++i)
    for (size_t n = 0; n < LANES; ++n) {
      const size_t left = 2 * i * LANES + n;
      out[i * LANES + n] = (uint16_t)(a[left] + a[left + LANES] + b[left] + b[left + LANES]);
    }
}

ALWAYS int32_t mixed(const uint16_t *restrict in, const int32_t *gains, size_t lanes) {
  int32_t sum = gains[LANES];
  for (size_t n = 0; n < lanes; ++n) sum += in[n] * gains[n];
  return sum >> GAIN_SHIFT;
}

// Row -> pixels: one weighted sum of a pixel's values, or two.
ALWAYS void mix_one(uint8_t *restrict out, const uint16_t *restrict in, const int32_t *gains, size_t pixels,
                    size_t lanes) {
  for (size_t i = 0; i < pixels; ++i) out[i] = level(mixed(in + i * LANES, gains, lanes));
}

ALWAYS void mix_two(uint8_t *restrict out, const uint16_t *restrict in, const int32_t *u, const int32_t *v,
                    size_t pixels, size_t lanes) {
  for (size_t i = 0; i < pixels; ++i) {
    out[2 * i] = level(mixed(in + i * LANES, u, lanes));
    out[2 * i + 1] = level(mixed(in + i * LANES, v, lanes));
  }
}

VECTORIZED static void luma_of_1(uint8_t *out, const uint16_t *in, const int32_t *gains, size_t pixels) {
  mix_one(out, in, gains, pixels, 1);
}

VECTORIZED static void luma_of_4(uint8_t *out, const uint16_t *in, const int32_t *gains, size_t pixels) {
  mix_one(out, in, gains, pixels, 4);
}

VECTORIZED static void chroma_of_2(uint8_t *out, const uint16_t *in, const int32_t *u, const int32_t *v,
                                   size_t pixels) {
  mix_two(out, in, u, v, pixels, 2);
}

VECTORIZED static void chroma_of_4(uint8_t *out, const uint16_t *in, const int32_t *u, const int32_t *v,
                                   size_t pixels) {
  mix_two(out, in, u, v, pixels, 4);
}

// A buffer's parts: `take` advances through it, 64 bytes at a time.
static void *take(uint8_t **memory, size_t bytes) {
  void *part = *memory;
  *memory += (bytes + 63) / 64 * 64;
  return part;
}

// Fills luma or chroma of an NV12 image, or both, from one or two lines a row of points. `lines` are the first rows,
// `steps` the bytes from one to the next, `stride` those of `y` and `uv`. Returns whether there was memory for it.
// A point has four values always: of one row, or of two or four that are made together.
int32_t repghost_scale(const struct repghost_scaling *s, const uint8_t *const *lines, const int64_t *steps, uint8_t *y,
                       uint8_t *uv, int64_t stride) {
  const struct repghost_axis *down = &s->rows, *across = &s->columns;
  const size_t bytes = (size_t)s->bytes, lanes = (size_t)s->lanes, pixels = (size_t)across->size;
  const size_t values = pixels * LANES;
  const size_t plane = pixels + (across->taps == COLUMNS ? COLUMNS / POINTS - 1 : 0);
  const size_t picked = (size_t)across->points * plane * LANES;
  const int32_t together = LANES / s->lanes, streams = together * s->lines;
  const size_t room = (bytes + PADDING + LINE - 1) / LINE * LINE;
  uint8_t *const memory = malloc(2 * (size_t)streams * room + picked + 3 * 2 * values + 6 * LINE);
  if (!memory) return 0;
  uint8_t *free_part = memory;
  uint8_t *const rows = take(&free_part, (size_t)streams * room);
  uint8_t *const woven = take(&free_part, (size_t)streams * room);
  uint8_t *const points = take(&free_part, picked);
  uint16_t *const filtered[2] = {take(&free_part, 2 * values), take(&free_part, 2 * values)};
  uint16_t *const halved = take(&free_part, 2 * values);
  memset(rows + bytes, 0, PADDING);
  for (int32_t i = 0; i < down->size; i += together) {
    const int32_t made = down->size - i < together ? down->size - i : together;
    for (int32_t stream = 0; stream < made * s->lines; ++stream) {
      const int32_t line = stream % s->lines, at = i + stream / s->lines;
      const int32_t *index = down->index + at * down->points;
      const uint8_t *from[ROWS];
      for (int32_t n = 0; n < ROWS; ++n) from[n] = lines[line] + index[n] * steps[line];
      for (int32_t n = ROWS / 2; n < ROWS && at + 1 < down->size && bytes <= SHORT; ++n)
        prefetch(lines[line] + index[ROWS + n] * steps[line], bytes);
      blend(rows + (size_t)stream * room, from, down->weights + (size_t)(line * down->size + at) * ROWS, bytes);
    }
    if (streams == 4) weave_of_4(woven, rows, room, bytes);
    if (streams == 2) weave_of_2(woven, rows, room, bytes);
    pick(points, streams == 1 ? rows : woven, across, plane);
    uint16_t *const out = filtered[i & 1];
    if (across->taps == COLUMNS) {
      narrow(out, points, across->weights, plane * LANES, values);
    } else if (across->taps == POINTS) {
      interpolate(out, points, across->weights, plane * LANES, values);
    } else {
      keep(out, points, across->weights, values);
    }
    for (int32_t n = 0; n < made; ++n) {
      const uint16_t *own = out + n * s->lanes;
      const int64_t at = (i + n) * stride;
      if (s->makes & REPGHOST_LUMA) (lanes == 1 ? luma_of_1 : luma_of_4)(y + at, own, s->gains[0], pixels);
      if (s->makes & REPGHOST_CHROMA)
        (lanes == 2 ? chroma_of_2 : chroma_of_4)(uv + at, own, s->gains[1], s->gains[2], pixels);
    }
    if (s->makes & REPGHOST_HALVED_CHROMA && i & 1) {
      halve(halved, filtered[0], filtered[1], pixels / 2);
      chroma_of_4(uv + i / 2 * stride, halved, s->gains[1], s->gains[2], pixels / 2);
    }
  }
  free(memory);
  return 1;
}

// Levels -> levels of another range, where backends/conversions.py has found that 16 bits give the same.
VECTORIZED void repghost_relevel(uint8_t *restrict out, const uint8_t *restrict in, uint16_t factor, int16_t added,
                                 size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    const uint16_t product = (uint16_t)((uint32_t)(uint16_t)(in[i] << 8) * factor >> 16);
    const int16_t value = (int16_t)((int16_t)(product + added) >> 6);
    out[i] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
  }
}
