#include "support/check.h"

#include <string.h>

#include "core/suggest.h"

static void test_distance(void **state) {
  (void)state;
  assert_int_equal(kp_edit_distance("", ""), 0);
  assert_int_equal(kp_edit_distance("", "abc"), 3);
  assert_int_equal(kp_edit_distance("layers", "layers"), 0);
  assert_int_equal(kp_edit_distance("layer", "layers"), 1);
  assert_int_equal(kp_edit_distance("layres", "layers"), 1);
  assert_int_equal(kp_edit_distance("kitten", "sitting"), 3);
  assert_int_equal(kp_edit_distance("sitting", "kitten"), 3);
  assert_int_equal(kp_edit_distance("ca", "abc"), 3);
}

static void test_long_words_are_far(void **state) {
  (void)state;
  char word[KP_SUGGEST_LIMIT + 2];
  memset(word, 'a', sizeof word - 1);
  word[KP_SUGGEST_LIMIT + 1] = 0;
  assert_true(kp_edit_distance(word, "a") == SIZE_MAX);
  assert_true(kp_edit_distance("a", word) == SIZE_MAX);
  word[KP_SUGGEST_LIMIT] = 0;
  assert_int_equal(kp_edit_distance("a", word), KP_SUGGEST_LIMIT - 1);
}

static void test_near(void **state) {
  (void)state;
  assert_true(kp_edit_distance_is_near(1, "ab"));
  assert_false(kp_edit_distance_is_near(2, "ab"));
  assert_true(kp_edit_distance_is_near(3, "12345678"));
  assert_false(kp_edit_distance_is_near(4, "12345678"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_distance),
      cmocka_unit_test(test_long_words_are_far),
      cmocka_unit_test(test_near),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
