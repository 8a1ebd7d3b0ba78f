/* Latent attention: keys and values of all heads from one small vector a token, which alone is cached beside
 * a rotated key that the heads share (MLA, DeepSeek-AI 2024, section 2.1; HMLA, He et al. 2025, section 4.2).
 *
 *     q = W_q y                      or W_qb norm(W_qa y), of low rank
 *     [l | k_r] = W_kva y            l: the latent; k_r: rotated, shared by all heads
 *     [k_h | v_h] = W_kvb norm(l)    for each head h; its key is [k_h | k_r]
 *
 * On the hyperboloid every map reads a point and gives space coordinates, and normalised vectors are lifted.
 * Decoding keeps [l | k_r] and makes keys and values from it again. */
#include <math.h>
#include <stdio.h>

#include "models/parts/parts.h"

static void name_of(char name[96], int64_t layer, const char *part) {
  snprintf(name, 96, "transformer.h.%lld.attn.%s", (long long)layer, part);
}

/* A map of the input: of a point where it has a time. */
static kp_tensor *map(kp_builder *b, int64_t layer, kp_point x, const char *part, int64_t out) {
  const kp_model_options *o = b->options;
  char name[96];
  name_of(name, layer, part);
  if (x.time == NULL) return kp_part_linear(b, x.space, name, out, o->bias, kp_initial_weight(o));
  return kp_part_point_linear(b, x, name, out, kp_initial_lorentz(out, kp_tensor_columns(x.space) + 1));
}

static kp_tensor *norm_weight(kp_builder *b, int64_t layer, const char *part, int64_t size) {
  char name[96];
  name_of(name, layer, part);
  return kp_part_parameter(b, name, KP_GROUP_NO_DECAY, kp_initial_of(1), 1, &size);
}

/* weight · RMSNorm(x), lifted on points. */
static kp_point normalised(kp_builder *b, kp_tensor *x, kp_tensor *weight, kp_tensor *c, bool on_points) {
  const double epsilon = b->options->norm_epsilon;
  if (on_points)
    return kp_lorentz_residual(b->graph,
                               (kp_lorentz_seam){.stream = {.space = x}, .norm_weight = weight, .c = c},
                               (kp_lorentz_residual_arguments){.norm = true, .epsilon = epsilon})
        .normalised;
  return (kp_point){.space = kp_normalise(b->graph, x, weight, NULL, KP_NORM_RMS, epsilon)};
}

static kp_tensor *rotated(kp_builder *b, kp_tensor *x, int64_t heads, int64_t plain) {
  const int64_t size = b->options->attention.latent.rotary;
  kp_rotary_arguments arguments = kp_part_rotary(b, heads, size);
  arguments.offset = (int)plain;
  arguments.stride = (int)(plain + size);
  arguments.upstream = false; /* an oddity of nGPT's code alone */
  return kp_rotary(b->graph, x, b->network->positions, arguments);
}

static kp_tensor *queries(kp_builder *b, int64_t layer, kp_point y, kp_tensor *c) {
  const kp_model_options *o = b->options;
  const int64_t rank = o->attention.latent.query_rank, plain = o->attention.latent.plain;
  const int64_t out = o->heads * (plain + o->attention.latent.rotary);
  if (rank == 0) return rotated(b, map(b, layer, y, "q", out), o->heads, plain);
  kp_tensor *low = map(b, layer, y, "q_a", rank);
  const kp_point x = normalised(b, low, norm_weight(b, layer, "q_norm.weight", rank), c, y.time != NULL);
  return rotated(b, map(b, layer, x, "q_b", out), o->heads, plain);
}

/* The map from the latent to keys and values, as parameters: decoding applies it to what is cached. */
static kp_latent_operands up_map(kp_builder *b, int64_t layer, int64_t out, bool on_points) {
  const kp_model_options *o = b->options;
  const int64_t rank = o->attention.latent.rank;
  const kp_initial initial = on_points ? kp_initial_lorentz(out, rank + 1) : kp_initial_weight(o);
  char name[96];
  kp_latent_operands up = {.norm_weight = norm_weight(b, layer, "kv_norm.weight", rank)};
  name_of(name, layer, "kv_b.weight");
  up.weight = kp_part_matrix(b, name, KP_GROUP_DECAY, initial, out, rank, false);
  name_of(name, layer, "kv_b.time");
  if (on_points) up.time_weight = kp_part_parameter(b, name, KP_GROUP_DECAY, initial, 1, &out);
  name_of(name, layer, "kv_b.bias");
  if (o->bias) up.bias = kp_part_parameter(b, name, KP_GROUP_NO_DECAY, kp_initial_of(0), 1, &out);
  return up;
}

static kp_attention_arguments arguments_of(const kp_builder *b) {
  const kp_model_options *o = b->options;
  const int64_t size = o->attention.latent.plain + o->attention.latent.rotary;
  return (kp_attention_arguments){.batch = b->network->build.batch,
                                  .length = b->network->build.length,
                                  .heads = (int)o->heads,
                                  .kv_heads = (int)o->heads,
                                  .head_size = (int)size,
                                  .value_size = (int)o->attention.latent.value,
                                  .causal = o->task == KP_TASK_LANGUAGE,
                                  .score = o->attention.score,
                                  .values = o->attention.values,
                                  .scale = kp_part_attention_scale(b, size)};
}

static kp_point attend(kp_builder *b, int64_t layer, kp_attention_operands operands,
                       kp_tensor *latent_and_key, const kp_latent_operands *up, kp_tensor *c) {
  const kp_model_options *o = b->options;
  const int64_t rank = o->attention.latent.rank;
  const kp_columns parts = kp_split_columns(b->graph, latent_and_key, rank);
  const kp_point l = normalised(b, parts.left, up->norm_weight, c, up->time_weight != NULL);
  char name[96];
  name_of(name, layer, "kv_b");
  kp_tensor *z =
      kp_part_adapted(b, kp_linear_lorentz(b->graph, l, up->weight, up->time_weight, up->bias), l, name);
  z->recompute = o->recompute >= KP_RECOMPUTE_LINEARS;
  const kp_latent latent =
      kp_latent_keys(b->graph, z, parts.right,
                     (kp_latent_keys_arguments){.heads = (int)o->heads,
                                                .plain_size = (int)o->attention.latent.plain,
                                                .rope_size = (int)o->attention.latent.rotary,
                                                .value_size = (int)o->attention.latent.value});
  operands.k = latent.keys;
  operands.v = latent.values;
  operands.documents = b->network->documents;
  return kp_attend(b->graph, operands, arguments_of(b));
}

static kp_point attend_cached(kp_builder *b, int64_t layer, kp_attention_operands operands,
                              kp_tensor *latent_and_key, kp_latent_operands up) {
  const kp_model_options *o = b->options;
  const kp_attention_latent_arguments arguments = {.attention = arguments_of(b),
                                                   .latent_size = (int)o->attention.latent.rank,
                                                   .shared_size = (int)o->attention.latent.rotary,
                                                   .epsilon = o->norm_epsilon};
  char name[64];
  snprintf(name, sizeof name, "h.%lld.latent", (long long)layer);
  up.rows = latent_and_key;
  up.start = b->network->start;
  up.state =
      kp_graph_state(b->graph, name, KP_TYPE_REAL, 3,
                     (int64_t[]){b->network->build.batch, o->context, kp_tensor_columns(latent_and_key)});
  return kp_attend_latent_cached(b->graph, operands, up, arguments);
}

kp_tensor *kp_part_attention_latent(kp_builder *b, int64_t layer, kp_point y) {
  const kp_model_options *o = b->options;
  const int64_t rank = o->attention.latent.rank, rotary = o->attention.latent.rotary,
                plain = o->attention.latent.plain;
  kp_attention_operands operands = {0};
  if (o->attention.score != KP_SCORE_LORENTZ) y.time = NULL;
  const bool on_points = y.time != NULL;
  kp_part_attention_geometry(b, layer, plain + rotary + 1, &operands);
  kp_tensor *c = NULL; /* of the latent: that of the heads */
  if (on_points)
    c = kp_curvature(b->graph, kp_curvature(b->graph, operands.curvature, KP_CURVATURE_NEGATE),
                     KP_MAP_RECIPROCAL);
  operands.q = queries(b, layer, y, c);
  kp_tensor *latent_and_key = rotated(b, map(b, layer, y, "kv_a", rank + rotary), 1, rank);
  const kp_latent_operands up = up_map(b, layer, o->heads * (plain + o->attention.latent.value), on_points);
  const kp_point out = kp_builder_decodes(b) ? attend_cached(b, layer, operands, latent_and_key, up)
                                             : attend(b, layer, operands, latent_and_key, &up, c);
  return kp_part_attention_output(b, layer, out);
}
