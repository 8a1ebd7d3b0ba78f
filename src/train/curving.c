#include "train/curving.h"

#include <math.h>

/* ---- what the configuration leaves out ---- */

static bool curves_stream(const kp_config *config, const kp_config *source) {
  return kp_config_choice(config, "model.residual") == KP_RESIDUAL_STEREOGRAPHIC &&
         kp_config_choice(source, "model.residual") == KP_RESIDUAL_ADD;
}

static bool has_curved_heads(const kp_config *config) {
  return kp_config_choice(config, "model.attention.score") != KP_SCORE_DOT ||
         kp_config_choice(config, "model.attention.values") != KP_VALUES_MEAN;
}

/* Lorentz scores and values have no κ = 0. */
static bool may_be_flat(const kp_config *config) {
  return kp_config_choice(config, "model.attention.score") != KP_SCORE_LORENTZ &&
         kp_config_choice(config, "model.attention.values") != KP_VALUES_LORENTZ;
}

static kp_status complete_heads(kp_config *config, kp_error *error) {
  KP_TRY(kp_config_preset(config, "model.attention.curvature.mode=parametric", error));
  KP_TRY(kp_config_preset(config, "model.attention.curvature.value=[0]", error));
  return kp_config_preset(config, "model.attention.curvature.map=tanh", error);
}

static kp_status complete_stream(kp_config *config, bool difference, kp_error *error) {
  KP_TRY(kp_config_preset(config, "model.curvature.mode=parametric", error));
  KP_TRY(kp_config_preset(config, "model.curvature.value=[0]", error));
  KP_TRY(kp_config_preset(config, "model.curvature.map=tanh", error));
  return kp_config_preset(config, difference ? "model.reference=previous" : "model.reference=origin", error);
}

kp_status kp_curving_complete(kp_config *config, const kp_config *source, kp_error *error) {
  if (has_curved_heads(config) && !has_curved_heads(source) && may_be_flat(config))
    KP_TRY(complete_heads(config, error));
  if (curves_stream(config, source) && kp_config_choice(config, "model.variant") == KP_VARIANT_EXACT)
    KP_TRY(complete_stream(config, kp_config_boolean(source, "model.token_difference"), error));
  return KP_OK;
}

/* ---- scores ---- */

bool kp_curving_sharpness(const kp_model_options *source, const kp_model_options *model, double *sharpness) {
  const kp_attention_options *from = &source->attention, *to = &model->attention;
  if (from->score != KP_SCORE_DOT || to->score != KP_SCORE_DISTANCE_SQUARED) return false;
  const double root = sqrt((double)to->head_size);
  const double product = from->query_norm == KP_QUERY_UNIT ? root : 1 / root;
  const double length = to->query_norm == KP_QUERY_SCALED ? 1 / root : 1;
  *sharpness = log(product / (8 * length * length));
  return true;
}

/* ---- what to say ---- */

static bool is_zero(const kp_curvature_options *c) {
  bool zero = c->mode != KP_CURVATURE_RANDOM && !c->dynamic && !c->embedding;
  for (int i = 0; i < c->count; i++) zero &= c->values[i] == 0;
  return zero;
}

/* Which tangent vector the flat sub-layers read. */
static bool same_tangent(const kp_model_options *source, const kp_model_options *model) {
  if (model->reference == KP_CHOICE_ORIGIN) return !source->token_difference;
  return model->reference == KP_CHOICE_PREVIOUS && source->token_difference && model->wiring != KP_WIRING_E1;
}

static const char *note_on_stream(const kp_model_options *source, const kp_model_options *model) {
  if (model->residual != KP_RESIDUAL_STEREOGRAPHIC || model->variant != KP_VARIANT_EXACT)
    return "the first outputs are not the flat model's: of the curved streams only the exact stereographic "
           "one (model.family: mixed) has a flat limit";
  if (!is_zero(&model->curvature))
    return "the first outputs are not the flat model's: give model.curvature.value: [0] and the mode "
           "parametric or tied";
  if (!same_tangent(source, model))
    return "the first outputs are not the flat model's: it reads the stream itself (model.reference: "
           "origin), "
           "or with model.token_difference the difference from the previous token (previous)";
  return NULL;
}

static const char *note_on_heads(const kp_model_options *model) {
  const kp_attention_options *a = &model->attention;
  if (a->values == KP_VALUES_LORENTZ || a->score == KP_SCORE_LORENTZ)
    return "the first outputs are not the flat model's: points of the hyperboloid have no κ = 0";
  if (!is_zero(&a->curvature))
    return "the first outputs are not the flat model's: give model.attention.curvature.value: [0] and the "
           "mode parametric or tied";
  if (a->score == KP_SCORE_DISTANCE)
    return "the first outputs are not the flat model's: a distance is no function of a dot product";
  if (a->score == KP_SCORE_DISTANCE_SQUARED && a->query_norm == KP_QUERY_UNIT)
    return "at κ = 0 the scores are the flat model's, as far as its query gains are equal in a head";
  if (a->score == KP_SCORE_DISTANCE_SQUARED)
    return "the first outputs are near the flat model's but not equal: at κ = 0 a squared distance is a dot "
           "product less a share of the key's squared length; query_norm: unit has keys of one length, and "
           "score: dot with values: midpoint curves what has a flat limit";
  return NULL;
}

const char *kp_curving_note(const kp_model_options *source, const kp_model_options *model) {
  const bool stream = model->residual != source->residual && model->residual >= KP_RESIDUAL_STEREOGRAPHIC;
  const bool heads = (model->attention.score != KP_SCORE_DOT || model->attention.values != KP_VALUES_MEAN) &&
                     source->attention.score == KP_SCORE_DOT && source->attention.values == KP_VALUES_MEAN;
  const char *note = NULL;
  if (kp_model_is_curved(source) || (!stream && !heads)) return NULL;
  if (stream) note = note_on_stream(source, model);
  if (note == NULL && heads) note = note_on_heads(model);
  return note != NULL ? note : "at κ = 0 the outputs are the flat model's";
}
