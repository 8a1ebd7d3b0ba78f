/* The operators of one linear map an expert. */
#include "backend/cuda/grouped_linear.cuh"

static kp_status multiply(const kp_call *call, const kp_grouped *g, kp_error *error) {
  if (g->rows == 0 || g->experts == 0 || g->M == 0 || g->K == 0) return KP_OK;
  return kp_grouped_half_fits(g) && kp_is_half(call) ? kp_grouped_half(kp_cuda_of(call), g, error)
                                                     : kp_grouped_plain(call, g, error);
}

/* From an expert's vector to the next one's in (E, M) or (E, M, 1). */
static int64_t stride_of(const kp_tensor *tensor) {
  return tensor == NULL ? 0 : kp_padded_count(tensor) / tensor->shape[0];
}

/* Rows, input 0, times the matrices, input 2, of their experts, or times their transposes. */
static kp_grouped rows_times_matrices(const kp_call *call, kp_grouped_kind kind) {
  const kp_node *node = call->node;
  const int64_t *shape = node->input[2]->shape;
  kp_grouped g = {};
  g.kind = kind;
  g.offsets = (const int32_t *)call->input[1];
  g.experts = (int)shape[0];
  g.rows = kp_tensor_rows(node->input[0]);
  g.M = shape[1], g.K = shape[2];
  g.a = call->input[0], g.b = call->input[2], g.c = call->output[0];
  g.a_pitch = kp_pitch(node->input[0]);
  g.b_pitch = kp_pitch(node->input[2]);
  g.c_pitch = g.c_columns = kp_pitch(node->output[0]);
  g.expert_stride = g.M * g.b_pitch;
  g.factor = 1;
  return g;
}

extern "C" kp_status kp_cuda_grouped_linear(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  kp_grouped g = rows_times_matrices(call, KP_GROUPED_FORWARD);
  g.bias = kp_input_numbers(call, 3);
  g.time = kp_input_numbers(call, 4);
  g.time_weight = kp_input_numbers(call, 5);
  g.in = kp_input_numbers(call, 6);
  g.out = kp_input_numbers(call, 7);
  g.bias_pitch = stride_of(node->input[3]);
  g.time_weight_pitch = stride_of(node->input[5]);
  return multiply(call, &g, error);
}

static kp_status time_gradient(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  kp_grouped_time t = {};
  t.gy = call->input[0];
  t.offsets = (const int32_t *)call->input[1];
  t.experts = (int)node->input[2]->shape[0];
  t.rows = kp_tensor_rows(node->input[0]);
  t.M = kp_tensor_columns(node->input[0]);
  t.pitch = kp_pitch(node->input[0]);
  t.time_weight = kp_input_numbers(call, 3);
  t.time_weight_pitch = stride_of(node->input[3]);
  t.in = kp_input_numbers(call, 4);
  t.out = kp_input_numbers(call, 5);
  t.result = kp_output_numbers(call, 1);
  return t.rows == 0 ? KP_OK : kp_grouped_time_gradient(call, &t, error);
}

extern "C" kp_status kp_cuda_grouped_linear_backward_input(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  kp_grouped g = rows_times_matrices(call, KP_GROUPED_INPUT);
  g.in = kp_input_numbers(call, 4);
  g.out = kp_input_numbers(call, 5);
  KP_TRY(multiply(call, &g, error));
  return node->outputs < 2 || call->output[1] == NULL ? KP_OK : time_gradient(call, error);
}

/* Scratch memory: what the sums need, then the turns. */
static size_t sums_bytes(const kp_node *node) {
  const int64_t experts = kp_tensor_count(node->input[1]) - 1, M = kp_tensor_columns(node->input[0]);
  return (kp_grouped_sums_scratch(experts, M) + 15) / 16 * 16;
}

static int64_t turns_of(const kp_node *node) {
  return kp_grouped_turns(kp_tensor_count(node->input[1]) - 1, kp_tensor_columns(node->input[0]),
                          kp_tensor_columns(node->input[2]));
}

extern "C" size_t kp_cuda_scratch_grouped_linear_backward_weight(const kp_node *node, int threads) {
  (void)threads;
  return sums_bytes(node) + (size_t)turns_of(node) * sizeof(int);
}

static kp_status weight_sums(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  kp_grouped_sums s = {};
  s.gy = call->input[0];
  s.y = call->input[7];
  s.offsets = (const int32_t *)call->input[1];
  s.experts = (int)kp_tensor_count(node->input[1]) - 1;
  s.rows = kp_tensor_rows(node->input[0]);
  s.M = kp_tensor_columns(node->input[0]);
  s.pitch = kp_pitch(node->input[0]);
  s.y_pitch = node->input[7] == NULL ? 0 : kp_pitch(node->input[7]);
  s.time = kp_input_numbers(call, 3);
  s.bias = kp_input_numbers(call, 4);
  s.bias_pitch = stride_of(node->input[4]);
  s.in = kp_input_numbers(call, 5);
  s.out = kp_input_numbers(call, 6);
  s.bias_gradient = kp_output_numbers(call, 1);
  s.bias_gradient_pitch = stride_of(node->output[1]);
  s.time_weight = kp_output_numbers(call, 2);
  s.time_weight_pitch = stride_of(node->output[2]);
  s.in_gradient = kp_output_numbers(call, 3);
  s.out_gradient = kp_output_numbers(call, 4);
  if (s.rows == 0 || s.experts == 0) return KP_OK;
  if (s.bias_gradient.at == NULL && s.time_weight.at == NULL && s.in_gradient.at == NULL &&
      s.out_gradient.at == NULL)
    return KP_OK;
  return kp_grouped_sum(call, &s, call->scratch, error);
}

extern "C" kp_status kp_cuda_grouped_linear_backward_weight(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  if (call->output[0] != NULL) {
    kp_grouped g = {};
    g.kind = KP_GROUPED_WEIGHT;
    g.offsets = (const int32_t *)call->input[1];
    g.experts = (int)kp_tensor_count(node->input[1]) - 1;
    g.rows = kp_tensor_rows(node->input[0]);
    g.M = kp_tensor_columns(node->input[0]);
    g.K = kp_tensor_columns(node->input[2]);
    g.a = call->input[0], g.b = call->input[2], g.c = call->output[0];
    g.a_pitch = kp_pitch(node->input[0]);
    g.b_pitch = kp_pitch(node->input[2]);
    g.c_pitch = kp_pitch(node->output[0]);
    g.expert_stride = g.M * g.c_pitch;
    g.factor = 1;
    g.in = kp_input_numbers(call, 5);
    g.out = kp_input_numbers(call, 6);
    g.turns = (int *)((char *)call->scratch + sums_bytes(node));
    KP_TRY(multiply(call, &g, error));
  }
  return weight_sums(call, error);
}
