/* MMLU as published: comma-separated values (RFC 4180) without a header, question, four choices, letter; the
 * subject is the file's name. */
#include <stdio.h>
#include <string.h>

#include "core/path.h"
#include "data/byte_buffer.h"
#include "infer/choice_questions.h"

enum { FIELDS = 6 };

typedef struct reader {
  const char *at, *end;
  size_t line; /* of `at` */
} reader;

/* Appends one field and a zero; *last tells that the record ends behind it. */
static kp_status read_field(reader *r, kp_byte_buffer *fields, bool *last, kp_error *error) {
  const size_t first = r->line;
  bool quoted = r->at < r->end && *r->at == '"', closed = !quoted;
  r->at += quoted;
  for (; r->at < r->end; r->at++) {
    const char c = *r->at;
    if (quoted && !closed && c == '"') {
      closed = r->at + 1 == r->end || r->at[1] != '"'; /* two are one that is meant */
      if (closed) continue;
      r->at++;
    } else if (closed && (c == ',' || c == '\n' || (c == '\r' && r->at + 1 < r->end && r->at[1] == '\n'))) {
      break;
    } else if (quoted && closed) {
      return kp_fail(error, KP_ERR_INPUT, "line %zu: something stands behind a closing quotation mark",
                     r->line);
    }
    if (c == '\0') return kp_fail(error, KP_ERR_INPUT, "line %zu: it has a zero byte", r->line);
    r->line += c == '\n';
    KP_TRY(kp_byte_buffer_append(fields, &c, 1, error));
  }
  if (!closed) return kp_fail(error, KP_ERR_INPUT, "line %zu: a quotation mark is never closed", first);
  *last = r->at == r->end || *r->at != ',';
  if (r->at < r->end) {
    if (*r->at == '\r') r->at++;
    r->line += *r->at == '\n';
    r->at++;
  }
  return kp_byte_buffer_append(fields, "", 1, error);
}

/* The fields of a record, one behind the other with a zero behind each. */
static kp_status read_record(reader *r, kp_byte_buffer *fields, kp_error *error) {
  const size_t first = r->line;
  int count = 0;
  fields->size = 0;
  for (bool last = false; !last; count++) KP_TRY(read_field(r, fields, &last, error));
  return count == FIELDS ? KP_OK
                         : kp_fail(error, KP_ERR_INPUT,
                                   "line %zu: it has %d columns instead of question, four choices and letter",
                                   first, count);
}

static kp_status add_record(const kp_byte_buffer *fields, const char *subject, kp_questions *questions,
                            kp_error *error) {
  const char *text[FIELDS];
  text[0] = fields->data;
  for (int i = 1; i < FIELDS; i++) text[i] = text[i - 1] + strlen(text[i - 1]) + 1;
  json_t *object = json_pack("{s:s, s:[s, s, s, s], s:s, s:s}", "question", text[0], "choices", text[1],
                             text[2], text[3], text[4], "answer", text[5], "subject", subject);
  if (object == NULL) return kp_fail(error, KP_ERR_INPUT, "it is not UTF-8");
  kp_status status = kp_questions_add(questions, object, KP_CHOICES_SUBJECT, error);
  json_decref(object);
  return status;
}

/* "college_law" of a/college_law_test.csv.gz. */
static void subject_of(const char *path, char *subject, size_t size) {
  static const char *const ends[] = {"_test", "_val", "_dev", "_auxiliary_train"};
  const char *name = kp_path_last_name(path);
  snprintf(subject, size, "%.*s", (int)strcspn(name, "."), name);
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    const size_t used = strlen(subject), end = strlen(ends[i]);
    if (used > end && strcmp(subject + used - end, ends[i]) == 0) subject[used - end] = 0;
  }
}

kp_status kp_questions_parse_csv(const char *text, size_t size, const char *name, kp_questions *questions,
                                 kp_error *error) {
  reader r = {.at = text, .end = text + size, .line = 1};
  kp_byte_buffer fields = {0};
  kp_status status = KP_OK;
  char subject[128];
  subject_of(name, subject, sizeof subject);
  while (status == KP_OK && r.at < r.end) {
    const size_t line = r.line;
    status = read_record(&r, &fields, error);
    if (status != KP_OK) break;
    status = add_record(&fields, subject, questions, error);
    if (status != KP_OK) kp_context(error, "line %zu", line);
  }
  kp_byte_buffer_clear(&fields);
  if (status == KP_OK && questions->count == 0) status = kp_fail(error, KP_ERR_INPUT, "it has no questions");
  return status == KP_OK ? KP_OK : kp_context(error, "%s", name);
}
