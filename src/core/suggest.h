/* "Did you mean …?": how far one word is from another. */
#ifndef KAPPA_CORE_SUGGEST_H
#define KAPPA_CORE_SUGGEST_H

#include <stdbool.h>
#include <stddef.h>

/* Words longer than this are far from everything. */
enum { KP_SUGGEST_LIMIT = 255 };

/* The least number of bytes to insert, delete, replace or swap with their
 * neighbour to turn `a` into `b` (optimal string alignment distance).
 * Returns SIZE_MAX when either is longer than KP_SUGGEST_LIMIT. */
size_t kp_edit_distance(const char *a, const char *b);

/* Whether a word at that distance of what was typed is worth suggesting. */
bool kp_edit_distance_is_near(size_t distance, const char *typed);

#endif
