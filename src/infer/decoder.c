/* A decoder holds up to three passes, graphs for T new tokens each with an executor: T = 1, T = chunk, and
 * T = what a prompt leaves beyond whole chunks, which is made anew when another length comes.  The caches
 * are states of the first and the others are bound to its memory, so every pass goes on where any other
 * ended.  A model without a cache has a pass as long as the tokens in the context. */
#include "infer/decoder.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/executor.h"
#include "core/memory.h"

/* Integers of a pass's inputs start at multiples of so many, 256 bytes. */
enum { DEFAULT_CHUNK = 256, INPUT_MULTIPLE = 64 };

/* A graph for `length` tokens of each sequence; empty when the executor is NULL. */
typedef struct pass {
  int64_t length;
  kp_network *network;
  kp_executor *executor;
  int32_t *inputs; /* tokens, positions and start in one piece of the backend's memory, for one copy a pass */
} pass;

struct kp_decoder {
  const kp_model_options *model;
  kp_parameters *parameters;
  kp_decoder_options options;
  bool cached;
  pass single, chunk, rest;
  int32_t *history; /* (B, context): the tokens in the context, `position` of each row */
  int32_t *places;  /* the inputs of a pass */
  int64_t position;
  void *rows;     /* (B) rows of logits as the backend holds them */
  double *logits; /* (B, V) */
  double token_bytes;
  bool ready;         /* the logits are those of the last token */
  const pass *latest; /* whose logits they are */
  kp_ahead *ahead;    /* choices of a device; NULL until there are some */
  int64_t reached;    /* while a device chooses: tokens in the context when all that is queued is done */
  int32_t *unfed;     /* (B) the tokens chosen last, where the context had no room for them */
};

/* ---- passes ---- */

static void clear_pass(kp_decoder *d, pass *p) {
  if (d->latest == p) d->latest = NULL;
  kp_executor_destroy(p->executor);
  kp_memory_destroy(d->parameters->backend, p->inputs);
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

/* Places of a pass's tokens, or of its positions. */
static int64_t input_size(const kp_decoder *d, int64_t length) {
  return (d->options.batch * length + INPUT_MULTIPLE - 1) / INPUT_MULTIPLE * INPUT_MULTIPLE;
}

static int64_t inputs_size(const kp_decoder *d, int64_t length) {
  return 2 * input_size(d, length) + 1;
}

static kp_status join_inputs(const kp_decoder *d, pass *p, kp_error *error) {
  const int64_t size = input_size(d, p->length);
  const size_t bytes = (size_t)inputs_size(d, p->length) * sizeof *p->inputs;
  void *memory;
  KP_TRY(kp_memory_create(d->parameters->backend, bytes, "the tokens of a pass", &memory, error));
  p->inputs = memory;
  kp_executor_bind(p->executor, p->network->tokens, p->inputs);
  kp_executor_bind(p->executor, p->network->positions, p->inputs + size);
  if (p->network->start != NULL) kp_executor_bind(p->executor, p->network->start, p->inputs + 2 * size);
  return KP_OK;
}

/* Every activation of a pass over few rows has a place of its own, which lets a backend run operators
 * together that would otherwise overwrite what others of them read. */
static void spread_out(const kp_graph *graph, int64_t rows) {
  enum { FEW_ROWS = 64 };
  for (int i = 0; i < graph->tensor_count && rows <= FEW_ROWS; i++)
    if (graph->tensors[i]->role == KP_ROLE_ACTIVATION) kp_graph_keep(graph->tensors[i]);
}

static kp_status make_pass(kp_decoder *d, int64_t length, pass *p, kp_error *error) {
  if (p->inputs != NULL && p->length == length) return KP_OK;
  clear_pass(d, p);
  p->length = length;
  const kp_build build = {
      .mode = d->cached ? KP_BUILD_DECODE : KP_BUILD_LOGITS, .batch = d->options.batch, .length = length};
  KP_TRY(kp_network_create(d->model, d->parameters, build, &p->network, error));
  if (p == &d->single) spread_out(p->network->graph, d->options.batch);
  const kp_executor_options options = {.threads = d->options.threads};
  KP_TRY(kp_executor_create(p->network->graph, d->parameters->backend, d->parameters, options, &p->executor,
                            error));
  if (d->cached && p != &d->single) share_states(p, &d->single);
  return join_inputs(d, p, error);
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
  const int64_t size = input_size(d, p->length);
  int32_t *tokens = d->places, *positions = tokens + size;
  for (int64_t b = 0; b < d->options.batch; b++)
    for (int64_t t = 0; t < p->length; t++) {
      tokens[b * p->length + t] = d->history[b * d->model->context + first + t];
      positions[b * p->length + t] = (int32_t)(first + t);
    }
  d->places[2 * size] = (int32_t)first;
  KP_TRY(kp_memory_write(d->parameters->backend, p->inputs, d->places,
                         (size_t)inputs_size(d, p->length) * sizeof *d->places, error));
  return kp_executor_run(p->executor, 0, p->network->graph->node_count, error);
}

/* The last token's logits of each sequence, as doubles. */
static kp_status take_logits(kp_decoder *d, const pass *p, kp_error *error) {
  const kp_tensor *logits = p->network->logits;
  const int64_t V = d->model->vocabulary, batch = d->options.batch, rows = kp_tensor_rows(logits) / batch;
  const size_t size = kp_type_size(d->parameters->backend, logits->type);
  const size_t bytes = kp_executor_row_bytes(p->executor, logits);
  if (rows == 1) KP_TRY(kp_executor_copy_rows(p->executor, logits, 0, batch, d->rows, error));
  for (int64_t b = 0; b < batch && rows > 1; b++)
    KP_TRY(kp_executor_copy_rows(p->executor, logits, (b + 1) * rows - 1, 1,
                                 (char *)d->rows + (size_t)b * bytes, error));
#pragma omp parallel for if (batch > 1) num_threads(kp_thread_count(d->options.threads))
  for (int64_t b = 0; b < batch; b++)
    kp_numbers_widen((const char *)d->rows + (size_t)b * bytes, size, V, d->logits + b * V);
  return KP_OK;
}

/* ---- creation ---- */

/* Bytes of one element of a real tensor. */
static double real_size(const kp_decoder *d) {
  return (double)d->parameters->backend->real_size;
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

static double token_bytes(const kp_decoder *d) {
  const kp_graph *graph = d->single.network->graph;
  double elements = 0;
  for (int i = 0; i < graph->tensor_count; i++) {
    const kp_tensor *tensor = graph->tensors[i];
    if (tensor->role == KP_ROLE_STATE && is_cache(graph, tensor))
      elements += (double)kp_tensor_count(tensor) / (double)(d->model->context * d->options.batch);
  }
  return elements * real_size(d);
}

static kp_status allocate(kp_decoder *d, kp_error *error) {
  const size_t tokens = (size_t)(d->options.batch * d->model->context);
  const size_t logits = (size_t)(d->options.batch * d->model->vocabulary);
  d->history = calloc(tokens, sizeof *d->history);
  d->unfed = calloc((size_t)d->options.batch, sizeof *d->unfed);
  d->places = calloc((size_t)inputs_size(d, d->model->context), sizeof *d->places);
  d->logits = calloc(logits, sizeof *d->logits);
  if (d->history == NULL || d->places == NULL || d->logits == NULL || d->unfed == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for the tokens and logits of %lld sequences",
                   (long long)d->options.batch);
  KP_TRY(make_pass(d, 1, &d->single, error));
  d->token_bytes = token_bytes(d);
  const size_t bytes = kp_executor_row_bytes(d->single.executor, d->single.network->logits);
  return kp_host_memory_create(d->parameters->backend, (size_t)d->options.batch * bytes, "rows of logits",
                               &d->rows, error);
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
  kp_ahead_destroy(d->ahead);
  clear_pass(d, &d->rest);
  clear_pass(d, &d->chunk);
  clear_pass(d, &d->single);
  kp_host_memory_destroy(d->parameters->backend, d->rows);
  free(d->history);
  free(d->unfed);
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
  KP_TRY(take_logits(d, p, error));
  d->latest = p;
  d->ready = true;
  return KP_OK;
}

/* ---- choosing on a device ---- */

bool kp_decoder_chooses(const kp_decoder *d, const kp_token_sampler_options *options) {
  const kp_backend *backend = d->parameters->backend;
  const kp_tensor *logits = d->single.network->logits;
  return d->cached && kp_ahead_can(backend, options, kp_tensor_pitch(logits, backend->row_multiple));
}

static kp_status make_ahead(kp_decoder *d, kp_error *error) {
  const int64_t size = input_size(d, 1);
  const pass *p = &d->single;
  const kp_ahead_pass single = {.backend = d->parameters->backend,
                                .executor = p->executor,
                                .graph = p->network->graph,
                                .logits = p->network->logits,
                                .tokens = p->inputs,
                                .positions = p->inputs + size,
                                .start = p->inputs + 2 * size,
                                .batch = d->options.batch};
  return d->ahead != NULL ? KP_OK : kp_ahead_create(&single, &d->ahead, error);
}

/* A choice from the logits of the last pass, which the host submitted. */
static kp_status choose_first(kp_decoder *d, kp_error *error) {
  const pass *p = d->latest;
  d->reached = d->position;
  d->ready = false;
  return kp_ahead_first(d->ahead, kp_executor_memory(p->executor, p->network->logits), d->position, error);
}

kp_status kp_decoder_begin_choosing(kp_decoder *d, const kp_choices *choices, kp_error *error) {
  kp_assert(d->ready && d->latest != NULL, "no token was fed");
  KP_TRY(make_ahead(d, error));
  KP_TRY(kp_ahead_prepare(d->ahead, choices, error));
  return choose_first(d, error);
}

/* So many passes are queued that the device never waits, as far as the context has room. */
static kp_status run_ahead(kp_decoder *d, kp_error *error) {
  enum { QUEUED = 3 };
  while (kp_ahead_waiting(d->ahead) < QUEUED && kp_ahead_left(d->ahead) > 0 &&
         d->reached < d->model->context) {
    KP_TRY(kp_ahead_submit(d->ahead, error));
    d->reached++;
  }
  return KP_OK;
}

kp_status kp_decoder_choose(kp_decoder *d, int32_t *tokens, kp_error *error) {
  if (kp_ahead_waiting(d->ahead) == 0) { /* the tokens before are not fed: the context was full */
    KP_TRY(kp_decoder_feed(d, d->unfed, 1, error));
    KP_TRY(choose_first(d, error));
  }
  KP_TRY(run_ahead(d, error));
  KP_TRY(kp_ahead_read(d->ahead, tokens, error));
  const bool fed = d->position < d->reached;
  for (int64_t b = 0; b < d->options.batch; b++)
    *(fed ? &d->history[b * d->model->context + d->position] : &d->unfed[b]) = tokens[b];
  if (fed) d->position++;
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

double kp_decoder_token_bytes(const kp_decoder *d) {
  return d->token_bytes;
}

double kp_decoder_cache_bytes(const kp_decoder *d) {
  return d->token_bytes * (double)d->options.batch * (double)d->position;
}
