#include "study/learning_rates.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/json_text.h"

/* Elements [part, part + 1) · count / parts of a parameter. */
typedef struct share {
  int part, parts;
} share;

/* The mean of |element| · factor over a share of the parameter; NaN where there is none of that name. */
static kp_status mean_of(const kp_parameters *parameters, double factor, share of, double *mean,
                         kp_error *error, const char *format, ...) __attribute__((format(printf, 6, 7)));

static kp_status mean_of(const kp_parameters *parameters, double factor, share of, double *mean,
                         kp_error *error, const char *format, ...) {
  char name[96];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(name, sizeof name, format, arguments);
  va_end(arguments);
  *mean = (double)NAN;
  const int index = kp_parameters_find(parameters, name);
  if (index < 0) return KP_OK;
  const int64_t count = parameters->list[index].count;
  const int64_t first = count * of.part / of.parts, last = count * (of.part + 1) / of.parts;
  double *values = malloc((size_t)count * sizeof *values), sum = 0;
  if (values == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %s", name);
  kp_parameters_read(parameters, parameters->values, index, values);
  for (int64_t i = first; i < last; i++) sum += fabs(values[i] * factor);
  free(values);
  *mean = sum / (double)(last - first);
  return KP_OK;
}

kp_status kp_learning_rates_read(const kp_parameters *parameters, int layers, double stored, double rate,
                                 kp_arena *arena, kp_learning_rates *rates, kp_error *error) {
  static const share whole = {0, 1}, first = {0, 2}, second = {1, 2};
  *rates = (kp_learning_rates){.layers = layers,
                               .blocks = kp_arena_take(arena, ((size_t)layers + 1) * sizeof *rates->blocks)};
  for (int l = 0; l < layers; l++) {
    kp_block_rates *b = &rates->blocks[l];
    KP_TRY(mean_of(parameters, rate / stored, whole, &b->attention, error, "transformer.h.%d.attn.rate", l));
    KP_TRY(
        mean_of(parameters, rate / stored, whole, &b->feed_forward, error, "transformer.h.%d.mlp.rate", l));
    KP_TRY(
        mean_of(parameters, 1 / stored, whole, &b->query_gain, error, "transformer.h.%d.attn.query_gain", l));
    KP_TRY(mean_of(parameters, 1, first, &b->up_scale, error, "transformer.h.%d.mlp.scale", l));
    KP_TRY(mean_of(parameters, 1, second, &b->gate_scale, error, "transformer.h.%d.mlp.scale", l));
  }
  return mean_of(parameters, 1 / stored, whole, &rates->logit_scale, error, "lm_head.scale");
}

bool kp_learning_rates_present(const kp_learning_rates *rates) {
  bool present = !isnan(rates->logit_scale);
  for (int l = 0; l < rates->layers; l++) {
    const kp_block_rates *b = &rates->blocks[l];
    present |=
        !isnan(b->attention) || !isnan(b->feed_forward) || !isnan(b->query_gain) || !isnan(b->up_scale);
  }
  return present;
}

json_t *kp_learning_rates_json(const kp_learning_rates *rates) {
  json_t *blocks = json_array();
  for (int l = 0; l < rates->layers; l++) {
    const kp_block_rates *b = &rates->blocks[l];
    json_array_append_new(blocks,
                          json_pack("{s:o, s:o, s:o, s:o, s:o}", "attention", kp_json_number(b->attention),
                                    "feed_forward", kp_json_number(b->feed_forward), "query_gain",
                                    kp_json_number(b->query_gain), "up_scale", kp_json_number(b->up_scale),
                                    "gate_scale", kp_json_number(b->gate_scale)));
  }
  return json_pack("{s:o, s:o}", "blocks", blocks, "logit_scale", kp_json_number(rates->logit_scale));
}
