/* The fast float32 backend for processors.
 *
 * Its kernels are compiled once per instruction set: "sse" (x86-64-v2), "avx2"
 * (x86-64-v3) and "avx512" (x86-64-v4) on x86-64, "plain" elsewhere.  The best
 * that the processor has is used, unless the environment variable KAPPA_ISA
 * names another: to compare them, or to test the slower ones.
 *
 * Matrix products are OpenBLAS's, which picks its own instructions; its
 * variable OPENBLAS_CORETYPE overrides that. */
#ifndef KAPPA_BACKEND_CPU_H
#define KAPPA_BACKEND_CPU_H

#include <stdbool.h>

#include "backend/cpu/functions.h"
#include "core/backend.h"

/* The backend that KAPPA_ISA names, or the best one where KAPPA_ISA is not set or names none that runs here.
 */
const kp_backend *kp_backend_cpu(void);

/* The backend of one instruction set; NULL with an error when this build does not know it or this processor
 * lacks it. */
const kp_backend *kp_backend_cpu_named(const char *isa, kp_error *error);

/* The name of the instruction set that kp_backend_cpu uses. */
const char *kp_cpu_isa_name(void);

/* The name of instruction set `index` of this build, the best first, and whether this processor has it; NULL
 * behind the last. */
const char *kp_cpu_isa_at(int index, bool *runs_here);

/* The library of matrix products. */
typedef struct kp_blas {
  const char *config; /* its own words: version and build */
  const char *core;   /* the processor it took this one for */
  bool openmp;        /* shares the threads of everything else; a build with threads of its own is slower */
} kp_blas;
kp_blas kp_cpu_blas(void);

/* The flat passes that belong to `backend`; those of kp_backend_cpu for a backend that is not of this family.
 */
const kp_cpu_functions *kp_cpu_functions_of(const kp_backend *backend);

#endif
