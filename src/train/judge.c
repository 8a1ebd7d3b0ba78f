#include "train/judge.h"

#include <math.h>
#include <stdlib.h>

#include "train/scores.h"

/* ---- the metric ---- */

static kp_metric usual(const kp_data_source *data) {
  if (data->shape.task == KP_TASK_LANGUAGE) return KP_METRIC_LOSS;
  const bool entities =
      data->shape.task == KP_TASK_TAG && kp_labels_mark_entities(&data->labelled.labelling.labels);
  return entities ? KP_METRIC_ENTITY_F1 : KP_METRIC_ACCURACY;
}

static kp_status read_metric(kp_judge *judge, const kp_config *config, kp_error *error) {
  const kp_metric usually = usual(judge->data);
  judge->metric = (kp_metric)kp_config_choice(config, "train.metric");
  if (judge->metric == KP_METRIC_AUTO) judge->metric = usually;
  if (judge->metric > KP_METRIC_LOSS && usually == KP_METRIC_LOSS)
    return kp_config_fail(config, "train.metric", error, "a text has no labels: its metric is the loss");
  if (judge->metric == KP_METRIC_ENTITY_F1 && usually != KP_METRIC_ENTITY_F1)
    return kp_config_fail(config, "train.metric", error,
                          "the labels mark no entities (tags O, and B- or I- with a type): use accuracy");
  return KP_OK;
}

double kp_judge_loss(const kp_judge *judge, const kp_progress *evaluated) {
  switch (judge->metric) {
  case KP_METRIC_ACCURACY: return 1 - evaluated->accuracy;
  case KP_METRIC_MACRO_F1: return 1 - evaluated->macro_f1;
  case KP_METRIC_ENTITY_F1: return 1 - evaluated->entity_f1;
  case KP_METRIC_MCC: return 1 - evaluated->mcc;
  default: return evaluated->validation_loss;
  }
}

kp_status kp_judge_init(kp_judge *judge, const kp_config *config, const kp_data_source *data,
                        const kp_model_options *model, int64_t batch, kp_error *error) {
  *judge = (kp_judge){.data = data, .batch = batch, .length = 1};
  KP_TRY(read_metric(judge, config, error));
  if (model->task == KP_TASK_LANGUAGE) return KP_OK;
  if (model->task == KP_TASK_TAG) judge->length = model->context;
  judge->logits = malloc((size_t)(batch * judge->length * model->classes) * sizeof *judge->logits);
  return judge->logits == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for the logits of a batch") : KP_OK;
}

void kp_judge_clear(kp_judge *judge) {
  free(judge->logits);
  *judge = (kp_judge){0};
}

/* ---- evaluations ---- */

static kp_status evaluate_text(kp_engine *engine, kp_feed *feed, kp_progress *p, kp_error *error) {
  double total = 0, scored = 0;
  for (int64_t b = 0; b < feed->batches; b++) {
    int64_t count;
    double loss;
    KP_TRY(kp_feed_evaluation(feed, b, &count, error));
    KP_TRY(kp_engine_evaluate(engine, &feed->batch, &loss, error));
    total += loss * (double)count;
    scored += (double)count;
  }
  p->validation_loss = total / scored;
  p->accuracy = p->macro_f1 = p->mcc = p->entity_f1 = (double)NAN;
  return KP_OK;
}

static kp_status score_batches(kp_judge *judge, kp_engine *engine, kp_feed *feed, kp_scores *scores,
                               kp_error *error) {
  const kp_tensor *logits = kp_engine_evaluation_network(engine)->logits;
  for (int64_t b = 0; b < feed->batches; b++) {
    int64_t count;
    double loss;
    KP_TRY(kp_feed_evaluation(feed, b, &count, error));
    KP_TRY(kp_engine_evaluate(engine, &feed->batch, &loss, error));
    kp_executor_read(kp_engine_evaluator(engine), logits, judge->logits);
    kp_scores_add(scores, judge->logits, feed->batch.targets, judge->batch, judge->length);
  }
  return KP_OK;
}

static kp_status evaluate_labels(kp_judge *judge, kp_engine *engine, kp_feed *feed, kp_progress *p,
                                 kp_error *error) {
  kp_scores scores;
  KP_TRY(kp_scores_init(&scores, &judge->data->labelled.labelling, NULL, judge->length, error));
  const kp_status status = score_batches(judge, engine, feed, &scores, error);
  const kp_score_report report = kp_scores_report(&scores);
  kp_scores_clear(&scores);
  p->validation_loss = report.loss;
  p->accuracy = report.accuracy;
  p->macro_f1 = report.macro_f1;
  p->mcc = report.mcc;
  p->entity_f1 = report.entity_f1;
  return status;
}

kp_status kp_judge_evaluate(kp_judge *judge, kp_engine *engine, kp_feed *feed, kp_progress *progress,
                            kp_error *error) {
  return judge->logits == NULL ? evaluate_text(engine, feed, progress, error)
                               : evaluate_labels(judge, engine, feed, progress, error);
}
