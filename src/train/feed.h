/* What a run feeds to its model: batches of a text, of conversations or of labelled examples, by step and by
 * number. */
#ifndef KAPPA_TRAIN_FEED_H
#define KAPPA_TRAIN_FEED_H

#include "data/labelled_batches.h"
#include "data/packed_stream.h"
#include "train/data_source.h"
#include "train/settings.h"

typedef struct kp_feed {
  bool labelled, packed, dialogue; /* conversations are packed too, if only one a row */
  kp_sampler_options options;
  int32_t separator;
  kp_sampler text;                     /* unless labelled or packed */
  kp_packed_stream stream;             /* when packed; owned */
  kp_validation validation;            /* unless labelled or dialogue */
  kp_packed_stream conversations;      /* of a validation, when dialogue; owned */
  kp_example_sampler examples, judged; /* of training and validation, when labelled */
  int64_t batches;                     /* of an evaluation */
  kp_batch batch;                      /* what was filled last; owned */
} kp_feed;

/* `data` must outlive the feed.  Clear with kp_feed_clear, also after a failure. */
kp_status kp_feed_init(kp_feed *feed, const kp_data_source *data, const kp_train_settings *settings,
                       const kp_model_options *model, kp_error *error);

/* A feed of evaluations alone, on tokens of a text or of conversations.  `model` says by `packed` whether
 * documents are numbered, as they are for conversations.  `batches`: the most; 0 is no bound. */
kp_status kp_feed_init_evaluation(kp_feed *feed, const kp_tokens *tokens, const kp_train_settings *settings,
                                  const kp_model_options *model, int64_t batches, kp_error *error);
void kp_feed_clear(kp_feed *feed);

/* Fills feed->batch with a micro-batch of step `step`. */
kp_status kp_feed_training(kp_feed *feed, int64_t step, int64_t micro_batch, kp_error *error);

/* The weight of a micro-batch in its step: of conversations its share of the step's targets, so that each
 * target weighs the same; else the same for each. */
double kp_feed_weight(const kp_feed *feed, int64_t step, int64_t micro_batch);

/* Fills feed->batch with batch `number` of an evaluation; *scored is the number of its targets. */
kp_status kp_feed_evaluation(kp_feed *feed, int64_t number, int64_t *scored, kp_error *error);

#endif
