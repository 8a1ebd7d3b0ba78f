/* Attention over a cache of latents: the keys and values of all positions so far are expanded into scratch
 * memory, and attended as a cache of their own.
 *
 * Expanding takes 2 r H (p + D') operations a position, attending 2 H (D + D') a query row and position: for
 * few query rows the expansion is what takes the time.  How many positions there are is known on the device
 * alone, so its kernels are of this backend's own making: blocks beyond the last position return at once. */
#include "backend/cuda/attention_latent_cached.cuh"

enum { WARPS = 4, THREADS = 256, PART_ALIGNMENT = 64 };
static const int64_t EXPANDED_BYTES = (int64_t)1 << 30;

/* ---- scratch ---- */

struct latent_plan {
  int64_t group; /* sequences at a time */
  int64_t key_pitch, value_pitch;
  size_t keys, values, inverse, time, attention, bytes;
};

static int64_t padded(int64_t count) {
  return (count + KP_CUDA_ROW_MULTIPLE - 1) / KP_CUDA_ROW_MULTIPLE * KP_CUDA_ROW_MULTIPLE;
}

static size_t place(size_t *used, int64_t bytes) {
  const size_t at = *used;
  *used += (size_t)((bytes + PART_ALIGNMENT - 1) / PART_ALIGNMENT * PART_ALIGNMENT);
  return at;
}

static latent_plan plan_of(const kp_node *node) {
  const kp_attention_latent_arguments *l = (const kp_attention_latent_arguments *)node->arguments;
  const int64_t real = sizeof(float), capacity = node->input[2]->shape[1];
  kp_attention_arguments a = l->attention;
  latent_plan p = {};
  size_t used = 0;
  p.key_pitch = padded(a.head_size), p.value_pitch = padded(kp_attention_value_size(&a));
  const int64_t sequence = a.heads * capacity * (p.key_pitch + p.value_pitch) * real;
  p.group = EXPANDED_BYTES / sequence;
  p.group = p.group < 1 ? 1 : p.group > a.batch ? a.batch : p.group;
  a.batch = p.group;
  p.keys = place(&used, p.group * a.heads * capacity * p.key_pitch * real);
  p.values = place(&used, p.group * a.heads * capacity * p.value_pitch * real);
  p.inverse = place(&used, p.group * capacity * real);
  p.time = place(&used, p.group * capacity * real);
  p.attention = place(&used, (int64_t)kp_cached_scratch(&a, capacity));
  p.bytes = used;
  return p;
}

extern "C" size_t kp_cuda_scratch_attention_latent_cached(const kp_node *node, int threads) {
  (void)threads;
  return plan_of(node).bytes;
}

/* ---- the rows of the cache ---- */

template <typename T> static __global__ void store_kernel(kp_latent_cache a) {
  const int width = a.latent + a.shared, start = kp_latent_start(a);
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, n = i / width, b = n / a.length;
  const int64_t position = start + n - b * a.length;
  if (n >= a.batch * a.length || position >= a.capacity) return;
  ((T *)a.state)[(b * a.capacity + position) * a.state_pitch + i - n * width] =
      ((const T *)a.rows)[n * a.rows_pitch + i - n * width];
}

/* A warp for each position: what normalises its latent, its time, and the shared part of its keys. */
template <typename T> static __global__ void rows_kernel(kp_latent_cache a) {
  const int lane = threadIdx.x % 32;
  const int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, b = i / a.capacity,
                j = i - b * a.capacity;
  if (b >= a.batch || j >= kp_latent_start(a) + a.length) return;
  const T *row = (const T *)a.state + i * a.state_pitch;
  double square = 0, norm = 0;
  for (int d = lane; d < a.latent; d += 32) {
    const double x = (double)kp_to_float(row[d]);
    square += x * x;
  }
  square = kp_warp_sum(square);
  const bool normed = a.norm_weight.at != NULL;
  const float inverse = normed ? (float)(1 / sqrt(square / a.latent + (double)a.epsilon)) : 1;
  for (int d = lane; d < a.latent; d += 32) {
    const double x = (double)(kp_to_float(row[d]) * inverse * (normed ? a.norm_weight[d] : 1));
    norm += x * x;
  }
  norm = kp_warp_sum(norm);
  const double c = a.kappa.at == NULL ? 1 : kp_lorentz_radius((double)a.kappa[0]);
  if (lane == 0) {
    a.inverse[i] = inverse;
    a.time[i] = (float)kp_lorentz_time(norm, c);
  }
  for (int k = lane; k < a.heads * a.shared; k += 32) {
    const int h = k / a.shared, d = k - h * a.shared;
    ((T *)a.keys)[((b * a.heads + h) * a.capacity + j) * a.key_pitch + a.own + d] = row[a.latent + d];
  }
}

/* ---- all of it ---- */

template <typename T> static void store_and_read(const kp_call *call, const kp_latent_cache &a) {
  cudaStream_t stream = kp_cuda_of(call)->stream;
  store_kernel<T><<<kp_blocks(a.batch * a.length * (a.latent + a.shared), THREADS), THREADS, 0, stream>>>(a);
  rows_kernel<T><<<kp_blocks(a.batch * a.capacity, WARPS), 32 * WARPS, 0, stream>>>(a);
}

/* The whole batch; memory of the first group. */
static kp_latent_cache cache_of(const kp_call *call, const latent_plan &p) {
  const kp_node *node = call->node;
  const kp_attention_latent_arguments *l = (const kp_attention_latent_arguments *)node->arguments;
  char *scratch = (char *)call->scratch;
  kp_latent_cache a = {};
  a.length = l->attention.length, a.capacity = node->input[2]->shape[1];
  a.heads = l->attention.heads, a.own = l->attention.head_size - l->shared_size, a.shared = l->shared_size;
  a.value = kp_attention_value_size(&l->attention), a.latent = l->latent_size;
  a.epsilon = (float)l->epsilon;
  a.rows = call->input[1], a.rows_pitch = kp_pitch(node->input[1]);
  a.state = call->input[2], a.state_pitch = kp_pitch(node->input[2]);
  a.start = (const int32_t *)call->input[3];
  a.norm_weight = kp_input_numbers(call, 4);
  a.up = call->input[5], a.up_pitch = kp_pitch(node->input[5]);
  a.time_weight = kp_input_numbers(call, 6), a.bias = kp_input_numbers(call, 7);
  a.kappa = kp_input_numbers(call, 8);
  a.keys = scratch + p.keys, a.values = scratch + p.values;
  a.inverse = (float *)(scratch + p.inverse), a.time = (float *)(scratch + p.time);
  a.key_pitch = p.key_pitch, a.value_pitch = p.value_pitch;
  a.step = kp_cuda_of(call)->step, a.node = node->index;
  return a;
}

/* Sequences `first` on. */
static kp_status attend_group(const kp_call *call, const latent_plan &p, int64_t first, kp_error *error) {
  const kp_attention_latent_arguments *l = (const kp_attention_latent_arguments *)call->node->arguments;
  kp_attention_arguments group = l->attention;
  const int64_t real = kp_is_half(call) ? sizeof(kp_half) : sizeof(float), row = first * group.length;
  kp_latent_cache a = cache_of(call, p);
  a.batch = group.batch - first < p.group ? group.batch - first : p.group;
  a.rows = (const char *)a.rows + row * a.rows_pitch * real;
  a.state = (char *)a.state + first * a.capacity * a.state_pitch * real;
  if (kp_is_half(call))
    store_and_read<kp_half>(call, a);
  else
    store_and_read<float>(call, a);
  kp_latent_expand(call, a);
  group.batch = p.group;
  kp_cached_heads heads =
      kp_cached_heads_of(call, &group, a.capacity, 8, (char *)call->scratch + p.attention);
  heads.batch = a.batch;
  heads.k = a.keys, heads.k_pitch = a.key_pitch;
  heads.v = a.values, heads.v_pitch = a.value_pitch;
  heads.start = a.start;
  heads.q = (const char *)heads.q + row * heads.q_pitch * real;
  heads.o = (char *)heads.o + row * heads.o_pitch * real;
  if (heads.time.at != NULL)
    heads.time.at =
        (char *)heads.time.at + row * group.heads * (heads.time.half ? sizeof(kp_half) : sizeof(float));
  return kp_cached_attend(call, &heads, error);
}

extern "C" kp_status kp_cuda_attention_latent_cached(const kp_call *call, kp_error *error) {
  const kp_attention_latent_arguments *l = (const kp_attention_latent_arguments *)call->node->arguments;
  const latent_plan p = plan_of(call->node);
  if (l->attention.length == 0) return KP_OK;
  for (int64_t first = 0; first < l->attention.batch; first += p.group)
    KP_TRY(attend_group(call, p, first, error));
  return kp_launched(call, error);
}
