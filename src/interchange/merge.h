/* A run with low-rank adapters (train/lora.h) becomes a run of an ordinary model, whose weights they are part
 * of. */
#ifndef KAPPA_INTERCHANGE_MERGE_H
#define KAPPA_INTERCHANGE_MERGE_H

#include <stdint.h>

#include "core/error.h"

typedef struct kp_merge_report {
  int64_t step;       /* of the checkpoint */
  int64_t parameters; /* numbers of the merged model */
  int64_t adapters;   /* numbers that are part of them now */
} kp_merge_report;

/* Writes checkpoint `which` ("best", "last", a step) of `run` as the only one of a new run in the folder
 * `merged`, which must not be there.  A run without adapters is an error. */
kp_status kp_merge(const char *run, const char *which, const char *merged, kp_merge_report *report,
                   kp_error *error);

#endif
