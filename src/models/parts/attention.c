/* Self-attention with heads (Vaswani et al. 2017), for every score. */
#include <math.h>
#include <stdio.h>

#include "models/parts/parts.h"

static void name_of(char name[96], int64_t layer, const char *part) {
  snprintf(name, 96, "transformer.h.%lld.attn.%s", (long long)layer, part);
}

/* The caches of one block: room for the whole context. */
static kp_tensor *cache(kp_builder *b, int64_t layer, const char *what) {
  const kp_model_options *o = b->options;
  char name[64];
  snprintf(name, sizeof name, "h.%lld.%s", (long long)layer, what);
  return kp_graph_state(
      b->graph, name, KP_TYPE_REAL, 4,
      (int64_t[]){b->network->build.batch, o->attention.kv_heads, o->context, o->attention.head_size});
}

/* How sharp a head is, β > 0: learned, since the distances on a sphere are bounded. */
static kp_tensor *temperature(kp_builder *b, int64_t layer) {
  const kp_model_options *o = b->options;
  const double start = o->attention.score == KP_SCORE_DISTANCE ? 1 : 0.25;
  char name[96];
  name_of(name, layer, "temperature");
  return kp_part_parameter(b, name, KP_GROUP_CURVATURE, kp_initial_of(start), 1, &o->heads);
}

static kp_tensor *project(kp_builder *b, int64_t layer, kp_tensor *out) {
  const kp_model_options *o = b->options;
  const int64_t inner = o->heads * o->attention.head_size;
  char name[96], full[112];
  name_of(name, layer, "c_proj");
  if (o->output_projection) return kp_part_projection(b, out, name, o->bias);
  if (o->variant != KP_VARIANT_UPSTREAM) return out;
  /* The published model keeps the matrix that it does not apply. */
  snprintf(full, sizeof full, "%s.weight", name);
  kp_part_unused_parameter(b, full, KP_GROUP_DECAY, kp_initial_projection(o), 2,
                           (int64_t[]){o->width, inner});
  snprintf(full, sizeof full, "%s.bias", name);
  if (o->bias) kp_part_unused_parameter(b, full, KP_GROUP_NO_DECAY, kp_initial_of(0), 1, &o->width);
  return out;
}

static kp_attention_arguments arguments_of(const kp_builder *b) {
  const kp_model_options *o = b->options;
  const kp_attention_options *a = &o->attention;
  const double root = 1 / sqrt((double)a->head_size);
  return (kp_attention_arguments){.batch = b->network->build.batch,
                                  .length = b->network->build.length,
                                  .heads = (int)o->heads,
                                  .kv_heads = (int)a->kv_heads,
                                  .head_size = (int)a->head_size,
                                  .packed = true,
                                  .causal = o->task == KP_TASK_LANGUAGE,
                                  .score = a->score,
                                  .scale = root};
}

kp_point kp_part_attention(kp_builder *b, int64_t layer, kp_point y) {
  const kp_model_options *o = b->options;
  const kp_attention_options *a = &o->attention;
  char name[96];
  kp_graph_scope(b->graph, "transformer.h.%lld.attn", (long long)layer);
  name_of(name, layer, "c_attn");
  kp_tensor *qkv =
      kp_part_linear(b, y.space, name, 3 * o->heads * a->head_size, o->bias, kp_initial_weight(o));
  qkv->recompute = o->recompute >= KP_RECOMPUTE_LINEARS;
  if (o->positions == KP_POSITIONS_ROTARY)
    qkv = kp_rotary(b->graph, qkv, b->network->positions,
                    (kp_rotary_arguments){
                        .heads = 2 * (int)o->heads, .head_size = (int)a->head_size, .base = o->rotary.base});
  kp_tensor *curvature = NULL, *beta = NULL;
  if (a->score != KP_SCORE_DOT) {
    curvature = kp_part_curvature(b, &a->curvature, layer, o->heads, "attn.curvature");
    kp_graph_keep(curvature);
    b->network->head_curvature[layer] = curvature;
    beta = temperature(b, layer);
  }
  kp_attention_arguments arguments = arguments_of(b);
  kp_tensor *out =
      kp_builder_decodes(b)
          ? kp_attention_cached(b->graph, qkv, cache(b, layer, "keys"), cache(b, layer, "values"),
                                b->network->start, curvature, beta, arguments)
          : kp_attention(b->graph, qkv, NULL, NULL, curvature, beta, arguments);
  return (kp_point){.space = kp_part_dropout(b, project(b, layer, out))};
}
