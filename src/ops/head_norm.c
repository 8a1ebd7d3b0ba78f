/* Unit vectors by group of channels with a gain, turned before where there are positions, and the scaling of
 * columns: the rest of what nGPT does to rows. */
#include <string.h>

#include "core/assert.h"
#include "geometry/sphere.h"
#include "ops/rules.h"

static kp_tensor *like(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

/* ---- head_norm ---- */

static void check_rotation(const kp_tensor *x, const kp_tensor *positions,
                           const kp_head_norm_arguments *arguments) {
  const kp_rotary_arguments *rotary = &arguments->rotary;
  if (positions == NULL) return;
  kp_assert(rotary->heads == arguments->heads && rotary->head_size == arguments->head_size &&
                rotary->stride == 0 && rotary->offset == 0,
            "%s is turned by other heads than its own", x->name);
  kp_assert(!rotary->halves && !rotary->transposed && arguments->head_size % 2 == 0 &&
                kp_tensor_columns(x) % 2 == 0,
            "the heads of %s are not turned in pairs of neighbours", x->name);
}

kp_tensor *kp_head_norm(kp_graph *graph, kp_tensor *x, kp_tensor *gain, kp_tensor *positions,
                        kp_head_norm_arguments arguments) {
  kp_assert((int64_t)arguments.heads * arguments.head_size <= kp_tensor_columns(x), "%s is too narrow",
            x->name);
  check_rotation(x, positions, &arguments);
  kp_assert(gain == NULL || kp_tensor_count(gain) % arguments.head_size == 0,
            "%s has no whole groups of %d channels", gain == NULL ? "" : gain->name, arguments.head_size);
  kp_tensor *out = like(graph, x, "unit heads");
  kp_graph_node(graph, KP_OP_HEAD_NORM, &arguments, sizeof arguments, 3, (kp_tensor *[]){x, gain, positions},
                1, &out);
  return out;
}

void kp_backward_head_norm(kp_graph *graph, kp_node *node) {
  kp_tensor *x = node->input[0], *gain = node->input[1];
  kp_tensor *input[] = {kp_saved(graph, x), kp_saved(graph, gain), kp_gradient(node->output[0]),
                        node->input[2]};
  kp_tensor *output[] = {like(graph, x, "g unit heads"), kp_gradient_accumulator(graph, gain)};
  kp_graph_node(graph, KP_OP_HEAD_NORM_BACKWARD, node->arguments, node->arguments_size, 4, input, 2, output);
  kp_gradient_give(graph, x, output[0]);
  kp_gradient_accumulated(graph, gain, output[1]);
}

static double inverse_length(const double *x, int count) {
  double square = 0;
  for (int i = 0; i < count; i++) square += x[i] * x[i];
  return kp_sphere_inverse_length(square);
}

/* The gain of group `group`, or NULL. */
static const double *group_gain(const kp_call *call, int group, int64_t *offset) {
  const kp_head_norm_arguments *a = call->node->arguments;
  const kp_tensor *gain = call->node->input[1];
  if (gain == NULL) return NULL;
  *offset = group % (kp_tensor_count(gain) / a->head_size) * a->head_size;
  return (const double *)call->input[1] + *offset;
}

kp_status kp_ref_head_norm(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_head_norm_arguments *a = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), width = kp_tensor_columns(call->node->input[0]);
  const int32_t *positions = call->input[2];
  double *out = call->output[0];
  memmove(out, call->input[0], (size_t)(rows * width) * sizeof *out);
  for (int64_t n = 0; n < rows; n++) {
    if (positions != NULL) kp_rotate_row(&a->rotary, positions[n], false, out + n * width);
    for (int h = 0; h < a->heads; h++) {
      int64_t offset;
      const double *gain = group_gain(call, h, &offset);
      double *x = out + n * width + (int64_t)h * a->head_size;
      const double inverse = inverse_length(x, a->head_size);
      for (int i = 0; i < a->head_size; i++) x[i] *= inverse * a->factor * (gain == NULL ? 1 : gain[i]);
    }
  }
  return KP_OK;
}

/* With n = x/|x|: n̄ = factor · gain · g, x̄ = (n̄ - n <n, n̄>)/|x|. */
static void head_norm_group_backward(const kp_head_norm_arguments *a, const double *x, const double *gain,
                                     const double *g, double *gx, double *ggain) {
  const double inverse = inverse_length(x, a->head_size);
  double along = 0;
  for (int i = 0; i < a->head_size; i++)
    along += inverse * x[i] * a->factor * (gain == NULL ? 1 : gain[i]) * g[i];
  for (int i = 0; i < a->head_size; i++) {
    const double direction = inverse * x[i], g_here = g[i];
    gx[i] = inverse * (a->factor * (gain == NULL ? 1 : gain[i]) * g_here - direction * along);
    if (ggain != NULL) ggain[i] += a->factor * direction * g_here;
  }
}

size_t kp_ref_scratch_head_norm_backward(const kp_node *node, int threads) {
  (void)threads;
  return (size_t)kp_tensor_columns(node->input[0]) * sizeof(double);
}

kp_status kp_ref_head_norm_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_head_norm_arguments *a = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), width = kp_tensor_columns(call->node->input[0]);
  const double *g = call->input[2];
  const int32_t *positions = call->input[3];
  double *gx = call->output[0], *ggain = call->output[1], *x = call->scratch;
  const int64_t used = (int64_t)a->heads * a->head_size;
  for (int64_t n = 0; n < rows; n++) {
    memcpy(x, (const double *)call->input[0] + n * width, (size_t)width * sizeof *x);
    if (positions != NULL) kp_rotate_row(&a->rotary, positions[n], false, x);
    for (int h = 0; h < a->heads; h++) {
      int64_t offset = 0;
      const double *gain = group_gain(call, h, &offset);
      const int64_t first = (int64_t)h * a->head_size, at = n * width + first;
      head_norm_group_backward(a, x + first, gain, g + at, gx + at, ggain == NULL ? NULL : ggain + offset);
    }
    for (int64_t i = used; i < width; i++) gx[n * width + i] = g[n * width + i];
    if (positions != NULL) kp_rotate_row(&a->rotary, positions[n], true, gx + n * width);
  }
  return KP_OK;
}

/* ---- scale_columns ---- */

kp_tensor *kp_scale_columns(kp_graph *graph, kp_tensor *x, kp_tensor *columns, double factor) {
  kp_assert(kp_tensor_count(columns) == kp_tensor_columns(x), "%s is not a number a column of %s",
            columns->name, x->name);
  kp_tensor *out = like(graph, x, "scaled");
  kp_graph_node(graph, KP_OP_SCALE_COLUMNS, &(kp_scale_arguments){factor}, sizeof(kp_scale_arguments), 2,
                (kp_tensor *[]){x, columns}, 1, &out);
  return out;
}

void kp_backward_scale_columns(kp_graph *graph, kp_node *node) {
  kp_tensor *x = node->input[0], *columns = node->input[1];
  kp_tensor *input[] = {kp_saved(graph, x), kp_saved(graph, columns), kp_gradient(node->output[0])};
  kp_tensor *output[] = {like(graph, x, "g scaled"), kp_gradient_accumulator(graph, columns)};
  kp_graph_node(graph, KP_OP_SCALE_COLUMNS_BACKWARD, node->arguments, node->arguments_size, 3, input, 2,
                output);
  kp_gradient_give(graph, x, output[0]);
  kp_gradient_accumulated(graph, columns, output[1]);
}

kp_status kp_ref_scale_columns(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_scale_arguments *a = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const double *x = call->input[0], *s = call->input[1];
  double *out = call->output[0];
  for (int64_t n = 0; n < rows; n++)
    for (int64_t i = 0; i < C; i++) out[n * C + i] = x[n * C + i] * a->scale * s[i];
  return KP_OK;
}

kp_status kp_ref_scale_columns_backward(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_scale_arguments *a = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
  const double *x = call->input[0], *s = call->input[1], *g = call->input[2];
  double *gx = call->output[0], *gs = call->output[1];
  for (int64_t n = 0; n < rows; n++)
    for (int64_t i = 0; i < C; i++) {
      const double g_here = g[n * C + i];
      if (gs != NULL) gs[i] += a->scale * x[n * C + i] * g_here;
      gx[n * C + i] = a->scale * s[i] * g_here;
    }
  return KP_OK;
}
