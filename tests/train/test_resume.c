/* A run that is killed at any instant and resumed ends with the bits of a run that was not. */
#include "support/program.h"
#include "support/small_run.h"

#include <signal.h>
#include <time.h>

#include "core/random.h"

enum { STEPS = 200, KILLS = 8 };

/* Everything that has a state: dropout, micro-batches, learned curvatures with a rate of their own; points
 * and their moments, selection biases and the steps that each expert has taken. */
static const char *const mixed_model =
    "family: mixed, layers: 2, heads: 2, width: 16, context: 8, dropout: 0.1, "
    "curvature: {mode: random, per_head: true, value: [0.5]}";
static const char *const mice_model = "family: helm_mice, variant: upstream, layers: 2, heads: 2, width: 15, "
                                      "context: 8, latent: {rank: 6, plain: 4, rotary: 4, value: 5}";

static const char *write_config(fixture *files, const char *model, const char *optimizer, const char *init) {
  char text[2 * KP_PATH_SIZE + 512], name[64];
  small_config(files);
  snprintf(text, sizeof text,
           "model: {%s}\n"
           "data: {path: %s}\n"
           "train: {steps: %d, batch: 4, accumulate: 2, warmup: 10, log_every: 1, evaluate_every: 25,\n"
           "        curvature_rate: 3, checkpoint_every: 10, optimizer: %s, init: \"%s\"}\n",
           model, fixture_path(files, "text"), STEPS, optimizer, init);
  snprintf(name, sizeof name, "%s.yaml", optimizer);
  return fixture_write(files, name, text, strlen(text));
}

static program_process start(const char *config, const char *run, const char *backend) {
  char path[KP_PATH_SIZE];
  kp_error error = {0};
  check_ok(kp_path_join(path, run, "config.yaml", &error), &error);
  if (kp_path_kind_of(path) == KP_PATH_MISSING)
    return program_start(
        (const char *const[]){"train", config, "--out", run, "--backend", backend, "--threads", "2", NULL});
  return program_start(
      (const char *const[]){"train", "--resume", run, "--backend", backend, "--threads", "2", NULL});
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void sleep_for(double seconds) {
  const struct timespec duration = {.tv_sec = (time_t)seconds,
                                    .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds))};
  nanosleep(&duration, NULL);
}

/* The run with interruptions: killed after random times, by SIGINT every third time, then left to end.
 * Returns how many of them came before the end. */
static int train_with_kills(const char *config, const char *run, const char *backend, double seconds,
                            uint64_t seed) {
  program_result result;
  int interrupted = 0;
  for (int i = 0; i < KILLS; i++) {
    program_process process = start(config, run, backend);
    sleep_for(seconds * 0.4 * kp_random_uniform(seed, 0, 0, (uint64_t)i));
    kill(process.id, i % 3 == 2 ? SIGINT : SIGKILL);
    program_wait(&process, &result);
    if (result.exit_code == 1 && strstr(result.errors, "go on with") == NULL &&
        strstr(result.errors, "there is no run") == NULL)
      fail_msg("after interruption %d: %s", i, result.errors);
    interrupted += result.exit_code != 0;
  }
  program_process process = start(config, run, backend);
  program_wait(&process, &result);
  program_check_ok(&result);
  return interrupted;
}

/* Times and rates differ; all other numbers must not. */
static void check_same_metrics(const char *whole, const char *killed) {
  static const char *const times[] = {"step_ms", "tokens_per_s", "seconds"};
  json_t *a = small_metrics(whole), *b = small_metrics(killed);
  assert_int_equal(json_array_size(a), json_array_size(b));
  for (size_t i = 0; i < json_array_size(a); i++) {
    json_t *x = json_array_get(a, i), *y = json_array_get(b, i);
    for (int t = 0; t < 3; t++) {
      json_object_del(x, times[t]);
      json_object_del(y, times[t]);
    }
    if (!json_equal(x, y)) {
      char *left = json_dumps(x, 0), *right = json_dumps(y, 0);
      fail_msg("line %zu: %s, not %s", i, right, left);
    }
  }
  json_decref(a);
  json_decref(b);
}

static void check_same_runs(const char *whole, const char *killed) {
  static const char *const files[] = {"config.yaml", "tokenizer.json",
                                      "checkpoints/step-%d/model.safetensors",
                                      "checkpoints/step-%d/optimizer.safetensors"};
  char a[512], b[512], name[128];
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    if (i < 2)
      snprintf(name, sizeof name, "%s", files[i]);
    else
      snprintf(name, sizeof name, "checkpoints/step-%d/%s", STEPS, strrchr(files[i], '/') + 1);
    snprintf(a, sizeof a, "%s/%s", whole, name);
    snprintf(b, sizeof b, "%s/%s", killed, name);
    small_check_same(a, b);
  }
  json_t *x = small_state(whole, STEPS), *y = small_state(killed, STEPS);
  assert_true(json_equal(x, y));
  json_decref(x);
  json_decref(y);
  check_same_metrics(whole, killed);
}

/* Nothing that was half written is left, and the same checkpoints are there. */
static void check_same_folders(fixture *files, const char *whole, const char *killed) {
  char a[1024], b[1024], name[128];
  assert_string_equal(small_listing(fixture_path(files, whole), a, sizeof a),
                      small_listing(fixture_path(files, killed), b, sizeof b));
  snprintf(name, sizeof name, "%s/checkpoints", killed);
  assert_null(strstr(small_listing(fixture_path(files, name), a, sizeof a), "kappa-tmp"));
}

static void check_resumed_from(fixture *files, const char *model, const char *optimizer, const char *init,
                               const char *backend, uint64_t seeds) {
  char config[256], whole[256], killed[256], name[32];
  program_result result;
  int interrupted = 0;
  snprintf(config, sizeof config, "%s", write_config(files, model, optimizer, init));
  snprintf(whole, sizeof whole, "%s/whole", files->folder);
  const double begin = seconds_now();
  program_process process = start(config, whole, backend);
  program_wait(&process, &result);
  const double seconds = seconds_now() - begin;
  program_check_ok(&result);
  for (uint64_t seed = 1; seed <= seeds; seed++) {
    snprintf(name, sizeof name, "killed-%d", (int)seed);
    snprintf(killed, sizeof killed, "%s/%s", files->folder, name);
    interrupted += train_with_kills(config, killed, backend, seconds, seed);
    check_same_runs(whole, killed);
    check_same_folders(files, "whole", name);
  }
  assert_true(interrupted > 0);
}

static void check_resumed(fixture *files, const char *model, const char *optimizer, const char *backend,
                          uint64_t seeds) {
  check_resumed_from(files, model, optimizer, "", backend, seeds);
}

/* Its first parameters are another run's. */
static void test_killed_runs_from_another_run(void **state) {
  fixture *files = *state;
  char config[256], base[256];
  program_result result;
  snprintf(config, sizeof config, "%s", small_config(files));
  snprintf(base, sizeof base, "%s/base", files->folder);
  program_process process =
      program_start((const char *const[]){"train", config, "--set", "model.width=16", "--out", base, NULL});
  program_wait(&process, &result);
  program_check_ok(&result);
  check_resumed_from(files, mixed_model, "adamw", base, "cpu", 1);
}

static void test_killed_runs_ref(void **state) {
  check_resumed(*state, mixed_model, "adamw", "ref", 3);
}

static void test_killed_runs_cpu(void **state) {
  check_resumed(*state, mixed_model, "adamw", "cpu", 3);
}

static void test_killed_runs_muon(void **state) {
  check_resumed(*state, mixed_model, "muon", "cpu", 1);
}

static void test_killed_runs_hyperball_adamw(void **state) {
  check_resumed(*state, mixed_model, "hyperball_adamw", "cpu", 1);
}

static void test_killed_runs_hyperball_muon(void **state) {
  check_resumed(*state, mixed_model, "hyperball_muon", "ref", 1);
}

static void test_killed_runs_of_experts(void **state) {
  check_resumed(*state, mice_model, "adamw", "cpu", 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_killed_runs_ref),
      with_fixture(test_killed_runs_cpu),
      with_fixture(test_killed_runs_muon),
      with_fixture(test_killed_runs_hyperball_adamw),
      with_fixture(test_killed_runs_hyperball_muon),
      with_fixture(test_killed_runs_of_experts),
      with_fixture(test_killed_runs_from_another_run),
  };
  setenv("OMP_WAIT_POLICY", "passive", 1);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
