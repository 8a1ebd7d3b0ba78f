#include "data/conversation_read.h"

#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"

void kp_conversations_clear(kp_conversations *c) {
  kp_conversation_clear(&c->turns);
  free(c->list);
  *c = (kp_conversations){0};
}

kp_conversation kp_conversations_at(const kp_conversations *c, size_t index) {
  const kp_conversation_place *place = &c->list[index];
  return (kp_conversation){.text = c->turns.text,
                           .size = c->turns.size,
                           .turns = c->turns.turns + place->first,
                           .count = place->count};
}

/* Closes a conversation of all turns from `first` on. */
static kp_status close_conversation(kp_conversations *c, size_t first, const kp_document *document,
                                    size_t line, kp_error *error) {
  if (c->turns.count == first) return KP_OK;
  if (c->count == c->capacity) {
    const size_t capacity = c->capacity == 0 ? 256 : 2 * c->capacity;
    kp_conversation_place *grown = realloc(c->list, capacity * sizeof *grown);
    if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu conversations", capacity);
    c->list = grown;
    c->capacity = capacity;
  }
  c->list[c->count++] = (kp_conversation_place){
      .first = first, .count = c->turns.count - first, .path = document->path, .line = line};
  return KP_OK;
}

/* ---- JSON ---- */

static kp_status read_object(kp_conversations *c, const kp_document *document,
                             const kp_conversation_reading *reading, kp_conversation_format format,
                             kp_error *error) {
  const size_t first = c->turns.count;
  if (kp_conversation_from_object(&c->turns, format, document->object, &reading->names, error) != KP_OK)
    return kp_context(error, "%s, line %zu", document->path, document->line);
  return close_conversation(c, first, document, document->line, error);
}

/* ---- text ---- */

/* A conversation of a text is read into `one`, whose first turn is none of those before it. */
static kp_status append_turns(kp_conversations *c, const kp_conversation *one, kp_error *error) {
  for (size_t i = 0; i < one->count; i++)
    KP_TRY(kp_conversation_add(&c->turns, one->turns[i].role, one->text + one->turns[i].begin,
                               one->turns[i].size, error));
  return KP_OK;
}

/* The line of byte `at`, counted on from *line, that of byte *counted. */
static size_t line_of(const char *text, size_t at, size_t *counted, size_t *line) {
  for (; *counted < at; ++*counted) *line += text[*counted] == '\n';
  return *line;
}

static kp_status read_text(kp_conversations *c, const kp_document *document,
                           const kp_conversation_reading *reading, kp_conversation_format format,
                           kp_conversation *one, kp_error *error) {
  kp_conversation_text text = {.text = document->text, .size = document->size, .format = format};
  size_t counted = 0, line = document->line;
  while (text.at < text.size) {
    const size_t first = c->turns.count, begin = text.at;
    kp_conversation_reset(one);
    if (kp_conversation_from_text(one, &text, &reading->names, error) != KP_OK)
      return kp_context(error, "%s", document->path);
    KP_TRY(append_turns(c, one, error));
    KP_TRY(close_conversation(c, first, document, line_of(text.text, begin, &counted, &line), error));
  }
  return KP_OK;
}

/* ---- both ---- */

static kp_status find_format(const kp_document *document, const kp_conversation_reading *reading,
                             kp_conversation_format *format, kp_error *error) {
  const bool text = document->object == NULL;
  kp_status status = KP_OK;
  if (!reading->any) {
    *format = reading->format;
    if (kp_conversation_format_is_text(*format) != text)
      status = kp_fail(error, KP_ERR_INPUT, "it is %s, which the format %s is not", text ? "a text" : "JSON",
                       kp_conversation_format_name(*format));
  } else if (text) {
    status = kp_conversation_format_of_text(document->text, document->size, &reading->names, format, error);
  } else {
    status = kp_conversation_format_of_object(document->object, format, error);
  }
  return status == KP_OK ? KP_OK : kp_context(error, "%s, line %zu", document->path, document->line);
}

kp_status kp_conversations_read(kp_conversations *c, kp_documents *documents,
                                const kp_conversation_reading *reading, kp_error *error) {
  kp_document document;
  kp_conversation one = {0};
  kp_conversation_format format = reading->format;
  const char *path = NULL;
  kp_status status = KP_OK;
  while (status == KP_OK) {
    status = kp_documents_next(documents, &document, error);
    if (status != KP_OK || document.text == NULL) break;
    if (document.path != path) status = find_format(&document, reading, &format, error);
    path = document.path;
    if (status != KP_OK) break;
    status = document.object != NULL ? read_object(c, &document, reading, format, error)
                                     : read_text(c, &document, reading, format, &one, error);
  }
  kp_conversation_clear(&one);
  return status;
}
