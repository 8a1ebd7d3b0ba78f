/* Accuracy, F1 and entities against numbers worked out by hand. */
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/batches.h"
#include "train/scores.h"

static kp_labelling labelling_of(kp_task task, const char *const *names, int32_t count) {
  kp_labelling labelling = {.task = task};
  kp_error error = {0};
  int32_t number, renumbered[16];
  for (int32_t i = 0; i < count; i++)
    check_ok(kp_label_set_add(&labelling.labels, names[i], strlen(names[i]), &number, &error), &error);
  kp_label_set_sort(&labelling.labels, renumbered);
  return labelling;
}

static void check_close(double value, double expected) {
  if (!(fabs(value - expected) <= 1e-12)) fail_msg("%.17g instead of %.17g", value, expected);
}

/* Logits that say `predicted` with a cross-entropy that is known: 1 against 0. */
static void write_logits(double *logits, int32_t K, int32_t predicted) {
  for (int32_t k = 0; k < K; k++) logits[k] = k == predicted;
}

static void test_classes(void **state) {
  (void)state;
  static const char *const names[] = {"a", "b", "c"};
  static const int32_t gold[] = {0, 0, 0, 0, 1, 1, KP_IGNORE, 1, 0, 1},
                       found[] = {0, 0, 1, 0, 1, 0, 2, 1, 0, 1};
  enum { ROWS = 10, K = 3 };
  kp_labelling labelling = labelling_of(KP_TASK_CLASSIFY, names, K);
  kp_scores scores;
  kp_error error = {0};
  double logits[ROWS * K];
  int32_t train_labels[] = {2, 1, 1, 0, 1};
  const kp_examples train = {.count = 5, .labels = train_labels};
  check_ok(kp_scores_init(&scores, &labelling, &train, 1, &error), &error);
  for (int i = 0; i < ROWS; i++) write_logits(logits + i * K, K, found[i]);
  kp_scores_add(&scores, logits, gold, 4, 1);
  kp_scores_add(&scores, logits + 4 * K, gold + 4, ROWS - 4, 1);
  const kp_score_report r = kp_scores_report(&scores);
  const double p = 7.0 / 9, log_sum = log(exp(1.0) + 2);
  assert_int_equal(r.examples, 9);
  assert_int_equal(r.labels, 9);
  check_close(r.accuracy, p);
  check_close(r.accuracy_error, sqrt(p * (1 - p) / 8));
  check_close(r.loss, (7 * (log_sum - 1) + 2 * log_sum) / 9);
  /* a: 4 right of 5 and 5 predicted; b: 3 right of 4 and 4 predicted; c does not occur. */
  check_close(r.macro_f1, (8.0 / 10 + 6.0 / 8) / 2);
  /* 7 right of 9; predicted and gold 5 and 4 times: (7 · 9 - 41) / (81 - 41). */
  check_close(r.mcc, 22.0 / 40);
  check_close(r.majority, 4.0 / 9);
  check_close(r.chance, 1.0 / 3);
  assert_true(isnan(r.entity_f1));
  const kp_label_score b = kp_scores_of_label(&scores, 1);
  assert_int_equal(b.gold, 4);
  check_close(b.precision, 3.0 / 4);
  check_close(kp_scores_of_label(&scores, 2).f1, 0);
  kp_scores_clear(&scores);
  kp_labelling_clear(&labelling);
}

/* ---- agreement ---- */

static kp_agreement agreement_of(const int64_t *table, int32_t K) {
  kp_agreement agreement;
  kp_error error = {0};
  check_ok(kp_agreement_of(table, K, &agreement, &error), &error);
  return agreement;
}

/* The jackknife by its definition: the measures of all tables without one example. */
static void check_jackknife(const int64_t *table, int32_t K) {
  double n = 0, macro[2] = {0}, mcc[2] = {0};
  int64_t rest[16];
  const kp_agreement all = agreement_of(table, K);
  for (int32_t i = 0; i < K * K; i++) {
    memcpy(rest, table, (size_t)(K * K) * sizeof *rest);
    if (table[i] == 0) continue;
    rest[i]--;
    const kp_agreement without = agreement_of(rest, K);
    const double count = (double)table[i];
    n += count;
    macro[0] += count * without.macro_f1;
    macro[1] += count * without.macro_f1 * without.macro_f1;
    mcc[0] += count * without.mcc;
    mcc[1] += count * without.mcc * without.mcc;
  }
  check_close(all.macro_f1_error, sqrt((n - 1) * (macro[1] / n - macro[0] / n * (macro[0] / n))));
  check_close(all.mcc_error, sqrt((n - 1) * (mcc[1] / n - mcc[0] / n * (mcc[0] / n))));
}

static void test_agreement(void **state) {
  (void)state;
  /* Binary: (6 · 3 - 1 · 2) / √(7 · 8 · 4 · 5), Matthews' own formula. */
  static const int64_t two[] = {6, 1, 2, 3}, right[] = {4, 0, 0, 5}, wrong[] = {0, 4, 5, 0},
                       one[] = {4, 0, 3, 0};
  static const int64_t four[] = {5, 1, 0, 0, 2, 3, 1, 0, 0, 4, 1, 0, 1, 0, 0, 0};
  check_close(agreement_of(two, 2).mcc, 16 / sqrt(1120));
  check_close(agreement_of(two, 2).macro_f1, (12.0 / 15 + 6.0 / 9) / 2);
  check_close(agreement_of(right, 2).mcc, 1);
  check_close(agreement_of(wrong, 2).mcc, -1);
  check_close(agreement_of(one, 2).mcc, 0);
  check_jackknife(two, 2);
  check_jackknife(one, 2);
  check_jackknife(four, 4);
  static const int64_t single[] = {1, 0, 0, 0};
  assert_true(isnan(agreement_of(single, 2).mcc_error));
}

/* Losses of very different logits are finite. */
static void test_large_logits(void **state) {
  (void)state;
  static const char *const names[] = {"a", "b"};
  kp_labelling labelling = labelling_of(KP_TASK_CLASSIFY, names, 2);
  kp_scores scores;
  kp_error error = {0};
  const double logits[] = {1e4, -1e4, 3, 3};
  const int32_t gold[] = {1, 0};
  check_ok(kp_scores_init(&scores, &labelling, NULL, 1, &error), &error);
  kp_scores_add(&scores, logits, gold, 2, 1);
  const kp_score_report r = kp_scores_report(&scores);
  check_close(r.loss, (2e4 + log(2)) / 2);
  check_close(r.accuracy, 0.5);
  check_close(r.mcc, 0); /* one label alone was predicted */
  assert_true(isnan(r.majority));
  kp_scores_clear(&scores);
  kp_labelling_clear(&labelling);
}

/* ---- entities ---- */

static const char *const tags[] = {"B-LOC", "B-PER", "E-PER", "I-LOC", "I-PER", "O", "S-LOC"};
enum { B_LOC, B_PER, E_PER, I_LOC, I_PER, O, S_LOC, TAGS };

static void check_entities(const int32_t *words, int64_t count, const char *expected) {
  kp_labelling labelling = labelling_of(KP_TASK_TAG, tags, TAGS);
  char found[256] = "";
  int64_t at = 0;
  kp_entity entity;
  while (kp_next_entity(&labelling.labels, words, count, &at, &entity))
    snprintf(found + strlen(found), sizeof found - strlen(found), "%lld-%lld %s;", (long long)entity.first,
             (long long)entity.last, entity.type);
  assert_string_equal(found, expected);
  kp_labelling_clear(&labelling);
}

#define ENTITIES(expected, ...)                                                                              \
  check_entities((const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t),   \
                 expected)

/* The rules of conlleval for where chunks begin and end. */
static void test_where_entities_begin_and_end(void **state) {
  (void)state;
  ENTITIES("", O, O);
  ENTITIES("0-1 PER;3-3 LOC;", B_PER, I_PER, O, B_LOC);
  ENTITIES("0-0 PER;1-1 PER;", B_PER, B_PER);
  ENTITIES("1-2 PER;", O, I_PER, I_PER);      /* begins without B */
  ENTITIES("0-0 PER;1-1 LOC;", B_PER, I_LOC); /* another type */
  ENTITIES("0-1 PER;2-2 PER;", I_PER, I_PER, B_PER);
  ENTITIES("0-2 PER;3-3 PER;", B_PER, I_PER, E_PER, I_PER);
  ENTITIES("0-0 LOC;1-1 LOC;2-2 LOC;", S_LOC, S_LOC, I_LOC);
  ENTITIES("0-0 LOC;2-2 PER;", I_LOC, O, E_PER);
}

static void test_entity_scores(void **state) {
  (void)state;
  /* Sentence 1: PER 0-1, LOC 3 against PER 0-1, PER 3; sentence 2: PER 0-1 against PER 0-0; sentence 3 has
   * none, and one is found. */
  static const int32_t gold[3][5] = {
      {B_PER, I_PER, O, B_LOC, KP_IGNORE}, {B_PER, KP_IGNORE, I_PER, O, KP_IGNORE}, {O, KP_IGNORE, O, O, O}};
  static const int32_t found[3][5] = {
      {B_PER, I_PER, O, B_PER, B_PER}, {B_PER, B_PER, O, O, O}, {O, B_PER, O, S_LOC, O}};
  kp_labelling labelling = labelling_of(KP_TASK_TAG, tags, TAGS);
  kp_scores scores;
  kp_error error = {0};
  double logits[15 * TAGS];
  check_ok(kp_scores_init(&scores, &labelling, NULL, 5, &error), &error);
  for (int i = 0; i < 15; i++) write_logits(logits + i * TAGS, TAGS, found[i / 5][i % 5]);
  kp_scores_add(&scores, logits, gold[0], 3, 5);
  const kp_score_report r = kp_scores_report(&scores);
  assert_true(scores.entities);
  assert_int_equal(r.examples, 3);
  assert_int_equal(r.labels, 11);
  assert_int_equal(scores.entities_gold, 3);
  assert_int_equal(scores.entities_found, 4);
  assert_int_equal(scores.entities_right, 1);
  check_close(r.precision, 1.0 / 4);
  check_close(r.recall, 1.0 / 3);
  check_close(r.entity_f1, 2.0 / 7);
  check_close(r.accuracy, 8.0 / 11);
  /* What conlleval says of each type: LOC 0 of 1 (1 found), PER 1 of 2 (3 found). */
  assert_int_equal(scores.type_count, 2);
  const kp_type_score loc = kp_scores_of_type(&scores, 0), per = kp_scores_of_type(&scores, 1);
  assert_string_equal(loc.type, "LOC");
  assert_int_equal(loc.gold, 1);
  assert_int_equal(loc.found, 1);
  check_close(loc.f1, 0);
  assert_string_equal(per.type, "PER");
  check_close(per.precision, 1.0 / 3);
  check_close(per.recall, 1.0 / 2);
  check_close(per.f1, 2.0 / 5);
  /* Right words 3 of 4, 2 of 3, 3 of 4. */
  const double q = 8.0 / 11, d[] = {3 - 4 * q, 2 - 3 * q, 3 - 4 * q};
  const double squares = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
  check_close(r.accuracy_error, sqrt(squares * 3 / 2) / 11);
  kp_scores_clear(&scores);
  kp_labelling_clear(&labelling);
}

static void test_what_marks_entities(void **state) {
  (void)state;
  static const char *const none[] = {"NOUN", "VERB"}, *const mixed[] = {"B-X", "O", "VERB"};
  static const char *const marked[] = {"B-X", "I-X", "O"}, *const outside[] = {"O", "P"};
  const struct {
    const char *const *names;
    int32_t count;
    bool expected;
  } rows[] = {{none, 2, false}, {mixed, 3, false}, {marked, 3, true}, {outside, 1, false}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    kp_labelling labelling = labelling_of(KP_TASK_TAG, rows[i].names, rows[i].count);
    assert_int_equal(kp_labels_mark_entities(&labelling.labels), rows[i].expected);
    kp_labelling_clear(&labelling);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_classes),       cmocka_unit_test(test_agreement),
      cmocka_unit_test(test_large_logits),  cmocka_unit_test(test_where_entities_begin_and_end),
      cmocka_unit_test(test_entity_scores), cmocka_unit_test(test_what_marks_entities),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
