/* The geometry of a stereographic stream (docs/families.md, mixed), and of the flat ones that share its
 * seams.
 *
 * exact stores the stream as h = log_0(x): entering the space (exp_0), moving between blocks of different κ
 * (exp_0 of one, log_0 of the other) and leaving it (log_0) then cost nothing, no point can leave the ball,
 * and κ → 0 gives the flat twin.  upstream's stream is x itself. */
#include <stdio.h>

#include "models/parts/parts.h"

static bool is_upstream(const kp_builder *b) {
  return b->options->variant == KP_VARIANT_UPSTREAM;
}

/* ---- flat streams ---- */

static kp_block_geometry flat_block(kp_builder *b, int64_t layer, kp_tensor *stream) {
  (void)stream;
  const kp_model_options *o = b->options;
  kp_block_geometry block = {.update = KP_PROGRAM_FLAT_ADD,
                             .tangent = o->token_difference ? KP_PROGRAM_FLAT_DIFFERENCE : -1};
  if (o->residual != KP_RESIDUAL_BOUNDED) return block;
  block.update = KP_PROGRAM_FLAT_BOUNDED;
  block.curvature = kp_part_curvature(b, &o->curvature, layer, kp_model_groups(o), "curvature");
  return block;
}

/* ---- the published model ---- */

/* The published code ignores per_head when it is given one value a block. */
static int64_t published_groups(const kp_model_options *o) {
  return o->curvature.mode <= KP_CURVATURE_PARAMETRIC ? 1 : kp_model_groups(o);
}

/* The learned c = -κ of a block: uniform in (0, 1) at first, or as given. */
static kp_tensor *published_parameter(kp_builder *b, int64_t layer, bool used) {
  const kp_curvature_options *c = &b->options->curvature;
  const double start = -kp_curvature_start(c, b->options->layers, layer, 1, 0);
  const int64_t count = published_groups(b->options);
  kp_initial initial = c->mode == KP_CURVATURE_RANDOM ? (kp_initial){.kind = KP_INITIAL_UNIFORM, .b = 1}
                                                      : kp_initial_of(start);
  char name[64] = "shared_curvature";
  if (!used || c->mode != KP_CURVATURE_TIED)
    snprintf(name, sizeof name, "transformer.h.%lld.c", (long long)layer);
  if (used) return kp_part_parameter(b, name, KP_GROUP_CURVATURE, initial, 1, &count);
  kp_part_unused_parameter(b, name, KP_GROUP_CURVATURE, initial, 1, &count);
  return NULL;
}

static kp_tensor *published_curvature(kp_builder *b, int64_t layer) {
  const kp_model_options *o = b->options;
  if (o->curvature.mode == KP_CURVATURE_FIXED)
    return kp_part_fixed_curvature(b, &o->curvature, layer, published_groups(o));
  return kp_curvature(b->graph, published_parameter(b, layer, true), KP_CURVATURE_NEGATE);
}

/* ---- curvature ---- */

/* κ predicted from the block's input: exact, from each token itself; upstream, from the last token of the
 * sequence, which every earlier position then sees. */
static kp_tensor *predicted_curvature(kp_builder *b, int64_t layer, kp_tensor *stream) {
  char name[64];
  snprintf(name, sizeof name, "transformer.h.%lld.curvature_predictor", (long long)layer);
  kp_tensor *x = is_upstream(b) ? kp_select_row(b->graph, stream, -1) : stream;
  kp_tensor *theta =
      kp_part_linear(b, x, name, kp_model_groups(b->options), true, kp_initial_weight(b->options));
  return kp_curvature(b->graph, theta, is_upstream(b) ? KP_CURVATURE_SIGMOID : b->options->curvature.map);
}

static kp_tensor *block_curvature(kp_builder *b, int64_t layer, kp_tensor *stream) {
  const kp_model_options *o = b->options;
  if (o->curvature.dynamic) {
    /* Published: kept, and overridden by the prediction. */
    if (is_upstream(b) && o->curvature.mode >= KP_CURVATURE_PARAMETRIC) published_parameter(b, layer, false);
    return predicted_curvature(b, layer, stream);
  }
  if (is_upstream(b)) return published_curvature(b, layer);
  return kp_part_curvature(b, &o->curvature, layer, kp_model_groups(o), "curvature");
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

/* ---- the embedding ---- */

/* The token's embedding as a step from the previous token's: x = r ⊕ exp_0(e), upstream EXP(r, e). */
static kp_tensor *embed_in_curved_space(kp_builder *b, kp_tensor *e) {
  kp_graph_scope(b->graph, "embedding_curvature");
  const kp_curvature_options *c = &b->options->curvature;
  const kp_curvature_map map = is_upstream(b) ? KP_CURVATURE_NEGATE : c->map;
  const double start = kp_curvature_start(c, b->options->layers, 0, kp_model_groups(b->options), 0);
  kp_initial initial = is_upstream(b) ? (kp_initial){.kind = KP_INITIAL_UNIFORM, .b = 1}
                                      : kp_initial_of(kp_curvature_inverse(map, start));
  kp_tensor *theta =
      kp_part_parameter(b, "embedding_curvature", KP_GROUP_CURVATURE, initial, 1, (int64_t[]){1});
  kp_tensor *history = NULL;
  if (kp_builder_decodes(b))
    history = kp_graph_state(b->graph, "embedding.history", KP_TYPE_REAL, 3,
                             (int64_t[]){b->network->build.batch, 1, b->options->width});
  kp_tensor *r = kp_reference(
      b->graph, e, NULL, history, history == NULL ? NULL : b->network->start, kp_part_borders(b),
      (kp_reference_arguments){.kind = KP_REFERENCE_PREVIOUS, .length = b->network->build.length});
  const int program = is_upstream(b) ? KP_PROGRAM_UPSTREAM_EXP : KP_PROGRAM_UPDATE_E3;
  kp_tensor *x =
      kp_curved_map(b->graph, program, 0, (kp_tensor *[3]){r, e, NULL}, kp_curvature(b->graph, theta, map));
  if (history != NULL) kp_store_rows(b->graph, e, history, NULL, false);
  return x;
}

kp_point kp_part_seam_stream(kp_builder *b, kp_point x) {
  const kp_model_options *o = b->options;
  kp_residual_geometry geometry = {.block = flat_block,
                                   .reference = o->token_difference ? KP_CHOICE_PREVIOUS : KP_CHOICE_ORIGIN};
  if (o->residual == KP_RESIDUAL_STEREOGRAPHIC) {
    geometry = (kp_residual_geometry){.block = is_upstream(b) ? upstream_block : exact_block,
                                      .reference = o->reference,
                                      .depends_on_stream = o->curvature.dynamic};
    if (o->curvature.embedding) x.space = embed_in_curved_space(b, x.space);
  }
  return kp_part_transformer(b, x, &geometry);
}
