/* Conversations: turns of a system, a user, an assistant and tools, as users' files have them.
 *
 *   messages    {"messages": [{"role": "user", "content": "…"}, …]}
 *   sharegpt    {"conversations": [{"from": "human", "value": "…"}, …]}, with "system" beside it
 *   alpaca      {"instruction": "…", "input": "…", "output": "…"}, with "system" and "history" beside it
 *   chatml      text: <|im_start|>user, a new line, the words, <|im_end|>
 *   plain       text: "User: …" and "Assistant: …" at the front of a line
 *
 * White space around the words of a turn is dropped.  A role is a word, whose case does not count; those that
 * are known without being told are system, user, human, prompter, assistant,
 * gpt and tool. */
#ifndef KAPPA_DATA_CONVERSATION_H
#define KAPPA_DATA_CONVERSATION_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "core/error.h"

typedef enum kp_speaker {
  KP_SPEAKER_SYSTEM,
  KP_SPEAKER_USER,
  KP_SPEAKER_ASSISTANT,
  KP_SPEAKER_TOOL
} kp_speaker;

enum { KP_SPEAKERS = KP_SPEAKER_TOOL + 1 };

/* "system", "user", "assistant" or "tool". */
const char *kp_speaker_text(kp_speaker role);

/* A word for a role, beside the known ones or instead of one. */
typedef struct kp_speaker_name {
  const char *name;
  kp_speaker role;
} kp_speaker_name;

typedef struct kp_speaker_names {
  const kp_speaker_name *list; /* a view */
  size_t count;
} kp_speaker_names;

/* The role that a word of `size` bytes stands for. */
bool kp_speaker_find(const kp_speaker_names *names, const char *word, size_t size, kp_speaker *role);

/* Same; an unknown word is an error that lists those known. */
kp_status kp_speaker_of(const kp_speaker_names *names, const char *word, size_t size, kp_speaker *role,
                        kp_error *error);

typedef struct kp_turn {
  kp_speaker role;
  size_t begin, size; /* of its words in the conversation's text */
} kp_turn;

/* Zero-initialise; kp_conversation_clear frees it.  One conversation after the other may use its memory. */
typedef struct kp_conversation {
  char *text; /* the turns' words, one behind the other */
  size_t size, capacity;
  kp_turn *turns;
  size_t count, turn_capacity;
} kp_conversation;

void kp_conversation_clear(kp_conversation *conversation);

/* Forgets the turns and keeps the memory. */
void kp_conversation_reset(kp_conversation *conversation);

/* Appends a turn; the words are copied without the white space around them. */
kp_status kp_conversation_add(kp_conversation *conversation, kp_speaker role, const char *words, size_t size,
                              kp_error *error);

/* Whether there is a turn to learn from. */
bool kp_conversation_has_assistant(const kp_conversation *conversation);

typedef enum kp_conversation_format {
  KP_CONVERSATION_MESSAGES,
  KP_CONVERSATION_SHAREGPT,
  KP_CONVERSATION_ALPACA,
  KP_CONVERSATION_CHATML,
  KP_CONVERSATION_PLAIN,
} kp_conversation_format;

enum { KP_CONVERSATION_FORMATS = KP_CONVERSATION_PLAIN + 1 };

/* Its name as the list above has it. */
const char *kp_conversation_format_name(kp_conversation_format format);
bool kp_conversation_format_is_text(kp_conversation_format format);

/* The format of a JSON object, by its fields, and of a text, by its first words.  An unknown one is an error
 * that says what is there. */
kp_status kp_conversation_format_of_object(const json_t *object, kp_conversation_format *format,
                                           kp_error *error);
kp_status kp_conversation_format_of_text(const char *text, size_t size, const kp_speaker_names *names,
                                         kp_conversation_format *format, kp_error *error);

/* Appends the turns of an object of one of the first three formats. */
kp_status kp_conversation_from_object(kp_conversation *conversation, kp_conversation_format format,
                                      const json_t *object, const kp_speaker_names *names, kp_error *error);

/* A text of one or several conversations, read one by one.  A conversation ends at a line <|endoftext|>, in
 * front of a system turn that is not its first turn, and in ChatML at a blank line between two turns. */
typedef struct kp_conversation_text {
  const char *text; /* a view, UTF-8 */
  size_t size;
  kp_conversation_format format; /* chatml or plain */
  size_t at;                     /* how much of it was read: begin with 0 */
} kp_conversation_text;

/* Appends the turns of the next conversation; none at the end.  Errors name the line of the text. */
kp_status kp_conversation_from_text(kp_conversation *conversation, kp_conversation_text *from,
                                    const kp_speaker_names *names, kp_error *error);

#endif
