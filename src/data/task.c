#include "data/task.h"

const char *kp_task_name(kp_task task) {
  static const char *const names[] = {"language", "classify", "tag"};
  return names[task];
}
