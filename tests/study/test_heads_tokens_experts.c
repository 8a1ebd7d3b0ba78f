/* Signs of curvatures, lengths of embeddings and loads of experts, on numbers small enough to count. */
#include <math.h>
#include <string.h>

#include "near.h"
#include "study/curvature_signs.h"
#include "study/expert_load.h"
#include "study/token_norms.h"

static void kinds_of_curvature(void **state) {
  (void)state;
  const double kappa[] = {-0.2, -0.1, 0, 0.1, 0.11, 5, NAN, -3};
  double shares[3];
  kp_curvature_shares(kappa, 8, shares);
  check_near(shares[KP_KIND_HYPERBOLIC], 2.0 / 7, 1e-15);
  check_near(shares[KP_KIND_EUCLIDEAN], 3.0 / 7, 1e-15);
  check_near(shares[KP_KIND_SPHERICAL], 2.0 / 7, 1e-15);
  kp_curvature_shares(kappa, 0, shares);
  assert_true(isnan(shares[0]));
}

/* Random signs near 0 that only drift away: half and half at the end, as at the start. */
static void drifting_heads_keep_their_signs(void **state) {
  (void)state;
  double start[12], end[12];
  kp_curvature_table table = {0};
  char text[1024];
  for (int i = 0; i < 12; i++) {
    start[i] = i % 2 == 0 ? -0.02 : 0.02;
    end[i] = 40 * start[i];
  }
  kp_curvature_table_add(&table, start, end, 12);
  const kp_curvature_tests r = kp_curvature_test(&table);
  assert_int_equal(table.heads, 12);
  assert_int_equal(table.signs[0][0], 6);
  assert_int_equal(table.signs[2][2], 6);
  assert_int_equal(table.kinds[KP_KIND_EUCLIDEAN][KP_KIND_HYPERBOLIC], 6);
  assert_int_equal(r.to_positive + r.to_negative, 0);
  check_near(r.p_signs, 1, 0);
  check_near(r.p_flat, 2 * pow(0.5, 12), 1e-15); /* all twelve left the flat range */
  check_near(r.p_memory, 2.0 / 924, 1e-12);      /* of 12 over 6 tables, the two extreme ones */
  kp_curvature_sentence(&table, text, sizeof text);
  assert_non_null(strstr(text, "0 changed sign"));
  assert_non_null(strstr(text, "cannot be told from those of the start"));
  assert_non_null(strstr(text, "The sign at the end follows"));
}

static void heads_that_choose(void **state) {
  (void)state;
  double start[10], end[10];
  kp_curvature_table table = {0};
  char text[1024];
  for (int i = 0; i < 10; i++) {
    start[i] = 0.5;
    end[i] = i < 8 ? -0.5 : 0.5;
  }
  kp_curvature_table_add(&table, start, end, 5); /* in two parts */
  kp_curvature_table_add(&table, start + 5, end + 5, 5);
  const kp_curvature_tests r = kp_curvature_test(&table);
  assert_int_equal(r.to_negative, 8);
  assert_int_equal(r.began_negative, 0);
  assert_int_equal(r.ended_negative, 8);
  check_near(r.p_signs, 2.0 / 256, 1e-15);
  check_near(r.p_flat, 1, 0);
  assert_true(isnan(r.p_memory));
  kp_curvature_sentence(&table, text, sizeof text);
  assert_non_null(strstr(text, "differ from those of the start"));
  assert_non_null(strstr(text, "cannot be asked"));
}

static void lengths_by_frequency(void **state) {
  (void)state;
  enum { V = 45 };
  int64_t counts[V];
  double norms[V];
  for (int i = 0; i < V; i++) {
    counts[i] = i < 40 ? 1000 - 10 * i : 0; /* the last five never occur */
    norms[i] = i < 40 ? 1 + 0.1 * i : 7;
  }
  kp_token_norms r = kp_token_norms_of(V, counts, norms);
  assert_int_equal(r.seen, 40);
  assert_int_equal(r.unseen, 5);
  assert_int_equal(r.groups, 10);
  check_near(r.unseen_norm, 7, 1e-15);
  check_near(r.norm[0], 1.15, 1e-14); /* of 1, 1.1, 1.2, 1.3 */
  check_near(r.norm[9], 4.75, 1e-14);
  check_near(r.share[0], 3940.0 / 32200, 1e-14);
  check_near(r.spearman.value, -1, 1e-15);
  r = kp_token_norms_of(3, (const int64_t[]){5, 0, 9}, (const double[]){1, 2, 3});
  assert_int_equal(r.groups, 2);
  check_near(r.norm[0], 3, 0);
  check_near(r.norm[1], 1, 0);
  assert_true(isnan(r.spearman.value));
}

static void loads_of_experts(void **state) {
  (void)state;
  kp_expert_load r = kp_expert_load_of(4, (const double[]){25, 25, 25, 25});
  check_near(r.entropy, 1, 1e-15);
  check_near(r.largest, 1, 0);
  check_near(r.variation, 0, 0);
  r = kp_expert_load_of(4, (const double[]){0, 10, 0, 10});
  assert_int_equal(r.unused, 2);
  check_near(r.entropy, 0.5, 1e-15);
  check_near(r.largest, 2, 0);
  check_near(r.smallest, 0, 0);
  check_near(r.variation, 1, 1e-15);
  r = kp_expert_load_of(3, (const double[]){0, 0, 0});
  assert_true(isnan(r.entropy) && isnan(r.largest));
  check_near(kp_expert_load_of(1, (const double[]){3}).entropy, 1, 0);
  check_near(kp_routing_entropy(2, 2, (const double[]){0.5, 0.5, 3, 0}), 0.5, 1e-15);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(kinds_of_curvature), cmocka_unit_test(drifting_heads_keep_their_signs),
      cmocka_unit_test(heads_that_choose),  cmocka_unit_test(lengths_by_frequency),
      cmocka_unit_test(loads_of_experts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
