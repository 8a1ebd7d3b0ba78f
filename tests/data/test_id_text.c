/* Token ids that are read from text. */
#include "data/fixture.h"

#include "data/id_text.h"

static void check_ids(const char *text, const int32_t *expected, size_t count) {
  kp_error error = {0};
  kp_ids ids = {0};
  check_ok(kp_ids_read_text(text, strlen(text), &ids, &error), &error);
  assert_int_equal(ids.count, count);
  for (size_t i = 0; i < count; i++) assert_int_equal(ids.list[i], expected[i]);
  kp_ids_clear(&ids);
}

static void test_ids(void **state) {
  (void)state;
  static const int32_t expected[] = {15496, 995, 0, INT32_MAX};
  check_ids("15496 995 0 2147483647", expected, 4);
  check_ids("[15496, 995, 0, 2147483647]\n", expected, 4);
  check_ids("\n15496,995\r\n\t0000 02147483647", expected, 4);
  check_ids("", NULL, 0);
  check_ids(" [ ] ", NULL, 0);
}

static void check_refused(const char *text, size_t size, const char *words) {
  kp_error error = {0};
  kp_ids ids = {0};
  assert_int_equal(kp_ids_read_text(text, size, &ids, &error), KP_ERR_INPUT);
  check_words(&error, words);
  kp_ids_clear(&ids);
}

static void test_refusals(void **state) {
  (void)state;
  check_refused("1 two 3", 7, "'two' at byte 2 (line 1) is no token id");
  check_refused("1\n-2", 4, "'-2' at byte 2 (line 2)");
  check_refused("1.5", 3, "'1.5' at byte 0");
  check_refused("12a", 3, "'12a'");
  check_refused("2147483648", 10, "'2147483648'");
  check_refused("99999999999999999999999999999999999999999999999", 47, "from 0 to 2147483647");
  check_refused("1 \0", 3, "'?' at byte 2");
  check_refused("\xFF", 1, "'?' at byte 0");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_ids), cmocka_unit_test(test_refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
