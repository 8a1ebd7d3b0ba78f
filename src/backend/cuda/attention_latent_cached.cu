/* Attention over a cache of latents: the keys and values of all positions so far are expanded into scratch
 * memory, and attended as a cache of their own.
 *
 * Expanding takes 2 r H (p + D') operations a position, attending 2 H (D + D') a query row and position: for
 * few query rows the expansion is what takes the time.  How many positions there are is known on the device
 * alone, so the product is this file's own: blocks beyond the last position return at once. */
#include "backend/cuda/attention_cached.cuh"

enum { WARPS = 4, TILE = 64, DEPTH = 16, THREADS = 256, OWN = 4, PART_ALIGNMENT = 64 };
static const int64_t EXPANDED_BYTES = (int64_t)1 << 30;

/* A group of sequences; what is by row is by (sequence of the group, position). */
struct latent_cache {
  int64_t batch, length, capacity;       /* sequences of the group, T, P */
  int heads, own, shared, value, latent; /* H, p, ρ, D', r */
  float epsilon;
  const void *rows, *up; /* new rows; up weight (H (p + D'), r) */
  void *state;           /* (B, P, r + ρ) */
  int64_t rows_pitch, state_pitch, up_pitch;
  kp_numbers norm_weight, time_weight, bias, kappa;
  const int32_t *start;
  float *inverse, *time; /* (batch, P): 1 / root mean square of a latent, √(|L|² + c) */
  void *keys, *values;   /* (batch, H, P, ·), expanded */
  int64_t key_pitch, value_pitch;
  kp_device_step *step;
  int node;
};

__device__ static inline int start_of(const latent_cache &a) {
  return kp_cached_start(a.start, a.length, a.capacity, a.step, a.node);
}

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

template <typename T> static __global__ void store_kernel(latent_cache a) {
  const int width = a.latent + a.shared, start = start_of(a);
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, n = i / width, b = n / a.length;
  const int64_t position = start + n - b * a.length;
  if (n >= a.batch * a.length || position >= a.capacity) return;
  ((T *)a.state)[(b * a.capacity + position) * a.state_pitch + i - n * width] =
      ((const T *)a.rows)[n * a.rows_pitch + i - n * width];
}

/* A warp for each position: what normalises its latent, its time, and the shared part of its keys. */
template <typename T> static __global__ void rows_kernel(latent_cache a) {
  const int lane = threadIdx.x % 32;
  const int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, b = i / a.capacity,
                j = i - b * a.capacity;
  if (b >= a.batch || j >= start_of(a) + a.length) return;
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

/* ---- expanding ---- */

/* z = L · up weightᵀ + time · up time weight + bias of 64 positions and 64 channels; a thread 4 of each. */
template <typename T> struct expansion_tile {
  float latent[DEPTH][TILE + 4], up[DEPTH][TILE + 4]; /* both by channel of the latent */
};

template <typename T>
__device__ static void load_depth(expansion_tile<T> *s, const latent_cache &a, int64_t row, int count,
                                  int column, int depth) {
  const int columns = a.heads * (a.own + a.value);
  for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
    const int k = i % DEPTH, m = i / DEPTH;
    float latent = 0, up = 0;
    if (depth + k < a.latent && m < count)
      latent = kp_to_float(((const T *)a.state)[(row + m) * a.state_pitch + depth + k]) * a.inverse[row + m] *
               (a.norm_weight.at == NULL ? 1 : a.norm_weight[depth + k]);
    if (depth + k < a.latent && column + m < columns)
      up = kp_to_float(((const T *)a.up)[(column + m) * a.up_pitch + depth + k]);
    s->latent[k][m] = latent;
    s->up[k][m] = up;
  }
}

/* Channel `column` of z at a position of sequence b. */
template <typename T>
__device__ static inline void put(const latent_cache &a, int64_t b, int64_t j, int column, float z) {
  const int width = a.own + a.value, h = column / width, d = column - h * width;
  const int64_t row = (b * a.heads + h) * a.capacity + j;
  if (a.time_weight.at != NULL) z += a.time[b * a.capacity + j] * a.time_weight[column];
  if (a.bias.at != NULL) z += a.bias[column];
  if (d < a.own)
    ((T *)a.keys)[row * a.key_pitch + d] = kp_from_float<T>(z);
  else
    ((T *)a.values)[row * a.value_pitch + d - a.own] = kp_from_float<T>(z);
}

template <typename T> static __global__ void __launch_bounds__(THREADS) expand_kernel(latent_cache a) {
  __shared__ expansion_tile<T> s;
  const int64_t b = blockIdx.z, j = (int64_t)blockIdx.y * TILE, row = b * a.capacity + j;
  const int end = start_of(a) + (int)a.length, column = blockIdx.x * TILE;
  if (j >= end) return;
  const int count = min(TILE, (int)(end - j)), x = threadIdx.x % 16 * OWN, y = threadIdx.x / 16 * OWN;
  float z[OWN][OWN] = {};
  for (int depth = 0; depth < a.latent; depth += DEPTH) {
    __syncthreads();
    load_depth(&s, a, row, count, column, depth);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      const float4 m = *(const float4 *)&s.latent[k][y], n = *(const float4 *)&s.up[k][x];
      const float ms[OWN] = {m.x, m.y, m.z, m.w}, ns[OWN] = {n.x, n.y, n.z, n.w};
#pragma unroll
      for (int u = 0; u < OWN; u++)
#pragma unroll
        for (int v = 0; v < OWN; v++) z[u][v] += ms[u] * ns[v];
    }
  }
#pragma unroll
  for (int u = 0; u < OWN; u++)
#pragma unroll
    for (int v = 0; v < OWN; v++)
      if (y + u < count && column + x + v < a.heads * (a.own + a.value))
        put<T>(a, b, j + y + u, column + x + v, z[u][v]);
}

/* ---- all of it ---- */

template <typename T> static void expand(const kp_call *call, const latent_cache &a) {
  cudaStream_t stream = kp_cuda_of(call)->stream;
  const int columns = a.heads * (a.own + a.value);
  const dim3 grid((unsigned)kp_blocks(columns, TILE), (unsigned)kp_blocks(a.capacity, TILE),
                  (unsigned)a.batch);
  store_kernel<T><<<kp_blocks(a.batch * a.length * (a.latent + a.shared), THREADS), THREADS, 0, stream>>>(a);
  rows_kernel<T><<<kp_blocks(a.batch * a.capacity, WARPS), 32 * WARPS, 0, stream>>>(a);
  expand_kernel<T><<<grid, THREADS, 0, stream>>>(a);
}

/* The whole batch; memory of the first group. */
static latent_cache cache_of(const kp_call *call, const latent_plan &p) {
  const kp_node *node = call->node;
  const kp_attention_latent_arguments *l = (const kp_attention_latent_arguments *)node->arguments;
  char *scratch = (char *)call->scratch;
  latent_cache a = {};
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
  latent_cache a = cache_of(call, p);
  a.batch = group.batch - first < p.group ? group.batch - first : p.group;
  a.rows = (const char *)a.rows + row * a.rows_pitch * real;
  a.state = (char *)a.state + first * a.capacity * a.state_pitch * real;
  if (kp_is_half(call))
    expand<kp_half>(call, a);
  else
    expand<float>(call, a);
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
