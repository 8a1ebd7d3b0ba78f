/* Devices: opening them, their memory, recording and replaying work. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/kernel.cuh"
#include "backend/cuda/products.h"

extern "C" {
#include "backend/cuda/cuda.h"
#include "backend/cuda/expert_load.h"
#include "backend/cuda/optimizer.h"
#include "backend/cuda/table.h"
}

/* Page-locked places on the host, used in turn, from which small copies go to the device without anybody
 * waiting: a batch of tokens, a step's counters. */
enum { STAGES = 8, STAGE_BYTES = 1 << 20 };

struct kp_stages {
  char *memory;
  cudaEvent_t sent[STAGES];
  int next;
  cudaEvent_t start, stop;        /* of the timer */
  unsigned long long counters[2]; /* of random numbers, as the device has them */
};

/* A backend of one device and precision: what kp_backend_cuda_open hands out. */
struct kp_cuda_backend {
  kp_backend base;
  kp_cuda cuda;
  kp_stages stages;
  char name[160];
};

struct kp_device_recording {
  cudaGraphExec_t executable;
};

kp_status kp_cuda_check(cudaError_t result, const char *what, kp_error *error) {
  if (result == cudaSuccess) return KP_OK;
  const kp_status status = result == cudaErrorMemoryAllocation ? KP_ERR_MEMORY : KP_ERR_IO;
  return kp_fail(error, status, "%s: the GPU says: %s (%s)", what, cudaGetErrorString(result),
                 cudaGetErrorName(result));
}

/* ---- memory ---- */

static kp_status allocate(kp_device *device, size_t bytes, const char *what, void **memory, kp_error *error) {
  kp_cuda *cuda = (kp_cuda *)device;
  size_t free_bytes = 0, all = 0;
  *memory = NULL;
  if (cudaMalloc(memory, bytes == 0 ? 1 : bytes) != cudaSuccess) {
    cudaGetLastError();
    cudaMemGetInfo(&free_bytes, &all);
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %s on GPU %d: %.1f MiB asked for, %.1f MiB free",
                   what, cuda->index, (double)bytes / 1048576.0, (double)free_bytes / 1048576.0);
  }
  return kp_cuda_check(cudaMemsetAsync(*memory, 0, bytes, cuda->stream), what, error);
}

static void release(kp_device *device, void *memory) {
  (void)device;
  cudaFree(memory);
}

static kp_status host_allocate(kp_device *device, size_t bytes, const char *what, void **memory,
                               kp_error *error) {
  (void)device;
  *memory = NULL;
  if (cudaMallocHost(memory, bytes == 0 ? 1 : bytes) == cudaSuccess) return KP_OK;
  cudaGetLastError();
  return kp_fail(error, KP_ERR_MEMORY, "no page-locked memory for %s: %.1f MiB asked for", what,
                 (double)bytes / 1048576.0);
}

static void host_release(kp_device *device, void *memory) {
  (void)device;
  cudaFreeHost(memory);
}

static kp_stages *stages_of(kp_cuda *cuda) {
  return &((kp_cuda_backend *)((char *)cuda - offsetof(kp_cuda_backend, cuda)))->stages;
}

static kp_status write_small(kp_cuda *cuda, void *to, const void *host, size_t bytes, kp_error *error) {
  kp_stages *stages = stages_of(cuda);
  const int stage = stages->next;
  char *place = stages->memory + (size_t)stage * STAGE_BYTES;
  stages->next = (stage + 1) % STAGES;
  KP_TRY(kp_cuda_check(cudaEventSynchronize(stages->sent[stage]), "an earlier copy to the GPU", error));
  memcpy(place, host, bytes);
  KP_TRY(kp_cuda_check(cudaMemcpyAsync(to, place, bytes, cudaMemcpyHostToDevice, cuda->stream),
                       "a copy to the GPU", error));
  return kp_cuda_check(cudaEventRecord(stages->sent[stage], cuda->stream), "a copy to the GPU", error);
}

static kp_status write(kp_device *device, void *to, const void *host, size_t bytes, kp_error *error) {
  kp_cuda *cuda = (kp_cuda *)device;
  cuda->next = NULL;
  if (bytes <= STAGE_BYTES) return write_small(cuda, to, host, bytes, error);
  KP_TRY(kp_cuda_check(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, cuda->stream),
                       "a copy to the GPU", error));
  return kp_cuda_check(cudaStreamSynchronize(cuda->stream), "a copy to the GPU", error);
}

static kp_status read(kp_device *device, void *host, const void *from, size_t bytes, kp_error *error) {
  kp_cuda *cuda = (kp_cuda *)device;
  KP_TRY(kp_cuda_check(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, cuda->stream),
                       "a copy from the GPU", error));
  return kp_cuda_check(cudaStreamSynchronize(cuda->stream), "a copy from the GPU", error);
}

static kp_status fill(kp_device *device, void *memory, int byte, size_t bytes, kp_error *error) {
  return kp_cuda_check(cudaMemsetAsync(memory, byte, bytes, ((kp_cuda *)device)->stream),
                       "filling memory of the GPU", error);
}

static __global__ void narrow_kernel(kp_half *to, const float *from, size_t count) {
  const size_t stride = (size_t)gridDim.x * blockDim.x;
  for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride)
    to[i] = __float2bfloat16_rn(from[i]);
}

static kp_status narrow(kp_device *device, void *bf16, const void *f32, size_t count, kp_error *error) {
  kp_cuda *cuda = (kp_cuda *)device;
  cuda->next = NULL;
  if (count == 0) return KP_OK;
  narrow_kernel<<<kp_blocks((int64_t)count, 256, 8 * cuda->processors), 256, 0, cuda->stream>>>(
      (kp_half *)bf16, (const float *)f32, count);
  return kp_cuda_check(cudaGetLastError(), "narrowing parameters", error);
}

static size_t free_bytes(kp_device *device) {
  size_t left = 0, all = 0;
  (void)device;
  cudaMemGetInfo(&left, &all);
  return left;
}

/* ---- waiting ---- */

static kp_status fault_of(const kp_fault *fault, kp_error *error) {
  static const char *const what[] = {"", "token", "position", "target"};
  return kp_fail(error, KP_ERR_INPUT, "%s %lld of row %lld is outside [0, %lld) (node %d)", what[fault->kind],
                 fault->value, fault->row, fault->limit, fault->node);
}

static kp_status wait(kp_device *device, kp_error *error) {
  kp_cuda *cuda = (kp_cuda *)device;
  kp_fault fault;
  KP_TRY(read(device, &fault, &cuda->step->fault, sizeof fault, error));
  if (fault.kind == KP_FAULT_NONE) return KP_OK;
  KP_TRY(fill(device, &cuda->step->fault, 0, sizeof fault, error));
  return fault_of(&fault, error);
}

static kp_status timer_start(kp_device *device, kp_error *error) {
  kp_cuda *cuda = (kp_cuda *)device;
  return kp_cuda_check(cudaEventRecord(stages_of(cuda)->start, cuda->stream), "a timer", error);
}

static kp_status timer_stop(kp_device *device, double *seconds, kp_error *error) {
  kp_cuda *cuda = (kp_cuda *)device;
  const kp_stages *stages = stages_of(cuda);
  float milliseconds = 0;
  KP_TRY(kp_cuda_check(cudaEventRecord(stages->stop, cuda->stream), "a timer", error));
  KP_TRY(kp_cuda_check(cudaEventSynchronize(stages->stop), "a timer", error));
  KP_TRY(kp_cuda_check(cudaEventElapsedTime(&milliseconds, stages->start, stages->stop), "a timer", error));
  *seconds = (double)milliseconds * 1e-3;
  return KP_OK;
}

static kp_status set_step(kp_device *device, unsigned long long seed, unsigned long long step,
                          kp_error *error) {
  kp_cuda *cuda = (kp_cuda *)device;
  const unsigned long long counters[2] = {seed, step};
  kp_stages *stages = stages_of(cuda);
  cuda->next = NULL;
  if (stages->counters[0] == seed && stages->counters[1] == step) return KP_OK;
  memcpy(stages->counters, counters, sizeof counters);
  return write_small(cuda, &cuda->step->seed, counters, sizeof counters, error);
}

/* ---- recording ---- */

static kp_status record_begin(kp_device *device, kp_error *error) {
  kp_cuda *cuda = (kp_cuda *)device;
  KP_TRY(kp_cuda_check(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal),
                       "recording a step", error));
  cuda->recording = true;
  return KP_OK;
}

static kp_status record_end(kp_device *device, kp_device_recording **recording, kp_error *error) {
  kp_cuda *cuda = (kp_cuda *)device;
  cudaGraph_t graph = NULL;
  cuda->recording = false;
  const cudaError_t ended = cudaStreamEndCapture(cuda->stream, &graph);
  if (recording == NULL) {
    if (graph != NULL) cudaGraphDestroy(graph);
    cudaGetLastError();
    return KP_OK;
  }
  *recording = NULL;
  KP_TRY(kp_cuda_check(ended, "recording a step", error));
  kp_device_recording *made = (kp_device_recording *)calloc(1, sizeof *made);
  if (made == NULL) {
    cudaGraphDestroy(graph);
    return kp_fail(error, KP_ERR_MEMORY, "no memory for a recorded step");
  }
  const cudaError_t result = cudaGraphInstantiate(&made->executable, graph, 0);
  cudaGraphDestroy(graph);
  if (result != cudaSuccess) free(made);
  KP_TRY(kp_cuda_check(result, "preparing a recorded step", error));
  *recording = made;
  return KP_OK;
}

static kp_status replay(kp_device *device, kp_device_recording *recording, kp_error *error) {
  return kp_cuda_check(cudaGraphLaunch(recording->executable, ((kp_cuda *)device)->stream),
                       "running a recorded step", error);
}

static void forget(kp_device *device, kp_device_recording *recording) {
  (void)device;
  if (recording == NULL) return;
  cudaGraphExecDestroy(recording->executable);
  free(recording);
}

/* ---- opening ---- */

extern "C" bool kp_cuda_built(void) {
  return true;
}

extern "C" int kp_cuda_device_count(void) {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

extern "C" kp_status kp_cuda_describe(int index, kp_cuda_device_description *d, kp_error *error) {
  cudaDeviceProp properties;
  memset(d, 0, sizeof *d);
  KP_TRY(kp_cuda_check(cudaGetDeviceProperties(&properties, index), "looking at a GPU", error));
  snprintf(d->name, sizeof d->name, "%s", properties.name);
  d->major = properties.major;
  d->minor = properties.minor;
  d->processors = properties.multiProcessorCount;
  cudaDriverGetVersion(&d->driver);
  cudaRuntimeGetVersion(&d->runtime);
  KP_TRY(kp_cuda_check(cudaSetDevice(index), "choosing a GPU", error));
  return kp_cuda_check(cudaMemGetInfo(&d->free_bytes, &d->memory_bytes), "looking at a GPU's memory", error);
}

static kp_status check_index(int index, kp_error *error) {
  const int count = kp_cuda_device_count();
  if (count == 0)
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "no NVIDIA GPU can be used here (`kappa doctor` says more); train on the CPU with "
                   "--device cpu");
  if (index >= 0 && index < count) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "there is no GPU %d: this machine has %d, counted from 0", index,
                 count);
}

static kp_status make_stages(kp_stages *stages, kp_error *error) {
  KP_TRY(kp_cuda_check(cudaMallocHost((void **)&stages->memory, (size_t)STAGES * STAGE_BYTES),
                       "page-locked memory", error));
  for (int i = 0; i < STAGES; i++)
    KP_TRY(
        kp_cuda_check(cudaEventCreateWithFlags(&stages->sent[i], cudaEventDisableTiming), "an event", error));
  KP_TRY(kp_cuda_check(cudaEventCreate(&stages->start), "a timer", error));
  return kp_cuda_check(cudaEventCreate(&stages->stop), "a timer", error);
}

static void destroy_stages(kp_stages *stages) {
  if (stages->start != NULL) cudaEventDestroy(stages->start);
  if (stages->stop != NULL) cudaEventDestroy(stages->stop);
  for (int i = 0; i < STAGES; i++)
    if (stages->sent[i] != NULL) cudaEventDestroy(stages->sent[i]);
  if (stages->memory != NULL) cudaFreeHost(stages->memory);
}

static kp_status open_device(kp_cuda *cuda, int index, kp_error *error) {
  enum { LEAST_MAJOR = 8 };
  cudaDeviceProp properties;
  void *step = NULL;
  KP_TRY(kp_cuda_check(cudaSetDevice(index), "choosing a GPU", error));
  KP_TRY(kp_cuda_check(cudaGetDeviceProperties(&properties, index), "looking at a GPU", error));
  if (properties.major < LEAST_MAJOR)
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "GPU %d (%s) has compute capability %d.%d; kappa needs 8.0 or later", index,
                   properties.name, properties.major, properties.minor);
  cuda->base = {allocate, release,      write,      read,       host_allocate, host_release,
                fill,     narrow,       wait,       free_bytes, timer_start,   timer_stop,
                set_step, record_begin, record_end, replay,     forget};
  cuda->index = index;
  cuda->processors = properties.multiProcessorCount;
  cuda->major = properties.major;
  cuda->minor = properties.minor;
  cuda->shared_bytes = properties.sharedMemPerBlockOptin;
  cuda->l2_bytes = (size_t)properties.l2CacheSize;
  KP_TRY(kp_cuda_check(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "a queue", error));
  KP_TRY(make_stages(stages_of(cuda), error));
  KP_TRY(allocate(&cuda->base, sizeof(kp_device_step), "a step's counters", &step, error));
  cuda->step = (kp_device_step *)step;
  return kp_products_create(cuda, &cuda->products, error);
}

extern "C" void kp_backend_cuda_close(const kp_backend *backend) {
  if (backend == NULL) return;
  kp_cuda_backend *b = (kp_cuda_backend *)backend;
  kp_products_destroy(b->cuda.products);
  destroy_stages(&b->stages);
  if (b->cuda.step != NULL) cudaFree(b->cuda.step);
  if (b->cuda.stream != NULL) cudaStreamDestroy(b->cuda.stream);
  free(b);
}

extern "C" kp_status kp_backend_cuda_open(int index, kp_cuda_precision precision, const kp_backend **backend,
                                          kp_error *error) {
  *backend = NULL;
  KP_TRY(check_index(index, error));
  kp_cuda_backend *b = (kp_cuda_backend *)calloc(1, sizeof *b);
  if (b == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a backend");
  const kp_status status = open_device(&b->cuda, index, error);
  if (status != KP_OK) {
    kp_backend_cuda_close(&b->base);
    return status;
  }
  const bool half = precision == KP_CUDA_BFLOAT16;
  snprintf(b->name, sizeof b->name, "cuda:%d (%s)", index, half ? "bfloat16" : "float32");
  b->cuda.half = half;
  b->base.name = b->name;
  b->base.real_size = half ? sizeof(kp_half) : sizeof(float);
  b->base.wide_size = sizeof(float);
  b->base.row_multiple = KP_CUDA_ROW_MULTIPLE;
  b->base.kernels = kp_cuda_kernels;
  b->base.scratch = kp_cuda_scratch;
  b->base.several = kp_cuda_several;
  b->base.device = &b->cuda.base;
  b->base.picking = &kp_cuda_picking_driver;
  b->base.optimizer = &kp_cuda_optimizer_driver;
  b->base.load = &kp_cuda_load_driver;
  *backend = &b->base;
  return KP_OK;
}
