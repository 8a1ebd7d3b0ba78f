/* Generation and evaluation from a small trained run, through the library and through the program. */
#define _POSIX_C_SOURCE 200809L

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/prepare.h"
#include "infer/evaluate.h"
#include "infer/generate.h"
#include "support/check.h"
#include "support/check_fails.h"
#include "support/temporary.h"
#include "train/settings.h"
#include "train/trainer.h"

static const char verse[] = "the cat sat on the mat\nand the rat sat on the cat\n";
enum { VERSES = 12, VERSE_SIZE = sizeof verse - 1 };

static const char settings[] =
    "model: {layers: 1, heads: 2, width: 16, context: 16}\n"
    "train: {steps: 60, batch: 4, learning_rate: 1e-2, warmup: 5, evaluate_every: 60}\n";

/* ---- a run ---- */

static char run[512]; /* its folder, which all tests share */

static void make_data(void **state) {
  char text[VERSES * VERSE_SIZE];
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  for (int i = 0; i < VERSES; i++) memcpy(text + i * VERSE_SIZE, verse, VERSE_SIZE);
  temporary_write(temporary_path(state, "text.txt"), text, sizeof text);
  temporary_write(temporary_path(state, "held_out.txt"), text, 3 * VERSE_SIZE);
  const char *const texts[] = {temporary_path(state, "text.txt")};
  const kp_prepare_options options = {.texts = texts,
                                      .text_count = 1,
                                      .validation = temporary_path(state, "held_out.txt"),
                                      .folder = temporary_path(state, "data")};
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
}

static int make_run(void **state) {
  if (temporary_create(state) != 0) return -1;
  char data[512];
  kp_error error = {0};
  kp_config *config;
  make_data(state);
  snprintf(data, sizeof data, "data.path=%s", temporary_path(state, "data"));
  const char *const sets[] = {data};
  check_ok(kp_config_parse(settings, sizeof settings - 1, "settings", kp_training_schema(), sets, 1, &config,
                           &error),
           &error);
  const kp_train_options options = {.backend = kp_backend_ref(), .threads = 1};
  snprintf(run, sizeof run, "%s", temporary_path(state, "run"));
  check_ok(kp_train(config, run, &options, &error), &error);
  kp_config_destroy(config);
  return 0;
}

/* Runs the program with `words` (which name the run RUN) and gives all that it wrote; the exit code. */
static int run_program(const char *words, char *output, size_t capacity) {
  char command[1024];
  snprintf(command, sizeof command, "RUN=%s; exec 2>&1; %s", run, words);
  FILE *pipe = popen(command, "r");
  assert_non_null(pipe);
  output[fread(output, 1, capacity - 1, pipe)] = 0;
  return WEXITSTATUS(pclose(pipe));
}

/* The same; the output must hold `telling`. */
static void check_program(const char *words, int code, const char *telling) {
  char output[8192];
  const int got = run_program(words, output, sizeof output);
  if (got != code || strstr(output, telling) == NULL)
    fail_msg("%s: exit code %d, output '%s', which should hold '%s'", words, got, output, telling);
}

static json_t *program_json(const char *words) {
  char output[16384];
  json_error_t fault;
  const int code = run_program(words, output, sizeof output);
  json_t *json = json_loads(output, 0, &fault);
  if (code != 0 || json == NULL) fail_msg("%s: exit code %d, output '%s'", words, code, output);
  return json;
}

#define SAMPLE KP_PROGRAM " sample $RUN --backend ref --threads 1 "
#define EVAL   KP_PROGRAM " eval $RUN --backend ref --threads 1 "

/* ---- through the library ---- */

typedef struct listener {
  char text[512];
  size_t size, enough;
  sig_atomic_t *flag; /* set when there is enough; or NULL: says so itself */
} listener;

static bool listen(void *context, const char *text, size_t size) {
  listener *l = context;
  memcpy(l->text + l->size, text, size);
  l->size += size;
  if (l->size < l->enough) return true;
  if (l->flag != NULL) *l->flag = 1;
  return l->flag != NULL;
}

typedef struct fixture {
  kp_trained trained;
  kp_decoder *decoder;
  kp_token_sampler *sampler;
  int32_t *prompt;
  kp_generation generation;
  listener heard;
} fixture;

static void open_fixture(fixture *f) {
  kp_error error = {0};
  const kp_token_sampler_options options = kp_token_sampler_defaults();
  *f = (fixture){.heard = {.enough = sizeof f->heard.text}};
  check_ok(kp_trained_open(run, "best", kp_backend_ref(), &f->trained, &error), &error);
  check_ok(kp_decoder_create(&f->trained.options, f->trained.parameters, &(kp_decoder_options){.threads = 1},
                             &f->decoder, &error),
           &error);
  check_ok(kp_token_sampler_create(&options, f->trained.options.vocabulary, &f->sampler, &error), &error);
  f->generation = (kp_generation){.tokens = 50,
                                  .stop_token = -1,
                                  .tokenizer = f->trained.tokenizer,
                                  .sink = listen,
                                  .context = &f->heard};
  check_ok(
      kp_prompt_encode(f->trained.tokenizer, "the ", 4, &f->prompt, &f->generation.prompt_length, &error),
      &error);
  f->generation.prompt = f->prompt;
}

static void close_fixture(fixture *f) {
  kp_decoder_destroy(f->decoder);
  kp_token_sampler_destroy(f->sampler);
  kp_trained_close(&f->trained);
  free(f->prompt);
}

static void generate(fixture *f, kp_generation_report *report) {
  kp_error error = {0};
  f->heard.size = 0;
  check_ok(kp_generate(f->decoder, f->sampler, &f->generation, report, &error), &error);
}

static void test_length_and_figures(void **state) {
  (void)state;
  fixture f;
  kp_generation_report report;
  open_fixture(&f);
  generate(&f, &report);
  assert_int_equal(report.end, KP_END_LENGTH);
  assert_int_equal(report.prompt_tokens, 4);
  assert_int_equal(report.tokens, 50);
  assert_int_equal(report.steps, 49);
  assert_int_equal(f.heard.size, 50); /* a token is a letter */
  assert_true(report.step_seconds > 0 && report.best_step <= report.median_step);
  f.generation.tokens = 1;
  generate(&f, &report);
  assert_int_equal(report.steps, 0);
  assert_true(isnan(report.median_step));
  close_fixture(&f);
}

static void test_samples_repeat_and_differ(void **state) {
  (void)state;
  fixture f;
  kp_generation_report report;
  char first[512];
  open_fixture(&f);
  generate(&f, &report);
  memcpy(first, f.heard.text, sizeof first);
  generate(&f, &report);
  assert_memory_equal(first, f.heard.text, 50);
  f.generation.sample = 1;
  generate(&f, &report);
  assert_memory_not_equal(first, f.heard.text, 50);
  close_fixture(&f);
}

/* Sequences that are decoded together are the samples that are decoded in turn. */
static void test_sequences_side_by_side(void **state) {
  (void)state;
  enum { SEQUENCES = 5, TOKENS = 50 };
  int32_t alone[SEQUENCES][TOKENS], together[SEQUENCES][TOKENS];
  fixture f;
  kp_generation_report report;
  kp_error error = {0};
  open_fixture(&f);
  f.generation.tokenizer = NULL;
  for (int b = 0; b < SEQUENCES; b++) {
    f.generation.sample = 2 + (uint64_t)b;
    f.generation.written = alone[b];
    generate(&f, &report);
  }
  assert_memory_not_equal(alone[0], alone[1], sizeof alone[0]);
  kp_decoder_destroy(f.decoder);
  check_ok(kp_decoder_create(&f.trained.options, f.trained.parameters,
                             &(kp_decoder_options){.batch = SEQUENCES, .threads = 1}, &f.decoder, &error),
           &error);
  f.generation.sample = 2;
  f.generation.sequences = SEQUENCES;
  f.generation.written = together[0];
  generate(&f, &report);
  assert_int_equal(report.sequences, SEQUENCES);
  assert_int_equal(report.tokens, TOKENS);
  assert_memory_equal(alone, together, sizeof alone);
  double *values = f.trained.parameters->values;
  for (int64_t i = 0; i < f.trained.parameters->total; i++) values[i] = NAN;
  check_fails(kp_generate(f.decoder, f.sampler, &f.generation, &report, &error), &error, KP_ERR_NUMERIC,
              "the logit of token 0");
  close_fixture(&f);
}

static void test_stop_token_ends_the_text(void **state) {
  (void)state;
  fixture f;
  kp_generation_report report;
  kp_error error = {0};
  int32_t *space;
  int64_t count;
  open_fixture(&f);
  check_ok(kp_prompt_encode(f.trained.tokenizer, " ", 1, &space, &count, &error), &error);
  f.generation.stop_token = *space;
  generate(&f, &report);
  assert_int_equal(report.end, KP_END_STOP_TOKEN);
  assert_true(report.tokens < 50 && f.heard.size == (size_t)report.tokens);
  assert_null(memchr(f.heard.text, ' ', f.heard.size));
  free(space);
  close_fixture(&f);
}

static void test_interruptions(void **state) {
  (void)state;
  fixture f;
  kp_generation_report report;
  static sig_atomic_t flag;
  open_fixture(&f);
  f.heard.enough = 7;
  generate(&f, &report); /* by the sink */
  assert_int_equal(report.end, KP_END_INTERRUPTED);
  assert_int_equal(report.tokens, 7);
  f.heard.flag = &flag;
  f.generation.interrupt = &flag;
  generate(&f, &report); /* by the flag */
  assert_int_equal(report.end, KP_END_INTERRUPTED);
  assert_int_equal(report.tokens, 7);
  close_fixture(&f);
}

static void test_broken_weights_are_an_error(void **state) {
  (void)state;
  fixture f;
  kp_generation_report report;
  kp_error error = {0};
  open_fixture(&f);
  double *values = f.trained.parameters->values;
  for (int64_t i = 0; i < f.trained.parameters->total; i++) values[i] = NAN;
  check_fails(kp_generate(f.decoder, f.sampler, &f.generation, &report, &error), &error, KP_ERR_NUMERIC,
              "the logit of token 0");
  close_fixture(&f);
}

/* ---- through the program ---- */

static void test_program_writes_prompt_and_text(void **state) {
  (void)state;
  char output[8192], again[8192];
  const char *words = SAMPLE "--prompt 'the ' --tokens 40 2>/dev/null";
  assert_int_equal(run_program(words, output, sizeof output), 0);
  assert_int_equal(strlen(output), 4 + 40 + 1);
  assert_memory_equal(output, "the ", 4);
  assert_int_equal(run_program(words, again, sizeof again), 0);
  assert_string_equal(output, again);
  assert_int_equal(
      run_program("printf 'the ' | " SAMPLE "--prompt-file - --tokens 40 2>/dev/null", again, sizeof again),
      0);
  assert_string_equal(output, again);
  assert_int_equal(
      run_program(SAMPLE "--prompt 'the ' --tokens 40 --seed 2 2>/dev/null", again, sizeof again), 0);
  assert_string_not_equal(output, again);
}

/* Greedily the run has learnt its verse by heart. */
static void test_program_has_learnt(void **state) {
  (void)state;
  check_program(SAMPLE "--prompt 'the cat sat on th' --tokens 2 --temperature 0 2>/dev/null", 0,
                "the cat sat on the ");
}

static void test_program_json(void **state) {
  (void)state;
  json_t *json = program_json(SAMPLE "--json --samples 2 --tokens 30 --checkpoint last");
  const json_t *samples = json_object_get(json, "samples"), *first = json_array_get(samples, 0);
  assert_int_equal(json_array_size(samples), 2);
  assert_int_equal(json_integer_value(json_object_get(json, "step")), 60);
  assert_string_equal(json_string_value(json_object_get(json, "prompt")), "\n");
  assert_int_equal(json_string_length(json_object_get(first, "text")), 30);
  assert_string_equal(json_string_value(json_object_get(first, "end")), "length");
  assert_true(json_number_value(json_object_get(first, "tokens_per_s")) > 0);
  assert_false(
      json_equal(json_object_get(first, "text"), json_object_get(json_array_get(samples, 1), "text")));
  json_decref(json);
}

static void test_program_refuses(void **state) {
  (void)state;
  check_program(SAMPLE "--prompt 'the €'", 1, "the prompt: character '€' (U+20AC) at byte 4");
  check_program(SAMPLE "--prompt ''", 1, "the prompt is empty");
  check_program(SAMPLE "--checkpoint 7", 1, "no checkpoint \"7\"");
  check_program(KP_PROGRAM " sample $RUN/nothing", 1, "is no run");
  check_program(KP_PROGRAM " sample", 2, "which run?");
  check_program(SAMPLE "--random", 2, "--random and --config go together");
  check_program(SAMPLE "--batch 2", 2, "--batch is for --random");
  check_program(SAMPLE "--top-p 1.5", 2, "--top-p");
  check_program(SAMPLE "--tokens 0", 2, "--tokens");
  check_program("mv $RUN/tokenizer.json $RUN/away; " SAMPLE "; code=$?; mv $RUN/away "
                "$RUN/tokenizer.json; exit $code",
                1, "has no tokenizer.json");
}

static void test_program_times_a_random_model(void **state) {
  const char config[] = "model: {vocabulary: 20, layers: 1, heads: 2, width: 16, context: 8}\n";
  temporary_write(temporary_path(state, "tiny.yaml"), config, sizeof config - 1);
  json_t *json = program_json(KP_PROGRAM " sample --random --config $RUN/../tiny.yaml --tokens 20 --json "
                                         "--backend ref --prompt-tokens 3");
  const json_t *first = json_array_get(json_object_get(json, "samples"), 0);
  assert_int_equal(json_integer_value(json_object_get(first, "tokens")), 20);
  assert_true(json_number_value(json_object_get(first, "parameter_bytes_per_token")) > 0);
  assert_null(json_object_get(first, "text"));
  json_decref(json);
}

/* Ctrl-C ends a text that would go on for ever. */
static void test_program_stops_at_ctrl_c(void **state) {
  (void)state;
  int ends[2], status;
  char letters[64];
  assert_int_equal(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    if (freopen("/dev/null", "w", stderr) == NULL) _exit(99);
    execl(KP_PROGRAM, "kappa", "sample", run, "--backend", "ref", "--tokens", "100000000", (char *)NULL);
    _exit(99);
  }
  close(ends[1]);
  assert_true(read(ends[0], letters, sizeof letters) > 0);
  assert_int_equal(kill(child, SIGINT), 0);
  while (read(ends[0], letters, sizeof letters) > 0) continue;
  assert_int_equal(waitpid(child, &status, 0), child);
  close(ends[0]);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- evaluation ---- */

static double number(const json_t *json, const char *key) {
  const json_t *value = json_object_get(json, key);
  if (!json_is_number(value)) fail_msg("no number %s", key);
  return json_number_value(value);
}

static void test_eval_agrees_with_itself(void **state) {
  (void)state;
  json_t *own = program_json(EVAL "--json");
  json_t *folder = program_json(EVAL "--json --data $RUN/../data");
  json_t *text = program_json(EVAL "--json --file $RUN/../held_out.txt");
  assert_true(number(own, "loss") < 1.5); /* far below log(14): it has learnt */
  assert_int_equal((int)number(own, "tokens"), 3 * VERSE_SIZE - 1);
  assert_true(fabs(number(own, "perplexity") - exp(number(own, "loss"))) < 1e-12);
  assert_true(fabs(number(own, "bits_per_byte") - number(own, "loss") / log(2)) < 1e-12);
  assert_true(number(own, "standard_error") > 0);
  assert_true(number(own, "loss") == number(folder, "loss"));
  assert_true(number(own, "loss") == number(text, "loss"));
  json_decref(own);
  json_decref(folder);
  json_decref(text);
}

/* The loss that training wrote at its last step, with nine digits. */
static void test_eval_agrees_with_training(void **state) {
  (void)state;
  char path[600], line[1024];
  double trained = NAN;
  snprintf(path, sizeof path, "%s/metrics.jsonl", run);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  while (fgets(line, sizeof line, file) != NULL) {
    json_t *json = json_loads(line, 0, NULL);
    const json_t *loss = json_object_get(json, "validation_loss");
    if (json_is_number(loss)) trained = json_number_value(loss);
    json_decref(json);
  }
  fclose(file);
  json_t *own = program_json(EVAL "--json --checkpoint last");
  assert_true(fabs(number(own, "loss") - trained) < 1e-8);
  json_decref(own);
}

static void test_eval_of_the_first_batches(void **state) {
  (void)state;
  json_t *one = program_json(EVAL "--json --batches 1");
  assert_int_equal((int)number(one, "tokens"), 4 * 16);
  assert_true(json_is_null(json_object_get(one, "standard_error")));
  json_decref(one);
}

static void test_eval_refuses(void **state) {
  temporary_write(temporary_path(state, "foreign.txt"), "the dog", 7);
  temporary_write(temporary_path(state, "short.txt"), "t", 1);
  check_program(EVAL "--file $RUN/../foreign.txt", 1, "foreign.txt: character 'g'");
  check_program(EVAL "--file $RUN/../short.txt", 1, "has one token");
  check_program(EVAL "--data nowhere", 1, "no data set");
  check_program(EVAL "--data a --file b", 2, "not both");
  check_program(KP_PROGRAM " eval", 2, "which run?");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_length_and_figures),
      cmocka_unit_test(test_samples_repeat_and_differ),
      cmocka_unit_test(test_sequences_side_by_side),
      cmocka_unit_test(test_stop_token_ends_the_text),
      cmocka_unit_test(test_interruptions),
      cmocka_unit_test(test_broken_weights_are_an_error),
      cmocka_unit_test(test_program_writes_prompt_and_text),
      cmocka_unit_test(test_program_has_learnt),
      cmocka_unit_test(test_program_json),
      cmocka_unit_test(test_program_refuses),
      cmocka_unit_test(test_program_times_a_random_model),
      cmocka_unit_test(test_program_stops_at_ctrl_c),
      cmocka_unit_test(test_eval_agrees_with_itself),
      cmocka_unit_test(test_eval_agrees_with_training),
      cmocka_unit_test(test_eval_of_the_first_batches),
      cmocka_unit_test(test_eval_refuses),
  };
  return cmocka_run_group_tests(tests, make_run, temporary_remove);
}
