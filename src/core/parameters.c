#include "core/parameters.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/memory.h"
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
  void *const buffers[] = {parameters->values, parameters->gradients, parameters->moment1,
                           parameters->moment2, parameters->working};
  for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
    kp_memory_destroy(parameters->backend, buffers[i]);
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

static int64_t columns_of(const kp_parameter *parameter) {
  return parameter->dimensions == 0 ? 1 : parameter->shape[parameter->dimensions - 1];
}

/* Elements that a parameter takes in a flat buffer, but for the gap behind it. */
static int64_t stored(const kp_parameter *parameter) {
  return parameter->rows * parameter->pitch;
}

/* Behind all that was placed before. */
static void place(kp_parameters *parameters, kp_parameter *parameter, int64_t row_multiple) {
  parameter->offset = parameters->total;
  parameter->pitch = columns_of(parameter);
  parameter->rows = parameter->pitch == 0 ? 0 : parameter->count / parameter->pitch;
  if (parameter->dimensions >= 2) parameter->pitch = kp_padded(parameter->pitch, row_multiple);
  if (parameter->dimensions == 2) parameter->rows = kp_padded(parameter->rows, row_multiple);
  parameters->total +=
      (stored(parameter) + PARAMETER_ALIGNMENT - 1) / PARAMETER_ALIGNMENT * PARAMETER_ALIGNMENT;
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
  place(parameters, parameter, 1);
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

void kp_parameters_freeze(kp_parameters *parameters, int index) {
  kp_assert(parameters->values == NULL, "parameter %s frozen after the buffers were made",
            parameters->list[index].name);
  parameters->list[index].trainable = false;
  parameters->list[index].frozen = true;
}

int64_t kp_parameters_elements(const kp_parameters *parameters) {
  int64_t elements = 0;
  for (int i = 0; i < parameters->count; i++) elements += parameters->list[i].count;
  return elements;
}

void kp_parameters_lay_out(kp_parameters *parameters, const kp_backend *backend) {
  parameters->total = 0;
  for (int i = 0; i < parameters->count; i++)
    if (!parameters->list[i].frozen) place(parameters, &parameters->list[i], backend->row_multiple);
  parameters->learned = parameters->total;
  for (int i = 0; i < parameters->count; i++)
    if (parameters->list[i].frozen) place(parameters, &parameters->list[i], backend->row_multiple);
}

kp_status kp_parameters_allocate(kp_parameters *parameters, const kp_backend *backend, bool training,
                                 kp_error *error) {
  kp_parameters_lay_out(parameters, backend);
  const size_t total = (size_t)parameters->total, bytes = (size_t)parameters->learned * backend->wide_size;
  parameters->backend = backend;
  KP_TRY(kp_memory_create(backend, total * backend->wide_size, "the parameters", &parameters->values, error));
  if (backend->real_size < backend->wide_size)
    KP_TRY(kp_memory_create(backend, total * backend->real_size, "the narrow copy of the parameters",
                            &parameters->working, error));
  if (!training) return KP_OK;
  KP_TRY(kp_memory_create(backend, bytes, "the gradients", &parameters->gradients, error));
  KP_TRY(kp_memory_create(backend, bytes, "the optimizer's first moments", &parameters->moment1, error));
  return kp_memory_create(backend, bytes, "the optimizer's second moments", &parameters->moment2, error);
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

static kp_matrix matrix_of(const kp_parameters *parameters, const void *buffer, int index) {
  const kp_parameter *parameter = &parameters->list[index];
  const size_t size = parameters->backend->wide_size;
  return (kp_matrix){.memory = (char *)buffer + (size_t)parameter->offset * size,
                     .rows = parameter->count / columns_of(parameter),
                     .columns = columns_of(parameter),
                     .pitch = parameter->pitch,
                     .size = size};
}

void kp_parameters_initialise(kp_parameters *parameters, uint64_t seed) {
  for (int p = 0; p < parameters->count; p++) {
    const kp_parameter *parameter = &parameters->list[p];
    const uint64_t stream = stream_of(parameter->name);
    double *values = malloc((size_t)parameter->count * sizeof *values + 1);
    kp_assert(values != NULL, "out of memory for the initial values of %s", parameter->name);
    /* Rounded to float, so that all backends start from the same point. */
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < parameter->count; i++)
      values[i] = (double)(float)initial_value(&parameter->initial, seed, stream, i);
    kp_parameters_write(parameters, parameters->values, p, values);
    free(values);
  }
}

double kp_parameters_element(const kp_parameters *parameters, const void *buffer, int index, int64_t i) {
  const kp_matrix m = matrix_of(parameters, buffer, index);
  kp_assert(parameters->backend->device == NULL, "single elements of a device's memory");
  return kp_number_at(m.memory, m.size, i / m.columns * m.pitch + i % m.columns);
}

void kp_parameters_read(const kp_parameters *parameters, const void *buffer, int index, double *host) {
  if (parameters->list[index].count > 0)
    kp_matrix_read(parameters->backend, matrix_of(parameters, buffer, index), host);
}

void kp_parameters_write(kp_parameters *parameters, void *buffer, int index, const double *host) {
  const kp_parameter *parameter = &parameters->list[index];
  if (parameter->count == 0) return;
  kp_matrix m = matrix_of(parameters, buffer, index);
  kp_matrix_write(parameters->backend, m, host);
  if (buffer != parameters->values || parameters->working == NULL) return;
  m.size = parameters->backend->real_size;
  m.memory = (char *)parameters->working + (size_t)parameter->offset * m.size;
  kp_matrix_write(parameters->backend, m, host);
}

/* Rows of `bytes` from one place to another, `from_pitch` and `to_pitch` bytes apart. */
static void copy_rows(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t bytes,
                      int64_t rows) {
  for (int64_t row = 0; row < rows; row++)
    memcpy((char *)to + (size_t)row * to_pitch, (const char *)from + (size_t)row * from_pitch, bytes);
}

kp_status kp_parameters_copy_out(const kp_parameters *parameters, const void *buffer, int index, void *host,
                                 kp_error *error) {
  if (parameters->list[index].count == 0) return KP_OK;
  const kp_matrix m = matrix_of(parameters, buffer, index);
  const size_t row = (size_t)m.columns * m.size, pitch = (size_t)m.pitch * m.size;
  void *padded = host;
  if (pitch > row) KP_TRY(kp_buffer_create((size_t)m.rows * pitch, "a copy of a parameter", &padded, error));
  const kp_status status =
      kp_memory_read(parameters->backend, padded, m.memory, (size_t)m.rows * pitch, error);
  if (padded == host) return status;
  if (status == KP_OK) copy_rows(host, row, padded, pitch, row, m.rows);
  kp_buffer_destroy(padded);
  return status;
}

static kp_status narrow(kp_parameters *parameters, const void *buffer, int index, kp_error *error) {
  const kp_backend *backend = parameters->backend;
  const kp_parameter *parameter = &parameters->list[index];
  const size_t at = (size_t)parameter->offset;
  if (buffer != parameters->values || parameters->working == NULL) return KP_OK;
  return backend->device->narrow(backend->device, (char *)parameters->working + at * backend->real_size,
                                 (const char *)parameters->values + at * backend->wide_size,
                                 (size_t)stored(parameter), error);
}

kp_status kp_parameters_copy_in(kp_parameters *parameters, void *buffer, int index, const void *host,
                                kp_error *error) {
  if (parameters->list[index].count == 0) return KP_OK;
  const kp_matrix m = matrix_of(parameters, buffer, index);
  const size_t row = (size_t)m.columns * m.size, pitch = (size_t)m.pitch * m.size;
  void *padded = NULL;
  if (pitch > row) {
    KP_TRY(kp_buffer_create((size_t)m.rows * pitch, "a copy of a parameter", &padded, error));
    copy_rows(padded, pitch, host, row, row, m.rows);
  }
  kp_status status = kp_memory_write(parameters->backend, m.memory, padded != NULL ? padded : host,
                                     (size_t)m.rows * pitch, error);
  kp_buffer_destroy(padded);
  return status == KP_OK ? narrow(parameters, buffer, index, error) : status;
}
