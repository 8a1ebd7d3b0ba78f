/* What the files of the optimizer share: its state in device memory, the tables by which work is cut, and
 * what a kernel does with a few neighbouring numbers.
 *
 * Everything that changes from step to step is in the state: kernels are submitted with the same arguments
 * every time, so that a step can be recorded.  Every kernel asks the state whether the step is taken; one
 * that is not only sets gradients to zero.
 *
 * Pads of rows are zero in all buffers, and a step leaves them so: their gradients and moments are zero.  So
 * whatever starts at a multiple of four elements is worked on by fours, pads and gaps included. */
#ifndef KAPPA_BACKEND_CUDA_OPTIMIZER_CUH
#define KAPPA_BACKEND_CUDA_OPTIMIZER_CUH

#include <vector>

#include "backend/cuda/kernel.cuh"

extern "C" {
#include "optim/driver.h"
}

/* ---- device memory ---- */

/* The parameters' flat buffers; `working` may be NULL. */
struct kp_flat {
  float *values, *gradients, *moment1, *moment2;
  kp_half *working;
  bool stochastic; /* how `working` is rounded */
};

/* One AdamW step in the form the passes need it; optim/adamw.h has the mathematics. */
struct kp_adamw_numbers {
  float gradient_scale, keep;
  float new_mean, new_square, old_square; /* 1 - β₁, 1 - β₂, β₂ */
  float step;                             /* learning rate / (1 - β₁ᵗ) */
  float inverse_root_correction;          /* 1 / √(1 - β₂ᵗ) */
  float epsilon;
  int active; /* 0: a slice without a gradient, which stays as it is */
};

struct kp_optimizer_state {
  double rate_factor, clip; /* the host's part */
  double loss;              /* of the micro-batches so far */
  kp_step_outcome outcome;
  int take;
  double gradient_scale;
  kp_adamw_step group[KP_GROUP_COUNT];
};

/* ---- tables of work, made once ---- */

/* Neighbouring elements that share their numbers: those of a group, or, behind the groups, those of a slice.
 */
struct kp_chunk {
  int64_t at;
  int count, numbers;
};
enum { KP_CHUNK = 1024 }; /* one span a thread: measured best */

/* A slice of a stack that takes part in a step only where it has a gradient (kp_parameter.counter). */
struct kp_slice {
  int64_t at, count, counter;
  int group;
  bool counts; /* it is by its gradient that its counter counts */
};

/* Rows of one parameter; long ones are a block's, others a warp's. */
struct kp_row_block {
  int64_t at;
  int rows, columns, pitch, numbers;
};
enum { KP_LONG_ROW = 1024 };

/* A part of a matrix whose columns have unit length, at most KP_TILE_ROWS by KP_TILE_COLUMNS; its group has
 * all tiles of the same columns, one after the other. */
struct kp_column_tile {
  int64_t at;
  int rows, columns, pitch, numbers, group;
};
struct kp_column_group {
  int first, tiles;
};
enum { KP_TILE_ROWS = 128, KP_TILE_COLUMNS = 128, KP_HELD_COLUMNS = 32 };

/* A table of points. */
struct kp_points {
  int64_t at, rows;
  int columns, pitch, group;
  bool lorentz;
  double curvature;
};

/* Matrices of one shape whose elements cannot be stepped one by one: those of Muon, and those whose norm is
 * kept.  They are cut into `parts` of `part` elements; `together` of them are worked on at once. */
struct kp_matrix_class {
  int64_t rows, columns, pitch;
  bool muon, keeps_norm;
  int first, count; /* in the list of where matrices start */
  int together, parts;
  int64_t part;
};
enum { KP_MATRIX_PARTS = 256 };

/* A norm is summed over as many parts, whatever the device: the same bits everywhere. */
enum { KP_NORM_PARTS = 1024 };

/* A list on the host and, once it is uploaded, on the device. */
template <typename T> struct kp_list {
  std::vector<T> host;
  T *at = nullptr;
  int count() const { return (int)host.size(); }
};

/* Unit vectors of one kind: rows and columns that AdamW steps in the same pass, or that Muon has stepped. */
struct kp_unit_vectors {
  kp_list<kp_row_block> rows;
  kp_list<kp_column_tile> tiles;
  kp_list<kp_column_group> groups;
  kp_list<kp_column_tile> held; /* whole columns that fit into shared memory; for AdamW alone */
};

struct kp_cuda_optimizer {
  kp_parameters *parameters;
  kp_optimizer_options options;
  kp_cuda *cuda;
  kp_flat flat;
  bool half;    /* matrix products are of bfloat16 */
  bool rounded; /* all working values are as `flat.stochastic` has them */
  kp_list<kp_chunk> chunks;
  kp_list<kp_slice> slices;
  kp_unit_vectors adamw_units, muon_units;
  std::vector<kp_points> points;
  std::vector<kp_matrix_class> classes;
  kp_list<int64_t> matrices; /* where they start */
  /* Device memory, one block of it. */
  char *memory;
  kp_optimizer_state *state;
  double *norm_parts;
  kp_adamw_numbers *numbers; /* of the groups, then of the slices */
  int *has_gradient;         /* of the slices */
  double *column_sums;       /* of tiles */
  double *column_factors;    /* of groups of tiles */
  double *matrix_sums;       /* of the parts of a class' matrices */
  char *products;            /* Muon's matrices */
};

/* Elements of the flat buffers that the rows of a parameter take, pads of columns included. */
static inline int64_t kp_flat_count(const kp_parameter *p) {
  const int64_t columns = p->dimensions == 0 ? 1 : p->shape[p->dimensions - 1];
  return p->count == 0 ? 0 : p->count / columns * p->pitch;
}

/* The tables (optimizer_tables.cu). */
void kp_optimizer_cut(kp_cuda_optimizer *o);
/* Bytes that one class needs for its products. */
size_t kp_muon_bytes(const kp_matrix_class *c, bool half);

/* ---- what a step consists of; all submit and do not wait ---- */

kp_status kp_optimizer_submit_decision(kp_cuda_optimizer *o, kp_error *error);
kp_status kp_optimizer_submit_slices(kp_cuda_optimizer *o, kp_error *error);
kp_status kp_optimizer_submit_chunks(kp_cuda_optimizer *o, kp_error *error);
kp_status kp_optimizer_submit_points(kp_cuda_optimizer *o, const kp_points *points, kp_error *error);
/* The longest row of a table of points. */
int kp_optimizer_most_coordinates(const kp_cuda *cuda);
kp_status kp_optimizer_submit_class(kp_cuda_optimizer *o, const kp_matrix_class *c, kp_error *error);

/* AdamW on unit vectors and back to unit length. */
kp_status kp_optimizer_submit_unit_rows(kp_cuda_optimizer *o, const kp_unit_vectors *units, kp_error *error);
bool kp_optimizer_holds_columns(const kp_cuda *cuda, int64_t rows, int64_t pitch);
kp_status kp_optimizer_submit_held_columns(kp_cuda_optimizer *o, const kp_unit_vectors *units,
                                           kp_error *error);
kp_status kp_optimizer_submit_unit_columns(kp_cuda_optimizer *o, const kp_unit_vectors *units,
                                           kp_error *error);
/* Before (`tangent`) or after Muon's step: the tangent part of the gradients of unit rows, or unit length. */
kp_status kp_optimizer_submit_rows(kp_cuda_optimizer *o, const kp_unit_vectors *units, bool tangent,
                                   kp_error *error);
/* The same for rows and columns. */
kp_status kp_optimizer_submit_tangents(kp_cuda_optimizer *o, const kp_unit_vectors *units, kp_error *error);
kp_status kp_optimizer_submit_retraction(kp_cuda_optimizer *o, const kp_unit_vectors *units, kp_error *error);

static inline kp_status kp_optimizer_launched(kp_error *error) {
  return kp_cuda_check(cudaGetLastError(), "the optimizer's step", error);
}

/* ---- W neighbouring elements: 4 where they are aligned, else 1 ---- */

template <int W> struct kp_span { float at[W]; };

template <int W> __device__ static inline kp_span<W> kp_take(const float *from) {
  kp_span<W> span;
  if constexpr (W == 4) {
    const float4 all = *(const float4 *)from;
    span.at[0] = all.x, span.at[1] = all.y, span.at[2] = all.z, span.at[3] = all.w;
  } else {
    span.at[0] = *from;
  }
  return span;
}

template <int W> __device__ static inline void kp_put(float *to, const kp_span<W> &span) {
  if constexpr (W == 4)
    *(float4 *)to = make_float4(span.at[0], span.at[1], span.at[2], span.at[3]);
  else
    *to = span.at[0];
}

template <int W> __device__ static inline void kp_put(kp_half *to, const kp_span<W> &span) {
  if constexpr (W == 4) {
    const __nv_bfloat162 low = __floats2bfloat162_rn(span.at[0], span.at[1]);
    const __nv_bfloat162 high = __floats2bfloat162_rn(span.at[2], span.at[3]);
    *(uint2 *)to = make_uint2(*(const unsigned *)&low, *(const unsigned *)&high);
  } else {
    *to = __float2bfloat16_rn(span.at[0]);
  }
}

template <int W> __device__ static inline kp_span<W> kp_take(const kp_half *from) {
  kp_span<W> span;
  if constexpr (W == 4) {
    const uint2 all = *(const uint2 *)from;
    const float2 low = __bfloat1622float2(*(const __nv_bfloat162 *)&all.x);
    const float2 high = __bfloat1622float2(*(const __nv_bfloat162 *)&all.y);
    span.at[0] = low.x, span.at[1] = low.y, span.at[2] = high.x, span.at[3] = high.y;
  } else {
    span.at[0] = __bfloat162float(*from);
  }
  return span;
}

template <int W> __device__ static inline void kp_clear(float *to) {
  kp_put<W>(to, kp_span<W>{});
}

/* Stochastic rounding to bfloat16: up with the probability of the part that is cut off.  What is drawn is a
 * hash of the value itself (two multiplications and three shifts, each of which can be undone: no bit is
 * lost), so that the narrow copy follows from the master alone, whatever was stepped, saved or resumed
 * before. */
__device__ static inline float kp_dithered(float value) {
  const unsigned bits = __float_as_uint(value);
  unsigned drawn = bits;
  drawn = (drawn ^ drawn >> 16) * 0x7feb352du;
  drawn = (drawn ^ drawn >> 15) * 0x846ca68bu;
  drawn = (drawn ^ drawn >> 16) & 0xffffu;
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? __uint_as_float((bits + drawn) & 0xffff0000u) : value;
}

/* What the network reads of new values. */
template <int W>
__device__ static inline void kp_put_working(const kp_flat &flat, int64_t at, kp_span<W> span) {
  if (flat.stochastic) {
#pragma unroll
    for (int i = 0; i < W; i++) span.at[i] = kp_dithered(span.at[i]);
  }
  kp_put<W>(flat.working + at, span);
}

/* A parameter's new values, and what the network reads of them. */
template <int W>
__device__ static inline void kp_put_values(const kp_flat &flat, int64_t at, const kp_span<W> &span) {
  kp_put<W>(flat.values + at, span);
  if (flat.working != NULL) kp_put_working<W>(flat, at, span);
}

/* One step of AdamW; returns the new values. */
template <int W>
__device__ static inline kp_span<W> kp_adamw(const kp_adamw_numbers &f, const kp_span<W> &value,
                                             const kp_span<W> &gradient, kp_span<W> &mean,
                                             kp_span<W> &square) {
  kp_span<W> result;
#pragma unroll
  for (int i = 0; i < W; i++) {
    const float g = f.gradient_scale * gradient.at[i];
    mean.at[i] += f.new_mean * (g - mean.at[i]);
    square.at[i] = f.old_square * square.at[i] + f.new_square * g * g;
    const float deviation = sqrtf(square.at[i]) * f.inverse_root_correction + f.epsilon;
    result.at[i] = f.keep * value.at[i] - f.step * mean.at[i] / deviation;
  }
  return result;
}

/* ---- threads that share a row: a warp, or the whole block ---- */

struct kp_team {
  int lane, size;
  int index, count; /* of the teams of a block */
};

__device__ static inline kp_team kp_team_of(bool whole_block) {
  if (whole_block) return kp_team{(int)threadIdx.x, (int)blockDim.x, 0, 1};
  return kp_team{(int)threadIdx.x % 32, 32, (int)threadIdx.x / 32, (int)blockDim.x / 32};
}

/* All threads of the team get the sum; `shared` has room for 32 numbers. */
__device__ static inline double kp_team_sum(const kp_team &team, double x, double *shared) {
  if (team.size == 32) return kp_warp_sum(x);
  __syncthreads();
  return kp_block_sum(x, shared);
}

/* What brings a vector of this squared norm to length 1; a zero vector has no direction to keep. */
__device__ static inline double kp_to_unit(double square) {
  return square > 0 ? 1 / sqrt(square) : 1;
}

#endif
