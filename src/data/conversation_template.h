/* How a conversation is written as tokens, and which of them are learned.
 *
 *   chatml   <|im_start|>ROLE, a new line, the words, <|im_end|>, a new line.  A tokenizer that has the two
 *            as special tokens gives one token for each, another spells them.
 *   llama3   <|begin_of_text|>, then each turn as <|start_header_id|>ROLE<|end_header_id|>, two new lines,
 *            the words, <|eot_id|>: the template of Llama 3's model card.  The tokenizer must have these
 *            special tokens; a tool's role is "ipython".
 *   plain    ROLE: words, a new line, with ROLE one of System, User, Assistant, Tool; where the tokenizer has
 *            an end token, it stands behind the assistant's words and is what ends its turn.
 *
 * Learned are the assistant's words and what ends its turn; nothing else is a target of the loss.  Words
 * never become special tokens, whatever they spell. */
#ifndef KAPPA_DATA_CONVERSATION_TEMPLATE_H
#define KAPPA_DATA_CONVERSATION_TEMPLATE_H

#include <stdint.h>

#include "data/byte_buffer.h"
#include "data/conversation.h"
#include "data/tokenizer.h"

typedef enum kp_template { KP_TEMPLATE_CHATML, KP_TEMPLATE_LLAMA3, KP_TEMPLATE_PLAIN } kp_template;

enum { KP_TEMPLATES = KP_TEMPLATE_PLAIN + 1 };

const char *kp_template_name(kp_template which);

/* Fails when the tokenizer lacks a token that the template cannot do without. */
kp_status kp_template_check(kp_template which, const kp_tokenizer *tokenizer, kp_error *error);

/* Appends the conversation as text: what a tokenizer without special tokens is made of. */
kp_status kp_template_text(kp_template which, const kp_conversation *conversation, kp_byte_buffer *text,
                           kp_error *error);

/* A growing list of tokens and, for each, whether it is a target of the loss.  Zero-initialise. */
typedef struct kp_masked_ids {
  kp_ids ids;
  uint8_t *mask; /* as many as ids */
  size_t mask_capacity;
} kp_masked_ids;
void kp_masked_ids_clear(kp_masked_ids *list);

/* What became of a conversation. */
typedef enum kp_written {
  KP_WRITTEN_WHOLE,
  KP_WRITTEN_SHORTER, /* without its last turns */
  KP_WRITTEN_CUT,     /* within a turn, which alone is longer than there is room */
  KP_WRITTEN_NOTHING, /* no turn of the assistant would have been left */
} kp_written;

/* Appends a conversation of at most `room` tokens.  Whole turns are left out at the end until the rest has
 * room, and so are turns behind the last of the assistant, from which nothing is learned. */
kp_status kp_template_write(kp_template which, const kp_conversation *conversation,
                            const kp_tokenizer *tokenizer, size_t room, kp_masked_ids *list,
                            kp_written *written, kp_error *error);

#endif
