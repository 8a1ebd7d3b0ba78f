/* Launching the seam's backward kernel: scratch memory, shared memory, and which instance takes a width. */
#ifndef KAPPA_BACKEND_CUDA_RESIDUAL_NORM_BACKWARD_LAUNCH_CUH
#define KAPPA_BACKEND_CUDA_RESIDUAL_NORM_BACKWARD_LAUNCH_CUH

#include "backend/cuda/residual_norm_backward.cuh"

template <typename T, int V, int P, int R, int THREADS, bool CURVED>
static kp_status kp_seam_backward_launch(const kp_call *call, kp_seam s, kp_seam_gradients g,
                                         kp_error *error) {
  using S = typename kp_sum_of<T>::type;
  const kp_cuda *cuda = kp_cuda_of(call);
  const int threads = kp_seam_threads(s, V, P);
  kp_seam_set_groups(&s, V, threads, P);
  s.numbers_bytes = (kp_seam_backward_bytes<S, R>(s, threads, P) + 15) / 16 * 16;
  const size_t bytes = s.numbers_bytes + (size_t)(kp_seam_held_rows(s, R) + 4 * R) * P * (size_t)threads *
                                             sizeof(kp_vector<T, V>);
  const auto kernel = kp_seam_backward_kernel<T, V, P, R, THREADS, CURVED>;
  if (bytes > 48 * 1024)
    KP_TRY(
        kp_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                      "residual_norm_backward", error));
  int resident = 1;
  KP_TRY(kp_cuda_check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, bytes),
                       "residual_norm_backward", error));
  kp_seam_share<R>(&s, cuda, resident, g.gy != NULL && (s.own || g.to_stream), KP_SEAM_MOST_PARTIALS);
  const int blocks = kp_blocks(s.rows, s.run);
  kernel<<<blocks, threads, bytes, cuda->stream>>>(s, g);
  KP_TRY(kp_launched(call, error));
  kp_seam_add_gradients(call, s, g, blocks);
  return kp_launched(call, error);
}

template <typename T, int R, bool CURVED>
static kp_status kp_seam_backward_by_width(const kp_call *call, const kp_seam &s, kp_error *error) {
  constexpr int V = 16 / sizeof(T), MOST = 256;
  const kp_seam_gradients g = kp_seam_gradients_of(call, s);
  const bool whole = kp_rows_of_vectors(s.pitch, s.C, s.update_kappa.groups, V) &&
                     kp_rows_of_vectors(s.pitch, s.C, s.tangent_kappa.groups, V);
  if (whole && kp_seam_threads(s, V, 1) <= MOST)
    return kp_seam_backward_launch<T, V, 1, R, MOST, CURVED>(call, s, g, error);
  if (kp_seam_threads(s, 1, 16) <= 512)
    return kp_seam_backward_launch<T, 1, 16, 1, 512, CURVED>(call, s, g, error);
  return kp_fail(error, KP_ERR_UNSUPPORTED, "residual_norm_backward: rows of %d channels are too long", s.C);
}

#endif
