/* helm_d and helm_mice: language models on the hyperboloid (He et al. 2025).
 *
 * A point is [time | space] with -t² + |s|² = 1/κ; every linear map reads time and space and writes space,
 * from which time follows.  A block is
 *
 *     x ← Res(x, Attention(RMSNorm(x)));   x ← Res(x, FFN(RMSNorm(x)))
 *     Res(x, u):  a = x + w u,  back to the hyperboloid, its space part times S
 *
 * Attention scores by minus the squared Lorentz distance over a learned τ and returns the Lorentz centroid of
 * the values; HOPE rotates the space coordinates.  helm_mice has latent keys (HMLA) and a mixture of experts
 * on hyperboloids of their own curvature (MiCE).  exact merges the experts by one centroid; upstream folds
 * them one by one, as published.  width counts space coordinates: the published W is width + 1. */
#include "models/families.h"

static const char *const dense_presets[] = {"model.residual=lorentz",
                                            "model.residual_scale=4",
                                            "model.curvature.value=[-1]",
                                            "model.embedding=manifold",
                                            "model.head=lorentz",
                                            "model.norm=rms",
                                            "model.norm_epsilon=1e-8",
                                            "model.positions=hope",
                                            "model.attention.score=lorentz",
                                            "model.attention.values=lorentz",
                                            "model.feed_forward=lorentz",
                                            "model.activation=silu",
                                            NULL};

static const char *const mice_presets[] = {"model.residual=lorentz",
                                           "model.residual_scale=1",
                                           "model.curvature.value=[-1]",
                                           "model.embedding=manifold",
                                           "model.head=lorentz",
                                           "model.norm=rms",
                                           "model.norm_epsilon=1e-8",
                                           "model.positions=hope",
                                           "model.attention.kind=latent",
                                           "model.attention.score=lorentz",
                                           "model.attention.values=lorentz",
                                           "model.feed_forward=mice",
                                           "model.activation=silu",
                                           NULL};

const kp_family kp_family_helm_d = {.name = "helm_d",
                                    .twin = "model.family=llama",
                                    .help = "HELM-D: a dense transformer on the hyperboloid",
                                    .curved = true,
                                    .presets = dense_presets};

const kp_family kp_family_helm_mice = {.name = "helm_mice",
                                       .twin = "model.family=deepseek",
                                       .help = "HELM-MiCE: latent attention and experts on the hyperboloid",
                                       .curved = true,
                                       .presets = mice_presets};
