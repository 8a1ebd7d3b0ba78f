/* kappa eval of classifiers and taggers. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"
#include "cli/eval.h"
#include "cli/table.h"
#include "core/json_text.h"
#include "infer/multiple_choice.h"

/* p above which an accuracy is said not to differ from always saying the most frequent label. */
#define LEVEL 0.05

/* Labels whose confusions JSON holds. */
enum { LARGEST_TABLE = 128 };

/* "accuracy 0.8123 ± 0.0041" */
static void print_score(const char *name, double value, double deviation) {
  printf("%-12s %.4f", name, value);
  if (!isnan(deviation)) printf(" ± %.4f", deviation);
}

static void print_labels(const kp_scores *scores) {
  enum { SHOWN = 40 };
  const kp_label_set *labels = &scores->labelling->labels;
  printf("\n%-20s %9s %9s %9s %9s\n", "label", "precision", "recall", "F1", "examples");
  for (int32_t k = 0; k < labels->count && k < SHOWN; k++) {
    const kp_label_score s = kp_scores_of_label(scores, k);
    printf("%-20s %9.4f %9.4f %9.4f %9lld\n", labels->names[k], s.precision, s.recall, s.f1,
           (long long)s.gold);
  }
  if (labels->count > SHOWN) printf("and %d more\n", labels->count - SHOWN);
}

/* Gold labels down, predictions across, by the first letters of their names. */
static void print_confusion(const kp_scores *scores) {
  const kp_label_set *labels = &scores->labelling->labels;
  const int32_t K = labels->count;
  const char *titles[KP_TABLE_COLUMNS + 1] = {"<gold \\ predicted"};
  kp_table table;
  if (K + 1 > KP_TABLE_COLUMNS) return;
  for (int32_t k = 0; k < K; k++) titles[k + 1] = labels->names[k];
  putchar('\n');
  kp_table_begin(&table, titles);
  for (int32_t g = 0; g < K; g++) {
    kp_table_cell(&table, "%.190s", labels->names[g]);
    for (int32_t p = 0; p < K; p++)
      kp_table_cell(&table, "%lld", (long long)scores->confusion[(int64_t)g * K + p]);
  }
  kp_table_print(&table, stdout);
}

/* As conlleval prints them. */
static void print_types(const kp_scores *scores) {
  static const char *const titles[] = {"<entities", "precision", "recall", "F1",
                                       "gold",      "found",     "right",  NULL};
  kp_table table;
  if (scores->type_count == 0) return;
  putchar('\n');
  kp_table_begin(&table, titles);
  for (int i = 0; i < scores->type_count; i++) {
    const kp_type_score s = kp_scores_of_type(scores, i);
    kp_table_cell(&table, "%.190s", s.type);
    kp_table_cell(&table, "%.4f", s.precision);
    kp_table_cell(&table, "%.4f", s.recall);
    kp_table_cell(&table, "%.4f", s.f1);
    kp_table_cell(&table, "%lld", (long long)s.gold);
    kp_table_cell(&table, "%lld", (long long)s.found);
    kp_table_cell(&table, "%lld", (long long)s.right);
  }
  kp_table_print(&table, stdout);
}

/* What cannot be said of tags, whose words are no independent examples, is NaN. */
static kp_status agreement_of(const kp_scores *scores, kp_agreement *agreement, kp_error *error) {
  KP_TRY(kp_agreement_of(scores->confusion, scores->labelling->labels.count, agreement, error));
  if (scores->labelling->task == KP_TASK_TAG) agreement->macro_f1_error = agreement->mcc_error = (double)NAN;
  return KP_OK;
}

/* p of as many right sentences by always saying the most frequent label; NaN for words and where that label
 * is not known. */
static kp_status majority_test(const kp_score_report *r, const kp_scores *scores, double *p,
                               kp_error *error) {
  const size_t count = (size_t)r->examples;
  *p = (double)NAN;
  if (scores->labelling->task == KP_TASK_TAG || !isfinite(r->majority) || count == 0) return KP_OK;
  double *chances = malloc(count * sizeof *chances);
  if (chances == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu examples", count);
  for (size_t i = 0; i < count; i++) chances[i] = r->majority;
  kp_status status = kp_chance_test(chances, count, (size_t)(r->accuracy * (double)count + 0.5), p, error);
  free(chances);
  return status;
}

typedef struct label_report {
  kp_score_report r;
  kp_agreement agreement;
  double p; /* of the accuracy against the majority's */
} label_report;

static kp_status report_of(const kp_scores *scores, label_report *report, kp_error *error) {
  report->r = kp_scores_report(scores);
  KP_TRY(agreement_of(scores, &report->agreement, error));
  return majority_test(&report->r, scores, &report->p, error);
}

static void print_words(const kp_trained *trained, const kp_scores *scores, const label_report *of) {
  const kp_score_report *r = &of->r;
  const bool words = scores->labelling->task == KP_TASK_TAG;
  printf("%s, step %lld: %lld examples", trained->run, (long long)trained->step, (long long)r->examples);
  if (words) printf(", %lld words", (long long)r->labels);
  putchar('\n');
  print_score("loss", r->loss, r->loss_error);
  putchar('\n');
  print_score("accuracy", r->accuracy, r->accuracy_error);
  printf("   (always '%s': %.4f, a die: %.4f)\n", scores->labelling->labels.names[scores->majority],
         r->majority, r->chance);
  if (of->p > LEVEL)
    printf("             cannot be told from always '%s' (p = %.2g by a binomial test, level %g)\n",
           scores->labelling->labels.names[scores->majority], of->p, LEVEL);
  print_score("macro-F1", of->agreement.macro_f1, of->agreement.macro_f1_error);
  putchar('\n');
  print_score("MCC", of->agreement.mcc, of->agreement.mcc_error);
  putchar('\n');
  if (scores->entities) {
    print_score("entity F1", r->entity_f1, r->entity_error);
    printf("   (precision %.4f, recall %.4f of %lld entities)\n", r->precision, r->recall,
           (long long)scores->entities_gold);
  }
  print_types(scores);
  print_labels(scores);
  print_confusion(scores);
}

static json_t *label_json(const kp_scores *scores, int32_t label) {
  const kp_label_score s = kp_scores_of_label(scores, label);
  return json_pack("{s:s, s:o, s:o, s:o, s:I, s:I}", "label", scores->labelling->labels.names[label],
                   "precision", kp_json_number(s.precision), "recall", kp_json_number(s.recall), "f1",
                   kp_json_number(s.f1), "gold", (json_int_t)s.gold, "predicted", (json_int_t)s.predicted);
}

static json_t *type_json(const kp_scores *scores, int number) {
  const kp_type_score s = kp_scores_of_type(scores, number);
  return json_pack("{s:s, s:o, s:o, s:o, s:I, s:I, s:I}", "type", s.type, "precision",
                   kp_json_number(s.precision), "recall", kp_json_number(s.recall), "f1",
                   kp_json_number(s.f1), "gold", (json_int_t)s.gold, "found", (json_int_t)s.found, "right",
                   (json_int_t)s.right);
}

/* Rows of gold labels, in the order of "labels". */
static json_t *confusion_json(const kp_scores *scores) {
  const int32_t K = scores->labelling->labels.count;
  json_t *rows = json_array();
  for (int32_t g = 0; g < K; g++) {
    json_t *row = json_array();
    for (int32_t p = 0; p < K; p++)
      json_array_append_new(row, json_integer(scores->confusion[(int64_t)g * K + p]));
    json_array_append_new(rows, row);
  }
  return rows;
}

static void add_entities(const kp_scores *scores, const kp_score_report *r, json_t *json) {
  json_t *types = json_array();
  for (int i = 0; i < scores->type_count; i++) json_array_append_new(types, type_json(scores, i));
  json_object_set_new(json, "entity_f1", kp_json_number(r->entity_f1));
  json_object_set_new(json, "entity_f1_error", kp_json_number(r->entity_error));
  json_object_set_new(json, "entity_precision", kp_json_number(r->precision));
  json_object_set_new(json, "entity_recall", kp_json_number(r->recall));
  json_object_set_new(json, "entities", json_integer(scores->entities_gold));
  json_object_set_new(json, "types", types);
}

static json_t *result_of(const kp_trained *trained, const char *data, const kp_scores *scores,
                         const label_report *of) {
  const kp_score_report *r = &of->r;
  const kp_agreement *g = &of->agreement;
  json_t *labels = json_array();
  for (int32_t k = 0; k < scores->labelling->labels.count; k++)
    json_array_append_new(labels, label_json(scores, k));
  json_t *json = json_pack(
      "{s:s, s:I, s:s, s:s, s:s?, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "run",
      trained->run, "step", (json_int_t)trained->step, "backend", trained->backend->name, "task",
      kp_task_name(scores->labelling->task), "data", data, "examples", (json_int_t)r->examples,
      "labels_scored", (json_int_t)r->labels, "loss", kp_json_number(r->loss), "loss_error",
      kp_json_number(r->loss_error), "accuracy", kp_json_number(r->accuracy), "accuracy_error",
      kp_json_number(r->accuracy_error), "macro_f1", kp_json_number(g->macro_f1), "macro_f1_error",
      kp_json_number(g->macro_f1_error), "mcc", kp_json_number(g->mcc), "mcc_error",
      kp_json_number(g->mcc_error), "majority", kp_json_number(r->majority), "p_majority",
      kp_json_number(of->p), "chance", kp_json_number(r->chance));
  if (scores->entities) add_entities(scores, r, json);
  json_object_set_new(json, "labels", labels);
  if (scores->labelling->labels.count <= LARGEST_TABLE)
    json_object_set_new(json, "confusion", confusion_json(scores));
  return json;
}

kp_status kp_eval_labels(const kp_eval_arguments *a, const kp_trained *trained, kp_error *error) {
  kp_labelled_set set;
  kp_scores scores;
  label_report report;
  KP_TRY(kp_evaluation_examples_open(trained, a->data, &set, error));
  kp_status status = kp_evaluate_labels(trained, &set, &a->options, &scores, error);
  if (status == KP_OK) {
    status = report_of(&scores, &report, error);
    if (status == KP_OK && !a->json) print_words(trained, &scores, &report);
    if (status == KP_OK)
      status = kp_eval_finish(a, trained, result_of(trained, a->data, &scores, &report), error);
    kp_scores_clear(&scores);
  }
  kp_labelled_close(&set);
  return status;
}
