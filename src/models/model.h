/* Models: options, families, and the graphs that are built from them.
 *
 * A family is one file (gpt.c, mixed.c) that reads like its paper; it builds a
 * graph from parts (parts/).  The same function builds the graph of training,
 * of evaluation and of cached decoding, so that there is one definition of a
 * model. */
#ifndef KAPPA_MODELS_MODEL_H
#define KAPPA_MODELS_MODEL_H

#include "core/config.h"
#include "core/parameters.h"
#include "ops/ops.h"

enum { KP_MAX_LAYERS = 512 };

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

typedef enum kp_positions { KP_POSITIONS_LEARNED, KP_POSITIONS_ROTARY } kp_positions;

/* What is produced again in the backward pass instead of being kept. */
typedef enum kp_recompute {
  KP_RECOMPUTE_NONE,
  KP_RECOMPUTE_ACTIVATIONS, /* the feed-forward's activation */
  KP_RECOMPUTE_LINEARS,     /* and the wide linear maps before it and before attention */
} kp_recompute;

struct kp_family;

typedef struct kp_model_options {
  const struct kp_family *family;
  int64_t vocabulary, layers, heads, width, context;
  double dropout;
  bool bias, output_projection, token_difference;
  kp_activation_kind activation;
  kp_positions positions;
  kp_recompute recompute;
  kp_variant variant;
  kp_wiring wiring;
  kp_reference_choice reference;
  int window; /* of the midpoint reference */
  struct {
    kp_curvature_mode mode;
    kp_curvature_map map;
    double *values; /* κ: one, one a layer, or one a layer and head; owned */
    int count;
    bool per_head, dynamic, embedding;
  } curvature;
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
  bool keep_hidden;      /* keep the stream after every block readable */
  bool keep_logits;      /* keep the logits of a graph with a loss readable */
} kp_build;

/* A graph of a model and the tensors that its user touches. */
typedef struct kp_network {
  kp_graph *graph;
  kp_build build;
  kp_tensor *tokens, *positions; /* (B, T) int32 */
  kp_tensor *targets;            /* (B, T) int32, where there is a loss */
  kp_tensor *seed;               /* (1): d objective / d loss */
  kp_tensor *start;              /* (1) int32: position of the first new token, in decoding */
  kp_tensor *logits;             /* (B, T, V); in decoding (B, V) of the last token */
  kp_tensor *loss;
  int layers;
  kp_tensor
      *hidden[KP_MAX_LAYERS + 1]; /* the stream before block 0, 1, … and after the last; with keep_hidden */
  kp_tensor *curvature[KP_MAX_LAYERS];      /* κ of each block (K, G), or NULL */
  kp_tensor *events[2 * KP_MAX_LAYERS + 2]; /* boundary events of each seam */
  int event_count;
} kp_network;

/* One family of models. */
typedef struct kp_family {
  const char *name;
  const char *twin; /* the `--set` words that make its fair Euclidean twin, or NULL when it is one */
  const char *help; /* one line */
  bool curved;
  /* Adds to `network`; parameters are added on the first call and found on later ones. */
  void (*build)(const kp_model_options *options, kp_parameters *parameters, kp_network *network);
  /* NULL, or why the model cannot be decoded with a cache. */
  const char *(*uncacheable)(const kp_model_options *options);
} kp_family;

const kp_family *kp_family_at(int index); /* NULL behind the last */
const kp_family *kp_family_find(const char *name);

/* The configuration keys of models. */
extern const kp_config_table kp_model_config;

/* Reads and checks the model section.  `vocabulary` is the data's (0: unknown, then the key must be set).
 * Destroy the options with kp_model_options_destroy. */
kp_status kp_model_options_read(const kp_config *config, int64_t vocabulary, kp_model_options *options,
                                kp_error *error);
void kp_model_options_destroy(kp_model_options *options);

/* Keys of the model section that differ from their defaults although nothing reads them, given the other
 * keys: a curvature of a flat family, say.  Writes at most `room` names, which are constant; their number. */
size_t kp_model_unused_keys(const kp_config *config, const char *keys[], size_t room);

/* κ that block `layer`, head `head` starts with (random starts excepted). */
double kp_model_curvature(const kp_model_options *options, int64_t layer, int64_t head);

/* Builds a graph.  The first build fills `parameters`' table. */
kp_status kp_network_create(const kp_model_options *options, kp_parameters *parameters, kp_build build,
                            kp_network **network, kp_error *error);
void kp_network_destroy(kp_network *network);

/* Floating-point operations of one pass over the graph's nodes [first, last): multiplications and additions
 * of matrix products and attention, as is usual for model FLOPs. */
double kp_network_flops(const kp_network *network, int first, int last);

#endif
