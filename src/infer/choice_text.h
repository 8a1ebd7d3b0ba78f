/* Texts of questions: what lm-evaluation-harness does to them before they become prompts. */
#ifndef KAPPA_INFER_CHOICE_TEXT_H
#define KAPPA_INFER_CHOICE_TEXT_H

#include <stddef.h>

#include "core/error.h"

/* All `count` texts one behind the other; the caller frees *joined. */
kp_status kp_join_text(char **joined, kp_error *error, int count, ...);

/* White space as Unicode has it, and as Python strips it: the text without that in front, in *size bytes
 * without that behind. */
const char *kp_strip_text(const char *text, size_t *size);

/* The bytes of white space at the end of `size` bytes. */
size_t kp_trailing_space(const char *text, size_t size);

/* "activity: context Second part": the second part begins with a capital and has no other, and both are
 * cleaned.  The caller frees *query. */
kp_status kp_hellaswag_query(const char *activity, const char *first, const char *second, char **query,
                             kp_error *error);

/* In place: strips; " [title]" becomes ". "; what stands in brackets within a line goes; two spaces become
 * one, once from left to right. */
void kp_hellaswag_clean(char *text);

#endif
