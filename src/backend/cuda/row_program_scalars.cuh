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

/* A program with its backward: the coefficients, their gradients from `bars`, a function of the coefficients,
 * and with these the gradients of the Gram matrix and of kappa.  In one piece, so that what both compute is
 * computed once; the arguments are copied, so that no store can change them. */
template <typename Bars>
static __device__ __noinline__ void kp_program_both(int program, const kp_real *gram, kp_real kappa,
                                                    kp_real p, Bars &bars, kp_real *coefficients,
                                                    kp_real *gram_bar, kp_real *kappa_bar) {
  kp_real p_bar, of_kappa = 0, c[3] = {0, 0, 0}, bar[3] = {0, 0, 0}, of_gram[6] = {0, 0, 0, 0, 0, 0};
  const kp_real g[6] = {gram[0], gram[1], gram[2], gram[3], gram[4], gram[5]};
  switch (program) { /* clang-format off */
#define KP_ROW_PROGRAM(id, name, inputs, difference, scalar, forward, backward, reference)                   \
  case id:                                                                                                   \
    forward(g, kappa, p, c);                                                                                 \
    bars(c, bar);                                                                                            \
    backward(g, kappa, p, bar, of_gram, &of_kappa, &p_bar);                                                  \
    break;
#include "geometry/programs.def"
  default: break;
  } /* clang-format on */
  for (int i = 0; i < 3; i++) coefficients[i] = c[i];
  for (int i = 0; i < 6; i++) gram_bar[i] = of_gram[i];
  *kappa_bar = of_kappa;
}

#endif
