/* A decoder holds up to three passes, graphs for T new tokens each with an executor: T = 1, T = chunk, and
 * T = what a prompt leaves beyond whole chunks, which is made anew when another length comes.  The caches
 * are states of the first and the others are bound to its memory, so every pass goes on where any other
 * ended.  A model without a cache has a pass as long as the tokens in the context. */
#include "infer/decoder.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/executor.h"

enum { DEFAULT_CHUNK = 256 };

/* A graph for `length` tokens of each sequence; empty when the executor is NULL. */
typedef struct pass {
  int64_t length;
  kp_network *network;
  kp_executor *executor;
} pass;

struct kp_decoder {
  const kp_model_options *model;
  kp_parameters *parameters;
  kp_decoder_options options;
  bool cached;
  pass single, chunk, rest;
  int32_t *history; /* (B, context): the tokens in the context, `position` of each row */
  int32_t *places;  /* tokens and positions of a pass */
  int64_t position;
  double *logits; /* (B, V) */
  bool ready;     /* the logits are those of the last token */
};

/* ---- passes ---- */

static void clear_pass(pass *p) {
  kp_executor_destroy(p->executor);
  kp_network_destroy(p->network);
  *p = (pass){0};
}

static const kp_tensor *find_state(const kp_graph *graph, const char *name) {
  for (int i = 0; i < graph->tensor_count; i++)
    if (graph->tensors[i]->role == KP_ROLE_STATE && strcmp(graph->tensors[i]->name, name) == 0)
      return graph->tensors[i];
  return NULL;
}

/* Makes the states of `p` those of `owner`. */
static void share_states(const pass *p, const pass *owner) {
  for (int i = 0; i < p->network->graph->tensor_count; i++) {
    const kp_tensor *tensor = p->network->graph->tensors[i];
    if (tensor->role != KP_ROLE_STATE) continue;
    const kp_tensor *shared = find_state(owner->network->graph, tensor->name);
    kp_assert(shared != NULL && kp_tensor_same_shape(tensor, shared), "state %s differs between passes",
              tensor->name);
    kp_executor_bind(p->executor, tensor, kp_executor_memory(owner->executor, shared));
  }
}

static kp_status make_pass(kp_decoder *d, int64_t length, pass *p, kp_error *error) {
  if (p->executor != NULL && p->length == length) return KP_OK;
  clear_pass(p);
  p->length = length;
  const kp_build build = {
      .mode = d->cached ? KP_BUILD_DECODE : KP_BUILD_LOGITS, .batch = d->options.batch, .length = length};
  KP_TRY(kp_network_create(d->model, d->parameters, build, &p->network, error));
  const kp_executor_options options = {.threads = d->options.threads};
  KP_TRY(kp_executor_create(p->network->graph, d->parameters->backend, d->parameters, options, &p->executor,
                            error));
  if (d->cached && p != &d->single) share_states(p, &d->single);
  return KP_OK;
}

/* The pass for `length` tokens. */
static kp_status pass_for(kp_decoder *d, int64_t length, pass **p, kp_error *error) {
  if (length == 1)
    *p = &d->single;
  else if (d->cached && length == d->options.chunk)
    *p = &d->chunk;
  else
    *p = &d->rest;
  return make_pass(d, length, *p, error);
}

/* Runs `p` over the tokens of the history from `first` on. */
static kp_status run_pass(kp_decoder *d, const pass *p, int64_t first, kp_error *error) {
  const int32_t start = (int32_t)first;
  int32_t *tokens = d->places, *positions = tokens + d->options.batch * p->length;
  for (int64_t b = 0; b < d->options.batch; b++)
    for (int64_t t = 0; t < p->length; t++) {
      tokens[b * p->length + t] = d->history[b * d->model->context + first + t];
      positions[b * p->length + t] = (int32_t)(first + t);
    }
  kp_executor_write_int32(p->executor, p->network->tokens, tokens);
  kp_executor_write_int32(p->executor, p->network->positions, positions);
  if (p->network->start != NULL) kp_executor_write_int32(p->executor, p->network->start, &start);
  return kp_executor_run(p->executor, 0, p->network->graph->node_count, error);
}

/* The last token's logits of each sequence, as doubles. */
static void take_logits(kp_decoder *d, const pass *p) {
  const int64_t V = d->model->vocabulary;
  const int64_t rows = kp_tensor_rows(p->network->logits) / d->options.batch;
  for (int64_t b = 0; b < d->options.batch; b++)
    kp_executor_read_row(p->executor, p->network->logits, (b + 1) * rows - 1, d->logits + b * V);
}

/* ---- creation ---- */

static kp_status allocate(kp_decoder *d, kp_error *error) {
  const size_t tokens = (size_t)(d->options.batch * d->model->context);
  const size_t logits = (size_t)(d->options.batch * d->model->vocabulary);
  d->history = calloc(tokens, sizeof *d->history);
  d->places = calloc(2 * tokens, sizeof *d->places);
  d->logits = calloc(logits, sizeof *d->logits);
  if (d->history == NULL || d->places == NULL || d->logits == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for the tokens and logits of %lld sequences",
                   (long long)d->options.batch);
  return make_pass(d, 1, &d->single, error);
}

kp_status kp_decoder_create(const kp_model_options *model, kp_parameters *parameters,
                            const kp_decoder_options *options, kp_decoder **decoder, kp_error *error) {
  kp_assert(parameters->values != NULL && options->batch >= 0 && options->chunk >= 0, "%lld sequences",
            (long long)options->batch);
  *decoder = NULL;
  if (model->task != KP_TASK_LANGUAGE)
    return kp_fail(
        error, KP_ERR_UNSUPPORTED,
        "this model was made for the task %s: it gives labels, not text; score it with `kappa eval`",
        kp_task_name(model->task));
  kp_decoder *d = calloc(1, sizeof *d);
  if (d == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a decoder");
  d->model = model;
  d->parameters = parameters;
  d->options = *options;
  if (d->options.batch == 0) d->options.batch = 1;
  if (d->options.chunk == 0) d->options.chunk = DEFAULT_CHUNK;
  d->cached = kp_model_uncacheable(model) == NULL;
  kp_status status = allocate(d, error);
  if (status != KP_OK) {
    kp_decoder_destroy(d);
    return status;
  }
  *decoder = d;
  return KP_OK;
}

void kp_decoder_destroy(kp_decoder *d) {
  if (d == NULL) return;
  clear_pass(&d->rest);
  clear_pass(&d->chunk);
  clear_pass(&d->single);
  free(d->history);
  free(d->places);
  free(d->logits);
  free(d);
}

/* ---- feeding ---- */

/* Before the first token of a sequence: the reference point that the histories hold for it is the origin. */
static void clear_states(const kp_decoder *d) {
  kp_executor_clear_states(d->single.executor);
}

void kp_decoder_reset(kp_decoder *d) {
  d->position = 0;
  d->ready = false;
}

/* Token `i` of row `b` of the history followed by the new tokens. */
static int32_t joined(const kp_decoder *d, const int32_t *tokens, int64_t count, int64_t b, int64_t i) {
  return i < d->position ? d->history[b * d->model->context + i] : tokens[b * count + i - d->position];
}

/* Appends the tokens to the history, of which only the newest `kept` stay if all do not fit.  Returns the
 * first place that a pass has yet to run over. */
static int64_t remember(kp_decoder *d, const int32_t *tokens, int64_t count, int64_t kept) {
  const int64_t total = d->position + count, context = d->model->context;
  const bool fits = total <= context;
  const int64_t dropped = fits ? 0 : total - kept, first = fits && d->cached ? d->position : 0;
  for (int64_t b = 0; b < d->options.batch; b++)
    for (int64_t i = fits ? d->position : 0; i < total - dropped; i++)
      d->history[b * context + i] = joined(d, tokens, count, b, dropped + i);
  d->position = total - dropped;
  return first;
}

static kp_status check_tokens(const kp_decoder *d, const int32_t *tokens, int64_t count, kp_error *error) {
  for (int64_t i = 0; i < d->options.batch * count; i++)
    if (tokens[i] < 0 || tokens[i] >= d->model->vocabulary)
      return kp_fail(error, KP_ERR_INPUT, "token %d is outside the model's vocabulary of %lld", tokens[i],
                     (long long)d->model->vocabulary);
  return KP_OK;
}

kp_status kp_decoder_feed(kp_decoder *d, const int32_t *tokens, int64_t count, kp_error *error) {
  kp_assert(count > 0, "%lld tokens", (long long)count);
  KP_TRY(check_tokens(d, tokens, count, error));
  const int64_t context = d->model->context, half = context > 1 ? context / 2 : 1;
  int64_t first = remember(d, tokens, count, d->cached ? half : context);
  d->ready = false;
  if (first == 0) clear_states(d);
  pass *p = NULL;
  while (first < d->position) {
    const int64_t left = d->position - first, most = d->cached ? d->options.chunk : left;
    KP_TRY(pass_for(d, left < most ? left : most, &p, error));
    KP_TRY(run_pass(d, p, first, error));
    first += p->length;
  }
  take_logits(d, p);
  d->ready = true;
  return KP_OK;
}

/* ---- what is known ---- */

const double *kp_decoder_logits(const kp_decoder *d, int64_t row) {
  kp_assert(d->ready && row >= 0 && row < d->options.batch, "logits of sequence %lld", (long long)row);
  return d->logits + row * d->model->vocabulary;
}

int64_t kp_decoder_position(const kp_decoder *d) {
  return d->position;
}

/* Bytes of one element of a real tensor. */
static double real_size(const kp_decoder *d) {
  return (double)d->parameters->backend->real_size;
}

double kp_decoder_parameter_bytes(const kp_decoder *d) {
  const kp_graph *graph = d->single.network->graph;
  double elements = 0;
  bool *counted = calloc((size_t)d->parameters->count + 1, sizeof *counted);
  kp_assert(counted != NULL, "out of memory");
  for (int n = 0; n < graph->node_count; n++)
    for (int i = 0; i < graph->nodes[n]->inputs; i++) {
      const kp_tensor *tensor = graph->nodes[n]->input[i];
      if (tensor == NULL || tensor->role != KP_ROLE_PARAMETER) continue;
      if (graph->nodes[n]->operation == KP_OP_EMBEDDING) {
        elements += (double)(d->options.batch * kp_tensor_columns(tensor));
      } else if (!counted[tensor->parameter]) {
        counted[tensor->parameter] = true;
        elements += (double)kp_tensor_count(tensor);
      }
    }
  free(counted);
  return elements * real_size(d);
}

/* Whether an attention over a cache reads the state, rather than a reference point. */
static bool is_cache(const kp_graph *graph, const kp_tensor *state) {
  for (int n = 0; n < graph->node_count; n++) {
    const kp_node *node = graph->nodes[n];
    const bool attends =
        node->operation == KP_OP_ATTENTION_CACHED || node->operation == KP_OP_ATTENTION_LATENT_CACHED;
    for (int i = 0; attends && i < node->inputs; i++)
      if (node->input[i] == state) return true;
  }
  return false;
}

double kp_decoder_token_bytes(const kp_decoder *d) {
  const kp_graph *graph = d->single.network->graph;
  double elements = 0;
  for (int i = 0; i < graph->tensor_count; i++) {
    const kp_tensor *tensor = graph->tensors[i];
    if (tensor->role == KP_ROLE_STATE && is_cache(graph, tensor))
      elements += (double)kp_tensor_count(tensor) / (double)(d->model->context * d->options.batch);
  }
  return elements * real_size(d);
}

double kp_decoder_cache_bytes(const kp_decoder *d) {
  return kp_decoder_token_bytes(d) * (double)d->options.batch * (double)d->position;
}
