/* Patterns over the names of parameters: what a configuration means by "blocks.0-5".
 *
 *   embedding                tables of tokens and positions
 *   head                     the maps to logits and to labels, where they are not the embedding's table
 *   blocks                   all blocks; blocks.3, blocks.0-5: some, counted from 0; blocks.0-5.REST: of
 * these what REST says of a name's part behind the block ("attn.*", "attention") attention, feed_forward
 * these sub-layers of all blocks norms                    weights and biases of norms curvature learned
 * curvatures anything else            the whole name, with * and ? as in a shell: "*.attn.c_proj.*" */
#ifndef KAPPA_MODELS_NAME_PATTERN_H
#define KAPPA_MODELS_NAME_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

bool kp_name_matches(const char *pattern, const char *name);

/* Whether one of the patterns matches. */
bool kp_name_is_among(const char *const *patterns, size_t count, const char *name);

#endif
