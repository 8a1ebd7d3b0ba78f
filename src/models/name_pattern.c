#define _POSIX_C_SOURCE 200809L /* fnmatch */

#include "models/name_pattern.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

enum { GLOBS = 5 };

/* Words that stand for several globs. */
static const struct {
  const char *word, *globs[GLOBS];
} words[] = {
    {"embedding", {"transformer.wte.*", "transformer.wpe.*"}},
    {"head", {"lm_head.*", "classifier.weight", "classifier.bias"}},
    {"attention", {"transformer.h.*.attn.*"}},
    {"feed_forward", {"transformer.h.*.mlp.*"}},
    {"norms", {"*.ln_?.*", "*.norm.weight", "*.norm.bias", "*_norm.weight"}},
    {"curvature", {"*curvature*"}},
};

static bool glob(const char *pattern, const char *name) {
  return fnmatch(pattern, name, 0) == 0;
}

static bool is_word(const char *pattern, const char *name, bool *matches) {
  for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
    if (strcmp(words[w].word, pattern) != 0) continue;
    *matches = false;
    for (int g = 0; g < GLOBS && words[w].globs[g] != NULL; g++) *matches |= glob(words[w].globs[g], name);
    return true;
  }
  return false;
}

/* "3" or "0-5" at the front of *text, which moves behind it. */
static bool take_range(const char **text, long *first, long *last) {
  char *end;
  if (strspn(*text, "0123456789") == 0) return false;
  *first = *last = strtol(*text, &end, 10);
  if (*end == '-' && strspn(end + 1, "0123456789") > 0) *last = strtol(end + 1, &end, 10);
  *text = end;
  return *end == 0 || *end == '.';
}

/* What stands in the pattern behind "blocks". */
static bool matches_block(const char *rest, const char *name) {
  static const char prefix[] = "transformer.h.";
  long first = 0, last = 0;
  char *end;
  bool matches;
  if (strncmp(name, prefix, strlen(prefix)) != 0) return false;
  const long block = strtol(name + strlen(prefix), &end, 10);
  if (*rest == 0) return true;
  rest++;
  if (!take_range(&rest, &first, &last) || block < first || block > last) return false;
  if (*rest == 0) return true;
  return is_word(rest + 1, name, &matches) ? matches : *end == '.' && glob(rest + 1, end + 1);
}

bool kp_name_matches(const char *pattern, const char *name) {
  static const char blocks[] = "blocks";
  bool matches;
  if (is_word(pattern, name, &matches)) return matches;
  const char *rest = pattern + strlen(blocks);
  if (strncmp(pattern, blocks, strlen(blocks)) == 0 && (*rest == 0 || *rest == '.'))
    return matches_block(rest, name);
  return glob(pattern, name);
}

bool kp_name_is_among(const char *const *patterns, size_t count, const char *name) {
  for (size_t i = 0; i < count; i++)
    if (kp_name_matches(patterns[i], name)) return true;
  return false;
}
