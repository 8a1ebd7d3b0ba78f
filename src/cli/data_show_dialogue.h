/* What `kappa data show` says of conversations. */
#ifndef KAPPA_CLI_DATA_SHOW_DIALOGUE_H
#define KAPPA_CLI_DATA_SHOW_DIALOGUE_H

#include <jansson.h>

#include "data/inspect.h"

typedef struct kp_dialogue_view {
  int64_t documents; /* how many conversations to show of each part */
  int64_t tokens;    /* of each at most so many as numbers */
  int64_t context;   /* of the rows whose packing is told; 0: the shortest that holds all conversations */
} kp_dialogue_view;

/* Prints what is known of a part's conversations, and the first of them; nothing without an index. */
kp_status kp_print_dialogue(const kp_inspected *inspected, int part, const kp_dialogue_view *view,
                            kp_error *error);

/* The same as an object, or NULL without an index; the caller releases it. */
kp_status kp_dialogue_json(const kp_inspected *inspected, int part, const kp_dialogue_view *view,
                           json_t **json, kp_error *error);

/* The text as JSON; bytes that are no character, as where tokens end within one, become U+FFFD. */
kp_status kp_show_text(const char *text, size_t size, json_t **json, kp_error *error);

#endif
