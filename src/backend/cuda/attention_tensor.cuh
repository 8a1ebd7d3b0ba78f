/* What the tensor core kernels share beyond attention_mma.cuh: numbers beside the rows, masks, which tiles
 * there are. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_TENSOR_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_TENSOR_CUH

#include "backend/cuda/attention_scores.cuh"

/* What a value has beside its numbers: it enters as a · v with the extra coordinate a · x. */
struct alignas(8) kp_value_numbers {
  float a, x;
};

/* What a query has for the backward pass. */
struct alignas(16) kp_query_bars {
  float level; /* of its scores in units of log 2: weights are 2^(score - level) */
  float mean;  /* the row sum of P ∘ P̄ */
  float extra; /* M̄ of the extra coordinate */
  float kappa; /* what the mean gives to κ's gradient */
};

/* Least and most document of KP_DOCUMENT_ROWS positions. */
enum { KP_DOCUMENT_ROWS = 32 };
struct kp_document_span {
  int least, most;
};

struct kp_tensor_work {
  kp_attention_problem p;
  const kp_row_numbers *q, *k;   /* (B, H, T); NULL for dot products */
  const kp_value_numbers *v;     /* (B, H, T); NULL for plain means */
  const kp_document_span *spans; /* (B, ⌈T/32⌉); NULL without documents */
  int tiles;                     /* of the launch's own side */
  /* Backward. */
  kp_attention_gradients g;
  kp_query_bars *bars; /* (B, H, T); the queries' pass corrects their means */
  kp_half *mean_bars,
      *mean_lows; /* M̄ of curved values as a sum of two (B, H, T, mean_pitch); NULL: ō itself */
  int64_t mean_pitch;
  kp_scalar_sums *sums; /* (H, B, parts); NULL: not wanted */
  int parts, first_part;
};

/* ---- attention_tensor.cu ---- */

/* Whether bfloat16 and the tensor cores can do these sizes on this device. */
bool kp_attention_tensor_fits(const kp_attention_problem &p, size_t shared_bytes);
/* Fills the scratch memory from `scratch` on; returns the bytes used.  scratch NULL: only counts, from B, H,
 * T, score, values, documents. */
size_t kp_attention_tensor_prepare(kp_tensor_work *work, char *scratch, bool backward, cudaStream_t stream);
kp_status kp_attention_tensor(const kp_call *call, const kp_attention_problem &p, kp_error *error);
size_t kp_attention_tensor_backward_scratch(const kp_attention_problem &p);
kp_status kp_attention_tensor_backward(const kp_call *call, const kp_attention_problem &p,
                                       const kp_attention_gradients &g, kp_error *error);

/* ---- attention_forward_*.cu ---- */

kp_status kp_attention_forward_dot(kp_tensor_work &work, cudaStream_t stream, kp_error *error);
kp_status kp_attention_forward_lorentz(kp_tensor_work &work, cudaStream_t stream, kp_error *error);
kp_status kp_attention_forward_geodesic(kp_tensor_work &work, cudaStream_t stream, kp_error *error);

/* ---- attention_backward_*.cu ---- */

kp_status kp_attention_backward_dot(kp_tensor_work &work, cudaStream_t stream, kp_error *error);
kp_status kp_attention_backward_lorentz(kp_tensor_work &work, cudaStream_t stream, kp_error *error);
kp_status kp_attention_backward_geodesic(kp_tensor_work &work, cudaStream_t stream, kp_error *error);

/* ---- Documents ---- */

__device__ __noinline__ static kp_document_span kp_span_of(const kp_tensor_work &work, int b, int begin,
                                                           int count) {
  const int blocks = (work.p.length + KP_DOCUMENT_ROWS - 1) / KP_DOCUMENT_ROWS;
  const kp_document_span *spans = work.spans + (int64_t)b * blocks;
  const int first = begin / KP_DOCUMENT_ROWS,
            last = min(blocks, (begin + count + KP_DOCUMENT_ROWS - 1) / KP_DOCUMENT_ROWS);
  kp_document_span span = spans[first];
  for (int i = first + 1; i < last; i++) {
    span.least = min(span.least, spans[i].least);
    span.most = max(span.most, spans[i].most);
  }
  return span;
}

__device__ static inline bool kp_spans_apart(kp_document_span a, kp_document_span b) {
  return a.most < b.least || b.most < a.least;
}

__device__ static inline bool kp_spans_mixed(kp_document_span a, kp_document_span b) {
  return a.least != a.most || b.least != b.most || a.least != b.least;
}

/* The first tile from `first` on that is not apart from the documents `own`, or `end`. */
template <int ROWS>
__device__ static int kp_next_tile(const kp_tensor_work &work, kp_document_span own, int b, int first,
                                   int end) {
  if (work.spans == NULL) return first;
  while (first < end && kp_spans_apart(own, kp_span_of(work, b, first, ROWS))) first += ROWS;
  return first;
}

#endif
