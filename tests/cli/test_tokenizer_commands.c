/* kappa tokenizer encode, decode, info and train, as a user types them. */
#include "data/fixture.h"
#include "support/program.h"

#include <jansson.h>

static const char text[] = "the cat sat on the mat; the hat sat on the cat.\n<|endoftext|>a bat\n";

static const char *write_text(fixture *files, const char *name, const char *words) {
  return fixture_write(files, name, words, strlen(words));
}

/* Trains on `text`; the path of the tokenizer. */
static const char *train(fixture *files) {
  program_result r;
  const char *path = fixture_path(files, "tokenizer.json");
  RUN(&r, "tokenizer", "train", write_text(files, "text.txt", text), "--vocabulary", "265", "--out", path);
  program_check_ok(&r);
  assert_non_null(strstr(r.output, "265 tokens learned from 67 B"));
  return path;
}

static json_t *parse(const char *output) {
  json_error_t fault;
  json_t *json = json_loads(output, 0, &fault);
  if (json == NULL) fail_msg("%s: %s", fault.text, output);
  return json;
}

static void test_train_encode_decode(void **state) {
  fixture *files = *state;
  const char *tokenizer = train(files), *bin = fixture_path(files, "ids.bin");
  const char *input = fixture_path(files, "text.txt");
  program_result r;

  RUN(&r, "tokenizer", "encode", tokenizer, "the", "--pieces");
  program_check_ok(&r);
  assert_non_null(strstr(r.output, "\t\"the\"\n"));
  RUN(&r, "tokenizer", "encode", tokenizer, "--file", input);
  program_check_ok(&r);
  const char *ids = write_text(files, "ids.txt", r.output);
  RUN(&r, "tokenizer", "decode", tokenizer, "--file", ids);
  program_check_ok(&r);
  assert_string_equal(r.output, text);
  RUN(&r, "tokenizer", "encode", tokenizer, "--file", input, "--out", bin);
  program_check_ok(&r);
  RUN(&r, "tokenizer", "decode", tokenizer, "--file", bin);
  program_check_ok(&r);
  assert_string_equal(r.output, text);
  RUN(&r, "tokenizer", "decode", tokenizer, "0");
  program_check_ok(&r);
  assert_string_equal(r.output, "<|endoftext|>");
}

static void test_specials(void **state) {
  fixture *files = *state;
  const char *tokenizer = train(files);
  program_result r;
  RUN(&r, "tokenizer", "encode", tokenizer, "a<|endoftext|>", "--json", "--pieces", "--specials");
  program_check_ok(&r);
  json_t *json = parse(r.output);
  assert_int_equal(json_integer_value(json_object_get(json, "tokens")), 2);
  assert_int_equal(json_integer_value(json_object_get(json, "bytes")), 14);
  assert_int_equal(json_integer_value(json_array_get(json_object_get(json, "ids"), 1)), 0);
  assert_string_equal(json_string_value(json_array_get(json_object_get(json, "pieces"), 1)), "<|endoftext|>");
  json_decref(json);
  RUN(&r, "tokenizer", "encode", tokenizer, "a<|endoftext|>", "--json");
  program_check_ok(&r);
  json = parse(r.output);
  assert_true(json_integer_value(json_object_get(json, "tokens")) > 2);
  assert_null(json_object_get(json, "pieces"));
  json_decref(json);
}

/* Half a character is no text: it comes out as the byte that it is, and is visible in JSON. */
static void test_half_characters(void **state) {
  fixture *files = *state;
  const char *tokenizer = train(files);
  program_result r;
  RUN(&r, "tokenizer", "encode", tokenizer, "\xC3\xA9");
  program_check_ok(&r);
  char *rest;
  char first[16];
  snprintf(first, sizeof first, "%ld", strtol(r.output, &rest, 10));
  RUN(&r, "tokenizer", "decode", tokenizer, first);
  program_check_ok(&r);
  assert_string_equal(r.output, "\xC3");
  RUN(&r, "tokenizer", "decode", tokenizer, first, "--json");
  program_check_ok(&r);
  json_t *json = parse(r.output);
  assert_string_equal(json_string_value(json_object_get(json, "text")), "\\xC3");
  json_decref(json);
}

static void test_info(void **state) {
  fixture *files = *state;
  const char *tokenizer = train(files);
  program_result r;
  RUN(&r, "tokenizer", "info", tokenizer, "--json", "--file", fixture_path(files, "text.txt"));
  program_check_ok(&r);
  json_t *json = parse(r.output), *fit = json_object_get(json, "text");
  assert_string_equal(json_string_value(json_object_get(json, "kind")), "bpe");
  assert_int_equal(json_integer_value(json_object_get(json, "vocabulary")), 265);
  assert_int_equal(json_integer_value(json_object_get(json, "end")), 0);
  assert_true(json_is_null(json_object_get(json, "begin")));
  assert_int_equal(json_array_size(json_object_get(json, "specials")), 1);
  assert_int_equal(json_integer_value(json_object_get(fit, "bytes")), strlen(text));
  assert_true(json_is_true(json_object_get(fit, "lossless")));
  assert_true(json_real_value(json_object_get(fit, "bytes_per_token")) > 1);
  json_decref(json);
  RUN(&r, "tokenizer", "info", tokenizer);
  program_check_ok(&r);
  assert_non_null(strstr(r.output, "end          0 <|endoftext|>"));
}

/* Another kind of tokenizer: kappa's own file. */
static void test_character_tokenizer(void **state) {
  fixture *files = *state;
  program_result r;
  RUN(&r, "data", "prepare", "--data", files->folder, "--name", "letters",
      write_text(files, "letters.txt", "abcabcabcabc"));
  program_check_ok(&r);
  const char *folder = fixture_path(files, "letters");
  RUN(&r, "tokenizer", "encode", folder, "cab");
  program_check_ok(&r);
  assert_string_equal(r.output, "2 0 1\n");
  RUN(&r, "tokenizer", "decode", folder, "2", "0", "1");
  program_check_ok(&r);
  assert_string_equal(r.output, "cab");
  RUN(&r, "tokenizer", "encode", folder, "cabin");
  program_check_refused(&r, 1, "at byte 3");
  RUN(&r, "tokenizer", "decode", folder, "3");
  program_check_refused(&r, 1, "outside the vocabulary of 3");
  const char *mine = train(files), *bin = fixture_path(files, "other.bin");
  RUN(&r, "tokenizer", "encode", mine, "abc", "--out", bin);
  program_check_ok(&r);
  RUN(&r, "tokenizer", "decode", folder, "--file", bin);
  program_check_refused(&r, 1, "tokenizer");
}

static void test_train_options(void **state) {
  fixture *files = *state;
  program_result r;
  const char *input = write_text(files, "text.txt", text), *folder = fixture_path(files, "made/");
  RUN(&r, "tokenizer", "train", input, input, "--vocabulary", "260", "--pattern", "llama3", "--special",
      "<s>", "--special", "</s>", "--threads", "2", "--json", "--out", folder);
  assert_int_equal(r.exit_code, 0);
  json_t *json = parse(r.output);
  assert_int_equal(json_integer_value(json_object_get(json, "vocabulary")), 260);
  assert_int_equal(json_integer_value(json_object_get(json, "specials")), 2);
  assert_int_equal(json_integer_value(json_object_get(json, "bytes")), 2 * strlen(text));
  json_decref(json);
  RUN(&r, "tokenizer", "decode", folder, "0", "1");
  program_check_ok(&r);
  assert_string_equal(r.output, "<s></s>");
  RUN(&r, "tokenizer", "train", input, "--no-specials", "--minimum", "3", "--out",
      fixture_path(files, "few.json"));
  assert_int_equal(r.exit_code, 0);
  assert_non_null(strstr(r.errors, "no pair came 3 times any more"));
}

static void test_refused(void **state) {
  fixture *files = *state;
  program_result r;
  const char *input = write_text(files, "text.txt", text), *out = fixture_path(files, "out.json");
  const char *latin = write_text(files, "latin.txt", "caf\xE9\n");
  RUN(&r, "tokenizer", "train", latin, "--out", out);
  program_check_refused(&r, 1, "latin.txt: ");
  program_check_refused(&r, 1, "offset 3 (line 1)");
  RUN(&r, "tokenizer", "train", input, "--vocabulary", "256", "--out", out);
  program_check_refused(&r, 1, "no room for the 256 bytes and 1 special token");
  RUN(&r, "tokenizer", "train", input, "--special", "a", "--out", out);
  program_check_refused(&r, 1, "take a longer text");
  RUN(&r, "tokenizer", "train", fixture_path(files, "missing.txt"), "--out", out);
  program_check_refused(&r, 1, "it does not exist");
  RUN(&r, "tokenizer", "train", input, "--out", fixture_path(files, "no/such/out.json"));
  program_check_refused(&r, 1, "there is no folder");
  assert_int_equal(kp_path_kind_of(out), KP_PATH_MISSING);
  const char *tokenizer = train(files);
  RUN(&r, "tokenizer", "decode", tokenizer, "12", "twelve");
  program_check_refused(&r, 1, "'twelve' at byte 0 (line 1) is no token id");
  RUN(&r, "tokenizer", "encode", tokenizer, "--file", latin);
  program_check_refused(&r, 1, "latin.txt: ");
  RUN(&r, "tokenizer", "encode", tokenizer, "--file", latin, "--invalid", "replace");
  program_check_ok(&r);
  RUN(&r, "tokenizer", "decode", tokenizer, "--file", write_text(files, "ids.txt", r.output));
  program_check_ok(&r);
  assert_string_equal(r.output, "caf\xEF\xBF\xBD\n");
  RUN(&r, "tokenizer", "train", latin, "--invalid", "replace", "--minimum", "1", "--vocabulary", "258",
      "--out", out);
  program_check_ok(&r);
  RUN(&r, "tokenizer", "info", input);
  assert_int_equal(r.exit_code, 1);
}

static void test_usage(void **state) {
  (void)state;
  program_result r;
  static const char *const members[] = {"encode", "decode", "info", "train", "convert"};
  for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
    RUN(&r, "tokenizer", members[i], "--help");
    program_check_ok(&r);
    if (strstr(r.output, "Example:") == NULL) fail_msg("tokenizer %s --help has no example", members[i]);
  }
  RUN(&r, "tokenizer", "trian");
  program_check_usage(&r, "did you mean 'tokenizer train'?");
  RUN(&r, "tokenizer");
  program_check_usage(&r, "Usage: kappa tokenizer COMMAND");
  RUN(&r, "tokenizer", "train", "text.txt");
  program_check_usage(&r, "--out is missing");
  RUN(&r, "tokenizer", "train", "--out", "x.json");
  program_check_usage(&r, "which texts?");
  RUN(&r, "tokenizer", "train", "a", "--out", "b", "--pattern", "gpt4");
  program_check_usage(&r, "--pattern is gpt2 or llama3");
  RUN(&r, "tokenizer", "train", "a", "--out", "b", "--special", "<s>", "--no-specials");
  program_check_usage(&r, "contradict");
  RUN(&r, "tokenizer", "train", "a", "--out", "b", "--invalid", "keep");
  program_check_usage(&r, "--invalid is refuse or replace");
  RUN(&r, "tokenizer", "train", "a", "--out", "b", "--format", "csv");
  program_check_usage(&r, "--format is text, json or jsonl");
  RUN(&r, "tokenizer", "encode");
  program_check_usage(&r, "which tokenizer?");
  RUN(&r, "tokenizer", "encode", "t.json", "two", "words");
  program_check_usage(&r, "put it in quotation marks");
  RUN(&r, "tokenizer", "encode", "t.json", "word", "--file", "text.txt");
  program_check_usage(&r, "which of the two?");
  RUN(&r, "tokenizer", "decode", "t.json", "1", "--file", "ids.txt");
  program_check_usage(&r, "which of the two?");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_train_encode_decode),
      with_fixture(test_specials),
      with_fixture(test_half_characters),
      with_fixture(test_info),
      with_fixture(test_character_tokenizer),
      with_fixture(test_train_options),
      with_fixture(test_refused),
      cmocka_unit_test(test_usage),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
