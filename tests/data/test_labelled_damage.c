/* Folders of labelled sets that were damaged: what does not fit together is refused. */
#include "data/labelled_sets.h"

/* Replaces the first `from` in a file of the folder; both have the same length, or the file is a text. */
static void replace(const char *folder, const char *name, const char *from, const char *to) {
  kp_error error = {0};
  char path[KP_PATH_SIZE];
  size_t size;
  check_ok(kp_path_join(path, folder, name, &error), &error);
  char *text = fixture_read(path, &size);
  char *at = strstr(text, from);
  assert_non_null(at);
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  fwrite(text, 1, (size_t)(at - text), out);
  fputs(to, out);
  fputs(at + strlen(from), out);
  assert_int_equal(fclose(out), 0);
  free(text);
}

static void test_a_damaged_description_is_refused(void **state) {
  fixture *files = *state;
  static const char *const damages[][2] = {
      {"\"classify\"", "\"language\""},
      {"\"classify\"", "7"},
      {"\"labels\"", "\"names\""},
      {"\"0\"", "\"1\""},
      {"\"0\"", "null"},
      {"\"vocabulary\": ", "\"x\": "},
      {"\"vocabulary\": ", "\"vocabulary\": -"},
      {"\"examples\": ", "\"examples\": -"},
      {"\"train\"", "\"training\""},
      {"{", "["},
  };
  const char *folder = fixture_path(files, "set");
  for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
    kp_error error = {0};
    kp_labelled_set set;
    prepare_doubles(files, folder);
    replace(folder, KP_TASK_FILE, damages[i][0], damages[i][1]);
    assert_int_equal(kp_labelled_open(folder, &set, &error), KP_ERR_INPUT);
    check_words(&error, "task.json");
    replace(folder, KP_PREPARED_FILE, "\"complete\": true", "\"complete\": false");
  }
}

static void test_an_index_that_does_not_fit_is_refused(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_labelled_set set;
  const char *folder = fixture_path(files, "set");
  prepare_doubles(files, folder);
  /* Another number of examples than the index has. */
  kp_labelling labelling;
  check_ok(kp_labelling_read(folder, &labelling, &error), &error);
  labelling.train.examples--;
  check_ok(kp_labelling_write(folder, &labelling, &error), &error);
  assert_int_equal(kp_labelled_open(folder, &set, &error), KP_ERR_INPUT);
  check_words(&error, KP_TRAIN_EXAMPLES_FILE);
  /* The labels of three classes where two are named. */
  labelling.train.examples++;
  free(labelling.labels.names[--labelling.labels.count]);
  check_ok(kp_labelling_write(folder, &labelling, &error), &error);
  assert_int_equal(kp_labelled_open(folder, &set, &error), KP_ERR_INPUT);
  check_words(&error, "is none of the 2");
  kp_labelling_clear(&labelling);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_a_damaged_description_is_refused),
      with_fixture(test_an_index_that_does_not_fit_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
