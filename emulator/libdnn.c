// A stand-in for the RDK X5's libdnn.so: the same ABI, a modelled device, and a strict bookkeeper.
//
// Written from the published interface (hb_dnn.h 1.22.6, hb_sys.h, hb_dnn_status.h). It models
//   - the device: one BPU core that serves tasks one at a time, highest priority first. A task costs
//     `overhead_us` on the host, half before and half after `exclusive_us` on the device. The device
//     keeps its own clock, so that late wake-ups of this process never add up.
//   - the cache: the CPU and the BPU see two copies of every allocation; hbSysFlushMem copies between
//     them and nothing else does. Whoever forgets a flush computes on, or reads, stale bytes.
//   - the rules: leaks, double frees, stale handles and buffers freed under a running task are counted.
// Models are text files of `key value` lines (see board.py). A real .bin is taken for the shipped demo
// model, whatever is in it. Failures are injected with emu_fail or, into another process, through a control
// file.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

// ---- The vendor's ABI (LP64) ------------------------------------------------------------------

enum { MAX_DIMENSIONS = 8, MAX_TASKS = 32, MAX_BATCH = 32, MAX_PACKED = 8 };
enum { LAYOUT_NHWC = 0, LAYOUT_NCHW = 2 };
enum { TYPE_NV12 = 1, TYPE_NV12_SEPARATE = 2, TYPE_S8 = 8, TYPE_S16 = 11, TYPE_F32 = 13, TYPE_S32 = 14 };
enum { QUANTI_NONE, QUANTI_SHIFT, QUANTI_SCALE };
enum { CACHE_INVALIDATE = 1, CACHE_CLEAN = 2 };
enum {
  INVALID_ARGUMENT = -6000001,
  INVALID_MODEL = -6000002,
  INVALID_PACKED_HANDLE = -6000004,
  INVALID_HANDLE = -6000005,
  CAN_NOT_OPEN_FILE = -6000006,
  TIMED_OUT = -6000008,
  TOO_MANY_TASKS = -6000009,
  INVALID_TASK = -6000011,
  MODEL_IS_RUNNING = -6000013,
  SYS_INVALID_ARGUMENT = -6000129,
  SYS_OUT_OF_MEMORY = -6000130,
};

typedef struct {
  uint64_t phyAddr;
  void *virAddr;
  uint32_t memSize;
} SysMem;

typedef struct {
  int32_t dimensionSize[MAX_DIMENSIONS];
  int32_t numDimensions;
} Shape;

typedef struct {
  int32_t shiftLen;
  uint8_t *shiftData;
} Shift;

typedef struct {
  int32_t scaleLen;
  float *scaleData;
  int32_t zeroPointLen;
  int8_t *zeroPointData;
} Scale;

typedef struct {
  Shape validShape;
  Shape alignedShape;
  int32_t tensorLayout;
  int32_t tensorType;
  Shift shift;
  Scale scale;
  int32_t quantiType;
  int32_t quantizeAxis;
  int32_t alignedByteSize;
  int32_t stride[MAX_DIMENSIONS];
} Properties;

typedef struct {
  SysMem sysMem[4];
  Properties properties;
} Tensor;

typedef struct {
  int32_t bpuCoreId;
  int32_t dspCoreId;
  int32_t priority;
  int32_t more;
  int64_t customId;
  int32_t reserved1;
  int32_t reserved2;
} InferControl;

// Every size and offset that follows from the published header on a 64-bit board.
#define LAYOUT(X)                                                                                  \
  X(SysMem, phyAddr, 0) X(SysMem, virAddr, 8) X(SysMem, memSize, 16)                               \
  X(Shape, dimensionSize, 0) X(Shape, numDimensions, 32)                                           \
  X(Shift, shiftLen, 0) X(Shift, shiftData, 8)                                                     \
  X(Scale, scaleLen, 0) X(Scale, scaleData, 8) X(Scale, zeroPointLen, 16) X(Scale, zeroPointData, 24) \
  X(Properties, validShape, 0) X(Properties, alignedShape, 36) X(Properties, tensorLayout, 72)     \
  X(Properties, tensorType, 76) X(Properties, shift, 80) X(Properties, scale, 96)                  \
  X(Properties, quantiType, 128) X(Properties, quantizeAxis, 132)                                  \
  X(Properties, alignedByteSize, 136) X(Properties, stride, 140)                                   \
  X(Tensor, sysMem, 0) X(Tensor, properties, 96)                                                   \
  X(InferControl, bpuCoreId, 0) X(InferControl, dspCoreId, 4) X(InferControl, priority, 8)         \
  X(InferControl, more, 12) X(InferControl, customId, 16) X(InferControl, reserved1, 24)           \
  X(InferControl, reserved2, 28)
#define SIZES(X)                                                                                   \
  X(SysMem, 24) X(Shape, 36) X(Shift, 16) X(Scale, 32) X(Properties, 176) X(Tensor, 272)           \
  X(InferControl, 32)
#define ASSERT_OFFSET(type, field, offset) _Static_assert(offsetof(type, field) == offset, #type "." #field);
#define ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == size, #type);
LAYOUT(ASSERT_OFFSET)
SIZES(ASSERT_SIZE)

// ---- State ------------------------------------------------------------------------------------

typedef struct Memory {
  struct Memory *next;
  uint8_t *cpu;     // what virAddr points to
  uint8_t *device;  // what the BPU reads and writes
  uint32_t size;
} Memory;

typedef struct Model {
  struct Model *next;
  char name[128];
  int inputs, outputs, width, height, aligned_width, classes, batch;
  int64_t overhead_ns, exclusive_ns;
  Properties input, output;
  float *scale;
  int8_t *zero_point;
  uint8_t *shift;
} Model;

// One file: the models that hb_pack put into it.
typedef struct Pack {
  struct Pack *next;
  Model *models[MAX_PACKED];
  const char *names[MAX_PACKED];
  int count;
} Pack;

enum State { QUEUED, RUNNING, DONE };

typedef struct Task {
  struct Task *next;
  Model *model;
  uint8_t *nv12;  // compact copies of what the device had in its memory, one image after the other
  SysMem output;
  const void *used[2 * MAX_BATCH + 1];  // virAddr of every buffer of this task, the output's last
  enum State state;
  int32_t status, priority;
  int64_t custom_id, ready, done;  // nanoseconds, CLOCK_MONOTONIC
  int released, computed;
} Task;

typedef struct {
  int64_t live_models, live_allocations, live_tasks;
  int64_t bad_frees, bad_handles, freed_in_use, stale_inputs;
  int64_t inferences, in_flight, max_in_flight, busy_ns;
} Stats;

typedef struct {
  char operation[16];
  int32_t code, count;
} Failure;

typedef void (*Compute)(const uint8_t *nv12, int width, int height, float *logits, int classes);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t device_wakes, task_done;
static Memory *memories;
static Model *models;
static Pack *packs;
static Task *tasks;  // in order of submission
static Stats stats;
static Failure failures[16];
static Compute compute;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static struct timespec at(int64_t ns) {
  return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

// ---- Failure injection ------------------------------------------------------------------------

static void add_failure(const char *operation, int32_t code, int32_t count) {
  for (size_t i = 0; i < sizeof failures / sizeof *failures; ++i) {
    if (failures[i].count) continue;
    snprintf(failures[i].operation, sizeof failures[i].operation, "%s", operation);
    failures[i].code = code;
    failures[i].count = count;
    return;
  }
}

// The code to fail `operation` with now, or 0. Takes the lines `operation code count` of the control
// file first and deletes it, which tells the writer that they are in force.
static int32_t injected(const char *operation) {
  const char *control = getenv("REPGHOST_EMU_CONTROL");
  FILE *file = control ? fopen(control, "r") : NULL;
  if (file) {
    char name[16];
    int code, count;
    while (fscanf(file, "%15s %d %d", name, &code, &count) == 3) add_failure(name, code, count);
    fclose(file);
    unlink(control);
  }
  for (size_t i = 0; i < sizeof failures / sizeof *failures; ++i) {
    if (failures[i].count && strcmp(failures[i].operation, operation) == 0) {
      failures[i].count -= 1;
      return failures[i].code;
    }
  }
  return 0;
}

// ---- Memory -----------------------------------------------------------------------------------

static Memory *memory_at(const void *address) {
  for (Memory *m = memories; m; m = m->next) {
    const uint8_t *a = address;
    if (a >= m->cpu && a < m->cpu + m->size) return m;
  }
  return NULL;
}

// The device's copy of a tensor's plane, or NULL when the plane leaves its allocation.
static uint8_t *device_bytes(const SysMem *plane, int64_t size) {
  Memory *m = memory_at(plane->virAddr);
  if (!m || size < 0) return NULL;
  int64_t offset = (uint8_t *)plane->virAddr - m->cpu;
  return offset + size <= m->size ? m->device + offset : NULL;
}

EXPORT int32_t hbSysAllocCachedMem(SysMem *mem, uint32_t size) {
  static uint64_t next_physical = 0x80000000;
  pthread_mutex_lock(&lock);
  int32_t status = injected("alloc");
  if (!status && (!mem || !size)) status = SYS_INVALID_ARGUMENT;
  Memory *m = status ? NULL : calloc(1, sizeof *m);
  if (m) {
    m->size = size;
    m->cpu = malloc(size);
    m->device = malloc(size);
    memset(m->cpu, 0xA5, size);
    memset(m->device, 0x5A, size);
    m->next = memories;
    memories = m;
    stats.live_allocations += 1;
    *mem = (SysMem){.phyAddr = next_physical, .virAddr = m->cpu, .memSize = size};
    next_physical += (size + 4095) / 4096 * 4096;
  }
  pthread_mutex_unlock(&lock);
  return status;
}

EXPORT int32_t hbSysFlushMem(SysMem *mem, int32_t flag) {
  pthread_mutex_lock(&lock);
  int32_t status = injected("flush");
  Memory *m = mem && !status ? memory_at(mem->virAddr) : NULL;
  if (!status && !m) {
    stats.bad_handles += 1;
    status = SYS_INVALID_ARGUMENT;
  }
  pthread_mutex_unlock(&lock);
  if (status) return status;
  if (flag == CACHE_CLEAN) memcpy(m->device, m->cpu, m->size);
  else if (flag == CACHE_INVALIDATE) memcpy(m->cpu, m->device, m->size);
  else return SYS_INVALID_ARGUMENT;
  return 0;
}

EXPORT int32_t hbSysFreeMem(SysMem *mem) {
  int32_t status = 0;
  pthread_mutex_lock(&lock);
  Memory **link = &memories;
  while (*link && (!mem || (*link)->cpu != mem->virAddr)) link = &(*link)->next;
  Memory *m = *link;
  if (!m) {
    stats.bad_frees += 1;
    status = SYS_INVALID_ARGUMENT;
  } else {
    for (Task *t = tasks; t; t = t->next)
      for (int i = 0; i <= 2 * MAX_BATCH; ++i)
        if (t->state != DONE && t->used[i] && memory_at(t->used[i]) == m) stats.freed_in_use += 1;
    *link = m->next;
    free(m->cpu);
    free(m->device);
    free(m);
    stats.live_allocations -= 1;
  }
  pthread_mutex_unlock(&lock);
  return status;
}

// ---- Models -----------------------------------------------------------------------------------

static void set_shape(Shape *shape, int layout, int n, int c, int h, int w) {
  int nchw[] = {n, c, h, w}, nhwc[] = {n, h, w, c};
  memcpy(shape->dimensionSize, layout == LAYOUT_NHWC ? nhwc : nchw, sizeof nchw);
  shape->numDimensions = 4;
}

static int element_size(int type) {
  return type == TYPE_S8 ? 1 : type == TYPE_S16 ? 2 : 4;
}

// Bytes from one index of a dimension to the next.
static void set_strides(Properties *p) {
  int64_t bytes = element_size(p->tensorType);
  for (int axis = p->alignedShape.numDimensions - 1; axis >= 0 && axis < MAX_DIMENSIONS; --axis) {
    p->stride[axis] = (int32_t)bytes;
    bytes *= p->alignedShape.dimensionSize[axis];
  }
}

// One model of a file; the next one begins with its own `name`. Properties that a file may get wrong
// on purpose are numbered in it as the vendor does.
static int read_model(FILE *file, Model *m) {
  int input_layout = LAYOUT_NCHW, input_type = TYPE_NV12, input_dimensions = 4, channels = 3;
  int output_type = TYPE_F32, quanti = QUANTI_NONE, zero_points = 0, scales = 0;
  int output_dimensions = 4, class_step = 1, input_bytes = -1, output_bytes = -1, null_scale = 0;
  char key[64], value[128];
  long begin = ftell(file);
  m->inputs = m->outputs = m->batch = 1;
  while (fscanf(file, "%63s %127s", key, value) == 2) {
    int number = atoi(value);
    if (!strcmp(key, "name") && *m->name) {
      fseek(file, begin, SEEK_SET);
      break;
    }
    begin = ftell(file);
    if (!strcmp(key, "name")) snprintf(m->name, sizeof m->name, "%s", value);
    else if (!strcmp(key, "width")) m->width = number;
    else if (!strcmp(key, "height")) m->height = number;
    else if (!strcmp(key, "classes")) m->classes = number;
    else if (!strcmp(key, "overhead_us")) m->overhead_ns = number * INT64_C(1000);
    else if (!strcmp(key, "exclusive_us")) m->exclusive_ns = number * INT64_C(1000);
    else if (!strcmp(key, "inputs")) m->inputs = number;
    else if (!strcmp(key, "outputs")) m->outputs = number;
    else if (!strcmp(key, "aligned_width")) m->aligned_width = number;
    else if (!strcmp(key, "batch")) m->batch = number;
    else if (!strcmp(key, "channels")) channels = number;
    else if (!strcmp(key, "input_type")) input_type = number;
    else if (!strcmp(key, "input_layout")) input_layout = number;
    else if (!strcmp(key, "input_dimensions")) input_dimensions = number;
    else if (!strcmp(key, "input_bytes")) input_bytes = number;
    else if (!strcmp(key, "output_type")) output_type = number;
    else if (!strcmp(key, "output_dimensions")) output_dimensions = number;
    else if (!strcmp(key, "output_bytes")) output_bytes = number;
    else if (!strcmp(key, "class_step")) class_step = number;  // elements from class to class
    else if (!strcmp(key, "quanti")) quanti = number;
    else if (!strcmp(key, "scales")) scales = number;
    else if (!strcmp(key, "zero_points")) zero_points = number;
    else if (!strcmp(key, "null_scale")) null_scale = number;
    else return 0;
  }
  if (!*m->name || m->batch < 1 || m->batch > MAX_BATCH) return 0;
  if (!m->aligned_width) m->aligned_width = m->width;
  int nv12_bytes = m->batch * m->aligned_width * m->height * 3 / 2;
  m->input.tensorLayout = input_layout;
  m->input.tensorType = input_type;
  set_shape(&m->input.validShape, input_layout, m->batch, channels, m->height, m->width);
  set_shape(&m->input.alignedShape, input_layout, m->batch, channels, m->height, m->aligned_width);
  m->input.validShape.numDimensions = m->input.alignedShape.numDimensions = input_dimensions;
  m->input.alignedByteSize = input_bytes >= 0 ? input_bytes : nv12_bytes;
  m->output.tensorLayout = LAYOUT_NCHW;
  m->output.tensorType = output_type;
  set_shape(&m->output.validShape, LAYOUT_NCHW, m->batch, m->classes, 1, 1);
  set_shape(&m->output.alignedShape, LAYOUT_NCHW, m->batch, m->classes, 1, class_step);
  m->output.validShape.numDimensions = m->output.alignedShape.numDimensions = output_dimensions;
  for (int axis = output_dimensions; axis >= 0 && axis < MAX_DIMENSIONS; ++axis)
    m->output.validShape.dimensionSize[axis] = m->output.alignedShape.dimensionSize[axis] = 0;
  m->output.alignedByteSize =
      output_bytes >= 0 ? output_bytes : m->batch * m->classes * class_step * element_size(output_type);
  set_strides(&m->output);
  m->output.quantiType = quanti;
  m->output.quantizeAxis = 1;
  m->scale = calloc(scales + 1, sizeof *m->scale);
  m->shift = calloc(scales + 1, 1);
  m->zero_point = calloc(zero_points + 1, 1);
  for (int i = 0; i < scales; ++i) m->scale[i] = 0.125f * (1 + i % 3), m->shift[i] = 2 + i % 3;
  for (int i = 0; i < zero_points; ++i) m->zero_point[i] = (int8_t)(i % 5 - 2);
  if (quanti == QUANTI_SCALE)
    m->output.scale = (Scale){scales, null_scale ? NULL : m->scale, zero_points, m->zero_point};
  if (quanti == QUANTI_SHIFT) m->output.shift = (Shift){scales, null_scale ? NULL : m->shift};
  return 1;
}

static Model *known_model(const void *handle, int32_t *status) {
  for (Model *m = models; m; m = m->next)
    if (m == handle) return m;
  stats.bad_handles += 1;
  *status = INVALID_HANDLE;
  return NULL;
}

static Pack *known_pack(const void *handle, int32_t *status) {
  for (Pack *p = packs; p; p = p->next)
    if (p == handle) return p;
  stats.bad_handles += 1;
  *status = INVALID_PACKED_HANDLE;
  return NULL;
}

static void free_model(Model *m) {
  free(m->scale);
  free(m->shift);
  free(m->zero_point);
  free(m);
}

// Whether a program for the BPU is somewhere in the file; one at its beginning is a bare .hbm.
static int is_compiled(FILE *file) {
  static const char mark[] = "#B2Ehbm#";
  size_t matched = 0;
  rewind(file);
  for (int c; mark[matched] && (c = getc(file)) != EOF;)
    matched = c == mark[matched] ? matched + 1 : c == mark[0];
  return !mark[matched] && ftell(file) > (long)sizeof mark;
}

// The shipped demo model: 337 us on the BPU are what the vendor's cycle model predicts; the host's share is
// that of the smallest published size.
static int read_demo(Model *m) {
  char text[] = "name demo_224x224_nv12 width 224 height 224 classes 17 output_dimensions 2 "
                "exclusive_us 337 overhead_us 514";
  FILE *file = fmemopen(text, sizeof text - 1, "r");
  int good = file && read_model(file, m);
  if (file) fclose(file);
  return good;
}

static int read_pack(FILE *file, Pack *pack) {
  char magic[32], version[8];
  if (fscanf(file, "%31s %7s", magic, version) != 2 || strcmp(magic, "repghost-emulated-model")) {
    if (!is_compiled(file)) return 0;
    Model *m = calloc(1, sizeof *m);
    pack->models[pack->count] = m;
    pack->names[pack->count++] = m->name;
    return read_demo(m);
  }
  while (pack->count < MAX_PACKED && !feof(file)) {
    Model *m = calloc(1, sizeof *m);
    pack->models[pack->count] = m;
    pack->names[pack->count++] = m->name;
    if (!read_model(file, m)) return 0;
  }
  return pack->count > 0;
}

EXPORT int32_t hbDNNInitializeFromFiles(void **packed, const char **files, int32_t count) {
  pthread_mutex_lock(&lock);
  int32_t status = injected("load");
  pthread_mutex_unlock(&lock);
  if (status) return status;
  if (!packed || !files || count != 1) return INVALID_ARGUMENT;
  FILE *file = fopen(files[0], "r");
  if (!file) return CAN_NOT_OPEN_FILE;
  Pack *pack = calloc(1, sizeof *pack);
  int good = read_pack(file, pack);
  fclose(file);
  if (!good) {
    for (int i = 0; i < pack->count; ++i) free_model(pack->models[i]);
    free(pack);
    return INVALID_MODEL;
  }
  pthread_mutex_lock(&lock);
  for (int i = 0; i < pack->count; ++i) {
    pack->models[i]->next = models;
    models = pack->models[i];
    stats.live_models += 1;
  }
  pack->next = packs;
  packs = pack;
  pthread_mutex_unlock(&lock);
  *packed = pack;
  return 0;
}

EXPORT int32_t hbDNNRelease(void *packed) {
  int32_t status = 0;
  pthread_mutex_lock(&lock);
  Pack *pack = known_pack(packed, &status);
  for (int i = 0; pack && i < pack->count; ++i)
    for (Task *t = tasks; t; t = t->next)
      if (t->model == pack->models[i]) status = MODEL_IS_RUNNING;
  if (!status) {
    for (int i = 0; i < pack->count; ++i) {
      Model **link = &models;
      while (*link != pack->models[i]) link = &(*link)->next;
      *link = (*link)->next;
      free_model(pack->models[i]);
      stats.live_models -= 1;
    }
    Pack **link = &packs;
    while (*link != pack) link = &(*link)->next;
    *link = pack->next;
    free(pack);
  }
  pthread_mutex_unlock(&lock);
  return status;
}

EXPORT int32_t hbDNNGetModelNameList(const char ***names, int32_t *count, void *packed) {
  int32_t status = 0;
  pthread_mutex_lock(&lock);
  Pack *pack = known_pack(packed, &status);
  if (pack) *names = pack->names, *count = pack->count;
  pthread_mutex_unlock(&lock);
  return status;
}

EXPORT int32_t hbDNNGetModelHandle(void **handle, void *packed, const char *name) {
  int32_t status = 0;
  pthread_mutex_lock(&lock);
  Pack *pack = known_pack(packed, &status);
  if (pack) status = INVALID_ARGUMENT;
  for (int i = 0; pack && i < pack->count; ++i)
    if (name && !strcmp(name, pack->names[i])) *handle = pack->models[i], status = 0;
  pthread_mutex_unlock(&lock);
  return status;
}

static int32_t name_tensor(const char **name, void *handle, int32_t index, int output) {
  int32_t status = 0;
  pthread_mutex_lock(&lock);
  Model *m = known_model(handle, &status);
  if (m && (index < 0 || index >= (output ? m->outputs : m->inputs))) status = INVALID_ARGUMENT;
  if (!status) *name = output ? "output" : "data";
  pthread_mutex_unlock(&lock);
  return status;
}

EXPORT int32_t hbDNNGetInputName(const char **name, void *handle, int32_t index) {
  return name_tensor(name, handle, index, 0);
}

EXPORT int32_t hbDNNGetOutputName(const char **name, void *handle, int32_t index) {
  return name_tensor(name, handle, index, 1);
}

EXPORT int32_t hbDNNGetInputCount(int32_t *count, void *handle) {
  int32_t status = 0;
  pthread_mutex_lock(&lock);
  Model *m = known_model(handle, &status);
  if (m) *count = m->inputs;
  pthread_mutex_unlock(&lock);
  return status;
}

EXPORT int32_t hbDNNGetOutputCount(int32_t *count, void *handle) {
  int32_t status = 0;
  pthread_mutex_lock(&lock);
  Model *m = known_model(handle, &status);
  if (m) *count = m->outputs;
  pthread_mutex_unlock(&lock);
  return status;
}

EXPORT int32_t hbDNNGetInputTensorProperties(Properties *properties, void *handle, int32_t index) {
  int32_t status = 0;
  pthread_mutex_lock(&lock);
  Model *m = known_model(handle, &status);
  if (m && (index < 0 || index >= m->inputs)) status = INVALID_ARGUMENT;
  if (!status) *properties = m->input;
  pthread_mutex_unlock(&lock);
  return status;
}

EXPORT int32_t hbDNNGetOutputTensorProperties(Properties *properties, void *handle, int32_t index) {
  int32_t status = 0;
  pthread_mutex_lock(&lock);
  Model *m = known_model(handle, &status);
  if (m && (index < 0 || index >= m->outputs)) status = INVALID_ARGUMENT;
  if (!status) *properties = m->output;
  pthread_mutex_unlock(&lock);
  return status;
}

EXPORT const char *hbDNNGetVersion(void) { return "1.24.5"; }

EXPORT const char *hbDNNGetErrorDesc(int32_t code) {
  switch (code) {
    case INVALID_ARGUMENT: return "invalid argument";
    case INVALID_MODEL: return "invalid model";
    case CAN_NOT_OPEN_FILE: return "can not open file";
    case TIMED_OUT: return "timeout";
    case TOO_MANY_TASKS: return "task num exceed limit";
    case MODEL_IS_RUNNING: return "model is running";
    case SYS_OUT_OF_MEMORY: return "out of memory";
    default: return "emulated failure";
  }
}

// ---- The device -------------------------------------------------------------------------------

static void unlink_task(Task *task) {
  Task **link = &tasks;
  while (*link != task) link = &(*link)->next;
  *link = task->next;
  free(task->nv12);
  free(task);
  stats.live_tasks -= 1;
}

static int before(const Task *a, const Task *b) {
  if (a->priority != b->priority) return a->priority > b->priority;
  return a->custom_id < b->custom_id;  // ties keep the order of submission
}

// The task the device runs next, and the instant its own clock then shows.
static Task *next_task(int64_t free_at, int64_t *start) {
  Task *chosen = NULL;
  *start = INT64_MAX;
  for (Task *t = tasks; t; t = t->next)
    if (t->state == QUEUED && t->ready < *start) *start = t->ready;
  if (*start < free_at) *start = free_at;
  for (Task *t = tasks; t; t = t->next)
    if (t->state == QUEUED && t->ready <= *start && (!chosen || before(t, chosen))) chosen = t;
  return chosen;
}

static void *run_device(void *unused) {
  (void)unused;
  int64_t free_at = 0;
  pthread_mutex_lock(&lock);
  for (;;) {
    int64_t start;
    Task *task = next_task(free_at, &start);
    if (!task) {
      pthread_cond_wait(&device_wakes, &lock);
      continue;
    }
    if (start > now()) {
      struct timespec until = at(start);
      pthread_cond_timedwait(&device_wakes, &lock, &until);
      continue;  // something more urgent may have come meanwhile
    }
    task->state = RUNNING;
    task->status = injected("run");
    int64_t end = start + task->model->exclusive_ns + injected("hang") * INT64_C(1000000);
    while (!task->released && end > now()) {
      struct timespec until = at(end);
      pthread_cond_timedwait(&device_wakes, &lock, &until);
    }
    free_at = task->released && now() < end ? now() : end;
    stats.busy_ns += free_at - start;
    stats.inferences += 1;
    stats.in_flight -= 1;
    task->state = DONE;
    task->done = free_at + task->model->overhead_ns / 2;
    if (task->released) unlink_task(task);
    pthread_cond_broadcast(&task_done);
  }
  return NULL;
}

static void start_device(void) {
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&device_wakes, &monotonic);
  pthread_cond_init(&task_done, &monotonic);
  pthread_t thread;
  pthread_create(&thread, NULL, run_device, NULL);
  pthread_detach(thread);
}

// Copy one strided NV12 image out of device memory; 0 when it leaves its allocations. Rows may have any
// stride that holds the image: what the device cannot read as it is, libdnn pads inside.
static int fetch_image(const Model *m, const Tensor *input, int image, Task *task) {
  const Shape *aligned = &input->properties.alignedShape;
  int stride = aligned->dimensionSize[m->input.tensorLayout == LAYOUT_NHWC ? 2 : 3];
  int separate = m->input.tensorType == TYPE_NV12_SEPARATE;
  int64_t y_bytes = (int64_t)stride * m->height, uv_bytes = y_bytes / 2;
  if (stride < m->width) return 0;
  const uint8_t *y = device_bytes(&input->sysMem[0], separate ? y_bytes : y_bytes + uv_bytes);
  const uint8_t *uv = separate ? device_bytes(&input->sysMem[1], uv_bytes) : y + y_bytes;
  if (!y || !uv) return 0;
  task->used[2 * image] = input->sysMem[0].virAddr;
  task->used[2 * image + 1] = separate ? input->sysMem[1].virAddr : NULL;
  for (int plane = 0; plane < 1 + separate; ++plane) {
    Memory *memory = memory_at(input->sysMem[plane].virAddr);
    if (memcmp(memory->cpu, memory->device, memory->size)) stats.stale_inputs += 1;
  }
  uint8_t *nv12 = task->nv12 + (size_t)image * m->width * m->height * 3 / 2;
  for (int row = 0; row < m->height; ++row)
    memcpy(nv12 + row * m->width, y + row * stride, m->width);
  for (int row = 0; row < m->height / 2; ++row)
    memcpy(nv12 + (m->height + row) * m->width, uv + row * stride, m->width);
  return 1;
}

// A batch comes as that many tensors of one image each.
static int fetch_nv12(const Model *m, const Tensor *input, Task *task) {
  for (int i = 0; i < m->batch; ++i)
    if (input[i].properties.validShape.dimensionSize[0] != 1 || !fetch_image(m, &input[i], i, task)) return 0;
  return 1;
}

EXPORT int32_t hbDNNInfer(void **handle, Tensor **output, const Tensor *input, void *model,
                          const InferControl *control) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, start_device);
  pthread_mutex_lock(&lock);
  int32_t status = injected("infer");
  Model *m = status ? NULL : known_model(model, &status);
  // The X5 has one BPU core; a handle that is not null would mean "append to that task".
  if (m && (!handle || *handle || !output || !input || !control || control->bpuCoreId < 0 ||
            control->bpuCoreId > 1 || control->priority < 0 || control->priority > 255))
    status = INVALID_ARGUMENT;
  if (!status && stats.live_tasks >= MAX_TASKS) status = TOO_MANY_TASKS;
  if (!status) {
    Task *task = calloc(1, sizeof *task);
    task->nv12 = calloc(m->batch + 1, (size_t)m->width * m->height * 3 / 2 + 8);
    task->model = m;
    task->output = (*output)->sysMem[0];
    task->used[2 * MAX_BATCH] = task->output.virAddr;
    task->priority = control->priority;
    task->custom_id = control->customId;
    task->ready = now() + m->overhead_ns / 2;
    if (!fetch_nv12(m, input, task) || !device_bytes(&task->output, m->output.alignedByteSize)) {
      free(task->nv12);
      free(task);
      status = INVALID_ARGUMENT;
    } else {
      Task **end = &tasks;
      while (*end) end = &(*end)->next;
      *end = task;
      stats.live_tasks += 1;
      stats.in_flight += 1;
      if (stats.in_flight > stats.max_in_flight) stats.max_in_flight = stats.in_flight;
      *handle = task;
      pthread_cond_signal(&device_wakes);
    }
  }
  pthread_mutex_unlock(&lock);
  return status;
}

// Stand-in logits in [-10, 10): a hash of the image and the class (emulator.py has the same).
static void hash_logits(const uint8_t *nv12, int width, int height, float *logits, int classes) {
  uint64_t hash = 0;
  int words = (width * height * 3 / 2 + 7) / 8;
  for (int i = 0; i < words; ++i) {
    uint64_t word;
    memcpy(&word, nv12 + 8 * i, 8);
    hash += word * (2 * (uint64_t)i + 1);
  }
  for (int i = 0; i < classes; ++i) {
    uint64_t mixed = (hash ^ ((uint64_t)(i + 1) * UINT64_C(0x9E3779B97F4A7C15))) * UINT64_C(0xD6E8FEB86659FD93);
    mixed = (mixed ^ (mixed >> 32)) * UINT64_C(0xD6E8FEB86659FD93);
    logits[i] = (float)(mixed >> 40) / 16777216.0f * 20.0f - 10.0f;
  }
}

static void store(const Properties *p, uint8_t *out, const float *logits, int classes) {
  int step = p->stride[1] / element_size(p->tensorType);
  for (int i = 0; i < classes; ++i) {
    float value = logits[i];
    if (p->quantiType == QUANTI_SCALE) {
      value /= p->scale.scaleData[p->scale.scaleLen > 1 ? i : 0];
      if (p->scale.zeroPointLen) value += p->scale.zeroPointData[p->scale.zeroPointLen > 1 ? i : 0];
    } else if (p->quantiType == QUANTI_SHIFT) {
      value *= (float)(1 << p->shift.shiftData[p->shift.shiftLen > 1 ? i : 0]);
    }
    int32_t rounded = (int32_t)(value < 0 ? value - 0.5f : value + 0.5f);
    if (p->tensorType == TYPE_F32) ((float *)out)[i * step] = value;
    else if (p->tensorType == TYPE_S8) ((int8_t *)out)[i * step] = (int8_t)(rounded < -128 ? -128 : rounded > 127 ? 127 : rounded);
    else if (p->tensorType == TYPE_S16) ((int16_t *)out)[i * step] = (int16_t)rounded;
    else ((int32_t *)out)[i * step] = rounded;
  }
}

static Task *known_task(void *handle) {
  for (Task *t = tasks; t; t = t->next)
    if (t == handle && !t->released) return t;
  stats.bad_handles += 1;
  return NULL;
}

// The arithmetic happens in the thread that waits, so that a Python callback may hold the GIL there.
EXPORT int32_t hbDNNWaitTaskDone(void *handle, int32_t timeout_ms) {
  int64_t deadline = timeout_ms > 0 ? now() + timeout_ms * INT64_C(1000000) : INT64_MAX;
  pthread_mutex_lock(&lock);
  Task *task = known_task(handle);
  if (!task) {
    pthread_mutex_unlock(&lock);
    return INVALID_TASK;
  }
  int32_t status = injected("wait");
  while (!status && task->state != DONE) {
    struct timespec until = at(deadline);
    int error = deadline == INT64_MAX ? pthread_cond_wait(&task_done, &lock)
                                      : pthread_cond_timedwait(&task_done, &lock, &until);
    if (error == ETIMEDOUT && task->state != DONE) status = TIMED_OUT;
  }
  if (!status) status = task->status;
  Compute logits_of = compute ? compute : hash_logits;
  Model *m = task->model;
  pthread_mutex_unlock(&lock);
  if (status) return status;
  if (!task->computed) {
    float *logits = calloc((size_t)m->batch * m->classes, sizeof *logits);
    size_t image = (size_t)m->width * m->height * 3 / 2;
    for (int i = 0; i < m->batch; ++i)
      logits_of(task->nv12 + i * image, m->width, m->height, logits + i * m->classes, m->classes);
    pthread_mutex_lock(&lock);
    uint8_t *out = device_bytes(&task->output, m->output.alignedByteSize);
    for (int i = 0; out && i < m->batch; ++i)
      store(&m->output, out + (size_t)i * m->output.stride[0], logits + i * m->classes, m->classes);
    task->computed = 1;
    pthread_mutex_unlock(&lock);
    free(logits);
  }
  struct timespec until = at(task->done);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
  }
  return 0;
}

EXPORT int32_t hbDNNReleaseTask(void *handle) {
  pthread_mutex_lock(&lock);
  Task *task = known_task(handle);
  int32_t status = task ? 0 : INVALID_TASK;
  if (task) {
    if (task->state == QUEUED) stats.in_flight -= 1;
    if (task->state == RUNNING) {  // the device stops it soon
      task->released = 1;
      pthread_cond_signal(&device_wakes);
    } else {
      unlink_task(task);
    }
  }
  pthread_mutex_unlock(&lock);
  return status;
}

// ---- The emulator's own interface -------------------------------------------------------------

EXPORT void emu_fail(const char *operation, int32_t code, int32_t count) {
  pthread_mutex_lock(&lock);
  add_failure(operation, code, count);
  pthread_mutex_unlock(&lock);
}

EXPORT void emu_set_compute(Compute callback) {
  pthread_mutex_lock(&lock);
  compute = callback;
  pthread_mutex_unlock(&lock);
}

EXPORT void emu_stats(Stats *out) {
  pthread_mutex_lock(&lock);
  *out = stats;
  pthread_mutex_unlock(&lock);
}

// Forget the counters and pending failures; what is alive stays alive.
EXPORT void emu_reset(void) {
  pthread_mutex_lock(&lock);
  memset(failures, 0, sizeof failures);
  stats.bad_frees = stats.bad_handles = stats.freed_in_use = stats.stale_inputs = 0;
  stats.inferences = stats.busy_ns = 0;
  stats.max_in_flight = stats.in_flight;
  pthread_mutex_unlock(&lock);
}

// Everything is freed, as when a process ends: for users that leak by nature.
EXPORT void emu_restart(void) {
  pthread_mutex_lock(&lock);
  for (Task *t = tasks, *next; t; t = next) {
    next = t->next;
    if (t->state == QUEUED) stats.in_flight -= 1;
    if (t->state == RUNNING) t->released = 1;
    else unlink_task(t);
  }
  pthread_cond_signal(&device_wakes);
  pthread_mutex_unlock(&lock);
  while (packs) hbDNNRelease(packs);
  while (memories) hbSysFreeMem(&(SysMem){.virAddr = memories->cpu});
}

// `Struct.field offset` and `Struct size` lines, to compare other definitions with.
EXPORT const char *emu_layout(void) {
#define PRINT_OFFSET(type, field, offset) #type "." #field " " #offset "\n"
#define PRINT_SIZE(type, size) #type " " #size "\n"
  return LAYOUT(PRINT_OFFSET) SIZES(PRINT_SIZE);
}

// What a program in C needs to infer.
typedef struct {
  Model *model;
  Tensor input[MAX_BATCH], output;
  int64_t deadline, images;
} Loop;

static void open_loop(Loop *loop, Model *m) {
  *loop = (Loop){.model = m, .output = {.properties = m->output}};
  for (int i = 0; i < m->batch; ++i) {
    loop->input[i].properties = m->input;
    loop->input[i].properties.validShape.dimensionSize[0] = 1;
    hbSysAllocCachedMem(&loop->input[i].sysMem[0], m->input.alignedByteSize / m->batch);
  }
  hbSysAllocCachedMem(&loop->output.sysMem[0], m->output.alignedByteSize);
}

static int infer_once(Loop *loop) {
  Tensor *outputs = &loop->output;
  InferControl control = {0};
  void *task = NULL;
  for (int i = 0; i < loop->model->batch; ++i) hbSysFlushMem(&loop->input[i].sysMem[0], CACHE_CLEAN);
  if (hbDNNInfer(&task, &outputs, loop->input, loop->model, &control) || hbDNNWaitTaskDone(task, 0)) return 0;
  hbDNNReleaseTask(task);
  hbSysFlushMem(&loop->output.sysMem[0], CACHE_INVALIDATE);
  return 1;
}

// One thread of emu_limit: infer as fast as the device lets it until the deadline.
static void *run_loop(void *argument) {
  Loop *loop = argument;
  while (now() < loop->deadline && infer_once(loop)) loop->images += loop->model->batch;
  for (int i = 0; i < loop->model->batch; ++i) hbSysFreeMem(&loop->input[i].sysMem[0]);
  hbSysFreeMem(&loop->output.sysMem[0]);
  return NULL;
}

// Images a second that the device itself allows, with nothing around it but this loop. Of a file of
// several models the last one counts, which is the one with the largest batch.
EXPORT double emu_limit(const char *path, int threads, double seconds) {
  void *packed = NULL;
  if (threads < 1 || threads > MAX_TASKS || hbDNNInitializeFromFiles(&packed, &path, 1)) return -1;
  Pack *pack = packed;
  Loop loops[MAX_TASKS] = {0};
  pthread_t running[MAX_TASKS];
  int64_t start = now(), total = 0;
  for (int i = 0; i < threads; ++i) {
    open_loop(&loops[i], pack->models[pack->count - 1]);
    loops[i].deadline = start + (int64_t)(seconds * 1e9);
    pthread_create(&running[i], NULL, run_loop, &loops[i]);
  }
  for (int i = 0; i < threads; ++i) {
    pthread_join(running[i], NULL);
    total += loops[i].images;
  }
  double elapsed = (now() - start) / 1e9;
  hbDNNRelease(packed);
  return total / elapsed;
}

// Infers an image of `size` bytes with a file's first model, which stays open: for a node in C.
EXPORT int emu_classify(const char *path, const void *image, size_t size) {
  static Loop loop;
  void *packed = NULL;
  if (!loop.model) {
    if (hbDNNInitializeFromFiles(&packed, &path, 1)) return 0;
    open_loop(&loop, ((Pack *)packed)->models[0]);
  }
  memcpy(loop.input[0].sysMem[0].virAddr, image, size);
  return infer_once(&loop);
}

// For processes that are only watched: their last word about what they left behind.
__attribute__((destructor)) static void write_stats(void) {
  const char *path = getenv("REPGHOST_EMU_STATS");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (!file) return;
  fprintf(file,
          "live_models %lld\nlive_allocations %lld\nlive_tasks %lld\nbad_frees %lld\nbad_handles %lld\n"
          "freed_in_use %lld\nstale_inputs %lld\ninferences %lld\nmax_in_flight %lld\nbusy_ns %lld\n",
          (long long)stats.live_models, (long long)stats.live_allocations, (long long)stats.live_tasks,
          (long long)stats.bad_frees, (long long)stats.bad_handles, (long long)stats.freed_in_use,
          (long long)stats.stale_inputs, (long long)stats.inferences, (long long)stats.max_in_flight,
          (long long)stats.busy_ns);
  fclose(file);
}
