/* kappa data get and list as users call them, without a network. */
#include "data/fixture.h"

#include "support/program.h"

static void check_says(const program_result *result, const char *words) {
  program_check_ok(result);
  if (strstr(result->output, words) == NULL) fail_msg("'%s' is not in\n%s", words, result->output);
}

static void test_refusals(void **state) {
  fixture *files = *state;
  program_result result;
  RUN(&result, "data", "get", "--data", files->folder, "sst-3");
  program_check_refused(&result, 1, "no data set 'sst-3'; known are kjv_char");
  RUN(&result, "data", "get", "--data", files->folder, "sst-2", "--shards", "2");
  program_check_refused(&result, 1, "sst-2 has no shards to choose from");
  RUN(&result, "data", "get", "--data", files->folder, "fineweb10B", "--tokenizer", "bpe");
  program_check_refused(&result, 1, "in tokens already, those of gpt2");
  static const char *const none[] = {"data", "get", "fineweb10B", "--shards", "0", NULL};
  program_run(none, &result);
  program_check_usage(&result, "--shards");
}

/* Files that are carried to a machine by hand are all that is needed. */
static void test_carried_files(void **state) {
  fixture *files = *state;
  program_result result;
  static const char train[] =
      "-DOCSTART- -X- -X- O\n\nAnn NNP B-NP B-PER\nsings VBZ B-VP O\n\nRome NNP B-NP B-LOC\n";
  RUN(&result, "data", "list", "--data", files->folder);
  check_says(&result, "needs a pipe");
  assert_null(strstr(result.output, "prepared "));
  assert_int_equal(mkdir(fixture_path(files, "conll-2003"), 0777), 0);
  assert_int_equal(mkdir(fixture_path(files, "conll-2003/source"), 0777), 0);
  fixture_write(files, "conll-2003/source/train.txt", train, strlen(train));
  fixture_write(files, "conll-2003/source/valid.txt", train, strlen(train));
  fixture_write(files, "conll-2003/source/test.txt", train, strlen(train));
  RUN(&result, "data", "get", "--data", files->folder, "conll-2003", "--tokenizer", "character");
  check_says(&result, "conll-2003: 2 training and 2 validation examples\n");
  check_says(&result, "prepared in");
  RUN(&result, "data", "list", "--data", files->folder);
  check_says(&result, "tag       prepared ");
  RUN(&result, "data", "list", "--data", files->folder, "--json");
  check_says(&result, "\"url\": \"https://data.deepai.org/conll2003.zip\"");
  check_says(&result, "\"sha256\": null"); /* of the shards */
}

int main(void) {
  const struct CMUnitTest tests[] = {with_fixture(test_refusals), with_fixture(test_carried_files)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
