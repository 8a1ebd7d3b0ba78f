#include "support/check.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/number.h"

static void test_reals(void **state) {
  (void)state;
  static const struct {
    const char *text;
    double value;
  } cases[] = {{"0", 0},           {"-7", -7},
               {"+.5", 0.5},       {"2.", 2},
               {"1e-3", 1e-3},     {"6E+4", 6e4},
               {"010", 10},        {"0.1", 0.1},
               {"5e-324", 5e-324}, {"1.7976931348623157e308", 1.7976931348623157e308},
               {"0e-999", 0.0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    double value = (double)NAN;
    assert_int_equal(kp_number_real(cases[i].text, &value), KP_NUMBER_OK);
    assert_true(value == cases[i].value);
  }
}

static void test_not_reals(void **state) {
  (void)state;
  static const char *const texts[] = {"",     ".",   "-",     "e5",   "1e",    "1e+", "1_000",
                                      "0x10", "nan", "inf",   ".inf", "1.2.3", " 1",  "1 ",
                                      "--1",  "1,5", "1e1.5", "1f",   "+-1",   "-.e1"};
  double value = 42;
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    assert_int_equal(kp_number_real(texts[i], &value), KP_NUMBER_MALFORMED);
  assert_int_equal(kp_number_real("1e309", &value), KP_NUMBER_TOO_LARGE);
  assert_int_equal(kp_number_real("-1e309", &value), KP_NUMBER_TOO_LARGE);
  assert_int_equal(kp_number_real("1e-400", &value), KP_NUMBER_TOO_SMALL);
  assert_true(value == 42);
}

static void test_integers(void **state) {
  (void)state;
  int64_t value = 0;
  assert_int_equal(kp_number_integer("-9223372036854775808", &value), KP_NUMBER_OK);
  assert_true(value == INT64_MIN);
  assert_int_equal(kp_number_integer("+12", &value), KP_NUMBER_OK);
  assert_true(value == 12);
  assert_int_equal(kp_number_integer("9223372036854775808", &value), KP_NUMBER_TOO_LARGE);
  static const char *const texts[] = {"", "-", "1.5", "1e3", "1_000", "0x10", " 1", "1 "};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    assert_int_equal(kp_number_integer(texts[i], &value), KP_NUMBER_MALFORMED);
  assert_true(value == 12);
}

static void check_format(double value, const char *expected) {
  char text[KP_NUMBER_SIZE];
  kp_number_format(value, text);
  assert_string_equal(text, expected);
}

static void test_format(void **state) {
  (void)state;
  check_format(0, "0.0");
  check_format(-0.0, "-0.0");
  check_format(3, "3.0");
  check_format(0.1, "0.1");
  check_format(0.1 + 0.2, "0.30000000000000004");
  check_format(1e-5, "1.0e-05");
  check_format(1e22, "1.0e+22");
  check_format(-2.2250738585072014e-308, "-2.2250738585072014e-308");
}

/* Random bit patterns cover every exponent. */
static void test_format_reads_back(void **state) {
  (void)state;
  uint64_t bits = 0x9e3779b97f4a7c15u;
  for (int i = 0; i < 20000; i++) {
    bits = bits * 6364136223846793005u + 1442695040888963407u;
    double value, back = (double)NAN;
    memcpy(&value, &bits, sizeof value);
    if (!isfinite(value)) continue;
    char text[KP_NUMBER_SIZE];
    kp_number_format(value, text);
    assert_int_equal(kp_number_real(text, &back), KP_NUMBER_OK);
    assert_memory_equal(&back, &value, sizeof value);
  }
}

/* Under a locale that writes a comma, where the system has one. */
static void test_locale_does_not_matter(void **state) {
  (void)state;
  static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8",
                                      "fr_FR.utf8",  "de_DE",      "fr_FR"};
  const char *found = NULL;
  for (size_t i = 0; i < sizeof names / sizeof *names && found == NULL; i++)
    found = setlocale(LC_NUMERIC, names[i]);
  if (found == NULL) skip();
  double value = 0;
  kp_number_status status = kp_number_real("1.5", &value);
  char text[KP_NUMBER_SIZE], local[KP_NUMBER_SIZE];
  kp_number_format(0.25, text);
  snprintf(local, sizeof local, "%g", 0.25);
  setlocale(LC_NUMERIC, "C");
  assert_string_equal(local, "0,25");
  assert_int_equal(status, KP_NUMBER_OK);
  assert_true(value == 1.5);
  assert_string_equal(text, "0.25");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_reals),
      cmocka_unit_test(test_not_reals),
      cmocka_unit_test(test_integers),
      cmocka_unit_test(test_format),
      cmocka_unit_test(test_format_reads_back),
      cmocka_unit_test(test_locale_does_not_matter),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
