#include "infer/generate.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

typedef struct generator {
  kp_decoder *decoder;
  kp_token_sampler *sampler;
  const kp_generation *generation;
  kp_generation_report *report;
  kp_text_stream stream;
  int32_t *sequence; /* the prompt and what was generated */
  int64_t length;    /* of the sequence */
  double *seconds;   /* of each step */
} generator;

static kp_status set_up(generator *g, kp_error *error) {
  const kp_generation *generation = g->generation;
  kp_assert(generation->prompt_length > 0 && generation->tokens > 0, "%lld tokens after a prompt of %lld",
            (long long)generation->tokens, (long long)generation->prompt_length);
  const size_t longest = (size_t)(generation->prompt_length + generation->tokens);
  g->stream = (kp_text_stream){.sink = generation->sink, .context = generation->context};
  g->sequence = malloc(longest * sizeof *g->sequence);
  g->seconds = malloc((size_t)generation->tokens * sizeof *g->seconds);
  if (g->sequence == NULL || g->seconds == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu tokens", longest);
  g->length = generation->prompt_length;
  memcpy(g->sequence, generation->prompt, (size_t)g->length * sizeof *g->sequence);
  *g->report = (kp_generation_report){.prompt_tokens = g->length,
                                      .parameter_bytes = kp_decoder_parameter_bytes(g->decoder),
                                      .token_bytes = kp_decoder_token_bytes(g->decoder)};
  return KP_OK;
}

static void tear_down(generator *g) {
  free(g->sequence);
  free(g->seconds);
}

static bool makes_text(const kp_generation *generation) {
  return generation->tokenizer != NULL && generation->sink != NULL;
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
  kp_decoder_reset(g->decoder);
  KP_TRY(kp_decoder_feed(g->decoder, g->sequence, g->length, error));
  g->report->prompt_seconds = omp_get_wtime() - start;
  return KP_OK;
}

static kp_status pick(generator *g, int32_t *token, kp_error *error) {
  return kp_token_sampler_pick(g->sampler, kp_decoder_logits(g->decoder, 0), g->sequence, g->length,
                               g->generation->sample, token, error);
}

/* Reads the last token and picks the next. */
static kp_status step(generator *g, int32_t *token, kp_error *error) {
  kp_generation_report *report = g->report;
  const double start = omp_get_wtime();
  KP_TRY(kp_decoder_feed(g->decoder, token, 1, error));
  KP_TRY(pick(g, token, error));
  g->seconds[report->steps++] = omp_get_wtime() - start;
  report->cache_bytes += kp_decoder_cache_bytes(g->decoder);
  return KP_OK;
}

static kp_status write_tokens(generator *g, kp_error *error) {
  const kp_generation *generation = g->generation;
  kp_generation_report *report = g->report;
  int32_t token;
  bool more;
  KP_TRY(pick(g, &token, error));
  for (;;) {
    if (token == generation->stop_token) {
      report->end = KP_END_STOP_TOKEN;
      return KP_OK;
    }
    g->sequence[g->length++] = token;
    report->tokens++;
    KP_TRY(emit(g, token, &more, error));
    if (report->tokens == generation->tokens) return KP_OK;
    if (!more || interrupted(generation)) {
      report->end = KP_END_INTERRUPTED;
      return KP_OK;
    }
    KP_TRY(step(g, &token, error));
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
  report->best_step = g->seconds[0];
  report->median_step = (g->seconds[(steps - 1) / 2] + g->seconds[steps / 2]) / 2;
  report->cache_bytes /= (double)steps;
}

kp_status kp_generate(kp_decoder *decoder, kp_token_sampler *sampler, const kp_generation *generation,
                      kp_generation_report *report, kp_error *error) {
  generator g = {.decoder = decoder, .sampler = sampler, .generation = generation, .report = report};
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
