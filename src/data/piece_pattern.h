/* One pattern of a pretokenizer, compiled by PCRE2.
 *
 * Patterns are written for Oniguruma with Ruby's syntax.  What PCRE2 reads in the same way is passed on; ^
 * and $ are at every line.  \s, \S, \d, \D, \w, \W, \p{L} and \p{N} are written out as Oniguruma's classes of
 * Unicode 16: PCRE2 counts other characters to some, and its version of Unicode may be older.  What the two
 * read differently is refused: \h, \H, the complements \D, \W, \P{L} and \P{N} in a class, classes in classes
 * and their intersection, {,n}, and a '+' behind {n,m}. */
#ifndef KAPPA_DATA_PIECE_PATTERN_H
#define KAPPA_DATA_PIECE_PATTERN_H

#include <stddef.h>

#include "core/error.h"

typedef struct kp_pattern kp_pattern;

/* Compiles; the error quotes the pattern and says where it is wrong. */
kp_status kp_pattern_create(const char *words, kp_pattern **pattern, kp_error *error);
void kp_pattern_destroy(kp_pattern *pattern);

/* What one thread needs to search. */
typedef struct kp_pattern_search kp_pattern_search;
kp_status kp_pattern_search_create(const kp_pattern *pattern, kp_pattern_search **search, kp_error *error);
void kp_pattern_search_destroy(kp_pattern_search *search);

/* The first match at byte `from` of the text or behind it; begin = end = SIZE_MAX: there is none.  The text
 * is valid UTF-8 and `from` is at a character. */
kp_status kp_pattern_find(kp_pattern_search *search, const char *text, size_t size, size_t from,
                          size_t *begin, size_t *end, kp_error *error);

#endif
