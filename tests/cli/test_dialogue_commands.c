/* kappa data prepare --task dialogue, data show, train and eval, as a user types them. */
#include "data/fixture.h"
#include "support/program.h"
#include "support/small_run.h"

#include <math.h>

#define SAMPLES KP_TEST_DIRECTORY "/data/conversations/"

static const char config_text[] = "model: {layers: 1, heads: 1, width: 8, context: 96}\n"
                                  "train: {steps: 4, batch: 2, accumulate: 2, warmup: 0, evaluate_every: 4, "
                                  "evaluate_batches: 0, sampling: sequential}\n";

static void prepare(fixture *files, const char *name) {
  program_result r;
  RUN(&r, "data", "prepare", "--task", "dialogue", "--data", files->folder, "--name", name, "--length", "97",
      "--validation", SAMPLES "chatml.txt", SAMPLES "plain.txt");
  assert_int_equal(r.exit_code, 0);
  assert_non_null(strstr(r.output, "4 training and 3 validation conversations"));
  assert_non_null(strstr(r.output, "template plain"));
}

static double validation_loss(const char *run) {
  json_t *lines = small_metrics(run);
  const json_t *last = json_array_get(lines, json_array_size(lines) - 1);
  const double loss = json_number_value(json_object_get(last, "validation_loss"));
  json_decref(lines);
  assert_true(loss > 0 && isfinite(loss));
  return loss;
}

/* What eval says of a run is what training said, whatever rows training had. */
static void test_training_and_judging(void **state) {
  static const char *const packings[] = {"none", "best_fit", "helm"};
  fixture *files = *state;
  program_result r;
  char path[KP_PATH_SIZE + 16], packing[32];
  const char *config = fixture_write(files, "small.yaml", config_text, strlen(config_text));
  prepare(files, "talks");
  snprintf(path, sizeof path, "data.path=%s/talks", files->folder);
  for (int i = 0; i < 3; i++) {
    const char *run = fixture_path(files, packings[i]);
    snprintf(packing, sizeof packing, "train.packing=%s", packings[i]);
    RUN(&r, "train", config, "--set", path, "--set", packing, "--out", run, "--backend", "ref");
    program_check_ok(&r);
    assert_non_null(strstr(r.output, "% full"));
    RUN(&r, "eval", run, "--backend", "ref", "--json");
    program_check_ok(&r);
    json_t *judged = json_loads(r.output, 0, NULL);
    assert_non_null(judged);
    const double again = json_number_value(json_object_get(judged, "loss")), loss = validation_loss(run);
    if (fabs(again - loss) > 1e-8) fail_msg("%.12g, in training %.12g", again, loss);
    assert_int_equal(json_integer_value(json_object_get(judged, "tokens")), 29);
    json_decref(judged);
  }
}

static void test_show(void **state) {
  fixture *files = *state;
  program_result r;
  prepare(files, "talks");
  RUN(&r, "data", "show", fixture_path(files, "talks"), "--documents", "2", "--tokens", "0", "--context",
      "96");
  program_check_ok(&r);
  assert_non_null(strstr(r.output, "User: Name a colour.\nAssistant:[ Blue.\n]"));
  assert_non_null(strstr(r.output, "4 conversations, 11 turns, at most 97 tokens; template plain"));
  assert_non_null(strstr(r.output, "rows of 96 tokens are"));
  RUN(&r, "data", "show", fixture_path(files, "talks"), "--documents", "1", "--json");
  program_check_ok(&r);
  json_t *shown = json_loads(r.output, 0, NULL);
  const json_t *part = json_array_get(json_object_get(shown, "parts"), 1),
               *dialogue = json_object_get(part, "dialogue"),
               *one = json_array_get(json_object_get(dialogue, "documents"), 0);
  assert_int_equal(json_integer_value(json_object_get(dialogue, "learned")), 29);
  assert_string_equal(json_string_value(json_object_get(one, "text")),
                      "System: Be brief.\nUser: Hello!\nAssistant: Hello.\n");
  assert_int_equal(json_array_size(json_object_get(one, "mask")),
                   json_array_size(json_object_get(one, "ids")));
  json_decref(shown);
  RUN(&r, "data", "show", fixture_path(files, "talks"), "--context", "10");
  program_check_refused(&r, 1, "which a context of 10 does not hold");
}

static void test_wrong_usage(void **state) {
  fixture *files = *state;
  program_result r;
  const char *config = fixture_write(files, "small.yaml", config_text, strlen(config_text));
  RUN(&r, "data", "prepare", "--task", "dialogue", "--name", "x");
  program_check_usage(&r, "which files?");
  RUN(&r, "data", "prepare", "--task=dialogue", "--name", "x", "--template", "vicuna", "a.json");
  program_check_usage(&r, "--template is one of chatml, llama3, plain, not 'vicuna'");
  RUN(&r, "data", "prepare", "-t", "dialogue", "--name", "x", "--role", "gpt", "a.json");
  program_check_usage(&r, "--role is NAME=ROLE, not 'gpt'");
  RUN(&r, "data", "prepare", "--task", "dialogue", "--name", "x", "--role", "gpt=me", "a.json");
  program_check_usage(&r, "is one of system, user, assistant, tool, not 'me'");
  RUN(&r, "data", "prepare", "--task", "dialogue", "--data", files->folder, "--name", "x",
      SAMPLES "tools.json");
  program_check_refused(&r, 1, "say what it is with --role function_call=user");
  prepare(files, "talks");
  char path[KP_PATH_SIZE + 16];
  snprintf(path, sizeof path, "data.path=%s/talks", files->folder);
  RUN(&r, "train", config, "--set", path, "--set", "model.context=90", "--out", fixture_path(files, "run"));
  program_check_refused(&r, 1, "prepare the data with --length 91");
}

int main(void) {
  const struct CMUnitTest tests[] = {with_fixture(test_training_and_judging), with_fixture(test_show),
                                     with_fixture(test_wrong_usage)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
