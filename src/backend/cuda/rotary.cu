/* Rotary position embedding (Su et al. 2021, equation 34).
 *
 * Bytes: x once, y once; that bounds it.  A block turns a few rows: while its first chunks are on their way
 * it computes the two numbers of each pair, once for all heads, then it walks the pairs. */
#include "backend/cuda/chunks.cuh"
#include "backend/cuda/rotary.cuh"

enum { ROTARY_SHARED_PAIRS = 2048, ROTARY_ITEMS = 4 };

/* What does not change within a launch. */
struct kp_rotation {
  int64_t rows, pitch;
  int heads, stride, offset;
  int rows_a_block;
  bool halves, transposed;
};

/* W elements as they stand in memory until they are used. */
template <typename T, int W> struct alignas(W == 1 ? sizeof(T) : 16) kp_stored {
  T value[W];
  __device__ kp_chunk<W> widened() const {
    kp_chunk<W> chunk;
#pragma unroll
    for (int i = 0; i < W; i++) chunk.value[i] = kp_to_float(value[i]);
    return chunk;
  }
};

/* W elements of a head and, of pairs that stand apart, those of their partners. */
template <typename T, int W, bool APART> struct kp_item { kp_stored<T, W> chunk[APART ? 2 : 1]; };

/* Where the elements of an item and their partners begin. */
struct kp_item_place {
  int first, partner;
};

__device__ static inline kp_item_place place_of(const kp_rotation &r, const kp_angles &a, int pair) {
  const int first = r.halves ? a.first + pair : 2 * (a.first + pair);
  return kp_item_place{first, r.halves ? first + a.half_size : first + 1};
}

template <int W, bool APART, typename T>
__device__ static inline kp_item<T, W, APART> read_item(const T *x, const kp_item_place &place) {
  kp_item<T, W, APART> item;
  item.chunk[0] = *(const kp_stored<T, W> *)(x + place.first);
  if constexpr (APART) item.chunk[1] = *(const kp_stored<T, W> *)(x + place.partner);
  return item;
}

/* `table`: the numbers of the item's pairs. */
template <int W, bool APART, typename T>
__device__ static inline void turn_item(const kp_rotation &r, bool upstream, const float2 *table, T *y,
                                        const kp_item_place &place, const kp_item<T, W, APART> &item) {
  kp_chunk<W> u = item.chunk[0].widened();
  if constexpr (APART) {
    kp_chunk<W> v = item.chunk[1].widened();
#pragma unroll
    for (int i = 0; i < W; i++)
      kp_turn_pair(kp_turn_of(upstream, r.transposed, table[i]), &u.value[i], &v.value[i]);
    kp_write<W>(y + place.partner, v);
  } else {
#pragma unroll
    for (int i = 0; i < W; i += 2)
      kp_turn_pair(kp_turn_of(upstream, r.transposed, table[i / 2]), &u.value[i], &u.value[i + 1]);
  }
  kp_write<W>(y + place.first, u);
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

/* A thread takes ROTARY_ITEMS items at once, and asks for the first ones before it computes an angle. */
template <typename T, int W, bool APART>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    rotate_rows(const T *x, T *y, const int32_t *positions, const __grid_constant__ kp_rotation r,
                const __grid_constant__ kp_angles a) {
  __shared__ float2 table[ROTARY_SHARED_PAIRS];
  const int64_t row0 = (int64_t)blockIdx.x * r.rows_a_block;
  const int rows = (int)(r.rows - row0 < r.rows_a_block ? r.rows - row0 : r.rows_a_block);
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  const int pair = threadIdx.x * (APART ? W : W / 2), heads = rows * r.heads;
  const kp_item_place place = place_of(r, a, pair);
  x += row0 * r.pitch;
  y += row0 * r.pitch;
  if (x != y && a.first == 0) copy_rest<W>(r, a.half_size, x, y, rows);
  for (int base = threadIdx.y; base < heads + (int)threadIdx.y; base += ROTARY_ITEMS * blockDim.y) {
    kp_item<T, W, APART> item[ROTARY_ITEMS];
    int row[ROTARY_ITEMS], at[ROTARY_ITEMS];
#pragma unroll
    for (int k = 0; k < ROTARY_ITEMS; k++) {
      const int i = base + k * blockDim.y;
      row[k] = i < heads ? i / r.heads : -1;
      at[k] = row[k] * (int)r.pitch + (i - row[k] * r.heads) * r.stride + r.offset;
      if (row[k] >= 0) item[k] = read_item<W, APART>(x + at[k], place);
    }
    if (base == (int)threadIdx.y) {
      for (int i = thread; i < rows * a.pairs; i += threads) {
        const int of = i / a.pairs;
        table[i] = kp_pair_numbers(a, i - of * a.pairs, (double)positions[row0 + of]);
      }
      __syncthreads();
    }
#pragma unroll
    for (int k = 0; k < ROTARY_ITEMS; k++)
      if (row[k] >= 0)
        turn_item<W, APART>(r, a.upstream, table + row[k] * a.pairs + pair, y + at[k], place, item[k]);
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

template <typename T, int W, bool APART>
static void rotate(const kp_call *call, const kp_rotary_arguments *arguments, kp_rotation r) {
  for (int first = 0; first < arguments->head_size / 2; first += KP_ROTARY_PAIRS) {
    const kp_angles a = kp_angles_of(arguments, first);
    const int step = APART ? W : W / 2, x = (a.pairs + step - 1) / step;
    const int y = KP_TILE_THREADS / x;
    int rows = r.heads < 1 ? 1 : ROTARY_ITEMS * y / r.heads;
    if (rows < 1) rows = 1;
    if (rows * a.pairs > ROTARY_SHARED_PAIRS) rows = ROTARY_SHARED_PAIRS / a.pairs;
    r.rows_a_block = rows;
    rotate_rows<T, W, APART>
        <<<kp_blocks(r.rows, rows), dim3((unsigned)x, (unsigned)y), 0, kp_cuda_of(call)->stream>>>(
            (const T *)call->input[0], (T *)call->output[0], (const int32_t *)call->input[1], r, a);
  }
}

extern "C" kp_status kp_cuda_rotary(const kp_call *call, kp_error *error) {
  const kp_rotary_arguments *a = (const kp_rotary_arguments *)call->node->arguments;
  const kp_rotation r = rotation_of(call, a);
  if (r.rows == 0) return KP_OK;
  kp_by_chunk(kp_tensor_is_half(call, call->node->input[0]), is_wide(call, &r, a->head_size),
              [&](auto real, auto width) {
                using T = decltype(real);
                constexpr int W = decltype(width)::value;
                if (W == 1 || r.halves)
                  rotate<T, W, true>(call, a, r);
                else if constexpr (W > 1)
                  rotate<T, W, false>(call, a, r);
              });
  return kp_launched(call, error);
}
