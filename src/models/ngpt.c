/* ngpt: the normalised transformer (Loshchilov et al. 2024), everything on the unit sphere.
 *
 *     h ← norm( h + α_A (norm(Attention(h)) - h) );   h ← norm( h + α_M (norm(MLP(h)) - h) )
 *
 * α are learned rates, one a channel; embeddings and the vectors of all matrices along the embedding axis are
 * of unit norm after every step; queries and keys are of unit norm times a learned gain; the feed-forward's
 * halves and the logits have learned scales.  `residual: slerp` moves along the great circle instead of the
 * chord.  upstream: the published rotation of queries and keys, which is none (docs/families.md). */
#include "models/families.h"

static const char *const presets[] = {"model.residual=lerp",
                                      "model.norm=none",
                                      "model.bias=false",
                                      "model.positions=rotary",
                                      "model.feed_forward=gated",
                                      "model.activation=silu",
                                      "model.head=scaled",
                                      "model.attention.query_norm=unit",
                                      NULL};

const kp_family kp_family_ngpt = {.name = "ngpt",
                                  .twin = "model.family=llama",
                                  .help = "nGPT: stream, embeddings and matrices on the unit sphere",
                                  .curved = true,
                                  .presets = presets};
