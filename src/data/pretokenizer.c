#include "data/pretokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/piece_pattern.h"
#include "data/piece_scan.h"
#include "data/utf8.h"

/* One pattern: cut by `scan`, or by PCRE2 where that is NULL. */
typedef struct stage {
  char *words;         /* owned */
  kp_piece_scan *scan; /* with the pretokenizer's table */
  kp_pattern *pattern; /* owned */
} stage;

struct kp_pretokenizer {
  stage stages[KP_PRETOKENIZER_PATTERNS];
  size_t count;
  kp_class_table *table; /* owned; NULL when no stage scans */
};

static kp_piece_scan *known_scan(const char *words) {
  if (strcmp(words, KP_PATTERN_GPT2) == 0) return kp_scan_gpt2;
  return strcmp(words, KP_PATTERN_LLAMA3) == 0 ? kp_scan_llama3 : NULL;
}

static kp_status create_stage(stage *made, const char *words, bool only_pcre2, kp_class_table **table,
                              kp_error *error) {
  made->words = strdup(words);
  if (made->words == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a pattern");
  made->scan = only_pcre2 ? NULL : known_scan(words);
  if (made->scan == NULL) return kp_pattern_create(words, &made->pattern, error);
  return *table == NULL ? kp_class_table_create(table, error) : KP_OK;
}

kp_status kp_pretokenizer_create(const char *const *patterns, size_t count, bool only_pcre2,
                                 kp_pretokenizer **result, kp_error *error) {
  if (count > KP_PRETOKENIZER_PATTERNS)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "%zu patterns cut the text; %d are supported", count,
                   KP_PRETOKENIZER_PATTERNS);
  kp_pretokenizer *made = calloc(1, sizeof *made);
  if (made == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a pretokenizer");
  kp_status status = KP_OK;
  for (; made->count < count && status == KP_OK; made->count++)
    status = create_stage(&made->stages[made->count], patterns[made->count], only_pcre2, &made->table, error);
  if (status == KP_OK)
    *result = made;
  else
    kp_pretokenizer_destroy(made);
  return status;
}

void kp_pretokenizer_destroy(kp_pretokenizer *pretokenizer) {
  if (pretokenizer == NULL) return;
  for (size_t i = 0; i < pretokenizer->count; i++) {
    free(pretokenizer->stages[i].words);
    kp_pattern_destroy(pretokenizer->stages[i].pattern);
  }
  kp_class_table_destroy(pretokenizer->table);
  free(pretokenizer);
}

size_t kp_pretokenizer_count(const kp_pretokenizer *pretokenizer) {
  return pretokenizer->count;
}

const char *kp_pretokenizer_pattern(const kp_pretokenizer *pretokenizer, size_t i) {
  return pretokenizer->stages[i].words;
}

/* ---- places where a text may be cut ---- */

static bool is_continuation(char byte) {
  return ((unsigned char)byte & 0xC0) == 0x80;
}

/* Both known patterns cut between a letter and anything else, and between a number or other character and
 * white space that is no line break: no alternative has the second behind the first, none looks back, and the
 * only look ahead is from behind white space. */
static bool cuts_between(kp_class before, kp_class class) {
  if (before == KP_CLASS_LETTER) return class != KP_CLASS_LETTER;
  return class == KP_CLASS_SPACE && (before == KP_CLASS_NUMBER || before == KP_CLASS_OTHER);
}

size_t kp_pretokenizer_cut(const kp_pretokenizer *pretokenizer, const char *text, size_t size, size_t from) {
  if (pretokenizer->count == 0 || from >= size) return size;
  for (size_t i = 0; i < pretokenizer->count; i++)
    if (pretokenizer->stages[i].scan == NULL) return size;
  while (from > 0 && is_continuation(text[from])) from--;
  kp_class before = KP_CLASS_SPACE; /* what stands in front of `from` is not looked at: no cut there */
  for (size_t at = from; at < size;) {
    uint32_t code_point;
    const size_t length = kp_utf8_read(text + at, size - at, &code_point);
    const kp_class class = length == 0 ? KP_CLASS_SPACE : kp_class_of(pretokenizer->table, code_point);
    if (length > 0 && cuts_between(before, class)) return at;
    before = class;
    at += length == 0 ? 1 : length;
  }
  return size;
}

/* ---- cutting ---- */

/* Where one stage stands in the text that it was given. */
typedef struct position {
  const char *text;
  size_t size;
  size_t given;      /* what lies before went out as pieces */
  size_t begin, end; /* the next match; begin = end = given: not looked for yet */
  size_t from;       /* where the search goes on */
  size_t last_end;   /* the end of the last match; SIZE_MAX: there was none */
} position;

struct kp_pieces {
  const kp_pretokenizer *pretokenizer;
  kp_pattern_search *searches[KP_PRETOKENIZER_PATTERNS]; /* owned; NULL for stages that scan */
  position positions[KP_PRETOKENIZER_PATTERNS];
  kp_text_view whole; /* what no stage has been given yet */
};

kp_status kp_pieces_create(const kp_pretokenizer *pretokenizer, kp_pieces **result, kp_error *error) {
  kp_pieces *pieces = calloc(1, sizeof *pieces);
  if (pieces == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to cut text");
  pieces->pretokenizer = pretokenizer;
  kp_status status = KP_OK;
  for (size_t i = 0; i < pretokenizer->count && status == KP_OK; i++)
    if (pretokenizer->stages[i].scan == NULL)
      status = kp_pattern_search_create(pretokenizer->stages[i].pattern, &pieces->searches[i], error);
  if (status == KP_OK)
    *result = pieces;
  else
    kp_pieces_destroy(pieces);
  return status;
}

void kp_pieces_destroy(kp_pieces *pieces) {
  if (pieces == NULL) return;
  for (size_t i = 0; i < pieces->pretokenizer->count; i++) kp_pattern_search_destroy(pieces->searches[i]);
  free(pieces);
}

void kp_pieces_begin(kp_pieces *pieces, const char *text, size_t size) {
  for (size_t i = 0; i < pieces->pretokenizer->count; i++) pieces->positions[i] = (position){.text = text};
  pieces->whole = (kp_text_view){.data = text, .size = size};
}

/* The next match of PCRE2: an empty one cuts the text, but not right behind another match. */
static kp_status find_match(kp_pattern_search *search, position *p, kp_error *error) {
  while (p->from <= p->size) {
    KP_TRY(kp_pattern_find(search, p->text, p->size, p->from, &p->begin, &p->end, error));
    if (p->begin > p->size) break;
    const bool again = p->begin == p->end && p->end == p->last_end;
    p->last_end = p->end;
    p->from = p->end;
    if (!again) return KP_OK;
    do p->from++;
    while (p->from < p->size && is_continuation(p->text[p->from]));
  }
  p->begin = p->end = p->size;
  return KP_OK;
}

/* The next piece of a stage in its text; its size is 0 behind the last. */
static kp_status next_of_stage(kp_pieces *pieces, size_t number, kp_text_view *piece, kp_error *error) {
  position *p = &pieces->positions[number];
  const stage *cutter = &pieces->pretokenizer->stages[number];
  size_t end = p->given;
  if (p->given == p->size) { /* there may be no text yet */
    *piece = (kp_text_view){0};
    return KP_OK;
  }
  if (cutter->scan != NULL) {
    end += cutter->scan(pieces->pretokenizer->table, p->text + p->given, p->size - p->given);
  } else {
    while (p->given < p->size && end == p->given) {
      if (p->given >= p->end) KP_TRY(find_match(pieces->searches[number], p, error));
      end = p->given < p->begin ? p->begin : p->end;
    }
  }
  *piece = (kp_text_view){.data = p->text + p->given, .size = end - p->given};
  p->given = end;
  return KP_OK;
}

/* The next piece that the first `count` stages give. */
static kp_status next_of_stages(kp_pieces *pieces, size_t count, kp_text_view *piece, kp_error *error) {
  if (count == 0) {
    *piece = pieces->whole;
    pieces->whole.size = 0;
    return KP_OK;
  }
  for (;;) {
    KP_TRY(next_of_stage(pieces, count - 1, piece, error));
    if (piece->size > 0) return KP_OK;
    kp_text_view text;
    KP_TRY(next_of_stages(pieces, count - 1, &text, error));
    if (text.size == 0) return KP_OK;
    pieces->positions[count - 1] = (position){.text = text.data, .size = text.size, .last_end = SIZE_MAX};
  }
}

kp_status kp_pieces_next(kp_pieces *pieces, kp_text_view *piece, kp_error *error) {
  return next_of_stages(pieces, pieces->pretokenizer->count, piece, error);
}
