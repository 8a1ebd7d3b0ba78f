/* Activations, element by element. */
#include "backend/cuda/activation.cuh"
#include "backend/cuda/maps.cuh"

struct kp_activation_value {
  kp_activation_kind kind;
  template <int W> __device__ kp_chunk<W> operator()(kp_chunk<W> x, const kp_chunk<W> &) const {
    kp_by_activation(kind, [&](auto constant) {
#pragma unroll
      for (int i = 0; i < W; i++) x.value[i] = kp_activate<decltype(constant)::value>(x.value[i]).value;
    });
    return x;
  }
};

struct kp_activation_gradient {
  kp_activation_kind kind;
  template <int W> __device__ kp_chunk<W> operator()(const kp_chunk<W> &x, kp_chunk<W> g) const {
    kp_by_activation(kind, [&](auto constant) {
#pragma unroll
      for (int i = 0; i < W; i++) g.value[i] *= kp_activate<decltype(constant)::value>(x.value[i]).slope;
    });
    return g;
  }
};

extern "C" kp_status kp_cuda_activation(const kp_call *call, kp_error *error) {
  const kp_activation_arguments *arguments = (const kp_activation_arguments *)call->node->arguments;
  return kp_map(call, kp_activation_value{arguments->kind}, error);
}

extern "C" kp_status kp_cuda_activation_backward(const kp_call *call, kp_error *error) {
  const kp_activation_arguments *arguments = (const kp_activation_arguments *)call->node->arguments;
  return kp_map(call, kp_activation_gradient{arguments->kind}, error);
}
