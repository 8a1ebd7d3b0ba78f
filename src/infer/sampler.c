/* Top-k, top-p and min-p all keep the likeliest tokens down to some bound.  Top-k keeps its k in a heap with
 * the last of them on top, against which nearly every other token fails, a block of tokens in one
 * comparison; top-p and min-p take tokens from the top of a heap until their bound is met.  The vocabulary
 * is never sorted, and of the probabilities only those that are not 0 are touched: a token is picked beside
 * a GPU that waits for it. */
#include "infer/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/random.h"

typedef struct candidate {
  double logit;
  int32_t token;
} candidate;

struct kp_token_sampler {
  kp_token_sampler_options options;
  int64_t vocabulary;
  candidate *heap;        /* (V) */
  double *penalised;      /* (V) logits after the penalty, where there is one */
  double *probabilities;  /* (V) 0 but for the marked tokens */
  uint64_t *marks;        /* a bit a token: those that may be drawn */
  unsigned char *counted; /* (V) tokens that were penalised; all 0 between calls */
};

enum { MARKS = 64 }; /* of a word */

static int64_t mark_words(int64_t vocabulary) {
  return (vocabulary + MARKS - 1) / MARKS;
}

kp_token_sampler_options kp_token_sampler_defaults(void) {
  return (kp_token_sampler_options){.temperature = 0.8,
                                    .top_k = 200,
                                    .top_p = 1,
                                    .repetition_penalty = 1,
                                    .repetition_window = 64,
                                    .seed = 1337};
}

static kp_status check_options(const kp_token_sampler_options *o, kp_error *error) {
  if (!(o->temperature >= 0 && isfinite(o->temperature)))
    return kp_fail(error, KP_ERR_INPUT, "the temperature must be 0 or above, not %g", o->temperature);
  if (o->top_k < 0)
    return kp_fail(error, KP_ERR_INPUT, "top-k must be 0 (no bound) or above, not %lld", (long long)o->top_k);
  if (!(o->top_p > 0 && o->top_p <= 1))
    return kp_fail(error, KP_ERR_INPUT, "top-p must be above 0 and at most 1, not %g", o->top_p);
  if (!(o->min_p >= 0 && o->min_p < 1))
    return kp_fail(error, KP_ERR_INPUT, "min-p must be 0 or above and below 1, not %g", o->min_p);
  if (!(o->repetition_penalty >= 1 && o->repetition_penalty <= 1000))
    return kp_fail(error, KP_ERR_INPUT, "the repetition penalty must be from 1 (none) to 1000, not %g",
                   o->repetition_penalty);
  if (o->repetition_window < 0)
    return kp_fail(error, KP_ERR_INPUT, "the repetition window must be 0 or above, not %lld",
                   (long long)o->repetition_window);
  return KP_OK;
}

kp_status kp_token_sampler_create(const kp_token_sampler_options *options, int64_t vocabulary,
                                  kp_token_sampler **result, kp_error *error) {
  kp_assert(vocabulary > 0 && vocabulary <= INT32_MAX, "a vocabulary of %lld", (long long)vocabulary);
  *result = NULL;
  KP_TRY(check_options(options, error));
  kp_token_sampler *sampler = calloc(1, sizeof *sampler);
  if (sampler == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a sampler");
  sampler->options = *options;
  sampler->vocabulary = vocabulary;
  sampler->heap = malloc((size_t)vocabulary * sizeof *sampler->heap);
  sampler->penalised = malloc((size_t)vocabulary * sizeof *sampler->penalised);
  sampler->probabilities = calloc((size_t)vocabulary, sizeof *sampler->probabilities);
  sampler->marks = calloc((size_t)mark_words(vocabulary), sizeof *sampler->marks);
  sampler->counted = calloc((size_t)vocabulary, 1);
  if (sampler->heap == NULL || sampler->penalised == NULL || sampler->probabilities == NULL ||
      sampler->marks == NULL || sampler->counted == NULL) {
    kp_token_sampler_destroy(sampler);
    return kp_fail(error, KP_ERR_MEMORY, "no memory to sample from a vocabulary of %lld",
                   (long long)vocabulary);
  }
  *result = sampler;
  return KP_OK;
}

kp_status kp_token_sampler_twin(const kp_token_sampler *sampler, kp_token_sampler **twin, kp_error *error) {
  return kp_token_sampler_create(&sampler->options, sampler->vocabulary, twin, error);
}

const kp_token_sampler_options *kp_token_sampler_options_of(const kp_token_sampler *sampler) {
  return &sampler->options;
}

int64_t kp_token_sampler_vocabulary(const kp_token_sampler *sampler) {
  return sampler->vocabulary;
}

void kp_token_sampler_destroy(kp_token_sampler *sampler) {
  if (sampler == NULL) return;
  free(sampler->heap);
  free(sampler->penalised);
  free(sampler->marks);
  free(sampler->probabilities);
  free(sampler->counted);
  free(sampler);
}

/* ---- heaps ---- */

static bool before(candidate a, candidate b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

/* What stands on top of a heap. */
typedef enum heap_order { FIRST_ON_TOP, LAST_ON_TOP } heap_order;

static bool above(candidate a, candidate b, heap_order order) {
  return order == FIRST_ON_TOP ? before(a, b) : before(b, a);
}

static void sift_down(candidate *heap, int64_t at, int64_t count, heap_order order) {
  const candidate moved = heap[at];
  for (int64_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && above(heap[child + 1], heap[child], order)) child++;
    if (!above(heap[child], moved, order)) break;
    heap[at] = heap[child];
  }
  heap[at] = moved;
}

static void make_heap(candidate *heap, int64_t count, heap_order order) {
  for (int64_t at = count / 2 - 1; at >= 0; at--) sift_down(heap, at, count, order);
}

/* ---- scans ---- */

/* Logits looked at together: in as many sums or maxima as there are lanes, so that they can be vectors. */
enum { LANES = 8, BLOCK = 32 };

static double highest(const double *logits, int64_t count) {
  double lane[LANES], best = logits[0];
  int64_t i = 0;
  for (int j = 0; j < LANES; j++) lane[j] = best;
  for (; i + LANES <= count; i += LANES)
    for (int j = 0; j < LANES; j++) lane[j] = logits[i + j] > lane[j] ? logits[i + j] : lane[j];
  for (int j = 0; j < LANES; j++) best = lane[j] > best ? lane[j] : best;
  for (; i < count; i++) best = logits[i] > best ? logits[i] : best;
  return best;
}

/* A number less itself is 0, unless it is not finite. */
static bool all_finite(const double *logits, int64_t count) {
  double lane[LANES] = {0}, sum = 0;
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int j = 0; j < LANES; j++) lane[j] += logits[i + j] - logits[i + j];
  for (int j = 0; j < LANES; j++) sum += lane[j];
  for (; i < count; i++) sum += logits[i] - logits[i];
  return sum == 0;
}

static int64_t length_at(int64_t first, int64_t block, int64_t count) {
  return first + block < count ? block : count - first;
}

/* The largest logit; of equal ones the first. */
static candidate largest(const double *logits, int64_t count) {
  double best = logits[0];
  int64_t at = 0;
  for (int64_t i = 0; i < count; i += BLOCK) {
    const double here = highest(logits + i, length_at(i, BLOCK, count));
    if (!(here > best)) continue;
    best = here;
    at = i;
  }
  while (logits[at] != best) at++;
  return (candidate){best, (int32_t)at};
}

/* Brings the first `kept` of all candidates to the front, in any order. */
static void bring_forward(candidate *candidates, int64_t count, int64_t kept) {
  make_heap(candidates, kept, LAST_ON_TOP);
  for (int64_t i = kept; i < count; i++) {
    if (!before(candidates[i], candidates[0])) continue;
    candidates[0] = candidates[i];
    sift_down(candidates, 0, kept, LAST_ON_TOP);
  }
}

/* Candidates whose logit is `bound` or more, of all tokens; how many there are. */
static int64_t gather(candidate *candidates, const double *logits, int64_t count, double bound) {
  int64_t found = 0;
  for (int64_t first = 0; first < count; first += BLOCK) {
    const int64_t end = first + length_at(first, BLOCK, count);
    if (highest(logits + first, end - first) < bound) continue;
    for (int64_t i = first; i < end; i++) {
      candidates[found] = (candidate){logits[i], (int32_t)i};
      found += logits[i] >= bound;
    }
  }
  return found;
}

/* Fills the heap with the first `kept` of all tokens, in any order.  Cut into 4 · kept blocks, the tokens are
 * at least as large as the kept-th largest of the blocks' maxima in `kept` places, and in few more: that
 * bound leaves little to the heap. */
static void gather_likeliest(kp_token_sampler *sampler, const double *logits, int64_t kept) {
  enum { LEAST_BLOCK = 2 * LANES };
  const int64_t count = sampler->vocabulary, block = count / (4 * kept);
  candidate *heap = sampler->heap;
  double bound = -INFINITY;
  if (block >= LEAST_BLOCK) {
    int64_t blocks = 0;
    for (int64_t first = 0; first < count; first += block, blocks++)
      heap[blocks] = (candidate){highest(logits + first, length_at(first, block, count)), (int32_t)blocks};
    bring_forward(heap, blocks, kept);
    bound = heap[0].logit;
  }
  const int64_t found = gather(heap, logits, count, bound);
  if (kept < found) bring_forward(heap, found, kept);
}

/* ---- the stages ---- */

static kp_status check_logits(const double *logits, int64_t count, kp_error *error) {
  if (all_finite(logits, count)) return KP_OK;
  int64_t bad = 0;
  while (isfinite(logits[bad])) bad++;
  return kp_fail(error, KP_ERR_NUMERIC,
                 "the logit of token %lld is %g: the model's numbers have left their range; try an "
                 "earlier checkpoint, or backend ref to see whether precision is the cause",
                 (long long)bad, logits[bad]);
}

/* The logits after the penalty: the given ones where there is none. */
static const double *penalise(kp_token_sampler *sampler, const double *logits, const int32_t *sequence,
                              int64_t length) {
  const double penalty = sampler->options.repetition_penalty;
  const int64_t window = sampler->options.repetition_window;
  const int64_t first = length > window ? length - window : 0;
  if (penalty == 1 || first == length) return logits;
  memcpy(sampler->penalised, logits, (size_t)sampler->vocabulary * sizeof *logits);
  for (int64_t i = first; i < length; i++) {
    const int32_t token = sequence[i];
    kp_assert(token >= 0 && token < sampler->vocabulary, "token %d of %lld", token,
              (long long)sampler->vocabulary);
    double *logit = &sampler->penalised[token];
    if (sampler->counted[token]) continue;
    sampler->counted[token] = 1;
    *logit = *logit > 0 ? *logit / penalty : *logit * penalty;
  }
  for (int64_t i = first; i < length; i++) sampler->counted[sequence[i]] = 0;
  return sampler->penalised;
}

/* Takes every probability back. */
static void clear_probabilities(kp_token_sampler *sampler) {
  for (int64_t word = 0; word < mark_words(sampler->vocabulary); word++) {
    for (uint64_t left = sampler->marks[word]; left != 0; left &= left - 1)
      sampler->probabilities[word * MARKS + __builtin_ctzll(left)] = 0;
    sampler->marks[word] = 0;
  }
}

static void mark_all(kp_token_sampler *sampler) {
  const int64_t vocabulary = sampler->vocabulary, whole = vocabulary / MARKS;
  memset(sampler->marks, 0xff, (size_t)whole * sizeof *sampler->marks);
  if (vocabulary % MARKS > 0) sampler->marks[whole] = ((uint64_t)1 << vocabulary % MARKS) - 1;
}

static void set_probability(kp_token_sampler *sampler, int64_t token, double probability) {
  sampler->probabilities[token] = probability;
  sampler->marks[token / MARKS] |= (uint64_t)1 << token % MARKS;
}

/* The probability of a token over that of the likeliest, whose logit is `top`. */
static double weight_of(const kp_token_sampler *sampler, double logit, double top) {
  return exp((logit - top) / sampler->options.temperature);
}

/* No bound: every token has its probability. */
static void keep_all(kp_token_sampler *sampler, const double *logits) {
  const double top = largest(logits, sampler->vocabulary).logit;
  double sum = 0;
  for (int64_t i = 0; i < sampler->vocabulary; i++)
    sum += sampler->probabilities[i] = weight_of(sampler, logits[i], top);
  for (int64_t i = 0; i < sampler->vocabulary; i++) sampler->probabilities[i] /= sum;
  mark_all(sampler);
}

/* Candidates in their order.  Each leaves the heap for the place that the heap gives up at its end, so
 * candidate i stands i places from the end. */
typedef struct ranking {
  candidate *heap;
  int64_t count, left; /* all of them; those that are still in the heap */
} ranking;

static candidate ranked(ranking *r, int64_t i) {
  const int64_t at = r->count - 1 - i;
  while (r->left > at) {
    const candidate first = r->heap[0];
    r->heap[0] = r->heap[--r->left];
    sift_down(r->heap, 0, r->left, FIRST_ON_TOP);
    r->heap[r->left] = first;
  }
  return r->heap[at];
}

/* The `limit` first candidates, cut by top-p and min-p. */
static void keep_likeliest(kp_token_sampler *sampler, const double *logits, int64_t limit) {
  const kp_token_sampler_options *o = &sampler->options;
  double *probabilities = sampler->probabilities, total = 0, sum = 0;
  ranking r = {sampler->heap, limit, limit};
  gather_likeliest(sampler, logits, limit);
  make_heap(sampler->heap, limit, FIRST_ON_TOP);
  const double top = sampler->heap[0].logit;
  for (int64_t i = 0; i < limit && o->top_p < 1; i++)
    total += weight_of(sampler, sampler->heap[i].logit, top);
  int64_t kept = 0;
  for (; kept < limit && (o->top_p == 1 || sum < o->top_p * total); kept++) {
    const candidate c = ranked(&r, kept);
    const double weight = weight_of(sampler, c.logit, top);
    if (weight < o->min_p) break;
    set_probability(sampler, c.token, weight);
    sum += weight;
  }
  for (int64_t i = 0; i < kept; i++) probabilities[ranked(&r, i).token] /= sum;
}

kp_status kp_token_sampler_distribution(kp_token_sampler *sampler, const double *logits,
                                        const int32_t *sequence, int64_t length, const double **probabilities,
                                        kp_error *error) {
  const kp_token_sampler_options *o = &sampler->options;
  const int64_t vocabulary = sampler->vocabulary;
  const int64_t limit = o->top_k > 0 && o->top_k < vocabulary ? o->top_k : vocabulary;
  KP_TRY(check_logits(logits, vocabulary, error));
  logits = penalise(sampler, logits, sequence, length);
  clear_probabilities(sampler);
  if (o->temperature == 0)
    set_probability(sampler, largest(logits, vocabulary).token, 1);
  else if (limit == vocabulary && o->top_p == 1 && o->min_p == 0)
    keep_all(sampler, logits);
  else
    keep_likeliest(sampler, logits, limit);
  *probabilities = sampler->probabilities;
  return KP_OK;
}

kp_status kp_token_sampler_pick(kp_token_sampler *sampler, const double *logits, const int32_t *sequence,
                                int64_t length, uint64_t sample, int32_t *token, kp_error *error) {
  const double *probabilities;
  KP_TRY(kp_token_sampler_distribution(sampler, logits, sequence, length, &probabilities, error));
  double left = kp_random_uniform(sampler->options.seed, KP_RANDOM_SAMPLING, (uint32_t)length, sample);
  *token = -1;
  for (int64_t word = 0; word < mark_words(sampler->vocabulary); word++)
    for (uint64_t marks = sampler->marks[word]; marks != 0; marks &= marks - 1) {
      const int64_t i = word * MARKS + __builtin_ctzll(marks);
      if (probabilities[i] == 0) continue;
      *token = (int32_t)i; /* the last one stands should the probabilities sum to a little less than 1 */
      left -= probabilities[i];
      if (left < 0) return KP_OK;
    }
  return KP_OK;
}
