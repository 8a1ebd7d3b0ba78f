#include "train/feed.h"

#include <stdlib.h>

static kp_status init_text(kp_feed *feed, const kp_data_source *data, const kp_sampler_options *options,
                           int64_t evaluate_batches, kp_error *error) {
  KP_TRY(kp_sampler_init(&feed->text, data->train, options, error));
  KP_TRY(kp_validation_init(&feed->validation, data->validation, options->rows, options->context,
                            options->vocabulary, evaluate_batches, error));
  feed->batches = feed->validation.batches;
  return KP_OK;
}

static kp_status init_labelled(kp_feed *feed, const kp_data_source *data, const kp_sampler_options *options,
                               int64_t evaluate_batches, kp_error *error) {
  const kp_labelled_set *set = &data->labelled;
  KP_TRY(kp_example_sampler_init(&feed->examples, &set->train, &set->labelling, options, error));
  KP_TRY(kp_example_sampler_init(&feed->judged, &set->validation, &set->labelling, options, error));
  feed->batches = kp_example_batches(&feed->judged, evaluate_batches);
  return KP_OK;
}

kp_status kp_feed_init(kp_feed *feed, const kp_data_source *data, const kp_train_settings *settings,
                       const kp_model_options *model, kp_error *error) {
  const kp_sampler_options options = {.rule = settings->sampling,
                                      .seed = settings->seed,
                                      .rows = settings->batch,
                                      .context = model->context,
                                      .micro_batches = settings->accumulate,
                                      .vocabulary = (int32_t)model->vocabulary};
  const size_t bytes = (size_t)(settings->batch * model->context) * sizeof(int32_t);
  *feed = (kp_feed){.labelled = data->shape.task != KP_TASK_LANGUAGE};
  KP_TRY(
      (feed->labelled ? init_labelled : init_text)(feed, data, &options, settings->evaluate_batches, error));
  feed->batch = (kp_batch){malloc(bytes), malloc(bytes), feed->labelled ? malloc(bytes) : NULL};
  if (feed->batch.inputs != NULL && feed->batch.targets != NULL &&
      (feed->batch.documents != NULL || !feed->labelled))
    return KP_OK;
  return kp_fail(error, KP_ERR_MEMORY, "no memory for a batch");
}

void kp_feed_clear(kp_feed *feed) {
  free(feed->batch.inputs);
  free(feed->batch.targets);
  free(feed->batch.documents);
  *feed = (kp_feed){0};
}

kp_status kp_feed_training(kp_feed *feed, int64_t step, int64_t micro_batch, kp_error *error) {
  if (feed->labelled) return kp_example_batch_fill(&feed->examples, step, micro_batch, &feed->batch, error);
  return kp_batch_fill(&feed->text, step, micro_batch, feed->batch.inputs, feed->batch.targets, error);
}

/* The labels of a batch of examples. */
static int64_t count_targets(const kp_feed *feed) {
  const kp_sampler_options *options = &feed->judged.options;
  const bool words = feed->judged.labelling->task == KP_TASK_TAG;
  const int64_t places = options->rows * (words ? options->context : 1);
  int64_t count = 0;
  for (int64_t i = 0; i < places; i++) count += feed->batch.targets[i] != KP_IGNORE;
  return count;
}

kp_status kp_feed_evaluation(kp_feed *feed, int64_t number, int64_t *scored, kp_error *error) {
  if (!feed->labelled)
    return kp_validation_fill(&feed->validation, number, feed->batch.inputs, feed->batch.targets, scored,
                              error);
  KP_TRY(kp_example_validation_fill(&feed->judged, feed->batches, number, &feed->batch, error));
  *scored = count_targets(feed);
  return KP_OK;
}
