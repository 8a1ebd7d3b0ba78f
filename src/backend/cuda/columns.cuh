/* Gradients of vectors that all rows share: every block leaves the sums over its own rows, a part, in scratch
 * memory, and a second kernel adds the parts up in a fixed order.
 *
 * The parts are a matrix of floats (parts, pitch).  Its columns fall into segments, each of which is added to
 * a gradient of its own. */
#ifndef KAPPA_BACKEND_CUDA_COLUMNS_CUH
#define KAPPA_BACKEND_CUDA_COLUMNS_CUH

#include "backend/cuda/kernel.cuh"

enum { KP_COLUMN_SEGMENTS = 4, KP_COLUMN_PARTS = 528 };

struct kp_column_segment {
  int64_t first, count; /* columns of the matrix of parts */
  float *to;            /* NULL: not wanted */
};

struct kp_column_sums {
  const float *parts;
  int64_t count, pitch; /* number of parts; elements from one to the next */
  kp_column_segment segment[KP_COLUMN_SEGMENTS];
};

/* The most parts that an operator may leave for rows of so many columns: narrow ones one for every block that
 * runs at once, wide ones as many as make 8 MiB. */
static inline int64_t kp_column_parts(int64_t columns) {
  const int64_t most = ((int64_t)1 << 21) / (columns < 1 ? 1 : columns);
  return most > KP_COLUMN_PARTS ? (int64_t)KP_COLUMN_PARTS : most < 32 ? 32 : most;
}

/* Bytes: parts · columns · 4 once; bound by latency, a few microseconds.  A block has a strip of `width`
 * columns; its threads stand in lines of that width, each of which has every lines-th part. */
static __global__ void __launch_bounds__(1024)
    kp_column_kernel(kp_column_sums sums, int64_t columns, int width) {
  __shared__ double shared[1024];
  const int lines = blockDim.x / width, line = threadIdx.x / width;
  const int64_t column = (int64_t)blockIdx.x * width + threadIdx.x % width;
  double sum = 0;
  if (line < lines && column < columns) {
#pragma unroll 8
    for (int64_t part = line; part < sums.count; part += lines)
      sum += (double)sums.parts[part * sums.pitch + column];
  }
  shared[threadIdx.x] = sum;
  for (int left = lines; left > 1; left = (left + 1) / 2) {
    const int half = (left + 1) / 2;
    __syncthreads();
    if (line + half < left) shared[threadIdx.x] += shared[threadIdx.x + half * width];
  }
  if (line > 0 || column >= columns) return;
  for (int i = 0; i < KP_COLUMN_SEGMENTS; i++) {
    const kp_column_segment segment = sums.segment[i];
    if (segment.to != NULL && column >= segment.first && column < segment.first + segment.count)
      segment.to[column - segment.first] += (float)shared[threadIdx.x];
  }
}

/* Adds the sums of the first `columns` columns to where the segments say. */
static inline kp_status kp_add_columns(const kp_call *call, const kp_column_sums *sums, int64_t columns,
                                       kp_error *error) {
  const int width = columns < 8 ? (int)columns : 8; /* 32 bytes: many blocks wait side by side */
  bool wanted = false;
  for (int i = 0; i < KP_COLUMN_SEGMENTS; i++) wanted = wanted || sums->segment[i].to != NULL;
  if (!wanted || columns == 0) return KP_OK;
  kp_column_kernel<<<kp_blocks(columns, width), 1024, 0, kp_cuda_of(call)->stream>>>(*sums, columns, width);
  return kp_launched(call, error);
}

#endif
