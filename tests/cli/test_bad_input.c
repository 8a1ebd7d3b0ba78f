/* Whatever is wrong with what a user gives, the program says one clear sentence, exits with 1 (or 2 for a
 * wrong command line), and leaves nothing half written. */
#define _GNU_SOURCE /* setresuid */

#include "support/program.h"
#include "support/small_run.h"

#include <signal.h>
#include <stdbool.h>

#include "core/lock.h"

typedef program_result result;

/* `kappa train` of the small model in double precision; more arguments may follow. */
#define TRAIN(result, config, out, ...)                                                                      \
  RUN(result, "train", config, "--out", out, "--backend", "ref", "--threads", "1", __VA_ARGS__)
#define RESUME(result, run) RUN(result, "train", "--resume", run, "--backend", "ref", "--threads", "1")

/* A refused training leaves no folder. */
static void check_refused_train(fixture *files, const char *config, const char *set, const char *words) {
  result r;
  const char *out = fixture_path(files, "never");
  TRAIN(&r, config, out, "--set", set);
  program_check_refused(&r, 1, words);
  if (kp_path_kind_of(out) != KP_PATH_MISSING) fail_msg("'%s' left a folder behind", set);
}

static void test_command_line(void **state) {
  (void)state;
  result r;
  program_run((const char *const[]){NULL}, &r);
  program_check_usage(&r, "Usage: kappa COMMAND");
  RUN(&r, "trian");
  program_check_usage(&r, "did you mean 'train'?");
  RUN(&r, "train");
  program_check_usage(&r, "which configuration?");
  RUN(&r, "train", "--bogus");
  program_check_usage(&r, "unrecognized option '--bogus'");
  RUN(&r, "train", "a.yaml", "b.yaml");
  program_check_usage(&r, "not also 'b.yaml'");
  RUN(&r, "train", "a.yaml", "--backend", "gpu");
  program_check_usage(&r, "not 'gpu'");
  static const char *const threads[] = {"0", "-1", "two", "1.5", "99999999999", "99999999999999999999"};
  for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
    RUN(&r, "train", "a.yaml", "--threads", threads[i]);
    program_check_usage(&r, "--threads takes");
  }
  RUN(&r, "info");
  program_check_usage(&r, "which configuration?");
  RUN(&r, "data", "shwo");
  program_check_usage(&r, "did you mean 'data show'?");
  RUN(&r, "data", "prepare", "text.txt");
  program_check_usage(&r, "--name is missing");
  RUN(&r, "data", "prepare", "--name", "../out", "text.txt");
  program_check_usage(&r, "not a path");
  RUN(&r, "data", "prepare", "--name", "x", "--fraction", "1", "text.txt");
  program_check_usage(&r, "leaves one of the two parts empty");
}

static void test_help_has_an_example(void **state) {
  (void)state;
  static const char *const commands[] = {"train", "verify", "info", "doctor"};
  static const char *const data[] = {"list", "get", "prepare", "show"};
  result r;
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    RUN(&r, commands[i], "--help");
    program_check_ok(&r);
    if (strstr(r.output, "Example:") == NULL) fail_msg("%s --help has no example", commands[i]);
  }
  for (size_t i = 0; i < sizeof data / sizeof *data; i++) {
    RUN(&r, "data", data[i], "--help");
    program_check_ok(&r);
    if (strstr(r.output, "Example:") == NULL) fail_msg("data %s --help has no example", data[i]);
  }
  RUN(&r, "--help");
  program_check_ok(&r);
  RUN(&r, "data", "--help");
  program_check_ok(&r);
}

static void test_config_files(void **state) {
  fixture *files = *state;
  const char *good = small_config(files);
  const struct {
    const char *name, *content, *words;
  } cases[] = {
      {"empty.yaml", "", "the file is empty"},
      {"cut.yaml", "model: {layers: 1, heads: 2", "while parsing a flow mapping"},
      {"latin.yaml", "model: {layers: 1}\n# caf\xe9\n", "must be UTF-8"},
      {"list.yaml", "- 1\n- 2\n", "list.yaml"},
      {"type.yaml", "model: {layers: many}\n", "model.layers"},
      {"twice.yaml", "model: {layers: 1}\nmodel.layers: 2\n", "model.layers"},
      {"typo.yaml", "model: {layers: 1}\ntrain: {learning_rat: 1}\n", "did you mean 'train.learning_rate'?"},
      {"weights.yaml", "\x10\0\0\0\0\0\0\0{\"a\":1}", "must be UTF-8"},
  };
  result r;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const size_t size = i + 1 == sizeof cases / sizeof *cases ? 15 : strlen(cases[i].content);
    const char *path = fixture_write(files, cases[i].name, cases[i].content, size);
    check_refused_train(files, path, "model.layers=1", cases[i].words);
    RUN(&r, "info", path);
    program_check_refused(&r, 1, cases[i].words);
  }
  check_refused_train(files, fixture_path(files, "missing.yaml"), "model.layers=1", "No such file");
  check_refused_train(files, files->folder, "model.layers=1", "Is a directory");
  check_refused_train(files, good, "model.layer=2", "did you mean 'model.layers'?");
  check_refused_train(files, good, "model.layers", "expected key=value");
  check_refused_train(files, good, "model.heads=3", "3 heads do not divide model.width 8");
  check_refused_train(files, good, "model.context=800", "use more text or a shorter context");
  check_refused_train(files, good, "train.learning_rate=11", "outside the range");
  check_refused_train(files, good, "train.steps=1e99", "train.steps");
  check_refused_train(files, good, "train.warmup=20", "leave nothing of train.steps");
  check_refused_train(files, good, "model.family=gtp", "model.family");
  check_refused_train(files, good, "model.vocabulary=5", "smaller than the data's");
}

static void test_data_files(void **state) {
  fixture *files = *state;
  const char *good = small_config(files), *folder = files->folder;
  result r;
  const char *odd = fixture_write(files, "odd.bin", "abc", 3);
  const char *empty = fixture_write(files, "empty.bin", "", 0);
  const char *text = fixture_path(files, "text.txt");
  const char *wrong =
      fixture_write(files, "wrong.bin", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12);
  char set[KP_PATH_SIZE + 32];
  const struct {
    const char *path, *words;
  } cases[] = {{odd, "even number of bytes"},
               {empty, "is empty"},
               {text, "text must be prepared first"},
               {fixture_path(files, "nothing.bin"), "nothing.bin"},
               {wrong, "is not below the vocabulary"}};
  for (size_t i = 0; i + 1 < sizeof cases / sizeof *cases; i++) {
    snprintf(set, sizeof set, "data.train=%s", cases[i].path);
    check_refused_train(files, good, set, cases[i].words);
    RUN(&r, "data", "show", cases[i].path);
    program_check_refused(&r, 1, cases[i].words);
  }
  /* A raw file says nothing about its vocabulary: the first batch does. */
  snprintf(set, sizeof set, "data.train=%s", wrong);
  TRAIN(&r, good, fixture_path(files, "range"), "--set", set, "--set", "model.context=2");
  program_check_refused(&r, 1, "is not below the vocabulary");
  check_refused_train(files, good, "data.path=nowhere", "`kappa data prepare` your text");

  const char *latin = fixture_write(files, "latin.txt", "caf\xe9\n", 5);
  RUN(&r, "data", "prepare", "--data", folder, "--name", "made", latin);
  program_check_refused(&r, 1, "offset 3 (line 1) is not valid UTF-8");
  RUN(&r, "data", "prepare", "--data", folder, "--name", "made", empty);
  program_check_refused(&r, 1, "it is empty");
  RUN(&r, "data", "prepare", "--data", folder, "--name", "made", fixture_path(files, "no.txt"));
  program_check_refused(&r, 1, "does not exist");
  RUN(&r, "data", "get", "--data", folder, "nothing");
  program_check_refused(&r, 1, "known are kjv_char");
  RUN(&r, "data", "show", "--data", folder, "nothing");
  program_check_refused(&r, 1, "neither a file or folder");
}

static void test_damaged_data_folder(void **state) {
  fixture *files = *state;
  const char *good = small_config(files), *bin = fixture_path(files, "text/train.bin");
  size_t size;
  result r;
  char *bytes = fixture_read(bin, &size);
  fixture_write(files, "text/train.bin", bytes, size - 2);
  check_refused_train(files, good, "model.layers=1", "train.bin");
  RUN(&r, "data", "show", fixture_path(files, "text"));
  program_check_refused(&r, 1, "prepare the data again");
  fixture_write(files, "text/train.bin", bytes, size);
  free(bytes);
  fixture_write(files, "text/tokenizer.json", "{\"type\": \"character\"", 20);
  check_refused_train(files, good, "model.layers=1", "tokenizer.json");
  fixture_write(files, "text/data.json", "{\"kappa_data\": 1, \"complete\": false}", 36);
  check_refused_train(files, good, "model.layers=1", "prepare it again");
}

static void test_places_that_cannot_be_written(void **state) {
  fixture *files = *state;
  const char *good = small_config(files), *file = fixture_write(files, "file", "precious", 8);
  result r;
  TRAIN(&r, good, file, "--quiet");
  program_check_refused(&r, 1, "a file has that name");
  TRAIN(&r, good, fixture_path(files, "file/run"), "--quiet");
  program_check_refused(&r, 1, "a file has that name");
  size_t size;
  char *bytes = fixture_read(file, &size);
  assert_int_equal(size, 8);
  free(bytes);

  /* The superuser may write anywhere, so the programs run as somebody else. */
  const bool root = geteuid() == 0;
  const char *closed = fixture_path(files, "closed");
  assert_int_equal(mkdir(closed, 0555), 0);
  assert_int_equal(chmod(files->folder, 0755), 0);
  if (root) assert_int_equal(setresuid(65534, 65534, 0), 0);
  TRAIN(&r, good, fixture_path(files, "closed/run"), "--quiet");
  if (root) assert_int_equal(setresuid(0, 0, 0), 0);
  program_check_refused(&r, 1, "Permission denied");
  assert_int_equal(rmdir(closed), 0);
}

static void test_full_disk(void **state) {
  fixture *files = *state;
  const char *good = small_config(files), *run = fixture_path(files, "run");
  const char *whole = fixture_path(files, "whole");
  char names[512];
  result r;
  TRAIN(&r, good, whole, "--quiet");
  program_check_ok(&r);

  program_limit_files(8192); /* enough for everything but a checkpoint */
  TRAIN(&r, good, run, "--quiet");
  program_limit_files(0);
  program_check_refused(&r, 1, "File too large");
  assert_string_equal(small_listing(fixture_path(files, "run/checkpoints"), names, sizeof names), "");
  RESUME(&r, run);
  program_check_ok(&r);
  small_check_same(fixture_path(files, "whole/checkpoints/step-20/model.safetensors"),
                   fixture_path(files, "run/checkpoints/step-20/model.safetensors"));

  /* Not even a configuration fits: the next try starts afresh. */
  const char *early = fixture_path(files, "early");
  program_limit_files(64);
  TRAIN(&r, good, early, "--quiet");
  program_limit_files(0);
  assert_int_equal(r.exit_code, 1);
  assert_int_equal(kp_path_kind_of(fixture_path(files, "early/config.yaml")), KP_PATH_MISSING);
  TRAIN(&r, good, early, "--quiet");
  program_check_ok(&r);

  program_limit_files(64);
  RUN(&r, "data", "prepare", "--data", files->folder, "--name", "set", fixture_path(files, "text.txt"));
  program_limit_files(0);
  assert_int_equal(r.exit_code, 1);
  RUN(&r, "data", "prepare", "--data", files->folder, "--name", "set", fixture_path(files, "text.txt"));
  program_check_ok(&r);
}

static void test_runs_that_exist(void **state) {
  fixture *files = *state;
  const char *good = small_config(files), *run = fixture_path(files, "run");
  const char *model = fixture_path(files, "run/checkpoints/step-20/model.safetensors");
  result r;
  RESUME(&r, run);
  program_check_refused(&r, 1, "there is no run");
  RESUME(&r, fixture_path(files, "text"));
  program_check_refused(&r, 1, "there is no run");
  assert_int_equal(kp_path_kind_of(fixture_path(files, "text/lock")), KP_PATH_MISSING);
  TRAIN(&r, good, run, "--quiet");
  program_check_ok(&r);

  size_t size, again;
  char *before = fixture_read(model, &size);
  TRAIN(&r, good, run, "--set", "train.seed=2");
  program_check_refused(&r, 1, "--resume");
  RUN(&r, "train", good, "--out", run, "--resume", "--set", "train.steps=30");
  program_check_refused(&r, 1, "--set cannot change it");
  RESUME(&r, run); /* it is done already */
  program_check_ok(&r);
  char *after = fixture_read(model, &again);
  assert_int_equal(size, again);
  assert_memory_equal(before, after, size);
  free(before);
  free(after);
}

/* Values that the configuration left to other keys must not keep a run from being opened again. */
static void test_defaults_can_be_resumed(void **state) {
  fixture *files = *state;
  const char *good = small_config(files), *run = fixture_path(files, "run");
  result r;
  TRAIN(&r, good, run, "--set", "model.family=mixed", "--set", "model.variant=upstream", "--quiet");
  program_check_ok(&r);
  RESUME(&r, run);
  program_check_ok(&r);
  RUN(&r, "info", run, "--brief");
  program_check_ok(&r);
  const char *bare = "model: {layers: 1, heads: 2, width: 8, context: 8}\ntrain: {steps: 5}\n";
  const char *config = fixture_write(files, "bare.yaml", bare, strlen(bare));
  char set[KP_PATH_SIZE + 16];
  snprintf(set, sizeof set, "data.path=%s", fixture_path(files, "text"));
  const char *other = fixture_path(files, "other");
  TRAIN(&r, config, other, "--set", set, "--quiet");
  program_check_ok(&r);
  RESUME(&r, other);
  program_check_ok(&r);
}

static void test_two_writers(void **state) {
  fixture *files = *state;
  const char *good = small_config(files), *run = fixture_path(files, "run");
  kp_error error = {0};
  kp_lock *lock;
  result r;
  TRAIN(&r, good, run, "--quiet");
  program_check_ok(&r);
  check_ok(kp_lock_acquire(fixture_path(files, "run/lock"), &lock, &error), &error);
  RESUME(&r, run);
  kp_lock_release(lock);
  program_check_refused(&r, 1, "is held by process");
  assert_int_equal(mkdir(fixture_path(files, "new"), 0777), 0);
  check_ok(kp_lock_acquire(fixture_path(files, "new/lock"), &lock, &error), &error);
  TRAIN(&r, good, fixture_path(files, "new"), "--quiet");
  kp_lock_release(lock);
  program_check_refused(&r, 1, "is held by process");
}

static void test_corrupt_checkpoints(void **state) {
  fixture *files = *state;
  const char *good = small_config(files), *path = fixture_path(files, "run");
  char run[KP_PATH_SIZE];
  static const char *const names[] = {"run/checkpoints/step-20/model.safetensors",
                                      "run/checkpoints/step-20/optimizer.safetensors",
                                      "run/checkpoints/step-20/state.json"};
  result r;
  snprintf(run, sizeof run, "%s", path);
  TRAIN(&r, good, run, "--quiet");
  program_check_ok(&r);
  for (int i = 0; i < 3; i++) {
    size_t size;
    char *bytes = fixture_read(fixture_path(files, names[i]), &size);
    const char *name = strrchr(names[i], '/') + 1;
    const struct {
      size_t cut;
      const char *hostile;
    } damages[] = {{0, ""},
                   {size - 8, ""},
                   {size / 2, ""},
                   {size, "\xff\xff\xff\xff\xff\xff\xff\x7f"},
                   {size, "\0\0\0\0\0\0\0\0"},
                   {5, ""}};
    for (size_t d = 0; d < sizeof damages / sizeof *damages; d++) {
      char *damaged = fixture_read(fixture_path(files, names[i]), &size);
      if (damages[d].cut == size) memcpy(damaged, damages[d].hostile, 8);
      fixture_write(files, names[i], damaged, damages[d].cut);
      RESUME(&r, run);
      program_check_refused(&r, 1, name);
      free(damaged);
      fixture_write(files, names[i], bytes, size);
    }
    free(bytes);
  }
  RESUME(&r, run);
  program_check_ok(&r);

  /* Sound files that say too little or something else. */
  const char *odd = "{\"step\": 20}";
  fixture_write(files, names[2], odd, strlen(odd));
  RESUME(&r, run);
  program_check_refused(&r, 1, "key \"adam_steps\" is missing");
  const char *shape = "{\"transformer.wte.weight\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}";
  char file[256] = {(char)strlen(shape)};
  memcpy(file + 8, shape, strlen(shape));
  fixture_write(files, names[0], file, 16 + strlen(shape));
  RESUME(&r, run);
  program_check_refused(&r, 1, "transformer.wte.weight");
}

static void wait_for(const char *path) {
  for (int tries = 0; kp_path_kind_of(path) == KP_PATH_MISSING; tries++) {
    assert_true(tries < 60000);
    usleep(1000);
  }
}

static void test_interrupt(void **state) {
  fixture *files = *state;
  static const int numbers[] = {SIGINT, SIGTERM};
  const char *good = small_config(files);
  const char *whole = fixture_path(files, "whole");
  result r;
  TRAIN(&r, good, whole, "--quiet", "--set", "train.steps=4000", "--set", "train.checkpoint_every=4000",
        "--set", "train.evaluate_every=4000");
  program_check_ok(&r);
  for (int i = 0; i < 2; i++) {
    const char *run = fixture_path(files, i == 0 ? "first" : "second");
    char path[KP_PATH_SIZE], words[KP_PATH_SIZE + 64];
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    program_process process = program_start((const char *const[]){
        "train", good, "--out", run, "--backend", "ref", "--threads", "1", "--set", "train.steps=4000",
        "--set", "train.checkpoint_every=4000", "--set", "train.evaluate_every=4000", "--quiet", NULL});
    wait_for(path);
    assert_int_equal(kill(process.id, numbers[i]), 0);
    program_wait(&process, &r);
    snprintf(words, sizeof words, "of 4000; go on with: kappa train --resume %s", run);
    program_check_refused(&r, 1, words);
    snprintf(path, sizeof path, "%s/checkpoints", run);
    assert_int_equal(strncmp(small_listing(path, words, sizeof words), "step-", 5), 0);
    assert_null(strchr(words, ','));
    RESUME(&r, run);
    program_check_ok(&r);
    snprintf(path, sizeof path, "%s/checkpoints/step-4000/optimizer.safetensors", run);
    small_check_same(fixture_path(files, "whole/checkpoints/step-4000/optimizer.safetensors"), path);
  }
}

static void test_unused_keys_are_named(void **state) {
  fixture *files = *state;
  const char *good = small_config(files);
  result r;
  RUN(&r, "info", good, "--brief", "--set", "model.curvature.value=[-1]", "--set", "train.curvature_rate=2");
  program_check_ok(&r);
  assert_non_null(strstr(r.errors, "note: model.curvature.value has no effect"));
  assert_non_null(strstr(r.errors, "note: train.curvature_rate has no effect"));
  RUN(&r, "info", good, "--brief", "--set", "model.family=mixed", "--set", "model.curvature.value=[-1]",
      "--set", "model.curvature.mode=parametric", "--set", "train.curvature_rate=2", "--set",
      "model.window=9");
  program_check_ok(&r);
  assert_string_equal(r.errors, "kappa: note: model.window has no effect with the other keys as they are\n");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_command_line),
      cmocka_unit_test(test_help_has_an_example),
      with_fixture(test_config_files),
      with_fixture(test_data_files),
      with_fixture(test_damaged_data_folder),
      with_fixture(test_places_that_cannot_be_written),
      with_fixture(test_full_disk),
      with_fixture(test_runs_that_exist),
      with_fixture(test_defaults_can_be_resumed),
      with_fixture(test_two_writers),
      with_fixture(test_corrupt_checkpoints),
      with_fixture(test_interrupt),
      with_fixture(test_unused_keys_are_named),
  };
  setenv("OMP_WAIT_POLICY", "passive", 1);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
