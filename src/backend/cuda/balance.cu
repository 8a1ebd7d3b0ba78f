/* The loss that keeps experts equally busy.
 *
 * First the choices of each expert are counted by sequence, then each count becomes the factor that a token's
 * share of an expert has in the loss.  Scratch: counts (S, E+1) int32, the last one the tokens; factors
 * (S, E) float; partial losses double. */
#include "backend/cuda/kernel.cuh"

enum { BALANCE_WARPS = 8, COUNT_ROWS = 256, LOSS_BLOCKS = 1024 };

/* Below this a sum of scores is no probability any more. */
#define SMALLEST_SUM 1e-20f

struct kp_balance {
  const float *scores;
  const int32_t *indices, *documents;
  int64_t N, T, sequences, chunks; /* chunks of COUNT_ROWS of a sequence */
  int E, k, choices;
  double alpha;
  int32_t *counts;
  float *factors;
  double *partial;
};

__device__ static inline bool is_token(const kp_balance &b, int64_t n) {
  return b.documents == NULL || b.documents[n] >= 0;
}

/* Adds whole numbers, so that their order does not matter. */
static __global__ void count_choices(const __grid_constant__ kp_balance b) {
  extern __shared__ int32_t counted[];
  for (int i = threadIdx.x; i <= b.E; i += blockDim.x) counted[i] = 0;
  __syncthreads();
  const int64_t sequence = blockIdx.x / b.chunks, chunk = blockIdx.x % b.chunks;
  const int64_t first = sequence * b.T + chunk * COUNT_ROWS, end = (sequence + 1) * b.T;
  const int64_t last = first + COUNT_ROWS < end ? first + COUNT_ROWS : end;
  for (int64_t i = first * b.k + threadIdx.x; i < last * b.k; i += blockDim.x) {
    if (!is_token(b, i / b.k)) continue;
    const int e = b.indices[i];
    if (e >= 0 && e < b.E) atomicAdd(&counted[e], 1);
    if (i % b.k == 0) atomicAdd(&counted[b.E], 1);
  }
  __syncthreads();
  for (int i = threadIdx.x; i <= b.E; i += blockDim.x)
    if (counted[i] > 0) atomicAdd(&b.counts[sequence * (b.E + 1) + i], counted[i]);
}

static __global__ void weigh_counts(const __grid_constant__ kp_balance b) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, sequence = at / b.E;
  if (sequence >= b.sequences) return;
  const int32_t *counts = b.counts + sequence * (b.E + 1);
  const double tokens = counts[b.E], chosen = counts[at % b.E];
  const double f = tokens == 0 ? 0 : chosen * b.E / (b.choices * tokens);
  b.factors[at] = tokens == 0 ? 0.0f : (float)(b.alpha * f / tokens * (double)b.T / (double)b.N);
}

/* A warp has a token.  Bytes: the scores once. */
static __global__ void __launch_bounds__(BALANCE_WARPS * 32) sum_loss(const __grid_constant__ kp_balance b) {
  __shared__ double shared[32];
  const int lane = threadIdx.x % 32;
  double loss = 0;
  for (int64_t n = (int64_t)blockIdx.x * BALANCE_WARPS + threadIdx.x / 32; n < b.N;
       n += LOSS_BLOCKS * BALANCE_WARPS) {
    if (!is_token(b, n)) continue;
    const float *factors = b.factors + n / b.T * b.E, *p = b.scores + n * b.E;
    float sum = 0, weighted = 0;
#pragma unroll 4
    for (int e = lane; e < b.E; e += 32) {
      sum += p[e];
      weighted += factors[e] * p[e];
    }
    sum = kp_warp_sum(sum);
    loss += (double)weighted / (double)(sum < SMALLEST_SUM ? SMALLEST_SUM : sum);
  }
  loss = kp_block_sum(loss, shared);
  if (threadIdx.x == 0) b.partial[blockIdx.x] = loss;
}

static __global__ void sum_partial_losses(const double *partial, kp_results out) {
  __shared__ double shared[32];
  const double loss = kp_block_sum(partial[threadIdx.x], shared);
  if (threadIdx.x == 0) out.set(0, (float)loss);
}

/* Bytes: the scores once, their gradients once. */
static __global__ void __launch_bounds__(BALANCE_WARPS * 32)
    balance_backward(const __grid_constant__ kp_balance b, kp_numbers g, float *gp) {
  const int lane = threadIdx.x % 32;
  const int64_t n = (int64_t)blockIdx.x * BALANCE_WARPS + threadIdx.x / 32;
  if (n >= b.N) return;
  const float *factors = b.factors + n / b.T * b.E, *p = b.scores + n * b.E;
  const float scale = is_token(b, n) ? g[0] : 0.0f;
  float sum = 0, mean = 0;
#pragma unroll 4
  for (int e = lane; e < b.E; e += 32) sum += p[e];
  sum = kp_warp_sum(sum);
  const bool tiny = sum < SMALLEST_SUM;
  /* Shares are quotients and products are rounded, so that what has a share of one is exactly the mean. */
#pragma unroll 4
  for (int e = lane; e < b.E && !tiny; e += 32) mean += __fmul_rn(scale, factors[e]) * (p[e] / sum);
  mean = kp_warp_sum(mean);
  const float inverse = 1.0f / (tiny ? SMALLEST_SUM : sum);
#pragma unroll 4
  for (int e = lane; e < b.E; e += 32) gp[n * b.E + e] = (__fmul_rn(scale, factors[e]) - mean) * inverse;
}

static size_t aligned(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

static kp_balance balance_of(const kp_node *node, void *scratch, size_t *bytes) {
  const kp_balance_arguments *a = (const kp_balance_arguments *)node->arguments;
  kp_balance b = {};
  b.N = kp_tensor_rows(node->input[0]);
  b.T = a->length == 0 ? b.N : a->length;
  b.sequences = b.T == 0 ? 0 : b.N / b.T;
  b.chunks = kp_blocks(b.T, COUNT_ROWS);
  b.E = (int)kp_tensor_columns(node->input[0]);
  b.k = (int)kp_tensor_columns(node->input[1]);
  b.choices = a->choices;
  b.alpha = a->alpha;
  const size_t counts = aligned((size_t)(b.sequences * (b.E + 1)) * sizeof(int32_t));
  const size_t factors = aligned((size_t)(b.sequences * b.E) * sizeof(float));
  b.counts = (int32_t *)scratch;
  b.factors = (float *)((char *)scratch + counts);
  b.partial = (double *)((char *)scratch + counts + factors);
  *bytes = counts + factors + LOSS_BLOCKS * sizeof(double);
  return b;
}

extern "C" size_t kp_cuda_scratch_balance_loss(const kp_node *node, int threads) {
  (void)threads;
  size_t bytes;
  balance_of(node, NULL, &bytes);
  return bytes;
}

extern "C" size_t kp_cuda_scratch_balance_loss_backward(const kp_node *node, int threads) {
  return kp_cuda_scratch_balance_loss(node, threads);
}

/* The factors of all sequences. */
static kp_status prepare(const kp_call *call, kp_balance *b, kp_error *error) {
  size_t bytes;
  *b = balance_of(call->node, call->scratch, &bytes);
  b->scores = (const float *)call->input[0];
  b->indices = (const int32_t *)call->input[1];
  b->documents = call->node->inputs > 2 ? (const int32_t *)call->input[2] : NULL;
  if (b->N == 0) return KP_OK;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  const size_t counts = (size_t)(b->sequences * (b->E + 1)) * sizeof(int32_t);
  KP_TRY(kp_cuda_check(cudaMemsetAsync(b->counts, 0, counts, stream), "balance_loss", error));
  const size_t shared = (size_t)(b->E + 1) * sizeof(int32_t);
  count_choices<<<(unsigned)(b->sequences * b->chunks), 256, shared, stream>>>(*b);
  weigh_counts<<<kp_blocks(b->sequences * b->E, 256), 256, 0, stream>>>(*b);
  return kp_launched(call, error);
}

extern "C" kp_status kp_cuda_balance_loss(const kp_call *call, kp_error *error) {
  kp_balance b;
  KP_TRY(prepare(call, &b, error));
  cudaStream_t stream = kp_cuda_of(call)->stream;
  sum_loss<<<LOSS_BLOCKS, BALANCE_WARPS * 32, 0, stream>>>(b);
  sum_partial_losses<<<1, LOSS_BLOCKS, 0, stream>>>(b.partial, kp_output_numbers(call, 0));
  return kp_launched(call, error);
}

extern "C" kp_status kp_cuda_balance_loss_backward(const kp_call *call, kp_error *error) {
  kp_balance b;
  KP_TRY(prepare(call, &b, error));
  if (b.N == 0) return KP_OK;
  balance_backward<<<kp_blocks(b.N, BALANCE_WARPS), BALANCE_WARPS * 32, 0, kp_cuda_of(call)->stream>>>(
      b, kp_input_numbers(call, 3), (float *)call->output[0]);
  return kp_launched(call, error);
}
