/* What the tensor core kernels share beyond attention_mma.cuh: numbers beside the rows, masks, which tiles
 * there are. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_TENSOR_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_TENSOR_CUH

#include "backend/cuda/attention_scores.cuh"

/* What a value has beside its numbers: it enters as a · v with the extra coordinate a · x. */
struct alignas(8) kp_value_numbers {
  float a, x;
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
  int tiles;                     /* of queries (forward) or keys (backward) */
};

/* ---- attention_tensor.cu ---- */

/* Whether bfloat16 and the tensor cores can do these sizes on this device. */
bool kp_attention_tensor_fits(const kp_attention_problem &p, size_t shared_bytes);
/* Fills the scratch memory from `scratch` on; returns the bytes used.  scratch NULL: only counts, from B, H,
 * T, score, values, documents. */
size_t kp_attention_tensor_prepare(kp_tensor_work *work, char *scratch, cudaStream_t stream);
kp_status kp_attention_tensor(const kp_call *call, const kp_attention_problem &p, kp_error *error);

/* ---- attention_forward_*.cu ---- */

kp_status kp_attention_forward_dot(kp_tensor_work &work, cudaStream_t stream, kp_error *error);
kp_status kp_attention_forward_lorentz(kp_tensor_work &work, cudaStream_t stream, kp_error *error);
kp_status kp_attention_forward_geodesic(kp_tensor_work &work, cudaStream_t stream, kp_error *error);

/* ---- Documents ---- */

__device__ static inline kp_document_span kp_span_of(const kp_tensor_work &work, int b, int begin,
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

#endif
