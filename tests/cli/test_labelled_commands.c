/* kappa data prepare --task, train and eval on labelled files, as a user types them. */
#include "data/fixture.h"
#include "support/program.h"

static const char pairs[] = "label\tpremise\thypothesis\nyes\tab\tba\nno\tac\tca\nyes\tba\tab\nno\tcc\tca\n";
static const char words[] = "ab\tB-X\ncd\tO\n\nef\tO\n\nab\tB-X\nab\tI-X\n";

static const char *write_text(fixture *files, const char *name, const char *text) {
  return fixture_write(files, name, text, strlen(text));
}

static void test_from_files_to_scores(void **state) {
  fixture *files = *state;
  program_result r;
  const char *config = write_text(files, "small.yaml",
                                  "model: {layers: 1, heads: 1, width: 8, context: 8}\n"
                                  "train: {steps: 2, batch: 2, warmup: 0, evaluate_every: 2}\n");
  const char *const tasks[] = {"classify", "tag"};
  const char *const inputs[] = {write_text(files, "pairs.tsv", pairs),
                                write_text(files, "words.conll", words)};
  for (int i = 0; i < 2; i++) {
    char path[KP_PATH_SIZE + 16], task[32];
    snprintf(path, sizeof path, "data.path=%s/%s", files->folder, tasks[i]);
    snprintf(task, sizeof task, "model.task=%s", tasks[i]);
    const char *run = fixture_path(files, i == 0 ? "run0" : "run1");
    RUN(&r, "data", "prepare", "--data", files->folder, "--task", tasks[i], "--name", tasks[i],
        "--validation", inputs[i], inputs[i]);
    program_check_ok(&r);
    assert_non_null(strstr(r.output, i == 0 ? "4 training and 4 validation examples, 2 labels"
                                            : "3 training and 3 validation examples, 3 labels"));
    RUN(&r, "data", "show", fixture_path(files, tasks[i]));
    program_check_ok(&r);
    assert_non_null(strstr(r.output, i == 0 ? "yes: ab | ba" : "[B-X]ab [I-X]ab"));
    RUN(&r, "train", config, "--set", path, "--set", task, "--out", run, "--backend", "ref");
    program_check_ok(&r);
    assert_non_null(strstr(r.output, i == 0 ? "macro-F1" : "entity F1"));
    RUN(&r, "eval", run, "--backend", "ref");
    program_check_ok(&r);
    assert_non_null(strstr(r.output, "a die: 0."));
    assert_non_null(strstr(r.output, i == 0 ? "4 examples" : "3 examples, 5 words"));
    RUN(&r, "eval", run, "--backend", "ref", "--json", "--data", fixture_path(files, tasks[i]));
    program_check_ok(&r);
    assert_non_null(strstr(r.output, "\"accuracy_error\""));
    RUN(&r, "eval", run, "--file", inputs[i]);
    program_check_refused(&r, 1, "predicts labels, and a text has none");
    RUN(&r, "sample", run, "--prompt", "ab");
    program_check_refused(&r, 1, "it gives labels, not text");
  }
}

static void test_cut_examples_are_told(void **state) {
  fixture *files = *state;
  program_result r;
  RUN(&r, "data", "prepare", "--data", files->folder, "--task", "classify", "--name", "cut", "--length", "4",
      "--validation", write_text(files, "v.tsv", pairs), write_text(files, "t.tsv", pairs));
  assert_int_equal(r.exit_code, 0);
  assert_non_null(strstr(r.errors, "8 of 8 examples were longer than 4 tokens and are cut"));
}

static void test_wrong_usage(void **state) {
  (void)state;
  program_result r;
  RUN(&r, "data", "prepare", "--name", "x", "--task", "guess", "a.tsv");
  program_check_usage(&r, "--task is language, classify or tag, not 'guess'");
  RUN(&r, "data", "prepare", "--name", "x", "--label", "y", "a.tsv");
  program_check_usage(&r, "need --task classify or tag");
  RUN(&r, "data", "prepare", "--name", "x", "--task", "tag", "--label", "y", "a.tsv");
  program_check_usage(&r, "there is nothing to name");
}

static void test_wrong_files(void **state) {
  fixture *files = *state;
  program_result r;
  RUN(&r, "data", "prepare", "--data", files->folder, "--name", "x", "--task", "classify", "--label", "truth",
      write_text(files, "pairs.tsv", pairs));
  program_check_refused(&r, 1, "the header in line 1: there is no column or field 'truth'");
  RUN(&r, "data", "prepare", "--data", files->folder, "--name", "x", "--task", "tag",
      write_text(files, "one.conll", "a O\nb\n"));
  program_check_refused(&r, 1, "one.conll: line 2: it has one column");
  RUN(&r, "data", "prepare", "--data", files->folder, "--name", "x", "--task", "tag", "--like", "nothing",
      write_text(files, "two.conll", "a O\nb B-X\n"));
  program_check_refused(&r, 1, "task.json");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_from_files_to_scores),
      with_fixture(test_cut_examples_are_told),
      with_fixture(test_wrong_usage),
      with_fixture(test_wrong_files),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
