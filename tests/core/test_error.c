#include "support/check.h"

#include <string.h>

static void test_context_goes_in_front(void **state) {
  (void)state;
  kp_error error = {0};
  assert_int_equal(kp_fail(&error, KP_ERR_INPUT, "key '%s' is unknown", "lr"), KP_ERR_INPUT);
  assert_int_equal(kp_context(&error, "%s:%d", "a.yaml", 3), KP_ERR_INPUT);
  assert_string_equal(error.message, "a.yaml:3: key 'lr' is unknown");
}

static void test_long_messages_are_cut(void **state) {
  (void)state;
  kp_error error = {0};
  char text[4096];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = 0;
  kp_fail(&error, KP_ERR_IO, "%s", text);
  kp_context(&error, "%s", text);
  assert_int_equal(strlen(error.message), sizeof error.message - 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_context_goes_in_front),
      cmocka_unit_test(test_long_messages_are_cut),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
