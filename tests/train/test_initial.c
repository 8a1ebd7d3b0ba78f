/* Runs that start from the parameters of another run. */
#include "data/fixture.h"

#include <math.h>

#include "backend/cpu/cpu.h"
#include "data/labelled_prepare.h"
#include "data/prepare.h"
#include "support/small_run.h"
#include "train/settings.h"
#include "train/trainer.h"

/* What a run said of its start, and when to stop it. */
typedef struct watch {
  volatile sig_atomic_t stop;
  int64_t after;
  double first_loss;
  kp_transfers transfers;
} watch;

static void look(void *context, const kp_progress *progress) {
  watch *w = context;
  if (w->after > 0 && progress->step >= w->after) w->stop = 1;
  if (progress->evaluated && progress->step == 0) w->first_loss = progress->validation_loss;
}

static void keep(void *context, const kp_transfers *transfers) {
  watch *w = context;
  const size_t bytes = (size_t)transfers->count * sizeof *transfers->list;
  w->transfers = *transfers;
  w->transfers.list = malloc(bytes);
  assert_non_null(w->transfers.list);
  memcpy(w->transfers.list, transfers->list, bytes);
}

/* Trains the configuration `text` (NULL: goes on) in double precision. */
static kp_status train(const char *text, const char *const *sets, size_t count, const char *run, watch *w,
                       kp_error *error) {
  kp_config *config = NULL;
  kp_transfers_clear(&w->transfers);
  if (text != NULL)
    check_ok(kp_config_parse(text, strlen(text), "test", kp_training_schema(), sets, count, &config, error),
             error);
  const kp_train_options options = {.backend = kp_backend_ref(),
                                    .threads = 1,
                                    .resume = text == NULL,
                                    .progress = look,
                                    .initialised = keep,
                                    .context = w,
                                    .stop = &w->stop};
  const kp_status status = kp_train(config, run, &options, error);
  kp_config_destroy(config);
  return status;
}

static void train_ok(const char *text, const char *const *sets, size_t count, const char *run, watch *w) {
  kp_error error = {0};
  check_ok(train(text, sets, count, run, w, &error), &error);
}

/* The small run on the text, in the folder "base". */
static const char *base_run(fixture *files, const char *const *sets, size_t count) {
  watch w = {0};
  size_t size;
  const char *run = fixture_path(files, "base");
  char *text = fixture_read(small_config(files), &size);
  train_ok(text, sets, count, run, &w);
  assert_null(w.transfers.list);
  free(text);
  return run;
}

/* "train.init=RUN" and "data.path=…" of a folder of the fixture, as --set has them. */
typedef struct two_sets {
  char init[KP_PATH_SIZE], data[KP_PATH_SIZE];
} two_sets;

static two_sets start_from(fixture *files, const char *run, const char *data) {
  two_sets sets;
  snprintf(sets.init, sizeof sets.init, "train.init=%s", run);
  snprintf(sets.data, sizeof sets.data, "data.path=%s", fixture_path(files, data));
  return sets;
}

static const char few_steps[] = "train: {steps: 12, batch: 4, warmup: 2, log_every: 1, evaluate_every: 4,\n"
                                "        evaluate_batches: 2, checkpoint_every: 4, keep: 9}\n";

static const kp_transfer *find(const watch *w, const char *name) {
  for (int i = 0; i < w->transfers.count; i++)
    if (strcmp(w->transfers.list[i].name, name) == 0) return &w->transfers.list[i];
  fail_msg("nothing is said of %s", name);
  return NULL;
}

static void check_kind(const watch *w, const char *name, kp_transfer_kind kind) {
  if (find(w, name)->kind != kind) fail_msg("%s: %d, not %d", name, find(w, name)->kind, kind);
}

static int count_kind(const watch *w, kp_transfer_kind kind) {
  int count = 0;
  for (int i = 0; i < w->transfers.count; i++) count += w->transfers.list[i].kind == kind;
  return count;
}

/* A parameter of a run's checkpoint; free. */
static double *parameter_of(const char *run, const char *which, const char *name, int64_t *count) {
  kp_error error = {0};
  kp_trained trained;
  check_ok(kp_trained_open(run, which, kp_backend_ref(), &trained, &error), &error);
  const int index = kp_parameters_find(trained.parameters, name);
  if (index < 0) fail_msg("%s has no %s", run, name);
  *count = trained.parameters->list[index].count;
  double *values = malloc((size_t)*count * sizeof *values);
  kp_parameters_read(trained.parameters, trained.parameters->values, index, values);
  kp_trained_close(&trained);
  return values;
}

/* The first `count` numbers of a parameter in both runs, of which at least so many there are. */
static void check_same_numbers(const char *a, const char *b, const char *in_b, const char *name,
                               int64_t count) {
  int64_t ours, theirs;
  double *x = parameter_of(a, "0", name, &ours), *y = parameter_of(b, "last", in_b, &theirs);
  assert_true(ours >= count && theirs >= count);
  assert_memory_equal(x, y, (size_t)count * sizeof *x);
  free(x);
  free(y);
}

/* ---- language ---- */

/* No configuration but the data's: the model is that of the run, and its first checkpoint the run's last. */
static void test_the_same_model_goes_on(void **state) {
  fixture *files = *state;
  const char *const sizes[] = {"model.layers=2", "model.positions=rotary"};
  const char *base = base_run(files, sizes, 2), *run = fixture_path(files, "run");
  char from[KP_PATH_SIZE], a[512], b[512];
  watch w = {0};
  snprintf(from, sizeof from, "%s@last", base);
  const two_sets sets = start_from(files, from, "text");
  train_ok(few_steps, (const char *const[]){sets.init, sets.data}, 2, run, &w);
  assert_int_equal(count_kind(&w, KP_TRANSFER_COPIED), w.transfers.count);
  assert_int_equal(w.transfers.step, 20);
  snprintf(a, sizeof a, "%s/checkpoints/step-20/model.safetensors", base);
  snprintf(b, sizeof b, "%s/checkpoints/step-0/model.safetensors", run);
  small_check_same(a, b);
  json_t *lines = small_metrics(base);
  const json_t *last = json_array_get(lines, json_array_size(lines) - 1);
  assert_float_equal(json_number_value(json_object_get(last, "validation_loss")), w.first_loss, 1e-7);
  json_decref(lines);
  kp_transfers_clear(&w.transfers);
}

static void test_steps_and_names(void **state) {
  (void)state;
  static const struct {
    const char *text, *run, *which;
  } cases[] = {{"runs/a", "runs/a", "best"},          {"runs/a@last", "runs/a", "last"},
               {"runs/a@120", "runs/a", "120"},       {"user@host/run", "user@host/run", "best"},
               {"runs/a@b@best", "runs/a@b", "best"}, {"runs/a@", "runs/a@", "best"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    kp_error error = {0};
    char run[KP_PATH_SIZE];
    const char *which;
    check_ok(kp_initial_name(cases[i].text, run, &which, &error), &error);
    assert_string_equal(run, cases[i].run);
    assert_string_equal(which, cases[i].which);
  }
}

/* Rows that both tables of positions have are copied; a head of its own starts as the tied table. */
static void test_a_longer_context_and_an_own_head(void **state) {
  fixture *files = *state;
  const char *base = base_run(files, NULL, 0), *run = fixture_path(files, "run");
  const two_sets s = start_from(files, base, "text");
  const char *const sets[] = {s.init,          s.data,          "model.context=12", "model.head=untied",
                              "train.steps=4", "train.warmup=0"};
  watch w = {0};
  int64_t count;
  train_ok(few_steps, sets, 6, run, &w);
  check_kind(&w, "transformer.wpe.weight", KP_TRANSFER_ROWS);
  assert_int_equal(find(&w, "transformer.wpe.weight")->rows, 12);
  assert_int_equal(find(&w, "transformer.wpe.weight")->from, 8);
  check_kind(&w, "lm_head.weight", KP_TRANSFER_COPIED);
  free(parameter_of(base, "best", "transformer.wte.weight", &count));
  check_same_numbers(run, base, "transformer.wpe.weight", "transformer.wpe.weight", 8 * 8);
  check_same_numbers(run, base, "transformer.wte.weight", "lm_head.weight", count);
  kp_transfers_clear(&w.transfers);
}

/* Blocks that are too many are left, blocks that are missing are new, other shapes are drawn. */
static void test_other_sizes(void **state) {
  fixture *files = *state;
  const char *const sizes[] = {"model.layers=2"};
  const char *base = base_run(files, sizes, 1);
  const two_sets s = start_from(files, base, "text");
  watch w = {0};
  kp_error error = {0};
  train_ok(few_steps, (const char *const[]){s.init, s.data, "model.layers=1"}, 3,
           fixture_path(files, "fewer"), &w);
  check_kind(&w, "transformer.h.1.attn.c_attn.weight", KP_TRANSFER_LEFT);
  train_ok(few_steps, (const char *const[]){s.init, s.data, "model.layers=3"}, 3, fixture_path(files, "more"),
           &w);
  check_kind(&w, "transformer.h.2.attn.c_attn.weight", KP_TRANSFER_NEW);
  check_kind(&w, "transformer.h.1.attn.c_attn.weight", KP_TRANSFER_COPIED);
  train_ok(few_steps, (const char *const[]){s.init, s.data, "model.feed_forward=gated"}, 3,
           fixture_path(files, "gated"), &w);
  check_kind(&w, "transformer.h.0.attn.c_attn.weight", KP_TRANSFER_COPIED);
  kp_transfers_clear(&w.transfers);
  const char *const none[] = {s.init, s.data, "model.width=16"}, *run = fixture_path(files, "none");
  assert_int_equal(train(few_steps, none, 3, run, &w, &error), KP_ERR_INPUT);
  check_words(&error, "no parameter of run");
  assert_int_equal(kp_path_kind_of(run), KP_PATH_MISSING);
}

/* ---- labels ---- */

static const char *write_sentences(fixture *files, const char *name, const char *first, const char *second) {
  static const char *const words[] = {"In the beginning was", "the line, and the line;",
                                      "they were parallel.", "Then came the curve, and said: all lines meet,",
                                      "or none, or all but one.\\n"};
  char text[4096], *at = text;
  for (int e = 0; e < 20; e++)
    at +=
        sprintf(at, "{\"sentence\": \"%s\", \"label\": \"%s\"}\n", words[e % 5], e % 2 == 0 ? first : second);
  return fixture_write(files, name, text, (size_t)(at - text));
}

static void prepare_labelled(fixture *files, const char *name, const char *first, const char *second) {
  kp_error error = {0};
  kp_prepared prepared;
  kp_labelling labelling;
  bool fresh;
  char file[64];
  snprintf(file, sizeof file, "%s.jsonl", name);
  const char *input = write_sentences(files, file, first, second);
  const kp_labelled_prepare_options options = {.task = KP_TASK_CLASSIFY,
                                               .files = &input,
                                               .file_count = 1,
                                               .validation = input,
                                               .tokenizer = fixture_path(files, "base"),
                                               .folder = fixture_path(files, name),
                                               .name = name};
  check_ok(kp_prepare_labelled(&options, &prepared, &labelling, &fresh, &error), &error);
  kp_labelling_clear(&labelling);
}

static const char label_steps[] = "model: {context: 64}\n"
                                  "train: {steps: 4, batch: 4, warmup: 0, evaluate_every: 2, keep: 9,\n"
                                  "        evaluate_batches: 0, checkpoint_every: 2}\n";

/* The task is the data's; separator and padding are new rows, the head is new; another classifier takes the
 * head over when the labels are the same ones. */
static void test_a_classifier_from_a_language_model(void **state) {
  fixture *files = *state;
  const char *base = base_run(files, NULL, 0), *run = fixture_path(files, "classifier");
  watch w = {0};
  int64_t count;
  prepare_labelled(files, "labels", "yes", "no");
  prepare_labelled(files, "others", "good", "bad");
  two_sets s = start_from(files, base, "labels");
  train_ok(label_steps, (const char *const[]){s.init, s.data}, 2, run, &w);
  check_kind(&w, "classifier.weight", KP_TRANSFER_NEW);
  check_kind(&w, "transformer.wte.weight", KP_TRANSFER_ROWS);
  check_kind(&w, "transformer.wpe.weight", KP_TRANSFER_ROWS);
  assert_int_equal(find(&w, "transformer.wte.weight")->rows, find(&w, "transformer.wte.weight")->from + 2);
  free(parameter_of(base, "best", "transformer.wte.weight", &count));
  check_same_numbers(run, base, "transformer.wte.weight", "transformer.wte.weight", count);
  s = start_from(files, run, "labels");
  train_ok(label_steps, (const char *const[]){s.init, s.data}, 2, fixture_path(files, "again"), &w);
  assert_int_equal(count_kind(&w, KP_TRANSFER_COPIED), w.transfers.count);
  s = start_from(files, run, "others");
  train_ok(label_steps, (const char *const[]){s.init, s.data}, 2, fixture_path(files, "other"), &w);
  check_kind(&w, "classifier.weight", KP_TRANSFER_OTHER);
  check_kind(&w, "classifier.bias", KP_TRANSFER_OTHER);
  check_kind(&w, "classifier.norm.weight", KP_TRANSFER_COPIED);
  kp_transfers_clear(&w.transfers);
}

/* ---- what is refused ---- */

static void refuse(const two_sets *s, const char *run, const char *words) {
  kp_error error = {0};
  watch w = {0};
  const char *const sets[] = {s->init, s->data};
  assert_int_equal(train(few_steps, sets, 2, run, &w, &error), KP_ERR_INPUT);
  check_words(&error, words);
  assert_int_equal(kp_path_kind_of(run), KP_PATH_MISSING);
}

static void prepare_text(fixture *files, const char *name, const char *text) {
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  char file[64];
  snprintf(file, sizeof file, "%s.txt", name);
  const char *path = fixture_write(files, file, text, strlen(text));
  const kp_prepare_options options = {
      .texts = &path, .text_count = 1, .folder = fixture_path(files, name), .train_fraction = 0.75};
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
}

static void test_other_tokens_are_refused(void **state) {
  fixture *files = *state;
  const char *base = base_run(files, NULL, 0), *run = fixture_path(files, "run");
  prepare_text(files, "strange", "Strange quarks zigzag; the five boxing wizards jump over dwarves. @#%&*()");
  two_sets s = start_from(files, base, "strange");
  refuse(&s, run, "tokens of another tokenizer");
  refuse(&s, run, "kappa data prepare --tokenizer ");
  s = start_from(files, fixture_path(files, "nowhere"), "text");
  refuse(&s, run, "is no run to start from");
  char step[KP_PATH_SIZE];
  snprintf(step, sizeof step, "%s@7", base);
  s = start_from(files, step, "text");
  refuse(&s, run, "has no checkpoint \"7\"");
}

/* ---- going on ---- */

/* A run that was stopped goes on bit for bit, when the run that it started from is gone. */
static void test_resume_without_the_source(void **state) {
  fixture *files = *state;
  const char *base = base_run(files, NULL, 0), *whole = fixture_path(files, "whole");
  const two_sets s = start_from(files, base, "text");
  const char *const sets[] = {s.init, s.data, "model.dropout=0.1"};
  kp_error error = {0};
  watch w = {0};
  train_ok(few_steps, sets, 3, whole, &w);
  for (int after = 0; after < 3; after++) {
    char name[32], a[512], b[512];
    snprintf(name, sizeof name, "stopped-%d", after);
    const char *stopped = fixture_path(files, name);
    watch interrupted = {.stop = after == 0, .after = 3 * after};
    assert_int_equal(train(few_steps, sets, 3, stopped, &interrupted, &error), KP_ERR_INTERRUPTED);
    kp_transfers_clear(&interrupted.transfers);
    if (after == 2) check_ok(kp_directory_remove_tree(base, &error), &error);
    watch rest = {0};
    train_ok(NULL, NULL, 0, stopped, &rest);
    assert_null(rest.transfers.list);
    static const char *const parts[] = {"model.safetensors", "optimizer.safetensors"};
    for (int i = 0; i < 2; i++) {
      snprintf(a, sizeof a, "%s/checkpoints/step-12/%s", whole, parts[i]);
      snprintf(b, sizeof b, "%s/checkpoints/step-12/%s", stopped, parts[i]);
      small_check_same(a, b);
    }
    json_t *x = small_metrics(whole), *y = small_metrics(stopped);
    assert_int_equal(json_array_size(x), json_array_size(y));
    json_decref(x);
    json_decref(y);
  }
  kp_trained trained;
  check_ok(kp_trained_open(whole, "best", kp_backend_ref(), &trained, &error), &error);
  kp_trained_close(&trained);
  kp_transfers_clear(&w.transfers);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_steps_and_names),
      with_fixture(test_the_same_model_goes_on),
      with_fixture(test_a_longer_context_and_an_own_head),
      with_fixture(test_other_sizes),
      with_fixture(test_a_classifier_from_a_language_model),
      with_fixture(test_other_tokens_are_refused),
      with_fixture(test_resume_without_the_source),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
