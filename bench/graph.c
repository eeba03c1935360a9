// The bench's ROS programs on rcl, in C: one that loads the node and takes little of the processor for
// it, and one that is the least that a ROS node can be. bench/graph.py builds and starts them.
//
//   load TOPIC   sends images on `image`, JPEGs on `image/compressed`, and takes the answers on TOPIC. It prints `ready`
//                once an answer has come, then does for each line `RATE WARM_UP SECONDS` that it reads: send,
//                print `begin` after the warm-up and `end`, and the figures: sent, answered, p50, p99 (ms)
//   node         answers such images: take, copy the pixels, publish
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rcl/error_handling.h>
#include <rcl/rcl.h>
#include <rmw/qos_profiles.h>
#include <rosidl_runtime_c/primitives_sequence_functions.h>
#include <rosidl_runtime_c/string_functions.h>
#include <sensor_msgs/msg/compressed_image.h>
#include <sensor_msgs/msg/image.h>
#include <vision_msgs/msg/classification.h>
#include <vision_msgs/msg/object_hypothesis.h>

// What the load sends, again and again.
struct images {
  const char *encoding;  // or jpeg
  uint32_t width, height, step;
  const uint8_t *data;
  uint64_t size;
};

enum { MAX_FRAMES = 1 << 20 };
enum { STAMP = 4, DEPTH = 5 };  // of a serialized message: where its header begins; the node's qos_depth

static rcl_context_t context;
static rcl_node_t node;
static rcl_publisher_t publisher;
static rcl_subscription_t subscription;
static volatile sig_atomic_t ending;

static double *sent_at, *answered_at;

static void check(rcl_ret_t status, const char *what) {
  if (status == RCL_RET_OK) return;
  fprintf(stderr, "graph: %s: %s\n", what, rcl_get_error_string().str);
  exit(1);
}

static bool is_jpeg(const struct images *images) { return !strcmp(images->encoding, "jpeg"); }

static const char *topic_of(const struct images *images) { return is_jpeg(images) ? "image/compressed" : "image"; }

static const rosidl_message_type_support_t *type_of(const struct images *images) {
  return is_jpeg(images) ? ROSIDL_GET_MSG_TYPE_SUPPORT(sensor_msgs, msg, CompressedImage)
                         : ROSIDL_GET_MSG_TYPE_SUPPORT(sensor_msgs, msg, Image);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void sleep_until(double due) {
  struct timespec t = {.tv_sec = (time_t)due, .tv_nsec = (long)((due - (time_t)due) * 1e9)};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void end(int number) {
  (void)number;
  ending = 1;
}

static void enter(const char *name) {
  rcl_init_options_t options = rcl_get_zero_initialized_init_options();
  check(rcl_init_options_init(&options, rcl_get_default_allocator()), "options");
  context = rcl_get_zero_initialized_context();
  check(rcl_init(0, NULL, &options, &context), "init");
  node = rcl_get_zero_initialized_node();
  rcl_node_options_t node_options = rcl_node_get_default_options();
  node_options.enable_rosout = false;
  check(rcl_node_init(&node, name, "", &context, &node_options), "node");
}

static void advertise(const char *topic, const rosidl_message_type_support_t *type, rmw_qos_profile_t qos) {
  rcl_publisher_options_t options = rcl_publisher_get_default_options();
  options.qos = qos;
  publisher = rcl_get_zero_initialized_publisher();
  check(rcl_publisher_init(&publisher, &node, type, topic, &options), "publisher");
}

static void subscribe(const char *topic, const rosidl_message_type_support_t *type, rmw_qos_profile_t qos) {
  rcl_subscription_options_t options = rcl_subscription_get_default_options();
  options.qos = qos;
  subscription = rcl_get_zero_initialized_subscription();
  check(rcl_subscription_init(&subscription, &node, type, topic, &options), "subscription");
}

static rcl_serialized_message_t buffer(size_t size) {
  rcl_serialized_message_t message = rmw_get_zero_initialized_serialized_message();
  rcl_allocator_t allocator = rcl_get_default_allocator();
  check(rmw_serialized_message_init(&message, size, &allocator), "buffer");
  return message;
}

static rcl_serialized_message_t serialized(const void *content, const rosidl_message_type_support_t *type) {
  rcl_serialized_message_t message = buffer(0);
  check(rmw_serialize(content, type, &message), "serialize");
  return message;
}

// Calls `take` with every message until `ending`.
static void serve(void (*take)(rcl_serialized_message_t *)) {
  rcl_serialized_message_t taken = buffer(0);
  rcl_wait_set_t set = rcl_get_zero_initialized_wait_set();
  check(rcl_wait_set_init(&set, 1, 0, 0, 0, 0, 0, &context, rcl_get_default_allocator()), "wait set");
  while (!ending) {
    check(rcl_wait_set_clear(&set), "clear");
    check(rcl_wait_set_add_subscription(&set, &subscription, NULL), "add");
    rcl_ret_t status = rcl_wait(&set, RCL_MS_TO_NS(100));
    if (status == RCL_RET_TIMEOUT) continue;
    check(status, "wait");
    while (rcl_take_serialized_message(&subscription, &taken, NULL, NULL) == RCL_RET_OK) take(&taken);
    rcl_reset_error();
  }
}

// ---- load ---------------------------------------------------------------------------------------

static void note(rcl_serialized_message_t *answer) {
  uint32_t number;
  memcpy(&number, answer->buffer + STAMP, sizeof number);
  if (number < MAX_FRAMES && !answered_at[number]) answered_at[number] = now();
}

static void *listen(void *unused) {
  serve(note);
  return unused;
}

static void publish(rcl_serialized_message_t *image, uint32_t number) {
  memcpy(image->buffer + STAMP, &number, sizeof number);
  sent_at[number] = now();
  check(rcl_publish_serialized_message(&publisher, image, NULL), "publish");
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static rcl_serialized_message_t message_of(const struct images *images) {
  sensor_msgs__msg__Image content;
  sensor_msgs__msg__Image__init(&content);
  content.width = images->width, content.height = images->height, content.step = images->step;
  rosidl_runtime_c__String__assign(&content.encoding, images->encoding);
  rosidl_runtime_c__String__assign(&content.header.frame_id, "camera");
  rosidl_runtime_c__uint8__Sequence__init(&content.data, images->size);
  memcpy(content.data.data, images->data, images->size);
  if (!is_jpeg(images)) return serialized(&content, ROSIDL_GET_MSG_TYPE_SUPPORT(sensor_msgs, msg, Image));
  sensor_msgs__msg__CompressedImage packed = {content.header, content.encoding, content.data};
  return serialized(&packed, ROSIDL_GET_MSG_TYPE_SUPPORT(sensor_msgs, msg, CompressedImage));
}

static void load(const char *topic, const struct images *images) {
  sent_at = calloc(MAX_FRAMES, sizeof *sent_at);
  answered_at = calloc(MAX_FRAMES, sizeof *answered_at);
  double *latencies = calloc(MAX_FRAMES, sizeof *latencies);
  rmw_qos_profile_t sensor = rmw_qos_profile_sensor_data, many = rmw_qos_profile_default;
  many.depth = 1000;
  advertise(topic_of(images), type_of(images), sensor);
  subscribe(topic, ROSIDL_GET_MSG_TYPE_SUPPORT(vision_msgs, msg, Classification), many);
  rcl_serialized_message_t image = message_of(images);
  pthread_t listener;
  pthread_create(&listener, NULL, listen, NULL);
  uint32_t number = 0;
  for (int answered = 0; !answered && !ending;) {
    publish(&image, ++number);
    sleep_until(now() + 0.05);
    for (uint32_t i = 1; i <= number; ++i) answered |= answered_at[i] != 0;
  }
  puts("ready"), fflush(stdout);
  double rate, warm_up, seconds;
  while (!ending && scanf("%lf %lf %lf", &rate, &warm_up, &seconds) == 3) {
    uint32_t first = ++number, counted = 0;
    double start = now(), begin = start + warm_up, stop = begin + seconds;
    for (; !ending && number < MAX_FRAMES; ++number) {
      double due = start + (number - first) / rate;
      if (due >= stop || now() >= stop) break;
      sleep_until(due);
      if (!counted && due >= begin) counted = number, puts("begin"), fflush(stdout);
      publish(&image, number);
    }
    puts("end"), fflush(stdout);
    sleep_until(now() + 0.3);
    size_t answered = 0;
    for (uint32_t i = first; i < number; ++i)
      if (answered_at[i] >= begin && answered_at[i] < stop)
        latencies[answered++] = 1e3 * (answered_at[i] - sent_at[i]);
    qsort(latencies, answered, sizeof *latencies, ascending);
    double p50 = answered ? latencies[answered / 2] : NAN, p99 = answered ? latencies[answered * 99 / 100] : NAN;
    printf("%u %zu %.4f %.4f\n", number - counted, answered, p50, p99), fflush(stdout);
  }
  ending = 1;
  pthread_join(listener, NULL);
}

// ---- node ---------------------------------------------------------------------------------------

static uint8_t *pixels;
static uint64_t size;
static rcl_serialized_message_t answer;
static int (*classify)(const char *model, const void *image, size_t size);  // NULL: without a device
static const char *model;

// The images are the load's: their pixels are the message's last bytes.
static void reply(rcl_serialized_message_t *image) {
  const uint8_t *data = image->buffer + image->buffer_length - size;
  if (!classify) memcpy(pixels, data, size);
  else if (!classify(model, data, size)) exit(2);
  memcpy(answer.buffer + STAMP, image->buffer + STAMP, 8);
  check(rcl_publish_serialized_message(&publisher, &answer, NULL), "publish");
}

static void answer_all(const struct images *images) {
  rmw_qos_profile_t sensor = rmw_qos_profile_sensor_data, reliable = rmw_qos_profile_default;
  sensor.depth = DEPTH;
  subscribe(topic_of(images), type_of(images), sensor);
  size = images->size, pixels = malloc(size);
  advertise("~/classification", ROSIDL_GET_MSG_TYPE_SUPPORT(vision_msgs, msg, Classification), reliable);
  vision_msgs__msg__Classification content;
  vision_msgs__msg__Classification__init(&content);
  rosidl_runtime_c__String__assign(&content.header.frame_id, "camera");
  vision_msgs__msg__ObjectHypothesis__Sequence__init(&content.results, 5);
  for (int i = 0; i < 5; ++i) {
    rosidl_runtime_c__String__assign(&content.results.data[i].class_id, "500");
    content.results.data[i].score = 0.2;
  }
  answer = serialized(&content, ROSIDL_GET_MSG_TYPE_SUPPORT(vision_msgs, msg, Classification));
  serve(reply);
}

// The images; the answers' topic for `load`, NULL for a node; then perhaps what infers, and its model.
int run(const struct images *images, const char *answers, int (*inferring)(const char *, const void *, size_t),
        const char *path) {
  classify = inferring, model = path;
  signal(SIGINT, end);
  signal(SIGTERM, end);
  enter(answers ? "bench_camera" : "limit");
  if (answers) load(answers, images);
  else answer_all(images);
  check(rcl_publisher_fini(&publisher, &node), "publisher");
  check(rcl_subscription_fini(&subscription, &node), "subscription");
  check(rcl_node_fini(&node), "node");
  check(rcl_shutdown(&context), "shutdown");
  check(rcl_context_fini(&context), "context");
  return 0;
}
