/* kappa eval on texts and questions, as a user types it. */
#include "core/json_text.h"
#include "support/program.h"
#include "support/small_run.h"

/* Questions of characters that the small run's text has. */
static const char questions[] =
    "{\"goal\":\"the line\",\"sol1\":\"was one\",\"sol2\":\"met it\",\"label\":0}\n"
    "{\"goal\":\"the curve\",\"sol1\":\"all but\",\"sol2\":\"other\",\"label\":1}\n"
    "{\"query\":\"Goal: then\",\"choices\":[\"one\",\"none\"],\"gold\":1}\n";

static const char *train_small(fixture *files, const char *more) {
  program_result r;
  const char *config = small_config(files), *run = fixture_path(files, "run");
  RUN(&r, "train", config, "--set", "train.steps=4", "--set", "model.context=64", "--set", more, "--out", run,
      "--backend", "ref");
  assert_int_equal(r.exit_code, 0);
  return run;
}

static json_t *parse(const program_result *r) {
  json_t *json = json_loads(r->output, 0, NULL);
  assert_non_null(json);
  return json;
}

static void test_questions(void **state) {
  fixture *files = *state;
  program_result r;
  kp_error error = {0};
  json_t *lines;
  const char *run = train_small(files, "model.positions=rotary");
  /* "Question: ", "Answer:" need letters that the text has not: OpenBookQA's prompt is the question alone. */
  const char *data = fixture_write(files, "q.jsonl", questions, sizeof questions - 1);
  const char *plain = fixture_write(files, "plain.jsonl", strstr(questions, "{\"query\""),
                                    strlen(strstr(questions, "{\"query\"")));
  const char *details = fixture_path(files, "details.jsonl");
  RUN(&r, "eval", run, "--task", "piqa", "--data", data, "--backend", "ref");
  program_check_refused(&r, 1, "question 1");
  RUN(&r, "eval", run, "--task", "openbookqa", "--data", plain, "--backend", "ref", "--json", "--details",
      details);
  program_check_refused(&r, 1, "question 1"); /* G */
  static const char fitting[] = "{\"query\":\"the line was\",\"choices\":[\"one\",\"parallel\"],\"gold\":1}\n"
                                "{\"query\":\"then came\",\"choices\":[\"all\",\"the curve\"],\"gold\":0}\n";
  plain = fixture_write(files, "plain.jsonl", fitting, sizeof fitting - 1);
  RUN(&r, "eval", run, "--task", "openbookqa", "--data", plain, "--backend", "ref", "--json", "--details",
      details);
  program_check_ok(&r);
  json_t *result = parse(&r);
  assert_int_equal(json_integer_value(json_object_get(result, "questions")), 2);
  assert_true(json_number_value(json_object_get(result, "chance")) == 0.5);
  json_decref(result);
  check_ok(kp_jsonl_read_last(details, SIZE_MAX, &lines, &error), &error);
  assert_int_equal(json_array_size(lines), 2);
  assert_int_equal(json_array_size(json_object_get(json_array_get(lines, 0), "log_likelihoods")), 2);
  json_decref(lines);
  RUN(&r, "eval", run, "--task", "openbookqa", "--data", plain, "--backend", "ref", "--shots", "1");
  program_check_ok(&r);
  assert_non_null(strstr(r.output, "openbookqa, 2 questions, 1-shot"));
  assert_non_null(strstr(r.output, "cannot be told from chance"));
  RUN(&r, "eval", run, "--task", "openbookqa", "--data", plain, "--backend", "ref", "--shots", "2");
  program_check_refused(&r, 1, "there are 1 examples for a question, not 2");
  char kept[KP_PATH_SIZE];
  check_ok(kp_path_join(kept, run, "evaluations.jsonl", &error), &error);
  check_ok(kp_jsonl_read_last(kept, SIZE_MAX, &lines, &error), &error);
  assert_int_equal(json_array_size(lines), 2);
  json_decref(lines);
  RUN(&r, "compare", run, "--no-plot");
  program_check_ok(&r);
  assert_non_null(strstr(r.output, "openbookqa, 1-shot"));
}

static void test_lengths_of_context(void **state) {
  fixture *files = *state;
  program_result r;
  const char *run = train_small(files, "model.positions=rotary");
  RUN(&r, "eval", run, "--task", "context", "--backend", "ref", "--set", "x");
  program_check_usage(&r, "--set");
  const char *text = fixture_path(files, "text.txt");
  RUN(&r, "eval", run, "--task", "context", "--backend", "ref", "--file", text, "--json");
  program_check_ok(&r);
  json_t *result = parse(&r);
  /* 16, 32, 64, 128; the text has no 257 tokens. */
  assert_int_equal(json_array_size(json_object_get(result, "lengths")), 4);
  json_decref(result);
  RUN(&r, "eval", run, "--file", text, "--backend", "ref", "--stride", "16", "--context", "128");
  program_check_ok(&r);
  assert_non_null(strstr(r.output, "windows of 128 every 16"));
}

static void test_learned_positions_end(void **state) {
  fixture *files = *state;
  program_result r;
  const char *run = train_small(files, "model.positions=learned");
  RUN(&r, "eval", run, "--task", "context", "--backend", "ref", "--file", fixture_path(files, "text.txt"));
  program_check_ok(&r);
  assert_non_null(strstr(r.output, "no longer ones: its positions are learned"));
  RUN(&r, "eval", run, "--documents", "--backend", "ref");
  program_check_refused(&r, 1, "nothing says which token stands between documents");
}

static void test_wrong_usage(void **state) {
  (void)state;
  program_result r;
  RUN(&r, "eval", "run", "--task", "piqa");
  program_check_usage(&r, "--task piqa needs its questions");
  RUN(&r, "eval", "run", "--shots", "2");
  program_check_usage(&r, "are about multiple choice");
  RUN(&r, "eval", "run", "--task", "piqa", "--data", "x", "--stride", "4");
  program_check_usage(&r, "are about texts");
  RUN(&r, "eval", "run", "--task", "context", "--context", "4");
  program_check_usage(&r, "bound the text by --tokens");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_questions),
      with_fixture(test_lengths_of_context),
      with_fixture(test_learned_positions_end),
      cmocka_unit_test(test_wrong_usage),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
