/* The commands of fine-tuning: kappa train --init, kappa merge. */
#include "support/program.h"
#include "support/small_run.h"

#include "backend/cpu/cpu.h"
#include "train/run.h"

static void run_ok(const char *const *arguments, program_result *result) {
  program_run(arguments, result);
  program_check_ok(result);
}

static void refuse(const char *const *arguments, const char *words) {
  program_result result;
  program_run(arguments, &result);
  program_check_refused(&result, 1, words);
}

static void check_prints(const program_result *result, const char *words) {
  if (strstr(result->output, words) == NULL) fail_msg("'%s' is not in '%s'", words, result->output);
}

/* Every parameter of both runs has the same bits; how many there are. */
static int same_models(const char *a, const char *b) {
  kp_error error = {0};
  kp_trained x, y;
  check_ok(kp_trained_open(a, "last", kp_backend_cpu(), &x, &error), &error);
  check_ok(kp_trained_open(b, "last", kp_backend_cpu(), &y, &error), &error);
  const int count = x.parameters->count;
  assert_int_equal(count, y.parameters->count);
  for (int p = 0; p < count; p++) {
    const size_t bytes = (size_t)x.parameters->list[p].count * sizeof(double);
    double *u = malloc(bytes), *v = malloc(bytes);
    assert_string_equal(x.parameters->list[p].name, y.parameters->list[p].name);
    kp_parameters_read(x.parameters, x.parameters->values, p, u);
    kp_parameters_read(y.parameters, y.parameters->values, p, v);
    assert_memory_equal(u, v, bytes);
    free(u);
    free(v);
  }
  kp_trained_close(&x);
  kp_trained_close(&y);
  return count;
}

static void test_adapters_are_merged(void **state) {
  fixture *files = *state;
  program_result result;
  const char *config = small_config(files), *base = fixture_path(files, "base"),
             *lora = fixture_path(files, "lora"), *merged = fixture_path(files, "merged"),
             *more = fixture_path(files, "more");
  char data[KP_PATH_SIZE + 16];
  snprintf(data, sizeof data, "data.path=%s", fixture_path(files, "text"));
  run_ok((const char *const[]){"train", config, "--out", base, NULL}, &result);
  run_ok((const char *const[]){"train", "--init", base, "--set", data, "--set", "train.lora.rank=2", "--set",
                               "train.steps=20", "--set", "train.learning_rate=0.05", "--out", lora, NULL},
         &result);
  check_prints(&result, "starts from ");
  check_prints(&result, "  copied: 16 parameters");
  check_prints(&result, "    transformer.h.*.attn.c_attn.lora_a.weight");
  run_ok((const char *const[]){"merge", lora, "--checkpoint", "last", "--out", merged, NULL}, &result);
  check_prints(&result, "numbers of adapters are part of");
  assert_int_equal(same_models(lora, merged), 16);
  /* It is like any other run: to evaluate, to start from. */
  run_ok((const char *const[]){"eval", merged, NULL}, &result);
  run_ok((const char *const[]){"train", "--init", merged, "--set", data, "--set", "train.steps=2", "--out",
                               more, NULL},
         &result);
  check_prints(&result, "  copied: 16 parameters");
  refuse((const char *const[]){"merge", base, "--out", fixture_path(files, "none"), NULL}, "has no adapters");
  refuse((const char *const[]){"merge", lora, "--out", merged, NULL}, "is there already");
  RUN(&result, "merge", lora);
  program_check_usage(&result, "--out is missing");
  assert_int_equal(kp_path_kind_of(fixture_path(files, "none")), KP_PATH_MISSING);
}

/* From a model of transformers: imported into the new run's folder, which is not there when that fails. */
static void test_a_model_of_transformers(void **state) {
  fixture *files = *state;
  program_result result;
  const char *config = small_config(files), *base = fixture_path(files, "base"),
             *hf = fixture_path(files, "hf"), *run = fixture_path(files, "run"),
             *bad = fixture_path(files, "bad");
  char data[KP_PATH_SIZE + 16], init[KP_PATH_SIZE + 16];
  snprintf(data, sizeof data, "data.path=%s", fixture_path(files, "text"));
  snprintf(init, sizeof init, "hf:%s", hf);
  run_ok((const char *const[]){"train", config, "--out", base, NULL}, &result);
  run_ok((const char *const[]){"export", base, "--checkpoint", "last", "--out", hf, NULL}, &result);
  run_ok((const char *const[]){"train", "--init", init, "--set", data, "--set", "train.steps=2", "--out", run,
                               NULL},
         &result);
  check_prints(&result, "imported ");
  check_prints(&result, "  copied: 16 parameters");
  char imported[KP_PATH_SIZE];
  snprintf(imported, sizeof imported, "%s/init", run);
  same_models(base, imported);
  refuse((const char *const[]){"train", "--init", init, "--set", "data.path=nowhere", "--out", bad, NULL},
         "no folder nowhere");
  assert_int_equal(kp_path_kind_of(bad), KP_PATH_MISSING);
  refuse((const char *const[]){"train", "--init", init, "--set", data, "--out", run, NULL},
         "holds a run already");
  refuse((const char *const[]){"train", "--init", "hf:nowhere", "--set", data, "--out", bad, NULL},
         "nowhere");
  assert_int_equal(kp_path_kind_of(bad), KP_PATH_MISSING);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_adapters_are_merged),
      with_fixture(test_a_model_of_transformers),
  };
  setenv("OMP_WAIT_POLICY", "passive", 1);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
