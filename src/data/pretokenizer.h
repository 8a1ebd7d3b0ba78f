/* Cuts text into the pieces that byte-pair encoding works on, by regular expressions.
 *
 * A pretokenizer is a list of patterns.  The first cuts the text: every match is a piece, and so is what lies
 * between two matches; each further pattern cuts the pieces of the one before.  So read Hugging Face's Split
 * (behaviour Isolated), ByteLevel and Sequence.  No pattern: the text is one piece.  Pieces are never empty
 * and together are the text.
 *
 * Patterns are those of Oniguruma, which Hugging Face's tokenizers use, as far as PCRE2 has the same: \s, \d
 * and \w are Unicode's classes; what the two read differently is refused by name.  The patterns of GPT-2 and
 * Llama 3 are cut by hand-written code (data/piece_scan.h), all others by PCRE2's compiler.
 *
 * A pretokenizer never changes, so threads may share it; a kp_pieces is one thread's. */
#ifndef KAPPA_DATA_PRETOKENIZER_H
#define KAPPA_DATA_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"
#include "data/tokenizer.h"

/* The published patterns of GPT-2 (also ByteLevel's own) and of Llama 3. */
#define KP_PATTERN_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define KP_PATTERN_LLAMA3                                                                                    \
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"   \
  "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* No tokenizer needs more patterns than this. */
enum { KP_PRETOKENIZER_PATTERNS = 16 };

typedef struct kp_pretokenizer kp_pretokenizer;

/* From `count` patterns, which are copied.  With `only_pcre2` none is cut by hand-written code: for tests.  A
 * pattern that cannot be used is an error that quotes it. */
kp_status kp_pretokenizer_create(const char *const *patterns, size_t count, bool only_pcre2,
                                 kp_pretokenizer **pretokenizer, kp_error *error);
void kp_pretokenizer_destroy(kp_pretokenizer *pretokenizer);

size_t kp_pretokenizer_count(const kp_pretokenizer *pretokenizer);
const char *kp_pretokenizer_pattern(const kp_pretokenizer *pretokenizer, size_t i);

/* The first place behind `from`, at a character, where the text is cut whatever stands around it; `size`
 * where none is known, which is so for patterns other than those two.  Both sides, cut by themselves, give
 * the pieces of the whole.  Bytes that are not UTF-8 do no harm: no place is at one. */
size_t kp_pretokenizer_cut(const kp_pretokenizer *pretokenizer, const char *text, size_t size, size_t from);

typedef struct kp_pieces kp_pieces;

/* What one thread needs to cut; the pretokenizer must outlive it. */
kp_status kp_pieces_create(const kp_pretokenizer *pretokenizer, kp_pieces **pieces, kp_error *error);
void kp_pieces_destroy(kp_pieces *pieces);

/* Begins a text, which must be valid UTF-8 (kp_utf8_check) and stay where it is. */
void kp_pieces_begin(kp_pieces *pieces, const char *text, size_t size);

/* The next piece, a view into the text; its size is 0 behind the last.  Fails only where a pattern asks PCRE2
 * for more work or memory than its limits, and names the place. */
kp_status kp_pieces_next(kp_pieces *pieces, kp_text_view *piece, kp_error *error);

#endif
