/* Models: options, families, and the graphs that are built from them.
 *
 * A model is a choice in each of a few places: how the stream moves, how
 * attention scores, what stands between.  Each choice is a part (parts/), and
 * any fit together that make sense.  A family is a preset of the choices, one
 * file that reads like its paper (gpt.c, mixed.c).  The same functions build
 * the graph of training, of evaluation and of cached decoding, so that there is
 * one definition of a model. */
#ifndef KAPPA_MODELS_MODEL_H
#define KAPPA_MODELS_MODEL_H

#include "core/config.h"
#include "core/executor.h"
#include "core/parameters.h"
#include "data/task.h"
#include "ops/ops.h"

enum { KP_MAX_LAYERS = 512, KP_MAX_EXPERTS = 4096 };

typedef enum kp_variant {
  KP_VARIANT_EXACT,    /* correct geometry */
  KP_VARIANT_UPSTREAM, /* what the published code computes, its oddities included */
} kp_variant;

/* How a mixed-curvature block is wired (docs/families.md). */
typedef enum kp_wiring { KP_WIRING_E1, KP_WIRING_E2, KP_WIRING_E3 } kp_wiring;

/* Where the tangent space of a sub-layer's input stands. */
typedef enum kp_reference_choice {
  KP_CHOICE_PREVIOUS, /* the previous token */
  KP_CHOICE_ORIGIN,
  KP_CHOICE_MEAN,     /* the running mean of past tokens */
  KP_CHOICE_MIDPOINT, /* the gyromidpoint of a window of past tokens */
} kp_reference_choice;

typedef enum kp_curvature_mode {
  KP_CURVATURE_FIXED,
  KP_CURVATURE_PARAMETRIC, /* learned, one start value a block */
  KP_CURVATURE_TIED,       /* learned, one for all blocks */
  KP_CURVATURE_RANDOM,     /* learned, each from its own random start */
} kp_curvature_mode;

/* How the residual stream moves, and so the space that it lives in. */
typedef enum kp_residual {
  KP_RESIDUAL_ADD,           /* x + u */
  KP_RESIDUAL_BOUNDED,       /* x + u, drawn back into a ball of radius 1/√-κ: flat, but bounded */
  KP_RESIDUAL_STEREOGRAPHIC, /* a step in a space of curvature κ (kp_wiring) */
  KP_RESIDUAL_LERP,          /* on the unit sphere: towards u, then normalised (nGPT) */
  KP_RESIDUAL_SLERP,         /* on the unit sphere, along the great circle */
  KP_RESIDUAL_LORENTZ,       /* on the hyperboloid: the normalised sum, its space part scaled (HELM) */
} kp_residual;

typedef enum kp_attention_kind {
  KP_ATTENTION_HEADS,  /* queries, keys and values are linear maps of the input */
  KP_ATTENTION_LATENT, /* keys and values come from a latent vector of low rank, which alone is cached */
} kp_attention_kind;

/* What is done to queries and keys before the score. */
typedef enum kp_query_norm {
  KP_QUERY_PLAIN,
  KP_QUERY_SCALED, /* divided by √D */
  KP_QUERY_UNIT,   /* of unit norm, times a learned gain a channel */
} kp_query_norm;

typedef enum kp_feed_forward {
  KP_FEED_FORWARD_MLP,     /* W₂ f(W₁ y) */
  KP_FEED_FORWARD_GATED,   /* W₂ (W₁ y · f(W₃ y)) */
  KP_FEED_FORWARD_LORENTZ, /* the gated one between points of the hyperboloid */
  KP_FEED_FORWARD_MOE,     /* routed and shared experts, flat */
  KP_FEED_FORWARD_MICE,    /* routed experts on hyperboloids of their own curvature */
} kp_feed_forward;

typedef enum kp_positions {
  KP_POSITIONS_LEARNED,
  KP_POSITIONS_ROTARY,
  KP_POSITIONS_HOPE, /* rotary on the space coordinates of Lorentz points */
} kp_positions;

typedef enum kp_embedding_kind {
  KP_EMBEDDING_TABLE,    /* rows are coordinates of the stream */
  KP_EMBEDDING_MANIFOLD, /* rows are points of the hyperboloid, moved by Riemannian steps */
} kp_embedding_kind;

typedef enum kp_head {
  KP_HEAD_TIED, /* the embedding's table */
  KP_HEAD_UNTIED,
  KP_HEAD_SCALED,      /* untied, logits times a learned scale a token (nGPT) */
  KP_HEAD_LORENTZ,     /* untied, reads time and space (HELM) */
  KP_HEAD_LORENTZ_MLR, /* multinomial logistic regression on the hyperboloid */
} kp_head;

/* What a classifier reads of a sequence. */
typedef enum kp_pooling {
  KP_POOLING_MEAN,  /* the mean over its tokens */
  KP_POOLING_FIRST, /* its first token */
} kp_pooling;

/* What is produced again in the backward pass instead of being kept. */
typedef enum kp_recompute {
  KP_RECOMPUTE_NONE,
  KP_RECOMPUTE_ACTIVATIONS, /* the feed-forward's activation */
  KP_RECOMPUTE_LINEARS,     /* and the wide linear maps before it and before attention */
} kp_recompute;

/* A set of curvatures: of the stream, of the attention heads, of the experts. */
typedef struct kp_curvature_options {
  kp_curvature_mode mode;
  kp_curvature_map map;
  double *values; /* κ: one, one a layer, or one a layer and group; owned */
  int count;
  bool per_head, dynamic, embedding; /* of the stream alone */
  int64_t groups;                    /* of the stream: curvatures of a product manifold; 0: one a head */
} kp_curvature_options;

/* How rotary positions serve a longer context than the angles were made for. */
typedef enum kp_stretching {
  KP_STRETCHING_YARN,   /* beyond it; scores become sharper */
  KP_STRETCHING_LLAMA3, /* always, and by turns: Llama 3.1 */
} kp_stretching;

typedef struct kp_rotary_options {
  kp_stretching stretching;
  double base, factor, beta_fast, beta_slow;
  int64_t original_context; /* 0: no stretching */
} kp_rotary_options;

typedef struct kp_attention_options {
  kp_attention_kind kind;
  kp_score score;
  kp_values values;
  kp_query_norm query_norm;
  int64_t kv_heads, head_size;
  struct {
    int64_t rank, query_rank, plain, rotary, value; /* space coordinates */
  } latent;
  kp_curvature_options curvature;
} kp_attention_options;

typedef enum kp_router_score { KP_ROUTER_SOFTMAX, KP_ROUTER_SIGMOID } kp_router_score;
typedef enum kp_balance_rule { KP_BALANCE_PROPORTIONAL, KP_BALANCE_SIGN } kp_balance_rule;

typedef struct kp_expert_options {
  int64_t routed, shared, active, groups, limited_groups, dense_layers, hidden;
  kp_router_score score;
  kp_balance_rule balance_rule;
  double route_scale, balance_rate, balance_loss;
  kp_curvature_options curvature;
} kp_expert_options;

/* Low-rank adapters beside linear maps, of a training graph; rank 0: none.  A model that is not trained has
 * them folded in (train/lora.h). */
typedef struct kp_lora_options {
  int64_t rank;
  double alpha, dropout;
  const char *const *targets; /* patterns over the names of the maps' weights; the configuration's */
  size_t target_count;
} kp_lora_options;

struct kp_family;

typedef struct kp_model_options {
  const struct kp_family *family;
  kp_task task;
  kp_pooling pooling; /* of a classifier */
  int64_t vocabulary, classes, layers, heads, width, context;
  double dropout;
  bool bias, output_projection, token_difference;
  kp_variant variant;
  kp_recompute recompute;
  bool packed;          /* rows hold several documents: given by the training settings, as recompute is */
  kp_lora_options lora; /* given by them too */
  kp_embedding_kind embedding;
  kp_head head;
  kp_positions positions;
  kp_rotary_options rotary;
  kp_residual residual;
  kp_wiring wiring;
  kp_reference_choice reference;
  int window;            /* of the midpoint reference */
  double residual_scale; /* of a Lorentz stream: S = residual_scale · √(width + 1) */
  double sphere_rate;    /* of a spherical stream: the first eigen learning rate */
  double sphere_scale;   /* of a spherical stream: what stands for 1 in a learned scale as it is stored */
  kp_norm norm;
  double norm_epsilon;
  kp_feed_forward feed_forward;
  int64_t hidden; /* channels inside the feed-forward */
  kp_activation_kind activation;
  kp_curvature_options curvature; /* of the stream */
  kp_attention_options attention;
  kp_expert_options experts;
} kp_model_options;

typedef enum kp_build_mode {
  KP_BUILD_TRAIN,    /* loss and gradients */
  KP_BUILD_EVALUATE, /* loss; no dropout */
  KP_BUILD_LOGITS,   /* all logits; no targets */
  KP_BUILD_DECODE,   /* logits of the last of T new tokens, with caches */
} kp_build_mode;

typedef struct kp_build {
  kp_build_mode mode;
  int64_t batch, length; /* B, T */
  bool documents;        /* attention stays inside documents, whose ids are an input */
  bool keep_hidden;      /* keep the stream after every block readable */
  bool keep_logits;      /* keep the logits of a graph with a loss readable */
  int64_t logit_bytes;   /* logits that would take more are made chunk by chunk with the loss; 0: 64 MiB */
} kp_build;

/* What a router decided, readable after a run. */
typedef struct kp_route_record {
  kp_tensor *counts;    /* (E): tokens of each expert; NULL: no experts here */
  kp_tensor *scores;    /* (N, E) */
  kp_tensor *curvature; /* (E): κ of the experts, or NULL */
  int bias;             /* parameter index of the selection bias */
} kp_route_record;

/* A graph of a model and the tensors that its user touches. */
typedef struct kp_network {
  kp_graph *graph;
  kp_build build;
  kp_tensor *tokens, *positions; /* (B, T) int32 */
  kp_tensor *documents;          /* (B, T) int32, with build.documents */
  kp_tensor *targets;            /* (B, T) int32, or (B) of a classifier, where there is a loss */
  kp_tensor *seed;               /* (1): d objective / d objective */
  bool trains_in_head;           /* gradients are made in the forward pass already, by the loss */
  kp_tensor *start;              /* (1) int32: position of the first new token, in decoding */
  kp_tensor *logits;             /* (B, T, V), in decoding (B, V); of labels (B, K) or (B, T, K) */
  kp_tensor *loss;               /* the mean cross-entropy */
  kp_tensor *balance;            /* what is added to even out the load of experts, or NULL */
  kp_tensor *objective;          /* what is differentiated: the loss, and what is added to balance experts */
  int layers;
  kp_tensor
      *hidden[KP_MAX_LAYERS + 1]; /* the stream before block 0, 1, … and after the last; with keep_hidden */
  kp_tensor *curvature[KP_MAX_LAYERS];      /* κ of each block (K, G), or NULL */
  kp_tensor *head_curvature[KP_MAX_LAYERS]; /* κ of each block's attention heads (H), or NULL */
  kp_route_record routes[KP_MAX_LAYERS];    /* of each block's experts; empty without them */
  kp_tensor *events[2 * KP_MAX_LAYERS + 2]; /* boundary events of each seam */
  int event_count;
} kp_network;

/* One family of models: a preset of the choices that a model is made of. */
typedef struct kp_family {
  const char *name;
  const char *help; /* one line */
  const char *twin; /* the family of its fair Euclidean twin, and `key=value` words; NULL when it is one */
  bool curved;
  /* "key=value" that differ from the schema's defaults, NULL behind the last. */
  const char *const *presets;
} kp_family;

const kp_family *kp_family_at(int index); /* NULL behind the last */

/* The configuration keys of models, by what they are about, and a schema of them alone. */
enum { KP_MODEL_TABLES = 4 };
extern const kp_config_table kp_model_config, kp_model_curvature_config, kp_model_attention_config,
    kp_model_feed_forward_config;
const kp_schema *kp_model_schema(void);

/* Gives the keys that were not set the family's presets; the `presets` of every schema with a model section.
 */
kp_status kp_model_presets(kp_config *config, kp_error *error);

/* Whether any part of the model is curved. */
bool kp_model_is_curved(const kp_model_options *options);

/* NULL, or why the model cannot be decoded with a cache. */
const char *kp_model_uncacheable(const kp_model_options *options);

/* Reads and checks the model section.  `data` is what the data says, NULL when nothing does: then the keys
 * must. Destroy the options with kp_model_options_destroy. */
kp_status kp_model_options_read(const kp_config *config, const kp_data_shape *data, kp_model_options *options,
                                kp_error *error);
void kp_model_options_destroy(kp_model_options *options);

/* Turns a resolved configuration into that of its fair Euclidean twin; a flat one stays as it is. */
kp_status kp_model_set_twin(kp_config *config, kp_error *error);
/* The settings that make it from the configuration as a user wrote it, "key=value" with spaces between; ""
 * when nothing is curved. */
void kp_model_twin_words(const kp_config *config, char *text, size_t size);

/* Keys of the model section that differ from their defaults although nothing reads them, given the other
 * keys: a curvature of a flat family, say.  Writes at most `room` names, which are constant; their number. */
size_t kp_model_unused_keys(const kp_config *config, const char *keys[], size_t room);

/* How many curvatures the heads of a block have: one each; or one, where they share latent points. */
int64_t kp_model_head_curvatures(const kp_model_options *options);

/* Tokens stand at positions 0 … T-1 of their rows: writes a network's positions. */
void kp_network_write_positions(const kp_network *network, kp_executor *executor);
/* κ that group `group` of `groups` of block `layer` starts with (random starts excepted). */
double kp_curvature_start(const kp_curvature_options *curvature, int64_t layers, int64_t layer,
                          int64_t groups, int64_t group);

/* The curvatures of one block's stream, and of its experts. */
int64_t kp_model_groups(const kp_model_options *options);

/* Whether a pass over tokens is told which document each belongs to. */
bool kp_model_reads_documents(const kp_model_options *options);

/* Builds a graph.  The first build fills `parameters`' table. */
kp_status kp_network_create(const kp_model_options *options, kp_parameters *parameters, kp_build build,
                            kp_network **network, kp_error *error);
void kp_network_destroy(kp_network *network);

/* Whether the forward pass of a training graph does what an evaluation must not: drop, or make gradients. */
bool kp_network_evaluates_apart(const kp_network *network, const kp_model_options *options);

/* Floating-point operations of one pass over the graph's nodes [first, last): multiplications and additions
 * of matrix products and attention, as is usual for model FLOPs. */
double kp_network_flops(const kp_network *network, int first, int last);

#endif
