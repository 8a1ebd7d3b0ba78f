/* Gated activations: a row's halves, and what a chunk of them gives forward and backward. */
#ifndef KAPPA_BACKEND_CUDA_GATED_CUH
#define KAPPA_BACKEND_CUDA_GATED_CUH

#include "backend/cuda/activation.cuh"

/* Row n's halves, packed or not, and what they are multiplied by.  `width` is I; chunks cover the padding of
 * the result, which for packed rows has none where chunks are whole. */
struct kp_gate_rows {
  const void *u, *gate;
  const float *scale; /* (2I), NULL: none */
  int64_t rows, width, pitch, out_pitch, chunks;
  float gate_scale;
  kp_activation_kind kind;
  bool scale_wide; /* whole chunks of it can be read */
};

/* Factors of the columns of a chunk. */
template <int W> struct kp_factors { kp_chunk<W> up, gate; };

template <int W> __device__ static inline kp_factors<W> kp_factors_of(const kp_gate_rows &r, int64_t column) {
  kp_factors<W> f;
#pragma unroll
  for (int i = 0; i < W; i++) f.up.value[i] = f.gate.value[i] = 1.0f;
  if (r.scale == NULL) return f;
  if (W > 1 && r.scale_wide) {
    f.up = kp_read<W>(r.scale + column);
    f.gate = kp_read<W>(r.scale + r.width + column);
  } else {
#pragma unroll
    for (int i = 0; i < W; i++)
      if (column + i < r.width) {
        f.up.value[i] = r.scale[column + i];
        f.gate.value[i] = r.scale[r.width + column + i];
      }
  }
#pragma unroll
  for (int i = 0; i < W; i++) f.gate.value[i] *= r.gate_scale;
  return f;
}

template <kp_activation_kind KIND, int W>
__device__ static inline kp_chunk<W> kp_gated_by(const kp_factors<W> &f, kp_chunk<W> u,
                                                 const kp_chunk<W> &gate) {
#pragma unroll
  for (int i = 0; i < W; i++)
    u.value[i] *= f.up.value[i] * kp_activate<KIND>(f.gate.value[i] * gate.value[i]).value;
  return u;
}

template <int W>
__device__ static inline kp_chunk<W> kp_gated_chunk(kp_activation_kind kind, const kp_factors<W> &f,
                                                    kp_chunk<W> u, const kp_chunk<W> &gate) {
  kp_by_activation(kind, [&](auto constant) { u = kp_gated_by<decltype(constant)::value, W>(f, u, gate); });
  return u;
}

/* ---- backward ---- */

struct kp_gate_gradients {
  const void *g;
  const float *time, *g_time; /* g_time NULL: no gradient came there */
  void *gu, *gate;
  float *partial; /* (groups, 2I), or NULL */
  int64_t g_pitch, pitch;
  int64_t rows_a_thread, groups;
  int64_t u_end, gate_end; /* columns to write in the halves, padding included, where chunks are single */
};

/* What a thread sums over its rows. */
template <int W> struct kp_gate_sums { kp_chunk<W> up, gate; };

/* Turns u and its gate into their gradients; `along` is what comes through the time of the row. */
template <kp_activation_kind KIND, int W>
__device__ static inline void kp_gated_backward_by(const kp_factors<W> &f, float along, kp_chunk<W> *u,
                                                   kp_chunk<W> *gate, const kp_chunk<W> &g,
                                                   kp_gate_sums<W> *sums) {
#pragma unroll
  for (int i = 0; i < W; i++) {
    const float up = f.up.value[i] * u->value[i];
    const kp_activated a = kp_activate<KIND>(f.gate.value[i] * gate->value[i]);
    const float gy = g.value[i] + along * up * a.value;
    const float up_bar = gy * a.value, gate_bar = gy * up * a.slope;
    sums->up.value[i] += up_bar * u->value[i];
    sums->gate.value[i] += gate_bar * gate->value[i];
    u->value[i] = up_bar * f.up.value[i];
    gate->value[i] = gate_bar * f.gate.value[i];
  }
}

template <int W>
__device__ static inline void kp_gated_backward(kp_activation_kind kind, const kp_factors<W> &f, float along,
                                                kp_chunk<W> *u, kp_chunk<W> *gate, const kp_chunk<W> &g,
                                                kp_gate_sums<W> *sums) {
  kp_by_activation(kind, [&](auto constant) {
    kp_gated_backward_by<decltype(constant)::value, W>(f, along, u, gate, g, sums);
  });
}

/* ---- rows by way of shared memory (gated_staged.cu) ---- */

/* Whether packed halves that are no whole chunks can be staged: T is the type of real tensors. */
bool kp_gate_staged_fits(const kp_gate_rows *rows, bool half);
/* Forward to y, and to `time` unless that is NULL; c as in GATED_ACTIVATION. */
void kp_gate_staged(cudaStream_t stream, const kp_gate_rows *rows, bool half, void *y, float *time,
                    kp_numbers c);
/* Backward; without sums over rows. */
void kp_gate_staged_backward(cudaStream_t stream, const kp_gate_rows *rows, bool half,
                             const kp_gate_gradients *gradients);

#endif
