/* A model that reads tokens as they come and says what may come next.
 *
 * Tokens are fed a few at a time to B sequences that go on side by side; keys, values and reference points
 * of the tokens so far are cached, so a new token costs one pass over one position.  Many tokens at once
 * (a prompt) run through graphs for many positions that share the caches.
 *
 * The context is finite.  When tokens would go beyond it, the newest half of the context is read anew from
 * position 0 and the sequence goes on: nothing is refused however long it grows, and each token sees at
 * least half a context of past.
 *
 * A model that cannot be cached (kp_model_uncacheable) runs whole over the newest tokens, a full context of
 * them at most, at every feed.  The interface is the same. */
#ifndef KAPPA_INFER_DECODER_H
#define KAPPA_INFER_DECODER_H

#include "infer/ahead.h"
#include "models/model.h"

typedef struct kp_decoder kp_decoder;

typedef struct kp_decoder_options {
  int64_t batch; /* B; 0: 1 */
  int64_t chunk; /* most tokens of one pass, which bounds its memory; 0: 256 */
  int threads;   /* 0: all */
} kp_decoder_options;

/* `model` and `parameters` (allocated, with values) must outlive the decoder; their backend is used.
 * Destroy with kp_decoder_destroy. */
kp_status kp_decoder_create(const kp_model_options *model, kp_parameters *parameters,
                            const kp_decoder_options *options, kp_decoder **decoder, kp_error *error);
void kp_decoder_destroy(kp_decoder *decoder);

/* Appends `tokens` (B, count), count > 0.  A token outside the vocabulary is an error that leaves the decoder
 * as it was; after any other error, and to begin another text, reset it. */
kp_status kp_decoder_feed(kp_decoder *decoder, const int32_t *tokens, int64_t count, kp_error *error);

/* Where a device can choose tokens itself, they need not wait for the host: whether it can with such options.
 */
bool kp_decoder_chooses(const kp_decoder *decoder, const kp_token_sampler_options *options);
/* After a feed: the next tokens are chosen so, and each is fed by itself.  Until a reset nothing else is fed,
 * and there are no logits. */
kp_status kp_decoder_begin_choosing(kp_decoder *decoder, const kp_choices *choices, kp_error *error);
/* The next of them, (B); no more than were asked for. */
kp_status kp_decoder_choose(kp_decoder *decoder, int32_t *tokens, kp_error *error);

/* Forgets all tokens. */
void kp_decoder_reset(kp_decoder *decoder);

/* Logits (V) of what follows the last token of sequence `row`; they live until the next feed.  There must
 * have been one since creation or reset. */
const double *kp_decoder_logits(const kp_decoder *decoder, int64_t row);

/* Tokens in the context now. */
int64_t kp_decoder_position(const kp_decoder *decoder);

/* Bytes of parameters that one pass over one position reads: what the speed of memory bounds decoding by.
 * Of tables that are only looked up, the rows that are read. */
double kp_decoder_parameter_bytes(const kp_decoder *decoder);

/* Bytes that one token of one sequence takes in the caches of keys and values, or of latents: for latent
 * attention (rank + rotary channels) numbers a block. */
double kp_decoder_token_bytes(const kp_decoder *decoder);

/* Bytes of the caches that a pass over one position reads at the present position. */
double kp_decoder_cache_bytes(const kp_decoder *decoder);

#endif
