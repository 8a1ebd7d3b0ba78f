/* The machine's limits, measured: what a share of the limit in a benchmark refers to. */
#include "backend/cuda/products.h"

extern "C" {
#include "backend/cuda/cuda.h"
}

enum { WARM = 3, TIMES = 10 };

typedef kp_status work(kp_cuda *cuda, void *a, void *b, void *c, kp_error *error);

/* Seconds of one piece of work, the mean of several in a row. */
static kp_status measure(kp_cuda *cuda, work *do_it, void *const buffer[3], double *seconds,
                         kp_error *error) {
  for (int i = 0; i < WARM; i++) KP_TRY(do_it(cuda, buffer[0], buffer[1], buffer[2], error));
  KP_TRY(cuda->base.timer_start(&cuda->base, error));
  for (int i = 0; i < TIMES; i++) KP_TRY(do_it(cuda, buffer[0], buffer[1], buffer[2], error));
  KP_TRY(cuda->base.timer_stop(&cuda->base, seconds, error));
  *seconds /= TIMES;
  return KP_OK;
}

static const size_t COPY_BYTES = (size_t)1 << 30;
static const int64_t SIDE = 8192;

static kp_status copy(kp_cuda *cuda, void *a, void *b, void *c, kp_error *error) {
  (void)c;
  return kp_cuda_check(cudaMemcpyAsync(b, a, COPY_BYTES, cudaMemcpyDeviceToDevice, cuda->stream), "a copy",
                       error);
}

static kp_status product(kp_cuda *cuda, void *a, void *b, void *c, kp_error *error) {
  kp_product p = {};
  p.m = p.n = p.k = p.lda = p.ldb = p.ldc = SIDE;
  p.a = a;
  p.b = b;
  p.c = c;
  p.b_transposed = true;
  p.type = p.result = cuda->half ? CUDA_R_16BF : CUDA_R_32F;
  p.alpha = 1;
  return kp_multiply(cuda, &p, error);
}

/* Numbers without a pattern: zeros would be multiplied faster. */
template <typename T> static __global__ void fill_random(T *x, int64_t count) {
  const int64_t stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint32_t mixed = (uint32_t)i * 2654435761u ^ (uint32_t)(i >> 13) * 2246822519u;
    x[i] = kp_from_float<T>((float)(mixed >> 8) * 0x1p-23f - 1.0f);
  }
}

extern "C" kp_status kp_cuda_measure_limits(const kp_backend *backend, double *copy_rate,
                                            double *product_rate, kp_error *error) {
  kp_cuda *cuda = (kp_cuda *)backend->device;
  void *buffer[3] = {NULL, NULL, NULL};
  double seconds = 0;
  kp_status status = KP_OK;
  for (int i = 0; i < 3 && status == KP_OK; i++)
    status = cuda->base.allocate(&cuda->base, COPY_BYTES, "a measurement", &buffer[i], error);
  for (int i = 0; i < 2 && status == KP_OK; i++) {
    if (cuda->half)
      fill_random<<<1024, 256, 0, cuda->stream>>>((kp_half *)buffer[i], SIDE * SIDE);
    else
      fill_random<<<1024, 256, 0, cuda->stream>>>((float *)buffer[i], SIDE * SIDE);
    status = kp_cuda_check(cudaGetLastError(), "random numbers", error);
  }
  if (status == KP_OK) status = measure(cuda, product, buffer, &seconds, error);
  *product_rate = 2.0 * (double)SIDE * (double)SIDE * (double)SIDE / seconds;
  if (status == KP_OK) status = measure(cuda, copy, buffer, &seconds, error);
  *copy_rate = 2.0 * (double)COPY_BYTES / seconds;
  for (int i = 0; i < 3; i++) cuda->base.release(&cuda->base, buffer[i]);
  return status;
}
