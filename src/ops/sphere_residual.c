/* The residual step on the unit sphere, by lerp and normalisation or along great circles.
 *
 * Spec: backend/operators.h.  The ref kernels follow the definition; in the backward pass a bar marks the
 * gradient of a quantity, found by going back through the forward lines one by one. */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "geometry/sphere.h"
#include "ops/rules.h"

static kp_tensor *like(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

kp_tensor *kp_sphere_residual(kp_graph *graph, kp_tensor *h, kp_tensor *u, kp_tensor *rate,
                              kp_sphere_arguments arguments) {
  kp_assert(kp_tensor_same_shape(h, u), "%s and %s differ in shape", h->name, u->name);
  kp_assert(kp_tensor_count(rate) == kp_tensor_columns(h), "%s is not a rate a channel of %s", rate->name,
            h->name);
  kp_tensor *out = like(graph, h, "stream");
  kp_graph_node(graph, KP_OP_SPHERE_RESIDUAL, &arguments, sizeof arguments, 3, (kp_tensor *[]){h, u, rate}, 1,
                &out);
  return out;
}

void kp_backward_sphere_residual(kp_graph *graph, kp_node *node) {
  kp_tensor *h = node->input[0], *u = node->input[1], *rate = node->input[2];
  kp_tensor *input[] = {kp_saved(graph, h), kp_saved(graph, u), kp_saved(graph, rate),
                        kp_gradient(node->output[0])};
  kp_tensor *output[] = {like(graph, h, "g stream"), like(graph, u, "g branch"),
                         kp_gradient_accumulator(graph, rate)};
  kp_graph_node(graph, KP_OP_SPHERE_RESIDUAL_BACKWARD, node->arguments, node->arguments_size, 4, input, 3,
                output);
  kp_gradient_give(graph, h, output[0]);
  kp_gradient_give(graph, u, output[1]);
  kp_gradient_accumulated(graph, rate, output[2]);
}

/* ---- ref ---- */

static double dot(const double *a, const double *b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
  return sum;
}

/* Writes x/|x| and returns 1/|x|. */
static double unit(const double *x, int64_t count, double *out) {
  const double inverse = kp_sphere_inverse_length(dot(x, x, count));
  for (int64_t i = 0; i < count; i++) out[i] = inverse * x[i];
  return inverse;
}

/* The gradient of x from `bar`, that of `direction` = x/|x|. */
static void unit_backward(const double *direction, double inverse, const double *bar, int64_t count,
                          double *out) {
  const double along = dot(direction, bar, count);
  for (int64_t i = 0; i < count; i++) out[i] = inverse * (bar[i] - along * direction[i]);
}

/* One row's forward pass; vectors of C numbers in scratch. */
typedef struct row_step {
  int64_t C;
  double *a, *b, *rate; /* A, B, λ */
  double *w, *s, *p;    /* slerp: B - cos t A, λ log_A(B), its tangent part; lerp: p is r */
  double *a_bar, *b_bar, *rate_bar;
  double inverse_h, inverse_u, inverse_r;
  double cosine, normal; /* slerp: <A,B>, <A,s> */
  kp_sphere_log log;
  kp_sine_cosine exp;
} row_step;

enum { ROW_VECTORS = 9 };

size_t kp_ref_scratch_sphere_residual(const kp_node *node, int threads) {
  (void)threads;
  return ROW_VECTORS * (size_t)kp_tensor_columns(node->input[0]) * sizeof(double);
}

static row_step row_step_in(double *scratch, const kp_call *call) {
  const kp_sphere_arguments *arguments = call->node->arguments;
  const double *rate = call->input[2];
  row_step row = {.C = kp_tensor_columns(call->node->input[0])};
  double **const vectors[ROW_VECTORS] = {&row.a, &row.b,     &row.rate,  &row.w,       &row.s,
                                         &row.p, &row.a_bar, &row.b_bar, &row.rate_bar};
  for (int i = 0; i < ROW_VECTORS; i++) *vectors[i] = scratch + i * row.C;
  for (int64_t i = 0; i < row.C; i++) row.rate[i] = fabs(rate[i] * arguments->factor);
  return row;
}

static void lerp(row_step *row, double *out) {
  for (int64_t i = 0; i < row->C; i++) row->p[i] = row->a[i] + row->rate[i] * (row->b[i] - row->a[i]);
  row->inverse_r = unit(row->p, row->C, out);
}

static void lerp_backward(row_step *row, const double *g) {
  double *const out = row->w, *const r_bar = row->s;
  unit(row->p, row->C, out);
  unit_backward(out, row->inverse_r, g, row->C, r_bar);
  for (int64_t i = 0; i < row->C; i++) {
    row->a_bar[i] = (1 - row->rate[i]) * r_bar[i];
    row->b_bar[i] = row->rate[i] * r_bar[i];
    row->rate_bar[i] = (row->b[i] - row->a[i]) * r_bar[i];
  }
}

static void slerp(row_step *row, double *out) {
  const int64_t C = row->C;
  row->cosine = dot(row->a, row->b, C);
  for (int64_t i = 0; i < C; i++) row->w[i] = row->b[i] - row->cosine * row->a[i];
  row->log = kp_sphere_log_of(dot(row->w, row->w, C), row->cosine);
  for (int64_t i = 0; i < C; i++) row->s[i] = row->log.ratio * row->rate[i] * row->w[i];
  row->normal = dot(row->a, row->s, C);
  for (int64_t i = 0; i < C; i++) row->p[i] = row->s[i] - row->normal * row->a[i];
  row->exp = kp_sine_cosine_of(dot(row->p, row->p, C));
  for (int64_t i = 0; i < C; i++)
    out[i] = row->exp.cosine.value * row->a[i] + row->exp.sine_ratio.value * row->p[i];
}

static void slerp_backward(row_step *row, const double *g) {
  const int64_t C = row->C;
  const double square_bar =
      dot(g, row->a, C) * row->exp.cosine.derivative + dot(g, row->p, C) * row->exp.sine_ratio.derivative;
  double normal_bar = 0, ratio_bar = 0, cosine_bar = 0;
  for (int64_t i = 0; i < C; i++) {
    const double p_bar = row->exp.sine_ratio.value * g[i] + 2 * square_bar * row->p[i];
    row->a_bar[i] = row->exp.cosine.value * g[i] - row->normal * p_bar;
    row->b_bar[i] = p_bar; /* of s so far */
    normal_bar -= p_bar * row->a[i];
  }
  for (int64_t i = 0; i < C; i++) {
    const double s_bar = row->b_bar[i] + normal_bar * row->a[i];
    row->a_bar[i] += normal_bar * row->s[i];
    ratio_bar += s_bar * row->rate[i] * row->w[i];
    row->rate_bar[i] = row->log.ratio * s_bar * row->w[i];
    row->b_bar[i] = row->log.ratio * s_bar * row->rate[i]; /* of w so far */
  }
  for (int64_t i = 0; i < C; i++) {
    row->b_bar[i] += 2 * ratio_bar * row->log.by_square * row->w[i];
    cosine_bar -= row->b_bar[i] * row->a[i];
  }
  cosine_bar += ratio_bar * row->log.by_cosine;
  for (int64_t i = 0; i < C; i++) {
    row->a_bar[i] += cosine_bar * row->b[i] - row->cosine * row->b_bar[i];
    row->b_bar[i] += cosine_bar * row->a[i];
  }
}

static void forward_row(const kp_call *call, row_step *row, int64_t n, double *out) {
  const kp_sphere_arguments *arguments = call->node->arguments;
  row->inverse_h = unit((const double *)call->input[0] + n * row->C, row->C, row->a);
  row->inverse_u = unit((const double *)call->input[1] + n * row->C, row->C, row->b);
  if (arguments->step == KP_SPHERE_LERP)
    lerp(row, out);
  else
    slerp(row, out);
}

kp_status kp_ref_sphere_residual(const kp_call *call, kp_error *error) {
  (void)error;
  row_step row = row_step_in(call->scratch, call);
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  for (int64_t n = 0; n < rows; n++) forward_row(call, &row, n, (double *)call->output[0] + n * row.C);
  return KP_OK;
}

kp_status kp_ref_sphere_residual_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_sphere_arguments *arguments = call->node->arguments;
  row_step row = row_step_in(call->scratch, call);
  const double *rate = call->input[2], *g = call->input[3];
  double *gh = call->output[0], *gu = call->output[1], *grate = call->output[2];
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = row.C;
  for (int64_t n = 0; n < rows; n++) {
    forward_row(call, &row, n, row.rate_bar); /* the result itself is not needed */
    if (arguments->step == KP_SPHERE_LERP)
      lerp_backward(&row, g + n * C);
    else
      slerp_backward(&row, g + n * C);
    unit_backward(row.a, row.inverse_h, row.a_bar, C, gh + n * C);
    unit_backward(row.b, row.inverse_u, row.b_bar, C, gu + n * C);
    for (int64_t i = 0; i < C && grate != NULL; i++) {
      const double signed_factor = rate[i] * arguments->factor < 0 ? -arguments->factor : arguments->factor;
      grate[i] += signed_factor * row.rate_bar[i];
    }
  }
  return KP_OK;
}
