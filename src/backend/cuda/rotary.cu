/* Rotary position embedding (Su et al. 2021, equation 34).
 *
 * Bytes: x once, y once; that bounds it.  A block turns a few rows: first it computes the two numbers of each
 * of their pairs, once for all heads, then it walks the pairs.  Angles are counted in turns and in double, so
 * that what is left of a turn is exact in float however far the position. */
#include "backend/cuda/chunks.cuh"

extern "C" {
#include "geometry/rotary.h"
}

/* Frequencies travel as an argument of the kernel, so many at a time: more pairs take more launches. */
enum { ROTARY_PAIRS = 128, ROTARY_SHARED_PAIRS = 2048 };

struct kp_turns {
  double a_position[ROTARY_PAIRS]; /* turns a position: frequency / 2π */
};

/* What does not change within a launch. */
struct kp_rotation {
  int64_t rows, pitch;
  int heads, stride, offset;
  int first, pairs; /* pairs of this launch, of `half_size` of a head */
  int half_size;    /* D/2 */
  int rows_a_block;
  bool halves, transposed, upstream;
};

/* The factors (p, q, r) of a pair: y0 = p u + q v, y1 = r u + p v. */
struct kp_turn {
  float same, up, down;
};

__device__ static inline float2 sine_and_cosine(double turns) {
  float2 both;
  sincospif((float)(2 * (turns - rint(turns))), &both.x, &both.y);
  return both;
}

/* Column j of the published table: the sine (even j) or cosine of angle j/2.  The frequencies of a launch
 * that has only some of the pairs begin elsewhere, see frequencies_of. */
__device__ static inline float upstream_entry(double turns, int column) {
  const float2 both = sine_and_cosine(turns);
  return column % 2 == 0 ? both.x : both.y;
}

__device__ static inline kp_turn turn_of(const kp_rotation &r, float2 pair) {
  return r.upstream ? kp_turn{0.0f, pair.x, pair.y} : kp_turn{pair.y, -pair.x, pair.x};
}

/* The numbers of a pair: (sine, cosine), or of the published deviation (up, down). */
__device__ static inline float2 pair_numbers(const kp_rotation &r, const kp_turns &first,
                                             const kp_turns &second, int pair, double position) {
  if (r.upstream) {
    const int column = r.first + pair;
    const float one = upstream_entry(position * first.a_position[pair], column);
    const float two = upstream_entry(position * second.a_position[pair], column + r.half_size);
    return r.transposed ? make_float2(one, -two) : make_float2(-two, one);
  }
  float2 both = sine_and_cosine(position * first.a_position[pair]);
  if (r.transposed) both.x = -both.x;
  return both;
}

__device__ static inline void turn(const kp_turn &t, float *u, float *v) {
  const float a = *u, b = *v;
  *u = t.same * a + t.up * b;
  *v = t.down * a + t.same * b;
}

/* Turns `W` elements from `x` on with their partners: of two chunks in halves, of one with neighbours. */
template <int W, typename T>
__device__ static inline void turn_item(const kp_rotation &r, const float2 *table, const T *x, T *y,
                                        int pair) {
  if (r.halves || W == 1) {
    const int first = r.halves ? r.first + pair : 2 * (r.first + pair);
    const int partner = r.halves ? first + r.half_size : first + 1;
    kp_chunk<W> u = kp_read<W>(x + first), v = kp_read<W>(x + partner);
#pragma unroll
    for (int i = 0; i < W; i++) turn(turn_of(r, table[pair + i]), &u.value[i], &v.value[i]);
    kp_write<W>(y + first, u);
    kp_write<W>(y + partner, v);
  } else {
    kp_chunk<W> c = kp_read<W>(x + 2 * (r.first + pair));
#pragma unroll
    for (int i = 0; i + 1 < W; i += 2) turn(turn_of(r, table[pair + i / 2]), &c.value[i], &c.value[i + 1]);
    kp_write<W>(y + 2 * (r.first + pair), c);
  }
}

/* What no head turns; only where y is not x.  Elements of the row count, padding too. */
template <int W, typename T>
__device__ static inline void copy_rest(const kp_rotation &r, const T *x, T *y, int row_count) {
  const int chunks = (int)(r.pitch / W), thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int threads = blockDim.x * blockDim.y;
  for (int i = thread; i < chunks * row_count; i += threads) {
    const int row = i / chunks, column = (i - row * chunks) * W, head = column / r.stride;
    const int within = column - head * r.stride - r.offset;
    if (head < r.heads && within >= 0 && within < 2 * r.half_size) continue;
    kp_write<W>(y + row * r.pitch + column, kp_read<W>(x + row * r.pitch + column));
  }
}

template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    rotate_rows(const T *x, T *y, const int32_t *positions, const __grid_constant__ kp_rotation r,
                const __grid_constant__ kp_turns first, const __grid_constant__ kp_turns second) {
  __shared__ float2 table[ROTARY_SHARED_PAIRS];
  const int64_t row0 = (int64_t)blockIdx.x * r.rows_a_block;
  const int rows = (int)(r.rows - row0 < r.rows_a_block ? r.rows - row0 : r.rows_a_block);
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  for (int i = thread; i < rows * r.pairs; i += threads) {
    const int row = i / r.pairs;
    table[i] = pair_numbers(r, first, second, i - row * r.pairs, (double)positions[row0 + row]);
  }
  __syncthreads();
  x += row0 * r.pitch;
  y += row0 * r.pitch;
  if (x != y && r.first == 0) copy_rest<W>(r, x, y, rows);
  const int step = W == 1 || r.halves ? W : W / 2; /* pairs of an item */
#pragma unroll 2
  for (int i = threadIdx.y; i < rows * r.heads; i += blockDim.y) {
    const int row = i / r.heads, head = i - row * r.heads;
    const int64_t at = row * r.pitch + (int64_t)head * r.stride + r.offset;
    for (int pair = threadIdx.x * step; pair < r.pairs; pair += blockDim.x * step)
      turn_item<W>(r, table + row * r.pairs, x + at, y + at, pair);
  }
}

/* Turns a position of the pairs of a launch; of the published deviation, of its columns from `column` on. */
static kp_turns frequencies_of(const kp_rotary_arguments *a, int column, int count) {
  const kp_yarn yarn = {a->factor, a->original, a->beta_fast, a->beta_slow, a->by_turns};
  kp_turns turns;
  for (int i = 0; i < count; i++) {
    const int pair = a->upstream ? (column + i) / 2 : column + i;
    turns.a_position[i] = kp_rotary_frequency(a->base, a->head_size, pair, a->upstream ? kp_yarn{} : yarn) /
                          (2 * 3.14159265358979323846);
  }
  return turns;
}

static kp_rotation rotation_of(const kp_call *call, const kp_rotary_arguments *a) {
  const kp_tensor *x = call->node->input[0];
  kp_rotation r = {};
  r.rows = kp_tensor_rows(x);
  r.pitch = kp_pitch(x);
  r.heads = a->heads;
  r.stride = a->stride == 0 ? a->head_size : a->stride;
  r.offset = a->offset;
  r.half_size = a->head_size / 2;
  r.halves = a->halves;
  r.transposed = a->transposed;
  r.upstream = a->upstream;
  return r;
}

/* Whether every item of a row is a whole chunk. */
static bool is_wide(const kp_call *call, const kp_rotation *r) {
  const int unit = r->halves ? r->half_size : 2 * r->half_size;
  return kp_input_is_wide(call, 0) && kp_output_is_wide(call, 0) && unit % KP_CHUNK == 0 &&
         r->stride % KP_CHUNK == 0 && r->offset % KP_CHUNK == 0;
}

template <typename T, int W>
static void rotate(const kp_call *call, const kp_rotary_arguments *a, kp_rotation r) {
  const int half = r.half_size;
  for (r.first = 0; r.first < half; r.first += ROTARY_PAIRS) {
    r.pairs = half - r.first < ROTARY_PAIRS ? half - r.first : ROTARY_PAIRS;
    const int step = W == 1 || r.halves ? W : W / 2, items = (r.pairs + step - 1) / step;
    const int x = items < KP_TILE_THREADS ? items : KP_TILE_THREADS, y = KP_TILE_THREADS / x;
    /* Four items a thread, as far as the table holds. */
    int64_t rows = (4 * y + r.heads - 1) / (r.heads < 1 ? 1 : r.heads);
    if (rows * r.pairs > ROTARY_SHARED_PAIRS) rows = ROTARY_SHARED_PAIRS / r.pairs;
    r.rows_a_block = (int)rows;
    const kp_turns first = frequencies_of(a, r.first, r.pairs);
    const kp_turns second = a->upstream ? frequencies_of(a, half + r.first, r.pairs) : kp_turns{};
    rotate_rows<T, W>
        <<<kp_blocks(r.rows, rows), dim3((unsigned)x, (unsigned)y), 0, kp_cuda_of(call)->stream>>>(
            (const T *)call->input[0], (T *)call->output[0], (const int32_t *)call->input[1], r, first,
            second);
  }
}

extern "C" kp_status kp_cuda_rotary(const kp_call *call, kp_error *error) {
  const kp_rotary_arguments *a = (const kp_rotary_arguments *)call->node->arguments;
  const kp_rotation r = rotation_of(call, a);
  if (r.rows == 0) return KP_OK;
  kp_by_chunk(kp_tensor_is_half(call, call->node->input[0]), is_wide(call, &r),
              [&](auto real, auto width) { rotate<decltype(real), decltype(width)::value>(call, a, r); });
  return kp_launched(call, error);
}
