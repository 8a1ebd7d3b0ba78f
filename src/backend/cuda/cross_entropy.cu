/* Cross-entropy of given logits.
 *
 * Forward reads the logits once, backward reads and writes them once: 2 and 4 bytes a logit in bfloat16,
 * which bound both. */
#include "backend/cuda/cross_entropy.cuh"

static kp_loss_rows rows_of(const kp_call *call) {
  const kp_tensor *logits = call->node->input[0];
  const kp_cross_entropy_arguments *a = (const kp_cross_entropy_arguments *)call->node->arguments;
  kp_loss_rows r = {};
  r.rows = kp_tensor_rows(logits);
  r.columns = kp_tensor_columns(logits);
  r.pitch = kp_pitch(logits);
  r.targets = (const int32_t *)call->input[1];
  r.ignore = a->ignore;
  r.step = kp_cuda_of(call)->step;
  r.node = call->node->index;
  return r;
}

/* The loss of each row. */
extern "C" size_t kp_cuda_scratch_cross_entropy(const kp_node *node, int threads) {
  (void)threads;
  return (size_t)kp_tensor_rows(node->input[0]) * sizeof(float);
}

extern "C" kp_status kp_cuda_cross_entropy(const kp_call *call, kp_error *error) {
  cudaStream_t stream = kp_cuda_of(call)->stream;
  kp_loss_rows r = rows_of(call);
  r.loss = (float *)call->scratch;
  r.logsumexp = (float *)call->output[1];
  if (kp_is_half(call))
    kp_row_losses<kp_half>(stream, call->input[0], r, kp_plain_head{});
  else
    kp_row_losses<float>(stream, call->input[0], r, kp_plain_head{});
  kp_mean_loss_kernel<<<1, KP_MEAN_THREADS, 0, stream>>>((float *)call->output[0], r.loss, r.targets, r.rows,
                                                         r.ignore);
  return kp_launched(call, error);
}

/* ---- backward ---- */

/* One number: each counted row's share of the gradient. */
extern "C" size_t kp_cuda_scratch_cross_entropy_backward(const kp_node *node, int threads) {
  (void)node, (void)threads;
  return sizeof(float);
}

/* A row's logsumexp and target (-1: ignored). */
struct row_target {
  float logsumexp;
  int64_t target;
};

__device__ static inline row_target row_target_of(const kp_loss_rows &r, const float *logsumexp, int64_t n) {
  return {logsumexp[n], kp_target_of(r, n, false)};
}

template <typename T>
__device__ static inline float gradient_of(float logit, const row_target &at, int64_t v, float share) {
  if (at.target < 0) return 0;
  return share * (kp_row_exp<T>(logit - at.logsumexp) - (v == at.target ? 1.0f : 0.0f));
}

/* Blocks walk strips of a row; a strip is STRIP packs, and all are loaded before the first is stored, which
 * may overwrite them. */
enum { STRIP_THREADS = 256, STRIP_PACKS = 4 };

template <typename T>
static __global__ void gradient_kernel(T *g, const T *logits, const float *logsumexp, const float *share,
                                       kp_loss_rows r, int strips) {
  constexpr int SIZE = kp_pack<T>::size;
  const int64_t n = blockIdx.x / strips, packs = r.pitch / SIZE;
  const int64_t first = (int64_t)(blockIdx.x % strips) * (STRIP_THREADS * STRIP_PACKS) + threadIdx.x;
  const row_target at = row_target_of(r, logsumexp, n);
  kp_pack<T> pack[STRIP_PACKS];
#pragma unroll
  for (int k = 0; k < STRIP_PACKS; k++)
    if (first + k * STRIP_THREADS < packs)
      pack[k] = kp_load(logits + n * r.pitch + (first + k * STRIP_THREADS) * SIZE);
#pragma unroll
  for (int k = 0; k < STRIP_PACKS; k++) {
    const int64_t place = first + k * STRIP_THREADS;
    if (place >= packs) break;
#pragma unroll
    for (int j = 0; j < SIZE; j++) {
      const int64_t v = place * SIZE + j;
      const float value = gradient_of<T>(kp_to_float(pack[k].value[j]), at, v, *share);
      pack[k].value[j] = kp_from_float<T>(v < r.columns ? value : 0.0f);
    }
    kp_store(g + n * r.pitch + place * SIZE, pack[k]);
  }
}

/* Shorter rows: a thread takes COUNT numbers, a pack, or one where rows are no whole packs. */
template <typename T, int COUNT>
static __global__ void short_gradient_kernel(T *g, const T *logits, const float *logsumexp,
                                             const float *share, kp_loss_rows r) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, parts = (unsigned)(r.pitch / COUNT),
                 n = i / parts;
  if (n >= r.rows) return;
  const int64_t first = (int64_t)(i - n * parts) * COUNT, at = n * r.pitch + first;
  const row_target target = row_target_of(r, logsumexp, n);
  kp_pack<T> pack = {};
  if constexpr (COUNT > 1)
    pack = kp_load(logits + at);
  else
    pack.value[0] = logits[at];
#pragma unroll
  for (int j = 0; j < COUNT; j++) {
    const int64_t v = first + j;
    const float value = gradient_of<T>(kp_to_float(pack.value[j]), target, v, *share);
    pack.value[j] = kp_from_float<T>(v < r.columns ? value : 0.0f);
  }
  if constexpr (COUNT > 1)
    kp_store(g + at, pack);
  else
    g[at] = pack.value[0];
}

template <typename T> static void backward(const kp_call *call, const kp_loss_rows &r) {
  cudaStream_t stream = kp_cuda_of(call)->stream;
  const T *logits = (const T *)call->input[0];
  const float *logsumexp = (const float *)call->input[2], *share = (const float *)call->scratch;
  T *g = (T *)call->output[0];
  constexpr int SIZE = kp_pack<T>::size, LONG_ROW = STRIP_THREADS * STRIP_PACKS / 2;
  const int64_t packs = r.pitch / SIZE, strips = kp_blocks(packs, STRIP_THREADS * STRIP_PACKS);
  if (r.pitch % SIZE != 0)
    short_gradient_kernel<T, 1><<<kp_blocks(r.rows * r.pitch, STRIP_THREADS), STRIP_THREADS, 0, stream>>>(
        g, logits, logsumexp, share, r);
  else if (packs < LONG_ROW)
    short_gradient_kernel<T, SIZE><<<kp_blocks(r.rows * packs, STRIP_THREADS), STRIP_THREADS, 0, stream>>>(
        g, logits, logsumexp, share, r);
  else
    gradient_kernel<T><<<(unsigned)(r.rows * strips), STRIP_THREADS, 0, stream>>>(g, logits, logsumexp, share,
                                                                                  r, (int)strips);
}

extern "C" kp_status kp_cuda_cross_entropy_backward(const kp_call *call, kp_error *error) {
  const kp_loss_rows r = rows_of(call);
  if (r.rows == 0) return KP_OK;
  kp_share_kernel<<<1, KP_MEAN_THREADS, 0, kp_cuda_of(call)->stream>>>(
      (float *)call->scratch, kp_input_numbers(call, 3), r.targets, r.rows, r.ignore);
  if (kp_is_half(call))
    backward<kp_half>(call, r);
  else
    backward<float>(call, r);
  return kp_launched(call, error);
}
