/* A mixture of experts in place of the feed-forward: every token goes to its k best of E experts, and to the
 * shared one.
 *
 * Flat (DeepSeek-AI 2024): the sum of the shared result and of the routed ones by weight.  On the hyperboloid
 * (MiCE, He et al. 2025, section 4.3) expert e lives on a hyperboloid of its own: a point goes there by a
 * homothety, through the expert's maps, and back.  `exact` merges shared and routed results by one Lorentz
 * centroid; `upstream` folds the routed ones one after the other and adds them to the shared one by a Lorentz
 * residual with a learned weight w and scale exp σ.  Several shared experts are one of as many times the
 * channels, as published. */
#include <math.h>
#include <stdio.h>

#include "models/parts/parts.h"

/* The published fold: each step doubles the space part, and squared Lorentz norms are bounded below. */
static const double FOLD_SCALE = 2, PUBLISHED_FLOOR = 1e-4;
/* The published balance loss divides by this whatever the number of choices. */
enum { PUBLISHED_CHOICES = 2 };

/* What the steps of one layer share. */
typedef struct layer_of_experts {
  kp_builder *b;
  const kp_model_options *o;
  const kp_expert_options *e;
  int64_t layer;
  bool on_points, published;
} layer_of_experts;

static void name_of(const layer_of_experts *l, char name[96], const char *part) {
  snprintf(name, 96, "transformer.h.%lld.mlp.%s", (long long)l->layer, part);
}

static kp_tensor *parameter(const layer_of_experts *l, const char *part, kp_group group, kp_initial initial,
                            int dimensions, const int64_t *shape) {
  char name[96];
  name_of(l, name, part);
  return kp_part_parameter(l->b, name, group, initial, dimensions, shape);
}

/* ---- the gate ---- */

/* The bias of the choice: moved by the load (models/balance.h), not by a gradient. */
static kp_tensor *selection_bias(const layer_of_experts *l) {
  kp_builder *b = l->b;
  char name[96];
  name_of(l, name, "gate.bias");
  const int index =
      kp_parameters_add(b->parameters, name, 1, &l->e->routed, kp_initial_of(0), KP_GROUP_NO_DECAY, false);
  b->network->routes[l->layer].bias = index;
  return kp_graph_parameter(b->graph, b->parameters->list[index].name, index, KP_TYPE_STATISTIC, false, 1,
                            &l->e->routed);
}

static kp_initial initial_gate(const layer_of_experts *l) {
  if (!l->on_points) return kp_initial_weight(l->o);
  const double limit = sqrt(6.0 / (double)(l->e->routed + l->o->width)); /* Xavier */
  return (kp_initial){.kind = KP_INITIAL_UNIFORM, .a = -limit, .b = limit};
}

static void add_balance_loss(const layer_of_experts *l, const kp_routing *routing, kp_tensor *documents) {
  kp_network *network = l->b->network;
  if (l->e->balance_loss == 0 || network->build.mode != KP_BUILD_TRAIN) return;
  const kp_balance_arguments arguments = {.alpha = l->e->balance_loss,
                                          .choices = l->published ? PUBLISHED_CHOICES : (int)l->e->active,
                                          .length = l->published ? 0 : network->build.length};
  kp_tensor *loss = kp_balance_loss(l->b->graph, routing, documents, arguments);
  network->balance = network->balance == NULL ? loss : kp_add(l->b->graph, network->balance, loss);
}

/* Space coordinates decide.  On the unit sphere inner products are of order 1/√C. */
static kp_routing route(const layer_of_experts *l, kp_tensor *y) {
  const bool sigmoid = l->e->score == KP_ROUTER_SIGMOID;
  const kp_route_arguments arguments = {.experts = (int)l->e->routed,
                                        .choices = (int)l->e->active,
                                        .score = sigmoid ? KP_GATE_SIGMOID : KP_GATE_SOFTMAX,
                                        .renormalise = sigmoid,
                                        .scale = l->e->route_scale,
                                        .groups = (int)l->e->groups,
                                        .limited_groups = (int)l->e->limited_groups};
  char name[96];
  name_of(l, name, "gate.weight");
  kp_tensor *weight =
      kp_part_matrix(l->b, name, KP_GROUP_DECAY, initial_gate(l), l->e->routed, l->o->width, false);
  kp_tensor *logits = kp_linear(l->b->graph, y, weight, NULL);
  if (kp_is_spherical(l->o)) logits = kp_scale(l->b->graph, logits, sqrt((double)l->o->width));
  kp_tensor *documents = l->published ? NULL : l->b->network->documents;
  const kp_routing routing = kp_route_tokens(l->b->graph, logits, selection_bias(l), documents, arguments);
  kp_route_record *record = &l->b->network->routes[l->layer];
  record->counts = routing.counts;
  record->scores = routing.scores;
  kp_graph_keep(routing.counts);
  kp_graph_keep(routing.scores);
  add_balance_loss(l, &routing, documents);
  return routing;
}

/* ---- the routed experts ---- */

/* The published optimizer leaves out an expert without tokens; the counts stand with the selection bias. */
static void step_by_expert(const layer_of_experts *l, const kp_tensor *stack) {
  if (l->published && stack != NULL)
    kp_parameters_set_counter(l->b->parameters, stack->parameter, l->b->network->routes[l->layer].bias);
}

/* c of each expert; NULL on a flat stream. */
static kp_tensor *radii(const layer_of_experts *l) {
  const kp_curvature_options *curvature = &l->e->curvature;
  const int64_t E = l->e->routed;
  double c[KP_MAX_EXPERTS], theta[KP_MAX_EXPERTS];
  if (!l->on_points) return NULL;
  for (int64_t e = 0; e < E; e++) {
    c[e] = -1 / kp_curvature_start(curvature, l->o->layers, l->layer, E, e);
    theta[e] = l->published ? c[e] : log(c[e]);
  }
  kp_tensor *radius;
  if (curvature->mode == KP_CURVATURE_FIXED) {
    radius = kp_graph_constant(l->b->graph, "c", 1, &E, c);
  } else {
    const kp_initial initial = {.kind = KP_INITIAL_LIST, .values = theta, .count = (int)E};
    radius =
        parameter(l, "experts.curvature", l->published ? KP_GROUP_DECAY : KP_GROUP_CURVATURE, initial, 1, &E);
    step_by_expert(l, radius);
    if (!l->published) radius = kp_curvature(l->b->graph, radius, KP_MAP_EXP);
  }
  kp_tensor *kappa =
      kp_curvature(l->b->graph, kp_curvature(l->b->graph, radius, KP_CURVATURE_NEGATE), KP_MAP_RECIPROCAL);
  kp_graph_keep(kappa);
  l->b->network->routes[l->layer].curvature = kappa;
  return radius;
}

/* The stack NAME.weight (E, out, in), and NAME.time and NAME.bias (E, out) where there are times and biases.
 */
static kp_grouped_weights stack(const layer_of_experts *l, const char *name, int64_t out, int64_t in,
                                kp_initial initial) {
  const int64_t shape[] = {l->e->routed, out, in};
  char part[64], full[96];
  kp_grouped_weights w = {0};
  snprintf(part, sizeof part, "experts.%s.weight", name);
  name_of(l, full, part);
  const bool unit = kp_is_spherical(l->o) && in == l->o->width;
  w.weight = kp_part_manifold_parameter(l->b, full, KP_GROUP_DECAY, initial, 3, shape,
                                        unit ? KP_MANIFOLD_UNIT_ROWS : KP_MANIFOLD_NONE, 0);
  snprintf(part, sizeof part, "experts.%s.time", name);
  if (l->on_points) w.time = parameter(l, part, KP_GROUP_DECAY, initial, 2, shape);
  snprintf(part, sizeof part, "experts.%s.bias", name);
  if (l->o->bias) w.bias = parameter(l, part, KP_GROUP_NO_DECAY, kp_initial_of(0), 2, shape);
  step_by_expert(l, w.weight);
  step_by_expert(l, w.time);
  step_by_expert(l, w.bias);
  return w;
}

/* The stack NAME of the sorted rows, with its adapters. */
static kp_tensor *map_rows(const layer_of_experts *l, const char *name, kp_point x, kp_tensor *offsets,
                           kp_grouped_weights weights) {
  char part[64], full[96];
  snprintf(part, sizeof part, "experts.%s", name);
  name_of(l, full, part);
  kp_tensor *y = kp_grouped_linear(l->b->graph, x, offsets, weights);
  return kp_part_adapted_experts(l->b, y, x, offsets, weights, full);
}

static kp_initial initial_inner(const layer_of_experts *l) {
  return l->on_points ? kp_initial_lorentz(l->e->hidden, l->o->width + 1) : kp_initial_weight(l->o);
}

static kp_initial initial_outer(const layer_of_experts *l) {
  return l->on_points ? kp_initial_lorentz(l->o->width, l->e->hidden + 1) : kp_initial_projection(l->o);
}

/* u · f(g) of the sorted rows, on each expert's hyperboloid where there are any. */
static kp_point inner_rows(const layer_of_experts *l, kp_point y, const kp_routing *routing, kp_tensor *c) {
  kp_graph *graph = l->b->graph;
  const int64_t hidden = l->e->hidden, both = 2 * hidden;
  kp_grouped_weights gate = stack(l, "w1", hidden, l->o->width, initial_inner(l)),
                     up = stack(l, "w3", hidden, l->o->width, initial_inner(l));
  if (c != NULL) gate.input_scale = up.input_scale = kp_expert_scale(graph, c, kp_part_radius(l->b), false);
  const kp_point sorted = kp_gather_rows(graph, y, routing);
  kp_gate operands = {.x = map_rows(l, "w3", sorted, routing->offsets, up),
                      .gate = map_rows(l, "w1", sorted, routing->offsets, gate)};
  sorted.space->recompute = l->o->recompute >= KP_RECOMPUTE_ACTIVATIONS;
  operands.x->recompute = operands.gate->recompute = l->o->recompute >= KP_RECOMPUTE_LINEARS;
  if (kp_is_spherical(l->o))
    operands.scale = parameter(l, "experts.scale", KP_GROUP_NO_DECAY, kp_initial_of(1), 1, &both);
  kp_point h =
      kp_gated_point(graph, operands,
                     (kp_gated_arguments){.kind = l->o->activation, .gate_scale = sqrt((double)l->o->width)});
  h.space->recompute = l->o->recompute >= KP_RECOMPUTE_ACTIVATIONS;
  if (c != NULL) h.time = kp_expert_lift(graph, h.space, routing->offsets, c);
  return h;
}

/* The experts' results (R, C), back in the stream's geometry. */
static kp_tensor *routed_rows(const layer_of_experts *l, kp_point y, const kp_routing *routing) {
  kp_tensor *c = radii(l);
  const kp_point h = inner_rows(l, y, routing, c);
  kp_grouped_weights down = stack(l, "w2", l->o->width, l->e->hidden, initial_outer(l));
  if (c != NULL) down.output_scale = kp_expert_scale(l->b->graph, c, kp_part_radius(l->b), true);
  return map_rows(l, "w2", h, routing->offsets, down);
}

/* ---- the merge ---- */

/* The published one: the routed experts' fold as the branch of a residual from the shared one. */
static kp_tensor *fold(const layer_of_experts *l, kp_tensor *rows, const kp_routing *routing,
                       kp_tensor *shared) {
  kp_tensor *c = kp_part_radius(l->b);
  const kp_combine_arguments arguments = {
      .kind = KP_COMBINE_FOLD, .scale = FOLD_SCALE, .floor = PUBLISHED_FLOOR};
  kp_lorentz_seam seam = {.stream = {.space = shared}, .c = c};
  seam.branch = kp_expert_combine(l->b->graph, rows, routing, c, NULL, 0, arguments);
  seam.branch_weight = parameter(l, "merge_weight", KP_GROUP_DECAY, kp_initial_of(1), 1, (int64_t[]){1});
  kp_tensor *sigma = parameter(l, "merge_scale", KP_GROUP_NO_DECAY, kp_initial_of(log(2)), 1, (int64_t[]){1});
  seam.scale = kp_curvature(l->b->graph, sigma, KP_MAP_EXP);
  return kp_lorentz_residual(l->b->graph, seam, (kp_lorentz_residual_arguments){.floor = PUBLISHED_FLOOR})
      .stream.space;
}

kp_tensor *kp_part_experts(kp_builder *b, int64_t layer, kp_point y) {
  const kp_model_options *o = b->options;
  const layer_of_experts l = {.b = b,
                              .o = o,
                              .e = &o->experts,
                              .layer = layer,
                              .on_points = o->feed_forward == KP_FEED_FORWARD_MICE,
                              .published = o->feed_forward == KP_FEED_FORWARD_MICE &&
                                           o->variant == KP_VARIANT_UPSTREAM};
  if (!l.on_points) y.time = NULL;
  if (l.on_points && y.time == NULL) y.time = kp_lift(b->graph, y.space, 1, kp_part_radius(b));
  const kp_routing routing = route(&l, y.space);
  /* Published sizes add up with time counted. */
  const int64_t together = l.on_points ? l.e->shared * (l.e->hidden + 1) - 1 : l.e->shared * l.e->hidden;
  kp_tensor *shared =
      l.e->shared == 0 ? NULL : kp_part_gated_feed_forward(b, layer, y, together, l.on_points, "shared.");
  kp_tensor *rows = routed_rows(&l, y, &routing);
  if (l.published) return fold(&l, rows, &routing, shared);
  const kp_combine_arguments arguments = {.kind = l.on_points ? KP_COMBINE_CENTROID : KP_COMBINE_FLAT};
  return kp_expert_combine(b->graph, rows, &routing, kp_part_radius(b), &shared, shared == NULL ? 0 : 1,
                           arguments)
      .space;
}
