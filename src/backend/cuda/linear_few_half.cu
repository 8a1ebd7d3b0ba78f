/* Linear maps of at most KP_FEW_ROWS rows in bfloat16, as in decoding: 2 M K bytes of the matrix are read,
 * once for all rows, and nothing else counts but the time in which nothing is read.
 *
 * The matrix units multiply, so that 8 rows cost what one does: they take 16 outputs by 8 rows.  The order of
 * a sum's terms is free, so a thread reads 16 bytes of a row of W and the same 16 bytes of a row of x, and
 * gives them to the units as if they were the columns that it should hold.
 *
 * A block computes 16 or 8 columns of y and its warps share the depth, so that a warp needs few steps; the
 * matrix of the first HELD of them is under way before the kernel in front has ended. */
#include "backend/cuda/early.cuh"
#include "backend/cuda/linear_few.cuh"

enum { TILE = 16, STEP = 64, LEAST_WARPS = 4, MOST_WARPS = 16, MOST_HELD = 4 };
enum { MOST_ROW_BYTES = 64 << 10 };
enum { ROW_GAP = 32, NORM_PACKS = KP_FEW_CHANNELS / 256 }; /* the gap keeps two rows out of the same banks */

/* A warp's sums: those of even and of odd halves of a step, which do not wait for one another. */
struct few_sums {
  float even[4] = {}, odd[4] = {};
};

/* 64 columns of W's rows, in quarters of a warp's lanes: 32 columns, then 32 more. */
template <bool HIGH> struct few_step {
  uint4 low[2], high[HIGH ? 2 : 1];

  __device__ void load(const kp_half *w, int64_t apart, int k, int64_t depth, bool is_low, bool is_high) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const bool inside = k + 32 * i < depth;
      low[i] = kp_read_parameter(w + k + 32 * i, inside && is_low);
      if (HIGH) high[i] = kp_read_parameter(w + apart + k + 32 * i, inside && is_high);
    }
  }

  __device__ void multiply(few_sums &sums, const uint4 (&x)[2]) const {
    const uint4 none = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const uint4 a = low[i], b = HIGH ? high[HIGH ? i : 0] : none;
      kp_multiply_16(sums.even, a.x, b.x, a.y, b.y, x[i].x, x[i].y);
      kp_multiply_16(sums.odd, a.z, b.z, a.w, b.w, x[i].z, x[i].w);
    }
  }
};

/* ---- the norm in front ---- */

/* The gains and biases of a norm, in shared memory. */
struct few_gains {
  float weight[KP_FEW_CHANNELS], bias[KP_FEW_CHANNELS];
};

__device__ static void load_gains(const kp_few_norm &n, few_gains *gains, int padded) {
  constexpr int TOGETHER = 3;
  for (int first = threadIdx.x; first < padded; first += TOGETHER * blockDim.x) {
    float weight[TOGETHER], bias[TOGETHER];
#pragma unroll
    for (int i = 0; i < TOGETHER; i++) {
      const int c = first + i * blockDim.x;
      weight[i] = c >= n.channels ? 0.0f : n.weight.at == NULL ? 1.0f : n.weight[c];
      bias[i] = c >= n.channels || n.bias.at == NULL ? 0.0f : n.bias[c];
    }
#pragma unroll
    for (int i = 0; i < TOGETHER; i++) {
      const int c = first + i * blockDim.x;
      if (c < padded) gains->weight[c] = weight[i], gains->bias[c] = bias[i];
    }
  }
}

/* Row r of the map's input, by one warp, to shared memory; the first block writes it to memory too. */
__device__ static void normalise_row(const kp_few_norm &n, const few_gains *gains, int64_t pitch, int r,
                                     kp_half *to) {
  const int lane = threadIdx.x % 32;
  kp_pack<kp_half> h[NORM_PACKS];
  float mean = 0, squares = 0;
#pragma unroll
  for (int p = 0; p < NORM_PACKS; p++) {
    const int c = (p * 32 + lane) * 8;
    h[p] = {};
    if (c < pitch) h[p] = kp_load(n.h + r * pitch + c);
  }
  if (n.layer) {
#pragma unroll
    for (int p = 0; p < NORM_PACKS; p++)
#pragma unroll
      for (int k = 0; k < 8; k++) mean += kp_to_float(h[p].value[k]);
    mean = kp_warp_sum(mean) / (float)n.channels;
  }
#pragma unroll
  for (int p = 0; p < NORM_PACKS; p++)
#pragma unroll
    for (int k = 0; k < 8; k++) {
      const float z = (p * 32 + lane) * 8 + k < n.channels ? kp_to_float(h[p].value[k]) - mean : 0.0f;
      squares += z * z;
    }
  const float scale = 1 / sqrtf(kp_warp_sum(squares) / (float)n.channels + n.epsilon);
  const bool writes = blockIdx.x == 0;
  if (writes && lane == 0) n.statistics[r] = make_float2(mean, scale);
  if (writes && lane == 0 && r == 0) *n.events = 0;
#pragma unroll
  for (int p = 0; p < NORM_PACKS; p++) {
    const int c = (p * 32 + lane) * 8;
    if (c >= pitch) continue;
    kp_pack<kp_half> y;
#pragma unroll
    for (int k = 0; k < 8; k++)
      y.value[k] = __float2bfloat16_rn((kp_to_float(h[p].value[k]) - mean) * scale * gains->weight[c + k] +
                                       gains->bias[c + k]);
    kp_store(to + c, y);
    if (writes) kp_store(n.y + r * pitch + c, y);
    if (writes && n.y_again != NULL) kp_store(n.y_again + r * pitch + c, y);
  }
}

/* ---- the kernel ---- */

/* The map's input to shared memory: one wait for all of it. */
__device__ static void copy_rows(const kp_few_rows &f, kp_half *to) {
  const int packs = (int)(f.depth / 8), all = (int)f.rows * packs;
#pragma unroll 2
  for (int i = threadIdx.x; i < all; i += blockDim.x) {
    const int r = i / packs, c = (i - r * packs) * 8;
    kp_store(to + r * (f.x_pitch + ROW_GAP) + c, kp_load((const kp_half *)f.x + r * f.x_pitch + c));
  }
}

/* The thread's 16 bytes of x at column k, and 32 columns on. */
__device__ static inline void read_x(const kp_few_rows &f, const kp_half *x, int k, bool present,
                                     uint4 (&to)[2]) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    to[i] = make_uint4(0, 0, 0, 0);
    if (present && k + 32 * i < f.depth) to[i] = *(const uint4 *)(x + k + 32 * i);
  }
}

/* The element of y that a thread writes of a block's columns, and what is added to it. */
struct few_element {
  int row, column, at;
  bool writes, inside;
  float term, stream;

  /* Of the columns from `first` on; biases are parameters. */
  template <int OUTPUTS> __device__ void place(const kp_few_rows &f, int first) {
    row = threadIdx.x / OUTPUTS;
    column = first + threadIdx.x % OUTPUTS;
    at = row * (int)f.y_pitch + column;
    writes = row < f.rows && column < f.y_pitch;
    inside = column < f.columns;
    term = writes && inside && f.terms.bias.at != NULL ? f.terms.bias[column] : 0.0f;
  }

  __device__ void read_stream(const kp_few_end &end) {
    stream = writes && end.residual != NULL ? kp_to_float(end.stream[at]) : 0.0f;
  }
};

/* What a warp and its lanes take of a matrix: rows of 16 outputs, the warp's steps of the depth. */
template <bool HIGH, int HELD> struct few_matrix {
  static constexpr int OUTPUTS = HIGH ? TILE : TILE / 2;
  const kp_few_rows &f;
  few_step<HIGH> held[HELD];
  const kp_half *w;
  bool is_low, is_high;

  __device__ void load(int i, int k) { held[i].load(w, 8 * f.w_pitch, k, f.depth, is_low, is_high); }

  /* The first steps of the columns from `first` on. */
  __device__ void begin(int first) {
    const int row = threadIdx.x % 32 / 4, part = threadIdx.x % 4 * 8;
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    w = (const kp_half *)f.w + (int64_t)(first + row) * f.w_pitch;
    is_low = first + row < f.columns, is_high = first + row + 8 < f.columns;
#pragma unroll
    for (int i = 0; i < HELD; i++) load(i, (warp + i * warps) * STEP + part);
  }

  /* The products of all steps with the rows at x, this lane's. */
  __device__ few_sums multiply(const kp_half *x, bool present) {
    const int part = threadIdx.x % 4 * 8, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    few_sums sum;
    uint4 some[HELD][2];
#pragma unroll
    for (int i = 0; i < HELD; i++) read_x(f, x, (warp + i * warps) * STEP + part, present, some[i]);
#pragma unroll
    for (int i = 0; i < HELD; i++) held[i].multiply(sum, some[i]);
    for (int k = (warp + HELD * warps) * STEP + part; k - part < f.depth; k += warps * STEP) {
      load(0, k);
      read_x(f, x, k, present, some[0]);
      held[0].multiply(sum, some[0]);
    }
    return sum;
  }
};

/* Where a warp has one step only, blocks go from tile to tile of columns, if there are many, with the next
 * one's matrix on its way. */
template <bool NORM, bool HIGH, int HELD>
static __global__ void __launch_bounds__(32 * MOST_WARPS, HIGH &&HELD > 2 ? 1 : 2)
    few_kernel(const __grid_constant__ kp_few_linear few) {
  constexpr int OUTPUTS = HIGH ? TILE : TILE / 2;
  __shared__ float sums[2][MOST_WARPS][OUTPUTS][KP_FEW_ROWS];
  __shared__ few_gains gains;                     /* with a norm */
  extern __shared__ __align__(16) kp_half rows[]; /* (N, pitch + ROW_GAP), where they fit */
  const kp_few_rows &f = few.map;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, row = lane / 4;
  const int stride = (int)gridDim.x * OUTPUTS;
  int first = (int)blockIdx.x * OUTPUTS;
  few_matrix<HIGH, HELD> matrix = {f};
  few_element own;
  matrix.begin(first);
  kp_let_next_begin();
  own.template place<OUTPUTS>(f, first);
  if (NORM) load_gains(few.norm, &gains, (int)f.x_pitch);
  if (NORM) __syncthreads();
  kp_wait_for_previous();
  own.read_stream(few.end);
  if (NORM)
    for (int r = warp; r < f.rows; r += warps)
      normalise_row(few.norm, &gains, f.x_pitch, r, rows + r * (f.x_pitch + ROW_GAP));
  else if (few.staged)
    copy_rows(f, rows);
  __syncthreads();
  const kp_half *x = (const kp_half *)f.x + row * f.x_pitch;
  if (NORM || few.staged) x = rows + row * (f.x_pitch + ROW_GAP);
  for (int turn = 0; first < f.y_pitch; turn ^= 1) {
    const few_sums sum = matrix.multiply(x, row < f.rows);
    const few_element element = own;
    const int column = own.column - first;
    first += stride;
    if (HELD == 1) matrix.begin(first);
    if (HELD == 1 && first < f.y_pitch) own.template place<OUTPUTS>(f, first), own.read_stream(few.end);
    const int n = lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      sums[turn][warp][row][n + i] = sum.even[i] + sum.odd[i];
      if (HIGH) sums[turn][warp][row + (HIGH ? 8 : 0)][n + i] = sum.even[2 + i] + sum.odd[2 + i];
    }
    __syncthreads();
    if (!element.writes && HELD > 1) break;
    if (!element.writes) continue;
    float total = 0;
#pragma unroll
    for (int s = 0; s < MOST_WARPS; s++)
      if (s < warps) total += sums[turn][s][column][element.row];
    if (f.terms.groups == 0)
      total += element.term;
    else if (element.inside)
      total += kp_linear_term(f.terms, element.row, element.column);
    kp_few_finish(few, element.at, element.inside, total, element.stream);
    if (HELD > 1) break;
  }
}

/* ---- launching ---- */

template <bool NORM, bool HIGH, int HELD>
static kp_status launch(const kp_call *call, const kp_few_linear *given, int warps, kp_error *error) {
  kp_few_linear few = *given;
  const kp_few_rows &f = few.map;
  const size_t bytes = (size_t)(f.rows * (f.x_pitch + ROW_GAP)) * sizeof(kp_half);
  few.staged = bytes <= MOST_ROW_BYTES;
  kp_early_launch l = {};
  const int tiles = kp_blocks(f.y_pitch, HIGH ? TILE : TILE / 2), most = 2 * kp_cuda_of(call)->processors;
  l.grid = dim3((unsigned)(HELD == 1 && tiles > 2 * most ? most : tiles));
  l.block = dim3(32 * (unsigned)warps);
  l.shared = few.staged ? bytes : 0;
  l.early = few.early;
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(few_kernel<NORM, HIGH, HELD>,
                                            cudaFuncAttributeMaxDynamicSharedMemorySize, MOST_ROW_BYTES),
                       "a linear map", error));
  return kp_launch_early(kp_cuda_of(call), call->node->row->name, l, few_kernel<NORM, HIGH, HELD>, error,
                         few);
}

template <bool NORM, bool HIGH>
static kp_status choose(const kp_call *call, const kp_few_linear *few, kp_error *error) {
  /* So many warps that they have equally many steps. */
  const int64_t steps = (few->map.depth + STEP - 1) / STEP, turns = (steps + MOST_WARPS - 1) / MOST_WARPS;
  int warps = (int)((steps + turns - 1) / turns);
  if (warps < LEAST_WARPS) warps = LEAST_WARPS;
  if (NORM || turns == 1) return launch<NORM, HIGH, 1>(call, few, warps, error);
  if (turns == 2) return launch < NORM, HIGH, NORM ? 1 : 2 > (call, few, warps, error);
  if (turns == 3) return launch < NORM, HIGH, NORM ? 1 : 3 > (call, few, warps, error);
  return launch < NORM, HIGH, NORM ? 1 : MOST_HELD > (call, few, warps, error);
}

kp_status kp_linear_few_half(const kp_call *call, const kp_few_linear *few, kp_error *error) {
  const bool norm = few->norm.h != NULL, high = few->map.y_pitch >= TILE * kp_cuda_of(call)->processors;
  if (high) return norm ? choose<true, true>(call, few, error) : choose<false, true>(call, few, error);
  return norm ? choose<true, false>(call, few, error) : choose<false, false>(call, few, error);
}
