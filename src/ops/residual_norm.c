/* The seam between two sub-layers: residual update, reference point, tangent map and norm in one operator.
 *
 * Spec and layout: backend/operators.h.  The ref kernels go row by row in the
 * order of the definition; the row programs themselves are in geometry/. */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "ops/row_apply.h"
#include "ops/rules.h"

kp_seam_result kp_residual_norm(kp_graph *graph, kp_seam seam, kp_residual_norm_arguments arguments) {
  kp_tensor *x = seam.stream;
  const int64_t rows = kp_tensor_rows(x);
  kp_assert(rows % arguments.length == 0, "%lld rows are no whole sequences of %lld", (long long)rows,
            (long long)arguments.length);
  kp_assert(arguments.update < 0 || seam.branch != NULL, "an update needs a branch");
  kp_assert(!arguments.own || arguments.tangent >= 0, "an own reference needs a tangent map");
  kp_tensor *output[4] = {NULL, NULL, NULL, NULL};
  if (arguments.update >= 0)
    output[0] = kp_graph_activation(graph, "stream", x->type, x->dimensions, x->shape);
  if (arguments.norm != KP_NORM_NONE) {
    output[1] = kp_graph_activation(graph, "normalised", x->type, x->dimensions, x->shape);
    output[2] = kp_graph_activation(graph, "statistics", KP_TYPE_STATISTIC, 2, (int64_t[]){rows, 2});
  }
  output[3] = kp_graph_activation(graph, "events", KP_TYPE_STATISTIC, 1, (int64_t[]){1});
  kp_tensor *input[] = {
      x,           seam.branch, seam.reference, seam.update_curvature, seam.tangent_curvature,
      seam.weight, seam.bias,   seam.carry,     seam.own_carry};
  kp_graph_node(graph, KP_OP_RESIDUAL_NORM, &arguments, sizeof arguments, 9, input, 4, output);
  return (kp_seam_result){output[0] == NULL ? x : output[0], output[1], output[2], output[3]};
}

kp_tensor *kp_normalise(kp_graph *graph, kp_tensor *x, kp_tensor *weight, kp_tensor *bias, kp_norm norm,
                        double epsilon) {
  kp_seam seam = {.stream = x, .weight = weight, .bias = bias};
  kp_residual_norm_arguments arguments = {
      .update = -1, .tangent = -1, .length = kp_tensor_rows(x), .norm = norm, .epsilon = epsilon};
  return kp_residual_norm(graph, seam, arguments).normalised;
}

static kp_tensor *like(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

/* Whether the update reads the reference point as its middle input. */
static bool update_reads_reference(int update) {
  return update >= 0 && kp_row_programs[update].inputs == 3;
}

void kp_backward_residual_norm(kp_graph *graph, kp_node *node) {
  kp_residual_norm_arguments arguments = *(const kp_residual_norm_arguments *)node->arguments;
  kp_tensor **in = node->input, *x = in[0], *u = in[1], *r = in[2];
  kp_tensor *x_new = node->output[0] == NULL ? x : node->output[0];
  /* The reference's gradient joins the stream's in the kernel where the reference is the stream itself,
   * unless the update reads it too: then row t's part depends on row t+1's whole gradient. */
  arguments.stream_reference =
      r == x && arguments.shift && !arguments.own && !update_reads_reference(arguments.update);
  const bool flat = arguments.update == KP_PROGRAM_FLAT_ADD,
             one_gradient = flat && !arguments.stream_reference;
  const bool reads_reference =
      r != NULL && (update_reads_reference(arguments.update) || (arguments.tangent >= 0 && !arguments.own));
  kp_tensor *input[13];
  for (int i = 0; i < 9; i++) input[i] = kp_saved(graph, in[i]);
  input[9] = kp_saved(graph, x_new);
  input[10] = node->output[0] == NULL ? NULL : kp_gradient(node->output[0]);
  if (x_new == x && x->role == KP_ROLE_ACTIVATION) { /* what has arrived at x joins the kernel's own sum */
    input[10] = kp_gradient(x);
    x->gradient = NULL;
  }
  input[11] = kp_gradient(node->output[1]);
  input[12] = kp_saved(graph, node->output[2]);
  if (flat) input[1] = NULL; /* gradients of a plain sum do not need the branch: let it die */
  kp_tensor *output[7] = {like(graph, x, "g stream")};
  if (arguments.update >= 0 && !one_gradient) output[1] = like(graph, u, "g branch");
  if (reads_reference && !arguments.stream_reference && r->needs_gradient)
    output[2] = like(graph, r, "g reference");
  for (int i = 0; i < 4; i++) output[3 + i] = kp_gradient_accumulator(graph, in[3 + i]);
  kp_graph_node(graph, KP_OP_RESIDUAL_NORM_BACKWARD, &arguments, sizeof arguments, 13, input, 7, output);
  kp_gradient_give(graph, x, output[0]);
  if (arguments.update >= 0) kp_gradient_give(graph, u, one_gradient ? output[0] : output[1]);
  if (output[2] != NULL) kp_gradient_give(graph, r, output[2]);
  for (int i = 0; i < 4; i++) kp_gradient_accumulated(graph, in[3 + i], output[3 + i]);
}

/* ---- ref ---- */

/* What the forward and backward kernels share: shapes, and where a row's vectors stand. */
typedef struct seam {
  const kp_residual_norm_arguments *arguments;
  int64_t rows, C, T;
  const double *x, *u, *r, *weight, *bias, *carry, *own_carry;
  kp_curvature_table update, tangent;
} seam;

static seam seam_of(const kp_call *call) {
  const kp_node *node = call->node;
  seam s = {.arguments = node->arguments,
            .rows = kp_tensor_rows(node->input[0]),
            .C = kp_tensor_columns(node->input[0]),
            .x = call->input[0],
            .u = call->input[1],
            .r = call->input[2],
            .weight = call->input[5],
            .bias = call->input[6],
            .carry = call->input[7],
            .own_carry = call->input[8]};
  s.T = s.arguments->length;
  s.update = kp_curvature_table_of(call->input[3], node->input[3], s.rows);
  s.tangent = kp_curvature_table_of(call->input[4], node->input[4], s.rows);
  return s;
}

/* Row n of the given reference, or NULL where it is the origin. */
static const double *given_reference(const seam *s, int64_t n) {
  if (s->r == NULL) return NULL;
  if (!s->arguments->shift) return s->r + n * s->C;
  if (n % s->T > 0) return s->r + (n - 1) * s->C;
  return s->carry == NULL ? NULL : s->carry + n / s->T * s->C;
}

static const double *own_reference(const seam *s, const double *stream, int64_t n) {
  if (n % s->T > 0) return stream + (n - 1) * s->C;
  return s->own_carry == NULL ? NULL : s->own_carry + n / s->T * s->C;
}

static const double *tangent_reference(const seam *s, const double *stream, int64_t n) {
  return s->arguments->own ? own_reference(s, stream, n) : given_reference(s, n);
}

/* x' of row n; returns the number of boundary events. */
static int update_row(const seam *s, int64_t n, double *out) {
  const double *v[3] = {s->x + n * s->C, s->u + n * s->C, NULL};
  if (update_reads_reference(s->arguments->update)) {
    v[2] = v[1];
    v[1] = given_reference(s, n);
  }
  return kp_row_apply(&kp_row_programs[s->arguments->update], v, s->C, &s->update, n, 0, out);
}

/* z of row n. */
static int tangent_row(const seam *s, const double *stream, int64_t n, double *z) {
  if (s->arguments->tangent < 0) {
    memcpy(z, stream + n * s->C, (size_t)s->C * sizeof *z);
    return 0;
  }
  const double *v[3] = {tangent_reference(s, stream, n), stream + n * s->C, NULL};
  return kp_row_apply(&kp_row_programs[s->arguments->tangent], v, s->C, &s->tangent, n, 0, z);
}

static void moments(const seam *s, const double *z, double statistics[2]) {
  double mean = 0, squares = 0;
  if (s->arguments->norm == KP_NORM_LAYER)
    for (int64_t c = 0; c < s->C; c++) mean += z[c] / (double)s->C;
  for (int64_t c = 0; c < s->C; c++) squares += (z[c] - mean) * (z[c] - mean) / (double)s->C;
  statistics[0] = mean;
  statistics[1] = 1 / sqrt(squares + s->arguments->epsilon);
}

size_t kp_ref_scratch_residual_norm(const kp_node *node, int threads) {
  (void)threads;
  const size_t rows = (size_t)kp_tensor_rows(node->input[0]), C = (size_t)kp_tensor_columns(node->input[0]);
  if (node->operation == KP_OP_RESIDUAL_NORM) return C * sizeof(double);
  return (2 * rows * C + 3 * C) * sizeof(double);
}

kp_status kp_ref_residual_norm(const kp_call *call, kp_error *error) {
  (void)error;
  const seam s = seam_of(call);
  double *stream = call->output[0], *y = call->output[1], *statistics = call->output[2], *z = call->scratch;
  double events = 0;
  if (stream != NULL)
    for (int64_t n = 0; n < s.rows; n++) events += update_row(&s, n, stream + n * s.C);
  const double *now = stream != NULL ? stream : s.x;
  for (int64_t n = 0; n < s.rows && y != NULL; n++) {
    events += tangent_row(&s, now, n, z);
    moments(&s, z, statistics + 2 * n);
    for (int64_t c = 0; c < s.C; c++) {
      const double weight = s.weight == NULL ? 1 : s.weight[c], bias = s.bias == NULL ? 0 : s.bias[c];
      y[n * s.C + c] = weight * (z[c] - statistics[2 * n]) * statistics[2 * n + 1] + bias;
    }
  }
  *(double *)call->output[3] = events;
  return KP_OK;
}

/* gz from gy through the norm; adds to the gradients of weight and bias. */
static void norm_backward(const seam *s, const double *z, const double *gy, double *gz, double *gweight,
                          double *gbias) {
  double statistics[2], mean_g = 0, mean_gz = 0;
  moments(s, z, statistics);
  for (int64_t c = 0; c < s->C; c++) {
    const double normal = (z[c] - statistics[0]) * statistics[1];
    if (gweight != NULL) gweight[c] += gy[c] * normal;
    if (gbias != NULL) gbias[c] += gy[c];
    gz[c] = gy[c] * (s->weight == NULL ? 1 : s->weight[c]);
    mean_g += gz[c] / (double)s->C;
    mean_gz += gz[c] * normal / (double)s->C;
  }
  if (s->arguments->norm == KP_NORM_RMS) mean_g = 0;
  for (int64_t c = 0; c < s->C; c++) {
    const double normal = (z[c] - statistics[0]) * statistics[1];
    gz[c] = statistics[1] * (gz[c] - mean_g - normal * mean_gz);
  }
}

/* Buffers of the backward kernel: whole gradients of the stream and the given reference, and three rows. */
typedef struct seam_gradients {
  double *stream, *reference; /* (N, C) each; reference: by row of the tensor r */
  double *z, *gz, *origin;    /* (C); origin takes the gradient of a reference that is the origin */
  double *gkappa_update, *gkappa_tangent, *gweight, *gbias;
} seam_gradients;

/* Where the gradient of row n's given reference goes. */
static double *given_reference_gradient(const seam *s, seam_gradients *g, int64_t n) {
  if (!s->arguments->shift) return g->reference + n * s->C;
  return n % s->T > 0 ? g->reference + (n - 1) * s->C : g->origin;
}

static void tangent_backward(const seam *s, seam_gradients *g, const double *stream, const double *gy,
                             int64_t n) {
  double *gstream = g->stream + n * s->C;
  tangent_row(s, stream, n, g->z);
  norm_backward(s, g->z, gy + n * s->C, g->gz, g->gweight, g->gbias);
  if (s->arguments->tangent < 0) {
    for (int64_t c = 0; c < s->C; c++) gstream[c] += g->gz[c];
    return;
  }
  const double *v[3] = {tangent_reference(s, stream, n), stream + n * s->C, NULL};
  double *greference = !s->arguments->own ? given_reference_gradient(s, g, n)
                       : n % s->T > 0     ? g->stream + (n - 1) * s->C
                                          : g->origin;
  kp_row_apply_backward(&kp_row_programs[s->arguments->tangent], v, s->C, &s->tangent, n, 0, g->gz,
                        (double *[3]){greference, gstream, NULL}, g->gkappa_tangent);
}

static void update_backward(const seam *s, seam_gradients *g, int64_t n, double *gx, double *gu) {
  const double *gstream = g->stream + n * s->C;
  if (s->arguments->update == KP_PROGRAM_FLAT_ADD) {
    memcpy(gx, gstream, (size_t)s->C * sizeof *gx);
    if (gu != NULL) memcpy(gu, gstream, (size_t)s->C * sizeof *gu);
    return;
  }
  const double *v[3] = {s->x + n * s->C, s->u + n * s->C, NULL};
  double *gv[3] = {gx, gu, NULL};
  if (update_reads_reference(s->arguments->update)) {
    v[2] = v[1];
    v[1] = given_reference(s, n);
    gv[2] = gv[1];
    gv[1] = given_reference_gradient(s, g, n);
  }
  kp_row_apply_backward(&kp_row_programs[s->arguments->update], v, s->C, &s->update, n, 0, gstream, gv,
                        g->gkappa_update);
}

kp_status kp_ref_residual_norm_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const seam s = seam_of(call);
  const double *stream = call->input[9], *gstream = call->input[10], *gy = call->input[11];
  double *gx = call->output[0], *gu = call->output[1];
  const size_t size = (size_t)(s.rows * s.C), C = (size_t)s.C;
  double *scratch = call->scratch;
  seam_gradients g = {scratch,
                      scratch + size,
                      scratch + 2 * size,
                      scratch + 2 * size + C,
                      scratch + 2 * size + 2 * C,
                      call->output[3],
                      call->output[4],
                      call->output[5],
                      call->output[6]};
  memset(scratch, 0, (2 * size + 3 * C) * sizeof *scratch);
  if (gstream != NULL) memcpy(g.stream, gstream, size * sizeof *gstream);
  memset(gx, 0, size * sizeof *gx);
  if (gu != NULL) memset(gu, 0, size * sizeof *gu);
  /* Backwards in time: a row's gradient is complete once the row after it has been visited. */
  for (int64_t n = s.rows - 1; n >= 0; n--) {
    if (gy != NULL) tangent_backward(&s, &g, stream, gy, n);
    if (s.arguments->update >= 0)
      update_backward(&s, &g, n, gx + n * s.C, gu == NULL ? NULL : gu + n * s.C);
    else
      memcpy(gx + n * s.C, g.stream + n * s.C, C * sizeof *gx);
  }
  if (s.arguments->stream_reference)
    for (size_t i = 0; i < size; i++) gx[i] += g.reference[i];
  else if (call->output[2] != NULL)
    memcpy(call->output[2], g.reference, size * sizeof *gx);
  return KP_OK;
}
