/* model.safetensors of an export: kappa's parameters in the order and by the names of the other side. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "core/safetensors.h"
#include "interchange/hf_export.h"

enum { FULL_NAME = KP_HF_NAME + 32 };

typedef struct job {
  const kp_hf_target *target;
  const kp_trained *model;
  kp_hf_layout layout;
  kp_dtype dtype;
  kp_safetensors_writer *writer;
  double *values, *room; /* of the largest parameter */
  void *narrow;
} job;

static int parts_of(const job *j, const kp_parameter *p, kp_hf_part parts[KP_HF_MAX_PARTS]) {
  if (j->target->parts != NULL && p->dimensions <= 2)
    return j->target->parts(&j->layout, p->name, p->shape[0], parts);
  parts[0] = (kp_hf_part){.rows = p->shape[0]};
  snprintf(parts[0].name, sizeof parts[0].name, "%s", p->name);
  return 1;
}

static void full_name(const job *j, const kp_hf_part *part, char name[FULL_NAME]) {
  snprintf(name, FULL_NAME, "%.16s%.160s", part->based ? j->target->base : "", part->name);
}

/* The bias that transformers has beside this weight and the model has not: its name, or false. */
static bool missing_bias(const job *j, const kp_parameter *p, char name[FULL_NAME]) {
  const size_t size = strlen(p->name), tail = strlen("weight");
  const bool in_stack = strstr(p->name, ".h.") != NULL || strstr(p->name, ".ln_f.") != NULL;
  if (!j->target->biased || j->model->options.bias || !in_stack) return false;
  snprintf(name, FULL_NAME, "%.*sbias", (int)(size - tail), p->name);
  return true;
}

/* ---- declaring ---- */

static kp_status declare_parameter(job *j, const kp_parameter *p, kp_error *error) {
  kp_hf_part parts[KP_HF_MAX_PARTS];
  char name[FULL_NAME];
  const int count = parts_of(j, p, parts);
  if (count == 0)
    return kp_fail(error, KP_ERR_INPUT, "a %s model has no place for %s", j->target->model_type, p->name);
  for (int i = 0; i < count; i++) {
    int64_t shape[KP_MAX_DIMENSIONS];
    memcpy(shape, p->shape, sizeof shape);
    shape[0] = parts[i].rows;
    if (parts[i].transposed) {
      shape[0] = p->shape[1];
      shape[1] = parts[i].rows;
    }
    full_name(j, &parts[i], name);
    KP_TRY(kp_safetensors_writer_declare(j->writer, name, j->dtype, p->dimensions, shape, error));
  }
  if (missing_bias(j, p, name))
    return kp_safetensors_writer_declare(j->writer, name, j->dtype, 1, p->shape, error);
  return KP_OK;
}

/* ---- writing ---- */

static bool fits_half(double value) {
  return fabs(value) < 65520;
}

/* Numbers of the file's type in `narrow`; their size. */
static kp_status narrow(const job *j, const char *name, const double *values, int64_t count, size_t *size,
                        kp_error *error) {
  *size = (size_t)count * kp_dtype_size(j->dtype);
  for (int64_t i = 0; i < count; i++) {
    const float value = (float)values[i];
    if (j->dtype == KP_F16 && !fits_half(values[i]))
      return kp_fail(error, KP_ERR_INPUT, "%s has the number %g, too large for f16: use bf16 or f32", name,
                     values[i]);
    if (j->dtype == KP_F32)
      ((float *)j->narrow)[i] = value;
    else
      ((uint16_t *)j->narrow)[i] = j->dtype == KP_BF16 ? kp_bf16_from_float(value) : kp_f16_from_float(value);
  }
  return KP_OK;
}

static kp_status write_numbers(job *j, const char *name, const double *values, int64_t count,
                               kp_error *error) {
  size_t size;
  KP_TRY(narrow(j, name, values, count, &size, error));
  return kp_safetensors_writer_write(j->writer, name, j->narrow, size, error);
}

static kp_status write_parameter(job *j, int index, kp_error *error) {
  const kp_parameter *p = &j->model->parameters->list[index];
  const int64_t columns = p->count / p->shape[0];
  kp_hf_part parts[KP_HF_MAX_PARTS];
  char name[FULL_NAME];
  const int count = parts_of(j, p, parts);
  double *values = j->values;
  kp_parameters_read(j->model->parameters, j->model->parameters->values, index, values);
  for (int i = 0; i < count; i++) {
    const int64_t rows = parts[i].rows;
    if (parts[i].head_size > 0) kp_hf_pair_rows(values, rows, columns, parts[i].head_size, false, j->room);
    if (parts[i].transposed) kp_hf_transpose(values, rows, columns, j->room);
    full_name(j, &parts[i], name);
    KP_TRY(write_numbers(j, name, values, rows * columns, error));
    values += rows * columns;
  }
  if (!missing_bias(j, p, name)) return KP_OK;
  memset(j->values, 0, (size_t)p->shape[0] * sizeof *j->values);
  return write_numbers(j, name, j->values, p->shape[0], error);
}

static kp_status write_all(job *j, const char *path, kp_error *error) {
  const kp_parameters *parameters = j->model->parameters;
  KP_TRY(kp_safetensors_writer_create(path, &j->writer, error));
  for (int i = 0; i < parameters->count; i++)
    if (parameters->list[i].used) KP_TRY(declare_parameter(j, &parameters->list[i], error));
  for (int i = 0; i < parameters->count; i++)
    if (parameters->list[i].used) KP_TRY(write_parameter(j, i, error));
  return kp_safetensors_writer_commit(j->writer, error);
}

kp_status kp_hf_write_weights(const kp_hf_target *target, const kp_trained *model, kp_dtype dtype,
                              const char *folder, kp_error *error) {
  char path[KP_PATH_SIZE];
  int64_t largest = 1;
  KP_TRY(kp_path_join(path, folder, "model.safetensors", error));
  for (int i = 0; i < model->parameters->count; i++)
    if (model->parameters->list[i].count > largest) largest = model->parameters->list[i].count;
  job j = {.target = target,
           .model = model,
           .layout = kp_hf_layout_of(&model->options),
           .dtype = dtype,
           .values = malloc((size_t)largest * sizeof(double)),
           .room = malloc((size_t)largest * sizeof(double)),
           .narrow = malloc((size_t)largest * sizeof(float))};
  kp_status status = KP_OK;
  if (j.values == NULL || j.room == NULL || j.narrow == NULL)
    status = kp_fail(error, KP_ERR_MEMORY, "no memory for a parameter of %lld numbers", (long long)largest);
  if (status == KP_OK) status = write_all(&j, path, error);
  kp_safetensors_writer_destroy(j.writer);
  free(j.values);
  free(j.room);
  free(j.narrow);
  return status;
}
