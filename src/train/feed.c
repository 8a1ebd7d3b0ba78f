#include "train/feed.h"

#include <stdlib.h>

/* ---- making ---- */

static kp_status init_packed(kp_feed *feed, const kp_tokens *tokens, const kp_train_settings *settings,
                             kp_error *error) {
  static const kp_packing_rule rules[] = {[KP_PACKING_NONE] = KP_PACKING_SINGLE,
                                          [KP_PACKING_BEST_FIT] = KP_PACKING_EXACT,
                                          [KP_PACKING_PUBLISHED] = KP_PACKING_HELM};
  const kp_packing_rule rule = rules[settings->packing];
  if (feed->dialogue)
    return kp_packed_stream_init_conversations(&feed->stream, tokens, &feed->options, rule, error);
  return kp_packed_stream_init(&feed->stream, tokens, &feed->options, rule, settings->separator, error);
}

/* Conversations are judged in rows of the best fit, however they are trained on. */
static kp_status init_validation(kp_feed *feed, const kp_tokens *tokens, int64_t batches, kp_error *error) {
  const kp_sampler_options *o = &feed->options;
  if (feed->dialogue) {
    KP_TRY(kp_packed_stream_init_conversations(&feed->conversations, tokens, o, KP_PACKING_EXACT, error));
    feed->batches = kp_packed_stream_batches(&feed->conversations, batches);
    return KP_OK;
  }
  KP_TRY(kp_validation_init(&feed->validation, tokens, o->rows, o->context, o->vocabulary, batches, error));
  feed->batches = feed->validation.batches;
  return KP_OK;
}

static kp_status init_text(kp_feed *feed, const kp_data_source *data, const kp_train_settings *settings,
                           kp_error *error) {
  KP_TRY(feed->packed ? init_packed(feed, data->train, settings, error)
                      : kp_sampler_init(&feed->text, data->train, &feed->options, error));
  return init_validation(feed, data->validation, settings->evaluate_batches, error);
}

static kp_status init_labelled(kp_feed *feed, const kp_data_source *data, const kp_train_settings *settings,
                               kp_error *error) {
  const kp_labelled_set *set = &data->labelled;
  KP_TRY(kp_example_sampler_init(&feed->examples, &set->train, &set->labelling, &feed->options, error));
  KP_TRY(kp_example_sampler_init(&feed->judged, &set->validation, &set->labelling, &feed->options, error));
  feed->batches = kp_example_batches(&feed->judged, settings->evaluate_batches);
  return KP_OK;
}

static kp_sampler_options options_of(const kp_train_settings *settings, const kp_model_options *model) {
  return (kp_sampler_options){.rule = settings->sampling,
                              .seed = settings->seed,
                              .rows = settings->batch,
                              .context = model->context,
                              .micro_batches = settings->accumulate,
                              .vocabulary = (int32_t)model->vocabulary};
}

static kp_status make_batch(kp_feed *feed, const kp_train_settings *settings, const kp_model_options *model,
                            kp_error *error) {
  const size_t bytes = (size_t)(feed->options.rows * feed->options.context) * sizeof(int32_t);
  const bool documents = kp_model_reads_documents(model),
             positions = feed->packed && settings->positions == KP_POSITIONS_OF_DOCUMENT;
  kp_batch *batch = &feed->batch;
  *batch = (kp_batch){.inputs = malloc(bytes),
                      .targets = malloc(bytes),
                      .documents = documents ? malloc(bytes) : NULL,
                      .positions = positions ? malloc(bytes) : NULL};
  if (batch->inputs != NULL && batch->targets != NULL && (batch->documents != NULL || !documents) &&
      (batch->positions != NULL || !positions))
    return KP_OK;
  return kp_fail(error, KP_ERR_MEMORY, "no memory for a batch");
}

kp_status kp_feed_init(kp_feed *feed, const kp_data_source *data, const kp_train_settings *settings,
                       const kp_model_options *model, kp_error *error) {
  const bool labelled = data->shape.task != KP_TASK_LANGUAGE;
  *feed = (kp_feed){.labelled = labelled,
                    .packed = !labelled && (data->dialogue || settings->packing != KP_PACKING_NONE),
                    .dialogue = data->dialogue,
                    .options = options_of(settings, model),
                    .separator = settings->separator};
  KP_TRY((labelled ? init_labelled : init_text)(feed, data, settings, error));
  return make_batch(feed, settings, model, error);
}

kp_status kp_feed_init_evaluation(kp_feed *feed, const kp_tokens *tokens, const kp_train_settings *settings,
                                  const kp_model_options *model, int64_t batches, kp_error *error) {
  *feed = (kp_feed){.packed = model->packed,
                    .dialogue = kp_tokens_index(tokens) != NULL,
                    .options = options_of(settings, model),
                    .separator = settings->separator};
  KP_TRY(init_validation(feed, tokens, batches, error));
  return make_batch(feed, settings, model, error);
}

void kp_feed_clear(kp_feed *feed) {
  kp_packed_stream_clear(&feed->stream);
  kp_packed_stream_clear(&feed->conversations);
  free(feed->batch.inputs);
  free(feed->batch.targets);
  free(feed->batch.documents);
  free(feed->batch.positions);
  *feed = (kp_feed){0};
}

/* ---- batches ---- */

/* Positions follow the documents. */
static void set_positions(kp_feed *feed) {
  if (feed->batch.positions != NULL)
    kp_document_positions(feed->batch.documents, feed->options.rows, feed->options.context,
                          feed->batch.positions);
}

kp_status kp_feed_training(kp_feed *feed, int64_t step, int64_t micro_batch, kp_error *error) {
  if (feed->labelled) return kp_example_batch_fill(&feed->examples, step, micro_batch, &feed->batch, error);
  if (!feed->packed)
    return kp_batch_fill(&feed->text, step, micro_batch, feed->batch.inputs, feed->batch.targets, error);
  KP_TRY(kp_packed_stream_fill(&feed->stream, step, micro_batch, &feed->batch, error));
  set_positions(feed);
  return KP_OK;
}

double kp_feed_weight(const kp_feed *feed, int64_t step, int64_t micro_batch) {
  const int64_t micro = feed->options.micro_batches;
  int64_t all = 0;
  for (int64_t m = 0; feed->dialogue && m < micro; m++)
    all += kp_packed_stream_targets(&feed->stream, step, m);
  if (all == 0) return 1 / (double)micro;
  return (double)kp_packed_stream_targets(&feed->stream, step, micro_batch) / (double)all;
}

/* Windows of a text. */
static kp_status evaluate_text(kp_feed *feed, int64_t number, int64_t *scored, kp_error *error) {
  const kp_validation *v = &feed->validation;
  KP_TRY(kp_validation_fill(v, number, feed->batch.inputs, feed->batch.targets, scored, error));
  if (!feed->packed) return KP_OK;
  kp_number_documents(feed->batch.inputs, v->rows, v->context, feed->separator, feed->batch.documents);
  set_positions(feed);
  return KP_OK;
}

static kp_status evaluate_conversations(kp_feed *feed, int64_t number, int64_t *scored, kp_error *error) {
  KP_TRY(kp_packed_stream_validation_fill(&feed->conversations, feed->batches, number, &feed->batch, scored,
                                          error));
  set_positions(feed);
  return KP_OK;
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

static kp_status evaluate_examples(kp_feed *feed, int64_t number, int64_t *scored, kp_error *error) {
  KP_TRY(kp_example_validation_fill(&feed->judged, feed->batches, number, &feed->batch, error));
  *scored = count_targets(feed);
  return KP_OK;
}

kp_status kp_feed_evaluation(kp_feed *feed, int64_t number, int64_t *scored, kp_error *error) {
  if (feed->labelled) return evaluate_examples(feed, number, scored, error);
  return (feed->dialogue ? evaluate_conversations : evaluate_text)(feed, number, scored, error);
}
