#include "data/piece_scan.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/piece_pattern.h"
#include "data/utf8.h"

/* ---- the table ---- */

/* No plane of Unicode behind the third has letters, numbers or white space. */
enum {
  FIRST_SURROGATE = 0xD800,
  SURROGATES = 0x800,
  CODE_POINTS = KP_UTF8_LAST_CODE_POINT + 1,
  CLASSED = 0x40000
};

/* All code points that may have a class, but surrogates, as one text; the caller frees it. */
static char *every_character(size_t *size) {
  char *text = malloc((size_t)KP_UTF8_LONGEST * CLASSED);
  *size = 0;
  for (uint32_t c = 0; text != NULL && c < CLASSED; c++)
    if (c - FIRST_SURROGATE >= SURROGATES) *size += kp_utf8_write(c, text + *size);
  return text;
}

/* Gives `value` to the classes of the characters of text[begin .. end). */
static void mark(unsigned char *classes, const char *text, size_t begin, size_t end, kp_class value) {
  while (begin < end) {
    uint32_t c;
    begin += kp_utf8_read(text + begin, end - begin, &c);
    classes[c] = (unsigned char)value;
  }
}

static kp_status mark_pattern(unsigned char *classes, const char *text, size_t size, const char *words,
                              kp_class value, kp_error *error) {
  kp_pattern *pattern;
  kp_pattern_search *search = NULL;
  KP_TRY(kp_pattern_create(words, &pattern, error));
  kp_status status = kp_pattern_search_create(pattern, &search, error);
  for (size_t begin = 0, end = 0; status == KP_OK;) {
    status = kp_pattern_find(search, text, size, end, &begin, &end, error);
    if (status != KP_OK || end > size) break;
    mark(classes, text, begin, end, value);
  }
  kp_pattern_search_destroy(search);
  kp_pattern_destroy(pattern);
  return status;
}

static kp_status fill_classes(unsigned char *classes, kp_error *error) {
  size_t size;
  char *text = every_character(&size);
  if (text == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the classes of characters");
  kp_status status = mark_pattern(classes, text, size, "\\p{L}+", KP_CLASS_LETTER, error);
  if (status == KP_OK) status = mark_pattern(classes, text, size, "\\p{N}+", KP_CLASS_NUMBER, error);
  if (status == KP_OK) status = mark_pattern(classes, text, size, "\\s+", KP_CLASS_SPACE, error);
  if (status == KP_OK) status = mark_pattern(classes, text, size, "[\\r\\n]+", KP_CLASS_BREAK, error);
  free(text);
  return status;
}

/* Keeps each page of another content once; true unless memory ran out. */
static bool share_pages(kp_class_table *table, const unsigned char *classes) {
  size_t kept = 0;
  for (size_t page = 0; page < KP_CLASS_PAGES; page++) {
    const unsigned char *content = classes + page * KP_CLASS_PAGE;
    size_t same = kept;
    while (same > 0 && memcmp(table->classes[same - 1], content, KP_CLASS_PAGE) != 0) same--;
    if (same == 0) {
      void *grown = realloc(table->classes, (kept + 1) * sizeof *table->classes);
      if (grown == NULL) return false;
      table->classes = grown;
      memcpy(table->classes[kept], content, KP_CLASS_PAGE);
      same = ++kept;
    }
    table->page[page] = (uint16_t)(same - 1);
  }
  return true;
}

kp_status kp_class_table_create(kp_class_table **result, kp_error *error) {
  kp_class_table *table = calloc(1, sizeof *table);
  unsigned char *classes = calloc(CODE_POINTS, 1);
  kp_status status = KP_OK;
  if (table != NULL && classes != NULL) status = fill_classes(classes, error);
  if (status == KP_OK && (table == NULL || classes == NULL || !share_pages(table, classes)))
    status = kp_fail(error, KP_ERR_MEMORY, "no memory for the classes of characters");
  free(classes);
  if (status == KP_OK)
    *result = table;
  else
    kp_class_table_destroy(table);
  return status;
}

void kp_class_table_destroy(kp_class_table *table) {
  if (table == NULL) return;
  free(table->classes);
  free(table);
}

/* ---- reading characters ---- */

kp_class kp_class_of(const kp_class_table *table, uint32_t code_point) {
  return table->classes[table->page[code_point / KP_CLASS_PAGE]][code_point % KP_CLASS_PAGE];
}

kp_class kp_class_at(const kp_class_table *table, const char *text, size_t *length) {
  const unsigned char *at = (const unsigned char *)text;
  uint32_t c = at[0];
  *length = 1;
  if (c >= 0xF0) {
    c = (c & 7u) << 18 | (at[1] & 63u) << 12 | (at[2] & 63u) << 6 | (at[3] & 63u);
    *length = 4;
  } else if (c >= 0xE0) {
    c = (c & 15u) << 12 | (at[1] & 63u) << 6 | (at[2] & 63u);
    *length = 3;
  } else if (c >= 0x80) {
    c = (c & 31u) << 6 | (at[1] & 63u);
    *length = 2;
  }
  return kp_class_of(table, c);
}

/* The end of the run of one class that goes on at `at`. */
static size_t run_end(const kp_class_table *table, const char *text, size_t size, size_t at, kp_class class) {
  size_t length;
  while (at < size && kp_class_at(table, text + at, &length) == class) at += length;
  return at;
}

/* A run of white space at the front. */
typedef struct space_run {
  size_t end;       /* where it ends */
  size_t last;      /* where its last character begins */
  size_t break_end; /* behind its last line break; 0: it has none */
} space_run;

static space_run read_spaces(const kp_class_table *table, const char *text, size_t size) {
  space_run run = {0};
  while (run.end < size) {
    size_t length;
    const kp_class class = kp_class_at(table, text + run.end, &length);
    if (class != KP_CLASS_SPACE && class != KP_CLASS_BREAK) break;
    run.last = run.end;
    run.end += length;
    if (class == KP_CLASS_BREAK) run.break_end = run.end;
  }
  return run;
}

/* \s+(?!\S)|\s+: all of a run at the end of the text; in front of something else, all but its last character,
 * unless that is the only one. */
static size_t spaces_before(space_run run, size_t size) {
  return run.end == size || run.last == 0 ? run.end : run.last;
}

/* ---- the patterns ---- */

/* 's, 't, 'm, 'd, 're, 've, 'll: the bytes, 0 when there is none; `text` begins with the apostrophe. */
static size_t contraction(const char *text, size_t size) {
  if (size < 2) return 0;
  const char first = text[1];
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (size < 3) return 0;
  const char second = text[2];
  return (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l')
             ? 3
             : 0;
}

/* The same in upper and lower case.  U+017F, the long s, is a case of s. */
static size_t contraction_of_any_case(const char *text, size_t size) {
  if (size >= 3 && memcmp(text + 1, "\xC5\xBF", 2) == 0) return 3;
  char folded[3] = {'\''};
  const size_t count = size < 3 ? size : 3;
  for (size_t i = 1; i < count; i++)
    folded[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
  return contraction(folded, count);
}

static bool is_white(kp_class class) {
  return class == KP_CLASS_SPACE || class == KP_CLASS_BREAK;
}

size_t kp_scan_gpt2(const kp_class_table *table, const char *text, size_t size) {
  size_t length;
  kp_class class = kp_class_at(table, text, &length);
  if (text[0] == '\'') {
    const size_t found = contraction(text, size);
    if (found > 0) return found;
  }
  if (text[0] == ' ' && size > 1) {
    size_t second;
    const kp_class next = kp_class_at(table, text + 1, &second);
    if (!is_white(next)) return run_end(table, text, size, 1 + second, next);
  }
  if (!is_white(class)) return run_end(table, text, size, length, class);
  return spaces_before(read_spaces(table, text, size), size);
}

/* \p{N}{1,3} */
static size_t numbers(const kp_class_table *table, const char *text, size_t size) {
  size_t at = 0, length;
  for (int taken = 0; taken < 3 && at < size; taken++) {
    if (kp_class_at(table, text + at, &length) != KP_CLASS_NUMBER) break;
    at += length;
  }
  return at;
}

size_t kp_scan_llama3(const kp_class_table *table, const char *text, size_t size) {
  size_t length;
  const kp_class class = kp_class_at(table, text, &length);
  if (text[0] == '\'') {
    const size_t found = contraction_of_any_case(text, size);
    if (found > 0) return found;
  }
  if (class == KP_CLASS_LETTER) return run_end(table, text, size, length, KP_CLASS_LETTER);
  if (class == KP_CLASS_NUMBER) return numbers(table, text, size);
  size_t others = class == KP_CLASS_OTHER ? length : 0; /* the end of the first of other characters */
  if (class != KP_CLASS_BREAK && length < size) {
    size_t second;
    const kp_class next = kp_class_at(table, text + length, &second);
    if (next == KP_CLASS_LETTER) return run_end(table, text, size, length + second, KP_CLASS_LETTER);
    if (text[0] == ' ' && next == KP_CLASS_OTHER) others = length + second;
  }
  if (others > 0) {
    others = run_end(table, text, size, others, KP_CLASS_OTHER);
    return run_end(table, text, size, others, KP_CLASS_BREAK);
  }
  const space_run run = read_spaces(table, text, size);
  return run.break_end > 0 ? run.break_end : spaces_before(run, size);
}
