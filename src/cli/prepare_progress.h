/* How far the preparation of documents got, on standard error: a line that moves on a terminal, else a line
 * every few seconds. */
#ifndef KAPPA_CLI_PREPARE_PROGRESS_H
#define KAPPA_CLI_PREPARE_PROGRESS_H

#include <stdbool.h>

#include "data/prepare.h"

typedef struct kp_progress {
  bool terminal, shown;
  kp_prepare_stage stage;
  double begun, printed; /* seconds */
} kp_progress;

kp_progress kp_progress_begin(void);
/* The function for kp_prepare_options; its context is a kp_progress.  False when the user asked to stop. */
bool kp_progress_show(void *context, const kp_prepare_progress *progress);
void kp_progress_end(const kp_progress *shown);

#endif
