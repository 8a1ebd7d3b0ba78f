#include "data/labelled_text.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "data/byte_source.h"
#include "data/document_paths.h"
#include "data/utf8.h"

void kp_labelled_texts_clear(kp_labelled_texts *texts) {
  for (size_t i = 0; i < texts->buffer_count; i++) free(texts->buffers[i]);
  free(texts->buffers);
  free(texts->pieces);
  free(texts->examples);
  *texts = (kp_labelled_texts){.task = texts->task, .labels = texts->labels};
}

kp_labelled_layout kp_labelled_layout_of(kp_task task, const char *path) {
  if (task == KP_TASK_TAG) return KP_LAYOUT_COLUMNS;
  return kp_document_format_of(path) == KP_DOCUMENTS_TEXT ? KP_LAYOUT_TABLE : KP_LAYOUT_LINES;
}

/* Room for one more element of an array that doubles. */
static kp_status make_room(void **array, size_t count, size_t *capacity, size_t element, kp_error *error) {
  if (count < *capacity) return KP_OK;
  const size_t wanted = *capacity == 0 ? 256 : 2 * *capacity;
  void *grown = realloc(*array, wanted * element);
  if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu examples", wanted);
  *array = grown;
  *capacity = wanted;
  return KP_OK;
}

kp_status kp_labelled_add_piece(kp_labelled_texts *texts, const char *text, size_t size, int32_t label,
                                kp_error *error) {
  KP_TRY(make_room((void **)&texts->pieces, texts->piece_count, &texts->piece_capacity, sizeof *texts->pieces,
                   error));
  texts->pieces[texts->piece_count++] = (kp_labelled_piece){text, size, label};
  return KP_OK;
}

kp_status kp_labelled_add_example(kp_labelled_texts *texts, int32_t label, size_t line, const char *path,
                                  kp_error *error) {
  KP_TRY(make_room((void **)&texts->examples, texts->example_count, &texts->example_capacity,
                   sizeof *texts->examples, error));
  size_t first = 0;
  if (texts->example_count > 0) {
    const kp_labelled_example *last = &texts->examples[texts->example_count - 1];
    first = last->first + last->count;
  }
  texts->examples[texts->example_count++] =
      (kp_labelled_example){first, texts->piece_count - first, label, line, path};
  return KP_OK;
}

kp_status kp_labelled_add_sentences(kp_labelled_texts *texts, const char *const text[2], const size_t size[2],
                                    const char *label, size_t label_size, const kp_labelled_line *line,
                                    const char *path, kp_error *error) {
  int32_t number;
  if (size[0] == 0 && (text[1] == NULL || size[1] == 0))
    return kp_fail(error, KP_ERR_INPUT, "the sentence is empty");
  KP_TRY(kp_label_set_add(texts->labels, label, label_size, &number, error));
  for (int i = 0; i < 2 && text[i] != NULL; i++)
    KP_TRY(kp_labelled_add_piece(texts, text[i], size[i], -1, error));
  return kp_labelled_add_example(texts, number, line->number, path, error);
}

bool kp_labelled_next_line(char **at, const char *end, kp_labelled_line *line) {
  if (*at >= end) return false;
  const size_t left = (size_t)(end - *at);
  char *newline = memchr(*at, '\n', left);
  line->text = *at;
  line->size = newline == NULL ? left : (size_t)(newline - *at);
  line->number++;
  *at += line->size + (newline != NULL);
  if (line->size > 0 && line->text[line->size - 1] == '\r') line->size--;
  return true;
}

/* ---- the usual names ---- */

static const char *const usual_texts[][2] = {
    {"sentence", NULL},         {"text", NULL},
    {"sentence1", "sentence2"}, {"premise", "hypothesis"},
    {"question1", "question2"}, {"question", "sentence"},
};
static const char *const usual_labels[] = {"label", "gold_label"};

/* The named one must be there. */
static kp_status require(const char *name, bool (*has)(const void *context, const char *name),
                         const void *context, kp_error *error) {
  if (name == NULL || has(context, name)) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "there is no column or field '%s'", name);
}

kp_status kp_labelled_find_names(const kp_labelled_format *format,
                                 bool (*has)(const void *context, const char *name), const void *context,
                                 kp_labelled_names *names, kp_error *error) {
  *names = (kp_labelled_names){format->text, format->second, format->label};
  KP_TRY(require(format->text, has, context, error));
  KP_TRY(require(format->second, has, context, error));
  KP_TRY(require(format->label, has, context, error));
  if (format->text != NULL && format->second != NULL && strcmp(format->text, format->second) == 0)
    return kp_fail(error, KP_ERR_INPUT, "'%s' cannot be both sentences of a pair", format->text);
  /* Of "question" and "sentence" the pair counts, so the last rows are looked at first. */
  for (size_t i = sizeof usual_texts / sizeof *usual_texts; names->text == NULL && i-- > 0;) {
    const char *const *pair = usual_texts[i];
    if (!has(context, pair[0]) || (pair[1] != NULL && !has(context, pair[1]))) continue;
    names->text = pair[0];
    if (names->second == NULL) names->second = pair[1];
  }
  for (size_t i = 0; names->label == NULL && i < sizeof usual_labels / sizeof *usual_labels; i++)
    if (has(context, usual_labels[i])) names->label = usual_labels[i];
  if (names->text == NULL)
    return kp_fail(error, KP_ERR_INPUT,
                   "no column or field has a usual name of a sentence (sentence, text, sentence1, premise, "
                   "question1): name it with --text");
  if (names->label == NULL)
    return kp_fail(error, KP_ERR_INPUT,
                   "no column or field is called label or gold_label: name that of the labels with --label");
  return KP_OK;
}

/* ---- files ---- */

/* Takes the bytes over. */
static kp_status own(kp_labelled_texts *texts, char *data, kp_error *error) {
  char **grown = realloc(texts->buffers, (texts->buffer_count + 1) * sizeof *grown);
  if (grown == NULL) {
    free(data);
    return kp_fail(error, KP_ERR_MEMORY, "no memory for a file's examples");
  }
  texts->buffers = grown;
  texts->buffers[texts->buffer_count++] = data;
  return KP_OK;
}

static kp_status parse(kp_labelled_texts *texts, const kp_labelled_format *format, const char *path,
                       char *data, size_t size, kp_error *error) {
  static const char mark[] = "\xEF\xBB\xBF";
  size_t characters;
  KP_TRY(kp_utf8_count(data, size, &characters, error));
  const char *zero = memchr(data, 0, size);
  if (zero != NULL)
    return kp_fail(error, KP_ERR_INPUT, "line %zu holds a zero byte: is this a text?",
                   kp_text_line(data, (size_t)(zero - data)));
  if (size >= 3 && memcmp(data, mark, 3) == 0) {
    data += 3;
    size -= 3;
  }
  switch (format->layout) {
  case KP_LAYOUT_TABLE: return kp_labelled_parse_table(texts, format, path, data, size, error);
  case KP_LAYOUT_LINES: return kp_labelled_parse_lines(texts, format, path, data, size, error);
  case KP_LAYOUT_COLUMNS: return kp_labelled_parse_columns(texts, path, data, size, error);
  }
  return KP_OK;
}

kp_status kp_labelled_texts_parse(kp_labelled_texts *texts, const kp_labelled_format *format,
                                  const char *path, char *data, size_t size, kp_error *error) {
  kp_assert(texts->labels != NULL && (texts->task == KP_TASK_TAG) == (format->layout == KP_LAYOUT_COLUMNS),
            "the layout does not fit the task");
  const size_t before = texts->example_count;
  KP_TRY(own(texts, data, error));
  char *name = strdup(path);
  if (name == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a path");
  KP_TRY(own(texts, name, error));
  kp_status status = parse(texts, format, name, data, size, error);
  if (status == KP_OK && texts->example_count == before)
    status = kp_fail(error, KP_ERR_INPUT, "it has no examples");
  return status == KP_OK ? KP_OK : kp_context(error, "%s", path);
}

kp_status kp_labelled_texts_read(kp_labelled_texts *texts, const kp_labelled_format *format, const char *path,
                                 kp_error *error) {
  kp_byte_buffer bytes = {0};
  kp_status status = kp_byte_source_read(path, SIZE_MAX / 4, &bytes, error);
  if (status == KP_OK) status = kp_byte_buffer_append(&bytes, "", 1, error);
  if (status == KP_OK) return kp_labelled_texts_parse(texts, format, path, bytes.data, bytes.size - 1, error);
  kp_byte_buffer_clear(&bytes);
  return status;
}
