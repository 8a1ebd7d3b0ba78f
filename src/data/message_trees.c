#include "data/message_trees.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/atomic_file.h"
#include "data/documents.h"

static const json_t *best_reply(const json_t *message) {
  const json_t *replies = json_object_get(message, "replies"), *best = NULL;
  double lowest = 0;
  for (size_t i = 0; i < json_array_size(replies); i++) {
    const json_t *reply = json_array_get(replies, i), *rank = json_object_get(reply, "rank");
    const double place = json_is_number(rank) ? json_number_value(rank) : HUGE_VAL;
    if (json_is_true(json_object_get(reply, "deleted")) || (best != NULL && place >= lowest)) continue;
    best = reply;
    lowest = place;
  }
  return best;
}

static kp_status add_message(json_t *messages, const json_t *message, kp_error *error) {
  json_t *role = json_object_get(message, "role"), *text = json_object_get(message, "text");
  if (!json_is_string(role) || !json_is_string(text))
    return kp_fail(error, KP_ERR_INPUT, "message %zu of its tree lacks a \"role\" or a \"text\"",
                   json_array_size(messages) + 1);
  if (json_array_append_new(messages, json_pack("{s:O, s:O}", "role", role, "content", text)) == 0)
    return KP_OK;
  return kp_fail(error, KP_ERR_MEMORY, "no memory for a conversation");
}

/* Questions that nobody answered teach nothing. */
static void drop_unanswered(json_t *messages) {
  for (size_t i = json_array_size(messages); i-- > 0;) {
    const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
    if (strcmp(role, "assistant") == 0) return;
    json_array_remove(messages, i);
  }
}

kp_status kp_message_tree_best(const json_t *tree, json_t **conversation, kp_error *error) {
  const json_t *message = json_object_get(tree, "prompt");
  *conversation = NULL;
  if (!json_is_object(message))
    return kp_fail(error, KP_ERR_INPUT, "it has no \"prompt\": is this a tree of messages?");
  json_t *messages = json_array();
  kp_status status = KP_OK;
  for (; message != NULL && status == KP_OK; message = best_reply(message))
    status = add_message(messages, message, error);
  if (status == KP_OK) drop_unanswered(messages);
  if (status == KP_OK && json_array_size(messages) > 0)
    *conversation = json_pack("{s:O}", "messages", messages);
  json_decref(messages);
  return status;
}

static kp_status write_line(kp_atomic_file *file, const json_t *conversation, kp_error *error) {
  char *line = json_dumps(conversation, JSON_COMPACT);
  if (line == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a conversation");
  kp_status status = kp_atomic_file_write(file, line, strlen(line), error);
  if (status == KP_OK) status = kp_atomic_file_write(file, "\n", 1, error);
  free(line);
  return status;
}

static kp_status convert(kp_documents *documents, kp_atomic_file *file, kp_error *error) {
  for (;;) {
    kp_document document;
    json_t *conversation;
    KP_TRY(kp_documents_next(documents, &document, error));
    if (document.text == NULL) return KP_OK;
    if (kp_message_tree_best(document.object, &conversation, error) != KP_OK)
      return kp_context(error, "%s, line %zu", document.path, document.line);
    const kp_status status = conversation == NULL ? KP_OK : write_line(file, conversation, error);
    json_decref(conversation);
    if (status != KP_OK) return status;
  }
}

kp_status kp_message_trees_convert(const char *trees, const char *out, kp_error *error) {
  const kp_documents_options options = {
      .paths = &trees, .path_count = 1, .format = KP_DOCUMENTS_LINES, .objects = true};
  kp_documents *documents;
  kp_atomic_file *file = NULL;
  KP_TRY(kp_documents_open(&options, &documents, error));
  kp_status status = kp_atomic_file_open(out, &file, error);
  if (status == KP_OK) status = convert(documents, file, error);
  kp_documents_close(documents);
  if (status == KP_OK) return kp_atomic_file_commit(file, error);
  kp_atomic_file_abort(file);
  return status;
}
