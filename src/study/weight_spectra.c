/* SVD entropy of a model's matrices. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "study/analyze_private.h"
#include "study/spectrum.h"

/* "transformer.h.3.mlp.c_fc.weight" is layer 3 and kind "mlp.c_fc"; "transformer.wte.weight" is "wte". */
static void read_name(kp_matrix_analysis *matrix, kp_arena *arena) {
  static const char prefix[] = "transformer.", block[] = "transformer.h.", ending[] = ".weight";
  const char *kind = matrix->name;
  matrix->layer = -1;
  if (strncmp(kind, block, strlen(block)) == 0) {
    char *end;
    matrix->layer = (int)strtol(kind + strlen(block), &end, 10);
    kind = *end == '.' ? end + 1 : end;
  } else if (strncmp(kind, prefix, strlen(prefix)) == 0) {
    kind += strlen(prefix);
  }
  char *copy = kp_arena_text(arena, kind);
  const size_t length = strlen(copy);
  if (length > strlen(ending) && strcmp(copy + length - strlen(ending), ending) == 0)
    copy[length - strlen(ending)] = 0;
  matrix->kind = copy;
}

static kp_status entropy_of(const kp_parameters *parameters, int index, double *entropy, kp_error *error) {
  const kp_parameter *p = &parameters->list[index];
  void *values;
  KP_TRY(kp_buffer_create((size_t)p->count * sizeof(double), p->name, &values, error));
  kp_parameters_read(parameters, parameters->values, index, values);
  const int64_t rank = p->shape[0] < p->shape[1] ? p->shape[0] : p->shape[1];
  double *singular = calloc((size_t)rank + 1, sizeof *singular);
  kp_status status = singular == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for singular values")
                                      : kp_singular_values(p->shape[0], p->shape[1], values, singular, error);
  if (status == KP_OK)
    *entropy = kp_spectral_entropy(singular, rank);
  else
    kp_context(error, "%s", p->name);
  free(singular);
  kp_buffer_destroy(values);
  return status;
}

kp_status kp_analysis_read_weights(kp_analysis *a, const kp_parameters *parameters, kp_error *error) {
  a->matrices = kp_arena_take(a->arena, (size_t)(parameters->count + 1) * sizeof *a->matrices);
  for (int i = 0; i < parameters->count; i++) {
    const kp_parameter *p = &parameters->list[i];
    if (p->dimensions != 2 || !p->used) continue;
    kp_matrix_analysis *matrix = &a->matrices[a->matrix_count];
    *matrix = (kp_matrix_analysis){
        .name = kp_arena_text(a->arena, p->name), .rows = p->shape[0], .columns = p->shape[1]};
    read_name(matrix, a->arena);
    KP_TRY(entropy_of(parameters, i, &matrix->entropy, error));
    a->matrix_count++;
  }
  return KP_OK;
}
