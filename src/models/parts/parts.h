/* The parts that models are composed of.  Each adds nodes to the builder's graph and its parameters to the
 * table.  Between parts flow kp_points: flat rows, or points of the hyperboloid whose time is given. */
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

/* ---- parameters (parameters.c, curvature.c) ---- */

/* The parameter of that name as a tensor of this graph. */
kp_tensor *kp_part_parameter(kp_builder *b, const char *name, kp_group group, kp_initial initial,
                             int dimensions, const int64_t *shape);
/* The same, on a manifold of curvature `curvature` where it has one. */
kp_tensor *kp_part_manifold_parameter(kp_builder *b, const char *name, kp_group group, kp_initial initial,
                                      int dimensions, const int64_t *shape, kp_manifold manifold,
                                      double curvature);
/* A parameter that other projects' checkpoints hold but no operator reads. */
void kp_part_unused_parameter(kp_builder *b, const char *name, kp_group group, kp_initial initial,
                              int dimensions, const int64_t *shape);

/* Initial weights: deviation 0.02 (GPT-2), or 1/√C where matrices are normalised (nGPT); maps into the
 * residual stream have 1/√(2L) of it. */
kp_initial kp_initial_weight(const kp_model_options *options);
kp_initial kp_initial_projection(const kp_model_options *options);
kp_initial kp_initial_of(double value);
/* Uniform in ±1/√in (PyTorch's linear maps), and in ±√(12/(out + in)) (Xavier with gain √2). */
kp_initial kp_initial_uniform(int64_t in);
kp_initial kp_initial_lorentz(int64_t out, int64_t in);
/* Whether the stream lives on the unit sphere. */
bool kp_is_spherical(const kp_model_options *options);

/* A matrix (out, in): its rows on the unit sphere where the stream is, or with `columns` its columns. */
kp_tensor *kp_part_matrix(kp_builder *b, const char *name, kp_group group, kp_initial initial, int64_t out,
                          int64_t in, bool columns);
/* `name`.weight (out, in) and, with `bias`, `name`.bias (out). */
kp_tensor *kp_part_linear(kp_builder *b, kp_tensor *x, const char *name, int64_t out, bool bias,
                          kp_initial initial);
/* The same for a map into the residual stream. */
kp_tensor *kp_part_projection(kp_builder *b, kp_tensor *x, const char *name, bool bias);
/* A linear map of points, G times a row (a head each): `name`.weight (out, in), `name`.time (out), or (out,
 * G), and `name`.bias (out) if the options have biases.  Gives space coordinates. */
kp_tensor *kp_part_point_linear(kp_builder *b, kp_point x, const char *name, int64_t out, kp_initial initial);
/* What the linear map `name` has made of x, with its adapter's part if it has one (adapter.c); and of sorted
 * rows the same of a stack of experts. */
kp_tensor *kp_part_adapted(kp_builder *b, kp_tensor *y, kp_point x, const char *name);
kp_tensor *kp_part_adapted_experts(kp_builder *b, kp_tensor *y, kp_point x, kp_tensor *offsets,
                                   kp_grouped_weights base, const char *name);
/* Says that the weight of the linear map `name` stacks `blocks` matrices of equal size. */
void kp_part_stacked(kp_builder *b, const char *name, int blocks);
/* c = -1/κ of the hyperboloid that the stream lives on; NULL: 1. */
kp_tensor *kp_part_radius(kp_builder *b);
/* The weight and bias (or NULL) of the norm `name`; both NULL without a norm. */
void kp_part_norm_parameters(kp_builder *b, const char *name, kp_tensor **weight, kp_tensor **bias);

/* θ with map(θ) = κ: where a learned curvature starts. */
double kp_curvature_inverse(kp_curvature_map map, double kappa);
/* κ (count) of block `layer`: a constant, or a map of the parameter `name`. */
kp_tensor *kp_part_curvature(kp_builder *b, const kp_curvature_options *curvature, int64_t layer,
                             int64_t count, const char *name);
kp_tensor *kp_part_fixed_curvature(kp_builder *b, const kp_curvature_options *curvature, int64_t layer,
                                   int64_t count);

/* The numbers of documents that share rows, at whose borders reference points begin anew; NULL where a row is
 * one. */
kp_tensor *kp_part_borders(const kp_builder *b);

/* ---- around the blocks (embedding.c, head.c) ---- */

/* Token (and learned position) embedding: -> (B, T, C) */
kp_point kp_part_embedding(kp_builder *b);
/* The embedding's table (V, C), for a tied head. */
kp_tensor *kp_part_token_table(kp_builder *b);
/* Logits, and the loss where there are targets: sets network->logits, ->loss and ->objective. */
void kp_part_head(kp_builder *b, kp_point y);
/* Sets the loss, and what is differentiated: the loss and what evens out the load of experts. */
void kp_part_objective(kp_builder *b, kp_tensor *loss);
/* The same for labels of sequences or tokens (task_heads.c). */
void kp_part_task_head(kp_builder *b, kp_point y);

/* ---- sub-layers: normalised input -> branch (attention.c, feed_forward.c) ---- */

kp_tensor *kp_part_dropout(kp_builder *b, kp_tensor *x);
/* Self-attention of block `layer`, output projection included if the options say so. */
kp_point kp_part_attention(kp_builder *b, int64_t layer, kp_point y);
kp_point kp_part_feed_forward(kp_builder *b, int64_t layer, kp_point y);

/* Attention over latent keys and values, trained and over a cache of the latents (attention_latent.c). */
kp_tensor *kp_part_attention_latent(kp_builder *b, int64_t layer, kp_point y);
/* What both kinds share.  Fills in curvature and temperature; `ambient_size` counts a key's time. */
void kp_part_attention_geometry(kp_builder *b, int64_t layer, int64_t ambient_size,
                                kp_attention_operands *operands);
/* What inner products, or queries and keys before a distance, are multiplied by: heads of `size` channels. */
double kp_part_attention_scale(const kp_builder *b, int64_t size);
/* The frequencies of `heads` heads of `size` channels that turn. */
kp_rotary_arguments kp_part_rotary(const kp_builder *b, int64_t heads, int64_t size);
/* The map behind attention, if the options have one. */
kp_tensor *kp_part_attention_output(kp_builder *b, int64_t layer, kp_point out);

/* Routed and shared experts (experts.c). */
kp_tensor *kp_part_experts(kp_builder *b, int64_t layer, kp_point y);
/* The gated feed-forward, flat or between points; `prefix` stands before its parameters' names. */
kp_tensor *kp_part_gated_feed_forward(kp_builder *b, int64_t layer, kp_point y, int64_t hidden,
                                      bool on_points, const char *prefix);

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
kp_point kp_part_transformer(kp_builder *b, kp_point x, const kp_residual_geometry *geometry);

/* All blocks between embedding and head, on a flat or stereographic stream, on the unit sphere, on the
 * hyperboloid, and by what the options say.  Return what the head reads. */
kp_point kp_part_seam_stream(kp_builder *b, kp_point x);
kp_point kp_part_sphere_stream(kp_builder *b, kp_point x);
kp_point kp_part_lorentz_stream(kp_builder *b, kp_point x);
kp_point kp_part_stream(kp_builder *b, kp_point x);
/* Makes the stream in front of block `index` readable, if that was asked for. */
void kp_part_keep_hidden(const kp_builder *b, int64_t index, kp_tensor *stream);

/* The graph of a model: adds to `network`; parameters are added on the first call and found on later ones. */
void kp_model_build(const kp_model_options *options, kp_parameters *parameters, kp_network *network);

#endif
