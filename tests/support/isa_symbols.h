/* The instruction sets that kernels are compiled for, for tests that call each of them directly.
 *
 * ISA_EACH(ROW) expands ROW(isa) for each; isa_available("avx2") says whether this processor runs it. */
#ifndef KAPPA_TESTS_ISA_SYMBOLS_H
#define KAPPA_TESTS_ISA_SYMBOLS_H

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#define ISA_EACH(ROW) ROW(sse) ROW(avx2) ROW(avx512)
static inline bool isa_available(const char *name) {
  if (strcmp(name, "avx512") == 0)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
  if (strcmp(name, "avx2") == 0)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  return __builtin_cpu_supports("sse4.2");
}
#else
#define ISA_EACH(ROW) ROW(plain)
static inline bool isa_available(const char *name) {
  return strcmp(name, "plain") == 0;
}
#endif

#endif
