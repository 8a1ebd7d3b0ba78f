/* The iteration of Newton and Schulz on matrices of one shape (optim/orthogonalize.h):
 *
 *   A = s² X Xᵀ          B = a + b A + c A²          X ← B X
 *
 * The first two products are symmetric.  cuBLASLt has no product that makes half of a matrix, so large ones
 * are made strip by strip, each as wide as the triangle is there, and mirrored: with n strips (n + 1) / 2n of
 * the work.  4 side² (long + side / 2) operations a matrix and step, bound by the matrix units; the passes
 * between the products move 6 bytes (bfloat16) an element of A. */
#include "backend/cuda/optimizer_matrices.cuh"
#include "backend/cuda/products.h"

static const float FIRST = 3.4445f, SECOND = -4.7750f, THIRD = 2.0315f;

enum { THREADS = KP_MATRIX_PARTS, TILE = 64 };

static int64_t padded(int64_t columns) {
  return (columns + 7) / 8 * 8;
}

kp_product_sizes kp_product_sizes_of(const kp_matrix_class *c) {
  kp_product_sizes s;
  s.x_pitch = padded(c->columns);
  s.x = padded(c->rows * s.x_pitch);
  s.side = c->rows < c->columns ? c->rows : c->columns;
  s.side_pitch = padded(s.side);
  s.square = s.side * s.side_pitch;
  return s;
}

size_t kp_muon_bytes(const kp_matrix_class *c, bool half) {
  const kp_product_sizes s = kp_product_sizes_of(c);
  if (!c->muon) return 0;
  return (size_t)(2 * (s.x + s.square)) * (size_t)c->together * (half ? sizeof(kp_half) : sizeof(float));
}

/* ---- between the products ---- */

/* a ← s² a, and its copy in b, which the second product starts from. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    scale_kernel(kp_matrices_at m, kp_product_sizes sizes, T *a, T *b) {
  const double s = kp_muon_normaliser(m);
  const float factor = (float)(s * s);
  a += blockIdx.y * sizes.square;
  b += blockIdx.y * sizes.square;
  const int64_t stride = (int64_t)gridDim.x * THREADS * 4;
#pragma unroll 2
  for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 4; i < sizes.square; i += stride) {
    kp_span<4> span = kp_take<4>(a + i);
#pragma unroll
    for (int j = 0; j < 4; j++) span.at[j] *= factor;
    kp_put<4>(a + i, span);
    kp_put<4>(b + i, span);
  }
}

template <typename T> static __global__ void add_diagonal_kernel(kp_product_sizes sizes, T *b, float what) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  T *at = b + blockIdx.y * sizes.square + i * sizes.side_pitch + i;
  if (i < sizes.side) *at = kp_from_float<T>(kp_to_float(*at) + what);
}

/* Tile number t of a triangle, row by row. */
static __device__ int tile_row(int t) {
  int row = (int)((sqrtf(8.0f * (float)t + 1) - 1) / 2);
  while ((row + 1) * (row + 2) / 2 <= t) row++;
  while (row * (row + 1) / 2 > t) row--;
  return row;
}

/* Both of these where only the triangle below the diagonal was made: a block has a tile of it and its mirror
 * image.  `copy` may be NULL; the scale is s² where `scaled`, else 1. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    mirror_kernel(kp_matrices_at m, kp_product_sizes sizes, T *square, T *copy, bool scaled, float diagonal) {
  __shared__ T tile[TILE][TILE + 2];
  const double s = scaled ? kp_muon_normaliser(m) : 1;
  const float factor = (float)(s * s);
  const int tile_i = tile_row((int)blockIdx.x), tile_j = (int)blockIdx.x - tile_i * (tile_i + 1) / 2;
  const int64_t i0 = (int64_t)tile_i * TILE, j0 = (int64_t)tile_j * TILE;
  const int lane = (int)threadIdx.x % TILE, first = (int)threadIdx.x / TILE;
  square += blockIdx.y * sizes.square;
  if (copy != NULL) copy += blockIdx.y * sizes.square;
  for (int r = first; r < TILE; r += THREADS / TILE)
    if (i0 + r < sizes.side && j0 + lane < sizes.side)
      tile[r][lane] = square[(i0 + r) * sizes.side_pitch + j0 + lane];
  __syncthreads();
  const auto write = [&](int64_t i, int64_t j, T x) {
    if (i >= sizes.side || j >= sizes.side) return;
    const T value = kp_from_float<T>(factor * kp_to_float(x) + (i == j ? diagonal : 0));
    square[i * sizes.side_pitch + j] = value;
    if (copy != NULL) copy[i * sizes.side_pitch + j] = value;
  };
  for (int r = first; r < TILE; r += THREADS / TILE) {
    write(i0 + r, j0 + lane, tile_i == tile_j && lane > r ? tile[lane][r] : tile[r][lane]);
    if (tile_i > tile_j) write(j0 + r, i0 + lane, tile[lane][r]);
  }
}

/* ---- the products ---- */

/* One iteration's; all of one type. */
struct iteration {
  kp_cuda *cuda;
  kp_product_sizes sizes;
  int64_t rows, columns;
  bool tall;
  int together, strips;
  bool half;
};

/* Strips cost where there are too few of them for all matrix units. */
static int strips_of(int64_t side, int together) {
  const int64_t many = 6144;
  return side >= 4096 ? 4 : side >= 2048 || (side >= 512 && side * together >= many) ? 2 : 1;
}

static kp_product product_of(const iteration &it, int64_t m, int64_t n, int64_t k) {
  kp_product p = {};
  p.m = m;
  p.n = n;
  p.k = k;
  p.type = p.result = it.half ? CUDA_R_16BF : CUDA_R_32F;
  p.alpha = 1;
  p.batch = it.together;
  p.pads_undefined = true;
  return p;
}

static const void *behind(const void *matrix, int64_t elements, bool half) {
  return (const char *)matrix + (size_t)elements * (half ? sizeof(kp_half) : sizeof(float));
}

/* Of the matrices of one kind: how far from row to row, and from matrix to matrix. */
struct place {
  int64_t pitch, stride;
};

/* c = alpha · x xᵀ + beta · c, or of xᵀ x where `tall`: the triangle below the diagonal at least. */
static kp_status gram(const iteration &it, const void *x, place at, bool tall, int64_t depth, float alpha,
                      float beta, void *c, kp_error *error) {
  const int64_t side = it.sizes.side;
  const int64_t height = it.strips == 1 ? side : (side / it.strips + TILE - 1) / TILE * TILE;
  for (int64_t first = 0; first < side; first += height) {
    const int64_t last = first + height < side ? first + height : side;
    kp_product p = product_of(it, last - first, last, depth);
    p.a = behind(x, tall ? first : first * at.pitch, it.half);
    p.b = x;
    p.c = (void *)behind(c, first * it.sizes.side_pitch, it.half);
    p.lda = p.ldb = at.pitch;
    p.ldc = it.sizes.side_pitch;
    p.a_transposed = tall;
    p.b_transposed = !tall;
    p.alpha = alpha;
    p.beta = beta;
    p.stride_a = p.stride_b = at.stride;
    p.stride_c = it.sizes.square;
    KP_TRY(kp_multiply(it.cuda, &p, error));
  }
  return KP_OK;
}

/* y = b x, or x b where `tall`. */
static kp_status apply_square(const iteration &it, const void *b, const void *x, void *y, kp_error *error) {
  const kp_product_sizes &s = it.sizes;
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

/* ---- the iteration ---- */

template <typename T>
static void mirror(const iteration &it, const kp_matrices_at &m, T *square, T *copy, bool scaled,
                   float diagonal) {
  const int64_t tiles = (it.sizes.side + TILE - 1) / TILE;
  const dim3 grid((unsigned)(tiles * (tiles + 1) / 2), (unsigned)it.together);
  mirror_kernel<T><<<grid, THREADS, 0, it.cuda->stream>>>(m, it.sizes, square, copy, scaled, diagonal);
}

template <typename T> static void scale_and_copy(const iteration &it, const kp_matrices_at &m, T *a, T *b) {
  enum { ELEMENTS = THREADS * 4 * 8 };
  const dim3 grid((unsigned)kp_blocks(it.sizes.square, ELEMENTS), (unsigned)it.together);
  if (it.strips > 1)
    mirror<T>(it, m, a, b, true, 0);
  else
    scale_kernel<T><<<grid, THREADS, 0, it.cuda->stream>>>(m, it.sizes, a, b);
}

template <typename T> static void add_diagonal(const iteration &it, const kp_matrices_at &m, T *b) {
  const dim3 grid((unsigned)kp_blocks(it.sizes.side, THREADS), (unsigned)it.together);
  if (it.strips > 1)
    mirror<T>(it, m, b, NULL, false, FIRST);
  else
    add_diagonal_kernel<T><<<grid, THREADS, 0, it.cuda->stream>>>(it.sizes, b, FIRST);
}

/* The iterate goes to and fro between x and y. */
template <typename T>
static kp_status iterate(const iteration &it, const kp_matrices_at &m, int steps, T *x, const void **result,
                         kp_error *error) {
  const kp_product_sizes &s = it.sizes;
  const place of_x = {s.x_pitch, s.x}, of_a = {s.side_pitch, s.square};
  T *y = x + s.x * it.together, *a = y + s.x * it.together, *b = a + s.square * it.together;
  for (int step = 0; step < steps; step++) {
    KP_TRY(gram(it, x, of_x, it.tall, it.tall ? it.rows : it.columns, 1, 0, a, error));
    scale_and_copy<T>(it, m, a, b);
    KP_TRY(gram(it, a, of_a, false, s.side, THIRD, SECOND, b, error));
    add_diagonal<T>(it, m, b);
    KP_TRY(apply_square(it, b, x, y, error));
    T *other = x;
    x = y;
    y = other;
  }
  *result = x;
  return kp_optimizer_launched(error);
}

kp_status kp_optimizer_orthogonalize(kp_cuda_optimizer *o, const kp_matrix_class *c, const kp_matrices_at &m,
                                     int together, const void **result, kp_error *error) {
  const kp_product_sizes s = kp_product_sizes_of(c);
  const iteration it = {
      o->cuda, s, c->rows, c->columns, c->rows > c->columns, together, strips_of(s.side, together), o->half};
  const int steps = o->options.muon.steps;
  return o->half ? iterate<kp_half>(it, m, steps, (kp_half *)o->products, result, error)
                 : iterate<float>(it, m, steps, (float *)o->products, result, error);
}
