#include "infer/likelihood.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/executor.h"
#include "core/memory.h"

enum { DEFAULT_TOKENS = 2048, LOGIT_BYTES = 256 << 20, SHORTEST = 8 };

/* A row of the plan.  Sorted by their inputs, rows that begin with a row's inputs follow it at once. */
typedef struct place {
  const kp_scored_row *row;
  size_t number; /* of the row in the caller's list */
  size_t leader; /* the place whose pass has this row's logits; its own when it runs itself */
} place;

typedef struct scorer {
  const kp_trained *trained;
  const kp_likelihood_options *options;
  size_t count;
  place *places;   /* sorted by inputs */
  size_t *leaders; /* places that run, the longest first */
  size_t leader_count;
  bool alone; /* a row's logits depend on what is behind it: no padding, no sharing, one row a pass */
  kp_network *network;
  kp_executor *executor;
  int32_t *tokens;    /* (B, T) */
  char *numbers;      /* (T, V) of one row, as the backend holds them */
  double *logits;     /* (threads, V) */
  double *sums;       /* (T) of one row: the logarithm of the sum of exponentials */
  int32_t *likeliest; /* (T) of one row */
  size_t *followed;   /* leader l has the places followed[l] .. l, the last of them itself */
} scorer;

/* ---- the plan ---- */

static int64_t inputs_of(const kp_scored_row *row) {
  return row->count - 1;
}

static int compare_inputs(const void *left, const void *right) {
  const place *a = left, *b = right;
  const int64_t na = inputs_of(a->row), nb = inputs_of(b->row), n = na < nb ? na : nb;
  for (int64_t i = 0; i < n; i++)
    if (a->row->tokens[i] != b->row->tokens[i]) return a->row->tokens[i] < b->row->tokens[i] ? -1 : 1;
  if (na != nb) return na < nb ? -1 : 1;
  return a->number < b->number ? -1 : a->number > b->number;
}

static bool begins_with(const kp_scored_row *whole, const kp_scored_row *part) {
  return inputs_of(part) <= inputs_of(whole) &&
         memcmp(part->tokens, whole->tokens, (size_t)inputs_of(part) * sizeof *part->tokens) == 0;
}

/* From the back: what a row's successor begins with, its successor's leader begins with. */
static void find_leaders(scorer *s) {
  for (size_t i = s->count; i-- > 0;) {
    const bool shared = !s->alone && i + 1 < s->count && begins_with(s->places[i + 1].row, s->places[i].row);
    s->places[i].leader = shared ? s->places[i + 1].leader : i;
    s->followed[s->places[i].leader] = i;
    if (!shared) s->leaders[s->leader_count++] = i;
  }
}

/* Longest first: the batch that needs most memory runs at once. */
static void sort_leaders(scorer *s) {
  size_t *sorted = s->leaders, *from = s->leaders + s->count;
  const int64_t context = s->trained->options.context;
  size_t *starts = s->followed + s->count; /* (context + 2) */
  memcpy(from, sorted, s->leader_count * sizeof *from);
  memset(starts, 0, (size_t)(context + 2) * sizeof *starts);
  for (size_t i = 0; i < s->leader_count; i++) starts[context - inputs_of(s->places[from[i]].row) + 1]++;
  for (int64_t n = 0; n <= context; n++) starts[n + 1] += starts[n];
  for (size_t i = 0; i < s->leader_count; i++)
    sorted[starts[context - inputs_of(s->places[from[i]].row)]++] = from[i];
}

static kp_status check_rows(const scorer *s, const kp_scored_row *rows, kp_error *error) {
  const kp_model_options *o = &s->trained->options;
  if (o->task != KP_TASK_LANGUAGE)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "run %s was trained for the task %s: it gives labels, not text",
                   s->trained->run, kp_task_name(o->task));
  for (size_t r = 0; r < s->count; r++) {
    if (rows[r].scored < 1 || rows[r].scored >= rows[r].count || inputs_of(&rows[r]) > o->context)
      return kp_fail(error, KP_ERR_INPUT,
                     "row %zu has %lld tokens of which %lld are scored: the context is %lld tokens", r + 1,
                     (long long)rows[r].count, (long long)rows[r].scored, (long long)o->context);
    for (int64_t i = 0; i < rows[r].count; i++)
      if (rows[r].tokens[i] < 0 || rows[r].tokens[i] >= o->vocabulary)
        return kp_fail(error, KP_ERR_INPUT, "row %zu: token %d is outside the model's vocabulary of %lld",
                       r + 1, rows[r].tokens[i], (long long)o->vocabulary);
  }
  return KP_OK;
}

static kp_status make_plan(scorer *s, const kp_scored_row *rows, kp_error *error) {
  const size_t lengths = (size_t)s->trained->options.context + 2;
  KP_TRY(check_rows(s, rows, error));
  s->alone = kp_model_uncacheable(&s->trained->options) != NULL;
  s->places = calloc(s->count, sizeof *s->places);
  s->leaders = calloc(2 * s->count, sizeof *s->leaders);
  s->followed = calloc(s->count + lengths, sizeof *s->followed);
  if (s->places == NULL || s->leaders == NULL || s->followed == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu rows", s->count);
  for (size_t r = 0; r < s->count; r++) s->places[r] = (place){.row = &rows[r], .number = r};
  qsort(s->places, s->count, sizeof *s->places, compare_inputs);
  find_leaders(s);
  sort_leaders(s);
  return KP_OK;
}

/* ---- passes ---- */

/* Lengths of passes grow by a quarter to a half (8, 12, 16, 24, 32, ...), so that few graphs are built and
 * little is padded. */
static int64_t pass_length(const scorer *s, int64_t inputs) {
  const int64_t context = s->trained->options.context;
  if (s->alone) return inputs;
  int64_t length = SHORTEST;
  for (bool half = true; length < inputs; half = !half) length = half ? length / 2 * 3 : length / 3 * 4;
  return length < context ? length : context;
}

static int64_t pass_rows(const scorer *s, int64_t length) {
  const int64_t tokens = s->options->tokens > 0 ? s->options->tokens : DEFAULT_TOKENS;
  const int64_t row_bytes = length * s->trained->options.vocabulary * (int64_t)s->trained->backend->real_size;
  int64_t rows = tokens / length;
  if (rows > LOGIT_BYTES / row_bytes) rows = LOGIT_BYTES / row_bytes;
  return rows < 1 || s->alone ? 1 : rows;
}

static void clear_pass(scorer *s) {
  kp_executor_destroy(s->executor);
  kp_network_destroy(s->network);
  free(s->tokens);
  free(s->numbers);
  free(s->logits);
  free(s->sums);
  free(s->likeliest);
  s->executor = NULL;
  s->network = NULL;
  s->tokens = s->likeliest = NULL;
  s->numbers = NULL;
  s->logits = s->sums = NULL;
}

static kp_status make_pass(scorer *s, int64_t batch, int64_t length, kp_error *error) {
  if (s->network != NULL && s->network->build.batch == batch && s->network->build.length == length)
    return KP_OK;
  const kp_build build = {.mode = KP_BUILD_LOGITS, .batch = batch, .length = length};
  const kp_executor_options options = {.threads = s->options->threads};
  const size_t V = (size_t)s->trained->options.vocabulary;
  clear_pass(s);
  KP_TRY(kp_network_create(&s->trained->options, s->trained->parameters, build, &s->network, error));
  KP_TRY(kp_executor_create(s->network->graph, s->trained->backend, s->trained->parameters, options,
                            &s->executor, error));
  kp_network_write_positions(s->network, s->executor);
  s->tokens = calloc((size_t)(batch * length), sizeof *s->tokens);
  s->numbers = malloc((size_t)length * kp_executor_row_bytes(s->executor, s->network->logits));
  s->logits = malloc((size_t)kp_thread_count(s->options->threads) * V * sizeof *s->logits);
  s->sums = malloc((size_t)length * sizeof *s->sums);
  s->likeliest = malloc((size_t)length * sizeof *s->likeliest);
  if (s->tokens == NULL || s->numbers == NULL || s->logits == NULL || s->sums == NULL || s->likeliest == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for the logits of %lld tokens", (long long)length);
  return KP_OK;
}

/* Where the passes of a leader's rows begin to be scored, among its inputs. */
static int64_t first_scored(const scorer *s, size_t leader) {
  int64_t first = inputs_of(s->places[leader].row);
  for (size_t i = s->followed[leader]; i <= leader; i++) {
    const kp_scored_row *row = s->places[i].row;
    if (inputs_of(row) - row->scored < first) first = inputs_of(row) - row->scored;
  }
  return first;
}

/* The logarithm of the sum of exponentials, and the likeliest token. */
static double sum_logits(const double *logits, int64_t vocabulary, int32_t *likeliest) {
  int64_t best = 0;
  double sum = 0;
  for (int64_t v = 1; v < vocabulary; v++)
    if (logits[v] > logits[best]) best = v;
  for (int64_t v = 0; v < vocabulary; v++) sum += exp(logits[v] - logits[best]);
  *likeliest = (int32_t)best;
  return logits[best] + log(sum);
}

/* The sums of positions [first, last) of batch row `b`, whose numbers are copied. */
static kp_status sum_positions(scorer *s, int64_t b, int64_t first, int64_t last, kp_error *error) {
  const kp_tensor *logits = s->network->logits;
  const int64_t V = s->trained->options.vocabulary;
  const size_t bytes = kp_executor_row_bytes(s->executor, logits);
  const size_t size = kp_type_size(s->trained->backend, logits->type);
  KP_TRY(kp_executor_copy_rows(s->executor, logits, b * s->network->build.length + first, last - first,
                               s->numbers, error));
#pragma omp parallel for schedule(dynamic) num_threads(kp_thread_count(s->options->threads))
  for (int64_t t = first; t < last; t++) {
    double *row = s->logits + (int64_t)omp_get_thread_num() * V;
    kp_numbers_widen(s->numbers + (size_t)(t - first) * bytes, size, V, row);
    s->sums[t] = sum_logits(row, V, &s->likeliest[t]);
  }
  return KP_OK;
}

/* The score of a row by numbers that begin at position `first`. */
static kp_status score_row(const scorer *s, const kp_scored_row *row, int64_t first, kp_likelihood *result,
                           kp_error *error) {
  const size_t bytes = kp_executor_row_bytes(s->executor, s->network->logits);
  const size_t size = kp_type_size(s->trained->backend, s->network->logits->type);
  *result = (kp_likelihood){.greedy = true};
  for (int64_t t = inputs_of(row) - row->scored; t < inputs_of(row); t++) {
    const int32_t target = row->tokens[t + 1];
    result->sum += kp_number_at(s->numbers + (size_t)(t - first) * bytes, size, target) - s->sums[t];
    result->greedy = result->greedy && s->likeliest[t] == target;
  }
  if (isfinite(result->sum)) return KP_OK;
  return kp_fail(error, KP_ERR_NUMERIC, "a log-likelihood is %g: the model gives no finite logits",
                 result->sum);
}

/* Runs leaders [first, first + count), one a row of the batch. */
static kp_status run_batch(scorer *s, size_t first, size_t count, kp_likelihood *results, kp_error *error) {
  const kp_build *build = &s->network->build;
  memset(s->tokens, 0, (size_t)(build->batch * build->length) * sizeof *s->tokens);
  for (size_t b = 0; b < count; b++) {
    const kp_scored_row *row = s->places[s->leaders[first + b]].row;
    memcpy(s->tokens + (int64_t)b * build->length, row->tokens, (size_t)inputs_of(row) * sizeof *s->tokens);
  }
  kp_executor_write_int32(s->executor, s->network->tokens, s->tokens);
  KP_TRY(kp_executor_run(s->executor, 0, s->network->graph->node_count, error));
  for (size_t b = 0; b < count; b++) {
    const size_t leader = s->leaders[first + b];
    const int64_t from = first_scored(s, leader);
    KP_TRY(sum_positions(s, (int64_t)b, from, inputs_of(s->places[leader].row), error));
    for (size_t i = s->followed[leader]; i <= leader; i++)
      KP_TRY(score_row(s, s->places[i].row, from, &results[s->places[i].number], error));
  }
  return KP_OK;
}

/* Leaders come the longest first, so the rows of a batch that begins with `first` fit into its length.  The
 * batch ends where a shorter pass would do. */
static size_t batch_end(const scorer *s, size_t first, int64_t *rows, int64_t *length) {
  *length = pass_length(s, inputs_of(s->places[s->leaders[first]].row));
  *rows = pass_rows(s, *length);
  size_t end = first + 1;
  while (end < s->leader_count && end - first < (size_t)*rows &&
         pass_length(s, inputs_of(s->places[s->leaders[end]].row)) == *length)
    end++;
  return end;
}

static kp_status score_all(scorer *s, kp_likelihood *results, kp_error *error) {
  int64_t rows, length, done = 0;
  for (size_t first = 0, end; first < s->leader_count; first = end) {
    end = batch_end(s, first, &rows, &length);
    KP_TRY(make_pass(s, rows, length, error));
    KP_TRY(run_batch(s, first, end - first, results, error));
    for (size_t l = first; l < end; l++) done += (int64_t)(s->leaders[l] - s->followed[s->leaders[l]] + 1);
    if (s->options->progress != NULL) s->options->progress(s->options->context, done, (int64_t)s->count);
  }
  return KP_OK;
}

kp_status kp_likelihoods(const kp_trained *trained, const kp_scored_row *rows, size_t count,
                         const kp_likelihood_options *options, kp_likelihood *results, kp_error *error) {
  scorer s = {.trained = trained, .options = options, .count = count};
  if (count == 0) return KP_OK;
  kp_status status = make_plan(&s, rows, error);
  if (status == KP_OK) status = score_all(&s, results, error);
  clear_pass(&s);
  free(s.places);
  free(s.leaders);
  free(s.followed);
  return status;
}
