/* Self-attention with heads (Vaswani et al. 2017), for every score and every mean of values. */
#include <math.h>
#include <stdio.h>

#include "models/parts/parts.h"

static void name_of(char name[96], int64_t layer, const char *part) {
  snprintf(name, 96, "transformer.h.%lld.attn.%s", (long long)layer, part);
}

/* ---- the geometry of a block's heads ---- */

/* The published HELM learns τ, and its score is over τ: √(H·D) at first, D counted with time. */
static kp_tensor *inverse_temperature(kp_builder *b, int64_t layer, int64_t ambient_size) {
  const kp_model_options *o = b->options;
  const bool decayed = o->variant == KP_VARIANT_UPSTREAM && o->attention.kind == KP_ATTENTION_LATENT;
  char name[96];
  name_of(name, layer, "temperature");
  kp_tensor *tau =
      kp_part_parameter(b, name, decayed ? KP_GROUP_DECAY : KP_GROUP_NO_DECAY,
                        kp_initial_of(sqrt((double)(o->heads * ambient_size))), 1, (int64_t[]){1});
  return kp_curvature(b->graph, tau, KP_MAP_RECIPROCAL);
}

/* The published code adds a learned number to all scores, which softmax takes away. */
static void unused_score_bias(kp_builder *b, int64_t layer) {
  char name[96];
  name_of(name, layer, "score_bias");
  kp_part_unused_parameter(b, name, KP_GROUP_NO_DECAY, kp_initial_of(0), 1, (int64_t[]){1});
}

/* How sharp a head is: β = exp b, learned, since distances on a sphere are bounded. */
static kp_tensor *sharpness(kp_builder *b, int64_t layer) {
  const kp_model_options *o = b->options;
  const double start = o->attention.score == KP_SCORE_DISTANCE ? 1 : 0.25;
  char name[96];
  name_of(name, layer, "sharpness");
  kp_tensor *learned =
      kp_part_parameter(b, name, KP_GROUP_CURVATURE, kp_initial_of(log(start)), 1, &o->heads);
  return kp_curvature(b->graph, learned, KP_MAP_EXP);
}

static bool is_stretched(const kp_model_options *o) {
  if (o->rotary.original_context == 0) return false;
  return o->rotary.stretching == KP_STRETCHING_LLAMA3 || o->context > o->rotary.original_context;
}

/* YaRN sharpens the score by m², m = 0.1 ln(factor) + 1 (Peng et al. 2023, section 3.4). */
static double stretch(const kp_model_options *o) {
  const bool sharper = o->rotary.stretching == KP_STRETCHING_YARN && is_stretched(o);
  const double m = sharper ? 0.1 * log(o->rotary.factor) + 1 : 1;
  return m * m;
}

void kp_part_attention_geometry(kp_builder *b, int64_t layer, int64_t ambient_size,
                                kp_attention_operands *operands) {
  const kp_attention_options *a = &b->options->attention;
  if (a->score != KP_SCORE_DOT || a->values != KP_VALUES_MEAN) {
    operands->curvature =
        kp_part_curvature(b, &a->curvature, layer, kp_model_head_curvatures(b->options), "attn.curvature");
    kp_graph_keep(operands->curvature);
    b->network->head_curvature[layer] = operands->curvature;
  }
  if (a->score == KP_SCORE_LORENTZ) {
    operands->temperature = inverse_temperature(b, layer, ambient_size);
    if (b->options->variant == KP_VARIANT_UPSTREAM) unused_score_bias(b, layer);
  } else if (a->score != KP_SCORE_DOT)
    operands->temperature = sharpness(b, layer);
  if (operands->temperature != NULL && stretch(b->options) != 1)
    operands->temperature = kp_scale(b->graph, operands->temperature, stretch(b->options));
}

/* A dot product is over √D, of unit queries and keys times it; distances are of queries and keys over √D. */
double kp_part_attention_scale(const kp_builder *b, int64_t size) {
  const kp_model_options *o = b->options;
  const double root = sqrt((double)size);
  const bool dot = o->attention.score == KP_SCORE_DOT;
  double scale = 1;
  if (dot) scale = o->attention.query_norm == KP_QUERY_UNIT ? root : 1 / root;
  if (!dot && o->attention.query_norm == KP_QUERY_SCALED) scale = 1 / root;
  return dot ? scale * stretch(o) : scale;
}

static kp_attention_arguments arguments_of(const kp_builder *b) {
  const kp_model_options *o = b->options;
  const kp_attention_options *a = &o->attention;
  return (kp_attention_arguments){.batch = b->network->build.batch,
                                  .length = b->network->build.length,
                                  .heads = (int)o->heads,
                                  .kv_heads = (int)a->kv_heads,
                                  .head_size = (int)a->head_size,
                                  .packed = true,
                                  .causal = o->task == KP_TASK_LANGUAGE,
                                  .score = a->score,
                                  .values = a->values,
                                  .scale = kp_part_attention_scale(b, a->head_size)};
}

/* ---- queries, keys and values ---- */

kp_rotary_arguments kp_part_rotary(const kp_builder *b, int64_t heads, int64_t size) {
  const kp_rotary_options *r = &b->options->rotary;
  return (kp_rotary_arguments){.heads = (int)heads,
                               .head_size = (int)size,
                               .base = r->base,
                               .upstream = b->options->variant == KP_VARIANT_UPSTREAM &&
                                           b->options->positions == KP_POSITIONS_ROTARY,
                               .factor = is_stretched(b->options) ? r->factor : 0,
                               .original = (double)r->original_context,
                               .beta_fast = r->beta_fast,
                               .beta_slow = r->beta_slow,
                               .by_turns = r->stretching == KP_STRETCHING_LLAMA3};
}

/* Queries and keys of unit norm, turned first by their positions, times a gain that is stored as less than 1
 * so that a step moves it as much as a matrix's entry (nGPT's scaled parametrisation). */
static kp_tensor *unit_queries(kp_builder *b, int64_t layer, kp_tensor *qkv, bool turned) {
  const kp_model_options *o = b->options;
  const int64_t size = o->attention.head_size, channels = o->attention.kv_heads * size;
  const int64_t heads = o->heads + o->attention.kv_heads;
  const double stored = o->sphere_scale;
  char name[96];
  name_of(name, layer, "query_gain");
  kp_tensor *gain = kp_part_parameter(b, name, KP_GROUP_NO_DECAY, kp_initial_of(stored), 1, &channels);
  return kp_head_norm(b->graph, qkv, gain, turned ? b->network->positions : NULL,
                      (kp_head_norm_arguments){.heads = (int)heads,
                                               .head_size = (int)size,
                                               .factor = 1 / stored,
                                               .rotary = kp_part_rotary(b, heads, size)});
}

/* Side by side: (B, T, (H + 2H')·D). */
static kp_tensor *queries_keys_values(kp_builder *b, int64_t layer, kp_point y) {
  const kp_model_options *o = b->options;
  const kp_attention_options *a = &o->attention;
  const int64_t out = (o->heads + 2 * a->kv_heads) * a->head_size;
  char name[96];
  name_of(name, layer, "c_attn");
  if (a->score != KP_SCORE_LORENTZ) y.time = NULL;
  kp_tensor *qkv = y.time == NULL ? kp_part_linear(b, y.space, name, out, o->bias, kp_initial_weight(o))
                                  : kp_part_point_linear(b, y, name, out, kp_initial_uniform(o->width + 1));
  qkv->recompute = o->recompute >= KP_RECOMPUTE_LINEARS;
  if (a->kv_heads == o->heads) kp_part_stacked(b, name, 3);
  const bool turned = o->positions != KP_POSITIONS_LEARNED;
  if (a->query_norm == KP_QUERY_UNIT) return unit_queries(b, layer, qkv, turned);
  if (!turned) return qkv;
  return kp_rotary(b->graph, qkv, b->network->positions,
                   kp_part_rotary(b, o->heads + a->kv_heads, a->head_size));
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

/* ---- the output ---- */

/* The published mixed model keeps the matrix that it does not apply. */
static void unused_projection(kp_builder *b, const char *name, int64_t inner) {
  const kp_model_options *o = b->options;
  char full[112];
  snprintf(full, sizeof full, "%s.weight", name);
  kp_part_unused_parameter(b, full, KP_GROUP_DECAY, kp_initial_projection(o), 2,
                           (int64_t[]){o->width, inner});
  snprintf(full, sizeof full, "%s.bias", name);
  if (o->bias) kp_part_unused_parameter(b, full, KP_GROUP_NO_DECAY, kp_initial_of(0), 1, &o->width);
}

kp_tensor *kp_part_attention_output(kp_builder *b, int64_t layer, kp_point out) {
  const kp_model_options *o = b->options;
  const int64_t inner = kp_tensor_columns(out.space);
  const bool published_mixed = o->variant == KP_VARIANT_UPSTREAM && o->residual == KP_RESIDUAL_STEREOGRAPHIC;
  char name[96];
  name_of(name, layer, "c_proj");
  if (!o->output_projection) {
    if (published_mixed) unused_projection(b, name, inner);
    return out.space;
  }
  if (out.time == NULL) return kp_part_projection(b, out.space, name, o->bias);
  const int64_t ambient = inner + kp_tensor_columns(out.time);
  return kp_part_point_linear(b, out, name, o->width,
                              o->attention.kind == KP_ATTENTION_LATENT ? kp_initial_lorentz(o->width, ambient)
                                                                       : kp_initial_uniform(ambient));
}

kp_point kp_part_attention(kp_builder *b, int64_t layer, kp_point y) {
  const kp_model_options *o = b->options;
  kp_graph_scope(b->graph, "transformer.h.%lld.attn", (long long)layer);
  if (o->attention.kind == KP_ATTENTION_LATENT)
    return (kp_point){.space = kp_part_dropout(b, kp_part_attention_latent(b, layer, y))};
  kp_attention_operands operands = {.q = queries_keys_values(b, layer, y),
                                    .documents = b->network->documents};
  kp_part_attention_geometry(b, layer, o->attention.head_size + 1, &operands);
  kp_point out = kp_builder_decodes(b)
                     ? kp_attend_cached(b->graph, operands, cache(b, layer, "keys"),
                                        cache(b, layer, "values"), b->network->start, arguments_of(b))
                     : kp_attend(b->graph, operands, arguments_of(b));
  return (kp_point){.space = kp_part_dropout(b, kp_part_attention_output(b, layer, out))};
}
