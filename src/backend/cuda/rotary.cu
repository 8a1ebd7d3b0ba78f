/* Rotary position embedding (Su et al. 2021, equation 34).
 *
 * Bytes: x once, y once; that bounds it.  A block turns a few rows: first it computes the two numbers of each
 * of their pairs, once for all heads, then it walks the pairs. */
#include "backend/cuda/chunks.cuh"
#include "backend/cuda/rotary.cuh"

enum { ROTARY_SHARED_PAIRS = 2048 };

/* What does not change within a launch. */
struct kp_rotation {
  int64_t rows, pitch;
  int heads, stride, offset;
  int rows_a_block;
  bool halves, transposed;
};

/* Turns `W` elements from `x` on with their partners: of two chunks in halves, of one with neighbours. */
template <int W, typename T>
__device__ static inline void turn_item(const kp_rotation &r, const kp_angles &a, const float2 *table,
                                        const T *x, T *y, int pair) {
  if (r.halves || W == 1) {
    const int first = r.halves ? a.first + pair : 2 * (a.first + pair);
    const int partner = r.halves ? first + a.half_size : first + 1;
    kp_chunk<W> u = kp_read<W>(x + first), v = kp_read<W>(x + partner);
#pragma unroll
    for (int i = 0; i < W; i++)
      kp_turn_pair(kp_turn_of(a.upstream, r.transposed, table[pair + i]), &u.value[i], &v.value[i]);
    kp_write<W>(y + first, u);
    kp_write<W>(y + partner, v);
  } else {
    kp_chunk<W> c = kp_read<W>(x + 2 * (a.first + pair));
#pragma unroll
    for (int i = 0; i + 1 < W; i += 2)
      kp_turn_pair(kp_turn_of(a.upstream, r.transposed, table[pair + i / 2]), &c.value[i], &c.value[i + 1]);
    kp_write<W>(y + 2 * (a.first + pair), c);
  }
}

/* What no head turns; only where y is not x.  Elements of the row count, padding too. */
template <int W, typename T>
__device__ static inline void copy_rest(const kp_rotation &r, int half_size, const T *x, T *y,
                                        int row_count) {
  const int chunks = (int)(r.pitch / W), thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int threads = blockDim.x * blockDim.y;
  for (int i = thread; i < chunks * row_count; i += threads) {
    const int row = i / chunks, column = (i - row * chunks) * W, head = column / r.stride;
    const int within = column - head * r.stride - r.offset;
    if (head < r.heads && within >= 0 && within < 2 * half_size) continue;
    kp_write<W>(y + row * r.pitch + column, kp_read<W>(x + row * r.pitch + column));
  }
}

template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    rotate_rows(const T *x, T *y, const int32_t *positions, const __grid_constant__ kp_rotation r,
                const __grid_constant__ kp_angles a) {
  __shared__ float2 table[ROTARY_SHARED_PAIRS];
  const int64_t row0 = (int64_t)blockIdx.x * r.rows_a_block;
  const int rows = (int)(r.rows - row0 < r.rows_a_block ? r.rows - row0 : r.rows_a_block);
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  for (int i = thread; i < rows * a.pairs; i += threads) {
    const int row = i / a.pairs;
    table[i] = kp_pair_numbers(a, i - row * a.pairs, (double)positions[row0 + row]);
  }
  __syncthreads();
  x += row0 * r.pitch;
  y += row0 * r.pitch;
  if (x != y && a.first == 0) copy_rest<W>(r, a.half_size, x, y, rows);
  const int step = W == 1 || r.halves ? W : W / 2; /* pairs of an item */
#pragma unroll 2
  for (int i = threadIdx.y; i < rows * r.heads; i += blockDim.y) {
    const int row = i / r.heads, head = i - row * r.heads;
    const int64_t at = row * r.pitch + (int64_t)head * r.stride + r.offset;
    for (int pair = threadIdx.x * step; pair < a.pairs; pair += blockDim.x * step)
      turn_item<W>(r, a, table + row * a.pairs, x + at, y + at, pair);
  }
}

static kp_rotation rotation_of(const kp_call *call, const kp_rotary_arguments *a) {
  const kp_tensor *x = call->node->input[0];
  kp_rotation r = {};
  r.rows = kp_tensor_rows(x);
  r.pitch = kp_pitch(x);
  r.heads = a->heads;
  r.stride = a->stride == 0 ? a->head_size : a->stride;
  r.offset = a->offset;
  r.halves = a->halves;
  r.transposed = a->transposed;
  return r;
}

/* Whether every item of a row is a whole chunk. */
static bool is_wide(const kp_call *call, const kp_rotation *r, int D) {
  const int unit = r->halves ? D / 2 : D;
  return kp_input_is_wide(call, 0) && kp_output_is_wide(call, 0) && unit % KP_CHUNK == 0 &&
         r->stride % KP_CHUNK == 0 && r->offset % KP_CHUNK == 0;
}

template <typename T, int W>
static void rotate(const kp_call *call, const kp_rotary_arguments *arguments, const kp_rotation &its) {
  kp_rotation r = its;
  for (int first = 0; first < arguments->head_size / 2; first += KP_ROTARY_PAIRS) {
    const kp_angles a = kp_angles_of(arguments, first);
    const int step = W == 1 || r.halves ? W : W / 2, items = (a.pairs + step - 1) / step;
    const int x = items < KP_TILE_THREADS ? items : KP_TILE_THREADS, y = KP_TILE_THREADS / x;
    /* Four items a thread, as far as the table holds. */
    int64_t rows = (4 * y + r.heads - 1) / (r.heads < 1 ? 1 : r.heads);
    if (rows * a.pairs > ROTARY_SHARED_PAIRS) rows = ROTARY_SHARED_PAIRS / a.pairs;
    r.rows_a_block = (int)rows;
    rotate_rows<T, W>
        <<<kp_blocks(r.rows, rows), dim3((unsigned)x, (unsigned)y), 0, kp_cuda_of(call)->stream>>>(
            (const T *)call->input[0], (T *)call->output[0], (const int32_t *)call->input[1], r, a);
  }
}

extern "C" kp_status kp_cuda_rotary(const kp_call *call, kp_error *error) {
  const kp_rotary_arguments *a = (const kp_rotary_arguments *)call->node->arguments;
  const kp_rotation r = rotation_of(call, a);
  if (r.rows == 0) return KP_OK;
  kp_by_chunk(kp_tensor_is_half(call, call->node->input[0]), is_wide(call, &r, a->head_size),
              [&](auto real, auto width) { rotate<decltype(real), decltype(width)::value>(call, a, r); });
  return kp_launched(call, error);
}
