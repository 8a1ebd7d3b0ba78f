/* The fast backends that run on this machine, one an instruction set: tests of kernels go through them all.
 */
#ifndef KAPPA_TESTS_ISA_H
#define KAPPA_TESTS_ISA_H

#include "core/backend.h"

typedef struct kp_test_isa {
  const char *name;
  const kp_backend *backend;
} kp_test_isa;

enum { KP_TEST_ISAS = 4 };

/* Fills `list` and returns how many there are, at least one. */
int kp_test_isas(kp_test_isa list[KP_TEST_ISAS]);

#endif
