#include "core/parameters.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/random.h"

/* Each parameter starts on a cache line of floats. */
enum { PARAMETER_ALIGNMENT = 16 };

kp_parameters *kp_parameters_create(void) {
  kp_arena *arena = kp_arena_create();
  kp_parameters *parameters = kp_arena_take(arena, sizeof *parameters);
  parameters->arena = arena;
  return parameters;
}

void kp_parameters_destroy(kp_parameters *parameters) {
  if (parameters == NULL) return;
  kp_buffer_destroy(parameters->values);
  kp_buffer_destroy(parameters->gradients);
  kp_buffer_destroy(parameters->moment1);
  kp_buffer_destroy(parameters->moment2);
  free(parameters->list);
  kp_arena_destroy(parameters->arena);
}

int kp_parameters_find(const kp_parameters *parameters, const char *name) {
  for (int i = 0; i < parameters->count; i++)
    if (strcmp(parameters->list[i].name, name) == 0) return i;
  return -1;
}

static void check_shape(const kp_parameter *parameter, int dimensions, const int64_t *shape) {
  bool same = parameter->dimensions == dimensions;
  for (int i = 0; same && i < dimensions; i++) same = parameter->shape[i] == shape[i];
  kp_assert(same, "parameter %s was added with another shape", parameter->name);
}

int kp_parameters_add(kp_parameters *parameters, const char *name, int dimensions, const int64_t *shape,
                      kp_initial initial, kp_group group, bool trainable) {
  int found = kp_parameters_find(parameters, name);
  if (found >= 0) {
    check_shape(&parameters->list[found], dimensions, shape);
    return found;
  }
  kp_assert(parameters->values == NULL, "parameter %s added after the buffers were made", name);
  if (parameters->count == parameters->capacity) {
    parameters->capacity = parameters->capacity == 0 ? 64 : 2 * parameters->capacity;
    parameters->list = realloc(parameters->list, (size_t)parameters->capacity * sizeof *parameters->list);
    kp_assert(parameters->list != NULL, "out of memory for the parameter table");
  }
  kp_parameter *parameter = &parameters->list[parameters->count];
  *parameter = (kp_parameter){.name = kp_arena_text(parameters->arena, name),
                              .dimensions = dimensions,
                              .count = 1,
                              .offset = parameters->total,
                              .initial = initial,
                              .group = group,
                              .blocks = 1,
                              .moments = 2,
                              .trainable = trainable,
                              .used = true};
  for (int i = 0; i < dimensions; i++) parameter->count *= parameter->shape[i] = shape[i];
  if (initial.kind == KP_INITIAL_LIST) {
    size_t bytes = (size_t)initial.count * sizeof(double);
    parameter->initial.values = memcpy(kp_arena_take(parameters->arena, bytes), initial.values, bytes);
  }
  parameters->total +=
      (parameter->count + PARAMETER_ALIGNMENT - 1) / PARAMETER_ALIGNMENT * PARAMETER_ALIGNMENT;
  return parameters->count++;
}

void kp_parameters_set_manifold(kp_parameters *parameters, int index, kp_manifold manifold,
                                double curvature) {
  parameters->list[index].manifold = manifold;
  parameters->list[index].curvature = curvature;
}

void kp_parameters_set_blocks(kp_parameters *parameters, int index, int blocks) {
  kp_parameter *parameter = &parameters->list[index];
  kp_assert(parameter->dimensions == 2 && blocks > 0 && parameter->shape[0] % blocks == 0,
            "%s is not made of %d equal matrices", parameter->name, blocks);
  parameter->blocks = blocks;
}

void kp_parameters_set_counter(kp_parameters *parameters, int index, int counter) {
  kp_parameter *parameter = &parameters->list[index];
  const kp_parameter *counts = &parameters->list[counter];
  kp_assert(!counts->trainable && counts->count == parameter->shape[0], "%s does not count the slices of %s",
            counts->name, parameter->name);
  parameter->counter = 1 + counter;
}

int64_t kp_parameters_elements(const kp_parameters *parameters) {
  int64_t elements = 0;
  for (int i = 0; i < parameters->count; i++) elements += parameters->list[i].count;
  return elements;
}

kp_status kp_parameters_allocate(kp_parameters *parameters, const kp_backend *backend, bool training,
                                 kp_error *error) {
  const size_t bytes = (size_t)parameters->total * backend->real_size;
  parameters->backend = backend;
  KP_TRY(kp_buffer_create(bytes, "the parameters", &parameters->values, error));
  if (!training) return KP_OK;
  KP_TRY(kp_buffer_create(bytes, "the gradients", &parameters->gradients, error));
  KP_TRY(kp_buffer_create(bytes, "the optimizer's first moments", &parameters->moment1, error));
  return kp_buffer_create(bytes, "the optimizer's second moments", &parameters->moment2, error);
}

/* FNV-1a: a parameter's random stream hangs on its name, not on its place in the table. */
static uint64_t stream_of(const char *name) {
  uint64_t hash = 14695981039346656037u;
  for (; *name != 0; name++) hash = (hash ^ (unsigned char)*name) * 1099511628211u;
  return hash;
}

static double initial_value(const kp_initial *initial, uint64_t seed, uint64_t stream, int64_t i) {
  switch (initial->kind) {
  case KP_INITIAL_NORMAL: return initial->a + initial->b * kp_random_normal(seed, stream, 0, (uint64_t)i);
  case KP_INITIAL_UNIFORM:
    return initial->a + (initial->b - initial->a) * kp_random_uniform(seed, stream, 0, (uint64_t)i);
  case KP_INITIAL_LIST: return initial->values[i % initial->count];
  default: return initial->a;
  }
}

static void store(const kp_parameters *parameters, void *buffer, int64_t i, double value) {
  if (parameters->backend->real_size == sizeof(double))
    ((double *)buffer)[i] = value;
  else
    ((float *)buffer)[i] = (float)value;
}

void kp_parameters_initialise(kp_parameters *parameters, uint64_t seed) {
  for (int p = 0; p < parameters->count; p++) {
    const kp_parameter *parameter = &parameters->list[p];
    const uint64_t stream = stream_of(parameter->name);
    /* Rounded to float, so that both backends start from the same point. */
    for (int64_t i = 0; i < parameter->count; i++)
      store(parameters, parameters->values, parameter->offset + i,
            (double)(float)initial_value(&parameter->initial, seed, stream, i));
  }
}

double kp_parameters_element(const kp_parameters *parameters, const void *buffer, int index, int64_t i) {
  const int64_t at = parameters->list[index].offset + i;
  return parameters->backend->real_size == sizeof(double) ? ((const double *)buffer)[at]
                                                          : (double)((const float *)buffer)[at];
}

void kp_parameters_read(const kp_parameters *parameters, const void *buffer, int index, double *host) {
  const kp_parameter *parameter = &parameters->list[index];
  for (int64_t i = 0; i < parameter->count; i++)
    host[i] = kp_parameters_element(parameters, buffer, index, i);
}

void kp_parameters_write(kp_parameters *parameters, void *buffer, int index, const double *host) {
  const kp_parameter *parameter = &parameters->list[index];
  for (int64_t i = 0; i < parameter->count; i++) store(parameters, buffer, parameter->offset + i, host[i]);
}
