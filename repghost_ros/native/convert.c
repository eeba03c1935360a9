// SPDX-License-Identifier: Apache-2.0
// Serialized images -> NV12 of the model's size, as Python converted the first one with the same fields.

#include <stdbool.h>

#include "cdr.h"
#include "native.h"

// Returns the data of a message whose fields are those of the conversion, NULL if any of them differs.
static const uint8_t *find_data(const struct repghost_conversion *c, const uint8_t *raw, size_t length, size_t *size) {
  size_t at = cdr_header_end(raw, length);
  if (!at) return NULL;
  at = cdr_aligned(at, 4);
  if (length < at || length - at < c->fields_size || memcmp(raw + at, c->fields, c->fields_size) != 0) return NULL;
  at = cdr_aligned(at + c->fields_size, 4);
  const size_t numbers = c->jpeg ? 4 : 8;  // the length of the data, and before it the step
  if (length < at || length - at < numbers) return NULL;
  at += numbers;
  *size = cdr_uint32(raw + at - 4);
  if (!c->jpeg && (*size != c->size || cdr_uint32(raw + at - 8) != c->step)) return NULL;
  return *size <= length - at ? raw + at : NULL;
}

static size_t big_endian(const uint8_t *at) { return (size_t)at[0] << 8 | at[1]; }

// Returns the size of a JPEG up to its end marker, if it consists of tables and a single scan and is framed like the
// first one; else 0. vision/jpeg.py reads all others.
static size_t measure(const struct repghost_jpeg *jpeg, const uint8_t *data, size_t size) {
  enum { SOF = 0xc0, DHT = 0xc4, JPG = 0xc8, DAC = 0xcc, EOI = 0xd9, SOS = 0xda, DQT = 0xdb, DRI = 0xdd };
  enum { APP0 = 0xe0, APP15 = 0xef, COM = 0xfe };
  if (size < 4 || data[0] != 0xff || data[1] != 0xd8) return 0;
  size_t at = 2, interval = 0;
  bool framed = false;
  for (uint8_t marker = 0; marker != SOS;) {
    if (size - at < 4 || data[at] != 0xff) return 0;
    marker = data[at + 1];
    const size_t segment = 2 + big_endian(data + at + 2);
    if (segment < 4 || segment > size - at) return 0;
    if ((marker & 0xf0) == SOF && marker != DHT && marker != JPG && marker != DAC) {
      if (framed || segment != jpeg->frame_size || memcmp(data + at, jpeg->frame, segment) != 0) return 0;
      framed = true;
    } else if (marker == DRI && segment >= 6) {
      interval = big_endian(data + at + 4);
    } else if (marker != SOS && marker != DHT && marker != DQT && marker != COM && (marker < APP0 || marker > APP15)) {
      return 0;
    }
    at += segment;
  }
  if (!framed || interval != jpeg->interval) return 0;
  for (uint32_t restarts = 0;;) {
    const uint8_t *found = memchr(data + at, 0xff, size - at);
    if (!found || found + 1 == data + size) return 0;
    at = (size_t)(found - data) + 1;
    if (data[at] == 0xff) continue;
    const uint8_t after = data[at++];
    if ((after & 0xf8) == 0xd0) {
      ++restarts;
    } else if (after) {
      return after == EOI && restarts >= jpeg->restarts ? at : 0;
    }
  }
}

// Decodes a JPEG into the conversion's planes; false if it differs from the first one, or libjpeg warns of anything.
static bool decode(const struct repghost_jpeg *jpeg, const uint8_t *data, size_t size) {
  size = measure(jpeg, data, size);
  // A new decoder for each: one that is used again would fill missing tables in from the JPEG before.
  void *decoder = size ? jpeg->open() : NULL;
  if (!decoder) return false;
  int32_t width, height, sampling, colors;
  const bool decoded = !jpeg->read_header(decoder, data, size, &width, &height, &sampling, &colors) &&
                       width == jpeg->width && height == jpeg->height && sampling == jpeg->sampling &&
                       colors == jpeg->colors &&
                       !jpeg->decode(decoder, data, size, jpeg->planes, jpeg->decoded_width, NULL, jpeg->decoded_height, 0);
  jpeg->close(decoder);
  return decoded;
}

static void relevel(const struct repghost_part *part, const uint8_t *line, uint8_t *nv12, int64_t stride) {
  const struct repghost_scaling *s = part->scaling;
  uint8_t *out = nv12 + (s->makes & REPGHOST_LUMA ? part->y : part->uv);
  const size_t bytes = (size_t)s->columns.size * (size_t)s->lanes;
  for (int32_t i = 0; i < s->rows.size; ++i)
    repghost_relevel(out + i * stride, line + i * part->steps[0], part->factor, part->added, bytes);
}

static bool scale(const struct repghost_conversion *c, const uint8_t *source, uint8_t *nv12) {
  const size_t stride = (size_t)c->stride, luma = (size_t)c->height * stride;
  if (c->black >= 0) memset(nv12, c->black, luma);
  if (c->gray) memset(nv12 + luma, 128, luma / 2);
  for (int32_t i = 0; i < c->count; ++i) {
    const struct repghost_part *part = &c->parts[i];
    const uint8_t *lines[2];
    for (int n = 0; n < 2; ++n) lines[n] = c->jpeg ? part->planes[n] : source + part->offsets[n];
    if (part->factor)
      relevel(part, lines[0], nv12, c->stride);
    else if (!repghost_scale(part->scaling, lines, part->steps, nv12 + part->y, nv12 + part->uv, c->stride)) return false;
  }
  return true;
}

// Converts a serialized image into the model's input; false if the conversion is not for it, or there is no memory.
bool repghost_convert(const struct repghost_conversion *c, const uint8_t *message, size_t length, uint8_t *nv12) {
  size_t size = 0;
  const uint8_t *data = find_data(c, message, length, &size);
  if (!data || (c->jpeg && !decode(c->jpeg, data, size))) return false;
  return scale(c, data, nv12);
}
