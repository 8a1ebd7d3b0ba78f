#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/piece_pattern.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <pcre2.h>

/* The machine code's stack: begins small, and grows for patterns that go back far. */
enum { STACK_FIRST = 32 * 1024, STACK_MOST = 16 * 1024 * 1024 };

/* Steps back that a match may take; a hostile pattern reaches them in a fraction of a second. */
enum { MATCH_LIMIT = 10000000 };

struct kp_pattern {
  pcre2_code *code; /* owned */
  bool compiled;    /* to machine code */
};

struct kp_pattern_search {
  const kp_pattern *pattern;
  pcre2_match_data *data;
  pcre2_match_context *context;
  pcre2_jit_stack *stack; /* all owned */
};

/* ---- Oniguruma's words in PCRE2's ---- */

/* What stands for an escape, as members of a character class.  White_Space and its complement (Unicode,
 * PropList.txt); Nd; word characters as Oniguruma has them: letters, marks, digits, letter numbers,
 * connectors, the alphabetic symbols, and, outside of a class only, the numbers of Latin-1. */
#define WHITE_SPACE                                                                                          \
  "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{"   \
  "3000}"
#define NOT_WHITE_SPACE                                                                                      \
  "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"            \
  "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
/* What Unicode 15 and 16 added to the letters and numbers of Unicode 14 (DerivedGeneralCategory.txt), so that
 * text is cut alike with older versions of PCRE2. */
#define NEW_LETTERS                                                                                          \
  "\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}"                           \
  "\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}"                     \
  "\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}"             \
  "\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}"                      \
  "\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}\\x{16d40}-\\x{16d6c}\\x{18cff}"           \
  "\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}"                      \
  "\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NEW_DIGITS                                                                                           \
  "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}"                     \
  "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}"                                          \
  "\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"
#define NEW_NUMBERS NEW_DIGITS "\\x{1d2c0}-\\x{1d2d3}"
#define DIGITS      "\\p{Nd}" NEW_DIGITS
#define LETTERS     "\\p{L}" NEW_LETTERS
#define NUMBERS     "\\p{N}" NEW_NUMBERS
#define WORD                                                                                                 \
  LETTERS DIGITS "\\p{M}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{"     \
                 "1f170}-\\x{1f189}"
#define WORD_ALONE WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

/* An escape, written inside a class and outside; NULL: refused there. */
typedef struct replacement {
  const char *escape, *inside, *outside;
} replacement;

static const replacement replacements[] = {
    {"\\s", WHITE_SPACE, "[" WHITE_SPACE "]"},
    {"\\S", NOT_WHITE_SPACE, "[" NOT_WHITE_SPACE "]"},
    {"\\d", DIGITS, "[" DIGITS "]"},
    {"\\D", NULL, "[^" DIGITS "]"},
    {"\\w", WORD, "[" WORD_ALONE "]"},
    {"\\W", NULL, "[^" WORD_ALONE "]"},
    {"\\p{L}", LETTERS, "[" LETTERS "]"},
    {"\\P{L}", NULL, "[^" LETTERS "]"},
    {"\\p{N}", NUMBERS, "[" NUMBERS "]"},
    {"\\P{N}", NULL, "[^" NUMBERS "]"},
    {"\\h", NULL, NULL},
    {"\\H", NULL, NULL},
};

/* A pattern on its way. */
typedef struct translation {
  const char *words;
  size_t at; /* the next character of `words` */
  char *out;
  size_t used, room;
  bool in_class;
  size_t class_begin; /* where the class's first member may stand: a ']' there is one */
  kp_error *error;
} translation;

static kp_status refuse(const translation *t, const char *what) {
  return kp_fail(t->error, KP_ERR_UNSUPPORTED,
                 "the pattern \"%s\" has %s at byte %zu, which is not supported", t->words, what, t->at);
}

/* Appends to the translation, which is closed by a zero. */
static kp_status put(translation *t, const char *words, size_t size) {
  if (t->room - t->used <= size) {
    const size_t room = 2 * (t->room + size) + 64;
    char *grown = realloc(t->out, room);
    if (grown == NULL) return kp_fail(t->error, KP_ERR_MEMORY, "no memory for a pattern");
    t->out = grown;
    t->room = room;
  }
  memcpy(t->out + t->used, words, size);
  t->used += size;
  t->out[t->used] = 0;
  return KP_OK;
}

/* Takes over the next characters as they are. */
static kp_status copy(translation *t, size_t count) {
  t->at += count;
  return put(t, t->words + t->at - count, count);
}

static kp_status translate_escape(translation *t) {
  const char *at = t->words + t->at;
  for (size_t i = 0; i < sizeof replacements / sizeof *replacements; i++) {
    const size_t size = strlen(replacements[i].escape);
    if (strncmp(at, replacements[i].escape, size) != 0) continue;
    const char *with = t->in_class ? replacements[i].inside : replacements[i].outside;
    if (with == NULL) return refuse(t, replacements[i].escape);
    t->at += size;
    return put(t, with, strlen(with));
  }
  return copy(t, at[1] == 0 ? 1 : 2);
}

static kp_status translate_in_class(translation *t) {
  const char *at = t->words + t->at;
  if (at[0] == '[' && at[1] == ':') {
    const char *end = strstr(at, ":]");
    if (end == NULL) return refuse(t, "'[:' without ':]'");
    return copy(t, (size_t)(end - at) + 2);
  }
  if (at[0] == '[') return refuse(t, "'[' inside a class (write \\[)");
  if (at[0] == '&' && at[1] == '&') return refuse(t, "'&&' inside a class");
  t->in_class = at[0] != ']' || t->at == t->class_begin;
  return copy(t, 1);
}

/* A quantifier {n,m}: true when it is one, with its bytes. */
static bool is_interval(const char *at, size_t *size) {
  size_t length = 1 + strspn(at + 1, "0123456789");
  if (length == 1) return false;
  if (at[length] == ',') length++;
  length += strspn(at + length, "0123456789");
  if (at[length] != '}') return false;
  *size = length + 1;
  return true;
}

static kp_status translate_outside(translation *t) {
  const char *at = t->words + t->at;
  size_t size = 1;
  if (at[0] == '{' && at[1] == ',') return refuse(t, "'{,' (write {0,n})");
  if (at[0] == '{' && is_interval(at, &size) && at[size] == '+')
    return refuse(t, "'+' behind {n,m}, which programs read differently,");
  if (at[0] == '[') {
    size += at[1] == '^';
    t->in_class = true;
    t->class_begin = t->at + size;
  }
  return copy(t, size);
}

/* The pattern for PCRE2, which the caller frees. */
static kp_status translate(const char *words, char **out, kp_error *error) {
  translation t = {.words = words, .error = error};
  kp_status status = put(&t, "", 0);
  while (words[t.at] != 0 && status == KP_OK)
    status = words[t.at] == '\\' ? translate_escape(&t)
             : t.in_class        ? translate_in_class(&t)
                                 : translate_outside(&t);
  *out = t.out;
  if (status != KP_OK) free(t.out);
  return status;
}

/* ---- compiling and searching ---- */

static kp_status compile(const char *words, const char *translated, kp_pattern *pattern, kp_error *error) {
  int code;
  PCRE2_SIZE place;
  pattern->code =
      pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED,
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &place, NULL);
  if (pattern->code == NULL) {
    char fault[256];
    pcre2_get_error_message(code, (PCRE2_UCHAR *)fault, sizeof fault);
    return kp_fail(error, KP_ERR_INPUT, "the pattern \"%s\" is not a regular expression: %s", words, fault);
  }
  /* Without machine code, on processors that PCRE2 has none for, it is interpreted. */
  pattern->compiled = pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE) == 0;
  return KP_OK;
}

kp_status kp_pattern_create(const char *words, kp_pattern **result, kp_error *error) {
  char *translated = NULL;
  KP_TRY(translate(words, &translated, error));
  kp_pattern *pattern = calloc(1, sizeof *pattern);
  kp_status status = pattern == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for a pattern")
                                     : compile(words, translated, pattern, error);
  free(translated);
  if (status == KP_OK)
    *result = pattern;
  else
    free(pattern);
  return status;
}

void kp_pattern_destroy(kp_pattern *pattern) {
  if (pattern == NULL) return;
  pcre2_code_free(pattern->code);
  free(pattern);
}

kp_status kp_pattern_search_create(const kp_pattern *pattern, kp_pattern_search **result, kp_error *error) {
  kp_pattern_search *search = calloc(1, sizeof *search);
  if (search == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a search");
  search->pattern = pattern;
  search->data = pcre2_match_data_create(1, NULL);
  search->context = pcre2_match_context_create(NULL);
  search->stack = pattern->compiled ? pcre2_jit_stack_create(STACK_FIRST, STACK_MOST, NULL) : NULL;
  if (search->data == NULL || search->context == NULL || (pattern->compiled && search->stack == NULL)) {
    kp_pattern_search_destroy(search);
    return kp_fail(error, KP_ERR_MEMORY, "no memory for a search");
  }
  if (search->stack != NULL) pcre2_jit_stack_assign(search->context, NULL, search->stack);
  *result = search;
  return KP_OK;
}

void kp_pattern_search_destroy(kp_pattern_search *search) {
  if (search == NULL) return;
  pcre2_match_data_free(search->data);
  pcre2_match_context_free(search->context);
  pcre2_jit_stack_free(search->stack);
  free(search);
}

kp_status kp_pattern_find(kp_pattern_search *search, const char *text, size_t size, size_t from,
                          size_t *begin, size_t *end, kp_error *error) {
  /* Steps back over a long run count as work, too: linear work is not the pattern's fault. */
  const size_t work = MATCH_LIMIT + 2 * (size - from);
  pcre2_set_match_limit(search->context, work > UINT32_MAX ? UINT32_MAX : (uint32_t)work);
  const int found = pcre2_match(search->pattern->code, (PCRE2_SPTR)text, size, from, PCRE2_NO_UTF_CHECK,
                                search->data, search->context);
  *begin = *end = SIZE_MAX;
  if (found == PCRE2_ERROR_NOMATCH) return KP_OK;
  if (found < 0) {
    char fault[256];
    pcre2_get_error_message(found, (PCRE2_UCHAR *)fault, sizeof fault);
    return kp_fail(error, KP_ERR_UNSUPPORTED, "the tokenizer's pattern cannot cut the text near byte %zu: %s",
                   from, fault);
  }
  const PCRE2_SIZE *place = pcre2_get_ovector_pointer(search->data);
  *begin = place[0];
  *end = place[1];
  /* \K in a look-ahead can put the begin behind the end. */
  if (*begin > *end || *begin < from)
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "the tokenizer's pattern moves the begin of its match: \\K is not supported");
  return KP_OK;
}
