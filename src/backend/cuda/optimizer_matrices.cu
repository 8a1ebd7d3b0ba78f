/* Matrices that are stepped as a whole: by Muon, or so that they keep their Frobenius norm.
 *
 * Those of one shape go together: element kernels have a row of blocks for each matrix, products are batched.
 * The momentum's look-ahead is not stored on its way to the first product: it is made once for its norm and
 * once more for the product, which costs 8 bytes an element and saves 8 of scratch memory. */
#include "backend/cuda/optimizer.cuh"
#include "backend/cuda/products.h"

enum { THREADS = 256 };

/* Matrices of one class that are worked on together, as their kernels see them. */
struct matrices {
  const int64_t *at; /* where they start */
  int64_t size, part;
  int parts;
  int64_t pitch, x_pitch, x_size; /* of the flat buffers' rows; of the products' */
  double *sums;                   /* two of each part of each matrix */
};

/* This thread's elements of this block's part, W at a time: `work` gets the number within the matrix. */
template <int W, typename Work> static __device__ void for_part(const matrices &m, Work work) {
  const int64_t first = (int64_t)blockIdx.x * m.part;
  const int64_t last = first + m.part < m.size ? first + m.part : m.size;
#pragma unroll 2
  for (int64_t i = first + (int64_t)threadIdx.x * W; i < last; i += THREADS * W) work(i);
}

static __device__ bool is_aligned(const matrices &m, int64_t at) {
  return (at | m.size) % 4 == 0 && m.pitch == m.x_pitch;
}

/* Where the products have element i of matrix number blockIdx.y. */
static __device__ int64_t product_place(const matrices &m, int64_t i) {
  const int64_t in_matrix = m.pitch == m.x_pitch ? i : i / m.pitch * m.x_pitch + i % m.pitch;
  return blockIdx.y * m.x_size + in_matrix;
}

/* ---- sums of squares, before and after ---- */

static __device__ void write_sums(const matrices &m, double first, double second) {
  __shared__ double shared[32];
  double *sums = m.sums + ((int64_t)blockIdx.y * m.parts + blockIdx.x) * 2;
  first = kp_block_sum(first, shared);
  __syncthreads();
  second = kp_block_sum(second, shared);
  if (threadIdx.x > 0) return;
  sums[0] = first;
  sums[1] = second;
}

/* A matrix' sum over its parts: there are at most as many as threads. */
static __device__ double read_sum(const matrices &m, int which) {
  __shared__ double shared[32];
  const double *sums = m.sums + (int64_t)blockIdx.y * m.parts * 2 + which;
  __syncthreads();
  return kp_block_sum((int)threadIdx.x < m.parts ? sums[2 * threadIdx.x] : 0.0, shared);
}
static_assert((int)KP_MATRIX_PARTS <= (int)THREADS, "a thread adds one part at most");

template <int W> static __device__ double square_sum(const kp_span<W> &span) {
  double sum = 0;
#pragma unroll
  for (int i = 0; i < W; i++) sum += (double)span.at[i] * span.at[i];
  return sum;
}

/* ---- AdamW that keeps the norm ---- */

/* 32 bytes an element. */
template <int W>
static __device__ void adamw_part(const kp_flat &flat, const matrices &m, int64_t start,
                                  const kp_adamw_numbers &f) {
  double before = 0, after = 0;
  for_part<W>(m, [&](int64_t i) {
    const int64_t at = start + i;
    const kp_span<W> value = kp_take<W>(flat.values + at), gradient = kp_take<W>(flat.gradients + at);
    kp_span<W> mean = kp_take<W>(flat.moment1 + at), square = kp_take<W>(flat.moment2 + at);
    const kp_span<W> next = kp_adamw<W>(f, value, gradient, mean, square);
    before += square_sum<W>(value);
    after += square_sum<W>(next);
    kp_put<W>(flat.values + at, next);
    kp_put<W>(flat.moment1 + at, mean);
    kp_put<W>(flat.moment2 + at, square);
    kp_clear<W>(flat.gradients + at);
  });
  write_sums(m, before, after);
}

static __global__ void __launch_bounds__(THREADS)
    adamw_kernel(kp_flat flat, matrices m, const kp_optimizer_state *state, const kp_adamw_numbers *table) {
  const int64_t start = m.at[blockIdx.y];
  kp_adamw_numbers numbers = table[KP_GROUP_DECAY];
  numbers.keep = 1;
  if (!state->take)
    for_part<1>(m, [&](int64_t i) { flat.gradients[start + i] = 0; });
  else if (is_aligned(m, start))
    adamw_part<4>(flat, m, start, numbers);
  else
    adamw_part<1>(flat, m, start, numbers);
}

/* Back to the norm before the step, unless nothing is left that could have one; 10 bytes an element. */
template <int W>
static __device__ void rescale_part(const kp_flat &flat, const matrices &m, int64_t start, double factor) {
  for_part<W>(m, [&](int64_t i) {
    kp_span<W> value = kp_take<W>(flat.values + start + i);
#pragma unroll
    for (int j = 0; j < W; j++) value.at[j] = (float)(factor * value.at[j]);
    kp_put_values<W>(flat, start + i, value);
  });
}

static __global__ void __launch_bounds__(THREADS)
    rescale_kernel(kp_flat flat, matrices m, const kp_optimizer_state *state) {
  const int64_t start = m.at[blockIdx.y];
  if (!state->take) return;
  const double before = read_sum(m, 0), after = read_sum(m, 1);
  const double factor = after > 0 ? sqrt(before) / sqrt(after) : 1;
  if (is_aligned(m, start))
    rescale_part<4>(flat, m, start, factor);
  else
    rescale_part<1>(flat, m, start, factor);
}

/* ---- Muon ---- */

/* The momentum from now on, in `moment`; returns what is made orthogonal. */
template <int W>
static __device__ kp_span<W> look_ahead(const kp_span<W> &gradient, const kp_span<W> &moment, float momentum,
                                        float scale, bool nesterov) {
  kp_span<W> x;
#pragma unroll
  for (int i = 0; i < W; i++)
    x.at[i] = nesterov ? (1 - momentum) * (scale * gradient.at[i]) + momentum * moment.at[i] : moment.at[i];
  return x;
}

/* The first moment's step, and Σ x²: 12 bytes an element. */
template <int W>
static __device__ void momentum_part(const kp_flat &flat, const matrices &m, int64_t start,
                                     const kp_muon_options &o, float scale) {
  const float momentum = (float)o.momentum;
  double sum = 0;
  for_part<W>(m, [&](int64_t i) {
    const kp_span<W> gradient = kp_take<W>(flat.gradients + start + i);
    kp_span<W> moment = kp_take<W>(flat.moment1 + start + i);
#pragma unroll
    for (int j = 0; j < W; j++)
      moment.at[j] = momentum * moment.at[j] + (1 - momentum) * (scale * gradient.at[j]);
    kp_put<W>(flat.moment1 + start + i, moment);
    sum += square_sum<W>(look_ahead<W>(gradient, moment, momentum, scale, o.nesterov));
  });
  write_sums(m, sum, 0);
}

static __global__ void __launch_bounds__(THREADS)
    momentum_kernel(kp_flat flat, matrices m, const kp_optimizer_state *state, kp_muon_options o) {
  const int64_t start = m.at[blockIdx.y];
  const float scale = (float)state->gradient_scale;
  if (!state->take) return;
  if (is_aligned(m, start))
    momentum_part<4>(flat, m, start, o, scale);
  else
    momentum_part<1>(flat, m, start, o, scale);
}

/* x over its norm, as the products want it, and the gradient's end: 12 bytes an element and the result. */
template <int W, typename T>
static __device__ void normalise_part(const kp_flat &flat, const matrices &m, int64_t start,
                                      const kp_muon_options &o, float scale, double factor, T *x) {
  for_part<W>(m, [&](int64_t i) {
    const kp_span<W> gradient = kp_take<W>(flat.gradients + start + i);
    const kp_span<W> moment = kp_take<W>(flat.moment1 + start + i);
    kp_span<W> result = look_ahead<W>(gradient, moment, (float)o.momentum, scale, o.nesterov);
#pragma unroll
    for (int j = 0; j < W; j++) result.at[j] = (float)(factor * result.at[j]);
    kp_put<W>(x + product_place(m, i), result);
    kp_clear<W>(flat.gradients + start + i);
  });
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    normalise_kernel(kp_flat flat, matrices m, const kp_optimizer_state *state, kp_muon_options o, T *x) {
  const double NORM_SHIFT = 1e-7;
  const int64_t start = m.at[blockIdx.y];
  const float scale = (float)state->gradient_scale;
  if (!state->take) {
    for_part<1>(m, [&](int64_t i) {
      flat.gradients[start + i] = 0;
      kp_put<1>(x + product_place(m, i), kp_span<1>{});
    });
    return;
  }
  const double factor = 1 / (sqrt(read_sum(m, 0)) + NORM_SHIFT);
  if (is_aligned(m, start))
    normalise_part<4>(flat, m, start, o, scale, factor, x);
  else
    normalise_part<1>(flat, m, start, o, scale, factor, x);
}

/* p ← keep p - step x; with the norms before and after where it is kept.  8 bytes an element, the narrow
 * value and x. */
template <int W, typename T>
static __device__ void apply_part(const kp_flat &flat, const matrices &m, int64_t start, float keep,
                                  float step, bool keeps_norm, const T *x) {
  double before = 0, after = 0;
  for_part<W>(m, [&](int64_t i) {
    const kp_span<W> value = kp_take<W>(flat.values + start + i);
    const kp_span<W> direction = kp_take<W>(x + product_place(m, i));
    kp_span<W> next;
#pragma unroll
    for (int j = 0; j < W; j++) next.at[j] = keep * value.at[j] - step * direction.at[j];
    kp_put_values<W>(flat, start + i, next);
    if (!keeps_norm) return;
    before += square_sum<W>(value);
    after += square_sum<W>(next);
  });
  if (keeps_norm) write_sums(m, before, after);
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    apply_kernel(kp_flat flat, matrices m, const kp_optimizer_state *state, kp_muon_options o,
                 double shape_factor, bool keeps_norm, const T *x) {
  const int64_t start = m.at[blockIdx.y];
  const double rate = o.learning_rate * state->rate_factor;
  const float keep = (float)(1 - (keeps_norm ? 0 : rate * o.weight_decay));
  const float step = (float)(rate * shape_factor);
  if (!state->take) return;
  if (is_aligned(m, start))
    apply_part<4>(flat, m, start, keep, step, keeps_norm, x);
  else
    apply_part<1>(flat, m, start, keep, step, keeps_norm, x);
}

/* ---- the iteration of Newton and Schulz (optim/orthogonalize.h) ---- */

/* B = a + b A + c A² is made of b A by the second product, and the diagonal is added last. */
static const float FIRST = 3.4445f, SECOND = -4.7750f, THIRD = 2.0315f;

template <typename T>
static __global__ void add_diagonal_kernel(T *b, int64_t side, int64_t pitch, int64_t size, float what) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  T *at = b + blockIdx.y * size + i * pitch + i;
  if (i < side) *at = kp_from_float<T>(kp_to_float(*at) + what);
}

static int64_t padded(int64_t columns) {
  return (columns + 7) / 8 * 8;
}

/* The products' matrices, one behind the other: [ X | Y | A | B ], each as often as matrices go together. */
struct product_sizes {
  int64_t x_pitch, x, side, side_pitch, square; /* elements of one X, of one A */
};

static product_sizes sizes_of(const kp_matrix_class *c) {
  product_sizes s;
  s.x_pitch = padded(c->columns);
  s.x = c->rows * s.x_pitch;
  s.side = c->rows < c->columns ? c->rows : c->columns;
  s.side_pitch = padded(s.side);
  s.square = s.side * s.side_pitch;
  s.x = padded(s.x);
  return s;
}

size_t kp_muon_bytes(const kp_matrix_class *c, bool half) {
  const product_sizes s = sizes_of(c);
  if (!c->muon) return 0;
  return (size_t)(2 * (s.x + s.square)) * (size_t)c->together * (half ? sizeof(kp_half) : sizeof(float));
}

/* One iteration's products; all of one type. */
struct iteration {
  kp_cuda *cuda;
  product_sizes sizes;
  int64_t rows, columns;
  bool tall;
  int together;
  cudaDataType_t type;
};

static kp_product product_of(const iteration &it, int64_t m, int64_t n, int64_t k) {
  kp_product p = {};
  p.m = m;
  p.n = n;
  p.k = k;
  p.type = p.result = it.type;
  p.alpha = 1;
  p.batch = it.together;
  return p;
}

/* c = alpha · x xᵀ + beta · c, or of xᵀ x where `tall`. */
static kp_status gram(const iteration &it, const void *x, bool tall, int64_t depth, int64_t pitch,
                      int64_t stride, float alpha, float beta, void *c, kp_error *error) {
  kp_product p = product_of(it, it.sizes.side, it.sizes.side, depth);
  p.a = p.b = x;
  p.c = c;
  p.lda = p.ldb = pitch;
  p.ldc = it.sizes.side_pitch;
  p.a_transposed = tall;
  p.b_transposed = !tall;
  p.alpha = alpha;
  p.beta = beta;
  p.stride_a = p.stride_b = stride;
  p.stride_c = it.sizes.square;
  return kp_multiply(it.cuda, &p, error);
}

/* y = b x, or x b where `tall`. */
static kp_status apply_square(const iteration &it, const void *b, const void *x, void *y, kp_error *error) {
  const product_sizes &s = it.sizes;
  kp_product p = product_of(it, it.rows, it.columns, s.side);
  p.a = it.tall ? x : b;
  p.b = it.tall ? b : x;
  p.c = y;
  p.lda = it.tall ? s.x_pitch : s.side_pitch;
  p.ldb = it.tall ? s.side_pitch : s.x_pitch;
  p.ldc = s.x_pitch;
  p.stride_a = it.tall ? s.x : s.square;
  p.stride_b = it.tall ? s.square : s.x;
  p.stride_c = s.x;
  return kp_multiply(it.cuda, &p, error);
}

/* The iterate goes to and fro between x and y; *x is where it ends. */
template <typename T> static kp_status iterate(const iteration &it, int steps, T **x, T *y, kp_error *error) {
  const product_sizes &s = it.sizes;
  const cudaStream_t stream = it.cuda->stream;
  T *a = (*x < y ? y : *x) + s.x * it.together, *b = a + s.square * it.together;
  for (int step = 0; step < steps; step++) {
    KP_TRY(gram(it, *x, it.tall, it.tall ? it.rows : it.columns, s.x_pitch, s.x, 1, 0, a, error));
    KP_TRY(kp_cuda_check(
        cudaMemcpyAsync(b, a, (size_t)(s.square * it.together) * sizeof(T), cudaMemcpyDeviceToDevice, stream),
        "the optimizer's step", error));
    KP_TRY(gram(it, a, false, s.side, s.side_pitch, s.square, THIRD, SECOND, b, error));
    const dim3 grid((unsigned)kp_blocks(s.side, THREADS), (unsigned)it.together);
    add_diagonal_kernel<T><<<grid, THREADS, 0, stream>>>(b, s.side, s.side_pitch, s.square, FIRST);
    KP_TRY(apply_square(it, b, *x, y, error));
    T *other = *x;
    *x = y;
    y = other;
  }
  return kp_optimizer_launched(error);
}

/* ---- a class ---- */

template <typename T>
static kp_status muon_step(kp_cuda_optimizer *o, const kp_matrix_class *c, const matrices &m, int together,
                           kp_error *error) {
  const iteration it = {o->cuda,
                        sizes_of(c),
                        c->rows,
                        c->columns,
                        c->rows > c->columns,
                        together,
                        sizeof(T) == 2 ? CUDA_R_16BF : CUDA_R_32F};
  const dim3 grid((unsigned)c->parts, (unsigned)together);
  const cudaStream_t stream = o->cuda->stream;
  const double shape = (double)c->rows / (double)c->columns;
  T *x = (T *)o->products, *y = x + it.sizes.x * together;
  momentum_kernel<<<grid, THREADS, 0, stream>>>(o->flat, m, o->state, o->options.muon);
  normalise_kernel<T><<<grid, THREADS, 0, stream>>>(o->flat, m, o->state, o->options.muon, x);
  KP_TRY(iterate<T>(it, o->options.muon.steps, &x, y, error));
  apply_kernel<T><<<grid, THREADS, 0, stream>>>(o->flat, m, o->state, o->options.muon,
                                                sqrt(shape > 1 ? shape : 1), c->keeps_norm, x);
  return kp_optimizer_launched(error);
}

static kp_status submit_together(kp_cuda_optimizer *o, const kp_matrix_class *c, int first, int together,
                                 kp_error *error) {
  const product_sizes s = sizes_of(c);
  const matrices m = {o->matrices.at + c->first + first,
                      c->rows * c->pitch,
                      c->part,
                      c->parts,
                      c->pitch,
                      c->muon ? s.x_pitch : c->pitch,
                      s.x,
                      o->matrix_sums};
  const dim3 grid((unsigned)c->parts, (unsigned)together);
  if (!c->muon)
    adamw_kernel<<<grid, THREADS, 0, o->cuda->stream>>>(o->flat, m, o->state, o->numbers);
  else if (o->half)
    KP_TRY(muon_step<kp_half>(o, c, m, together, error));
  else
    KP_TRY(muon_step<float>(o, c, m, together, error));
  if (c->keeps_norm) rescale_kernel<<<grid, THREADS, 0, o->cuda->stream>>>(o->flat, m, o->state);
  return kp_optimizer_launched(error);
}

kp_status kp_optimizer_submit_class(kp_cuda_optimizer *o, const kp_matrix_class *c, kp_error *error) {
  for (int first = 0; first < c->count; first += c->together) {
    const int left = c->count - first;
    KP_TRY(submit_together(o, c, first, left < c->together ? left : c->together, error));
  }
  return KP_OK;
}
