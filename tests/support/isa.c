#include "support/isa.h"

#include "backend/cpu/cpu.h"

int kp_test_isas(kp_test_isa list[KP_TEST_ISAS]) {
  static const char *const names[KP_TEST_ISAS] = {"sse", "avx2", "avx512", "plain"};
  int count = 0;
  for (int i = 0; i < KP_TEST_ISAS; i++) {
    const kp_backend *backend = kp_backend_cpu_named(names[i], NULL);
    if (backend != NULL) list[count++] = (kp_test_isa){names[i], backend};
  }
  return count;
}
