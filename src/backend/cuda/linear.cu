/* Linear maps and their gradients: products of cuBLASLt, and what they leave to do.
 *
 * Rows are padded with zeros on both sides of a product, and rows of zeros stand behind a matrix and behind
 * its gradient: depths and widths may include the padding.  In bfloat16 they do, because cuBLASLt is several
 * times slower where a size is no multiple of 8. */
#include "backend/cuda/linear_few.cuh"
#include "backend/cuda/products.h"

/* ---- laying terms into the output ---- */

struct laying {
  kp_linear_terms terms;
  int64_t rows, columns, pitch;
};

/* y = b + time · time weightᵀ, zero in the padding: N M sizeof(T) bytes written.  A thread writes V columns
 * of eight rows. */
template <typename T, int V>
static __global__ void __launch_bounds__(KP_STRIP_THREADS) lay_kernel(T *y, laying l) {
  const kp_linear_terms &t = l.terms;
  const int64_t column = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * V;
  const int64_t first = ((int64_t)blockIdx.x * blockDim.y + threadIdx.y) * KP_EIGHT;
  if (column >= l.pitch || first >= l.rows) return;
  float bias[V] = {}, sum[KP_EIGHT][V];
  if (t.bias.at != NULL) kp_take_numbers<V>(t.bias, column, 1, l.columns - column, bias);
  for (int r = 0; r < KP_EIGHT; r++)
    for (int i = 0; i < V; i++) sum[r][i] = bias[i];
  for (int64_t g = 0; g < t.groups; g++) {
    float time[KP_EIGHT], weight[V];
    kp_take_numbers<KP_EIGHT>(t.time, first * t.time_pitch + g, t.time_pitch, l.rows - first, time);
    kp_take_numbers<V>(t.time_weight, column * t.weight_pitch + g, t.weight_pitch, l.columns - column,
                       weight);
    for (int r = 0; r < KP_EIGHT; r++)
      for (int i = 0; i < V; i++) sum[r][i] += time[r] * weight[i];
  }
  for (int r = 0; r < KP_EIGHT && first + r < l.rows; r++) {
    kp_columns<T, V> row;
    for (int i = 0; i < V; i++) row.value[i] = kp_from_float<T>(sum[r][i]);
    *(kp_columns<T, V> *)(y + (first + r) * l.pitch + column) = row;
  }
}

template <typename T, int V> static void lay(const kp_call *call, const laying *l) {
  const kp_row_cut cut = kp_cut_row(l->pitch, V);
  const dim3 block((unsigned)cut.threads, (unsigned)(KP_STRIP_THREADS / cut.threads));
  const dim3 grid((unsigned)kp_blocks(l->rows, block.y * KP_EIGHT), (unsigned)cut.tiles);
  lay_kernel<T, V><<<grid, block, 0, kp_cuda_of(call)->stream>>>((T *)call->output[0], *l);
}

static void lay_terms(const kp_call *call, const kp_few_rows *f) {
  const laying l = {f->terms, f->rows, f->columns, f->y_pitch};
  const bool whole = f->y_pitch % KP_CUDA_ROW_MULTIPLE == 0;
  if (kp_is_half(call))
    whole ? lay<kp_half, 8>(call, &l) : lay<kp_half, 1>(call, &l);
  else
    whole ? lay<float, 4>(call, &l) : lay<float, 1>(call, &l);
}

/* The padding of the rows of y: a few bytes a row. */
template <typename T>
static __global__ void clear_padding_kernel(T *y, int64_t rows, int64_t columns, int64_t pitch) {
  const int64_t width = pitch - columns, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < rows * width) y[i / width * pitch + columns + i % width] = kp_from_float<T>(0);
}

static void clear_padding(const kp_call *call, void *y, int64_t rows, int64_t columns, int64_t pitch) {
  const int blocks = kp_blocks(rows * (pitch - columns), 256);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (columns == pitch || rows == 0) return;
  if (kp_is_half(call))
    clear_padding_kernel<<<blocks, 256, 0, stream>>>((kp_half *)y, rows, columns, pitch);
  else
    clear_padding_kernel<<<blocks, 256, 0, stream>>>((float *)y, rows, columns, pitch);
}

/* ---- forward ---- */

static cudaDataType_t type_of(const kp_call *call, const kp_tensor *tensor) {
  return kp_tensor_is_half(call, tensor) ? CUDA_R_16BF : CUDA_R_32F;
}

static kp_linear_terms terms_of(const kp_call *call) {
  const kp_node *node = call->node;
  kp_linear_terms terms = {};
  terms.bias = kp_input_numbers(call, 2);
  if (node->inputs < 5 || call->input[3] == NULL) return terms;
  terms.time = kp_input_numbers(call, 3);
  terms.time_weight = kp_input_numbers(call, 4);
  terms.groups = kp_tensor_columns(node->input[3]);
  terms.time_pitch = kp_pitch(node->input[3]);
  terms.weight_pitch = node->input[4]->dimensions < 2 ? terms.groups : kp_pitch(node->input[4]);
  return terms;
}

/* Outputs that a product makes or reads: M, or, where rows of zeros stand behind the matrix, as many as a row
 * of y has in memory. */
static int64_t outputs_of(const kp_call *call, const kp_tensor *matrix, int64_t M, int64_t pitch) {
  return kp_is_half(call) && kp_stored_rows(matrix) >= pitch ? pitch : M;
}

/* Leading dimensions that both have room for the padded depth. */
static int64_t depth_of(int64_t K, int64_t a, int64_t b) {
  return a == b ? a : K;
}

/* y = x Wᵀ of so many outputs, with the terms that are not laid. */
static kp_status multiply(const kp_call *call, const kp_few_rows *f, int64_t outputs, kp_error *error) {
  const kp_node *node = call->node;
  const bool timed = f->terms.groups > 0;
  kp_product p = {};
  p.m = f->rows, p.n = outputs, p.k = f->depth;
  p.a = f->x, p.b = f->w, p.c = f->y;
  p.lda = f->x_pitch, p.ldb = f->w_pitch, p.ldc = f->y_pitch;
  p.b_transposed = true;
  p.type = type_of(call, node->input[0]);
  p.result = type_of(call, node->output[0]);
  p.alpha = 1;
  p.beta = timed ? 1 : 0;
  p.bias = timed ? NULL : f->terms.bias.at;
  p.bias_half = f->terms.bias.half;
  p.bias_count = f->columns;
  if (!timed && p.n < p.ldc) clear_padding(call, f->y, f->rows, f->columns, f->y_pitch);
  KP_TRY(kp_launched(call, error));
  return kp_multiply(kp_cuda_of(call), &p, error);
}

extern "C" size_t kp_cuda_scratch_linear(const kp_node *node, int threads) {
  (void)threads;
  if (node->inputs < 5 || node->input[3] == NULL) return 0;
  const int64_t M = node->input[1]->shape[0], K = node->input[1]->shape[1];
  const int64_t depth = kp_points_depth(M, K, kp_tensor_columns(node->input[3]), node->input[2] != NULL);
  return kp_points_scratch(kp_tensor_rows(node->input[0]), M, depth);
}

kp_few_rows kp_few_rows_of(const kp_call *call) {
  const kp_node *node = call->node;
  kp_few_rows f = {};
  f.x = call->input[0], f.w = call->input[1], f.y = call->output[0];
  f.rows = kp_tensor_rows(node->input[0]);
  f.columns = node->input[1]->shape[0];
  f.x_pitch = kp_pitch(node->input[0]);
  f.w_pitch = kp_pitch(node->input[1]);
  f.y_pitch = kp_pitch(node->output[0]);
  f.depth = depth_of(node->input[1]->shape[1], f.x_pitch, f.w_pitch);
  f.terms = terms_of(call);
  return f;
}

extern "C" kp_status kp_cuda_linear(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  kp_few_rows f = kp_few_rows_of(call);
  if (f.rows == 0 || f.columns == 0) return KP_OK;
  if (kp_few_rows_fit(&f)) return kp_linear_few(call, &f, error);
  if (kp_some_rows_fit(call, &f)) {
    kp_few_linear some = {};
    some.map = f;
    return kp_linear_some(call, &some, error);
  }
  const int64_t K = node->input[1]->shape[1];
  const kp_narrow narrow = {(void *)f.x, f.w, f.y, f.rows, f.columns, f.x_pitch, f.w_pitch, f.y_pitch};
  if (kp_is_half(call) && f.terms.groups == 0 && f.terms.bias.at == NULL && kp_narrow_fits(&narrow))
    return kp_narrow_forward(call, &narrow, error);
  if (kp_is_half(call) && kp_points_fit(&f, K)) {
    KP_TRY(kp_join_points(call, &f, K, call->scratch, error));
    return multiply(call, &f, f.y_pitch, error);
  }
  if (f.terms.groups > 0) lay_terms(call, &f);
  KP_TRY(kp_launched(call, error));
  return multiply(call, &f, outputs_of(call, node->input[1], f.columns, f.y_pitch), error);
}

/* ---- gradients ---- */

static bool adds_to_direct(const kp_call *call) {
  return call->node->inputs > 2 && call->input[2] != NULL;
}

/* What has arrived before is what the product adds to; it mostly stands there already. */
static kp_status lay_direct(const kp_call *call, kp_error *error) {
  const kp_tensor *out = call->node->output[0];
  const size_t size = kp_tensor_is_half(call, out) ? sizeof(kp_half) : sizeof(float);
  if (!adds_to_direct(call) || call->input[2] == call->output[0]) return KP_OK;
  return kp_cuda_check(cudaMemcpyAsync(call->output[0], call->input[2], (size_t)kp_padded_count(out) * size,
                                       cudaMemcpyDeviceToDevice, kp_cuda_of(call)->stream),
                       "linear_backward_input", error);
}

extern "C" kp_status kp_cuda_linear_backward_input(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const int64_t K = node->input[1]->shape[1], rows = kp_tensor_rows(node->input[0]);
  const kp_narrow narrow = {call->output[0],          call->input[1],
                            call->input[0],           rows,
                            node->input[1]->shape[0], kp_pitch(node->output[0]),
                            kp_pitch(node->input[1]), kp_pitch(node->input[0]),
                            adds_to_direct(call)};
  KP_TRY(lay_direct(call, error));
  if (kp_is_half(call) && kp_narrow_fits(&narrow)) return kp_narrow_input(call, &narrow, error);
  kp_product p = {};
  p.m = rows;
  p.k = outputs_of(call, node->input[1], node->input[1]->shape[0], kp_pitch(node->input[0]));
  p.a = call->input[0], p.b = call->input[1], p.c = call->output[0];
  p.lda = kp_pitch(node->input[0]), p.ldb = kp_pitch(node->input[1]), p.ldc = kp_pitch(node->output[0]);
  p.n = depth_of(K, p.ldb, p.ldc); /* the padding of W makes zeros in that of gx */
  p.type = type_of(call, node->input[0]);
  p.result = type_of(call, node->output[0]);
  p.alpha = 1;
  p.beta = narrow.adds ? 1 : 0;
  if (p.n != p.ldc) clear_padding(call, p.c, rows, K, p.ldc);
  KP_TRY(kp_launched(call, error));
  return kp_multiply(kp_cuda_of(call), &p, error);
}

extern "C" size_t kp_cuda_scratch_linear_backward_weight(const kp_node *node, int threads) {
  (void)threads;
  const int64_t rows = kp_tensor_rows(node->input[0]), M = kp_tensor_columns(node->input[0]);
  const size_t sums = node->outputs < 2 || node->output[1] == NULL ? 0 : kp_linear_sums_scratch(rows, M, 0);
  const size_t narrow = M <= KP_MOST_NARROW ? kp_narrow_scratch(rows, M, kp_pitch(node->input[1])) : 0;
  return sums > narrow ? sums : narrow;
}

/* gW += gyᵀ x */
static kp_status add_weight(const kp_call *call, int64_t rows, int64_t M, kp_error *error) {
  const kp_node *node = call->node;
  const int64_t pitch = kp_pitch(node->input[1]);
  const kp_narrow narrow = {call->input[1], call->output[0],           call->input[0],          rows, M,
                            pitch,          kp_pitch(node->output[0]), kp_pitch(node->input[0])};
  if (kp_is_half(call) && kp_narrow_fits(&narrow))
    return kp_narrow_weight(call, &narrow, kp_output_numbers(call, 0), call->scratch, error);
  kp_product p = {};
  p.m = outputs_of(call, node->output[0], M, kp_pitch(node->input[0]));
  p.k = rows;
  p.a = call->input[0], p.b = call->input[1], p.c = call->output[0];
  p.lda = kp_pitch(node->input[0]), p.ldb = kp_pitch(node->input[1]), p.ldc = kp_pitch(node->output[0]);
  p.n = depth_of(kp_tensor_columns(node->input[1]), p.ldb, p.ldc);
  p.a_transposed = true;
  p.type = type_of(call, node->input[0]);
  p.result = type_of(call, node->output[0]);
  p.alpha = p.beta = 1;
  return kp_multiply(kp_cuda_of(call), &p, error);
}

extern "C" kp_status kp_cuda_linear_backward_weight(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const int64_t rows = kp_tensor_rows(node->input[0]), M = kp_tensor_columns(node->input[0]);
  if (rows == 0) return KP_OK;
  if (call->output[0] != NULL) KP_TRY(add_weight(call, rows, M, error));
  if (node->outputs < 2 || call->output[1] == NULL) return KP_OK;
  kp_linear_sums sums = {};
  sums.gy = call->input[0];
  sums.rows = rows;
  sums.columns = M;
  sums.pitch = kp_pitch(node->input[0]);
  sums.bias = kp_output_numbers(call, 1);
  return kp_linear_sum(call, &sums, call->scratch, error);
}

extern "C" size_t kp_cuda_scratch_linear_backward_time(const kp_node *node, int threads) {
  (void)threads;
  return kp_linear_sums_scratch(kp_tensor_rows(node->input[0]), kp_tensor_columns(node->input[0]),
                                kp_tensor_columns(node->input[1]));
}

extern "C" kp_status kp_cuda_linear_backward_time(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const kp_tensor *weight = node->input[2], *weight_gradient = node->output[1];
  kp_linear_sums sums = {};
  sums.gy = call->input[0];
  sums.rows = kp_tensor_rows(node->input[0]);
  sums.columns = kp_tensor_columns(node->input[0]);
  sums.pitch = kp_pitch(node->input[0]);
  sums.groups = kp_tensor_columns(node->input[1]);
  sums.time = kp_input_numbers(call, 1);
  sums.time_weight = kp_input_numbers(call, 2);
  sums.time_pitch = kp_pitch(node->input[1]);
  sums.weight_pitch = weight->dimensions < 2 ? sums.groups : kp_pitch(weight);
  sums.time_gradient = kp_output_numbers(call, 0);
  sums.time_gradient_pitch = node->output[0] == NULL ? 0 : kp_pitch(node->output[0]);
  sums.weight_gradient = kp_output_numbers(call, 1);
  if (weight_gradient != NULL)
    sums.weight_gradient_pitch = weight_gradient->dimensions < 2 ? sums.groups : kp_pitch(weight_gradient);
  sums.bias = kp_output_numbers(call, 2);
  if (sums.rows == 0) return KP_OK;
  return kp_linear_sum(call, &sums, call->scratch, error);
}
