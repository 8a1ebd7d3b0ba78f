/* What a model is trained for. */
#ifndef KAPPA_DATA_TASK_H
#define KAPPA_DATA_TASK_H

#include <stdint.h>

typedef enum kp_task {
  KP_TASK_LANGUAGE, /* the next token */
  KP_TASK_CLASSIFY, /* one label a sequence */
  KP_TASK_TAG,      /* one label a token */
} kp_task;

/* What data asks of a model. */
typedef struct kp_data_shape {
  kp_task task;
  int64_t vocabulary; /* tokens, special ones included; 0 when nothing says */
  int64_t classes;    /* labels; 0 for language */
} kp_data_shape;

/* "language", "classify" or "tag", as configurations and files have it. */
const char *kp_task_name(kp_task task);

#endif
