/* A run on rows of whole documents: it learns, says how full the rows are, and is judged as it is trained. */
#include "support/program.h"
#include "support/small_run.h"

#include <math.h>

#define PACKED "--set", "train.packing=best_fit", "--set", "data.separator=0" /* the end of a line */

static void test_training_and_judging(void **state) {
  fixture *files = *state;
  program_result result;
  const char *config = small_config(files), *run = fixture_path(files, "run");
  RUN(&result, "train", config, "--out", run, "--backend", "ref", PACKED);
  program_check_ok(&result);
  if (strstr(result.output, "% full") == NULL) fail_msg("%s", result.output);
  json_t *lines = small_metrics(run);
  const json_t *last = json_array_get(lines, json_array_size(lines) - 1);
  const double loss = json_number_value(json_object_get(last, "validation_loss"));
  assert_true(loss > 0 && isfinite(loss));
  RUN(&result, "eval", run, "--backend", "ref", "--batches", "2", "--json");
  program_check_ok(&result);
  json_t *judged = json_loads(result.output, 0, NULL);
  assert_non_null(judged);
  const double again = json_number_value(json_object_get(judged, "loss"));
  if (fabs(again - loss) > 1e-8) fail_msg("%.12g, in training %.12g", again, loss);
  json_decref(lines);
  json_decref(judged);
}

static void test_packing_needs_a_separator(void **state) {
  fixture *files = *state;
  program_result result;
  const char *config = small_config(files), *run = fixture_path(files, "run");
  RUN(&result, "train", config, "--out", run, "--set", "train.packing=helm");
  program_check_refused(&result, 1, "set data.separator");
  RUN(&result, "train", config, "--out", run, "--set", "train.packing=helm", "--set", "data.separator=9999");
  program_check_refused(&result, 1, "holds no token 9999");
}

/* A set of documents says itself which token ends them. */
static void test_the_set_knows_its_separator(void **state) {
  fixture *files = *state;
  program_result result;
  const char *config = small_config(files), *run = fixture_path(files, "run");
  char lines[8192];
  size_t used = 0;
  for (int i = 0; i < 100; i++)
    used +=
        (size_t)snprintf(lines + used, sizeof lines - used, "\"document %d says what %d says\"\n", i, i * i);
  const char *text = fixture_write(files, "in.jsonl", lines, used);
  RUN(&result, "data", "prepare", "--data", files->folder, "--name", "documents", "--tokenizer", "bpe",
      "--vocabulary", "300", text);
  program_check_ok(&result);
  char path[KP_PATH_SIZE + 16];
  snprintf(path, sizeof path, "data.path=%s", fixture_path(files, "documents"));
  RUN(&result, "train", config, "--out", run, "--backend", "ref", "--set", path, "--set",
      "train.packing=best_fit");
  program_check_ok(&result);
  if (strstr(result.output, "% full") == NULL) fail_msg("%s", result.output);
  RUN(&result, "eval", run, "--backend", "ref", "--batches", "1");
  program_check_ok(&result);
}

int main(void) {
  const struct CMUnitTest tests[] = {with_fixture(test_training_and_judging),
                                     with_fixture(test_packing_needs_a_separator),
                                     with_fixture(test_the_set_knows_its_separator)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
