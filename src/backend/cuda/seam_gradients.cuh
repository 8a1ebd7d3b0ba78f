/* What the seam's backward kernel reads, writes and shares within a block. */
#ifndef KAPPA_BACKEND_CUDA_SEAM_GRADIENTS_CUH
#define KAPPA_BACKEND_CUDA_SEAM_GRADIENTS_CUH

#include "backend/cuda/row_program_scalars.cuh"
#include "backend/cuda/seam.cuh"
#include "backend/cuda/seam_sums.cuh"

/* What comes beside the forward's inputs, and outputs; each may be NULL. */
struct kp_seam_gradients {
  const void *h, *direct, *gy;
  const float *statistics;
  void *gx, *gu, *gr;
  float *columns;                      /* (blocks, 2, C): gradients of weight and bias of each block */
  kp_real *update_bars, *tangent_bars; /* (N, G): gradients of κ by row */
  bool same_row;                       /* gr is not shifted */
  bool to_stream;                      /* the reference's gradient joins x's */
};

/* What step 1 leaves of a row and group: the gradients of x' and of the reference as combinations of gw, 1,
 * r and d, and n as one of 1, r and d. */
enum { KP_SEAM_TO_STREAM = 0, KP_SEAM_TO_REFERENCE = 4, KP_SEAM_NORMAL = 8, KP_SEAM_COMBINATIONS = 11 };
enum {
  KP_SEAM_TANGENT_SUMS = 8,
  KP_SEAM_PAIR_SUMS = 5,
  KP_SEAM_TRIPLE_SUMS = 9,
  KP_SEAM_UPDATE_FACTORS = 12
};

/* The gradients of a program's coefficients, for kp_program_both: those of an update are there; those of a
 * tangent map follow from its sums and from the means of the row, for which z must be known. */
template <typename S> struct kp_seam_bars {
  bool ready, layer, whole; /* whole: this group is the row, and the means are found here */
  S mean, scale, channels;
  S sum[KP_SEAM_TANGENT_SUMS];
  S mean_g, mean_gn; /* sums over the row's channels at first */
  __device__ void operator()(const kp_real *z, kp_real *bar) {
    if (ready) {
      for (int m = 0; m < 3; m++) bar[m] = (kp_real)sum[m];
      return;
    }
    const S first = (S)z[0], second = (S)z[1];
    if (whole) mean_g = sum[5], mean_gn = scale * (first * sum[3] + second * sum[4] - mean * sum[5]);
    mean_g = layer ? mean_g / channels : S(0), mean_gn = mean_gn / channels;
    const S n_r = scale * (first * sum[0] + second * sum[1] - mean * sum[6]);
    const S n_d = scale * (first * sum[1] + second * sum[2] - mean * sum[7]);
    bar[0] = (kp_real)(scale * (sum[3] - mean_g * sum[6] - mean_gn * n_r));
    bar[1] = (kp_real)(scale * (sum[4] - mean_g * sum[7] - mean_gn * n_d));
    bar[2] = 0;
  }
};

template <typename S> struct kp_seam_backward_memory {
  S *combinations; /* (R, G, KP_SEAM_COMBINATIONS) */
  S *terms;        /* (R, G, 2): each group's part of mean(gw) and mean(gw n) */
  S *factors;      /* (R, G, KP_SEAM_UPDATE_FACTORS) */
  S *chunks;
};

template <typename S, int R>
static inline size_t kp_seam_backward_bytes(const kp_seam &s, int threads, int packs) {
  const int update = s.triple ? KP_SEAM_TRIPLE_SUMS : KP_SEAM_PAIR_SUMS;
  const size_t first = (size_t)(threads * packs / s.tangent_groups.segment) * KP_SEAM_TANGENT_SUMS;
  const size_t third = (size_t)(threads * packs / s.update_groups.segment) * update;
  const size_t small = (size_t)s.tangent_groups.count * (KP_SEAM_COMBINATIONS + 2) +
                       (size_t)s.update_groups.count * KP_SEAM_UPDATE_FACTORS;
  return ((first > third ? first : third) + small) * R * sizeof(S);
}

/* Scratch: columns, then the gradients of κ by row. */
static inline kp_seam_gradients kp_seam_gradients_of(const kp_call *call, const kp_seam &s) {
  const kp_residual_norm_arguments *arguments = (const kp_residual_norm_arguments *)call->node->arguments;
  kp_seam_gradients g = {};
  g.h = call->input[9], g.direct = call->input[10], g.gy = call->input[11];
  g.statistics = (const float *)call->input[12];
  g.gx = call->output[0], g.gu = call->output[1], g.gr = call->output[2];
  const bool columns = g.gy != NULL && (call->output[5] != NULL || call->output[6] != NULL);
  float *scratch = (float *)call->scratch;
  kp_real *bars = (kp_real *)(scratch + kp_seam_columns_size(s));
  if (columns) g.columns = scratch;
  if (s.update == KP_SEAM_CURVED && call->output[3] != NULL) g.update_bars = bars;
  if (s.tangent == KP_SEAM_CURVED && call->output[4] != NULL && g.gy != NULL)
    g.tangent_bars = bars + s.rows * s.update_kappa.groups;
  g.same_row = !arguments->shift;
  g.to_stream = arguments->stream_reference && s.tangent != KP_SEAM_NONE && g.gy != NULL;
  return g;
}

/* Adds the blocks' partial gradients of weight, bias and curvatures to the outputs. */
static inline void kp_seam_add_gradients(const kp_call *call, const kp_seam &s, const kp_seam_gradients &g,
                                         int blocks) {
  kp_seam_totals totals = {};
  totals.columns = g.columns, totals.blocks = blocks, totals.C = s.C;
  totals.gweight = (float *)call->output[5], totals.gbias = (float *)call->output[6];
  kp_seam_add_totals<kp_real>(kp_cuda_of(call)->stream, totals,
                              kp_curvature_bars_of(call, 3, s.update_kappa, g.update_bars),
                              kp_curvature_bars_of(call, 4, s.tangent_kappa, g.tangent_bars));
}

#endif
