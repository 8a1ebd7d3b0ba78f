/* Chooses the next token from logits.
 *
 * The logits go through these stages, each on what the last one left:
 *
 *   repetition penalty   of tokens among the newest `repetition_window`: a logit above 0 is divided by the
 *                        penalty, one below 0 multiplied by it (Keskar et al. 2019, section 4.1, whose
 *                        division alone would reward tokens with logits below 0)
 *   temperature          logits are divided by it; 0 takes the largest logit and skips the rest
 *   top-k                the k largest logits (Fan et al. 2018)
 *   top-p                the fewest tokens, likeliest first, whose probabilities reach p: the nucleus
 *                        (Holtzman et al. 2020, section 3.1)
 *   min-p                tokens at least min_p times as likely as the likeliest (Nguyen et al. 2024)
 *
 * and what is left is drawn from in proportion to its probability.  Of equal logits the smaller token id
 * stands first.  Everything is computed in double.  The random number of a token is a pure function of
 * (seed, sample, position), and tokens are laid out in the order of their ids when it picks one, so that
 * logits that differ by rounding give the same text except where a number falls within the rounding. */
#ifndef KAPPA_INFER_SAMPLER_H
#define KAPPA_INFER_SAMPLER_H

#include <stdint.h>

#include "core/error.h"

typedef struct kp_token_sampler_options {
  double temperature;        /* >= 0 */
  int64_t top_k;             /* 0: no bound */
  double top_p;              /* (0, 1]; 1: no bound */
  double min_p;              /* [0, 1); 0: no bound */
  double repetition_penalty; /* [1, 1000]; 1: none */
  int64_t repetition_window; /* >= 0 */
  uint64_t seed;
} kp_token_sampler_options;

typedef struct kp_token_sampler kp_token_sampler;

/* What `kappa sample` starts from: temperature 0.8, top-k 200, no other bound, seed 1337. */
kp_token_sampler_options kp_token_sampler_defaults(void);

/* Chooses among the tokens below `vocabulary`; a model may have more logits than its tokenizer has tokens.
 * Fails on an option outside its range.  Destroy with kp_token_sampler_destroy. */
kp_status kp_token_sampler_create(const kp_token_sampler_options *options, int64_t vocabulary,
                                  kp_token_sampler **sampler, kp_error *error);
/* Another of the same options: a sampler works for one thread at a time. */
kp_status kp_token_sampler_twin(const kp_token_sampler *sampler, kp_token_sampler **twin, kp_error *error);
const kp_token_sampler_options *kp_token_sampler_options_of(const kp_token_sampler *sampler);
int64_t kp_token_sampler_vocabulary(const kp_token_sampler *sampler);
void kp_token_sampler_destroy(kp_token_sampler *sampler);

/* The probabilities (V) with which a token is drawn, given logits (V or more) and the sequence so far, whose
 * end the penalty looks at.  They sum to 1 and live until the next call.  A logit that is not finite is an
 * error that names the token. */
kp_status kp_token_sampler_distribution(kp_token_sampler *sampler, const double *logits,
                                        const int32_t *sequence, int64_t length, const double **probabilities,
                                        kp_error *error);

/* Draws the token at position `length` of sample `sample`. */
kp_status kp_token_sampler_pick(kp_token_sampler *sampler, const double *logits, const int32_t *sequence,
                                int64_t length, uint64_t sample, int32_t *token, kp_error *error);

#endif
