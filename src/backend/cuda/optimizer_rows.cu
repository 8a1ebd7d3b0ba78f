/* Rows of unit length: AdamW and the way back to the sphere in one pass over memory, 34 bytes an element.
 *
 * A warp has a row, or the block where it is long.  A row's new values wait in shared memory for their norm;
 * where they do not fit, in their own place.  Sums are in double. */
#include "backend/cuda/optimizer.cuh"

enum { THREADS = 256, WARPS = THREADS / 32, MOST_HELD = 24576 };

static __device__ bool is_long(const kp_row_block &block) {
  return block.columns > KP_LONG_ROW;
}

/* Where thread `lane` of the team keeps element c of its row: the slots are each thread's own. */
struct row_place {
  int64_t at;  /* in the flat buffers */
  float *held; /* its new values */
};

static __device__ row_place place_of(const kp_flat &flat, const kp_row_block &block, const kp_team &team,
                                     int row, float *shared) {
  const int64_t at = block.at + (int64_t)row * block.pitch;
  const int room = (block.columns + 3) / 4 * 4;
  return row_place{at, room <= MOST_HELD ? shared + team.index * room : flat.values + at};
}

/* ⟨w, g⟩ for the tangent part g - w⟨w, g⟩ of the gradient. */
template <int W>
static __device__ double along(const kp_flat &flat, int64_t at, int columns, const kp_team &team,
                               double *shared) {
  double sum = 0;
  for (int c = team.lane * W; c < columns; c += team.size * W) {
    const kp_span<W> w = kp_take<W>(flat.values + at + c), g = kp_take<W>(flat.gradients + at + c);
#pragma unroll
    for (int i = 0; i < W; i++) sum += (double)w.at[i] * g.at[i];
  }
  return kp_team_sum(team, sum, shared);
}

template <int W> static __device__ void subtract(kp_span<W> &from, double factor, const kp_span<W> &what) {
#pragma unroll
  for (int i = 0; i < W; i++) from.at[i] = (float)(from.at[i] - factor * what.at[i]);
}

template <int W>
static __device__ void scale_row(const kp_flat &flat, const row_place &place, int columns,
                                 const kp_team &team, double factor) {
  for (int c = team.lane * W; c < columns; c += team.size * W) {
    kp_span<W> value = kp_take<W>(place.held + c);
#pragma unroll
    for (int i = 0; i < W; i++) value.at[i] = (float)(value.at[i] * factor);
    kp_put_values<W>(flat, place.at + c, value);
  }
}

template <int W> static __device__ double square_sum(const kp_span<W> &span) {
  double sum = 0;
#pragma unroll
  for (int i = 0; i < W; i++) sum += (double)span.at[i] * span.at[i];
  return sum;
}

template <int W>
static __device__ void step_row(const kp_flat &flat, const row_place &place, int columns, const kp_team &team,
                                const kp_adamw_numbers &f, bool tangent, double *shared) {
  const double w_g = tangent ? along<W>(flat, place.at, columns, team, shared) : 0;
  double square = 0;
#pragma unroll 2
  for (int c = team.lane * W; c < columns; c += team.size * W) {
    const int64_t at = place.at + c;
    const kp_span<W> value = kp_take<W>(flat.values + at);
    kp_span<W> gradient = kp_take<W>(flat.gradients + at);
    kp_span<W> mean = kp_take<W>(flat.moment1 + at), variance = kp_take<W>(flat.moment2 + at);
    if (tangent) subtract<W>(gradient, w_g, value);
    const kp_span<W> next = kp_adamw<W>(f, value, gradient, mean, variance);
    square += square_sum<W>(next);
    kp_put<W>(place.held + c, next);
    kp_put<W>(flat.moment1 + at, mean);
    kp_put<W>(flat.moment2 + at, variance);
    kp_clear<W>(flat.gradients + at);
  }
  scale_row<W>(flat, place, columns, team, kp_to_unit(kp_team_sum(team, square, shared)));
}

static __device__ void clear_rows(const kp_flat &flat, const kp_row_block &block) {
  const int64_t count = (int64_t)block.rows * block.pitch;
  for (int64_t i = threadIdx.x; i < count; i += THREADS) flat.gradients[block.at + i] = 0;
}

static __global__ void __launch_bounds__(THREADS)
    unit_rows_kernel(kp_flat flat, const kp_row_block *blocks, const kp_optimizer_state *state,
                     const kp_adamw_numbers *table, bool tangent) {
  extern __shared__ __align__(16) float held[];
  __shared__ double shared[32];
  const kp_row_block block = blocks[blockIdx.x];
  const kp_adamw_numbers numbers = table[block.numbers];
  const kp_team team = kp_team_of(is_long(block));
  if (!state->take) {
    clear_rows(flat, block);
    return;
  }
  for (int row = team.index; row < block.rows; row += team.count) {
    const row_place place = place_of(flat, block, team, row, held);
    if (block.pitch % 4 == 0)
      step_row<4>(flat, place, block.columns, team, numbers, tangent, shared);
    else
      step_row<1>(flat, place, block.columns, team, numbers, tangent, shared);
  }
}

/* Bytes of shared memory for the rows that a block has at a time. */
static size_t held_bytes(const std::vector<kp_row_block> &blocks) {
  size_t most = 0;
  for (const kp_row_block &block : blocks) {
    const size_t room = (size_t)(block.columns + 3) / 4 * 4;
    const size_t floats = room > MOST_HELD ? 0 : block.columns > KP_LONG_ROW ? room : room * WARPS;
    if (floats > most) most = floats;
  }
  return most * sizeof(float);
}

kp_status kp_optimizer_submit_unit_rows(kp_cuda_optimizer *o, const kp_unit_vectors *units, kp_error *error) {
  const size_t bytes = held_bytes(units->rows.host);
  if (units->rows.count() == 0) return KP_OK;
  KP_TRY(kp_cuda_check(
      cudaFuncSetAttribute(unit_rows_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
      "the optimizer's shared memory", error));
  unit_rows_kernel<<<units->rows.count(), THREADS, bytes, o->cuda->stream>>>(
      o->flat, units->rows.at, o->state, o->numbers, o->options.tangent);
  return kp_optimizer_launched(error);
}

/* ---- around a step of Muon ---- */

template <int W>
static __device__ void make_row_tangent(const kp_flat &flat, int64_t at, int columns, const kp_team &team,
                                        double *shared) {
  const double w_g = along<W>(flat, at, columns, team, shared);
  for (int c = team.lane * W; c < columns; c += team.size * W) {
    kp_span<W> gradient = kp_take<W>(flat.gradients + at + c);
    subtract<W>(gradient, w_g, kp_take<W>(flat.values + at + c));
    kp_put<W>(flat.gradients + at + c, gradient);
  }
}

template <int W>
static __device__ void retract_row(const kp_flat &flat, int64_t at, int columns, const kp_team &team,
                                   double *shared) {
  double square = 0;
  for (int c = team.lane * W; c < columns; c += team.size * W)
    square += square_sum<W>(kp_take<W>(flat.values + at + c));
  const double factor = kp_to_unit(kp_team_sum(team, square, shared));
  scale_row<W>(flat, row_place{at, flat.values + at}, columns, team, factor);
}

static __global__ void __launch_bounds__(THREADS)
    rows_kernel(kp_flat flat, const kp_row_block *blocks, const kp_optimizer_state *state, bool tangent) {
  __shared__ double shared[32];
  const kp_row_block block = blocks[blockIdx.x];
  const kp_team team = kp_team_of(is_long(block));
  if (!state->take) return;
  for (int row = team.index; row < block.rows; row += team.count) {
    const int64_t at = block.at + (int64_t)row * block.pitch;
    if (tangent && block.pitch % 4 == 0)
      make_row_tangent<4>(flat, at, block.columns, team, shared);
    else if (tangent)
      make_row_tangent<1>(flat, at, block.columns, team, shared);
    else if (block.pitch % 4 == 0)
      retract_row<4>(flat, at, block.columns, team, shared);
    else
      retract_row<1>(flat, at, block.columns, team, shared);
  }
}

kp_status kp_optimizer_submit_rows(kp_cuda_optimizer *o, const kp_unit_vectors *units, bool tangent,
                                   kp_error *error) {
  if (units->rows.count() == 0) return KP_OK;
  rows_kernel<<<units->rows.count(), THREADS, 0, o->cuda->stream>>>(o->flat, units->rows.at, o->state,
                                                                    tangent);
  return kp_optimizer_launched(error);
}
