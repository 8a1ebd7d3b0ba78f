/* Fast attention by distances against reference numbers, on every instruction set that this processor has. */
#include "support/check.h"

#include <math.h>

#include "support/attention_run.h"
#include "support/golden.h"

static void copy_floats(float *to, const golden_array *from) {
  for (size_t i = 0; i < from->count; i++) to[i] = (float)from->data[i];
}

static void test_reference_numbers(void **state) {
  (void)state;
  attention_kernels sets[ATTENTION_SETS];
  const int set_count = attention_kernel_sets(sets);
  golden *file = golden_open("stereographic/geoattn");
  for (int power = 1; power <= 2; power++) {
    oracle_problem p = {1, 6, 7, 7, 8, true, power, .scale = 1};
    oracle_problem_create(&p);
    copy_floats(p.q, golden_find(file, "p%d/q", power));
    copy_floats(p.k, golden_find(file, "p%d/k", power));
    copy_floats(p.v, golden_find(file, "p%d/v", power));
    copy_floats(p.out_bar, golden_find(file, "p%d/gout", power));
    copy_floats(p.beta, golden_find(file, "p%d/beta", power));
    const double *theta = golden_find(file, "p%d/theta", power)->data;
    const double *theta_bar = golden_find(file, "p%d/grad_theta", power)->data;
    double kappa_bar[7], logsumexp[42];
    for (int h = 0; h < 7; h++) {
      const double kappa = 2 * tanh(theta[h]);
      p.kappa[h] = (float)kappa;
      kappa_bar[h] = theta_bar[h] / (2 - kappa * kappa / 2);
    }
    const golden_array *distance = golden_find(file, "p%d/dist", power);
    for (int i = 0; i < 42; i++) {
      double sum = 0;
      for (int j = 0; j <= i % 6; j++) {
        const double d = distance->data[i * 6 + j];
        sum += exp(-(double)p.beta[i / 6] * (power == 1 ? d : d * d));
      }
      logsumexp[i] = log(sum);
    }
    const oracle_result expected = {.out = golden_find(file, "p%d/out", power)->data,
                                    .logsumexp = logsumexp,
                                    .q_bar = golden_find(file, "p%d/grad_q", power)->data,
                                    .k_bar = golden_find(file, "p%d/grad_k", power)->data,
                                    .v_bar = golden_find(file, "p%d/grad_v", power)->data,
                                    .kappa_bar = kappa_bar,
                                    .beta_bar = golden_find(file, "p%d/grad_beta", power)->data};
    for (int s = 0; s < set_count; s++) attention_check(&sets[s], &p, &expected, true);
    oracle_problem_destroy(&p);
  }
  golden_close(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_reference_numbers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
