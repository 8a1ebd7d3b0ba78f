/* What does not fit together.  Each refusal is a sentence that says why, and what does fit. */
#include "models/options_private.h"

/* ---- the stream ---- */

/* What the published mixed-curvature code cannot be asked for. */
static kp_status check_published_mixed(const kp_config *config, const kp_model_options *o, kp_error *error) {
  if (o->reference != KP_CHOICE_PREVIOUS)
    return kp_config_fail(config, "model.reference", error,
                          "the upstream variant has the previous token alone; use variant exact");
  if (o->output_projection)
    return kp_config_fail(config, "model.attention.output_projection", error,
                          "the upstream variant applies none; use variant exact");
  for (int i = 0; i < o->curvature.count; i++)
    if (o->curvature.values[i] > 0)
      return kp_config_fail(config, "model.curvature.value", error,
                            "the upstream variant is hyperbolic: κ = -c must not be positive");
  return KP_OK;
}

static kp_status check_hyperbolic(const kp_config *config, const char *key, const kp_curvature_options *c,
                                  const char *what, kp_error *error) {
  for (int i = 0; i < c->count; i++)
    if (c->values[i] >= 0)
      return kp_config_fail(config, key, error, "%s needs κ below 0, not %g", what, c->values[i]);
  return KP_OK;
}

static kp_status check_lorentz_stream(const kp_config *config, const kp_model_options *o, kp_error *error) {
  if (o->norm == KP_NORM_LAYER)
    return kp_config_fail(config, "model.norm", error,
                          "a point of the hyperboloid has no mean to take away: use rms or none");
  if (o->curvature.mode != KP_CURVATURE_FIXED || o->curvature.count != 1)
    return kp_config_fail(config, "model.curvature.value", error,
                          "a Lorentz stream has one fixed curvature; attention heads and experts may learn "
                          "theirs (model.attention.curvature, model.experts.curvature)");
  return check_hyperbolic(config, "model.curvature.value", &o->curvature, "the hyperboloid", error);
}

static kp_status check_stream(const kp_config *config, const kp_model_options *o, kp_error *error) {
  const bool sphere = o->residual == KP_RESIDUAL_LERP || o->residual == KP_RESIDUAL_SLERP;
  if (o->residual == KP_RESIDUAL_BOUNDED)
    KP_TRY(check_hyperbolic(config, "model.curvature.value", &o->curvature,
                            "the bounded stream's radius, 1/√-κ,", error));
  if (o->residual == KP_RESIDUAL_STEREOGRAPHIC && o->variant == KP_VARIANT_UPSTREAM)
    KP_TRY(check_published_mixed(config, o, error));
  if (o->residual == KP_RESIDUAL_STEREOGRAPHIC && o->norm == KP_NORM_NONE)
    return kp_config_fail(config, "model.norm", error,
                          "sub-layers of a stereographic stream read a normalised tangent vector: use layer "
                          "or rms");
  if (o->token_difference && o->norm == KP_NORM_NONE)
    return kp_config_fail(config, "model.norm", error,
                          "a token difference is read through a norm: use layer or rms");
  if (o->residual == KP_RESIDUAL_LORENTZ) KP_TRY(check_lorentz_stream(config, o, error));
  if (o->embedding == KP_EMBEDDING_MANIFOLD && o->residual != KP_RESIDUAL_LORENTZ)
    return kp_config_fail(config, "model.embedding", error,
                          "a table of points of the hyperboloid needs model.residual: lorentz; other streams "
                          "start from a table");
  if (sphere && o->positions == KP_POSITIONS_LEARNED)
    return kp_config_fail(config, "model.positions", error,
                          "a learned position added to a unit vector leaves the sphere: use rotary");
  return KP_OK;
}

/* ---- attention ---- */

static kp_status check_latent(const kp_config *config, const kp_model_options *o, kp_error *error) {
  const kp_attention_options *a = &o->attention;
  if (o->positions == KP_POSITIONS_LEARNED)
    return kp_config_fail(config, "model.positions", error,
                          "latent attention has channels that rotate: use rotary or hope");
  if (a->query_norm == KP_QUERY_UNIT)
    return kp_config_fail(config, "model.attention.query_norm", error,
                          "latent keys are made of two parts, of which one is shared by all heads: unit "
                          "norms need model.attention.kind: heads");
  if (a->values == KP_VALUES_MIDPOINT)
    return kp_config_fail(
        config, "model.attention.values", error,
        "gyromidpoints need model.attention.kind: heads; latent values take mean or lorentz");
  return KP_OK;
}

static kp_status check_attention(const kp_config *config, const kp_model_options *o, kp_error *error) {
  const kp_attention_options *a = &o->attention;
  const int64_t out = o->heads * (a->kind == KP_ATTENTION_LATENT ? a->latent.value : a->head_size);
  if (a->kind == KP_ATTENTION_LATENT) KP_TRY(check_latent(config, o, error));
  if (!o->output_projection && out != o->width)
    return kp_config_fail(config, "model.attention.output_projection", error,
                          "without one the heads' %lld channels would have to be model.width, %lld",
                          (long long)out, (long long)o->width);
  if (o->positions == KP_POSITIONS_HOPE && a->score != KP_SCORE_LORENTZ)
    return kp_config_fail(config, "model.positions", error,
                          "hope turns Lorentz points: use model.attention.score: lorentz, or rotary");
  if (a->score == KP_SCORE_LORENTZ || a->values == KP_VALUES_LORENTZ)
    KP_TRY(check_hyperbolic(config, "model.attention.curvature.value", &a->curvature,
                            "attention on the hyperboloid", error));
  if ((a->score == KP_SCORE_LORENTZ || a->values == KP_VALUES_LORENTZ) &&
      a->curvature.mode != KP_CURVATURE_FIXED && a->curvature.map < KP_CURVATURE_SOFTPLUS)
    return kp_config_fail(config, "model.attention.curvature.map", error,
                          "attention on the hyperboloid needs a map that stays below 0: softplus or sigmoid");
  if (o->rotary.original_context > 0 && o->positions == KP_POSITIONS_LEARNED)
    return kp_config_fail(config, "model.rotary.original_context", error,
                          "learned positions have no angles to stretch: use rotary or hope");
  if (o->rotary.original_context > 0 && o->rotary.stretching == KP_STRETCHING_LLAMA3 &&
      o->rotary.beta_fast <= o->rotary.beta_slow)
    return kp_config_fail(config, "model.rotary.beta_fast", error, "it must be above model.rotary.beta_slow");
  return KP_OK;
}

/* ---- what surrounds the blocks ---- */

static kp_status check_ends(const kp_config *config, const kp_model_options *o, kp_error *error) {
  const bool fold = o->feed_forward == KP_FEED_FORWARD_MICE && o->variant == KP_VARIANT_UPSTREAM;
  if (fold && o->experts.shared < 1)
    return kp_config_fail(config, "model.experts.shared", error,
                          "the published merge adds the routed experts to the shared one: it needs one");
  if (o->head == KP_HEAD_TIED && o->embedding == KP_EMBEDDING_MANIFOLD)
    return kp_config_fail(config, "model.head", error,
                          "a table of points is no linear map: use untied, lorentz or lorentz_mlr");
  if (o->task != KP_TASK_LANGUAGE && o->classes < 2)
    return kp_config_fail(config, "model.classes", error, "the data does not say how many labels it has");
  return KP_OK;
}

kp_status kp_check_combination(const kp_config *config, const kp_model_options *o, kp_error *error) {
  KP_TRY(check_stream(config, o, error));
  KP_TRY(check_attention(config, o, error));
  return check_ends(config, o, error);
}
