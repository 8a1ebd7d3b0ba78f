/* Conversations of JSON objects. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/conversation.h"

/* ---- which format ---- */

/* The names of the fields, as many as there is room for. */
static void list_fields(const json_t *object, char *out, size_t room) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)object, key, value) {
    const size_t length = strlen(out);
    snprintf(out + length, room - length, "%s%.30s", length > 0 ? ", " : "", key);
  }
}

kp_status kp_conversation_format_of_object(const json_t *object, kp_conversation_format *format,
                                           kp_error *error) {
  char fields[200] = "";
  if (!json_is_object(object))
    return kp_fail(error, KP_ERR_INPUT, "a conversation is a JSON object; this is none");
  if (json_is_array(json_object_get(object, "messages")))
    *format = KP_CONVERSATION_MESSAGES;
  else if (json_is_array(json_object_get(object, "conversations")))
    *format = KP_CONVERSATION_SHAREGPT;
  else if (json_is_string(json_object_get(object, "instruction")) &&
           json_is_string(json_object_get(object, "output")))
    *format = KP_CONVERSATION_ALPACA;
  else {
    list_fields(object, fields, sizeof fields);
    return kp_fail(error, KP_ERR_INPUT,
                   "there are no \"messages\", no \"conversations\" and no \"instruction\" with \"output\" "
                   "among its fields (%s)",
                   fields);
  }
  return KP_OK;
}

/* ---- words ---- */

static kp_status add_text(kp_conversation *c, kp_speaker role, const json_t *value, const char *field,
                          kp_error *error) {
  if (!json_is_string(value)) return kp_fail(error, KP_ERR_INPUT, "its \"%s\" is not a text", field);
  return kp_conversation_add(c, role, json_string_value(value), json_string_length(value), error);
}

/* A field that need not be there: null and an empty text count as absent. */
static bool is_given(const json_t *value) {
  return value != NULL && !json_is_null(value) && !(json_is_string(value) && json_string_length(value) == 0);
}

static kp_status check_parts(const json_t *parts, size_t *size, kp_error *error) {
  *size = 0;
  for (size_t i = 0; i < json_array_size(parts); i++) {
    const json_t *text = json_object_get(json_array_get(parts, i), "text");
    if (!json_is_string(text))
      return kp_fail(error, KP_ERR_INPUT, "part %zu of its \"content\" is not a text", i + 1);
    *size += json_string_length(text);
  }
  return KP_OK;
}

/* Parts of a message, [{"type": "text", "text": "…"}, …], joined. */
static kp_status add_parts(kp_conversation *c, kp_speaker role, const json_t *parts, kp_error *error) {
  size_t size, end = 0;
  KP_TRY(check_parts(parts, &size, error));
  char *joined = malloc(size + 1);
  if (joined == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a message of %zu bytes", size);
  for (size_t i = 0; i < json_array_size(parts); i++) {
    const json_t *text = json_object_get(json_array_get(parts, i), "text");
    memcpy(joined + end, json_string_value(text), json_string_length(text));
    end += json_string_length(text);
  }
  kp_status status = kp_conversation_add(c, role, joined, size, error);
  free(joined);
  return status;
}

/* ---- the formats ---- */

/* Names of a turn's fields. */
typedef struct turn_fields {
  const char *list, *role, *words;
} turn_fields;

static kp_status add_turn(kp_conversation *c, const turn_fields *fields, const json_t *turn,
                          const kp_speaker_names *names, kp_error *error) {
  const json_t *word = json_object_get(turn, fields->role), *words = json_object_get(turn, fields->words);
  kp_speaker role;
  if (!json_is_string(word)) return kp_fail(error, KP_ERR_INPUT, "it has no text \"%s\"", fields->role);
  KP_TRY(kp_speaker_of(names, json_string_value(word), json_string_length(word), &role, error));
  if (json_is_array(words)) return add_parts(c, role, words, error);
  return add_text(c, role, words, fields->words, error);
}

static kp_status add_turns(kp_conversation *c, const turn_fields *fields, const json_t *object,
                           const kp_speaker_names *names, kp_error *error) {
  const json_t *turns = json_object_get(object, fields->list);
  if (!json_is_array(turns)) return kp_fail(error, KP_ERR_INPUT, "its \"%s\" are no list", fields->list);
  for (size_t i = 0; i < json_array_size(turns); i++)
    if (add_turn(c, fields, json_array_get(turns, i), names, error) != KP_OK)
      return kp_context(error, "turn %zu", i + 1);
  return KP_OK;
}

static kp_status add_sharegpt(kp_conversation *c, const json_t *object, const kp_speaker_names *names,
                              kp_error *error) {
  static const turn_fields fields = {"conversations", "from", "value"},
                           renamed = {"conversations", "role", "content"};
  const json_t *system = json_object_get(object, "system");
  const json_t *first = json_array_get(json_object_get(object, "conversations"), 0);
  if (is_given(system)) KP_TRY(add_text(c, KP_SPEAKER_SYSTEM, system, "system", error));
  return add_turns(c, json_object_get(first, "role") != NULL ? &renamed : &fields, object, names, error);
}

/* What was said before: pairs of the user's and the assistant's words. */
static kp_status add_history(kp_conversation *c, const json_t *history, kp_error *error) {
  for (size_t i = 0; i < json_array_size(history); i++) {
    const json_t *pair = json_array_get(history, i);
    if (json_array_size(pair) != 2)
      return kp_fail(error, KP_ERR_INPUT, "entry %zu of its \"history\" is not a pair", i + 1);
    KP_TRY(add_text(c, KP_SPEAKER_USER, json_array_get(pair, 0), "history", error));
    KP_TRY(add_text(c, KP_SPEAKER_ASSISTANT, json_array_get(pair, 1), "history", error));
  }
  return KP_OK;
}

static kp_status add_alpaca(kp_conversation *c, const json_t *object, kp_error *error) {
  const json_t *instruction = json_object_get(object, "instruction"),
               *input = json_object_get(object, "input");
  const json_t *system = json_object_get(object, "system");
  if (is_given(system)) KP_TRY(add_text(c, KP_SPEAKER_SYSTEM, system, "system", error));
  KP_TRY(add_history(c, json_object_get(object, "history"), error));
  if (!is_given(input)) {
    KP_TRY(add_text(c, KP_SPEAKER_USER, instruction, "instruction", error));
  } else {
    if (!json_is_string(instruction) || !json_is_string(input))
      return kp_fail(error, KP_ERR_INPUT, "its \"instruction\" or \"input\" is not a text");
    json_t *both = json_sprintf("%s\n\n%s", json_string_value(instruction), json_string_value(input));
    kp_status status = both == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for an instruction")
                                    : add_text(c, KP_SPEAKER_USER, both, "instruction", error);
    json_decref(both);
    KP_TRY(status);
  }
  return add_text(c, KP_SPEAKER_ASSISTANT, json_object_get(object, "output"), "output", error);
}

kp_status kp_conversation_from_object(kp_conversation *c, kp_conversation_format format, const json_t *object,
                                      const kp_speaker_names *names, kp_error *error) {
  static const turn_fields messages = {"messages", "role", "content"};
  if (!json_is_object(object))
    return kp_fail(error, KP_ERR_INPUT, "a conversation is a JSON object; this is none");
  if (format == KP_CONVERSATION_MESSAGES) return add_turns(c, &messages, object, names, error);
  if (format == KP_CONVERSATION_SHAREGPT) return add_sharegpt(c, object, names, error);
  return add_alpaca(c, object, error);
}
