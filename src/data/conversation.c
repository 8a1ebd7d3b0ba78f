#include "data/conversation.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- roles ---- */

/* The words of messages, ShareGPT and Open Assistant. */
static const kp_speaker_name known_roles[] = {
    {"system", KP_SPEAKER_SYSTEM}, {"user", KP_SPEAKER_USER}, {"human", KP_SPEAKER_USER},
    {"prompter", KP_SPEAKER_USER}, {"tool", KP_SPEAKER_TOOL}, {"assistant", KP_SPEAKER_ASSISTANT},
    {"gpt", KP_SPEAKER_ASSISTANT},
};

const char *kp_speaker_text(kp_speaker role) {
  static const char *const texts[] = {"system", "user", "assistant", "tool"};
  return texts[role];
}

static bool find_role(const kp_speaker_name *list, size_t count, const char *word, size_t size,
                      kp_speaker *role) {
  for (size_t i = 0; i < count; i++) {
    if (strlen(list[i].name) != size || strncasecmp(list[i].name, word, size) != 0) continue;
    *role = list[i].role;
    return true;
  }
  return false;
}

static void list_roles(const kp_speaker_name *list, size_t count, char *out, size_t room) {
  for (size_t i = 0; i < count; i++) {
    const size_t length = strlen(out);
    snprintf(out + length, room - length, "%s%s", length > 0 ? ", " : "", list[i].name);
  }
}

enum { KNOWN_ROLES = sizeof known_roles / sizeof *known_roles };

bool kp_speaker_find(const kp_speaker_names *names, const char *word, size_t size, kp_speaker *role) {
  return find_role(names->list, names->count, word, size, role) ||
         find_role(known_roles, KNOWN_ROLES, word, size, role);
}

kp_status kp_speaker_of(const kp_speaker_names *names, const char *word, size_t size, kp_speaker *role,
                        kp_error *error) {
  enum { SHOWN = 40 };
  if (kp_speaker_find(names, word, size, role)) return KP_OK;
  char list[256] = "";
  list_roles(known_roles, KNOWN_ROLES, list, sizeof list);
  list_roles(names->list, names->count, list, sizeof list);
  const int shown = size < SHOWN ? (int)size : SHOWN;
  return kp_fail(error, KP_ERR_INPUT,
                 "the role '%.*s' is unknown; known are %s: say what it is with --role %.*s=user (or system, "
                 "assistant, tool)",
                 shown, word, list, shown, word);
}

/* ---- turns ---- */

void kp_conversation_clear(kp_conversation *c) {
  free(c->text);
  free(c->turns);
  *c = (kp_conversation){0};
}

void kp_conversation_reset(kp_conversation *c) {
  c->size = 0;
  c->count = 0;
}

static kp_status make_room(kp_conversation *c, size_t more, kp_error *error) {
  if (c->count == c->turn_capacity) {
    const size_t capacity = c->turn_capacity == 0 ? 8 : 2 * c->turn_capacity;
    kp_turn *grown = realloc(c->turns, capacity * sizeof *grown);
    if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu turns", capacity);
    c->turns = grown;
    c->turn_capacity = capacity;
  }
  if (c->text != NULL && more <= c->capacity - c->size) return KP_OK;
  const size_t capacity = more > SIZE_MAX / 4 - c->capacity ? SIZE_MAX : 2 * c->capacity + more + 64;
  char *grown = capacity == SIZE_MAX ? NULL : realloc(c->text, capacity);
  if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a turn of %zu bytes", more);
  c->text = grown;
  c->capacity = capacity;
  return KP_OK;
}

static bool is_space(char byte) {
  return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r' || byte == '\v' || byte == '\f';
}

kp_status kp_conversation_add(kp_conversation *c, kp_speaker role, const char *words, size_t size,
                              kp_error *error) {
  while (size > 0 && is_space(words[size - 1])) size--;
  while (size > 0 && is_space(*words)) {
    words++;
    size--;
  }
  KP_TRY(make_room(c, size, error));
  if (size > 0) memcpy(c->text + c->size, words, size);
  c->turns[c->count++] = (kp_turn){.role = role, .begin = c->size, .size = size};
  c->size += size;
  return KP_OK;
}

bool kp_conversation_has_assistant(const kp_conversation *c) {
  for (size_t i = 0; i < c->count; i++)
    if (c->turns[i].role == KP_SPEAKER_ASSISTANT) return true;
  return false;
}

/* ---- formats ---- */

const char *kp_conversation_format_name(kp_conversation_format format) {
  static const char *const names[] = {"messages", "sharegpt", "alpaca", "chatml", "plain"};
  return names[format];
}

bool kp_conversation_format_is_text(kp_conversation_format format) {
  return format == KP_CONVERSATION_CHATML || format == KP_CONVERSATION_PLAIN;
}
