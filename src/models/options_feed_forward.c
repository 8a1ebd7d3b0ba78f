/* The feed-forward, dense or of experts. */
#include "models/options_private.h"

static const kp_config_row rows[] = {
    {"model.feed_forward", KP_CONFIG_CHOICE, "mlp", "mlp|gated|lorentz|moe|mice",
     "two maps, the gated three (SwiGLU with silu), the gated three between points of the hyperboloid, "
     "routed "
     "experts, or routed experts on hyperboloids of their own curvature"},
    {"model.hidden", KP_CONFIG_INTEGER, "0", "[0, 1048576]",
     "channels inside the feed-forward; 0: 4 times the width (between points: of width + 1, less 1)"},
    {"model.activation", KP_CONFIG_CHOICE, "gelu_erf", "gelu_erf|gelu_tanh|silu", "of the feed-forward"},
    {"model.experts.routed", KP_CONFIG_INTEGER, "4", "[1, 4096]", "experts to choose from"},
    {"model.experts.shared", KP_CONFIG_INTEGER, "1", "[0, 64]", "experts that see every token"},
    {"model.experts.active", KP_CONFIG_INTEGER, "2", "[1, 64]", "experts chosen for a token"},
    {"model.experts.groups", KP_CONFIG_INTEGER, "1", "[1, 4096]", "groups of experts to choose from first"},
    {"model.experts.limited_groups", KP_CONFIG_INTEGER, "1", "[1, 4096]", "groups that are kept"},
    {"model.experts.dense_layers", KP_CONFIG_INTEGER, "1", "[0, 512]",
     "first blocks that have a dense feed-forward instead"},
    {"model.experts.hidden", KP_CONFIG_INTEGER, "0", "[0, 1048576]",
     "channels inside an expert; 0: half of model.hidden"},
    {"model.experts.score", KP_CONFIG_CHOICE, "softmax", "softmax|sigmoid", "of the router"},
    {"model.experts.route_scale", KP_CONFIG_REAL, "1", "(0, 1e4]", "multiplies the weights of the chosen"},
    {"model.experts.balance_rule", KP_CONFIG_CHOICE, "proportional", "proportional|sign",
     "how the selection bias follows the load after each step"},
    {"model.experts.balance_rate", KP_CONFIG_REAL, "0.005", "[0, 1]", "of that rule; 0: none"},
    {"model.experts.balance_loss", KP_CONFIG_REAL, "1e-4", "[0, 10]",
     "weight of the loss that evens out the load; 0: none"},
    {"model.experts.curvature.mode", KP_CONFIG_CHOICE, "parametric", "fixed|parametric",
     "mice: κ of the experts, fixed or learned; always hyperbolic"},
    {"model.experts.curvature.value", KP_CONFIG_REALS, "[-1]", "[-100, 0)",
     "mice: κ of the experts (its start): one, one a block, one an expert, or one a block and expert"},
};

const kp_config_table kp_model_feed_forward_config = {rows, sizeof rows / sizeof *rows};

static kp_status check_experts(const kp_config *config, const kp_expert_options *e, kp_error *error) {
  if (e->routed % e->groups != 0)
    return kp_config_fail(config, "model.experts.groups", error, "%lld do not divide %lld experts",
                          (long long)e->groups, (long long)e->routed);
  if (e->limited_groups > e->groups)
    return kp_config_fail(config, "model.experts.limited_groups", error, "there are %lld groups",
                          (long long)e->groups);
  if (e->active > e->routed / e->groups * e->limited_groups)
    return kp_config_fail(config, "model.experts.active", error, "only %lld experts are there to choose from",
                          (long long)(e->routed / e->groups * e->limited_groups));
  return KP_OK;
}

static kp_status read_experts(const kp_config *config, kp_model_options *o, kp_error *error) {
  kp_expert_options *e = &o->experts;
  *e = (kp_expert_options){
      .routed = kp_config_integer(config, "model.experts.routed"),
      .shared = kp_config_integer(config, "model.experts.shared"),
      .active = kp_config_integer(config, "model.experts.active"),
      .groups = kp_config_integer(config, "model.experts.groups"),
      .limited_groups = kp_config_integer(config, "model.experts.limited_groups"),
      .dense_layers = kp_config_integer(config, "model.experts.dense_layers"),
      .hidden = kp_config_integer(config, "model.experts.hidden"),
      .score = (kp_router_score)kp_config_choice(config, "model.experts.score"),
      .balance_rule = (kp_balance_rule)kp_config_choice(config, "model.experts.balance_rule"),
      .route_scale = kp_config_real(config, "model.experts.route_scale"),
      .balance_rate = kp_config_real(config, "model.experts.balance_rate"),
      .balance_loss = kp_config_real(config, "model.experts.balance_loss"),
  };
  if (e->hidden == 0) e->hidden = o->hidden / 2;
  if (e->hidden == 0) e->hidden = 1;
  return check_experts(config, e, error);
}

kp_status kp_read_feed_forward(const kp_config *config, kp_model_options *o, kp_error *error) {
  o->feed_forward = (kp_feed_forward)kp_config_choice(config, "model.feed_forward");
  o->hidden = kp_config_integer(config, "model.hidden");
  o->activation = (kp_activation_kind)kp_config_choice(config, "model.activation");
  /* The published Lorentz sizes are round with time counted. */
  const bool lorentz = o->feed_forward == KP_FEED_FORWARD_LORENTZ || o->feed_forward == KP_FEED_FORWARD_MICE;
  if (o->hidden == 0) o->hidden = lorentz ? 4 * (o->width + 1) - 1 : 4 * o->width;
  if (o->feed_forward < KP_FEED_FORWARD_MOE) return KP_OK;
  KP_TRY(read_experts(config, o, error));
  if (o->feed_forward != KP_FEED_FORWARD_MICE) return KP_OK;
  return kp_read_curvature_values(config, "model.experts.curvature", o, o->experts.routed,
                                  &o->experts.curvature, error);
}
