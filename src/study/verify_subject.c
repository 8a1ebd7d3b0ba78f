#include "study/verify_subject.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "data/batches.h"
#include "optim/gradients.h"
#include "study/verify_names.h"
#include "study/verify_settings.h"

void kp_subject_destroy(kp_subject *s) {
  kp_executor_destroy(s->executor);
  kp_network_destroy(s->network);
  kp_parameters_destroy(s->parameters);
  kp_model_options_destroy(&s->options);
}

/* Exact cases keep all curvatures in one tensor (L, G), called k: block l's is row l of it. */
static bool is_row_of_k(const kp_case *c, const kp_parameter *parameter, int64_t *layer) {
  long long number;
  char rest[32];
  if (sscanf(parameter->name, "transformer.h.%lld.%31s", &number, rest) != 2 ||
      strcmp(rest, "curvature") != 0)
    return false;
  *layer = number;
  return kp_safetensors_find(c->file, "param/k") != NULL;
}

kp_status kp_subject_parameter(const kp_case *c, const kp_subject *s, const char *prefix,
                               const kp_parameter *parameter, double **values, kp_error *error) {
  char name[192];
  int64_t layer, count = 0;
  if (!is_row_of_k(c, parameter, &layer))
    return kp_case_parameter(c, prefix, &s->options, parameter, values, error);
  snprintf(name, sizeof name, "%sk", prefix);
  KP_TRY(kp_case_values(c, name, true, values, &count, error));
  if (*values == NULL) return KP_OK;
  if ((layer + 1) * parameter->count > count) {
    free(*values);
    return kp_fail(error, KP_ERR_INPUT, "tensor %s has %lld elements, too few for block %lld", name,
                   (long long)count, (long long)layer);
  }
  memmove(*values, *values + layer * parameter->count, (size_t)parameter->count * sizeof **values);
  return KP_OK;
}

static kp_status load_parameters(const kp_case *c, kp_subject *s, kp_error *error) {
  for (int i = 0; i < s->parameters->count; i++) {
    const kp_parameter *parameter = &s->parameters->list[i];
    double *values;
    KP_TRY(kp_subject_parameter(c, s, "param/", parameter, &values, error));
    if (values == NULL) {
      if (!parameter->used) continue;
      return kp_fail(error, KP_ERR_INPUT, "tensors.safetensors has no param/%s", parameter->name);
    }
    kp_parameters_write(s->parameters, s->parameters->values, i, values);
    free(values);
  }
  return KP_OK;
}

static kp_status write_tokens(const kp_case *c, kp_subject *s, const char *name, kp_tensor *tensor,
                              kp_error *error) {
  double *values;
  int64_t count;
  KP_TRY(kp_case_values(c, name, false, &values, &count, error));
  const json_t *ignored = json_object_get(c->json, "ignore_index");
  for (int64_t i = 0; i < count && tensor == s->network->targets; i++)
    if (json_is_integer(ignored) && values[i] == (double)json_integer_value(ignored)) values[i] = KP_IGNORE;
  if (count == kp_tensor_count(tensor)) kp_executor_write(s->executor, tensor, values);
  free(values);
  if (count == kp_tensor_count(tensor)) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s has %lld elements, not %lld", name, (long long)count,
                 (long long)kp_tensor_count(tensor));
}

static void write_positions(kp_subject *s) {
  double *positions = malloc((size_t)(s->batch * s->length) * sizeof *positions);
  kp_assert(positions != NULL, "out of memory");
  for (int64_t i = 0; i < s->batch * s->length; i++) positions[i] = (double)(i % s->length);
  kp_executor_write(s->executor, s->network->positions, positions);
  free(positions);
  kp_executor_write(s->executor, s->network->seed, (double[]){1});
}

/* Whether attention stays inside documents; a case may hold their ids and not use them. */
static bool has_documents(const kp_case *c) {
  const json_t *used = json_object_get(json_object_get(c->json, "config"), "use_documents");
  return kp_safetensors_find(c->file, "in/documents") != NULL && !json_is_false(used);
}

kp_status kp_subject_create(const kp_case *c, const kp_backend *backend, kp_subject *s, kp_error *error) {
  const kp_safetensors_entry *tokens;
  KP_TRY(kp_case_options(c, &s->options, error));
  KP_TRY(kp_safetensors_require(c->file, "in/tokens", &tokens, error));
  if (tokens->rank != 2 || tokens->elements < 1)
    return kp_fail(error, KP_ERR_INPUT, "in/tokens must be (B, T)");
  s->batch = tokens->shape[0];
  s->length = tokens->shape[1];
  s->parameters = kp_parameters_create();
  kp_build build = {.mode = KP_BUILD_TRAIN,
                    .batch = s->batch,
                    .length = s->length,
                    .keep_logits = true,
                    .documents = has_documents(c)};
  KP_TRY(kp_network_create(&s->options, s->parameters, build, &s->network, error));
  KP_TRY(kp_parameters_allocate(s->parameters, backend, true, error));
  kp_executor_options options = {.threads = c->threads, .poison = true};
  KP_TRY(kp_executor_create(s->network->graph, backend, s->parameters, options, &s->executor, error));
  KP_TRY(load_parameters(c, s, error));
  KP_TRY(write_tokens(c, s, "in/tokens", s->network->tokens, error));
  KP_TRY(write_tokens(c, s, "in/targets", s->network->targets, error));
  if (build.documents) KP_TRY(write_tokens(c, s, "in/documents", s->network->documents, error));
  write_positions(s);
  return KP_OK;
}

kp_status kp_subject_run(kp_subject *s, kp_error *error) {
  kp_gradient_zero(s->parameters, 1);
  return kp_executor_run(s->executor, 0, s->network->graph->node_count, error);
}
