/* mixed: the mixed-curvature transformer.
 *
 * exact (the default): the residual stream is a point x of a space of
 * curvature κ, a product of one space a head if `per_head`.  A block takes the
 * logarithm at a reference point r (the previous token), and moves x by the
 * sub-layer's output u:
 *
 *     E1:  z = log_r(x)              x ← x ⊕ exp_r(u)
 *     E2:  z = log_r(x)              x ← exp_x(PT_{r→x} u)
 *     E3:  z = log_0((-r) ⊕ x)       x ← x ⊕ exp_0(u) = exp_x(PT_{0→x} u)
 *
 * The stream is stored as h = log_0(x) (docs/geometry.md): entering the space
 * (exp_0), moving between blocks of different κ (exp_0 of one, log_0 of the
 * other) and leaving it (log_0) then cost nothing, no point can leave the
 * ball, and κ → 0 gives the flat twin gpt with token_difference.
 *
 * upstream: what the published code computes (github.com/tomoqt's
 * hyperbolic_transformer), with its conformal factor, its epsilons and its
 * clamps; the stream is x itself; attention's output projection is missing. */
#include <math.h>
#include <stdio.h>

#include "models/families.h"
#include "models/parts/parts.h"

/* θ with map(θ) = κ: where a learned curvature starts. */
static double inverse_map(kp_curvature_map map, double kappa) {
  switch (map) {
  case KP_CURVATURE_TANH: return atanh(kappa / 2);
  case KP_CURVATURE_SOFTPLUS: return log(expm1(-kappa));
  case KP_CURVATURE_SIGMOID: return -log(-1 / kappa - 1);
  case KP_CURVATURE_NEGATE: return -kappa;
  default: return kappa;
  }
}

static bool is_upstream(const kp_builder *b) {
  return b->options->variant == KP_VARIANT_UPSTREAM;
}

static int64_t groups(const kp_builder *b) {
  /* The published code ignores per_head when it is given one value a block. */
  if (is_upstream(b) && b->options->curvature.mode <= KP_CURVATURE_PARAMETRIC) return 1;
  return b->options->curvature.per_head ? b->options->heads : 1;
}

static kp_curvature_map map_of(const kp_builder *b) {
  return is_upstream(b) ? KP_CURVATURE_NEGATE : b->options->curvature.map;
}

/* Where θ of block `layer` starts. */
static kp_initial initial_curvature(const kp_builder *b, int64_t layer, double theta[KP_MAX_LAYERS]) {
  const kp_model_options *o = b->options;
  /* Published: c = -κ uniform in (0, 1); in exact geometry θ is near 0, so that signs are free to form. */
  if (o->curvature.mode == KP_CURVATURE_RANDOM)
    return is_upstream(b) ? (kp_initial){.kind = KP_INITIAL_UNIFORM, .a = 0, .b = 1}
                          : (kp_initial){.kind = KP_INITIAL_NORMAL,
                                         .a = inverse_map(o->curvature.map, kp_model_curvature(o, layer, 0)),
                                         .b = 0.05};
  const int64_t count = groups(b);
  for (int64_t h = 0; h < count; h++) theta[h] = inverse_map(map_of(b), kp_model_curvature(o, layer, h));
  return (kp_initial){.kind = KP_INITIAL_LIST, .values = theta, .count = (int)count};
}

/* The learned θ of a block, by the name that the mode gives it. */
static kp_tensor *learned_theta(kp_builder *b, int64_t layer) {
  char name[64];
  double theta[KP_MAX_LAYERS];
  if (b->options->curvature.mode == KP_CURVATURE_TIED)
    snprintf(name, sizeof name, "shared_curvature");
  else
    snprintf(name, sizeof name, "transformer.h.%lld.%s", (long long)layer,
             is_upstream(b) ? "c" : "curvature");
  return kp_part_parameter(b, name, KP_GROUP_CURVATURE, initial_curvature(b, layer, theta), 1,
                           (int64_t[]){groups(b)});
}

/* κ as a (K, G) table. */
static kp_tensor *mapped(kp_builder *b, kp_tensor *theta, kp_curvature_map map) {
  return kp_curvature(b->graph, theta, map);
}

static kp_tensor *fixed_curvature(kp_builder *b, int64_t layer) {
  double kappa[KP_MAX_LAYERS];
  const int64_t count = groups(b);
  for (int64_t h = 0; h < count; h++) kappa[h] = kp_model_curvature(b->options, layer, h);
  return kp_graph_constant(b->graph, "curvature", 1, &count, kappa);
}

/* κ predicted from the block's input: exact, from each token itself; upstream, from the last token of the
 * sequence, which every earlier position then sees. */
static kp_tensor *predicted_curvature(kp_builder *b, int64_t layer, kp_tensor *stream) {
  char name[64];
  snprintf(name, sizeof name, "transformer.h.%lld.curvature_predictor", (long long)layer);
  kp_tensor *x = is_upstream(b) ? kp_select_row(b->graph, stream, -1) : stream;
  const int64_t outputs = b->options->curvature.per_head ? b->options->heads : 1;
  kp_tensor *theta = kp_part_linear(b, x, name, outputs, true, kp_initial_weight());
  if (is_upstream(b)) return mapped(b, theta, KP_CURVATURE_SIGMOID);
  return mapped(b, theta, b->options->curvature.map);
}

static kp_tensor *block_curvature(kp_builder *b, int64_t layer, kp_tensor *stream) {
  const kp_model_options *o = b->options;
  if (!o->curvature.dynamic)
    return o->curvature.mode == KP_CURVATURE_FIXED ? fixed_curvature(b, layer)
                                                   : mapped(b, learned_theta(b, layer), map_of(b));
  if (is_upstream(b) &&
      o->curvature.mode >= KP_CURVATURE_PARAMETRIC) { /* kept, and overridden by the prediction */
    char name[64];
    double theta[KP_MAX_LAYERS];
    snprintf(name, sizeof name, "transformer.h.%lld.c", (long long)layer);
    kp_part_unused_parameter(b, name, KP_GROUP_CURVATURE, initial_curvature(b, layer, theta), 1,
                             (int64_t[]){groups(b)});
  }
  return predicted_curvature(b, layer, stream);
}

static kp_block_geometry exact_block(kp_builder *b, int64_t layer, kp_tensor *stream) {
  static const int updates[] = {KP_PROGRAM_UPDATE_E1, KP_PROGRAM_UPDATE_E2, KP_PROGRAM_UPDATE_E3};
  const kp_model_options *o = b->options;
  kp_block_geometry block = {.update = updates[o->wiring], .curvature = block_curvature(b, layer, stream)};
  block.tangent = o->wiring == KP_WIRING_E3 ? KP_PROGRAM_TANGENT_TRANSPORTED : KP_PROGRAM_TANGENT_LOG;
  if (o->reference == KP_CHOICE_ORIGIN) block.tangent = -1; /* log_0(x) is the stored stream itself */
  return block;
}

static kp_block_geometry upstream_block(kp_builder *b, int64_t layer, kp_tensor *stream) {
  kp_block_geometry block = {.update = KP_PROGRAM_UPSTREAM_UPDATE,
                             .curvature = block_curvature(b, layer, stream)};
  /* The published code takes its per-head path whenever it has more than one curvature. */
  block.tangent = kp_tensor_columns(block.curvature) > 1 ? KP_PROGRAM_UPSTREAM_LOG_PER_HEAD
                                                         : KP_PROGRAM_UPSTREAM_LOG_SCALAR;
  return block;
}

/* The token's embedding as a step from the previous token's: x = r ⊕ exp_0(e), upstream EXP(r, e). */
static kp_tensor *embed_in_curved_space(kp_builder *b, kp_tensor *e) {
  kp_graph_scope(b->graph, "embedding_curvature");
  const double start = inverse_map(map_of(b), is_upstream(b) ? -0.5 : kp_model_curvature(b->options, 0, 0));
  kp_initial initial =
      is_upstream(b) ? (kp_initial){.kind = KP_INITIAL_UNIFORM, .b = 1} : kp_initial_of(start);
  kp_tensor *theta =
      kp_part_parameter(b, "embedding_curvature", KP_GROUP_CURVATURE, initial, 1, (int64_t[]){1});
  kp_tensor *history = NULL;
  if (kp_builder_decodes(b))
    history = kp_graph_state(b->graph, "embedding.history", KP_TYPE_REAL, 3,
                             (int64_t[]){b->network->build.batch, 1, b->options->width});
  kp_tensor *r = kp_reference(
      b->graph, e, NULL, history, history == NULL ? NULL : b->network->start,
      (kp_reference_arguments){.kind = KP_REFERENCE_PREVIOUS, .length = b->network->build.length});
  const int program = is_upstream(b) ? KP_PROGRAM_UPSTREAM_EXP : KP_PROGRAM_UPDATE_E3;
  kp_tensor *x =
      kp_curved_map(b->graph, program, 0, (kp_tensor *[3]){r, e, NULL}, mapped(b, theta, map_of(b)));
  if (history != NULL) kp_store_rows(b->graph, e, history, NULL, false);
  return x;
}

static void build(const kp_model_options *options, kp_parameters *parameters, kp_network *network) {
  kp_builder b = {.options = options, .parameters = parameters, .network = network, .graph = network->graph};
  const kp_residual_geometry geometry = {.block = is_upstream(&b) ? upstream_block : exact_block,
                                         .reference = options->reference,
                                         .depends_on_stream = options->curvature.dynamic};
  kp_tensor *x = kp_part_embedding(&b);
  if (options->curvature.embedding) x = embed_in_curved_space(&b, x);
  kp_part_head(&b, kp_part_transformer(&b, x, &geometry));
}

static const char *uncacheable(const kp_model_options *options) {
  if (options->variant == KP_VARIANT_UPSTREAM && options->curvature.dynamic)
    return "the published dynamic curvature reads the last token of the whole sequence";
  return NULL;
}

const kp_family kp_family_mixed = {
    .name = "mixed",
    .twin = "model.family=gpt model.token_difference=true",
    .help = "the mixed-curvature transformer: Möbius residual, tangent space at the previous token",
    .curved = true,
    .build = build,
    .uncacheable = uncacheable};
