/* Before the step: the norm of all gradients, whether the step is taken, and what it multiplies with. */
#include "backend/cuda/optimizer.cuh"

enum { NORM_THREADS = 256, FLAG_BLOCKS = 32 };

/* Σ x² over every KP_NORM_PARTS · NORM_THREADS-th four.  Reads 4 bytes an element; 2 double operations. */
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_parts_kernel(const float *gradients, int64_t total, double *parts) {
  __shared__ double shared[32];
  const int64_t fours = total / 4, stride = (int64_t)KP_NORM_PARTS * NORM_THREADS;
  double sum = 0;
#pragma unroll 4
  for (int64_t i = (int64_t)blockIdx.x * NORM_THREADS + threadIdx.x; i < fours; i += stride) {
    const float4 x = ((const float4 *)gradients)[i];
    sum += ((double)x.x * x.x + (double)x.y * x.y) + ((double)x.z * x.z + (double)x.w * x.w);
  }
  if (blockIdx.x == 0 && threadIdx.x < total % 4) {
    const double x = gradients[fours * 4 + threadIdx.x];
    sum += x * x;
  }
  sum = kp_block_sum(sum, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

/* kp_adamw_step_of of optim/adamw.c. */
static __device__ kp_adamw_step step_of(const kp_adamw_options &options, int group, int64_t t,
                                        double rate_factor, double gradient_scale) {
  const double multiplier = group == KP_GROUP_CURVATURE ? options.curvature_rate_multiplier : 1.0;
  const double rate = options.learning_rate * rate_factor * multiplier;
  const double decay = group <= KP_GROUP_TABLE ? options.weight_decay : 0.0;
  kp_adamw_step step;
  step.gradient_scale = gradient_scale;
  step.keep = 1.0 - rate * decay;
  step.beta1 = options.beta1;
  step.beta2 = options.beta2;
  step.rate = rate;
  step.mean_correction = 1.0 - pow(options.beta1, (double)t);
  step.root_correction = sqrt(1.0 - pow(options.beta2, (double)t));
  step.epsilon = options.epsilon;
  return step;
}

static __device__ kp_adamw_numbers numbers_of(const kp_adamw_step &step, bool active) {
  kp_adamw_numbers numbers;
  numbers.gradient_scale = (float)step.gradient_scale;
  numbers.keep = (float)step.keep;
  numbers.new_mean = (float)(1.0 - step.beta1);
  numbers.new_square = (float)(1.0 - step.beta2);
  numbers.old_square = (float)step.beta2;
  numbers.step = (float)(step.rate / step.mean_correction);
  numbers.inverse_root_correction = (float)(1.0 / step.root_correction);
  numbers.epsilon = (float)step.epsilon;
  numbers.active = active;
  return numbers;
}

/* kp_clip_factor of optim/gradients.h. */
static __device__ double clip_factor(double clip, double norm) {
  const double factor = clip / (norm + 1e-6);
  return clip > 0 && factor < 1 ? factor : 1;
}

/* Counts the step, and clips it. */
static __device__ void decide(kp_optimizer_state *state, double norm) {
  kp_step_outcome *outcome = &state->outcome;
  outcome->norm = norm;
  outcome->loss = state->loss;
  state->loss = 0;
  state->take = isfinite(outcome->loss) && isfinite(norm);
  state->gradient_scale = clip_factor(state->clip, norm);
  if (state->take) {
    outcome->taken++;
    outcome->skipped_in_a_row = 0;
  } else {
    outcome->skipped++;
    outcome->skipped_in_a_row++;
  }
}

static __global__ void __launch_bounds__(KP_NORM_PARTS)
    decision_kernel(const double *parts, kp_adamw_options options, kp_optimizer_state *state,
                    kp_adamw_numbers *numbers) {
  __shared__ double shared[32];
  const double sum = kp_block_sum(parts[threadIdx.x], shared);
  if (threadIdx.x == 0) decide(state, sqrt(sum));
  __syncthreads();
  const int group = (int)threadIdx.x;
  if (group >= KP_GROUP_COUNT) return;
  state->group[group] =
      step_of(options, group, state->outcome.taken, state->rate_factor, state->gradient_scale);
  numbers[group] = numbers_of(state->group[group], true);
}

kp_status kp_optimizer_submit_decision(kp_cuda_optimizer *o, kp_error *error) {
  const cudaStream_t stream = o->cuda->stream;
  norm_parts_kernel<<<KP_NORM_PARTS, NORM_THREADS, 0, stream>>>(o->flat.gradients, o->parameters->learned,
                                                                o->norm_parts);
  decision_kernel<<<1, KP_NORM_PARTS, 0, stream>>>(o->norm_parts, o->options.adamw, o->state, o->numbers);
  return kp_optimizer_launched(error);
}

/* ---- slices ---- */

/* Blocks of a slice look at its parts, and no further than to the first element that is not zero.  Writing
 * the same 1 from several of them is no race. */
static __global__ void has_gradient_kernel(const float *gradients, const kp_slice *slices, int *flags) {
  const kp_slice slice = slices[blockIdx.y];
  const int64_t stride = (int64_t)gridDim.x * blockDim.x;
  volatile int *flag = flags + blockIdx.y;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < slice.count; i += stride) {
    if (*flag != 0) return;
    if (gradients[slice.at + i] == 0) continue;
    *flag = 1;
    return;
  }
}

static __global__ void count_slices_kernel(const kp_slice *slices, int count, const int *flags,
                                           const kp_optimizer_state *state, float *moment1) {
  const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count && state->take && slices[i].counts && flags[i]) moment1[slices[i].counter] += 1;
}

/* Each slice is at a step of its own. */
static __global__ void slice_numbers_kernel(const kp_slice *slices, int count, const int *flags,
                                            kp_adamw_options options, const kp_optimizer_state *state,
                                            const float *moment1, kp_adamw_numbers *numbers) {
  const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count || !state->take) return;
  const int64_t t = (int64_t)moment1[slices[i].counter];
  const kp_adamw_step step =
      step_of(options, slices[i].group, t > 0 ? t : 1, state->rate_factor, state->gradient_scale);
  numbers[KP_GROUP_COUNT + i] = numbers_of(step, flags[i] != 0);
}

kp_status kp_optimizer_submit_slices(kp_cuda_optimizer *o, kp_error *error) {
  enum { THREADS = 128, MOST = 65535 };
  const int count = o->slices.count(), blocks = kp_blocks(count, THREADS);
  const cudaStream_t stream = o->cuda->stream;
  if (count == 0) return KP_OK;
  KP_TRY(kp_cuda_check(cudaMemsetAsync(o->has_gradient, 0, (size_t)count * sizeof(int), stream),
                       "the optimizer's step", error));
  for (int first = 0; first < count; first += MOST) {
    const int some = count - first < MOST ? count - first : MOST;
    has_gradient_kernel<<<dim3(FLAG_BLOCKS, (unsigned)some), 256, 0, stream>>>(
        o->flat.gradients, o->slices.at + first, o->has_gradient + first);
  }
  count_slices_kernel<<<blocks, THREADS, 0, stream>>>(o->slices.at, count, o->has_gradient, o->state,
                                                      o->flat.moment1);
  slice_numbers_kernel<<<blocks, THREADS, 0, stream>>>(o->slices.at, count, o->has_gradient, o->options.adamw,
                                                       o->state, o->flat.moment1, o->numbers);
  return kp_optimizer_launched(error);
}
