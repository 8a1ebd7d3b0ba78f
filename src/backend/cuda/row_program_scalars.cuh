/* The scalar part of a row program on the device: a switch over geometry/programs.def.
 *
 * A file that includes this chooses the number type of its scalars as geometry/real.h says.  The functions
 * are not inlined: a program runs once a row and group, and one copy of all of them is enough for a file. */
#ifndef KAPPA_BACKEND_CUDA_ROW_PROGRAM_SCALARS_CUH
#define KAPPA_BACKEND_CUDA_ROW_PROGRAM_SCALARS_CUH

#include "backend/cuda/kernel.cuh"

extern "C" {
#include "geometry/row_program.h"
}
#include "geometry/programs.h"

/* The coefficients of a program; returns its event. */
static __device__ __noinline__ int kp_program_forward(int program, const kp_real *gram, kp_real kappa,
                                                      kp_real p, kp_real *coefficients) {
  switch (program) { /* clang-format off */
#define KP_ROW_PROGRAM(id, name, inputs, difference, scalar, forward, backward, reference)                   \
  case id: return forward(gram, kappa, p, coefficients);
#include "geometry/programs.def"
  default: return 0;
  } /* clang-format on */
}

/* The gradients of the Gram matrix and of kappa. */
static __device__ __noinline__ void kp_program_backward(int program, const kp_real *gram, kp_real kappa,
                                                        kp_real p, const kp_real *coefficients_bar,
                                                        kp_real *gram_bar, kp_real *kappa_bar) {
  kp_real p_bar;
  switch (program) { /* clang-format off */
#define KP_ROW_PROGRAM(id, name, inputs, difference, scalar, forward, backward, reference)                   \
  case id: backward(gram, kappa, p, coefficients_bar, gram_bar, kappa_bar, &p_bar); return;
#include "geometry/programs.def"
  default: return;
  } /* clang-format on */
}

#endif
