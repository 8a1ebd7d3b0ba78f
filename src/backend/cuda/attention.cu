/* The attention operators: reads a call's arguments, and chooses the kernels. */
#include "backend/cuda/attention_hopper.h"
#include "backend/cuda/attention_tensor.cuh"

static kp_head_rows head_rows(void *base, const kp_tensor *tensor, int step) {
  return kp_head_rows{base, tensor == NULL ? 0 : kp_pitch(tensor), step};
}

static void *element_at(void *base, int64_t i, bool half) {
  return base == NULL ? NULL : (char *)base + i * (half ? 2 : 4);
}

/* Heads of q, k, v or of their gradients, which are laid out alike. */
static void lay_out(const kp_call *call, const kp_attention_arguments *a, void *const at[3],
                    kp_tensor *const tensor[3], kp_head_rows *q, kp_head_rows *k, kp_head_rows *v) {
  const int D = a->head_size, Dv = kp_attention_value_size(a);
  const bool half = kp_is_half(call);
  *q = head_rows(at[0], tensor[0], D);
  if (a->packed) {
    *k = *v = *q;
    k->base = element_at(at[0], (int64_t)a->heads * D, half);
    v->base = element_at(at[0], (int64_t)(a->heads + a->kv_heads) * D, half);
    return;
  }
  *k = head_rows(at[1], tensor[1], D);
  *v = head_rows(at[2], tensor[2], Dv);
}

/* Inputs q, k, v, κ, β, documents. */
static kp_attention_problem problem_of(const kp_call *call) {
  const kp_node *node = call->node;
  const kp_attention_arguments *a = (const kp_attention_arguments *)node->arguments;
  kp_attention_problem p = {};
  p.batch = (int)a->batch, p.length = (int)a->length;
  p.heads = a->heads, p.kv_heads = a->kv_heads;
  p.size = a->head_size, p.value_size = kp_attention_value_size(a);
  p.score = a->score, p.values = a->values;
  p.causal = a->causal, p.half = kp_is_half(call);
  p.scale = (float)kp_attention_scale(a);
  p.kappa_absent = (float)kp_attention_curvature(a), p.beta_absent = 1;
  p.kappa = kp_input_numbers(call, 3), p.beta = kp_input_numbers(call, 4);
  p.kappa_step = node->input[3] != NULL && kp_tensor_count(node->input[3]) > 1;
  p.beta_step = node->input[4] != NULL && kp_tensor_count(node->input[4]) > 1;
  p.documents = (const int32_t *)call->input[5];
  lay_out(call, a, call->input, node->input, &p.q, &p.k, &p.v);
  return p;
}

static void zero_pads(const kp_call *call, int output) {
  const kp_tensor *tensor = call->node->output[output];
  if (call->output[output] == NULL) return;
  kp_attention_zero_pads(call->output[output], kp_tensor_is_half(call, tensor), kp_tensor_rows(tensor),
                         kp_tensor_columns(tensor), kp_pitch(tensor), kp_cuda_of(call)->stream);
}

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

/* As much of a problem as scratch memory depends on. */
static kp_attention_problem sizes_of(const kp_node *node) {
  const kp_attention_arguments *a = (const kp_attention_arguments *)node->arguments;
  kp_attention_problem p = {};
  p.batch = (int)a->batch, p.length = (int)a->length, p.heads = a->heads, p.kv_heads = a->kv_heads;
  p.size = a->head_size, p.value_size = kp_attention_value_size(a);
  p.score = a->score, p.values = a->values;
  static const int32_t present = 0;
  p.documents = node->input[5] == NULL ? NULL : &present;
  return p;
}

static bool tensor_fits(const kp_call *call, const kp_attention_problem &p) {
  return p.half && kp_attention_tensor_fits(p, kp_cuda_of(call)->shared_bytes);
}

extern "C" size_t kp_cuda_scratch_attention(const kp_node *node, int threads) {
  (void)threads;
  kp_tensor_work work = {};
  work.p = sizes_of(node);
  const size_t own =
      larger(kp_attention_plain_scratch((const kp_attention_arguments *)node->arguments, false),
             kp_attention_tensor_prepare(&work, NULL, false, NULL));
  return larger(own, kp_hopper_attention_scratch(node));
}

extern "C" kp_status kp_cuda_attention(const kp_call *call, kp_error *error) {
  kp_attention_problem p = problem_of(call);
  if (p.batch == 0 || p.length == 0) return KP_OK;
  zero_pads(call, 0);
  if (kp_hopper_attention_fits(call)) return kp_hopper_attention(call, error);
  p.o = head_rows(call->output[0], call->node->output[0], p.value_size);
  p.logsumexp = (float *)call->output[1];
  p.time = (float *)call->output[2], p.norms = (float *)call->output[3];
  return tensor_fits(call, p) ? kp_attention_tensor(call, p, error) : kp_attention_plain(call, p, error);
}

extern "C" size_t kp_cuda_scratch_attention_backward(const kp_node *node, int threads) {
  (void)threads;
  const size_t own = larger(kp_attention_plain_scratch((const kp_attention_arguments *)node->arguments, true),
                            kp_attention_tensor_backward_scratch(sizes_of(node)));
  return larger(own, kp_hopper_attention_backward_scratch(node));
}

/* Inputs after those of the forward pass: o, logsumexp, norms, g o, g o_time. */
extern "C" kp_status kp_cuda_attention_backward(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const kp_attention_arguments *a = (const kp_attention_arguments *)node->arguments;
  kp_attention_problem p = problem_of(call);
  if (p.batch == 0 || p.length == 0) return KP_OK;
  for (int i = 0; i < 3; i++) zero_pads(call, i);
  if (kp_hopper_attention_backward_fits(call)) return kp_hopper_attention_backward(call, error);
  p.o = head_rows(call->input[6], node->input[6], p.value_size);
  p.logsumexp = (float *)call->input[7], p.norms = (float *)call->input[8];
  kp_attention_gradients g = {};
  g.o = head_rows(call->input[9], node->input[9], p.value_size);
  g.time = (const float *)call->input[10];
  lay_out(call, a, call->output, node->output, &g.q, &g.k, &g.v);
  /* A plain mean without a gradient of its own has nothing to multiply. */
  const bool tensor = tensor_fits(call, p) && (g.o.base != NULL || p.values != KP_VALUES_MEAN);
  return tensor ? kp_attention_tensor_backward(call, p, g, error)
                : kp_attention_plain_backward(call, p, g, error);
}
