/* CoNLL's columns: one word a line, its tag last, blank lines between sentences. */
#include <string.h>

#include "data/labelled_text.h"

/* Begins a part of a document in CoNLL-2003: a line of its own, which is no word. */
static const char document_mark[] = "-DOCSTART-";

static bool is_blank(const kp_labelled_line *line) {
  for (size_t i = 0; i < line->size; i++)
    if (line->text[i] != ' ' && line->text[i] != '\t') return false;
  return true;
}

static bool starts_document(const kp_labelled_line *line) {
  const size_t size = sizeof document_mark - 1;
  return line->size >= size && memcmp(line->text, document_mark, size) == 0;
}

/* The first and the last column of a line that is not blank. */
static kp_status split(const kp_labelled_line *line, size_t *word, const char **tag, size_t *tag_size,
                       kp_error *error) {
  size_t end = line->size;
  const char separator = memchr(line->text, '\t', line->size) != NULL ? '\t' : ' ';
  while (end > 0 && (line->text[end - 1] == ' ' || line->text[end - 1] == '\t')) end--;
  const char *first = memchr(line->text, separator, end);
  if (first == NULL) return kp_fail(error, KP_ERR_INPUT, "it has one column; a word and its tag are two");
  if (first == line->text) return kp_fail(error, KP_ERR_INPUT, "its word is empty");
  size_t begin = end;
  while (line->text[begin - 1] != separator) begin--;
  *word = (size_t)(first - line->text);
  *tag = line->text + begin;
  *tag_size = end - begin;
  return KP_OK;
}

static kp_status add_word(kp_labelled_texts *texts, const kp_labelled_line *line, kp_error *error) {
  size_t word = 0, tag_size = 0;
  const char *tag = NULL;
  int32_t label;
  KP_TRY(split(line, &word, &tag, &tag_size, error));
  KP_TRY(kp_label_set_add(texts->labels, tag, tag_size, &label, error));
  return kp_labelled_add_piece(texts, line->text, word, label, error);
}

/* Closes the sentence that began at line `begin`; 0: there is none. */
static kp_status end_sentence(kp_labelled_texts *texts, size_t *begin, const char *path, kp_error *error) {
  const size_t line = *begin;
  *begin = 0;
  return line == 0 ? KP_OK : kp_labelled_add_example(texts, -1, line, path, error);
}

kp_status kp_labelled_parse_columns(kp_labelled_texts *texts, const char *path, char *data, size_t size,
                                    kp_error *error) {
  char *at = data;
  kp_labelled_line line = {0};
  size_t begin = 0;
  while (kp_labelled_next_line(&at, data + size, &line)) {
    if (is_blank(&line) || starts_document(&line)) {
      KP_TRY(end_sentence(texts, &begin, path, error));
      continue;
    }
    if (add_word(texts, &line, error) != KP_OK) return kp_context(error, "line %zu", line.number);
    if (begin == 0) begin = line.number;
  }
  return end_sentence(texts, &begin, path, error);
}
