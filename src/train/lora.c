#include "train/lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

kp_lora_options kp_lora_read(const kp_config *config) {
  kp_lora_options lora = {.rank = kp_config_integer(config, "train.lora.rank"),
                          .alpha = kp_config_real(config, "train.lora.alpha"),
                          .dropout = kp_config_real(config, "train.lora.dropout")};
  lora.targets = kp_config_texts(config, "train.lora.targets", &lora.target_count);
  return lora;
}

bool kp_is_adapter(const char *name) {
  return strstr(name, ".lora_a.") != NULL || strstr(name, ".lora_b.") != NULL;
}

kp_status kp_lora_check(const kp_parameters *parameters, kp_error *error) {
  for (int p = 0; p < parameters->count; p++)
    if (kp_is_adapter(parameters->list[p].name)) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "train.lora.targets: no linear map of attention or feed-forward matches; `kappa info` lists "
                 "the names of all weights");
}

/* ---- folding ---- */

/* The matrices that make one change of a parameter: `stack` of them, (rows, rank) and (rank, columns). */
typedef struct change {
  const kp_safetensors_entry *up, *down;
  int64_t stack, rows, columns;
} change;

/* "NAME.lora_a.PART" of "NAME.PART"; false when the name has no part or is too long. */
static bool part_name(const char *name, const char *adapter, const char *part, char out[192]) {
  const char *dot = strrchr(name, '.');
  if (dot == NULL) return false;
  return snprintf(out, 192, "%.*s.%s.%s", (int)(dot - name), name, adapter, part) < 192;
}

static bool fits(const change *c, int64_t count, int64_t rank) {
  return c->stack > 0 && c->up->elements == c->stack * c->rows * rank &&
         c->down->elements == c->stack * rank * c->columns && count == c->stack * c->rows * c->columns;
}

/* Looks for what changes parameter `p`, a weight or the weight of the time; `up` is NULL when nothing does.
 */
static kp_status find(const kp_safetensors *file, const kp_parameter *p, int64_t rank, change *c,
                      kp_error *error) {
  const char *dot = strrchr(p->name, '.'), *part = dot == NULL ? "" : dot + 1;
  char up[192], down[192];
  *c = (change){0};
  if (strcmp(part, "weight") != 0 && strcmp(part, "time") != 0) return KP_OK;
  if (!part_name(p->name, "lora_b", "weight", up) || !part_name(p->name, "lora_a", part, down)) return KP_OK;
  c->down = kp_safetensors_find(file, down);
  if (c->down == NULL) return KP_OK;
  KP_TRY(kp_safetensors_require(file, up, &c->up, error));
  const bool stacked = c->up->rank == 3;
  c->stack = stacked ? c->up->shape[0] : 1;
  c->rows = c->up->rank >= 2 ? c->up->shape[c->up->rank - 2] : 0;
  c->columns = c->up->elements > 0 && c->down->elements > 0 ? c->down->elements / (c->stack * rank) : 0;
  if (c->up->rank >= 2 && c->up->elements > 0 && fits(c, p->count, rank)) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s: the adapter of %s does not fit it at rank %lld",
                 kp_safetensors_label(file), p->name, (long long)rank);
}

/* w ← w + scale · B A, all row-major, sums in double. */
static void add_product(const change *c, const double *up, const double *down, int64_t rank, double scale,
                        double *w) {
  for (int64_t s = 0; s < c->stack; s++)
    for (int64_t row = 0; row < c->rows; row++)
      for (int64_t k = 0; k < rank; k++) {
        const double factor = scale * up[(s * c->rows + row) * rank + k];
        const double *a = down + (s * rank + k) * c->columns;
        double *to = w + (s * c->rows + row) * c->columns;
        for (int64_t column = 0; column < c->columns; column++) to[column] += factor * a[column];
      }
}

static kp_status apply(const change *c, const kp_lora_options *lora, kp_parameters *parameters, int index,
                       kp_error *error) {
  const size_t count = (size_t)parameters->list[index].count;
  double *w = malloc(count * sizeof *w + 1), *up = malloc((size_t)c->up->elements * sizeof *up + 1);
  double *down = malloc((size_t)c->down->elements * sizeof *down + 1);
  kp_status status = w == NULL || up == NULL || down == NULL
                         ? kp_fail(error, KP_ERR_MEMORY, "no memory to fold an adapter")
                         : KP_OK;
  if (status == KP_OK) status = kp_safetensors_read(c->up, KP_F64, up, error);
  if (status == KP_OK) status = kp_safetensors_read(c->down, KP_F64, down, error);
  if (status == KP_OK) {
    kp_parameters_read(parameters, parameters->values, index, w);
    add_product(c, up, down, lora->rank, lora->alpha / (double)lora->rank, w);
    kp_parameters_write(parameters, parameters->values, index, w);
  }
  free(w);
  free(up);
  free(down);
  return status;
}

kp_status kp_lora_fold(const kp_safetensors *file, const kp_lora_options *lora, kp_parameters *parameters,
                       kp_error *error) {
  for (int p = 0; p < parameters->count && lora->rank > 0; p++) {
    change c;
    KP_TRY(find(file, &parameters->list[p], lora->rank, &c, error));
    if (c.down != NULL) KP_TRY(apply(&c, lora, parameters, p, error));
  }
  return KP_OK;
}
