/* Trees of messages, as OpenAssistant publishes them: JSON lines, one tree a line,
 *
 *   {"prompt": {"role": "prompter", "text": "…", "replies": [{"role": "assistant", "text": "…", "rank": 0,
 *     "replies": […]}, …]}}
 *
 * and the conversation that people ranked best: from the prompt on always the reply of the lowest rank, one
 * without a rank behind all others, deleted ones left out; it ends with what the assistant says. */
#ifndef KAPPA_DATA_MESSAGE_TREES_H
#define KAPPA_DATA_MESSAGE_TREES_H

#include <stdint.h>

#include <jansson.h>

#include "core/error.h"

/* The best conversation of a tree as {"messages": [{"role": …, "content": …}, …]}, which the caller releases;
 * NULL if nobody replied. */
kp_status kp_message_tree_best(const json_t *tree, json_t **conversation, kp_error *error);

/* Writes those of a file, which may be compressed, to `out` as JSON lines. */
kp_status kp_message_trees_convert(const char *trees, const char *out, kp_error *error);

#endif
