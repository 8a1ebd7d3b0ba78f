/* How long a step of the optimizer takes on a GPU, with the norm of the gradients; needs a GPU.
 *
 *   time_gpu_optimizer [CASE …]     only cases whose names begin so */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cuda/cuda.h"
#include "core/memory.h"
#include "optim/stepper.h"
#include "support/check.h"

/* Parameters of a case. */
typedef enum shapes { GPT2, HIDDEN, UNIT, ROWS, COLUMNS, LORENTZ, BALL, SPHERE, WIDE, SQUARE } shapes;

typedef struct timed_case {
  const char *name;
  shapes shapes;
  kp_optimizer_kind kind;
  bool tangent;
  int steps;    /* of Newton and Schulz */
  double bytes; /* that an element must move, without its narrow value */
} timed_case;

static const timed_case cases[] = {
    {"adamw", GPT2, KP_OPTIMIZER_ADAMW, false, 0, 36},
    {"adamw unit vectors", UNIT, KP_OPTIMIZER_ADAMW, false, 0, 36},
    {"adamw unit vectors, tangent", UNIT, KP_OPTIMIZER_ADAMW, true, 0, 36},
    {"adamw unit rows", ROWS, KP_OPTIMIZER_ADAMW, false, 0, 36},
    {"adamw unit columns", COLUMNS, KP_OPTIMIZER_ADAMW, false, 0, 36},
    {"hyperball adamw", GPT2, KP_OPTIMIZER_HYPERBALL_ADAMW, false, 0, 36},
    {"riemannian adam, Lorentz", LORENTZ, KP_OPTIMIZER_ADAMW, false, 0, 28},
    {"riemannian adam, ball", BALL, KP_OPTIMIZER_ADAMW, false, 0, 28},
    {"riemannian adam, sphere", SPHERE, KP_OPTIMIZER_ADAMW, false, 0, 28},
    {"muon", HIDDEN, KP_OPTIMIZER_MUON, false, 5, 28},
    {"muon without iterations", HIDDEN, KP_OPTIMIZER_MUON, false, 0, 28},
    {"hyperball muon", HIDDEN, KP_OPTIMIZER_HYPERBALL_MUON, false, 5, 28},
    {"muon 4 x 2048 x 8192", WIDE, KP_OPTIMIZER_MUON, false, 5, 28},
    {"muon 2 x 4096 x 4096", SQUARE, KP_OPTIMIZER_MUON, false, 5, 28},
};

static void add(kp_parameters *parameters, int64_t rows, int64_t columns, kp_group group,
                kp_manifold manifold, double curvature) {
  char name[16];
  snprintf(name, sizeof name, "p%d", parameters->count);
  const int64_t shape[2] = {rows, columns};
  const int index = kp_parameters_add(parameters, name, rows > 0 ? 2 : 1, rows > 0 ? shape : shape + 1,
                                      (kp_initial){0}, group, true);
  kp_parameters_set_manifold(parameters, index, manifold, curvature);
}

/* The layers of a GPT-2 of 124 million parameters. */
static void add_layers(kp_parameters *parameters, bool unit) {
  const kp_manifold rows = unit ? KP_MANIFOLD_UNIT_ROWS : KP_MANIFOLD_NONE;
  const kp_manifold columns = unit ? KP_MANIFOLD_UNIT_COLUMNS : KP_MANIFOLD_NONE;
  for (int layer = 0; layer < 12; layer++) {
    add(parameters, 2304, 768, KP_GROUP_DECAY, rows, 0);
    add(parameters, 0, 2304, KP_GROUP_NO_DECAY, KP_MANIFOLD_NONE, 0);
    add(parameters, 768, 768, KP_GROUP_DECAY, columns, 0);
    add(parameters, 3072, 768, KP_GROUP_DECAY, rows, 0);
    add(parameters, 0, 3072, KP_GROUP_NO_DECAY, KP_MANIFOLD_NONE, 0);
    add(parameters, 768, 3072, KP_GROUP_DECAY, columns, 0);
  }
}

static kp_parameters *parameters_of(shapes s) {
  kp_parameters *p = kp_parameters_create();
  if (s == GPT2 || s == UNIT)
    add(p, 51328, 768, KP_GROUP_TABLE, s == UNIT ? KP_MANIFOLD_UNIT_ROWS : KP_MANIFOLD_NONE, 0);
  if (s == GPT2 || s == HIDDEN || s == UNIT) add_layers(p, s == UNIT);
  if (s == ROWS) add(p, 65536, 768, KP_GROUP_TABLE, KP_MANIFOLD_UNIT_ROWS, 0);
  if (s == COLUMNS) add(p, 16384, 3072, KP_GROUP_TABLE, KP_MANIFOLD_UNIT_COLUMNS, 0);
  if (s == LORENTZ) add(p, 128256, 390, KP_GROUP_TABLE, KP_MANIFOLD_LORENTZ, -1);
  if (s == BALL) add(p, 128256, 390, KP_GROUP_TABLE, KP_MANIFOLD_STEREOGRAPHIC, -0.1);
  if (s == SPHERE) add(p, 128256, 390, KP_GROUP_TABLE, KP_MANIFOLD_STEREOGRAPHIC, 0.1);
  for (int i = 0; s == WIDE && i < 4; i++) add(p, 2048, 8192, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0);
  for (int i = 0; s == SQUARE && i < 2; i++) add(p, 4096, 4096, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0);
  return p;
}

/* Random numbers in [-scale, scale), rows on the hyperboloid of curvature -1 where they are values. */
static void fill(const kp_parameters *parameters, void *buffer, float scale, bool values) {
  enum { PERIOD = 65521 };
  static float random[PERIOD];
  kp_error error = {0};
  float *host = calloc((size_t)parameters->total, sizeof *host);
  uint32_t state = 12345;
  assert_non_null(host);
  for (int i = 0; i < PERIOD; i++) {
    state = state * 1664525u + 1013904223u;
    random[i] = scale * ((float)(state >> 8) / 8388608.0f - 1);
  }
  for (int p = 0; p < parameters->count; p++) {
    const kp_parameter *x = &parameters->list[p];
    const int64_t columns = x->shape[x->dimensions - 1];
    for (int64_t row = 0; row < x->count / columns; row++) {
      float *at = host + x->offset + row * x->pitch, square = 1;
      memcpy(at, random + row * 7919 % (PERIOD - columns), (size_t)columns * sizeof *at);
      if (!values || x->manifold != KP_MANIFOLD_LORENTZ) continue;
      for (int64_t c = 1; c < columns; c++) square += at[c] * at[c];
      at[0] = sqrtf(square);
    }
  }
  check_ok(
      kp_memory_write(parameters->backend, buffer, host, (size_t)parameters->total * sizeof *host, &error),
      &error);
  free(host);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Of one step among `count` that are submitted one after the other. */
static double time_steps(const kp_backend *backend, kp_stepper *stepper, int count) {
  kp_error error = {0};
  check_ok(backend->device->wait(backend->device, &error), &error);
  const double start = seconds();
  for (int i = 0; i < count; i++) {
    check_ok(kp_stepper_begin(stepper, 1, 1, &error), &error);
    check_ok(kp_stepper_submit(stepper, &error), &error);
  }
  check_ok(backend->device->wait(backend->device, &error), &error);
  return (seconds() - start) / count;
}

static void time_case(const kp_backend *backend, const timed_case *c) {
  enum { STEPS = 10, ROUNDS = 5 };
  kp_error error = {0};
  kp_parameters *parameters = parameters_of(c->shapes);
  const kp_optimizer_options options = {.kind = c->kind,
                                        .adamw = {.learning_rate = 1e-3,
                                                  .beta1 = 0.9,
                                                  .beta2 = 0.95,
                                                  .epsilon = 1e-8,
                                                  .weight_decay = 0.1,
                                                  .curvature_rate_multiplier = 1},
                                        .muon = {.learning_rate = 0.02,
                                                 .momentum = 0.95,
                                                 .weight_decay = 0.1,
                                                 .nesterov = true,
                                                 .steps = c->steps},
                                        .tangent = c->tangent};
  kp_stepper *stepper;
  check_ok(kp_parameters_allocate(parameters, backend, true, &error), &error);
  fill(parameters, parameters->values, 0.05f, true);
  fill(parameters, parameters->moment1, 0.01f, false);
  fill(parameters, parameters->gradients, 0.01f, false);
  check_ok(kp_stepper_create(parameters, &options, 0, &stepper, &error), &error);
  time_steps(backend, stepper, 1);
  time_steps(backend, stepper, 1);
  double best = 1e30;
  for (int round = 0; round < ROUNDS; round++) best = fmin(best, time_steps(backend, stepper, STEPS));
  const double bytes = (c->bytes + (parameters->working != NULL ? 2 : 0)) * (double)parameters->total;
  printf("%-28s %6.1f million %8.3f ms %6.2f TB/s of what must move, %.1f MiB of scratch\n", c->name,
         (double)parameters->total * 1e-6, best * 1e3, bytes / best * 1e-12,
         (double)kp_stepper_scratch_bytes(parameters, &options, backend, 0) / 1048576);
  fflush(stdout);
  kp_stepper_destroy(stepper);
  kp_parameters_destroy(parameters);
}

static bool wanted(const char *name, char **names, int count) {
  for (int i = 0; i < count; i++)
    if (strncmp(name, names[i], strlen(names[i])) == 0) return true;
  return count == 0;
}

int main(int count, char **arguments) {
  for (int precision = KP_CUDA_BFLOAT16; precision >= KP_CUDA_FLOAT32; precision--) {
    const kp_backend *backend;
    kp_error error = {0};
    if (kp_backend_cuda_open(0, (kp_cuda_precision)precision, &backend, &error) != KP_OK) {
      printf("%s\n", error.message);
      return 1;
    }
    printf("%s\n", backend->name);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
      if (wanted(cases[i].name, arguments + 1, count - 1)) time_case(backend, &cases[i]);
    kp_backend_cuda_close(backend);
  }
  return 0;
}
