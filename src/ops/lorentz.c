/* Points of the hyperboloid: lifting vectors to it, and moving points to another one.
 *
 * Layout and conventions: backend/operators.h.  A point's time is kept beside its space coordinates, and has
 * a gradient of its own. */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "ops/rules.h"

static kp_tensor *like_if_needed(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  if (tensor == NULL || !tensor->needs_gradient) return NULL;
  return kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

/* c of group g from a tensor of one number or one a group. */
static double c_at(const kp_call *call, int input, int64_t g) {
  const double *c = call->input[input];
  if (c == NULL) return 1;
  return c[kp_tensor_count(call->node->input[input]) == 1 ? 0 : g];
}

/* ---- lift ---- */

kp_tensor *kp_lift(kp_graph *graph, kp_tensor *space, int64_t groups, kp_tensor *c) {
  kp_assert(groups > 0 && kp_tensor_columns(space) % groups == 0, "%s does not fall into %lld groups",
            space->name, (long long)groups);
  kp_assert(c == NULL || kp_tensor_count(c) == 1 || kp_tensor_count(c) == groups,
            "%s is neither one number nor one a group", c == NULL ? "" : c->name);
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, space->shape, sizeof shape);
  shape[space->dimensions - 1] = groups;
  kp_tensor *time = kp_graph_activation(graph, "time", KP_TYPE_STATISTIC, space->dimensions, shape);
  kp_graph_node(graph, KP_OP_LIFT, NULL, 0, 2, (kp_tensor *[]){space, c}, 1, &time);
  return time;
}

void kp_backward_lift(kp_graph *graph, kp_node *node) {
  kp_tensor *space = node->input[0], *c = node->input[1], *direct = NULL;
  if (space->role == KP_ROLE_ACTIVATION) { /* what has arrived at space joins the kernel's own sum */
    direct = kp_gradient(space);
    space->gradient = NULL;
  }
  kp_tensor *input[] = {kp_saved(graph, space), kp_saved(graph, c), kp_saved(graph, node->output[0]),
                        kp_gradient(node->output[0]), direct};
  kp_tensor *output[] = {kp_graph_activation(graph, "g space", space->type, space->dimensions, space->shape),
                         kp_gradient_accumulator(graph, c)};
  kp_graph_node(graph, KP_OP_LIFT_BACKWARD, NULL, 0, 5, input, 2, output);
  kp_gradient_give(graph, space, output[0]);
  kp_gradient_accumulated(graph, c, output[1]);
}

kp_status kp_ref_lift(const kp_call *call, kp_error *error) {
  (void)error;
  const double *space = call->input[0];
  double *time = call->output[0];
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const int64_t groups = kp_tensor_columns(call->node->output[0]), D = C / groups;
  for (int64_t n = 0; n < rows; n++)
    for (int64_t g = 0; g < groups; g++) {
      const double *s = space + n * C + g * D;
      double squares = c_at(call, 1, g);
      for (int64_t d = 0; d < D; d++) squares += s[d] * s[d];
      time[n * groups + g] = sqrt(squares);
    }
  return KP_OK;
}

kp_status kp_ref_lift_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const double *space = call->input[0], *time = call->input[2], *g_time = call->input[3];
  const double *direct = call->input[4];
  double *g_space = call->output[0], *g_c = call->output[1];
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const int64_t groups = kp_tensor_columns(call->node->input[2]), D = C / groups;
  const bool one_c = g_c != NULL && kp_tensor_count(call->node->output[1]) == 1;
  for (int64_t n = 0; n < rows; n++)
    for (int64_t g = 0; g < groups; g++) {
      const double along = g_time[n * groups + g] / time[n * groups + g];
      if (g_c != NULL) g_c[one_c ? 0 : g] += 0.5 * along;
      for (int64_t d = 0; d < D; d++) {
        const int64_t at = n * C + g * D + d;
        g_space[at] = (direct == NULL ? 0 : direct[at]) + along * space[at];
      }
    }
  return KP_OK;
}

/* ---- homothety ---- */

kp_point kp_homothety(kp_graph *graph, kp_point x, kp_tensor *from, kp_tensor *to) {
  kp_assert(kp_tensor_rows(x.space) == kp_tensor_rows(x.time), "%s and its time differ in rows",
            x.space->name);
  kp_tensor *output[] = {
      kp_graph_activation(graph, "moved", KP_TYPE_REAL, x.space->dimensions, x.space->shape),
      kp_graph_activation(graph, "moved time", KP_TYPE_STATISTIC, x.time->dimensions, x.time->shape)};
  kp_graph_node(graph, KP_OP_HOMOTHETY, NULL, 0, 4, (kp_tensor *[]){x.space, x.time, from, to}, 2, output);
  return (kp_point){output[0], output[1]};
}

void kp_backward_homothety(kp_graph *graph, kp_node *node) {
  kp_tensor *input[6], *output[4];
  static const char *const names[] = {"g space", "g time"};
  for (int i = 0; i < 4; i++) input[i] = kp_saved(graph, node->input[i]);
  for (int i = 0; i < 2; i++) {
    input[4 + i] = kp_gradient(node->output[i]);
    output[i] = input[4 + i] == NULL ? NULL : like_if_needed(graph, node->input[i], names[i]);
    output[2 + i] = kp_gradient_accumulator(graph, node->input[2 + i]);
  }
  kp_graph_node(graph, KP_OP_HOMOTHETY_BACKWARD, NULL, 0, 6, input, 4, output);
  for (int i = 0; i < 2; i++) {
    kp_gradient_give(graph, node->input[i], output[i]);
    kp_gradient_accumulated(graph, node->input[2 + i], output[2 + i]);
  }
}

static double homothety_factor(const kp_call *call) {
  return sqrt(c_at(call, 3, 0) / c_at(call, 2, 0));
}

kp_status kp_ref_homothety(const kp_call *call, kp_error *error) {
  (void)error;
  const double factor = homothety_factor(call);
  for (int part = 0; part < 2; part++) {
    const double *x = call->input[part];
    double *out = call->output[part];
    const int64_t count = kp_tensor_count(call->node->output[part]);
    for (int64_t i = 0; i < count; i++) out[i] = factor * x[i];
  }
  return KP_OK;
}

kp_status kp_ref_homothety_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const double factor = homothety_factor(call);
  double product = 0;
  for (int part = 0; part < 2; part++) {
    const double *x = call->input[part], *g = call->input[4 + part];
    double *gx = call->output[part];
    const int64_t count = g == NULL ? 0 : kp_tensor_count(call->node->input[part]);
    for (int64_t i = 0; i < count; i++) {
      product += factor * x[i] * g[i];
      if (gx != NULL) gx[i] = factor * g[i];
    }
  }
  if (call->output[2] != NULL) *(double *)call->output[2] -= product / (2 * c_at(call, 2, 0));
  if (call->output[3] != NULL) *(double *)call->output[3] += product / (2 * c_at(call, 3, 0));
  return KP_OK;
}
