/* From labelled files to trained and evaluated classifiers and taggers, of every family. */
#include "data/fixture.h"

#include <math.h>

#include "backend/cpu/cpu.h"
#include "core/random.h"
#include "data/labelled_batches.h"
#include "data/labelled_prepare.h"
#include "infer/evaluate_labels.h"
#include "support/small_run.h"
#include "train/settings.h"
#include "train/trainer.h"

enum { EXAMPLES = 240, CONTEXT = 12 };

static uint64_t draw(int example, int place, uint64_t bound) {
  return kp_random_below(11, KP_RANDOM_GENERIC, (uint32_t)example, (uint64_t)place, bound);
}

/* Words of letters a to f; a sentence is "first" or "second" by the letter that stands at a place that no
 * position tells: whether it has more a than b. */
static const char *write_sentences(fixture *files) {
  char *text = calloc(EXAMPLES, 32), *at = text;
  assert_non_null(text);
  at += sprintf(at, "label\tsentence\n");
  for (int e = 0; e < EXAMPLES; e++) {
    const int length = 4 + (int)draw(e, 0, CONTEXT - 4);
    const bool first = draw(e, 1, 2) == 0;
    at += sprintf(at, "%s\t", first ? "first" : "second");
    for (int i = 0; i < length; i++)
      *at++ = draw(e, 2 + i, 3) == 0 ? (first ? 'a' : 'b') : (char)('c' + draw(e, 40 + i, 4));
    *at++ = '\n';
  }
  const char *path = fixture_write(files, "sentences.tsv", text, (size_t)(at - text));
  free(text);
  return path;
}

/* Words x and y are entities of two types where they follow p, and nothing elsewhere. */
static const char *write_words(fixture *files) {
  char *text = calloc(EXAMPLES, 96), *at = text;
  assert_non_null(text);
  for (int e = 0; e < EXAMPLES; e++) {
    char before = 'n';
    const int words = 2 + (int)draw(e, 0, 4);
    for (int i = 0; i < words; i++) {
      const char word = "pnxy"[draw(e, 1 + i, 4)];
      const char *tag = before != 'p' || word < 'x' ? "O" : word == 'x' ? "B-X" : "B-Y";
      at += sprintf(at, "%c\t%s\n", word, tag);
      before = word;
    }
    *at++ = '\n';
  }
  const char *path = fixture_write(files, "words.conll", text, (size_t)(at - text));
  free(text);
  return path;
}

static const char *prepare(fixture *files, kp_task task) {
  kp_error error = {0};
  kp_prepared prepared;
  kp_labelling labelling;
  bool fresh;
  const char *input[] = {task == KP_TASK_TAG ? write_words(files) : write_sentences(files)};
  const kp_labelled_prepare_options options = {.task = task,
                                               .files = input,
                                               .file_count = 1,
                                               .train_fraction = 0.75,
                                               .folder = fixture_path(files, "set"),
                                               .name = "set"};
  check_ok(kp_prepare_labelled(&options, &prepared, &labelling, &fresh, &error), &error);
  kp_labelling_clear(&labelling);
  return options.folder;
}

/* A configuration of one block on the set; `more` lines of the model section. */
static const char *write_config(fixture *files, const char *folder, const char *more) {
  char text[1024];
  const int size =
      snprintf(text, sizeof text,
               "model: {layers: 1, heads: 2, width: 16, context: %d%s}\n"
               "data: {path: %s}\n"
               "train: {steps: 60, batch: 16, learning_rate: 1e-2, warmup: 5, evaluate_every: 30,\n"
               "        evaluate_batches: 0, checkpoint_every: 20, log_every: 10}\n",
               CONTEXT, more, folder);
  return fixture_write(files, "config.yaml", text, (size_t)size);
}

static kp_config *load(const char *path, const char *const *sets, size_t count) {
  kp_error error = {0};
  kp_config *config;
  check_ok(kp_config_load(path, kp_training_schema(), sets, count, &config, &error), &error);
  return config;
}

typedef struct watch {
  volatile sig_atomic_t stop;
  int64_t after;
  double accuracy, entity_f1;
} watch;

static void look(void *context, const kp_progress *progress) {
  watch *w = context;
  if (w->after > 0 && progress->step >= w->after) w->stop = 1;
  if (!progress->evaluated) return;
  w->accuracy = progress->accuracy;
  w->entity_f1 = progress->entity_f1;
}

static kp_status train_on(const kp_backend *backend, kp_config *config, const char *run, watch *w,
                          kp_error *error) {
  const kp_train_options options = {.backend = backend,
                                    .threads = 1,
                                    .resume = config == NULL,
                                    .progress = look,
                                    .context = w,
                                    .stop = &w->stop};
  const kp_status status = kp_train(config, run, &options, error);
  kp_config_destroy(config);
  return status;
}

static kp_status train(kp_config *config, const char *run, watch *w, kp_error *error) {
  return train_on(kp_backend_ref(), config, run, w, error);
}

/* The scores of the last checkpoint by kappa eval's own path. */
static kp_score_report evaluate(const kp_backend *backend, const char *run) {
  kp_error error = {0};
  kp_trained trained;
  kp_labelled_set set;
  kp_scores scores;
  const kp_evaluation_options options = {.threads = 1};
  check_ok(kp_trained_open(run, "last", backend, &trained, &error), &error);
  check_ok(kp_evaluation_examples_open(&trained, NULL, &set, &error), &error);
  check_ok(kp_evaluate_labels(&trained, &set, &options, &scores, &error), &error);
  const kp_score_report report = kp_scores_report(&scores);
  assert_int_equal(report.examples, set.validation.count);
  kp_scores_clear(&scores);
  kp_labelled_close(&set);
  kp_trained_close(&trained);
  return report;
}

/* Reads `key` of the last line of metrics.jsonl that has it. */
static double last_metric(const char *run, const char *key) {
  json_t *lines = small_metrics(run);
  double value = (double)NAN;
  for (size_t i = 0; i < json_array_size(lines); i++) {
    const json_t *number = json_object_get(json_array_get(lines, i), key);
    if (number != NULL) value = json_number_value(number);
  }
  json_decref(lines);
  return value;
}

static void learn(fixture *files, const kp_backend *backend, kp_task task, const char *more,
                  const char *steps, double wanted) {
  kp_error error = {0};
  watch w = {0};
  const char *run = fixture_path(files, "run");
  const char *config = write_config(files, prepare(files, task), more);
  check_ok(train_on(backend, load(config, &steps, 1), run, &w, &error), &error);
  const kp_score_report report = evaluate(backend, run);
  if (!(w.accuracy >= wanted)) fail_msg("an accuracy of %g, not %g", w.accuracy, wanted);
  assert_true(w.accuracy > report.majority + 3 * report.accuracy_error);
  assert_true(fabs(report.accuracy - w.accuracy) < 1e-6);
  assert_true(fabs(last_metric(run, "accuracy") - w.accuracy) < 1e-6);
  assert_true(fabs(last_metric(run, "validation_loss") - report.loss) < 1e-5);
  if (task != KP_TASK_TAG) return;
  assert_true(report.entity_f1 > 0.8);
  assert_true(fabs(last_metric(run, "entity_f1") - report.entity_f1) < 1e-6);
}

static void test_a_classifier_learns(void **state) {
  learn(*state, kp_backend_ref(), KP_TASK_CLASSIFY, ", family: gpt, task: classify", "train.steps=60", 0.9);
}

static void test_a_classifier_that_reads_the_first_token_learns(void **state) {
  learn(*state, kp_backend_ref(), KP_TASK_CLASSIFY,
        ", family: gpt, task: classify, pooling: first, dropout: 0.05", "train.steps=60", 0.9);
}

static void test_a_geometric_classifier_learns(void **state) {
  learn(*state, kp_backend_cpu(), KP_TASK_CLASSIFY, ", family: geometric, task: classify", "train.steps=60",
        0.9);
}

static void test_a_tagger_learns(void **state) {
  learn(*state, kp_backend_cpu(), KP_TASK_TAG, ", family: gpt, task: tag", "train.steps=240", 0.95);
}

static void test_resume_is_bit_for_bit(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  watch none = {0}, stopped = {.after = 30};
  const char *whole = fixture_path(files, "whole"), *parts = fixture_path(files, "parts");
  const char *config =
      write_config(files, prepare(files, KP_TASK_CLASSIFY), ", family: gpt, task: classify, dropout: 0.1");
  check_ok(train(load(config, NULL, 0), whole, &none, &error), &error);
  assert_int_equal(train(load(config, NULL, 0), parts, &stopped, &error), KP_ERR_INTERRUPTED);
  check_ok(train(NULL, parts, &none, &error), &error);
  small_check_same(fixture_path(files, "whole/checkpoints/step-60/model.safetensors"),
                   fixture_path(files, "parts/checkpoints/step-60/model.safetensors"));
  small_check_same(fixture_path(files, "whole/task.json"), fixture_path(files, "set/task.json"));
}

/* ---- every family ---- */

static void fill_parameter(kp_parameters *parameters, const char *name, int64_t row, double value) {
  const int index = kp_parameters_find(parameters, name);
  assert_true(index >= 0);
  const kp_parameter *p = &parameters->list[index];
  double *values = malloc((size_t)p->count * sizeof *values);
  assert_non_null(values);
  kp_parameters_read(parameters, parameters->values, index, values);
  const int64_t columns = p->shape[p->dimensions - 1];
  for (int64_t c = 0; c < columns; c++) values[row * columns + c] = value * (double)(c % 3 - 1);
  kp_parameters_write(parameters, parameters->values, index, values);
  free(values);
}

static double forward(kp_engine *engine, const kp_batch *batch) {
  kp_error error = {0};
  double loss;
  check_ok(kp_engine_evaluate(engine, batch, &loss, &error), &error);
  return loss;
}

/* What the embedding of padding is changes nothing, and what a token of the example is does. */
static void padding_counts_for_nothing(const kp_family *family, kp_task task, const char *pooling) {
  enum { B = 3, T = 7, V = 9 };
  static const int32_t sizes[B] = {7, 3, 1};
  char text[512];
  kp_error error = {0};
  kp_engine *engine;
  kp_model_options options;
  int32_t inputs[B * T], targets[B * T], documents[B * T];
  const kp_batch batch = {.inputs = inputs, .targets = targets, .documents = documents};
  const int size =
      snprintf(text, sizeof text,
               "model: {family: %s, task: %s, pooling: %s, vocabulary: %d, classes: 3, layers: 2, "
               "heads: 2, width: 8, context: %d}\n",
               family->name, kp_task_name(task), pooling, V, T);
  kp_config *config;
  check_ok(kp_config_parse(text, (size_t)size, "test", kp_training_schema(), NULL, 0, &config, &error),
           &error);
  check_ok(kp_model_options_read(config, NULL, &options, &error), &error);
  check_ok(kp_engine_create(&options, B, 3, kp_backend_ref(), 1, &engine, &error), &error);
  for (int i = 0; i < B * T; i++) {
    const bool padding = i % T >= sizes[i / T];
    inputs[i] = padding ? V - 1 : i % (V - 1);
    documents[i] = padding ? KP_PADDING_DOCUMENT : 0;
    targets[i] = task == KP_TASK_CLASSIFY ? i % 3 : padding ? KP_IGNORE : i % 3;
  }
  const double before = forward(engine, &batch);
  const bool table = kp_parameters_find(kp_engine_parameters(engine), "transformer.wte.weight") >= 0;
  fill_parameter(kp_engine_parameters(engine), table ? "transformer.wte.weight" : "transformer.wte.points",
                 V - 1, 0.7);
  const double after = forward(engine, &batch);
  if (!isfinite(before) || before != after)
    fail_msg("%s, %s: a loss of %.17g becomes %.17g with another padding", family->name, kp_task_name(task),
             before, after);
  inputs[1] = V - 2;
  if (forward(engine, &batch) == before) fail_msg("%s: a token has no effect", family->name);
  double loss;
  check_ok(kp_engine_accumulate(engine, &batch, 1, 0, &error), &error);
  kp_executor_read(kp_engine_executor(engine), kp_engine_network(engine)->loss, &loss);
  assert_true(isfinite(loss));
  kp_engine_destroy(engine);
  kp_model_options_destroy(&options);
  kp_config_destroy(config);
}

static void test_padding_counts_for_nothing(void **state) {
  (void)state;
  for (int i = 0; kp_family_at(i) != NULL; i++) {
    padding_counts_for_nothing(kp_family_at(i), KP_TASK_CLASSIFY, "mean");
    padding_counts_for_nothing(kp_family_at(i), KP_TASK_CLASSIFY, "first");
    padding_counts_for_nothing(kp_family_at(i), KP_TASK_TAG, "mean");
  }
}

/* ---- what does not fit together ---- */

static void refuse(const char *config, const char *set, const char *run, const char *words) {
  kp_error error = {0};
  watch w = {0};
  const char *const sets[] = {set};
  assert_int_equal(train(load(config, sets, 1), run, &w, &error), KP_ERR_INPUT);
  check_words(&error, words);
  assert_int_equal(kp_path_kind_of(run), KP_PATH_MISSING);
}

static void test_what_does_not_fit(void **state) {
  fixture *files = *state;
  const char *run = fixture_path(files, "run"), *folder = prepare(files, KP_TASK_CLASSIFY);
  const char *config = write_config(files, folder, ", task: classify");
  refuse(config, "model.task=language", run,
         "the data is made for the task classify: set model.task=classify");
  refuse(config, "model.task=tag", run, "set model.task=classify");
  refuse(config, "model.context=8", run, "longer than the context of 8");
  refuse(config, "model.classes=1", run, "smaller than the data's 2 labels");
  refuse(config, "model.vocabulary=3", run, "smaller than the data's");
  char set[KP_PATH_SIZE + 32];
  snprintf(set, sizeof set, "data.train=%s/train.bin", folder);
  refuse(config, set, run, "token files have no labels");
}

/* The step whose evaluation has the best value of `key`, and of equal ones the smallest loss; `sign` 1: the
 * largest. */
static int64_t best_step_by(const char *run, const char *key, double sign) {
  json_t *lines = small_metrics(run);
  int64_t step = -1;
  double best = -(double)INFINITY, best_loss = (double)INFINITY;
  for (size_t i = 0; i < json_array_size(lines); i++) {
    const json_t *line = json_array_get(lines, i), *number = json_object_get(line, key);
    const double value = sign * json_number_value(number);
    const double loss = json_number_value(json_object_get(line, "validation_loss"));
    const int64_t at = json_integer_value(json_object_get(line, "step"));
    if (number == NULL || at == 0 || value < best || (value == best && loss >= best_loss)) continue;
    best = value;
    best_loss = loss;
    step = at;
  }
  json_decref(lines);
  return step;
}

/* The best checkpoint is the best by the metric that was asked for, or by the task's own; so is patience. */
static void test_the_best_by_a_metric(void **state) {
  static const struct {
    kp_task task;
    const char *metric, *key;
    double sign;
  } cases[] = {{KP_TASK_CLASSIFY, "auto", "accuracy", 1}, {KP_TASK_CLASSIFY, "loss", "validation_loss", -1},
               {KP_TASK_CLASSIFY, "mcc", "mcc", 1},       {KP_TASK_CLASSIFY, "macro_f1", "macro_f1", 1},
               {KP_TASK_TAG, "auto", "entity_f1", 1},     {KP_TASK_TAG, "accuracy", "accuracy", 1}};
  fixture *files = *state;
  kp_error error = {0};
  for (int i = 0; i < 6; i++) {
    watch w = {0};
    int64_t best;
    char name[32], metric[64];
    snprintf(name, sizeof name, "run-%d", i);
    snprintf(metric, sizeof metric, "train.metric=%s", cases[i].metric);
    const char *run = fixture_path(files, name);
    const bool tag = cases[i].task == KP_TASK_TAG;
    const char *const sets[] = {metric, "train.evaluate_every=4", "train.patience=3", "train.steps=80"};
    if (i == 0 || (tag && cases[i - 1].task != KP_TASK_TAG)) {
      kp_directory_remove_tree(fixture_path(files, "set"), NULL);
      prepare(files, cases[i].task);
    }
    const char *config =
        write_config(files, fixture_path(files, "set"), tag ? ", task: tag" : ", task: classify");
    check_ok(train(load(config, sets, 4), run, &w, &error), &error);
    check_ok(kp_checkpoint_find(run, "best", &best, &error), &error);
    assert_int_equal(best, best_step_by(run, cases[i].key, cases[i].sign));
    /* Three evaluations behind the best one, unless the run came to its end. */
    json_t *lines = small_metrics(run);
    const json_t *last = json_array_get(lines, json_array_size(lines) - 1);
    const int64_t end = json_integer_value(json_object_get(last, "step"));
    if (end != best + 12 && !(end == 80 && best >= 68))
      fail_msg("%s: best %d, end %d", cases[i].metric, (int)best, (int)end);
    json_decref(lines);
  }
}

static void test_metrics_that_the_data_lacks(void **state) {
  fixture *files = *state;
  const char *run = fixture_path(files, "run"), *folder = prepare(files, KP_TASK_CLASSIFY);
  refuse(write_config(files, folder, ", task: classify"), "train.metric=entity_f1", run,
         "the labels mark no entities");
  refuse(small_config(files), "train.metric=accuracy", run, "a text has no labels");
}

/* Labels or a tokenizer that the run does not know. */
static void test_evaluation_of_a_strange_set(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  watch w = {.after = 1};
  kp_trained trained;
  kp_labelled_set set;
  const char *run = fixture_path(files, "run"), *folder = prepare(files, KP_TASK_CLASSIFY);
  const char *const sets[] = {"train.steps=1", "train.warmup=0"};
  check_ok(train(load(write_config(files, folder, ", task: classify"), sets, 2), run, &w, &error), &error);
  check_ok(kp_trained_open(run, "last", kp_backend_ref(), &trained, &error), &error);
  static const char labels[] = "sentence\tlabel\nabc\tfirst\nabd\tthird\n";
  static const char letters[] = "sentence\tlabel\nABC\tfirst\nABD\tsecond\n";
  const char *const texts[] = {labels, letters}, *const words[] = {"has other labels", "another tokenizer"};
  for (int i = 0; i < 2; i++) {
    const char *input[] = {fixture_write(files, "strange.tsv", texts[i], strlen(texts[i]))};
    const kp_labelled_prepare_options options = {.task = KP_TASK_CLASSIFY,
                                                 .files = input,
                                                 .file_count = 1,
                                                 .validation = input[0],
                                                 .folder = fixture_path(files, "strange"),
                                                 .name = "strange"};
    kp_prepared prepared;
    kp_labelling labelling;
    bool fresh;
    check_ok(kp_prepare_labelled(&options, &prepared, &labelling, &fresh, &error), &error);
    kp_labelling_clear(&labelling);
    assert_int_equal(kp_evaluation_examples_open(&trained, options.folder, &set, &error), KP_ERR_INPUT);
    check_words(&error, words[i]);
  }
  assert_int_equal(kp_evaluation_examples_open(&trained, "no-such-set", &set, &error), KP_ERR_INPUT);
  check_words(&error, "is a folder of labelled examples");
  kp_trained_close(&trained);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_a_classifier_learns),
      with_fixture(test_a_classifier_that_reads_the_first_token_learns),
      with_fixture(test_a_geometric_classifier_learns),
      with_fixture(test_a_tagger_learns),
      with_fixture(test_resume_is_bit_for_bit),
      cmocka_unit_test(test_padding_counts_for_nothing),
      with_fixture(test_what_does_not_fit),
      with_fixture(test_the_best_by_a_metric),
      with_fixture(test_metrics_that_the_data_lacks),
      with_fixture(test_evaluation_of_a_strange_set),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
