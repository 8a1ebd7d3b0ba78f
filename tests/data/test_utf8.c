#include "support/check.h"

#include <string.h>

#include "data/utf8.h"

static void test_every_scalar_value_comes_back(void **state) {
  (void)state;
  for (uint32_t c = 0; c <= KP_UTF8_LAST_CODE_POINT; c++) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    char bytes[KP_UTF8_LONGEST];
    size_t size = kp_utf8_write(c, bytes);
    uint32_t back = UINT32_MAX;
    if (kp_utf8_read(bytes, size, &back) != size || back != c) fail_msg("U+%04X gives U+%04X", c, back);
    if (size > 1 && kp_utf8_read(bytes, size - 1, &back) != 0) fail_msg("U+%04X is read when cut", c);
  }
}

static void test_known_bytes(void **state) {
  (void)state;
  char bytes[KP_UTF8_LONGEST];
  assert_int_equal(kp_utf8_write(0xE9, bytes), 2);
  assert_memory_equal(bytes, "\xC3\xA9", 2);
  assert_int_equal(kp_utf8_write(0x20AC, bytes), 3);
  assert_memory_equal(bytes, "\xE2\x82\xAC", 3);
  assert_int_equal(kp_utf8_write(0x1F600, bytes), 4);
  assert_memory_equal(bytes, "\xF0\x9F\x98\x80", 4);
}

static void test_invalid_forms_are_refused(void **state) {
  (void)state;
  static const char *const invalid[] = {
      "\x80",             /* a continuation alone */
      "\xC0\xAF",         /* overlong '/' in two bytes */
      "\xC1\xBF",         /* overlong */
      "\xE0\x80\xAF",     /* overlong in three */
      "\xE0\x9F\xBF",     /* overlong U+07FF */
      "\xF0\x8F\xBF\xBF", /* overlong U+FFFF */
      "\xED\xA0\x80",     /* surrogate U+D800 */
      "\xED\xBF\xBF",     /* surrogate U+DFFF */
      "\xF4\x90\x80\x80", /* U+110000 */
      "\xF5\x80\x80\x80", /* above all */
      "\xFF",             /* never */
      "\xC3(",            /* no continuation */
      "\xE2\x82(",        /* the third byte is none */
  };
  for (size_t i = 0; i < sizeof invalid / sizeof invalid[0]; i++) {
    uint32_t c;
    if (kp_utf8_read(invalid[i], strlen(invalid[i]), &c) != 0) fail_msg("case %zu is read as U+%04X", i, c);
  }
}

static void test_count_names_offset_and_line(void **state) {
  (void)state;
  kp_error error = {0};
  size_t count = 0;
  check_ok(kp_utf8_count("a\xC3\xA9\n\xF0\x9F\x98\x80", 8, &count, &error), &error);
  assert_int_equal(count, 4);
  assert_int_equal(kp_utf8_count("one\ntwo\nth\xFFree", 14, &count, &error), KP_ERR_INPUT);
  assert_non_null(strstr(error.message, "0xFF at offset 10 (line 3)"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_scalar_value_comes_back),
      cmocka_unit_test(test_known_bytes),
      cmocka_unit_test(test_invalid_forms_are_refused),
      cmocka_unit_test(test_count_names_offset_and_line),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
