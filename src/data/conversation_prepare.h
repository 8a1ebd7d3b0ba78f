/* Makes a prepared set of conversations (data/prepared.h, data/conversation_index.h) of a user's files.
 *
 * Files are those of data/documents.h, in the formats of data/conversation.h; they are held in memory whole.
 */
#ifndef KAPPA_DATA_CONVERSATION_PREPARE_H
#define KAPPA_DATA_CONVERSATION_PREPARE_H

#include "data/conversation_index.h"
#include "data/conversation_read.h"
#include "data/conversation_template.h"
#include "data/prepared.h"

/* The most tokens of a conversation, when nothing is said. */
enum { KP_CONVERSATION_LENGTH = 1024 };

typedef struct kp_conversation_prepare_options {
  const char *const *files;
  size_t file_count;
  kp_conversation_reading reading;
  bool best_template;     /* the tokenizer's: llama3 or chatml if it has their special tokens, else plain */
  kp_template which;      /* else this one */
  const char *validation; /* a file of its own, or NULL: a share of the conversations */
  double train_fraction;  /* of the conversations, without such a file; 0 means 0.9 */
  const char *tokenizer;  /* "character" (NULL means it), "word", or a tokenizer's file or folder */
  int32_t vocabulary;     /* of the word tokenizer; 0 means 4096 */
  int64_t length;         /* the most tokens of a conversation; 0: KP_CONVERSATION_LENGTH */
  bool replace_invalid;   /* bytes that are not UTF-8, instead of refusing them */
  const char *folder;     /* made if it is missing */
  const char *name, *source, *licence; /* as in data/prepare.h */
} kp_conversation_prepare_options;

/* What was made. */
typedef struct kp_conversation_report {
  kp_prepared prepared;
  kp_template which;
  kp_conversation_counts train, validation;
  bool fresh; /* false: the folder had just this set, and was left alone */
} kp_conversation_report;

/* Prepares the set.  Without a validation file a conversation is for validation by a hash of its turns, so
 * that equal ones fall on the same side.  Words of a word tokenizer are counted in those for training; its
 * alphabet, and that of a character tokenizer, has the characters of all. */
kp_status kp_prepare_conversations(const kp_conversation_prepare_options *options,
                                   kp_conversation_report *report, kp_error *error);

#endif
