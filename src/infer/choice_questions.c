#include "infer/choice_questions.h"

#include <stdlib.h>
#include <string.h>

#include "core/path.h"
#include "data/byte_buffer.h"
#include "data/byte_source.h"

/* Bytes of a file, decompressed. */
enum { LARGEST = 1 << 30 };

/* The whole file, and a zero behind it. */
static kp_status read_bytes(const char *path, kp_byte_buffer *bytes, kp_error *error) {
  KP_TRY(kp_byte_source_read(path, LARGEST, bytes, error));
  return kp_byte_buffer_append(bytes, "", 1, error);
}

static kp_status add_line(const char *line, size_t size, int layouts, kp_questions *questions,
                          kp_error *error) {
  json_error_t fault;
  json_t *object = json_loadb(line, size, JSON_REJECT_DUPLICATES, &fault);
  if (object == NULL)
    return kp_fail(error, KP_ERR_INPUT, "it is not JSON: %s at byte %d", fault.text, fault.position);
  kp_status status = kp_questions_add(questions, object, layouts, error);
  json_decref(object);
  return status;
}

kp_status kp_questions_parse(const char *text, size_t size, const char *name, int layouts,
                             kp_questions *questions, kp_error *error) {
  size_t number = 1;
  for (const char *end = text + size; text < end; number++) {
    const char *stop = memchr(text, '\n', (size_t)(end - text));
    if (stop == NULL) stop = end;
    const char *front = text;
    while (front < stop && strchr(" \t\r", *front) != NULL && *front != 0) front++;
    if (front < stop && add_line(front, (size_t)(stop - front), layouts, questions, error) != KP_OK)
      return kp_context(error, "%s: line %zu", name, number);
    text = stop + 1;
  }
  return questions->count > 0 ? KP_OK : kp_fail(error, KP_ERR_INPUT, "%s: it has no questions", name);
}

/* ---- labels in a file of their own ---- */

static kp_status set_labels(const kp_question_source *source, const char *text, kp_questions *questions,
                            kp_error *error) {
  size_t i = 0;
  for (; *text != 0; i++) {
    char *end;
    const long label = strtol(text, &end, 10) - source->first_label;
    if (end == text || (*end != 0 && *end != '\n' && *end != '\r'))
      return kp_fail(error, KP_ERR_INPUT, "%s: line %zu is not a number", source->labels, i + 1);
    if (i < questions->count && (label < 0 || label >= questions->list[i].count))
      return kp_fail(error, KP_ERR_INPUT, "%s: line %zu: question %zu has %d choices, from %d on",
                     source->labels, i + 1, i + 1, questions->list[i].count, source->first_label);
    if (i < questions->count) questions->list[i].gold = (int)label;
    text = end + strspn(end, "\r\n");
  }
  if (i == questions->count) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s has %zu labels, %s has %zu questions", source->labels, i,
                 source->path, questions->count);
}

static kp_status read_labels(const kp_question_source *source, kp_questions *questions, kp_error *error) {
  kp_byte_buffer text = {0};
  kp_status status = read_bytes(source->labels, &text, error);
  if (status == KP_OK) status = set_labels(source, text.data, questions, error);
  kp_byte_buffer_clear(&text);
  return status;
}

static kp_status check_gold(const kp_question_source *source, const kp_questions *questions,
                            kp_error *error) {
  for (size_t i = 0; i < questions->count; i++)
    if (questions->list[i].gold < 0)
      return kp_fail(error, KP_ERR_INPUT,
                     "%s: question %zu has no right answer: is it the test file without labels? Labels in a "
                     "file of their own are given with --labels",
                     source->path, i + 1);
  return KP_OK;
}

static bool is_csv(const char *path) {
  const char *name = strchr(kp_path_last_name(path), '.');
  return name != NULL && strncmp(name, ".csv", 4) == 0;
}

static kp_status read_questions(const kp_question_source *source, kp_questions *questions, kp_error *error) {
  kp_byte_buffer text = {0};
  kp_status status = read_bytes(source->path, &text, error);
  const size_t size = text.size > 0 ? text.size - 1 : 0;
  if (status == KP_OK && (source->layouts & KP_CHOICES_SUBJECT) != 0 && is_csv(source->path))
    status = kp_questions_parse_csv(text.data, size, source->path, questions, error);
  else if (status == KP_OK)
    status = kp_questions_parse(text.data, size, source->path, source->layouts, questions, error);
  kp_byte_buffer_clear(&text);
  return status;
}

kp_status kp_questions_read(const kp_question_source *source, kp_questions *questions, kp_error *error) {
  *questions = (kp_questions){0};
  kp_status status = read_questions(source, questions, error);
  if (status == KP_OK && source->labels != NULL) status = read_labels(source, questions, error);
  if (status == KP_OK) status = check_gold(source, questions, error);
  if (status != KP_OK) kp_questions_clear(questions);
  return status;
}
