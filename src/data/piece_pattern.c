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

/* Ranges of a character class: White_Space and its complement (Unicode, PropList.txt), Nd, and the word
 * characters: letters, marks, digits, letter numbers, connectors, and the alphabetic symbols. */
#define WHITE_SPACE                                                                                          \
  "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{"   \
  "3000}"
#define NOT_WHITE_SPACE                                                                                      \
  "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"            \
  "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORD                                                                                                 \
  "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}"           \
  "\\x{1f170}-\\x{1f189}"

/* An escape, written inside a class and outside. */
typedef struct replacement {
  char letter;
  const char *inside, *outside;
} replacement;

static const replacement replacements[] = {
    {'s', WHITE_SPACE, "[" WHITE_SPACE "]"},
    {'S', NOT_WHITE_SPACE, "[" NOT_WHITE_SPACE "]"},
    {'d', "\\p{Nd}", "\\p{Nd}"},
    {'D', "\\P{Nd}", "\\P{Nd}"},
    {'w', WORD, "[" WORD "]"},
    {'W', NULL, "[^" WORD "]"},
    {'h', NULL, NULL},
    {'H', NULL, NULL},
};

/* The longest replacement, with room to spare. */
enum { REPLACEMENT_ROOM = 256 };
_Static_assert(sizeof "[" NOT_WHITE_SPACE "]" <= REPLACEMENT_ROOM && sizeof "[^" WORD "]" <= REPLACEMENT_ROOM,
               "replacements fit their room");

/* A pattern on its way. */
typedef struct translation {
  const char *words;
  size_t at; /* the next character of `words` */
  char *out;
  size_t used;
  bool in_class;
  size_t class_begin; /* where the class's first member may stand: a ']' there is one */
  kp_error *error;
} translation;

static kp_status refuse(const translation *t, const char *what) {
  return kp_fail(t->error, KP_ERR_UNSUPPORTED,
                 "the pattern \"%s\" has %s at byte %zu, which is not supported", t->words, what, t->at);
}

static void copy(translation *t, size_t count) {
  memcpy(t->out + t->used, t->words + t->at, count);
  t->used += count;
  t->at += count;
}

static kp_status translate_escape(translation *t) {
  const char letter = t->words[t->at + 1];
  for (size_t i = 0; i < sizeof replacements / sizeof *replacements; i++) {
    if (replacements[i].letter != letter) continue;
    const char *with = t->in_class ? replacements[i].inside : replacements[i].outside;
    const char name[] = {'\\', letter, 0};
    if (with == NULL) return refuse(t, name);
    memcpy(t->out + t->used, with, strlen(with));
    t->used += strlen(with);
    t->at += 2;
    return KP_OK;
  }
  copy(t, letter == 0 ? 1 : 2);
  return KP_OK;
}

static kp_status translate_in_class(translation *t) {
  const char *at = t->words + t->at;
  if (at[0] == '[' && at[1] == ':') {
    const char *end = strstr(at, ":]");
    if (end == NULL) return refuse(t, "'[:' without ':]'");
    copy(t, (size_t)(end - at) + 2);
    return KP_OK;
  }
  if (at[0] == '[') return refuse(t, "'[' inside a class (write \\[)");
  if (at[0] == '&' && at[1] == '&') return refuse(t, "'&&' inside a class");
  t->in_class = at[0] != ']' || t->at == t->class_begin;
  copy(t, 1);
  return KP_OK;
}

/* A quantifier {n,m}: true when it is one, with its bytes. */
static bool is_interval(const char *at, size_t *size) {
  size_t length = 1 + strspn(at + 1, "0123456789");
  if (length == 1) return false;
  if (at[length] == ',') length++;
  length += strspn(at + length, "0123456789");
  *size = length + 1;
  return at[length] == '}';
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
  copy(t, size);
  return KP_OK;
}

/* The pattern for PCRE2, which the caller frees. */
static kp_status translate(const char *words, char **out, kp_error *error) {
  /* An escape of two characters becomes one replacement at most. */
  translation t = {
      .words = words, .error = error, .out = malloc((strlen(words) + 1) * REPLACEMENT_ROOM / 2 + 1)};
  if (t.out == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for a pattern of %zu bytes", strlen(words));
  kp_status status = KP_OK;
  while (words[t.at] != 0 && status == KP_OK)
    status = words[t.at] == '\\' ? translate_escape(&t)
             : t.in_class        ? translate_in_class(&t)
                                 : translate_outside(&t);
  t.out[t.used] = 0;
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
