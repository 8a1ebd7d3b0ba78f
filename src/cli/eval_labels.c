/* kappa eval of classifiers and taggers. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "cli/command.h"
#include "cli/eval.h"
#include "core/json_text.h"

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

static void print_words(const kp_trained *trained, const kp_scores *scores) {
  const kp_score_report r = kp_scores_report(scores);
  const bool words = scores->labelling->task == KP_TASK_TAG;
  printf("%s, step %lld: %lld examples", trained->run, (long long)trained->step, (long long)r.examples);
  if (words) printf(", %lld words", (long long)r.labels);
  putchar('\n');
  print_score("loss", r.loss, r.loss_error);
  putchar('\n');
  print_score("accuracy", r.accuracy, r.accuracy_error);
  printf("   (always '%s': %.4f, a die: %.4f)\n", scores->labelling->labels.names[scores->majority],
         r.majority, r.chance);
  print_score("macro-F1", r.macro_f1, (double)NAN);
  putchar('\n');
  print_score("MCC", r.mcc, (double)NAN);
  putchar('\n');
  if (scores->entities) {
    print_score("entity F1", r.entity_f1, r.entity_error);
    printf("   (precision %.4f, recall %.4f of %lld entities)\n", r.precision, r.recall,
           (long long)scores->entities_gold);
  }
  print_labels(scores);
}

static json_t *label_json(const kp_scores *scores, int32_t label) {
  const kp_label_score s = kp_scores_of_label(scores, label);
  return json_pack("{s:s, s:o, s:o, s:o, s:I, s:I}", "label", scores->labelling->labels.names[label],
                   "precision", kp_json_number(s.precision), "recall", kp_json_number(s.recall), "f1",
                   kp_json_number(s.f1), "gold", (json_int_t)s.gold, "predicted", (json_int_t)s.predicted);
}

static json_t *result_of(const kp_trained *trained, const char *data, const kp_scores *scores) {
  const kp_score_report r = kp_scores_report(scores);
  json_t *labels = json_array();
  for (int32_t k = 0; k < scores->labelling->labels.count; k++)
    json_array_append_new(labels, label_json(scores, k));
  json_t *json =
      json_pack("{s:s, s:I, s:s, s:s, s:s?, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "run",
                trained->run, "step", (json_int_t)trained->step, "backend", trained->backend->name, "task",
                kp_task_name(scores->labelling->task), "data", data, "examples", (json_int_t)r.examples,
                "labels_scored", (json_int_t)r.labels, "loss", kp_json_number(r.loss), "loss_error",
                kp_json_number(r.loss_error), "accuracy", kp_json_number(r.accuracy), "accuracy_error",
                kp_json_number(r.accuracy_error), "macro_f1", kp_json_number(r.macro_f1), "majority",
                kp_json_number(r.majority), "chance", kp_json_number(r.chance));
  json_object_set_new(json, "mcc", kp_json_number(r.mcc));
  if (scores->entities) {
    json_object_set_new(json, "entity_f1", kp_json_number(r.entity_f1));
    json_object_set_new(json, "entity_f1_error", kp_json_number(r.entity_error));
    json_object_set_new(json, "entity_precision", kp_json_number(r.precision));
    json_object_set_new(json, "entity_recall", kp_json_number(r.recall));
    json_object_set_new(json, "entities", json_integer(scores->entities_gold));
  }
  json_object_set_new(json, "labels", labels);
  return json;
}

kp_status kp_eval_labels(const kp_eval_arguments *a, const kp_trained *trained, kp_error *error) {
  kp_labelled_set set;
  kp_scores scores;
  KP_TRY(kp_evaluation_examples_open(trained, a->data, &set, error));
  kp_status status = kp_evaluate_labels(trained, &set, &a->options, &scores, error);
  if (status == KP_OK) {
    if (!a->json) print_words(trained, &scores);
    status = kp_eval_finish(a, trained, result_of(trained, a->data, &scores), error);
    kp_scores_clear(&scores);
  }
  kp_labelled_close(&set);
  return status;
}
