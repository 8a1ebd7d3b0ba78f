/* Low-rank adapters (LoRA, Hu et al. 2021): beside a linear map W stands a map of rank r, and W itself stays.
 *
 *     y = W x + b + (α/r) B A x            A (r, in), B (out, r), B = 0 at first
 *
 * A map of points reads space and time, and so does A: W x and B A x are added before the time of the result
 * is derived, so that the sum is one linear map of points, W + (α/r) B A.  A stack of experts has a stack of
 * adapters, between the same scales. */
#include <stdio.h>

#include "models/name_pattern.h"
#include "models/parts/parts.h"

static bool is_adapted(const kp_builder *b, const char *name) {
  const kp_lora_options *lora = &b->options->lora;
  char weight[160];
  if (lora->rank == 0) return false;
  snprintf(weight, sizeof weight, "%s.weight", name);
  return kp_name_is_among(lora->targets, lora->target_count, weight);
}

/* NAME.lora_PART, drawn like PyTorch's linear maps; B is 0. */
static kp_tensor *part(kp_builder *b, const char *name, const char *part_name, kp_initial initial,
                       int dimensions, const int64_t *shape) {
  char full[160];
  snprintf(full, sizeof full, "%s.%s", name, part_name);
  return kp_part_parameter(b, full, KP_GROUP_TABLE, initial, dimensions, shape);
}

static kp_tensor *dropped(kp_builder *b, kp_tensor *x) {
  if (b->network->build.mode != KP_BUILD_TRAIN) return x;
  return kp_dropout(b->graph, x, b->options->lora.dropout, b->dropouts++);
}

/* (α/r) A x: few columns, so that scaling costs little. */
static kp_tensor *scaled(kp_builder *b, kp_tensor *low) {
  const kp_lora_options *lora = &b->options->lora;
  return kp_scale(b->graph, low, lora->alpha / (double)lora->rank);
}

static kp_tensor *sum(kp_builder *b, kp_tensor *y, kp_tensor *more) {
  y->recompute = more->recompute = b->options->recompute >= KP_RECOMPUTE_LINEARS;
  return kp_add(b->graph, y, more);
}

kp_tensor *kp_part_adapted(kp_builder *b, kp_tensor *y, kp_point x, const char *name) {
  const int64_t rank = b->options->lora.rank, in = kp_tensor_columns(x.space);
  if (!is_adapted(b, name)) return y;
  const int64_t times = x.time == NULL ? 0 : kp_tensor_columns(x.time);
  const kp_initial initial = kp_initial_uniform(in + times);
  kp_tensor *down = part(b, name, "lora_a.weight", initial, 2, (int64_t[]){rank, in}), *time = NULL;
  if (times > 0) time = part(b, name, "lora_a.time", initial, times == 1 ? 1 : 2, (int64_t[]){rank, times});
  kp_tensor *up =
      part(b, name, "lora_b.weight", kp_initial_of(0), 2, (int64_t[]){kp_tensor_columns(y), rank});
  x.space = dropped(b, x.space);
  kp_tensor *low = kp_linear_lorentz(b->graph, x, down, time, NULL);
  return sum(b, y, kp_linear(b->graph, scaled(b, low), up, NULL));
}

kp_tensor *kp_part_adapted_experts(kp_builder *b, kp_tensor *y, kp_point x, kp_tensor *offsets,
                                   kp_grouped_weights base, const char *name) {
  const int64_t rank = b->options->lora.rank, in = kp_tensor_columns(x.space);
  const int64_t experts = base.weight->shape[0];
  if (!is_adapted(b, name)) return y;
  const kp_initial initial = kp_initial_uniform(in + (base.time != NULL));
  kp_grouped_weights down = {.input_scale = base.input_scale}, up = {.output_scale = base.output_scale};
  down.weight = part(b, name, "lora_a.weight", initial, 3, (int64_t[]){experts, rank, in});
  if (base.time != NULL) down.time = part(b, name, "lora_a.time", initial, 2, (int64_t[]){experts, rank});
  up.weight =
      part(b, name, "lora_b.weight", kp_initial_of(0), 3, (int64_t[]){experts, kp_tensor_columns(y), rank});
  x.space = dropped(b, x.space);
  kp_tensor *low = kp_grouped_linear(b->graph, x, offsets, down);
  return sum(b, y, kp_grouped_linear(b->graph, (kp_point){.space = scaled(b, low)}, offsets, up));
}
