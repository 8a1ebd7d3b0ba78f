/* kappa compare: the table of tasks × models. */
#ifndef KAPPA_CLI_COMPARE_TASKS_H
#define KAPPA_CLI_COMPARE_TASKS_H

#include "study/compare_tasks.h"

/* Prints nothing where no run was scored on a task. */
void kp_print_tasks(const kp_task_table *table);

#endif
