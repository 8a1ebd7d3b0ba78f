/* What the kernels of this folder share: the device, the types of tensors, launching, reductions.
 *
 * A kernel of the operator table is a function
 *
 *   extern "C" kp_status kp_cuda_NAME(const kp_call *call, kp_error *error)
 *
 * which submits device work to `stream` and returns; it never waits, allocates or copies to the host, so that
 * a whole step can be recorded.  Its pointers are device memory.  Rules:
 *
 *   - a KP_TYPE_REAL tensor holds float or, where kp_is_half(call), __nv_bfloat16; a KP_TYPE_STATISTIC tensor
 *     and every gradient of a parameter holds float; arithmetic is in float (or wider) always;
 *   - row r of a tensor starts at element r · kp_pitch(tensor); the padding behind a row's columns is zero in
 *     every input, and a kernel that writes a real tensor leaves zeros there; behind a matrix of parameters,
 *     and behind its gradient, stand kp_stored_rows - rows rows of zeros;
 *   - no floating-point atomics: results are the same bits on every run;
 *   - an index that is out of range is recorded with kp_report and read as 0. */
#ifndef KAPPA_BACKEND_CUDA_KERNEL_CUH
#define KAPPA_BACKEND_CUDA_KERNEL_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "backend/operators.h"
#include "core/error.h"
}

using kp_half = __nv_bfloat16;

/* The first index out of range since the last look. */
enum kp_fault_kind { KP_FAULT_NONE, KP_FAULT_TOKEN, KP_FAULT_POSITION, KP_FAULT_TARGET };

struct kp_fault {
  int kind;
  int node;      /* index in its graph */
  long long row; /* of the tensor of indices */
  long long value, limit;
};

/* What kernels read and write that changes from step to step; in device memory. */
struct kp_device_step {
  unsigned long long seed, step; /* the counters of random numbers */
  kp_fault fault;
};

struct kp_products; /* products.cu: cuBLASLt and the algorithms that were chosen */

/* The device behind kp_call.run->device. */
struct kp_cuda {
  kp_device base;
  int index, processors, major, minor;
  size_t shared_bytes; /* most dynamic shared memory of a block */
  size_t l2_bytes;
  cudaStream_t stream;
  kp_device_step *step; /* in device memory */
  kp_products *products;
  const kp_call *next; /* whose work would follow what was submitted last of a graph (chain.cu) */
  bool half;           /* real tensors are bfloat16 */
  bool recording;      /* submitted work is being recorded: nothing may be measured now */
};

static inline kp_cuda *kp_cuda_of(const kp_call *call) {
  return (kp_cuda *)call->run->device;
}

/* ---- tensors ---- */

/* Every cuda backend pads rows to this many elements: 16 bytes of bfloat16. */
enum { KP_CUDA_ROW_MULTIPLE = 8 };

static inline int64_t kp_pitch(const kp_tensor *tensor) {
  return kp_tensor_pitch(tensor, KP_CUDA_ROW_MULTIPLE);
}

/* Rows in memory, those of zeros behind a matrix of parameters included. */
static inline int64_t kp_stored_rows(const kp_tensor *tensor) {
  return kp_tensor_stored_rows(tensor, KP_CUDA_ROW_MULTIPLE);
}

/* Elements of a tensor in memory, padding included. */
static inline int64_t kp_padded_count(const kp_tensor *tensor) {
  return kp_tensor_rows(tensor) * kp_pitch(tensor);
}

/* Whether real tensors are bfloat16. */
static inline bool kp_is_half(const kp_call *call) {
  return kp_cuda_of(call)->half;
}

/* Whether that tensor of that call is in bfloat16: parameters' gradients and statistics never are. */
static inline bool kp_tensor_is_half(const kp_call *call, const kp_tensor *tensor) {
  return tensor != NULL && tensor->type == KP_TYPE_REAL && tensor->role != KP_ROLE_GRADIENT &&
         kp_is_half(call);
}

/* Numbers of either width, for small tensors whose type a kernel does not want to be compiled for. */
struct kp_numbers {
  const void *at; /* NULL: absent */
  bool half;
  __device__ float operator[](int64_t i) const {
    return half ? __bfloat162float(((const kp_half *)at)[i]) : ((const float *)at)[i];
  }
};

struct kp_results {
  void *at; /* NULL: not wanted */
  bool half;
  __device__ void set(int64_t i, float value) const {
    if (half)
      ((kp_half *)at)[i] = __float2bfloat16_rn(value);
    else
      ((float *)at)[i] = value;
  }
  __device__ void add(int64_t i, float value) const {
    if (half)
      ((kp_half *)at)[i] = __float2bfloat16_rn(__bfloat162float(((kp_half *)at)[i]) + value);
    else
      ((float *)at)[i] += value;
  }
};

static inline kp_numbers kp_input_numbers(const kp_call *call, int i) {
  return kp_numbers{call->input[i], kp_tensor_is_half(call, call->node->input[i])};
}

static inline kp_results kp_output_numbers(const kp_call *call, int i) {
  return kp_results{call->output[i], kp_tensor_is_half(call, call->node->output[i])};
}

/* ---- numbers ---- */

__device__ static inline float kp_to_float(float x) {
  return x;
}
__device__ static inline float kp_to_float(kp_half x) {
  return __bfloat162float(x);
}

template <typename T> __device__ static inline T kp_from_float(float x);
template <> __device__ inline float kp_from_float<float>(float x) {
  return x;
}
template <> __device__ inline kp_half kp_from_float<kp_half>(float x) {
  return __float2bfloat16_rn(x);
}

/* 16 bytes of T: the unit of memory traffic.  Rows of padded tensors are made of whole ones in bfloat16; in
 * float of whole ones too.  T is float or kp_half. */
template <typename T> struct alignas(16) kp_pack {
  static constexpr int size = 16 / sizeof(T);
  T value[size];
};

template <typename T> __device__ static inline kp_pack<T> kp_load(const T *at) {
  return *(const kp_pack<T> *)at;
}

template <typename T> __device__ static inline void kp_store(T *at, const kp_pack<T> &pack) {
  *(kp_pack<T> *)at = pack;
}

/* ---- reductions; all threads of the warp take part, all get the result ---- */

__device__ static inline float kp_warp_sum(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

__device__ static inline double kp_warp_sum(double x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

/* A NaN wins. */
__device__ static inline float kp_warp_max(float x) {
  for (int offset = 16; offset > 0; offset /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, x, offset);
    x = other > x || other != other ? other : x;
  }
  return x;
}

/* The sum over all threads of a block of at most 1024; `shared` has room for 32 numbers and may be used again
 * after the next barrier. */
template <typename T> __device__ static inline T kp_block_sum(T x, T *shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
  x = kp_warp_sum(x);
  if (warps == 1) return x;
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  x = lane < warps ? shared[lane] : T(0);
  return kp_warp_sum(x);
}

/* ---- faults ---- */

/* Device code: records index `value` of row `row` if it is the first one. */
__device__ static inline void kp_report(kp_device_step *step, int kind, int node, long long row,
                                        long long value, long long limit) {
  if (atomicCAS(&step->fault.kind, KP_FAULT_NONE, kind) != KP_FAULT_NONE) return;
  step->fault.node = node;
  step->fault.row = row;
  step->fault.value = value;
  step->fault.limit = limit;
}

/* ---- launching ---- */

/* KP_OK, or CUDA's own words for a result. */
kp_status kp_cuda_check(cudaError_t result, const char *what, kp_error *error);

/* After a launch: whether it could be submitted. */
static inline kp_status kp_launched(const kp_call *call, kp_error *error) {
  return kp_cuda_check(cudaGetLastError(), call->node->row->name, error);
}

/* Blocks of `size` that cover `count`, at most `most`. */
static inline int kp_blocks(int64_t count, int64_t size, int64_t most = 0x7fffffff) {
  const int64_t blocks = (count + size - 1) / size;
  return (int)(blocks > most ? most : blocks < 1 ? 1 : blocks);
}

#endif
