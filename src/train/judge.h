/* The evaluations of a run while it trains, and what they are judged by (train.metric): the best checkpoint
 * and the patience hang on it. */
#ifndef KAPPA_TRAIN_JUDGE_H
#define KAPPA_TRAIN_JUDGE_H

#include "train/feed.h"
#include "train/trainer.h"

typedef enum kp_metric {
  KP_METRIC_AUTO, /* the loss of language, the accuracy of classes, entity F1 or else accuracy of tags */
  KP_METRIC_LOSS,
  KP_METRIC_ACCURACY,
  KP_METRIC_MACRO_F1,
  KP_METRIC_ENTITY_F1,
  KP_METRIC_MCC,
} kp_metric;

typedef struct kp_judge {
  const kp_data_source *data;
  kp_metric metric;
  int64_t batch, length; /* rows of a batch; labels of a row */
  double *logits;        /* of a batch of labelled examples, (B, length, K); else NULL; owned */
} kp_judge;

/* A score that the data does not have is refused.  `data` must outlive the judge; clear it with
 * kp_judge_clear, also after a failure. */
kp_status kp_judge_init(kp_judge *judge, const kp_config *config, const kp_data_source *data,
                        const kp_model_options *model, int64_t batch, kp_error *error);
void kp_judge_clear(kp_judge *judge);

/* Fills in the validation loss and the scores. */
kp_status kp_judge_evaluate(kp_judge *judge, kp_engine *engine, kp_feed *feed, kp_progress *progress,
                            kp_error *error);

/* The smaller the better: the loss, or what the score lacks to 1. */
double kp_judge_loss(const kp_judge *judge, const kp_progress *evaluated);

#endif
