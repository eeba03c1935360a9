// SPDX-License-Identifier: Apache-2.0
// Serialized images -> NV12 -> libdnn -> the best classes, without Python.

#include <math.h>
#include <time.h>

#include "native.h"

enum { CLEAN = 2, INVALIDATE = 1 };                       // HB_SYS_MEM_CACHE_*
enum { INT8 = 8, INT16 = 11, FLOAT32 = 13, INT32 = 14 };  // HB_DNN_TENSOR_TYPE_*
enum { DONE, FLUSHING, SUBMITTING, WAITING, INVALIDATING };

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

// Fills a pass's input from its message; false if no conversion is for it.
static bool fill(struct repghost_pass *pass) {
  for (const struct repghost_conversion *c = pass->conversions; c; c = c->next) {
    if (!repghost_convert(c, pass->message, pass->length, pass->nv12)) continue;
    pass->message = NULL;
    pass->converted = now();
    return true;
  }
  return false;
}

// The same as engine/results.py: softmax in double, the best first, of equal ones the lower index.
void repghost_rank(const float *logits, int32_t classes, int32_t wanted, double threshold, struct repghost_best *best,
                   double *scores) {
  double most = -INFINITY, sum = 0.0;
  best->count = -1;
  for (int32_t i = 0; i < classes; ++i) {
    if (!isfinite(logits[i])) return;
    if (logits[i] > most) most = logits[i];
  }
  for (int32_t i = 0; i < classes; ++i) sum += scores[i] = exp(logits[i] - most);
  int32_t found = 0;
  for (int32_t i = 0; i < classes; ++i) {
    if (found == wanted && scores[i] <= best->score[found - 1]) continue;
    int32_t rank = found < wanted ? found++ : found - 1;
    for (; rank > 0 && scores[i] > best->score[rank - 1]; --rank) {
      best->score[rank] = best->score[rank - 1];
      best->index[rank] = best->index[rank - 1];
    }
    best->score[rank] = scores[i];
    best->index[rank] = i;
  }
  int32_t count = 0;
  for (; count < found; ++count)
    if ((best->score[count] /= sum) < threshold) break;
  best->count = count;
}

static void read_logits(const struct repghost_program *p, struct repghost_pass *pass) {
  const int64_t first = pass->number * p->image_step, step = p->class_step;
#define READ(type)                                                           \
  for (int32_t i = 0; i < p->classes; ++i) {                                 \
    const float value = (float)((const type *)p->values)[first + i * step];  \
    pass->logits[i] = (value - p->offsets[i]) * p->factors[i];               \
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

// Fills the inputs, infers once for all, and ranks the classes of each. Returns DONE, the step that failed, or
// -1 - n where no conversion is for message n: fill its input, set its message to NULL, call again.
int32_t repghost_run(struct repghost_program *p, struct repghost_pass *const *passes, int32_t count) {
  for (int32_t i = 0; i < count; ++i)
    if (passes[i]->message && !fill(passes[i])) return -1 - i;
  const int32_t step = infer(p);
  if (step != DONE) return step;
  const double inferred = now();
  for (int32_t i = 0; i < count; ++i) {
    struct repghost_pass *pass = passes[i];
    pass->inferred = inferred;
    read_logits(p, pass);
    if (pass->wanted) repghost_rank(pass->logits, p->classes, pass->wanted, pass->threshold, &pass->best, p->scores);
  }
  return DONE;
}

// What the compiled helper was built from, in the order of native/__init__.py.
const int32_t repghost_layout[] = {
    REPGHOST_INTERFACE,
    sizeof(struct repghost_best),
    sizeof(struct repghost_pass),
    sizeof(struct repghost_receiver),
    sizeof(struct repghost_labels),
    sizeof(struct repghost_scaling),
    sizeof(struct repghost_conversion),
    sizeof(struct repghost_jpeg),
};
const int32_t repghost_program_size = sizeof(struct repghost_program);
