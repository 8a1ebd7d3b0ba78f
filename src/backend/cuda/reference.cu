/* REFERENCE and REFERENCE_BACKWARD: the row before, and the mean of all rows before.
 *
 * Of documents each begins anew: a thread that means begin in finds its document's border by its numbers.
 * The row before is a copy.  Means are prefix sums in two passes: a thread sums a segment of rows of one
 * channel, and then walks it from the sum of the segments before it; backward the same from behind.  Both
 * passes read the rows, 2C in and C out a row (the second time partly from the cache). */
#include "backend/cuda/reference.cuh"

enum { SEGMENT = 32 };

static kp_walk walk_of(const kp_call *call, bool forward) {
  const kp_node *node = call->node;
  const kp_reference_arguments *arguments = (const kp_reference_arguments *)node->arguments;
  kp_walk w = {};
  w.rows = kp_tensor_rows(node->input[0]);
  w.T = (int)arguments->length, w.C = (int)kp_tensor_columns(node->input[0]);
  w.pitch = (int)kp_pitch(node->input[0]);
  w.window = arguments->window;
  w.held = arguments->kind == KP_REFERENCE_MIDPOINT ? arguments->window : 1;
  w.stream = call->input[0];
  w.history = forward ? call->input[2] : NULL;
  w.g = forward ? NULL : call->input[2];
  w.seen = w.history == NULL ? NULL : (const int32_t *)call->input[3];
  w.documents = (const int32_t *)call->input[forward ? 4 : 3];
  w.kappa = kp_curvatures_of(call, 1, w.rows);
  w.D = w.C / w.kappa.groups;
  w.out = call->output[0];
  w.scratch = call->scratch;
  w.backward = !forward;
  return w;
}

static bool whole_vectors(const kp_call *call, const kp_walk &w) {
  return w.pitch % (kp_is_half(call) ? 8 : 4) == 0;
}

/* ---- the row before ---- */

/* A row of units of B bytes.  Forward row n is row n - 1; backward it is g's row n + 1. */
template <typename B> __global__ static void previous_kernel(const kp_walk w, int units) {
  const int64_t count = w.rows * units, stride = (int64_t)gridDim.x * blockDim.x;
  const bool seen = w.before() > 0;
  const B *from = (const B *)(w.backward ? w.g : w.stream);
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < count; i += stride) {
    const int64_t n = i / units, b = n / w.T, t = n - b * w.T;
    B value = {};
    if (w.backward) {
      if (t < w.T - 1 && !w.border(b, t + 1)) value = from[i + units];
    } else if (t > 0) {
      if (!w.border(b, t)) value = from[i - units];
    } else if (seen) {
      value = ((const B *)w.history)[b * units + i % units];
    }
    ((B *)w.out)[i] = value;
  }
}

static void previous(const kp_call *call, const kp_walk &w) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const int bytes = w.pitch * (kp_is_half(call) ? 2 : 4);
  const int most = 16 * cuda->processors;
  if (bytes % 16 == 0)
    previous_kernel<uint4>
        <<<kp_blocks(w.rows * (bytes / 16), 256, most), 256, 0, cuda->stream>>>(w, bytes / 16);
  else
    previous_kernel<uint16_t>
        <<<kp_blocks(w.rows * (bytes / 2), 256, most), 256, 0, cuda->stream>>>(w, bytes / 2);
}

/* ---- the mean ---- */

/* What row t adds to the running sum: itself, or its gradient over the number of rows of its mean, which are
 * those from row `document` on. */
template <typename T, int V>
__device__ static void add_row(const kp_walk &w, int64_t b, int t, int document, int c, double sum[V]) {
  if (w.backward && t == document) return;
  const kp_vector<T, V> row =
      kp_load_vector<T, V>(w.backward ? w.g : w.stream, (b * w.T + t) * w.pitch + c, true);
  const double share = w.backward ? 1 / (double)(t - document) : 1;
#pragma unroll
  for (int k = 0; k < V; k++) sum[k] += share * (double)row[k];
}

/* The place of a thread: V channels of a segment of a sequence. */
struct place {
  int64_t b;
  int segment, segments, c;
  bool there;
};

template <int V> __device__ static place place_of(const kp_walk &w) {
  const int packs = w.pitch / V, segments = (w.T + SEGMENT - 1) / SEGMENT;
  const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, row = i / packs;
  return place{row / segments, (int)(row % segments), segments, (int)(i % packs) * V,
               row < w.rows / w.T * segments};
}

template <typename T, int V> __global__ static void segment_sums_kernel(const kp_walk w) {
  const place at = place_of<V>(w);
  if (!at.there) return;
  double sum[V] = {};
  const int first = at.segment * SEGMENT, last = first + SEGMENT < w.T ? first + SEGMENT : w.T;
  int document = w.first_of(at.b, first);
#pragma unroll 8
  for (int t = first; t < last; t++) {
    if (t > first && w.border(at.b, t)) document = t;
    add_row<T, V>(w, at.b, t, document, at.c, sum);
  }
  double *to = (double *)w.scratch + (at.b * at.segments + at.segment) * w.pitch + at.c;
#pragma unroll
  for (int k = 0; k < V; k++) to[k] = sum[k];
}

template <typename T, int V>
__device__ static void store_share(const kp_walk &w, int64_t n, int c, const double sum[V], double share) {
  float value[V];
#pragma unroll
  for (int k = 0; k < V; k++) value[k] = (float)(sum[k] * share);
  *(kp_vector<T, V> *)((T *)w.out + n * w.pitch + c) = kp_to_vector<T, V>(value);
}

/* Adds rows [from, to) of one document: whole segments by their sums, the others one by one. */
template <typename T, int V>
__device__ static void add_rows(const kp_walk &w, const place &at, int from, int to, int document,
                                double sum[V]) {
  const double *segments = (const double *)w.scratch + at.b * at.segments * w.pitch + at.c;
  for (int t = from; t < to;) {
    if (t % SEGMENT == 0 && (t + SEGMENT <= to || to == w.T)) {
      for (int k = 0; k < V; k++) sum[k] += segments[(int64_t)(t / SEGMENT) * w.pitch + k];
      t += SEGMENT;
    } else {
      add_row<T, V>(w, at.b, t, document, at.c, sum);
      t++;
    }
  }
}

/* From behind: what the rows behind the segment give, and then its own. */
template <typename T, int V>
__device__ static void means_backward(const kp_walk &w, const place &at, int first, int last) {
  double sum[V] = {};
  int document = w.first_of(at.b, last - 1);
  add_rows<T, V>(w, at, last, w.end_of(at.b, last - 1), document, sum);
  for (int t = last - 1; t >= first; t--) {
    store_share<T, V>(w, at.b * w.T + t, at.c, sum, 1);
    add_row<T, V>(w, at.b, t, document, at.c, sum);
    if (t > document || t == first) continue;
    document = w.first_of(at.b, t - 1);
    for (int k = 0; k < V; k++) sum[k] = 0;
  }
}

template <typename T, int V> __global__ static void means_kernel(const kp_walk w) {
  const place at = place_of<V>(w);
  if (!at.there) return;
  double sum[V] = {};
  const int64_t before = w.before();
  const int first = at.segment * SEGMENT, last = first + SEGMENT < w.T ? first + SEGMENT : w.T;
  if (w.backward) {
    means_backward<T, V>(w, at, first, last);
    return;
  }
  int document = w.first_of(at.b, first);
  if (before > 0) {
    const kp_vector<T, V> mean = kp_load_vector<T, V>(w.history, at.b * w.pitch + at.c, true);
    for (int k = 0; k < V; k++) sum[k] = (double)before * (double)mean[k];
  }
  add_rows<T, V>(w, at, document, first, document, sum);
  for (int t = first; t < last; t++) {
    if (t > first && w.border(at.b, t)) {
      document = t;
      for (int k = 0; k < V; k++) sum[k] = 0;
    }
    const int64_t past = before + t - document;
    store_share<T, V>(w, at.b * w.T + t, at.c, sum, past > 0 ? 1 / (double)past : 0);
    add_row<T, V>(w, at.b, t, document, at.c, sum);
  }
}

template <typename T, int V> static void mean_by_width(const kp_call *call, const kp_walk &w) {
  const int64_t threads = w.rows / w.T * ((w.T + SEGMENT - 1) / SEGMENT) * (w.pitch / V);
  const cudaStream_t stream = kp_cuda_of(call)->stream;
  segment_sums_kernel<T, V><<<kp_blocks(threads, 128), 128, 0, stream>>>(w);
  means_kernel<T, V><<<kp_blocks(threads, 128), 128, 0, stream>>>(w);
}

static void mean(const kp_call *call, const kp_walk &w) {
  const bool whole = whole_vectors(call, w);
  if (kp_is_half(call) && whole)
    mean_by_width<kp_half, 2>(call, w);
  else if (kp_is_half(call))
    mean_by_width<kp_half, 1>(call, w);
  else if (whole)
    mean_by_width<float, 2>(call, w);
  else
    mean_by_width<float, 1>(call, w);
}

/* ---- the operators ---- */

static const kp_reference_arguments *arguments_of(const kp_node *node) {
  return (const kp_reference_arguments *)node->arguments;
}

static size_t mean_scratch(const kp_node *node) {
  const int64_t T = arguments_of(node)->length, rows = kp_tensor_rows(node->input[0]);
  const int64_t segments = (T + SEGMENT - 1) / SEGMENT;
  return (size_t)(rows / T * segments * kp_pitch(node->input[0])) * sizeof(double);
}

extern "C" size_t kp_cuda_scratch_reference(const kp_node *node, int threads) {
  (void)threads;
  return arguments_of(node)->kind == KP_REFERENCE_MEAN ? mean_scratch(node) : 0;
}

extern "C" kp_status kp_cuda_reference(const kp_call *call, kp_error *error) {
  const kp_walk w = walk_of(call, true);
  if (w.rows == 0) return KP_OK;
  switch (arguments_of(call->node)->kind) {
  case KP_REFERENCE_PREVIOUS: previous(call, w); break;
  case KP_REFERENCE_MEAN: mean(call, w); break;
  case KP_REFERENCE_MIDPOINT: return kp_reference_midpoint(call, w, error);
  }
  return kp_launched(call, error);
}

/* Of a midpoint: gradients of κ, what each row's window passes on, and each row's mean vector. */
extern "C" size_t kp_cuda_scratch_reference_backward(const kp_node *node, int threads) {
  (void)threads;
  const size_t rows = (size_t)kp_tensor_rows(node->input[0]);
  const size_t groups = node->input[1] == NULL ? 1 : (size_t)kp_tensor_columns(node->input[1]);
  if (arguments_of(node)->kind == KP_REFERENCE_MEAN) return mean_scratch(node);
  if (arguments_of(node)->kind == KP_REFERENCE_PREVIOUS) return 0;
  return rows * groups * 4 * sizeof(double) +
         rows * (size_t)kp_tensor_columns(node->input[0]) * sizeof(float);
}

extern "C" kp_status kp_cuda_reference_backward(const kp_call *call, kp_error *error) {
  const kp_walk w = walk_of(call, false);
  if (w.rows == 0) return KP_OK;
  switch (arguments_of(call->node)->kind) {
  case KP_REFERENCE_PREVIOUS: previous(call, w); break;
  case KP_REFERENCE_MEAN: mean(call, w); break;
  case KP_REFERENCE_MIDPOINT: return kp_reference_midpoint_backward(call, w, error);
  }
  return kp_launched(call, error);
}
