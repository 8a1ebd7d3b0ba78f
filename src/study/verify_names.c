#include "study/verify_names.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/assert.h"
#include "interchange/originals_names.h"

typedef struct part_of_case {
  const kp_case *c;
  const char *prefix;
} part_of_case;

static kp_status read_tensor(void *context, const char *name, double **values, int64_t *count,
                             kp_error *error) {
  const part_of_case *part = context;
  char full[320];
  snprintf(full, sizeof full, "%s%s", part->prefix, name);
  return kp_case_values(part->c, full, true, values, count, error);
}

kp_status kp_case_parameter(const kp_case *c, const char *prefix, const kp_model_options *options,
                            const kp_parameter *parameter, double **values, kp_error *error) {
  part_of_case part = {c, prefix};
  const kp_original_source source = {read_tensor, &part};
  const kp_original_shape shape = {parameter->name, parameter->dimensions, parameter->shape};
  kp_original_found found;
  *values = calloc((size_t)parameter->count, sizeof **values);
  kp_assert(*values != NULL, "out of memory");
  kp_status status =
      kp_original_parameter(c->report->family, &source, options->heads, &shape, *values, &found, error);
  if (status == KP_OK && found.any) return KP_OK;
  free(*values);
  *values = NULL;
  return status;
}

kp_status kp_case_theirs(const kp_case *c, const kp_model_options *options, const kp_parameters *parameters,
                         const char *name, double *theirs, int64_t their_count, kp_error *error) {
  return kp_original_theirs(c->report->family, options->heads, parameters, name, theirs, their_count, error);
}
