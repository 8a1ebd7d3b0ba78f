/* What the attention kernels share: where the heads lie in memory, their scalars, and the small kernels
 * before and after the tiles.  attention.cu chooses between the kernels:
 *
 *   attention_plain.cu       every score and kind of values at every size, float32 or bfloat16 in memory
 *   attention_forward_*.cu   bfloat16 on the tensor cores, forward: a file a family of scores
 *   attention_backward_*.cu  and backward
 *   attention_tensor.cu      what these read beside the rows, and which of them is launched
 *   attention_rows.cu        before and after the plain tiles: what belongs to one row alone, scalars */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_CUH

#include "backend/cuda/kernel.cuh"

/* Rows of all heads: head h of position n is at base + n · stride + h · step. */
struct kp_head_rows {
  void *base; /* NULL: absent */
  int64_t stride;
  int step;
};

struct kp_attention_problem {
  int batch, length, heads, kv_heads, size, value_size; /* B, T, H, H', D, D' */
  int score, values;                                    /* kp_score, kp_values */
  bool causal, half;
  float scale, beta_absent, kappa_absent;
  kp_numbers kappa, beta;
  int kappa_step, beta_step; /* 1: one number a head */
  const int32_t *documents;  /* (B, T), or NULL */
  kp_head_rows q, k, v;
  kp_head_rows o; /* forward: to be written */
  float *logsumexp;
  float *time, *norms; /* (N, H); may be NULL */
};

struct kp_attention_gradients {
  kp_head_rows o;       /* of o; may be absent */
  const float *time;    /* of o_time; may be NULL */
  kp_head_rows q, k, v; /* to be written; may be absent */
};

static inline __host__ __device__ bool kp_is_geodesic(int score) {
  return score == KP_SCORE_DISTANCE || score == KP_SCORE_DISTANCE_SQUARED;
}

__device__ static inline float kp_head_kappa(const kp_attention_problem &p, int h) {
  return p.kappa.at == NULL ? p.kappa_absent : p.kappa[h * p.kappa_step];
}

__device__ static inline float kp_head_beta(const kp_attention_problem &p, int h) {
  return p.beta.at == NULL ? p.beta_absent : p.beta[h * p.beta_step];
}

/* Where head h of position n lies, or NULL. */
template <typename T> __device__ static inline T *kp_row_at(const kp_head_rows &rows, int64_t n, int h) {
  return rows.base == NULL ? NULL : (T *)rows.base + n * rows.stride + (int64_t)h * rows.step;
}

/* What the scores and values make of one row, beyond its own numbers. */
struct kp_line {
  double a, b; /* the line is a · row + b · second row, then x and y */
  double x, y;
};

/* Sums over a tile of the gradients of κ and β. */
struct kp_scalar_sums {
  double kappa, beta;
};

/* ---- attention_rows.cu ---- */

/* Lines of queries, keys and values (N, H each); NULL where not wanted. */
void kp_attention_lines(const kp_attention_problem &p, kp_line *q, kp_line *k, kp_line *v,
                        cudaStream_t stream);
/* Lines of the gradients of the means (N, H): gradient · g o + along · o, the extra's, and in y the row sum
 * of P ∘ P̄; and their part of κ's gradient (N, H). */
void kp_attention_mean_lines(const kp_attention_problem &p, const kp_attention_gradients &g, kp_line *means,
                             double *kappa, cudaStream_t stream);
/* Adds `parts` sums of each of `heads` heads, head by head `parts` apart, to the gradients of κ and β. */
void kp_attention_add_scalars(const kp_scalar_sums *sums, int heads, int64_t parts, kp_results kappa,
                              bool one_kappa, kp_results beta, bool one_beta, cudaStream_t stream);
/* Zeroes the padding behind `columns` of `rows` rows. */
void kp_attention_zero_pads(void *rows_base, bool half, int64_t rows, int64_t columns, int64_t pitch,
                            cudaStream_t stream);

/* ---- attention_plain.cu ---- */

size_t kp_attention_plain_scratch(const kp_attention_arguments *a, bool backward);
kp_status kp_attention_plain(const kp_call *call, const kp_attention_problem &p, kp_error *error);
kp_status kp_attention_plain_backward(const kp_call *call, const kp_attention_problem &p,
                                      const kp_attention_gradients &g, kp_error *error);

#endif
