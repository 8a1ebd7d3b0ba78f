#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/atomic_file.h"
#include "core/half.h"
#include "interchange/hf_export.h"
#include "interchange/llmc.h"

/* llm.c pads the table to rows that its kernels like. */
enum { PADDING = 128 };

/* The first key that llm.c's GPT-2 has otherwise, and how; NULL: none. */
static const char *find_fault(const kp_model_options *o) {
  if (o->task != KP_TASK_LANGUAGE) return "model.task: language";
  if (!kp_hf_is_gpt2(o)) return "model.family: gpt, with none of its choices changed";
  if (o->activation != KP_GELU_TANH) return "model.activation: gelu_tanh";
  if (!o->bias) return "model.bias: true";
  if (o->head != KP_HEAD_TIED) return "model.head: tied";
  if (o->hidden != 4 * o->width) return "model.hidden: four times the width";
  if (o->norm_epsilon != 1e-5) return "model.norm_epsilon: 1e-5";
  return NULL;
}

static kp_status choose_shape(const kp_trained *model, kp_dtype dtype, kp_llmc_shape *shape,
                              kp_error *error) {
  const kp_model_options *o = &model->options;
  const char *fault = find_fault(o);
  if (fault != NULL)
    return kp_fail(error, KP_ERR_INPUT, "%s is no model of llm.c, which has %s", model->run, fault);
  if (dtype != KP_F32 && dtype != KP_BF16)
    return kp_fail(error, KP_ERR_INPUT, "llm.c has checkpoints of f32 and bf16, not of %s",
                   kp_dtype_name(dtype));
  *shape = (kp_llmc_shape){.dtype = dtype,
                           .context = o->context,
                           .vocabulary = o->vocabulary,
                           .layers = o->layers,
                           .heads = o->heads,
                           .width = o->width,
                           .padded = (o->vocabulary + PADDING - 1) / PADDING * PADDING};
  return KP_OK;
}

/* Turns the numbers into those of the file, in place. */
static void narrow(double *values, int64_t count, kp_dtype dtype) {
  for (int64_t i = 0; i < count; i++) {
    const float number = (float)values[i];
    const uint16_t half = kp_bf16_from_float(number);
    if (dtype == KP_BF16)
      memcpy((uint16_t *)values + i, &half, sizeof half);
    else
      memcpy((float *)values + i, &number, sizeof number);
  }
}

/* Rows of padding stay zero. */
static kp_status write_parameter(const kp_trained *model, const kp_llmc_shape *shape, int index,
                                 kp_atomic_file *file, double *values, kp_error *error) {
  const kp_parameter *p = &model->parameters->list[index];
  int64_t first, count;
  if (!kp_llmc_find(shape, p->name, &first, &count) || p->count > count)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "llm.c has no place for the parameter %s", p->name);
  kp_parameters_read(model->parameters, model->parameters->values, index, values);
  narrow(values, p->count, shape->dtype);
  const size_t width = kp_dtype_size(shape->dtype);
  return kp_atomic_file_write_at(file, KP_LLMC_HEADER * sizeof(int32_t) + (uint64_t)first * width, values,
                                 (size_t)p->count * width, error);
}

static kp_status write_all(const kp_trained *model, const kp_llmc_shape *shape, kp_atomic_file *file,
                           kp_error *error) {
  int32_t header[KP_LLMC_HEADER];
  int64_t largest = 0;
  for (int i = 0; i < model->parameters->count; i++)
    if (model->parameters->list[i].count > largest) largest = model->parameters->list[i].count;
  double *values = malloc((size_t)(largest + 1) * sizeof *values);
  if (values == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a parameter");
  kp_llmc_write_header(shape, header);
  kp_status status = kp_atomic_file_write_at(file, 0, header, sizeof header, error);
  for (int i = 0; i < model->parameters->count && status == KP_OK; i++)
    status = write_parameter(model, shape, i, file, values, error);
  free(values);
  return status;
}

static kp_status write_file(const kp_trained *model, const kp_llmc_shape *shape, const char *path,
                            kp_error *error) {
  kp_atomic_file *file;
  KP_TRY(kp_atomic_file_open(path, &file, error));
  kp_status status = write_all(model, shape, file, error);
  if (status == KP_OK) return kp_atomic_file_commit(file, error);
  kp_atomic_file_abort(file);
  return status;
}

static void describe(const kp_trained *model, kp_export_report *report) {
  snprintf(report->model_type, sizeof report->model_type, "gpt2");
  report->parameters = kp_parameters_elements(model->parameters);
  report->step = model->step;
  snprintf(report->notes, sizeof report->notes,
           "llm.c keeps its tokenizer in a file of its own, which was "
           "not written\n");
}

kp_status kp_export_llmc(const char *run, const kp_export_options *options, const char *path,
                         kp_export_report *report, kp_error *error) {
  kp_trained model;
  kp_llmc_shape shape;
  *report = (kp_export_report){0};
  if (kp_path_kind_of(path) != KP_PATH_MISSING)
    return kp_fail(error, KP_ERR_INPUT, "%s is there already: name a new file", path);
  KP_TRY(kp_trained_open(run, options->checkpoint, kp_backend_cpu(), &model, error));
  kp_status status = choose_shape(&model, options->dtype, &shape, error);
  if (status == KP_OK) status = write_file(&model, &shape, path, error);
  if (status == KP_OK) describe(&model, report);
  kp_trained_close(&model);
  return status;
}
