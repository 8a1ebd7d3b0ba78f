#include "infer/text_stream.h"

#include <string.h>

#include "support/check.h"

typedef struct gathered {
  char text[256];
  size_t size;
  int pieces, allowed; /* pieces before the sink asks for no more */
} gathered;

/* Every piece must be valid UTF-8 by itself. */
static bool gather(void *context, const char *text, size_t size) {
  gathered *g = context;
  size_t count;
  kp_error error = {0};
  check_ok(kp_utf8_count(text, size, &count, &error), &error);
  assert_true(g->size + size < sizeof g->text);
  memcpy(g->text + g->size, text, size);
  g->size += size;
  return ++g->pieces < g->allowed;
}

/* Pushes `bytes` in pieces of `step` bytes and compares all that comes out. */
static void check_stream(const char *bytes, size_t step, const char *expected) {
  gathered g = {.allowed = 1000};
  kp_text_stream stream = {.sink = gather, .context = &g};
  const size_t size = strlen(bytes);
  for (size_t at = 0; at < size; at += step)
    assert_true(kp_text_stream_push(&stream, bytes + at, size - at < step ? size - at : step));
  assert_true(kp_text_stream_finish(&stream));
  g.text[g.size] = 0;
  assert_string_equal(g.text, expected);
}

static void test_characters_stay_whole(void **state) {
  (void)state;
  const char *text = "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x8C\x8D z";
  for (size_t step = 1; step <= 5; step++) check_stream(text, step, text);
}

static void test_invalid_bytes_are_replaced(void **state) {
  (void)state;
  for (size_t step = 1; step <= 4; step++) {
    check_stream("a\xFFz", step, "a\xEF\xBF\xBDz");
    check_stream("\xC3z", step, "\xEF\xBF\xBDz");                               /* cut short */
    check_stream("\x80", step, "\xEF\xBF\xBD");                                 /* no front */
    check_stream("\xE2\x82", step, "\xEF\xBF\xBD");                             /* ends too early */
    check_stream("\xED\xA0\x80", step, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"); /* a surrogate */
    check_stream("\xE2\xC3\xA4", step, "\xEF\xBF\xBD\xC3\xA4");
  }
}

static void test_a_sink_that_has_enough(void **state) {
  (void)state;
  gathered g = {.allowed = 2};
  kp_text_stream stream = {.sink = gather, .context = &g};
  assert_false(kp_text_stream_push(&stream, "abc", 3));
  assert_int_equal(g.size, 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_characters_stay_whole),
      cmocka_unit_test(test_invalid_bytes_are_replaced),
      cmocka_unit_test(test_a_sink_that_has_enough),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
