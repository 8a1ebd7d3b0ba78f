/* Matrices that are stepped as a whole: by Muon, or so that they keep their Frobenius norm.
 *
 * Those of one shape go together: a kernel has a row of blocks for each matrix. */
#include "backend/cuda/optimizer_matrices.cuh"

enum { THREADS = KP_MATRIX_PARTS };

/* This thread's elements of this block's part, W at a time: `work` gets the number within the matrix. */
template <int W, typename Work> static __device__ void for_part(const kp_matrices_at &m, Work work) {
  const int64_t first = (int64_t)blockIdx.x * m.part;
  const int64_t last = first + m.part < m.size ? first + m.part : m.size;
#pragma unroll 2
  for (int64_t i = first + (int64_t)threadIdx.x * W; i < last; i += THREADS * W) work(i);
}

static __device__ bool is_aligned(const kp_matrices_at &m, int64_t at) {
  return (at | m.size) % 4 == 0 && m.pitch == m.x_pitch;
}

/* Where the products have element i of matrix number blockIdx.y. */
static __device__ int64_t product_place(const kp_matrices_at &m, int64_t i) {
  const int64_t in_matrix = m.pitch == m.x_pitch ? i : i / m.pitch * m.x_pitch + i % m.pitch;
  return blockIdx.y * m.x_size + in_matrix;
}

static __device__ void write_sum(const kp_matrices_at &m, kp_matrix_sum which, double sum) {
  __shared__ double shared[32];
  __syncthreads();
  sum = kp_block_sum(sum, shared);
  if (threadIdx.x == 0) m.sums[((int64_t)blockIdx.y * KP_MATRIX_SUMS + which) * m.parts + blockIdx.x] = sum;
}

template <int W> static __device__ double square_sum(const kp_span<W> &span) {
  double sum = 0;
#pragma unroll
  for (int i = 0; i < W; i++) sum += (double)span.at[i] * span.at[i];
  return sum;
}

/* ---- AdamW that keeps the norm ---- */

/* 32 bytes an element. */
template <int W>
static __device__ void adamw_part(const kp_flat &flat, const kp_matrices_at &m, int64_t start,
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
  write_sum(m, KP_SUM_BEFORE, before);
  write_sum(m, KP_SUM_AFTER, after);
}

static __global__ void __launch_bounds__(THREADS)
    adamw_kernel(kp_flat flat, kp_matrices_at m, const kp_optimizer_state *state,
                 const kp_adamw_numbers *table) {
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
static __device__ void rescale_part(const kp_flat &flat, const kp_matrices_at &m, int64_t start,
                                    double factor) {
  for_part<W>(m, [&](int64_t i) {
    kp_span<W> value = kp_take<W>(flat.values + start + i);
#pragma unroll
    for (int j = 0; j < W; j++) value.at[j] = (float)(factor * value.at[j]);
    kp_put_values<W>(flat, start + i, value);
  });
}

static __global__ void __launch_bounds__(THREADS)
    rescale_kernel(kp_flat flat, kp_matrices_at m, const kp_optimizer_state *state) {
  const int64_t start = m.at[blockIdx.y];
  if (!state->take) return;
  const double before = kp_read_sum(m, KP_SUM_BEFORE), after = kp_read_sum(m, KP_SUM_AFTER);
  const double factor = after > 0 ? sqrt(before) / sqrt(after) : 1;
  if (is_aligned(m, start))
    rescale_part<4>(flat, m, start, factor);
  else
    rescale_part<1>(flat, m, start, factor);
}

/* ---- Muon ---- */

/* The first moment's step, x as the products want it, Σ x² and the gradient's end: 16 bytes an element and x.
 */
template <int W, typename T>
static __device__ void momentum_part(const kp_flat &flat, const kp_matrices_at &m, int64_t start,
                                     const kp_muon_options &o, float scale, T *x) {
  const float old = (float)o.momentum, fresh = (float)(1 - o.momentum);
  double sum = 0;
  for_part<W>(m, [&](int64_t i) {
    const kp_span<W> gradient = kp_take<W>(flat.gradients + start + i);
    kp_span<W> moment = kp_take<W>(flat.moment1 + start + i), ahead;
#pragma unroll
    for (int j = 0; j < W; j++) {
      const float g = scale * gradient.at[j];
      moment.at[j] = old * moment.at[j] + fresh * g;
      ahead.at[j] = o.nesterov ? fresh * g + old * moment.at[j] : moment.at[j];
    }
    kp_put<W>(flat.moment1 + start + i, moment);
    kp_clear<W>(flat.gradients + start + i);
    kp_put<W>(x + product_place(m, i), ahead);
    sum += square_sum<W>(ahead);
  });
  write_sum(m, KP_SUM_DIRECTION, sum);
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    momentum_kernel(kp_flat flat, kp_matrices_at m, const kp_optimizer_state *state, kp_muon_options o,
                    T *x) {
  const int64_t start = m.at[blockIdx.y];
  const float scale = (float)state->gradient_scale;
  if (!state->take)
    for_part<1>(m, [&](int64_t i) { flat.gradients[start + i] = 0; });
  else if (is_aligned(m, start))
    momentum_part<4>(flat, m, start, o, scale, x);
  else
    momentum_part<1>(flat, m, start, o, scale, x);
}

/* The products' pads, from element i on, are no direction. */
template <int W>
static __device__ void clear_pads(const kp_matrices_at &m, int64_t i, kp_span<W> &direction) {
  const int64_t column = i % m.pitch;
#pragma unroll
  for (int j = 0; j < W; j++)
    if (column + j >= m.columns) direction.at[j] = 0;
}

/* p ← keep p - step x; with the norms before and after where it is kept.  8 bytes an element, the narrow
 * value and x. */
template <int W, bool PADDED, typename T>
static __device__ void apply_part(const kp_flat &flat, const kp_matrices_at &m, int64_t start, float keep,
                                  float step, bool keeps_norm, const T *x) {
  double before = 0, after = 0;
  for_part<W>(m, [&](int64_t i) {
    const kp_span<W> value = kp_take<W>(flat.values + start + i);
    kp_span<W> direction = kp_take<W>(x + product_place(m, i)), next;
    if (PADDED) clear_pads<W>(m, i, direction);
#pragma unroll
    for (int j = 0; j < W; j++) next.at[j] = keep * value.at[j] - step * direction.at[j];
    kp_put_values<W>(flat, start + i, next);
    if (!keeps_norm) return;
    before += square_sum<W>(value);
    after += square_sum<W>(next);
  });
  if (!keeps_norm) return;
  write_sum(m, KP_SUM_BEFORE, before);
  write_sum(m, KP_SUM_AFTER, after);
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    apply_kernel(kp_flat flat, kp_matrices_at m, const kp_optimizer_state *state, kp_muon_options o,
                 double shape_factor, bool keeps_norm, const T *x) {
  const int64_t start = m.at[blockIdx.y];
  const double rate = o.learning_rate * state->rate_factor;
  const float keep = (float)(1 - (keeps_norm ? 0 : rate * o.weight_decay));
  if (!state->take) return;
  const float step = (float)(rate * shape_factor * kp_muon_normaliser(m));
  if (!is_aligned(m, start))
    apply_part<1, true>(flat, m, start, keep, step, keeps_norm, x);
  else if (m.columns < m.pitch)
    apply_part<4, true>(flat, m, start, keep, step, keeps_norm, x);
  else
    apply_part<4, false>(flat, m, start, keep, step, keeps_norm, x);
}

/* ---- a class ---- */

template <typename T>
static kp_status muon_step(kp_cuda_optimizer *o, const kp_matrix_class *c, const kp_matrices_at &m,
                           int together, kp_error *error) {
  const dim3 grid((unsigned)c->parts, (unsigned)together);
  const cudaStream_t stream = o->cuda->stream;
  const double shape = (double)c->rows / (double)c->columns;
  const void *x;
  momentum_kernel<T><<<grid, THREADS, 0, stream>>>(o->flat, m, o->state, o->options.muon, (T *)o->products);
  KP_TRY(kp_optimizer_orthogonalize(o, c, m, together, &x, error));
  apply_kernel<T><<<grid, THREADS, 0, stream>>>(o->flat, m, o->state, o->options.muon,
                                                sqrt(shape > 1 ? shape : 1), c->keeps_norm, (const T *)x);
  return kp_optimizer_launched(error);
}

static kp_status submit_together(kp_cuda_optimizer *o, const kp_matrix_class *c, int first, int together,
                                 kp_error *error) {
  const kp_product_sizes s = kp_product_sizes_of(c);
  const dim3 grid((unsigned)c->parts, (unsigned)together);
  const kp_matrices_at m = {o->matrices.at + c->first + first,
                            c->rows * c->pitch,
                            c->part,
                            c->parts,
                            c->columns,
                            c->pitch,
                            c->muon ? s.x_pitch : c->pitch,
                            s.x,
                            o->matrix_sums};
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
