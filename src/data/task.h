/* What a model is trained for. */
#ifndef KAPPA_DATA_TASK_H
#define KAPPA_DATA_TASK_H

typedef enum kp_task {
  KP_TASK_LANGUAGE, /* the next token */
  KP_TASK_CLASSIFY, /* one label a sequence */
  KP_TASK_TAG,      /* one label a token */
} kp_task;

/* "language", "classify" or "tag", as configurations and files have it. */
const char *kp_task_name(kp_task task);

#endif
