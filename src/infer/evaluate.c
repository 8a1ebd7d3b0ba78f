#include "infer/evaluate.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "core/executor.h"
#include "data/conversation_index.h"
#include "data/packed_stream.h"
#include "infer/windows.h"
#include "train/feed.h"
#include "train/trainer.h"

/* The model at work, and what one batch after the other adds.  Batches are windows of a text, or rows of
 * whole conversations. */
typedef struct evaluator {
  const kp_trained *trained;
  const kp_tokens *text;
  bool conversations;
  kp_feed feed; /* of conversations */
  kp_window_options how;
  kp_windows windows;
  int32_t separator; /* of documents that share a row; -1: none do */
  int32_t *tokens;   /* of a batch of windows: inputs, targets and the numbers of documents, (B, T) each */
  int64_t rows, batches;
  kp_network *network;
  kp_executor *executor;
  double *losses;  /* of each batch: mean over its scored tokens */
  int64_t *scored; /* tokens of each batch */
} evaluator;

const char *kp_context_refusal(const kp_model_options *options, int64_t context) {
  if (context <= options->context || options->positions != KP_POSITIONS_LEARNED) return NULL;
  return "its positions are learned, one vector a place, and none was learned beyond its context; rotary "
         "positions (model.positions=rotary) go on";
}

/* The token that stands between documents: the one of training, or the tokenizer's. */
static kp_status find_separator(const kp_trained *trained, int32_t *separator, kp_error *error) {
  *separator = (int32_t)kp_config_integer(trained->config, "data.separator");
  if (*separator < 0 && trained->tokenizer != NULL) *separator = trained->tokenizer->end;
  if (*separator >= 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "nothing says which token stands between documents: run %s was trained without "
                 "data.separator, and its tokenizer has no token for the end of a text",
                 trained->run);
}

static kp_status plan_windows(evaluator *e, const kp_evaluation_options *options, kp_error *error) {
  const kp_model_options *model = &e->trained->options;
  const int64_t context = options->window > 0 ? options->window : model->context;
  const int64_t trained_tokens = kp_config_integer(e->trained->config, "train.batch") * model->context;
  const char *refusal = kp_context_refusal(model, context);
  kp_validation checked; /* that the text is this vocabulary's */
  if (refusal != NULL)
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "run %s has a context of %lld tokens and cannot read windows of %lld: %s", e->trained->run,
                   (long long)model->context, (long long)context, refusal);
  e->how = (kp_window_options){.context = context,
                               .stride = options->stride > 0 ? options->stride : context,
                               .separator = -1,
                               .tokens = options->tokens};
  if (e->how.stride > context)
    return kp_fail(error, KP_ERR_INPUT,
                   "a stride of %lld tokens would leave out tokens between windows of %lld",
                   (long long)e->how.stride, (long long)context);
  if (options->documents) KP_TRY(find_separator(e->trained, &e->how.separator, error));
  KP_TRY(kp_validation_init(&checked, e->text, 1, context, (int32_t)model->vocabulary, 0, error));
  KP_TRY(kp_windows_create(e->text, &e->how, &e->windows, error));
  e->rows = trained_tokens > context ? trained_tokens / context : 1;
  if (options->batches > 0) kp_windows_cut(&e->windows, options->batches * e->rows);
  e->batches = (e->windows.count + e->rows - 1) / e->rows;
  return KP_OK;
}

/* Of conversations only what is learned is scored, in rows as training has them. */
static kp_status plan_conversations(evaluator *e, const kp_evaluation_options *options,
                                    kp_model_options *model, kp_error *error) {
  kp_train_settings settings;
  if (options->window > 0 || options->stride > 0 || options->documents)
    return kp_fail(error, KP_ERR_INPUT,
                   "conversations are scored whole, each answer from all that was said before: windows, "
                   "strides and documents are for texts");
  KP_TRY(kp_train_settings_read(e->trained->config, &settings, error));
  model->packed = true;
  KP_TRY(kp_feed_init_evaluation(&e->feed, e->text, &settings, model, options->batches, error));
  e->how.context = e->how.stride = model->context;
  e->rows = e->feed.options.rows;
  e->batches = e->feed.batches;
  return KP_OK;
}

static kp_status plan_text(evaluator *e, const kp_evaluation_options *options, kp_model_options *model,
                           kp_error *error) {
  e->separator = -1;
  if (kp_config_choice(e->trained->config, "train.packing") != KP_PACKING_NONE)
    KP_TRY(find_separator(e->trained, &e->separator, error));
  model->packed = e->separator >= 0;
  KP_TRY(plan_windows(e, options, error));
  e->tokens = malloc(4 * (size_t)(e->rows * e->how.context) * sizeof *e->tokens);
  return e->tokens != NULL ? KP_OK : kp_fail(error, KP_ERR_MEMORY, "no memory for a batch of windows");
}

static kp_status set_up(evaluator *e, const kp_evaluation_options *options, kp_error *error) {
  const kp_trained *trained = e->trained;
  const kp_executor_options executor = {.threads = options->threads};
  kp_model_options model = trained->options; /* its memory stays the run's */
  e->conversations = kp_tokens_index(e->text) != NULL;
  KP_TRY(e->conversations ? plan_conversations(e, options, &model, error)
                          : plan_text(e, options, &model, error));
  const kp_build build = {.mode = KP_BUILD_EVALUATE,
                          .batch = e->rows,
                          .length = e->how.context,
                          .documents = kp_model_reads_documents(&model)};
  KP_TRY(kp_network_create(&model, trained->parameters, build, &e->network, error));
  KP_TRY(kp_executor_create(e->network->graph, trained->backend, trained->parameters, executor, &e->executor,
                            error));
  kp_network_write_positions(e->network, e->executor);
  e->losses = malloc((size_t)e->batches * sizeof *e->losses);
  e->scored = malloc((size_t)e->batches * sizeof *e->scored);
  return e->losses == NULL || e->scored == NULL
             ? kp_fail(error, KP_ERR_MEMORY, "no memory for the losses of %lld batches",
                       (long long)e->batches)
             : KP_OK;
}

static void tear_down(evaluator *e) {
  kp_windows_clear(&e->windows);
  kp_executor_destroy(e->executor);
  kp_network_destroy(e->network);
  kp_feed_clear(&e->feed);
  free(e->losses);
  free(e->scored);
  free(e->tokens);
}

/* A window's inputs and targets, padded; a row without a window is padding alone. */
static kp_status fill_row(const evaluator *e, const kp_window *window, int32_t *inputs, int32_t *targets,
                          kp_error *error) {
  const int64_t T = e->how.context, count = window == NULL ? 0 : window->inputs;
  const int32_t vocabulary = (int32_t)e->trained->options.vocabulary;
  if (count > 0) {
    kp_tokens_copy(e->text, window->first, count, inputs);
    kp_tokens_copy(e->text, window->first + 1, count, targets);
    for (int64_t t = 0; t <= count; t++) {
      const int32_t token = t < count ? inputs[t] : targets[count - 1];
      if (token < 0 || token >= vocabulary)
        return kp_tokens_fail_range(e->text, window->first + t, vocabulary, error);
    }
    for (int64_t t = 0; t < count - window->scored; t++) targets[t] = KP_IGNORE;
  }
  for (int64_t t = count; t < T; t++) {
    inputs[t] = 0;
    targets[t] = KP_IGNORE;
  }
  return KP_OK;
}

/* Positions begin as they did in training. */
static void set_positions(const evaluator *e, kp_batch *batch) {
  const int64_t T = e->how.context;
  if (kp_config_choice(e->trained->config, "data.positions") == KP_POSITIONS_OF_DOCUMENT)
    kp_document_positions(batch->documents, e->rows, T, batch->positions);
  else
    for (int64_t i = 0; i < e->rows * T; i++) batch->positions[i] = (int32_t)(i % T);
}

/* Fills batch number `batch` of windows; the memory is the evaluator's. */
static kp_status fill_windows(evaluator *e, int64_t batch, kp_batch *filled, kp_error *error) {
  const int64_t count = e->rows * e->how.context;
  *filled = (kp_batch){.inputs = e->tokens, .targets = e->tokens + count};
  e->scored[batch] = 0;
  for (int64_t row = 0; row < e->rows; row++) {
    const int64_t number = batch * e->rows + row, place = row * e->how.context;
    const kp_window *window = number < e->windows.count ? &e->windows.list[number] : NULL;
    KP_TRY(fill_row(e, window, filled->inputs + place, filled->targets + place, error));
    e->scored[batch] += window == NULL ? 0 : window->scored;
  }
  if (e->separator >= 0) {
    filled->documents = e->tokens + 2 * count;
    kp_number_documents(filled->inputs, e->rows, e->how.context, e->separator, filled->documents);
    filled->positions = e->tokens + 3 * count;
    set_positions(e, filled);
  }
  return KP_OK;
}

static kp_status run_batch(evaluator *e, int64_t batch, kp_error *error) {
  kp_batch filled;
  if (e->conversations) {
    KP_TRY(kp_feed_evaluation(&e->feed, batch, &e->scored[batch], error));
    filled = e->feed.batch;
  } else {
    KP_TRY(fill_windows(e, batch, &filled, error));
  }
  kp_network_write_batch(e->network, e->executor, &filled);
  KP_TRY(kp_executor_run(e->executor, 0, e->network->graph->node_count, error));
  kp_executor_read(e->executor, e->network->loss, &e->losses[batch]);
  if (!isfinite(e->losses[batch]))
    return kp_fail(error, KP_ERR_NUMERIC, "the loss of batch %lld of %lld is %g", (long long)batch + 1,
                   (long long)e->batches, e->losses[batch]);
  return KP_OK;
}

/* The error of a weighted mean, weights being each batch's share of the tokens; with equal shares it is
 * s / sqrt(n), s the sample's standard deviation. */
static double standard_error(const evaluator *e, double mean, double tokens) {
  const double n = (double)e->batches;
  double squares = 0;
  for (int64_t b = 0; b < e->batches; b++) {
    const double part = (double)e->scored[b] / tokens * (e->losses[b] - mean);
    squares += part * part;
  }
  return n > 1 ? sqrt(squares * n / (n - 1)) : (double)NAN;
}

static void sum_up(const evaluator *e, const kp_tokens *tokens, kp_evaluation *result) {
  const double bytes = (double)kp_tokens_text_bytes(tokens), all = (double)kp_tokens_count(tokens);
  double total = 0, scored = 0;
  for (int64_t b = 0; b < e->batches; b++) {
    total += e->losses[b] * (double)e->scored[b];
    scored += (double)e->scored[b];
  }
  result->loss = total / scored;
  result->standard_error = standard_error(e, result->loss, scored);
  result->perplexity = exp(result->loss);
  result->bits_per_byte = bytes > 0 && !e->conversations ? result->loss / log(2) * all / bytes : (double)NAN;
  result->tokens = (int64_t)scored;
  result->batches = e->batches;
  result->rows = e->rows;
  result->window = e->how.context;
  result->stride = e->how.stride;
  result->documents = e->conversations ? kp_tokens_index(tokens)->count : e->windows.parts;
}

kp_status kp_evaluate(const kp_trained *trained, const kp_tokens *tokens,
                      const kp_evaluation_options *options, kp_evaluation *result, kp_error *error) {
  const double start = omp_get_wtime();
  evaluator e = {.trained = trained, .text = tokens};
  double sum = 0, scored = 0;
  kp_status status = set_up(&e, options, error);
  for (int64_t b = 0; status == KP_OK && b < e.batches; b++) {
    status = run_batch(&e, b, error);
    if (status != KP_OK) break;
    sum += e.losses[b] * (double)e.scored[b];
    scored += (double)e.scored[b];
    if (options->progress != NULL) options->progress(options->context, b + 1, e.batches, sum / scored);
  }
  if (status == KP_OK) {
    sum_up(&e, tokens, result);
    result->seconds = omp_get_wtime() - start;
  }
  tear_down(&e);
  return status;
}
