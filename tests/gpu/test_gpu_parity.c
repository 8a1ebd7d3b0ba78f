/* Every reference case of the original implementations in float32 on a GPU. */
#include "gpu/gpu.h"
#include "support/parity.h"

static void test_goldens(void **state) {
  (void)state;
  const kp_backend *backend = gpu_open(KP_CUDA_FLOAT32);
  check_goldens(backend);
  kp_backend_cuda_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_goldens)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
