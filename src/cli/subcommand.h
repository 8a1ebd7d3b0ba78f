/* Commands that are families of commands: `kappa data list`, `kappa tokenizer train`. */
#ifndef KAPPA_CLI_SUBCOMMAND_H
#define KAPPA_CLI_SUBCOMMAND_H

#include "cli/command.h"

typedef struct kp_command_family {
  const char *name; /* "data" */
  const kp_command *commands;
  int count;
  const char *example; /* one line */
} kp_command_family;

/* Runs the member that argv[1] names, with "kappa FAMILY MEMBER" for its argv[0]; says what there is when it
 * names none.  Returns the exit code. */
int kp_run_family(const kp_command_family *family, int argc, char **argv);

#endif
