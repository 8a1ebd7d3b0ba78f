/* Attention in the graph: its nodes, their shapes, and the backward rule. */
#include <string.h>

#include "core/assert.h"
#include "ops/rules.h"

/* The shape of q with other columns. */
static kp_tensor *output_like(kp_graph *graph, const kp_tensor *q, const char *name, kp_type type,
                              int64_t columns) {
  int64_t shape[KP_MAX_DIMENSIONS];
  memcpy(shape, q->shape, sizeof shape);
  shape[q->dimensions - 1] = columns;
  return kp_graph_activation(graph, name, type, q->dimensions, shape);
}

static void check_matrix(const kp_tensor *tensor, int64_t rows, int64_t columns) {
  kp_assert(kp_tensor_rows(tensor) == rows && kp_tensor_columns(tensor) == columns,
            "%s has %lld rows of %lld columns for %lld of %lld", tensor->name,
            (long long)kp_tensor_rows(tensor), (long long)kp_tensor_columns(tensor), (long long)rows,
            (long long)columns);
}

static void check_scalars(const kp_tensor *tensor, int heads) {
  kp_assert(tensor == NULL || kp_tensor_count(tensor) == 1 || kp_tensor_count(tensor) == heads,
            "%s has %lld numbers for %d heads", tensor->name, (long long)kp_tensor_count(tensor), heads);
}

static void check_operands(const kp_attention_operands *in, const kp_attention_arguments *a) {
  const int64_t rows = a->batch * a->length, D = a->head_size, Dv = kp_attention_value_size(a);
  kp_assert(a->heads % a->kv_heads == 0, "%d heads over %d key heads", a->heads, a->kv_heads);
  check_scalars(in->curvature, a->heads);
  check_scalars(in->temperature, a->heads);
  kp_assert(in->documents == NULL || kp_tensor_count(in->documents) == rows, "%s has %lld rows for %lld",
            in->documents->name, (long long)kp_tensor_count(in->documents), (long long)rows);
  if (a->packed) {
    kp_assert(Dv == D, "packed values of size %lld for keys of %lld", (long long)Dv, (long long)D);
    check_matrix(in->q, rows, D * (a->heads + 2 * a->kv_heads));
    return;
  }
  check_matrix(in->q, rows, D * a->heads);
  check_matrix(in->k, rows, D * a->kv_heads);
  check_matrix(in->v, rows, Dv * a->kv_heads);
}

static kp_tensor *time_output(kp_graph *graph, const kp_tensor *q, const kp_attention_arguments *a) {
  return a->values == KP_VALUES_LORENTZ ? output_like(graph, q, "attention time", KP_TYPE_STATISTIC, a->heads)
                                        : NULL;
}

kp_point kp_attend(kp_graph *graph, kp_attention_operands in, kp_attention_arguments arguments) {
  const kp_attention_arguments *a = &arguments;
  check_operands(&in, a);
  kp_tensor *output[] = {
      output_like(graph, in.q, "attention", KP_TYPE_REAL, (int64_t)a->heads * kp_attention_value_size(a)),
      kp_graph_activation(graph, "logsumexp", KP_TYPE_STATISTIC, 3,
                          (int64_t[]){a->batch, a->heads, a->length}),
      time_output(graph, in.q, a),
      a->values == KP_VALUES_MEAN ? NULL
                                  : output_like(graph, in.q, "attention norms", KP_TYPE_STATISTIC, a->heads)};
  kp_tensor *input[] = {in.q, in.k, in.v, in.curvature, in.temperature, in.documents};
  kp_graph_node(graph, KP_OP_ATTENTION, a, sizeof *a, 6, input, 4, output);
  return (kp_point){output[0], output[2]};
}

static kp_tensor *like(kp_graph *graph, const kp_tensor *tensor, const char *name) {
  return tensor == NULL ? NULL
                        : kp_graph_activation(graph, name, tensor->type, tensor->dimensions, tensor->shape);
}

void kp_backward_attention(kp_graph *graph, kp_node *node) {
  kp_tensor **in = node->input, **out = node->output;
  kp_tensor *input[] = {kp_saved(graph, in[0]),  kp_saved(graph, in[1]),  kp_saved(graph, in[2]),
                        kp_saved(graph, in[3]),  kp_saved(graph, in[4]),  kp_saved(graph, in[5]),
                        kp_saved(graph, out[0]), kp_saved(graph, out[1]), kp_saved(graph, out[3]),
                        kp_gradient(out[0]),     kp_gradient(out[2])};
  kp_tensor *output[] = {like(graph, in[0], "g q"), like(graph, in[1], "g k"), like(graph, in[2], "g v"),
                         kp_gradient_accumulator(graph, in[3]), kp_gradient_accumulator(graph, in[4])};
  kp_graph_node(graph, KP_OP_ATTENTION_BACKWARD, node->arguments, node->arguments_size, 11, input, 5, output);
  for (int i = 0; i < 3; i++) kp_gradient_give(graph, in[i], output[i]);
  kp_gradient_accumulated(graph, in[3], output[3]);
  kp_gradient_accumulated(graph, in[4], output[4]);
}

kp_point kp_attend_cached(kp_graph *graph, kp_attention_operands in, kp_tensor *keys, kp_tensor *values,
                          kp_tensor *start, kp_attention_arguments arguments) {
  const kp_attention_arguments *a = &arguments;
  const int64_t Dv = kp_attention_value_size(a);
  check_operands(&in, a);
  kp_assert(in.documents == NULL && a->causal, "attention over a cache is causal and has no documents");
  kp_assert(keys->shape[3] == a->head_size && values->shape[3] == Dv, "%s and %s have rows of %lld and %lld",
            keys->name, values->name, (long long)keys->shape[3], (long long)values->shape[3]);
  kp_tensor *output[] = {output_like(graph, in.q, "attention", KP_TYPE_REAL, a->heads * Dv),
                         time_output(graph, in.q, a)};
  kp_tensor *input[] = {in.q, keys, values, start, in.curvature, in.temperature, in.k, in.v};
  kp_graph_node(graph, KP_OP_ATTENTION_CACHED, a, sizeof *a, 8, input, 2, output);
  return (kp_point){output[0], output[1]};
}

kp_point kp_attend_latent_cached(kp_graph *graph, kp_attention_operands in, kp_latent_operands latent,
                                 kp_attention_latent_arguments arguments) {
  const kp_attention_arguments *a = &arguments.attention;
  const int64_t r = arguments.latent_size, width = r + arguments.shared_size;
  const int64_t Dv = kp_attention_value_size(a),
                expanded = a->heads * (a->head_size - arguments.shared_size + Dv);
  kp_assert(a->kv_heads == a->heads && !a->packed && a->causal, "latent attention has a key for each head");
  check_matrix(in.q, a->batch * a->length, (int64_t)a->heads * a->head_size);
  check_matrix(latent.rows, a->batch * a->length, width);
  check_matrix(latent.weight, expanded, r);
  check_scalars(in.curvature, latent.time_weight == NULL ? a->heads : 1);
  check_scalars(in.temperature, a->heads);
  kp_assert(latent.state->shape[2] == width, "%s has rows of %lld for %lld", latent.state->name,
            (long long)latent.state->shape[2], (long long)width);
  kp_tensor *output[] = {output_like(graph, in.q, "attention", KP_TYPE_REAL, a->heads * Dv),
                         time_output(graph, in.q, a)};
  kp_tensor *input[] = {in.q,          latent.rows,        latent.state, latent.start, latent.norm_weight,
                        latent.weight, latent.time_weight, latent.bias,  in.curvature, in.temperature};
  kp_graph_node(graph, KP_OP_ATTENTION_LATENT_CACHED, &arguments, sizeof arguments, 10, input, 2, output);
  return (kp_point){output[0], output[1]};
}
