/* The conversations of files, in memory. */
#ifndef KAPPA_DATA_CONVERSATION_READ_H
#define KAPPA_DATA_CONVERSATION_READ_H

#include "data/conversation.h"
#include "data/documents.h"

/* How files are read. */
typedef struct kp_conversation_reading {
  bool any;                      /* each file's format is found by its first record */
  kp_conversation_format format; /* else it is this */
  kp_speaker_names names;
} kp_conversation_reading;

/* One of them. */
typedef struct kp_conversation_place {
  size_t first, count; /* turns */
  const char *path;    /* the documents' */
  size_t line;         /* where it begins */
} kp_conversation_place;

/* Zero-initialise; kp_conversations_clear frees it. */
typedef struct kp_conversations {
  kp_conversation turns; /* of all */
  kp_conversation_place *list;
  size_t count, capacity;
} kp_conversations;

void kp_conversations_clear(kp_conversations *conversations);

/* Appends all that the documents hold, which were opened with `objects`.  Errors name file, line and turn. */
kp_status kp_conversations_read(kp_conversations *conversations, kp_documents *documents,
                                const kp_conversation_reading *reading, kp_error *error);

/* A view of one. */
kp_conversation kp_conversations_at(const kp_conversations *conversations, size_t index);

#endif
