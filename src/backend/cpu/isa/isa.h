/* How the fast kernels are built: every source in this folder is compiled once
 * per instruction set (x86-64-v2, AVX2, AVX-512, or plain elsewhere) with
 * KP_ISA set to its name, and every external symbol carries that name.
 *
 * Kernels are plain C whose inner loops the compiler vectorises: `#pragma omp
 * simd` with explicit reductions, no fast-math, no intrinsics.  The same text
 * then serves every processor, and kp_backend_cpu picks the best table. */
#ifndef KAPPA_BACKEND_CPU_ISA_H
#define KAPPA_BACKEND_CPU_ISA_H

#include "backend/operators.h"

#define KP_ISA_PASTE(name, isa)  name##_##isa
#define KP_ISA_EXPAND(name, isa) KP_ISA_PASTE(name, isa)
/* The name of an external symbol of this folder: KP_ISA_NAME(kp_cpu_table) is kp_cpu_table_avx2. */
#define KP_ISA_NAME(name) KP_ISA_EXPAND(name, KP_ISA)
/* The kernel of one operator: kp_status KP_KERNEL(add)(const kp_call *call, kp_error *error). */
#define KP_KERNEL(name) KP_ISA_NAME(kp_cpu_##name)
/* Its scratch function, where isa/table.c names one. */
#define KP_SCRATCH(name) KP_ISA_NAME(kp_cpu_scratch_##name)

#define KP_OPERATOR(ENUM, name, differentiable, inplace_output, inplace_input)                               \
  kp_status KP_KERNEL(name)(const kp_call *call, kp_error *error);                                           \
  size_t KP_SCRATCH(name)(const kp_node *node, int threads); /* defined only where isa/table.c names it */
#include "backend/operators.def"
#undef KP_OPERATOR

/* The finished backend of this instruction set. */
extern const kp_backend KP_ISA_NAME(kp_cpu_backend);

#endif
