// SPDX-License-Identifier: Apache-2.0
// Serialized images -> NV12 -> libdnn -> the best classes, without Python.

#include <math.h>
#include <stdbool.h>
#include <time.h>

#include "cdr.h"
#include "native.h"

enum { CLEAN = 2, INVALIDATE = 1 };                       // HB_SYS_MEM_CACHE_*
enum { INT8 = 8, INT16 = 11, FLOAT32 = 13, INT32 = 14 };  // HB_DNN_TENSOR_TYPE_*
enum { DONE, FLUSHING, SUBMITTING, WAITING, INVALIDATING };

// One compiled batch size of a slot: what an inference needs, made once.
struct repghost_program {
  int32_t (*flush)(void *memory, int32_t how);
  int32_t (*infer)(void **task, void **outputs, const void *inputs, void *model, void *control);
  int32_t (*wait)(void *task, int32_t timeout_ms);
  int32_t (*release)(void *task);
  void *model, *control, *outputs, *answer;
  const void *inputs;
  void *const *images;    // hbSysMem of each input
  uint8_t *const *nv12;   // the pixels of each input
  const void *values;     // the answers as the device writes them
  const float *factors, *offsets;
  double *scores;  // room for those of all classes
  int64_t image_step, class_step;
  int32_t batch, timeout_ms, width, height, stride, classes, element;
  int32_t one_factor, one_offset;  // whether there is one for all classes
  int32_t status;                  // of libdnn, where a step failed
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

// Copies a serialized NV12 image of the model's size; false if it is anything else.
static bool fill(const struct repghost_program *p, const uint8_t *raw, size_t length, uint8_t *nv12) {
  static const char encoding[] = "nv12";
  size_t place = cdr_header_end(raw, length);
  if (!place) return false;
  place = cdr_aligned(place, 4);
  // Height, width, encoding and its length, is_bigendian, step and the length of the data.
  const size_t pixels = cdr_aligned(place + 12 + sizeof encoding + 1, 4) + 8;
  if (length < pixels || cdr_uint32(raw + place) != (uint32_t)p->height ||
      cdr_uint32(raw + place + 4) != (uint32_t)p->width || cdr_uint32(raw + place + 8) != sizeof encoding ||
      memcmp(raw + place + 12, encoding, sizeof encoding) != 0)
    return false;
  const size_t step = cdr_uint32(raw + pixels - 8), size = cdr_uint32(raw + pixels - 4);
  const size_t width = (size_t)p->width, rows = (size_t)p->height * 3 / 2;
  // The last row need not be padded.
  if (step < width || size > rows * step || size < (rows - 1) * step + width || size > length - pixels) return false;
  const uint8_t *from = raw + pixels;
  if (step == width && (size_t)p->stride == width) {
    memcpy(nv12, from, rows * width);
  } else {
    for (size_t row = 0; row < rows; ++row) memcpy(nv12 + row * (size_t)p->stride, from + row * step, width);
  }
  return true;
}

// The same as results.py: softmax in double, the best first, of equal ones the lower index.
int32_t repghost_best(const float *logits, int32_t classes, int32_t wanted, double threshold, int32_t *index,
                      double *score, double *scores) {
  double most = -INFINITY, sum = 0.0;
  for (int32_t i = 0; i < classes; ++i) {
    if (!isfinite(logits[i])) return -1;
    if (logits[i] > most) most = logits[i];
  }
  for (int32_t i = 0; i < classes; ++i) sum += scores[i] = exp(logits[i] - most);
  int32_t found = 0;
  for (int32_t i = 0; i < classes; ++i) {
    if (found == wanted && scores[i] <= score[found - 1]) continue;
    int32_t place = found < wanted ? found++ : found - 1;
    for (; place > 0 && scores[i] > score[place - 1]; --place) {
      score[place] = score[place - 1];
      index[place] = index[place - 1];
    }
    score[place] = scores[i];
    index[place] = i;
  }
  int32_t named = 0;
  for (; named < found; ++named)
    if ((score[named] /= sum) < threshold) break;
  return named;
}

static void read_logits(const struct repghost_program *p, int32_t image, float *logits) {
  const int64_t first = image * p->image_step, step = p->class_step;
#define READ(type)                                                                   \
  for (int32_t i = 0; i < p->classes; ++i) {                                         \
    const float value = (float)((const type *)p->values)[first + i * step];          \
    logits[i] = (value - p->offsets[p->one_offset ? 0 : i]) * p->factors[p->one_factor ? 0 : i]; \
  }
  switch (p->element) {
    case INT8: READ(int8_t) break;
    case INT16: READ(int16_t) break;
    case FLOAT32: READ(float) break;
    case INT32: READ(int32_t) break;
  }
#undef READ
}

static int32_t infer(struct repghost_program *p) {
  for (int32_t i = 0; i < p->batch; ++i)
    if ((p->status = p->flush(p->images[i], CLEAN))) return FLUSHING;
  void *task = NULL;
  if ((p->status = p->infer(&task, p->outputs, p->inputs, p->model, p->control))) return SUBMITTING;
  p->status = p->wait(task, p->timeout_ms);
  p->release(task);
  if (p->status) return WAITING;
  return (p->status = p->flush(p->answer, INVALIDATE)) ? INVALIDATING : DONE;
}

// Fills the inputs, infers once for all frames, and names their best classes. Returns DONE, the step that
// failed, or -1 - n where frame n is no plain NV12: fill its input, set its message to NULL, call again.
int32_t repghost_run(struct repghost_program *p, struct repghost_frame *const *frames, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    if (!frames[i]->message) continue;
    if (!fill(p, frames[i]->message, frames[i]->length, p->nv12[i])) return -1 - i;
    frames[i]->message = NULL;
    frames[i]->converted = now();
  }
  const int32_t step = infer(p);
  if (step != DONE) return step;
  const double inferred = now();
  for (int32_t i = 0; i < count; ++i) {
    struct repghost_frame *f = frames[i];
    f->inferred = inferred;
    read_logits(p, i, f->logits);
    if (f->wanted)
      f->named = repghost_best(f->logits, p->classes, f->wanted, f->threshold, f->index, f->score, p->scores);
  }
  return DONE;
}

int32_t repghost_interface(void) { return REPGHOST_INTERFACE; }
