/* What a run feeds to its model: batches of a text or of labelled examples, by step and by number. */
#ifndef KAPPA_TRAIN_FEED_H
#define KAPPA_TRAIN_FEED_H

#include "data/labelled_batches.h"
#include "train/data_source.h"
#include "train/settings.h"

typedef struct kp_feed {
  bool labelled;
  kp_sampler text; /* unless labelled */
  kp_validation validation;
  kp_example_sampler examples, judged; /* of training and validation, when labelled */
  int64_t batches;                     /* of an evaluation */
  kp_batch batch;                      /* what was filled last; owned */
} kp_feed;

/* `data` must outlive the feed.  Clear with kp_feed_clear, also after a failure. */
kp_status kp_feed_init(kp_feed *feed, const kp_data_source *data, const kp_train_settings *settings,
                       const kp_model_options *model, kp_error *error);
void kp_feed_clear(kp_feed *feed);

/* Fills feed->batch with a micro-batch of step `step`. */
kp_status kp_feed_training(kp_feed *feed, int64_t step, int64_t micro_batch, kp_error *error);

/* Fills feed->batch with batch `number` of an evaluation; *scored is the number of its targets. */
kp_status kp_feed_evaluation(kp_feed *feed, int64_t number, int64_t *scored, kp_error *error);

#endif
