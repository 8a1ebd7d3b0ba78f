#include "backend/cpu/cpu.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#ifdef KP_ISA_X86
extern const kp_backend kp_cpu_backend_sse, kp_cpu_backend_avx2, kp_cpu_backend_avx512;
extern const kp_cpu_functions kp_cpu_functions_sse, kp_cpu_functions_avx2, kp_cpu_functions_avx512;
#else
extern const kp_backend kp_cpu_backend_plain;
extern const kp_cpu_functions kp_cpu_functions_plain;
#endif

typedef struct kp_isa {
  const char *name;
  const kp_backend *backend;
  const kp_cpu_functions *functions;
  bool (*runs_here)(void);
} kp_isa;

#ifdef KP_ISA_X86
static bool has_avx512(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

static bool has_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}
#endif

static bool always(void) {
  return true;
}

/* Best first; the last one runs everywhere. */
static const kp_isa isas[] = {
#ifdef KP_ISA_X86
    {"avx512", &kp_cpu_backend_avx512, &kp_cpu_functions_avx512, has_avx512},
    {"avx2", &kp_cpu_backend_avx2, &kp_cpu_functions_avx2, has_avx2},
    {"sse", &kp_cpu_backend_sse, &kp_cpu_functions_sse, always},
#else
    {"plain", &kp_cpu_backend_plain, &kp_cpu_functions_plain, always},
#endif
};

enum { ISA_COUNT = sizeof isas / sizeof isas[0] };

static const kp_isa *find(const char *name) {
  for (int i = 0; i < ISA_COUNT; i++)
    if (strcmp(isas[i].name, name) == 0) return &isas[i];
  return NULL;
}

static const kp_isa *choose(void) {
  const char *forced = getenv("KAPPA_ISA");
  const kp_isa *isa = forced == NULL ? NULL : find(forced);
  if (isa != NULL && isa->runs_here()) return isa;
  for (isa = isas; !isa->runs_here();) isa++;
  return isa;
}

/* The kernels call OpenBLAS from all of their threads.  Its OpenMP build then works on the calling thread by
 * itself; its pthread build would start threads of its own and must be told. */
static const kp_backend *prepared(const kp_isa *isa) {
  enum { PTHREADS = 1 };
  if (openblas_get_parallel() == PTHREADS) openblas_set_num_threads(1);
  return isa->backend;
}

const kp_backend *kp_backend_cpu(void) {
  return prepared(choose());
}

const kp_backend *kp_backend_cpu_named(const char *name, kp_error *error) {
  const kp_isa *isa = find(name);
  if (isa == NULL) {
    kp_fail(error, KP_ERR_INPUT, "instruction set '%s' is not one of this build; its best here is '%s'", name,
            choose()->name);
    return NULL;
  }
  if (!isa->runs_here()) {
    kp_fail(error, KP_ERR_UNSUPPORTED, "this processor does not have instruction set '%s'; its best is '%s'",
            name, choose()->name);
    return NULL;
  }
  return prepared(isa);
}

const char *kp_cpu_isa_name(void) {
  return choose()->name;
}

const char *kp_cpu_isa_at(int index, bool *runs_here) {
  if (index < 0 || index >= ISA_COUNT) return NULL;
  *runs_here = isas[index].runs_here();
  return isas[index].name;
}

kp_blas kp_cpu_blas(void) {
  enum { OPENMP = 2 };
  return (kp_blas){.config = openblas_get_config(),
                   .core = openblas_get_corename(),
                   .openmp = openblas_get_parallel() == OPENMP};
}

const kp_cpu_functions *kp_cpu_functions_of(const kp_backend *backend) {
  for (int i = 0; i < ISA_COUNT; i++)
    if (isas[i].backend == backend) return isas[i].functions;
  return choose()->functions;
}
