/* Names of labels: numbers at first sight, then by order. */
#include "support/check.h"

#include <stdio.h>
#include <string.h>

#include "data/label_set.h"

static int32_t add(kp_label_set *set, const char *name) {
  kp_error error = {0};
  int32_t number = -1;
  check_ok(kp_label_set_add(set, name, strlen(name), &number, &error), &error);
  return number;
}

static void test_numbers_follow_the_order_of_bytes(void **state) {
  (void)state;
  static const char *const names[] = {"neutral", "b", "contradiction", "a", "entailment", "aa"};
  static const char *const sorted[] = {"a", "aa", "b", "contradiction", "entailment", "neutral"};
  kp_label_set set = {0};
  int32_t renumbered[6];
  for (int32_t i = 0; i < 6; i++) assert_int_equal(add(&set, names[i]), i);
  for (int32_t i = 0; i < 6; i++) assert_int_equal(add(&set, names[i]), i);
  kp_label_set_sort(&set, renumbered);
  for (int32_t i = 0; i < 6; i++) {
    assert_string_equal(set.names[i], sorted[i]);
    assert_string_equal(sorted[renumbered[i]], names[i]);
    assert_int_equal(add(&set, sorted[i]), i);
  }
  kp_label_set_clear(&set);
}

static void test_what_is_no_label(void **state) {
  (void)state;
  kp_label_set set = {0};
  kp_error error = {0};
  int32_t number;
  char name[KP_LABEL_LONGEST + 1];
  memset(name, 'x', sizeof name);
  assert_int_equal(kp_label_set_add(&set, "", 0, &number, &error), KP_ERR_INPUT);
  assert_int_equal(kp_label_set_add(&set, name, sizeof name, &number, &error), KP_ERR_INPUT);
  check_ok(kp_label_set_add(&set, name, sizeof name - 1, &number, &error), &error);
  set.closed = true;
  check_ok(kp_label_set_add(&set, name, sizeof name - 1, &number, &error), &error);
  assert_int_equal(kp_label_set_add(&set, "new", 3, &number, &error), KP_ERR_INPUT);
  assert_non_null(strstr(error.message, "'new' is none of the 1"));
  kp_label_set_clear(&set);
}

static void test_too_many(void **state) {
  (void)state;
  kp_label_set set = {0};
  kp_error error = {0};
  int32_t number;
  char name[16];
  for (int i = 0; i < KP_LABELS_MOST; i++) {
    snprintf(name, sizeof name, "%d", (i * 2731) % KP_LABELS_MOST);
    assert_int_equal(add(&set, name), i);
  }
  assert_int_equal(kp_label_set_add(&set, "more", 4, &number, &error), KP_ERR_INPUT);
  assert_non_null(strstr(error.message, "is this the column of the labels?"));
  for (int32_t i = 1; i < set.count; i++) assert_true(strcmp(set.names[i - 1], set.names[i]) < 0);
  kp_label_set_clear(&set);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_numbers_follow_the_order_of_bytes),
      cmocka_unit_test(test_what_is_no_label),
      cmocka_unit_test(test_too_many),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
