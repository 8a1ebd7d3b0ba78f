/* Unit vectors by group of channels, with a gain, turned before where there are positions.
 *
 * A group is a head's channels, or what is left of a row behind the heads, which is copied.  A team of
 * `lanes` neighbouring threads, a power of two up to a warp, has a group of its own and takes row after row:
 * its gains and the sums of their gradient stay in registers (HELD chunks a thread), or, with HELD 0, in
 * memory.  A block has `groups` groups of `lines` rows. */
#define KP_GEOMETRY_FLOAT 1
#include <type_traits>

#include "backend/cuda/columns.cuh"
#include "backend/cuda/head_turns.cuh"
#include "backend/cuda/row_chunks.cuh"
#include "geometry/sphere.h"

/* Small blocks, for what they need are registers. */
enum { MOST_THREADS = 128 };

struct kp_head_plan {
  int64_t rows, pitch;
  int row_chunks;                            /* of a whole row, padding included */
  int heads, D;                              /* groups that are normalised, and their channels */
  int chunks;                                /* of a group */
  int all_groups;                            /* with those that are copied */
  int lanes, lines, groups, threads, blocks; /* blocks along the rows */
  int gains;                                 /* G */
  kp_vector gain;                            /* (G · D) */
  float factor;
  bool wide, half;
  kp_head_turns turns;
};

static int held_chunks(const kp_head_plan &p) {
  return !p.wide || p.chunks > 256 ? 0 : p.chunks <= 32 ? 1 : p.chunks <= 128 ? 4 : p.half ? 0 : 8;
}

/* In place, the rest of the rows stays as it is, and only heads have teams. */
static kp_head_plan plan_of(const kp_call *call, bool inplace, bool turned) {
  const kp_head_norm_arguments *a = (const kp_head_norm_arguments *)call->node->arguments;
  const kp_row_plan rows = kp_row_plan_of(call, call->node->input[0]);
  const kp_tensor *gain = call->node->input[1];
  const int size = rows.half ? 8 : 4;
  const bool whole = a->heads == 1 && a->head_size == rows.C;
  kp_head_plan p = {};
  p.rows = rows.rows, p.pitch = rows.pitch, p.half = rows.half;
  p.heads = a->heads, p.D = a->head_size, p.factor = (float)a->factor;
  p.wide = rows.wide && (whole || p.D % size == 0);
  const int W = p.wide ? size : turned ? 2 : 1;
  p.row_chunks = (int)(p.pitch / W);
  p.chunks = whole ? p.row_chunks : p.D / W;
  p.all_groups = inplace ? p.heads : (p.row_chunks + p.chunks - 1) / p.chunks;
  p.gains = gain == NULL ? 1 : (int)(kp_tensor_count(gain) / p.D);
  p.gain = kp_vector_of(call->input[1], 1);
  for (p.lanes = 1; p.lanes < 32 && p.lanes < p.chunks;) p.lanes *= 2;
  const int most = MOST_THREADS / p.lanes;
  const int ranges = (p.all_groups + most - 1) / most;
  p.groups = (p.all_groups + ranges - 1) / ranges;
  p.lines = held_chunks(p) == 0 ? 1 : MOST_THREADS / (p.groups * p.lanes);
  if (p.lines < 1) p.lines = 1;
  p.threads = (p.groups * p.lanes * p.lines + 31) / 32 * 32;
  return p;
}

/* A thread's group, its chunks of it, and its rows. */
template <int W> struct kp_head_place {
  int group, first, count, line, lane; /* chunks of the row: first + lane, … */
  int C;                               /* channels of the group, without a whole row's padding */
  int64_t row, stride;
  bool there, unit; /* unit: a head */
  __device__ explicit kp_head_place(const kp_head_plan &p) {
    const int team = (int)threadIdx.x / p.lanes;
    line = team / p.groups;
    group = (int)blockIdx.y * p.groups + team % p.groups, lane = (int)threadIdx.x % p.lanes;
    first = group * p.chunks;
    const int left = p.row_chunks - first;
    count = left < p.chunks ? left : p.chunks;
    row = (int64_t)blockIdx.x * p.lines + line, stride = (int64_t)gridDim.x * p.lines;
    there = line < p.lines && group < p.all_groups;
    unit = group < p.heads;
    C = unit ? p.D : count * W;
  }
};

/* A thread's chunks of its group in one row after the other.  A single one is fetched a row ahead; several
 * are on their way at once anyway; with HELD 0 they are read for every pass. */
template <typename T, int W, int HELD> struct kp_head_chunks {
  static constexpr int COUNT = HELD > 0 ? HELD : 1;
  /* As words, so that a load that may be left out is nothing but a load, which nobody waits for. */
  using raw = std::conditional_t<W * sizeof(T) == sizeof(uint4), uint4, kp_row_chunk<T, W>>;
  raw now[COUNT], next[COUNT];
  const T *at; /* of the row that comes next; with HELD 0 of this row */
  int64_t advance_by;
  int lane, lanes, count;
  bool wanted;

  __device__ kp_head_chunks(const kp_head_plan &p, const kp_head_place<W> &place, const T *tensor,
                            bool its_wanted)
      : at(tensor + place.row * p.pitch + (int64_t)(place.first + place.lane) * W),
        advance_by(place.stride * p.pitch), lane(place.lane), lanes(p.lanes), count(place.count),
        wanted(its_wanted && place.there) {
    if constexpr (HELD == 1) fetch(next, place.row < p.rows);
    if constexpr (HELD == 0) at -= advance_by;
  }
  __device__ raw read(int j, bool there) const {
    raw chunk = {};
    if (there && wanted && j * lanes + lane < count) chunk = *(const raw *)(at + j * lanes * W);
    return chunk;
  }
  __device__ void fetch(raw (&to)[COUNT], bool there) {
#pragma unroll
    for (int j = 0; j < HELD; j++) to[j] = read(j, there);
    at += advance_by;
  }
  /* To row n; `more`: whether there is one behind it. */
  __device__ void advance(bool there, bool more) {
    if constexpr (HELD == 1) {
      now[0] = next[0];
      fetch(next, more);
    } else {
      fetch(now, there);
    }
  }
  __device__ void get(int j, float (&value)[W]) const {
    const raw words = HELD > 0 ? now[HELD > 0 ? j : 0] : read(j, true);
    const kp_row_chunk<T, W> &chunk = (const kp_row_chunk<T, W> &)words;
#pragma unroll
    for (int e = 0; e < W; e++) value[e] = kp_to_float(chunk.value[e]);
  }
};

/* A thread's gains, times the factor of all; ones where a group is copied. */
template <int W, int HELD> struct kp_head_gains {
  float held[HELD > 0 ? HELD : 1][W];

  __device__ kp_head_gains(const kp_head_plan &p, const kp_head_place<W> &at) {
#pragma unroll
    for (int j = 0; j < HELD; j++) read(p, at, j, held[j]);
  }
  __device__ static void read(const kp_head_plan &p, const kp_head_place<W> &at, int j, float (&gain)[W]) {
    const int64_t offset = (int64_t)(at.group % p.gains) * p.D;
    kp_get_columns<W>(p.gain, offset + (int64_t)(j * p.lanes + at.lane) * W, offset + p.D, gain);
#pragma unroll
    for (int e = 0; e < W; e++) gain[e] = at.unit ? p.factor * gain[e] : 1;
  }
  __device__ void get(const kp_head_plan &p, const kp_head_place<W> &at, int j, float (&gain)[W]) const {
    if constexpr (HELD > 0) {
#pragma unroll
      for (int e = 0; e < W; e++) gain[e] = held[j][e];
    } else {
      read(p, at, j, gain);
    }
  }
};

/* Sums of M numbers over a team. */
template <int M> __device__ static void team_sums(float (&x)[M], int lanes) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    if (offset >= lanes) continue;
#pragma unroll
    for (int i = 0; i < M; i++) x[i] += __shfl_xor_sync(0xffffffffu, x[i], offset);
  }
}

/* Bytes: x read and written, 2 · N · width · size, without what is copied when it is in place: bound by
 * memory.  Turning adds 4 · N · D. */
template <typename T, int W, int HELD>
__global__ void __launch_bounds__(MOST_THREADS)
    kp_head_norm_kernel(const kp_head_plan p, const T *x, T *out) {
  const kp_head_place<W> at(p);
  const int steps = HELD > 0 ? HELD : (p.chunks + p.lanes - 1) / p.lanes;
  const kp_head_gains<W, HELD> gains(p, at);
  kp_head_chunks<T, W, HELD> xs(p, at, x, true);
  T *to = out + at.row * p.pitch + (int64_t)at.first * W;
  for (int64_t n = at.row; n < p.rows + at.line; n += at.stride, to += at.stride * p.pitch) {
    float value[W], square[1] = {0};
    kp_head_turn<W> turn;
    const auto take = [&](int j) {
      xs.get(j, value);
      turn.fetch(p.turns, at.unit, n, (j * p.lanes + at.lane) * W);
      turn.apply(p.turns, false, value);
    };
    xs.advance(n < p.rows, n + at.stride < p.rows);
#pragma unroll
    for (int j = 0; j < steps; j++) {
      take(j);
#pragma unroll
      for (int e = 0; e < W; e++) square[0] += value[e] * value[e];
    }
    team_sums(square, p.lanes);
    const float inverse = at.unit ? kp_sphere_inverse_length(square[0]) : 1;
    if (!at.there || n >= p.rows) continue;
#pragma unroll
    for (int j = 0; j < steps; j++) {
      const int chunk = j * p.lanes + at.lane;
      float gain[W];
      if (chunk >= at.count) continue;
      if (HELD != 1) take(j); /* a single chunk still is there */
      gains.get(p, at, j, gain);
#pragma unroll
      for (int e = 0; e < W; e++) value[e] *= inverse * gain[e];
      kp_put_chunk<T, W>(to, chunk * W, at.C, value);
    }
  }
}

/* ---- backward: with n = x/|x|, n̄ = factor · gain · g, x̄ = (n̄ - n <n, n̄>)/|x| ---- */

/* Parts of the gain's gradient: a row of `pitch` numbers for every block along the rows, heads side by side,
 * so that, cut into pieces of G · D, it is a matrix whose columns are to be summed. */
struct kp_head_parts {
  float *at; /* NULL: not wanted */
  int64_t pitch;
};

/* The sums of a thread's channels. */
template <int W, int HELD> struct kp_gain_sums {
  float held[HELD > 0 ? HELD : 1][W];
  float *part; /* of this block and group; NULL: not wanted, or not a head */

  __device__ kp_gain_sums(const kp_head_plan &p, const kp_head_place<W> &at, const kp_head_parts &parts) {
    part = parts.at == NULL || !at.there || !at.unit
               ? NULL
               : parts.at + blockIdx.x * parts.pitch + (int64_t)at.group * p.D;
    for (int j = 0; j < (HELD > 0 ? HELD : 1); j++)
      for (int e = 0; e < W; e++) held[j][e] = 0;
    if constexpr (HELD == 0) {
      if (part == NULL) return;
      for (int i = at.lane * W; i < p.D; i += p.lanes * W)
        for (int e = 0; e < W && i + e < p.D; e++) part[i + e] = 0;
    }
  }
  __device__ void add(const kp_head_plan &p, int step, int chunk, const float (&value)[W]) {
    if constexpr (HELD > 0) {
#pragma unroll
      for (int e = 0; e < W; e++) held[step][e] += value[e];
    } else if (part != NULL) {
      for (int e = 0; e < W && chunk * W + e < p.D; e++) part[chunk * W + e] += p.factor * value[e];
    }
  }
  /* The block's lines, one after the other, to the part. */
  __device__ void finish(const kp_head_plan &p, const kp_head_place<W> &at) {
    if constexpr (HELD > 0) {
      const int line = (int)threadIdx.x / p.lanes / p.groups;
      for (int turn = 0; turn < p.lines; turn++) {
        if (turn == line && part != NULL)
#pragma unroll
          for (int j = 0; j < HELD; j++)
#pragma unroll
            for (int e = 0; e < W; e++) {
              const int i = (j * p.lanes + at.lane) * W + e;
              if (i < p.D) part[i] = (turn == 0 ? 0 : part[i]) + p.factor * held[j][e];
            }
        __syncthreads();
      }
    }
  }
};

/* Bytes: x and g read, g x written, 3 · N · width · size, what is copied once less: bound by memory.  g x may
 * be g. */
template <typename T, int W, int HELD>
__global__ void __launch_bounds__(MOST_THREADS, HELD == 1 ? 6 : 1)
    kp_head_norm_backward_kernel(const kp_head_plan p, const T *x, const T *g, T *gx,
                                 const kp_head_parts parts) {
  const kp_head_place<W> at(p);
  const int steps = HELD > 0 ? HELD : (p.chunks + p.lanes - 1) / p.lanes;
  const kp_head_gains<W, HELD> gains(p, at);
  kp_gain_sums<W, HELD> bar(p, at, parts);
  kp_head_chunks<T, W, HELD> xs(p, at, x, at.unit), gs(p, at, g, true);
  T *to = gx + at.row * p.pitch + (int64_t)at.first * W;
  for (int64_t n = at.row; n < p.rows + at.line; n += at.stride, to += at.stride * p.pitch) {
    const bool there = n < p.rows, more = n + at.stride < p.rows;
    float value[W], slope[W], gain[W], sum[2] = {0, 0}; /* |x|², <x, n̄> */
    kp_head_turn<W> turn;
    const auto take = [&](int j) {
      xs.get(j, value), gs.get(j, slope), gains.get(p, at, j, gain);
      turn.fetch(p.turns, at.unit, n, (j * p.lanes + at.lane) * W);
      turn.apply(p.turns, false, value);
    };
    xs.advance(there, more), gs.advance(there, more);
#pragma unroll
    for (int j = 0; j < steps; j++) {
      take(j);
#pragma unroll
      for (int e = 0; e < W; e++) sum[0] += value[e] * value[e], sum[1] += value[e] * (gain[e] * slope[e]);
    }
    team_sums(sum, p.lanes);
    const float inverse = at.unit ? kp_sphere_inverse_length(sum[0]) : 1;
    const float common = inverse * (inverse * (inverse * sum[1])); /* zero where x is not read */
    if (!at.there || !there) continue;
#pragma unroll
    for (int j = 0; j < steps; j++) {
      const int chunk = j * p.lanes + at.lane;
      if (chunk >= at.count) continue;
      if (HELD != 1) take(j); /* a single chunk still is there */
#pragma unroll
      for (int e = 0; e < W; e++) {
        const float bar_here = inverse * slope[e];
        slope[e] = gain[e] * bar_here - value[e] * common;
        gain[e] = value[e] * bar_here;
      }
      bar.add(p, j, chunk, gain);
      turn.apply(p.turns, true, slope);
      kp_put_chunk<T, W>(to, chunk * W, at.C, slope);
    }
  }
  if (parts.at != NULL) bar.finish(p, at);
}

/* ---- launching ---- */

/* Blocks side by side over the groups; along the rows as many as then run at once, at most `most`. */
static dim3 grid_of(const kp_call *call, const void *kernel, const kp_head_plan &p, int64_t most) {
  const int64_t ranges = (p.all_groups + p.groups - 1) / p.groups, wanted = (p.rows + p.lines - 1) / p.lines;
  const int64_t resident = kp_resident_blocks(call, kernel, p.threads, 0, wanted * ranges, (int64_t)1 << 30);
  const int64_t blocks = (resident + ranges - 1) / ranges;
  return dim3((unsigned)(blocks < most ? blocks : most), (unsigned)ranges);
}

template <typename T, int W, int HELD> static void launch(const kp_call *call, const kp_head_plan &p) {
  const auto kernel = kp_head_norm_kernel<T, W, HELD>;
  const dim3 grid = grid_of(call, (const void *)kernel, p, (int64_t)1 << 30);
  kernel<<<grid, p.threads, 0, kp_cuda_of(call)->stream>>>(p, (const T *)call->input[0],
                                                           (T *)call->output[0]);
}

template <typename T, int W, int HELD>
static void launch_backward(const kp_call *call, kp_head_plan &p, const kp_head_parts &parts) {
  const auto kernel = kp_head_norm_backward_kernel<T, W, HELD>;
  const dim3 grid = grid_of(call, (const void *)kernel, p, kp_column_parts(parts.pitch));
  p.blocks = (int)grid.x;
  kernel<<<grid, p.threads, 0, kp_cuda_of(call)->stream>>>(
      p, (const T *)call->input[0], (const T *)call->input[2], (T *)call->output[0], parts);
}

extern "C" size_t kp_cuda_scratch_head_norm(const kp_node *node, int threads) {
  (void)threads;
  return kp_head_turns_bytes(&((const kp_head_norm_arguments *)node->arguments)->rotary, node->input[2]);
}

extern "C" kp_status kp_cuda_head_norm(const kp_call *call, kp_error *error) {
  kp_head_plan p = plan_of(call, call->input[0] == call->output[0], call->input[2] != NULL);
  const kp_row_plan rows = kp_row_plan_of(call, call->node->input[0]);
  if (!kp_row_fits(call, rows, call->node->output[0]) || kp_tensor_is_half(call, call->node->input[1]))
    return kp_row_misfit(call, error);
  const int held = held_chunks(p);
  p.turns = kp_head_turns_of(call, &((const kp_head_norm_arguments *)call->node->arguments)->rotary,
                             call->input[2], p.rows, call->scratch);
  if (p.half && held == 1)
    launch<kp_half, 8, 1>(call, p);
  else if (p.half && held == 4)
    launch<kp_half, 8, 4>(call, p);
  else if (p.half && p.wide)
    launch<kp_half, 8, 0>(call, p);
  else if (p.half && p.turns.at != NULL)
    launch<kp_half, 2, 0>(call, p);
  else if (p.half)
    launch<kp_half, 1, 0>(call, p);
  else if (held == 1)
    launch<float, 4, 1>(call, p);
  else if (held == 4)
    launch<float, 4, 4>(call, p);
  else if (held == 8)
    launch<float, 4, 8>(call, p);
  else if (p.wide)
    launch<float, 4, 0>(call, p);
  else if (p.turns.at != NULL)
    launch<float, 2, 0>(call, p);
  else
    launch<float, 1, 0>(call, p);
  return kp_launched(call, error);
}

/* Heads of a part, rounded up to whole rounds of the gains. */
static int64_t part_pitch(int64_t heads, int64_t gains, int64_t D) {
  return (heads + gains - 1) / gains * gains * D;
}

/* Of the parts, a multiple of 16. */
static size_t parts_bytes(const kp_node *node) {
  const kp_head_norm_arguments *a = (const kp_head_norm_arguments *)node->arguments;
  if (node->output[1] == NULL) return 0;
  const int64_t gains = kp_tensor_count(node->output[1]) / a->head_size;
  const int64_t pitch = part_pitch(a->heads, gains, a->head_size);
  return ((size_t)(kp_column_parts(pitch) * pitch) * sizeof(float) + 15) / 16 * 16;
}

extern "C" size_t kp_cuda_scratch_head_norm_backward(const kp_node *node, int threads) {
  (void)threads;
  return parts_bytes(node) +
         kp_head_turns_bytes(&((const kp_head_norm_arguments *)node->arguments)->rotary, node->input[3]);
}

extern "C" kp_status kp_cuda_head_norm_backward(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  kp_head_plan p = plan_of(call, call->input[2] == call->output[0], call->input[3] != NULL);
  const kp_row_plan rows = kp_row_plan_of(call, node->input[0]);
  if (!kp_row_fits(call, rows, node->input[2]) || !kp_row_fits(call, rows, node->output[0]) ||
      kp_tensor_is_half(call, node->input[1]))
    return kp_row_misfit(call, error);
  const int held = held_chunks(p);
  const kp_head_parts parts = {node->output[1] == NULL ? NULL : (float *)call->scratch,
                               part_pitch(p.heads, p.gains, p.D)};
  if (parts.at != NULL && parts.pitch > (int64_t)p.heads * p.D)
    KP_TRY(kp_cuda_check(cudaMemsetAsync(parts.at, 0,
                                         (size_t)(kp_column_parts(parts.pitch) * parts.pitch) * sizeof(float),
                                         kp_cuda_of(call)->stream),
                         "head_norm", error));
  p.turns = kp_head_turns_of(call, &((const kp_head_norm_arguments *)node->arguments)->rotary, call->input[3],
                             p.rows, (char *)call->scratch + parts_bytes(node));
  if (p.half && held == 1)
    launch_backward<kp_half, 8, 1>(call, p, parts);
  else if (p.half && held == 4)
    launch_backward<kp_half, 8, 4>(call, p, parts);
  else if (p.half && p.wide)
    launch_backward<kp_half, 8, 0>(call, p, parts);
  else if (p.half && p.turns.at != NULL)
    launch_backward<kp_half, 2, 0>(call, p, parts);
  else if (p.half)
    launch_backward<kp_half, 1, 0>(call, p, parts);
  else if (held == 1)
    launch_backward<float, 4, 1>(call, p, parts);
  else if (held == 4)
    launch_backward<float, 4, 4>(call, p, parts);
  else if (held == 8)
    launch_backward<float, 4, 8>(call, p, parts);
  else if (p.wide)
    launch_backward<float, 4, 0>(call, p, parts);
  else if (p.turns.at != NULL)
    launch_backward<float, 2, 0>(call, p, parts);
  else
    launch_backward<float, 1, 0>(call, p, parts);
  KP_TRY(kp_launched(call, error));
  const int64_t columns = (int64_t)p.gains * p.D;
  const kp_column_sums sums = {
      parts.at, p.blocks * (parts.pitch / columns), columns, {{0, columns, (float *)call->output[1]}}};
  return kp_add_columns(call, &sums, columns, error);
}
