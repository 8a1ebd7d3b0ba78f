/* Rotary positions: the rotation, the published nGPT's deviation from it, and their transposes. */
#include <math.h>
#include <string.h>

#include "core/assert.h"
#include "geometry/rotary.h"
#include "ops/rules.h"

kp_tensor *kp_rotary(kp_graph *graph, kp_tensor *x, kp_tensor *positions, kp_rotary_arguments arguments) {
  const int64_t stride = arguments.stride == 0 ? arguments.head_size : arguments.stride;
  kp_assert(arguments.head_size % 2 == 0, "rotary positions need an even head size, not %d",
            arguments.head_size);
  kp_assert(arguments.offset >= 0 && arguments.offset + arguments.head_size <= stride,
            "%d channels from %d on are no part of a head of %lld", arguments.head_size, arguments.offset,
            (long long)stride);
  kp_assert(arguments.heads * stride <= kp_tensor_columns(x), "%s is too narrow", x->name);
  kp_assert(!arguments.upstream || !arguments.halves, "the published deviation pairs neighbours");
  kp_tensor *out = kp_graph_activation(graph, "rotary", x->type, x->dimensions, x->shape);
  kp_graph_node(graph, KP_OP_ROTARY, &arguments, sizeof arguments, 2, (kp_tensor *[]){x, positions}, 1, &out);
  return out;
}

void kp_backward_rotary(kp_graph *graph, kp_node *node) {
  kp_rotary_arguments arguments = *(const kp_rotary_arguments *)node->arguments;
  arguments.transposed = !arguments.transposed;
  kp_gradient_give(graph, node->input[0],
                   kp_rotary(graph, kp_gradient(node->output[0]), node->input[1], arguments));
}

/* The matrix that a pair is multiplied by. */
typedef struct pair_map {
  double m[2][2];
} pair_map;

/* Column `column` of the published table: sine and cosine of the same angle take turns. */
static double upstream_entry(const kp_rotary_arguments *a, int column, double position) {
  const double angle = position * kp_rotary_frequency(a->base, a->head_size, column / 2, (kp_yarn){0});
  return column % 2 == 0 ? sin(angle) : cos(angle);
}

static pair_map pair_map_of(const kp_rotary_arguments *a, int pair, double position) {
  if (a->upstream) {
    const double first = upstream_entry(a, pair, position);
    const double second = upstream_entry(a, a->head_size / 2 + pair, position);
    return (pair_map){{{0, -second}, {first, 0}}};
  }
  const kp_yarn yarn = {a->factor, a->original, a->beta_fast, a->beta_slow, a->by_turns};
  const double angle = position * kp_rotary_frequency(a->base, a->head_size, pair, yarn);
  return (pair_map){{{cos(angle), -sin(angle)}, {sin(angle), cos(angle)}}};
}

void kp_rotate_row(const kp_rotary_arguments *a, int32_t position, bool back, double *row) {
  const int D = a->head_size, stride = a->stride == 0 ? D : a->stride;
  const bool transposed = back != a->transposed;
  for (int i = 0; i < D / 2; i++) {
    const pair_map map = pair_map_of(a, i, position);
    const double up = map.m[transposed ? 1 : 0][transposed ? 0 : 1];
    const double down = map.m[transposed ? 0 : 1][transposed ? 1 : 0];
    for (int h = 0; h < a->heads; h++) {
      double *head = row + (int64_t)h * stride + a->offset;
      double *first = head + (a->halves ? i : 2 * i), *second = head + (a->halves ? i + D / 2 : 2 * i + 1);
      const double u = *first, v = *second;
      *first = map.m[0][0] * u + up * v;
      *second = down * u + map.m[1][1] * v;
    }
  }
}

kp_status kp_ref_rotary(const kp_call *call, kp_error *error) {
  (void)error;
  const int32_t *positions = call->input[1];
  double *out = call->output[0];
  const int64_t rows = kp_tensor_rows(call->node->input[0]), width = kp_tensor_columns(call->node->input[0]);
  memmove(out, call->input[0], (size_t)(rows * width) * sizeof *out);
  for (int64_t n = 0; n < rows; n++)
    kp_rotate_row(call->node->arguments, positions[n], false, out + n * width);
  return KP_OK;
}
