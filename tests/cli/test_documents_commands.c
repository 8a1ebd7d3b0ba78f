/* kappa data prepare and convert as users call them: what they print, and which command lines are wrong. */
#include "data/fixture.h"

#include "support/program.h"

static void test_wrong_command_lines(void **state) {
  (void)state;
  static const struct {
    const char *arguments[12], *words;
  } cases[] = {
      {{"data", "prepare", "--name", "x", "--format", "csv", "a"},
       "--format is one of text, json, jsonl, not 'csv'"},
      {{"data", "prepare", "--name", "x", "--invalid", "keep", "a"}, "--invalid is one of refuse, replace"},
      {{"data", "prepare", "--name", "x", "--split", "half", "a"}, "--split is one of characters, hash"},
      {{"data", "prepare", "--name", "x", "--split", "characters", "--dedupe", "a"},
       "takes no options of documents"},
      {{"data", "prepare", "--name", "x", "--task", "classify", "--field", "t", "a"},
       "have no options of documents"},
      {{"data", "prepare", "--name", "x", "--shard-tokens", "0", "a"}, "--shard-tokens"},
      {{"data", "convert", "a", "b"}, "--to is missing: nanogpt, llmc or kappa?"},
      {{"data", "convert", "a", "--to", "kappa"}, "which tokens, and where to?"},
      {{"data", "convert", "a", "b", "c", "--to", "kappa"}, "one input and one output, not also 'c'"},
      {{"data", "convert", "a", "b", "--to", "gguf"}, "--to is nanogpt, llmc or kappa, not 'gguf'"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    program_result result;
    program_run(cases[i].arguments, &result);
    program_check_usage(&result, cases[i].words);
  }
}

static void check_says(const program_result *result, const char *words) {
  program_check_ok(result);
  if (strstr(result->output, words) == NULL) fail_msg("'%s' is not in\n%s", words, result->output);
}

/* Documents to shards, shards to nanoGPT's file, and back to what can be trained on. */
static void test_there_and_back(void **state) {
  fixture *files = *state;
  program_result result;
  char lines[20000];
  size_t used = 0;
  for (int i = 0; i < 300; i++)
    used += (size_t)snprintf(lines + used, sizeof lines - used, "{\"body\": \"the %d and the %d\"}\n",
                             i % 200, i % 200);
  used += (size_t)snprintf(lines + used, sizeof lines - used, "{\"body\": \"\"}\n");
  const char *text = fixture_write(files, "in.jsonl", lines, used), *set = fixture_path(files, "set");
  RUN(&result, "data", "prepare", "--data", files->folder, "--name", "set", "--tokenizer", "bpe",
      "--vocabulary", "300", text);
  program_check_refused(&result, 1,
                        "there is no field 'text'; the fields are: body. Name that of the text (--field)");
  RUN(&result, "data", "prepare", "--data", files->folder, "--name", "set", "--tokenizer", "bpe",
      "--vocabulary", "300", "--field", "body", "--dedupe", text);
  check_says(&result, "documents, 100 duplicates left out, 1 without text left out\nprepared in");
  RUN(&result, "data", "show", set, "--tokens", "30");
  check_says(&result, "<|endoftext|>");
  check_says(&result, "validation; 100 duplicates left out\nseparator    0\n");
  RUN(&result, "data", "convert", set, fixture_path(files, "raw"), "--to", "nanogpt");
  check_says(&result, "/raw/train_000001.bin: ");
  RUN(&result, "data", "convert", fixture_path(files, "raw"), fixture_path(files, "back"), "--to", "kappa",
      "--tokenizer", set);
  check_says(&result, "/back/val_000001.bin: ");
  static const char *const names[] = {"train_000001.bin", "val_000001.bin"};
  for (int i = 0; i < 2; i++) {
    char path[64];
    size_t size, back_size;
    snprintf(path, sizeof path, "set/%s", names[i]);
    char *bytes = fixture_read(fixture_path(files, path), &size);
    snprintf(path, sizeof path, "back/%s", names[i]);
    char *back = fixture_read(fixture_path(files, path), &back_size);
    assert_int_equal(size, back_size);
    assert_memory_equal(bytes, back, size); /* header, fingerprint and bytes of text included */
    free(bytes);
    free(back);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_wrong_command_lines),
                                     with_fixture(test_there_and_back)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
