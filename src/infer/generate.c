#include "infer/generate.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

typedef struct generator {
  kp_decoder *decoder;
  kp_token_sampler *sampler;
  kp_token_sampler **samplers; /* (team) for several sequences; the first is the one above */
  int team;
  const kp_generation *generation;
  kp_generation_report *report;
  kp_text_stream stream;
  int64_t sequences; /* B */
  int32_t *sequence; /* (B, longest): the prompt and what was generated */
  int32_t *tokens;   /* (B): the newest */
  int64_t length, longest;
  double *seconds; /* of each step */
  bool ahead;      /* the decoder chooses the tokens */
} generator;

static bool makes_text(const kp_generation *generation) {
  return generation->tokenizer != NULL && generation->sink != NULL;
}

/* A sampler for each thread. */
static kp_status gather_team(generator *g, kp_error *error) {
  const int threads = kp_thread_count(0);
  const int most = threads < g->sequences ? threads : (int)g->sequences;
  g->samplers = calloc((size_t)most, sizeof *g->samplers);
  if (g->samplers == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %d samplers", most);
  g->samplers[g->team++] = g->sampler;
  for (; g->team < most; g->team++) KP_TRY(kp_token_sampler_twin(g->sampler, &g->samplers[g->team], error));
  return KP_OK;
}

static kp_status set_up(generator *g, kp_error *error) {
  const kp_generation *generation = g->generation;
  kp_assert(generation->prompt_length > 0 && generation->tokens > 0, "%lld tokens after a prompt of %lld",
            (long long)generation->tokens, (long long)generation->prompt_length);
  kp_assert(g->sequences == 1 || (!makes_text(generation) && generation->stop_token < 0),
            "text of %lld sequences", (long long)g->sequences);
  g->length = generation->prompt_length;
  g->longest = g->length + generation->tokens;
  g->stream = (kp_text_stream){.sink = generation->sink, .context = generation->context};
  g->sequence = malloc((size_t)(g->sequences * g->longest) * sizeof *g->sequence);
  g->tokens = malloc((size_t)g->sequences * sizeof *g->tokens);
  g->seconds = malloc((size_t)generation->tokens * sizeof *g->seconds);
  if (g->sequence == NULL || g->tokens == NULL || g->seconds == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %lld tokens", (long long)(g->sequences * g->longest));
  for (int64_t b = 0; b < g->sequences; b++)
    memcpy(g->sequence + b * g->longest, generation->prompt, (size_t)g->length * sizeof *g->sequence);
  *g->report = (kp_generation_report){.sequences = g->sequences,
                                      .prompt_tokens = g->length,
                                      .parameter_bytes = kp_decoder_parameter_bytes(g->decoder),
                                      .token_bytes = kp_decoder_token_bytes(g->decoder)};
  return gather_team(g, error);
}

static void tear_down(generator *g) {
  for (int i = 1; i < g->team; i++) kp_token_sampler_destroy(g->samplers[i]);
  free(g->samplers);
  free(g->sequence);
  free(g->tokens);
  free(g->seconds);
}

/* Passes the text of one token on.  *more is false when the sink wants no more. */
static kp_status emit(generator *g, int32_t token, bool *more, kp_error *error) {
  char *bytes;
  size_t size;
  *more = true;
  if (!makes_text(g->generation)) return KP_OK;
  KP_TRY(kp_tokenizer_decode(g->generation->tokenizer, &token, 1, &bytes, &size, error));
  *more = kp_text_stream_push(&g->stream, bytes, size);
  free(bytes);
  return KP_OK;
}

static bool interrupted(const kp_generation *generation) {
  return generation->interrupt != NULL && *generation->interrupt;
}

static kp_status read_prompt(generator *g, kp_error *error) {
  const double start = omp_get_wtime();
  const size_t bytes = (size_t)g->length * sizeof *g->sequence;
  int32_t *prompts = malloc((size_t)g->sequences * bytes);
  if (prompts == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the prompt");
  for (int64_t b = 0; b < g->sequences; b++) memcpy(prompts + b * g->length, g->generation->prompt, bytes);
  kp_decoder_reset(g->decoder);
  const kp_status status = kp_decoder_feed(g->decoder, prompts, g->length, error);
  g->report->prompt_seconds = omp_get_wtime() - start;
  free(prompts);
  return status;
}

static kp_status pick_of(generator *g, kp_token_sampler *sampler, int64_t b, kp_error *error) {
  return kp_token_sampler_pick(sampler, kp_decoder_logits(g->decoder, b), g->sequence + b * g->longest,
                               g->length, g->generation->sample + (uint64_t)b, &g->tokens[b], error);
}

/* Picks the next token of each sequence. */
static kp_status pick(generator *g, kp_error *error) {
  int64_t failed = -1;
  if (g->ahead) return kp_decoder_choose(g->decoder, g->tokens, error);
  if (g->sequences == 1) return pick_of(g, g->sampler, 0, error);
#pragma omp parallel for num_threads(g->team) reduction(max : failed)
  for (int64_t b = 0; b < g->sequences; b++)
    if (pick_of(g, g->samplers[omp_get_thread_num()], b, NULL) != KP_OK) failed = b;
  return failed < 0 ? KP_OK : pick_of(g, g->sampler, failed, error); /* once more, for the words */
}

/* Reads the last tokens and picks the next. */
static kp_status step(generator *g, kp_error *error) {
  kp_generation_report *report = g->report;
  const double start = omp_get_wtime();
  if (!g->ahead) KP_TRY(kp_decoder_feed(g->decoder, g->tokens, 1, error));
  KP_TRY(pick(g, error));
  g->seconds[report->steps++] = omp_get_wtime() - start;
  report->cache_bytes += kp_decoder_cache_bytes(g->decoder);
  return KP_OK;
}

/* The newest tokens, to where they belong. */
static void append(generator *g) {
  const kp_generation *generation = g->generation;
  for (int64_t b = 0; b < g->sequences; b++) {
    g->sequence[b * g->longest + g->length] = g->tokens[b];
    if (generation->written != NULL)
      generation->written[b * generation->tokens + g->report->tokens] = g->tokens[b];
  }
  g->length++;
  g->report->tokens++;
}

/* Leaves the choice of tokens to the decoder, where it can. */
static kp_status begin_choosing(generator *g, kp_error *error) {
  const kp_choices choices = {.options = *kp_token_sampler_options_of(g->sampler),
                              .vocabulary = kp_token_sampler_vocabulary(g->sampler),
                              .sample = g->generation->sample,
                              .length = g->length,
                              .most = g->generation->tokens};
  g->ahead = kp_decoder_chooses(g->decoder, &choices.options);
  return g->ahead ? kp_decoder_begin_choosing(g->decoder, &choices, error) : KP_OK;
}

static kp_status write_tokens(generator *g, kp_error *error) {
  const kp_generation *generation = g->generation;
  kp_generation_report *report = g->report;
  bool more;
  KP_TRY(begin_choosing(g, error));
  KP_TRY(pick(g, error));
  for (;;) {
    if (g->tokens[0] == generation->stop_token) {
      report->end = KP_END_STOP_TOKEN;
      return KP_OK;
    }
    append(g);
    KP_TRY(emit(g, g->tokens[0], &more, error));
    if (report->tokens == generation->tokens) return KP_OK;
    if (!more || interrupted(generation)) {
      report->end = KP_END_INTERRUPTED;
      return KP_OK;
    }
    KP_TRY(step(g, error));
  }
}

static int compare_reals(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void sum_up(generator *g) {
  kp_generation_report *report = g->report;
  const int64_t steps = report->steps;
  report->median_step = report->best_step = NAN;
  if (steps == 0) return;
  for (int64_t i = 0; i < steps; i++) report->step_seconds += g->seconds[i];
  qsort(g->seconds, (size_t)steps, sizeof *g->seconds, compare_reals);
  report->median_step = (g->seconds[(steps - 1) / 2] + g->seconds[steps / 2]) / 2;
  /* Of passes that queue behind one another, two may end while the host looks away: no time is theirs alone.
   */
  report->best_step = g->ahead ? report->median_step : g->seconds[0];
  report->cache_bytes /= (double)steps;
}

kp_status kp_generate(kp_decoder *decoder, kp_token_sampler *sampler, const kp_generation *generation,
                      kp_generation_report *report, kp_error *error) {
  generator g = {.decoder = decoder,
                 .sampler = sampler,
                 .generation = generation,
                 .report = report,
                 .sequences = generation->sequences > 0 ? generation->sequences : 1};
  kp_status status = set_up(&g, error);
  if (status == KP_OK) status = read_prompt(&g, error);
  if (status == KP_OK) status = write_tokens(&g, error);
  if (status == KP_OK) {
    sum_up(&g);
    if (makes_text(generation)) kp_text_stream_finish(&g.stream);
  }
  tear_down(&g);
  return status;
}

kp_status kp_prompt_encode(const kp_tokenizer *tokenizer, const char *text, size_t size, int32_t **tokens,
                           int64_t *count, kp_error *error) {
  size_t encoded;
  if (size == 0)
    return kp_fail(error, KP_ERR_INPUT, "the prompt is empty: a model needs a token to go on from");
  if (kp_tokenizer_encode(tokenizer, text, size, tokens, &encoded, error) != KP_OK)
    return kp_context(error, "the prompt");
  *count = (int64_t)encoded;
  return KP_OK;
}
