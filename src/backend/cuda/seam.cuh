/* The seam between two sub-layers on the device: what its forward and its backward kernel share.
 *
 * A block takes a run of rows and goes through it in tiles of R rows, forwards on the way out and backwards
 * on the way back, with the rows in registers (seam_rows.cuh).  A row whose neighbour is in another block's
 * run is computed by both. */
#ifndef KAPPA_BACKEND_CUDA_SEAM_CUH
#define KAPPA_BACKEND_CUDA_SEAM_CUH

#include "backend/cuda/seam_rows.cuh"

extern "C" {
#include "geometry/row_program.h"
}

/* Where a row's given reference stands. */
enum kp_seam_reference {
  KP_SEAM_ORIGIN,     /* nowhere: it is zero */
  KP_SEAM_SAME_ROW,   /* the same row of r */
  KP_SEAM_ROW_BEFORE, /* the row before of r */
  KP_SEAM_STREAM,     /* the row before of x, which is r */
};

/* Blocks of a launch; there are partial results of each in scratch memory. */
enum { KP_SEAM_MOST_BLOCKS = 8192, KP_SEAM_MOST_PARTIALS = 1024 };

enum kp_seam_map { KP_SEAM_NONE, KP_SEAM_FLAT, KP_SEAM_CURVED };

struct kp_seam {
  int64_t rows;
  int T, C, pitch;
  const void *x, *u, *r, *carry, *own_carry;
  kp_numbers weight, bias;
  kp_curvatures update_kappa, tangent_kappa;
  int update_program, tangent_program;
  kp_seam_map update, tangent;
  kp_seam_reference given;
  bool own, triple; /* triple: the update reads the given reference */
  bool layer;       /* the norm has a mean */
  double epsilon;
  int64_t run;                                  /* rows of a block */
  int tile;                                     /* rows of a tile of it */
  size_t numbers_bytes;                         /* of shared memory, in front of the rows */
  kp_groups update_groups, tangent_groups, row; /* row: all channels as one group */
};

static inline kp_seam_map kp_seam_map_of(int program, int flat) {
  if (program < 0) return KP_SEAM_NONE;
  return program == flat ? KP_SEAM_FLAT : KP_SEAM_CURVED;
}

static inline kp_seam_reference kp_seam_reference_of(const kp_call *call) {
  const kp_residual_norm_arguments *arguments = (const kp_residual_norm_arguments *)call->node->arguments;
  if (call->input[2] == NULL) return KP_SEAM_ORIGIN;
  if (!arguments->shift) return KP_SEAM_SAME_ROW;
  return call->input[2] == call->input[0] ? KP_SEAM_STREAM : KP_SEAM_ROW_BEFORE;
}

/* Also works on a call that has shapes alone (for scratch memory). */
static inline kp_seam kp_seam_of(const kp_call *call) {
  const kp_node *node = call->node;
  const kp_residual_norm_arguments *arguments = (const kp_residual_norm_arguments *)node->arguments;
  kp_seam s = {};
  s.rows = kp_tensor_rows(node->input[0]);
  s.T = (int)arguments->length;
  s.C = (int)kp_tensor_columns(node->input[0]);
  s.pitch = (int)kp_pitch(node->input[0]);
  s.x = call->input[0], s.u = call->input[1], s.r = call->input[2];
  s.carry = call->input[7], s.own_carry = call->input[8];
  if (call->run != NULL) s.weight = kp_input_numbers(call, 5), s.bias = kp_input_numbers(call, 6);
  s.update_kappa = kp_curvatures_of(call, 3, s.rows);
  s.tangent_kappa = kp_curvatures_of(call, 4, s.rows);
  s.update_program = arguments->update, s.tangent_program = arguments->tangent;
  s.update = kp_seam_map_of(arguments->update, KP_PROGRAM_FLAT_ADD);
  s.tangent = kp_seam_map_of(arguments->tangent, KP_PROGRAM_FLAT_DIFFERENCE);
  if (s.update != KP_SEAM_CURVED) s.update_kappa.groups = 1;
  if (s.tangent != KP_SEAM_CURVED) s.tangent_kappa.groups = 1;
  s.given = kp_seam_reference_of(call);
  s.own = arguments->own && arguments->tangent >= 0;
  s.triple = s.update == KP_SEAM_CURVED && kp_row_programs[arguments->update].inputs == 3;
  s.layer = arguments->norm == KP_NORM_LAYER;
  s.epsilon = arguments->epsilon;
  return s;
}

static inline bool kp_seam_is_curved(const kp_seam &s) {
  return s.update == KP_SEAM_CURVED || s.tangent == KP_SEAM_CURVED;
}

/* By type of real tensors, each in a file of its own: their scalars differ. */
kp_status kp_seam_forward_float(const kp_call *call, const kp_seam &s, kp_error *error);
kp_status kp_seam_forward_half(const kp_call *call, const kp_seam &s, kp_error *error);
kp_status kp_seam_backward_float(const kp_call *call, const kp_seam &s, kp_error *error);
kp_status kp_seam_backward_half(const kp_call *call, const kp_seam &s, kp_error *error);

/* The plain seam, without a tangent map and curvature, has kernels of its own (residual_norm_flat.cu). */
bool kp_seam_is_plain(const kp_call *call, const kp_seam &s);
kp_status kp_seam_plain_forward(const kp_call *call, const kp_seam &s, kp_error *error);
kp_status kp_seam_plain_backward(const kp_call *call, const kp_seam &s, kp_error *error);

static inline void kp_seam_set_groups(kp_seam *s, int vector, int threads, int packs) {
  s->update_groups = kp_groups_of(s->update_kappa.groups, s->C, vector, threads, packs);
  s->tangent_groups = kp_groups_of(s->tangent_kappa.groups, s->C, vector, threads, packs);
  s->row = kp_groups_of(1, s->C, vector, threads, packs);
}

/* Floats of scratch memory for the partial gradients of weight and bias. */
static inline size_t kp_seam_columns_size(const kp_seam &s) {
  const int64_t blocks = kp_blocks(s.rows, 1, KP_SEAM_MOST_PARTIALS);
  return ((size_t)blocks * 2 * (size_t)s.C + 15) / 16 * 16;
}

/* Threads of a block whose rows are `packs` vectors a thread. */
static inline int kp_seam_threads(const kp_seam &s, int vector, int packs) {
  const int vectors = (s.pitch + vector - 1) / vector;
  return (vectors + 32 * packs - 1) / (32 * packs) * 32;
}

/* Inner products and coefficients are in double where rows are float, and in float where they are bfloat16:
 * a product of two bfloat16 is exact there. */
template <typename T> struct kp_sum_of { using type = double; };
template <> struct kp_sum_of<kp_half> { using type = float; };

/* The channels of a thread, and their groups. */
template <int V, int P> struct kp_seam_channels {
  int at[P], update[P], tangent[P];
  bool there[P];
  __device__ kp_seam_channels(const kp_seam &s) {
#pragma unroll 1
    for (int p = 0; p < P; p++) {
      at[p] = (p * (int)blockDim.x + (int)threadIdx.x) * V;
      there[p] = at[p] < s.pitch;
      const int inside = at[p] < s.C ? at[p] : 0;
      update[p] = inside / s.update_groups.size, tangent[p] = inside / s.tangent_groups.size;
    }
  }
};

/* Starts copying a vector of a row into shared memory, or writes zeros there; the thread itself may read it
 * after kp_vectors_arrived. */
template <typename T, int V>
__device__ static inline void kp_fetch_vector(kp_vector<T, V> *slot, const void *base, int64_t at,
                                              bool there) {
  if constexpr (sizeof(kp_vector<T, V>) == 16) {
    const unsigned to = (unsigned)__cvta_generic_to_shared(slot);
    const void *from = there ? (const void *)((const T *)base + at) : base;
    if (there)
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
    else
      *slot = kp_zero_vector<T, V>();
  } else {
    *slot = kp_load_vector<T, V>(base, at, there);
  }
}

__device__ static inline void kp_vectors_arrived() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

/* Rows that a tile holds. */
static inline int kp_seam_held_rows(const kp_seam &s, int R) {
  const bool tensor = s.given == KP_SEAM_SAME_ROW || s.given == KP_SEAM_ROW_BEFORE;
  return 2 * (R + 1) + (tensor ? R : 0);
}

/* The rows of a tile and their neighbours, in shared memory; a thread reads the vectors alone that it wrote.
 * `starts`: bit i is set where row i is the first of its sequence. */
template <typename T, int V, int P, int R> struct kp_seam_tile {
  using vector = kp_vector<T, V>;
  int64_t first, begin, end; /* rows [begin, end) are the block's own, or a neighbour */
  int low, high;             /* rows first + low ... first + high - 1 are among them */
  unsigned starts;
  vector
      *slots; /* this thread's: x of rows -1 ... R-1, x' of the same, the given reference of rows 0 ... R-1 */

  __device__ vector &slot(int row, int p) const { return slots[(row * P + p) * blockDim.x]; }
  __device__ vector &x(int i, int p) const { return slot(i + 1, p); }
  __device__ vector &h(int i, int p) const { return slot(R + 2 + i, p); }
  __device__ vector &r(int i, int p) const { return slot(2 * R + 2 + i, p); }
  __device__ bool has(int i) const { return first + i >= begin && first + i < end; }
  /* Row i, or the row before the first. */
  __device__ bool has_neighbour(int i) const {
    return first + i >= 0 && first + i >= begin - 1 && first + i < end;
  }
  __device__ void move_to(const kp_seam &s, int64_t row) {
    first = row;
    low = row < begin ? (int)(begin - row) : 0, high = end - row < s.tile ? (int)(end - row) : s.tile;
    starts = 0;
    int phase = (int)(row % s.T);
    if (phase < 0) phase += s.T;
#pragma unroll 1
    for (int i = 0; i < R; i++) {
      if (phase == 0) starts |= 1u << i;
      phase = phase + 1 == s.T ? 0 : phase + 1;
    }
  }
  __device__ bool starts_sequence(int i) const {
    return (starts >> i & 1) != 0;
  }
  /* What stands before row i, the first of a sequence. */
  __device__ vector carried(const kp_seam &s, const void *rows, int i, int channel, bool there) const {
    if (rows == NULL) return kp_zero_vector<T, V>();
    return kp_load_vector<T, V>(rows, (first + i) / s.T * s.pitch + channel, there && has(i));
  }
  /* Where the given reference is a tensor of its own: fetches row i's. */
  __device__ void fetch_given(const kp_seam &s, int i, int p, int channel, bool there) const {
    const int64_t n = first + i;
    if (s.given == KP_SEAM_SAME_ROW)
      kp_fetch_vector<T, V>(&r(i, p), s.r, n * s.pitch + channel, there && has(i));
    else if (s.given == KP_SEAM_ROW_BEFORE && starts_sequence(i))
      r(i, p) = carried(s, s.carry, i, channel, there);
    else if (s.given == KP_SEAM_ROW_BEFORE)
      kp_fetch_vector<T, V>(&r(i, p), s.r, (n - 1) * s.pitch + channel, there && has(i));
  }
  /* The given reference of row i. */
  __device__ vector given(const kp_seam &s, int i, int p, int channel, bool there) const {
    if (s.given == KP_SEAM_ORIGIN) return kp_zero_vector<T, V>();
    if (s.given != KP_SEAM_STREAM) return r(i, p);
    return starts_sequence(i) ? carried(s, s.carry, i, channel, there) : x(i - 1, p);
  }
  /* What the tangent map of row i refers to. */
  __device__ vector reference(const kp_seam &s, int i, int p, int channel, bool there) const {
    if (!s.own) return given(s, i, p, channel, there);
    return starts_sequence(i) ? carried(s, s.own_carry, i, channel, there) : h(i - 1, p);
  }
};

/* Weights of a thread's channels: `absent` where there is no tensor, 0 in padding. */
template <int V, int P>
__device__ static inline void kp_seam_weights(const kp_numbers &from, const kp_seam_channels<V, P> &c, int C,
                                              float absent, float to[P][V]) {
#pragma unroll 1
  for (int p = 0; p < P; p++)
#pragma unroll
    for (int k = 0; k < V; k++) {
      const int at = c.at[p] + k;
      to[p][k] = at >= C ? 0.0f : from.at == NULL ? absent : from[at];
    }
}

/* Shares the rows out: about a block for every place on the device, in tiles of one size, at most R rows. */
template <int R>
static inline void kp_seam_share(kp_seam *s, const kp_cuda *cuda, int resident, bool neighbour,
                                 int64_t most) {
  int64_t places = (int64_t)cuda->processors * (resident < 1 ? 1 : resident);
  if (places > most) places = most;
  s->run = s->rows > places ? (s->rows + places - 1) / places : 1;
  const int64_t rows = s->run + (neighbour ? 1 : 0), tiles = (rows + R - 1) / R;
  s->tile = (int)((rows + tiles - 1) / tiles);
}

#endif
