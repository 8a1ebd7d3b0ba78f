/* Conversations of texts: ChatML, and "User: …" with "Assistant: …". */
#define _GNU_SOURCE /* memmem */
#include <stdint.h>
#include <string.h>

#include "data/conversation.h"
#include "data/utf8.h"

static const char chatml_begin[] = "<|im_start|>", chatml_end[] = "<|im_end|>", text_end[] = "<|endoftext|>";

static bool starts_with(const kp_conversation_text *t, size_t at, const char *word) {
  const size_t length = strlen(word);
  return t->size - at >= length && memcmp(t->text + at, word, length) == 0;
}

static bool is_space(char byte) {
  return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static kp_status fail_at(const kp_conversation_text *t, size_t at, const char *words, kp_error *error) {
  return kp_fail(error, KP_ERR_INPUT, "line %zu: %s", kp_text_line(t->text, at), words);
}

/* A role that fails has its line put in front. */
static kp_status role_at(const kp_conversation_text *t, size_t at, size_t size, const kp_speaker_names *names,
                         kp_speaker *role, kp_error *error) {
  if (kp_speaker_of(names, t->text + at, size, role, error) == KP_OK) return KP_OK;
  return kp_context(error, "line %zu", kp_text_line(t->text, at));
}

/* Skips white space; returns how many line ends it had. */
static size_t skip_space(kp_conversation_text *t) {
  size_t lines = 0;
  for (; t->at < t->size && is_space(t->text[t->at]); t->at++) lines += t->text[t->at] == '\n';
  return lines;
}

/* Skips white space and ends of texts; true when a conversation ended there. */
static bool skip_between(kp_conversation_text *t) {
  bool ended = skip_space(t) > 1;
  while (starts_with(t, t->at, text_end)) {
    t->at += strlen(text_end);
    skip_space(t);
    ended = true;
  }
  return ended;
}

static size_t find(const kp_conversation_text *t, size_t from, const char *word) {
  const char *found = memmem(t->text + from, t->size - from, word, strlen(word));
  return found == NULL ? t->size : (size_t)(found - t->text);
}

/* ---- ChatML ---- */

/* The turn at `at`; where it is the first of another conversation, nothing is read and *next is true. */
static kp_status read_chatml_turn(kp_conversation *c, kp_conversation_text *t, const kp_speaker_names *names,
                                  bool *next, kp_error *error) {
  const size_t begin = t->at, word = begin + strlen(chatml_begin);
  if (!starts_with(t, begin, chatml_begin))
    return fail_at(t, begin, "a turn of ChatML begins with <|im_start|>", error);
  const size_t end = find(t, word, chatml_end), line_end = find(t, word, "\n");
  const size_t begin_size = strlen(chatml_begin);
  if (end == t->size || memmem(t->text + word, end - word, chatml_begin, begin_size) != NULL)
    return fail_at(t, begin, "the turn that begins here has no <|im_end|>", error);
  const size_t role_end = line_end < end ? line_end : end;
  size_t role_size = role_end - word;
  while (role_size > 0 && is_space(t->text[word + role_size - 1])) role_size--;
  kp_speaker role;
  KP_TRY(role_at(t, word, role_size, names, &role, error));
  *next = role == KP_SPEAKER_SYSTEM && c->count > 0;
  if (*next) return KP_OK;
  t->at = end + strlen(chatml_end);
  return kp_conversation_add(c, role, t->text + role_end, end - role_end, error);
}

static kp_status read_chatml(kp_conversation *c, kp_conversation_text *t, const kp_speaker_names *names,
                             kp_error *error) {
  bool next = false;
  skip_between(t);
  while (t->at < t->size && !next) {
    KP_TRY(read_chatml_turn(c, t, names, &next, error));
    if (!next) next = skip_between(t);
  }
  return KP_OK;
}

/* ---- plain ---- */

/* Whether a line at `at` begins with a role and a colon; then where the words begin. */
static bool is_header(const kp_conversation_text *t, size_t at, const kp_speaker_names *names,
                      kp_speaker *role, size_t *words) {
  size_t colon = at;
  while (colon < t->size && t->text[colon] != ':' && !is_space(t->text[colon])) colon++;
  if (colon == at || colon == t->size || t->text[colon] != ':') return false;
  if (!kp_speaker_find(names, t->text + at, colon - at, role)) return false;
  *words = colon + 1;
  return true;
}

/* The line behind that of `at`. */
static size_t next_line(const kp_conversation_text *t, size_t at) {
  const size_t end = find(t, at, "\n");
  return end < t->size ? end + 1 : t->size;
}

/* Where the words from `begin` on end: a line with a header or an end of text. */
static size_t end_of_words(const kp_conversation_text *t, size_t begin, const kp_speaker_names *names) {
  kp_speaker role;
  size_t words, at = next_line(t, begin);
  while (at < t->size && !starts_with(t, at, text_end) && !is_header(t, at, names, &role, &words))
    at = next_line(t, at);
  return at;
}

static kp_status read_plain(kp_conversation *c, kp_conversation_text *t, const kp_speaker_names *names,
                            kp_error *error) {
  skip_between(t);
  while (t->at < t->size && !starts_with(t, t->at, text_end)) {
    kp_speaker role;
    size_t begin;
    if (!is_header(t, t->at, names, &role, &begin))
      return fail_at(t, t->at, "a line of a turn begins with a role, as in 'User: …'", error);
    if (role == KP_SPEAKER_SYSTEM && c->count > 0) return KP_OK;
    const size_t end = end_of_words(t, begin, names);
    KP_TRY(kp_conversation_add(c, role, t->text + begin, end - begin, error));
    t->at = end;
  }
  return KP_OK;
}

/* ---- both ---- */

kp_status kp_conversation_format_of_text(const char *text, size_t size, const kp_speaker_names *names,
                                         kp_conversation_format *format, kp_error *error) {
  kp_conversation_text t = {.text = text, .size = size};
  kp_speaker role;
  size_t words;
  skip_between(&t);
  if (starts_with(&t, t.at, chatml_begin))
    *format = KP_CONVERSATION_CHATML;
  else if (is_header(&t, t.at, names, &role, &words))
    *format = KP_CONVERSATION_PLAIN;
  else
    return fail_at(&t, t.at,
                   "a conversation begins with '<|im_start|>' or with a role and a colon ('User: …'), or is "
                   "a JSON object",
                   error);
  return KP_OK;
}

kp_status kp_conversation_from_text(kp_conversation *c, kp_conversation_text *t,
                                    const kp_speaker_names *names, kp_error *error) {
  return (t->format == KP_CONVERSATION_CHATML ? read_chatml : read_plain)(c, t, names, error);
}
