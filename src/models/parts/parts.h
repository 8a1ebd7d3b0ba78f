/* The parts that models are composed of.  Each adds nodes to the builder's graph and its parameters to the
 * table. */
#ifndef KAPPA_MODELS_PARTS_PARTS_H
#define KAPPA_MODELS_PARTS_PARTS_H

#include "models/model.h"

typedef struct kp_builder {
  const kp_model_options *options;
  kp_parameters *parameters;
  kp_network *network;
  kp_graph *graph;
  uint64_t dropouts; /* numbers the dropout streams */
} kp_builder;

bool kp_builder_decodes(const kp_builder *b);

/* ---- parameters ---- */

/* The parameter of that name as a tensor of this graph. */
kp_tensor *kp_part_parameter(kp_builder *b, const char *name, kp_group group, kp_initial initial,
                             int dimensions, const int64_t *shape);
/* A parameter that other projects' checkpoints hold but no operator reads. */
void kp_part_unused_parameter(kp_builder *b, const char *name, kp_group group, kp_initial initial,
                              int dimensions, const int64_t *shape);
/* Standard deviations of the initial weights: 0.02, and 0.02/√(2L) for maps into the residual stream (GPT-2).
 */
kp_initial kp_initial_weight(void);
kp_initial kp_initial_projection(const kp_model_options *options);
kp_initial kp_initial_of(double value);

/* `name`.weight (out, in) and, with `bias`, `name`.bias (out). */
kp_tensor *kp_part_linear(kp_builder *b, kp_tensor *x, const char *name, int64_t out, bool bias,
                          kp_initial initial);
/* The weight and bias (or NULL) of the norm `name`. */
/* Says that the weight of the linear map `name` stacks `blocks` matrices of equal size. */
void kp_part_stacked(kp_builder *b, const char *name, int blocks);
void kp_part_norm_parameters(kp_builder *b, const char *name, kp_tensor **weight, kp_tensor **bias);

/* ---- sub-layers ---- */

/* Token (and learned position) embedding: -> (B, T, C) */
kp_tensor *kp_part_embedding(kp_builder *b);
/* Causal self-attention of block `layer` over `y` (B, T, C), output projection included if the options say
 * so. */
kp_tensor *kp_part_attention(kp_builder *b, int64_t layer, kp_tensor *y);
/* C -> 4C -> C */
kp_tensor *kp_part_feed_forward(kp_builder *b, int64_t layer, kp_tensor *y);
/* Logits by the tied embedding, and the loss where there are targets: sets network->logits and ->loss. */
void kp_part_head(kp_builder *b, kp_tensor *y);

/* ---- the residual stream ---- */

/* The geometry of one block's residual stream. */
typedef struct kp_block_geometry {
  int update;           /* kp_program of the residual step */
  int tangent;          /* kp_program of the sub-layers' input, or -1: the stream itself */
  kp_tensor *curvature; /* (K, G) κ, or NULL when flat */
} kp_block_geometry;

/* How a family gets its blocks' geometry.  `stream` is the block's input, given where `depends_on_stream`
 * says so. */
typedef struct kp_residual_geometry {
  kp_block_geometry (*block)(kp_builder *b, int64_t layer, kp_tensor *stream);
  kp_reference_choice reference;
  bool depends_on_stream; /* `block` reads `stream`: curvature predicted from the tokens */
} kp_residual_geometry;

/* A whole pre-norm transformer: blocks of attention and feed-forward joined by seams, then the final norm.
 * `x` (B, T, C) is the embedded input; returns the normalised output. */
kp_tensor *kp_part_transformer(kp_builder *b, kp_tensor *x, const kp_residual_geometry *geometry);

#endif
