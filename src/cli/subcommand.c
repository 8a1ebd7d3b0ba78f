#include "cli/subcommand.h"

#include <stdio.h>
#include <string.h>

#include "core/suggest.h"

static void print_help(const kp_command_family *family, FILE *out) {
  fprintf(out, "Usage: kappa %s COMMAND [OPTION...]\n\nCommands:\n", family->name);
  for (int i = 0; i < family->count; i++)
    fprintf(out, "  %-10s %s\n", family->commands[i].name, family->commands[i].help);
  fprintf(out, "\nExample:\n  %s\n\n`kappa %s COMMAND --help` says more.\n", family->example, family->name);
}

int kp_run_family(const kp_command_family *family, int argc, char **argv) {
  if (argc < 2) {
    print_help(family, stderr);
    return KP_EXIT_USAGE;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0) {
    print_help(family, stdout);
    return KP_EXIT_OK;
  }
  const char *near = NULL;
  for (int i = 0; i < family->count; i++) {
    const char *name = family->commands[i].name;
    if (strcmp(argv[1], name) == 0) {
      char program[64];
      snprintf(program, sizeof program, "kappa %s %s", family->name, name);
      argv[1] = program;
      return family->commands[i].run(argc - 1, argv + 1);
    }
    if (kp_edit_distance_is_near(kp_edit_distance(argv[1], name), argv[1])) near = name;
  }
  fprintf(stderr, "kappa: no command '%s %s'", family->name, argv[1]);
  if (near != NULL) fprintf(stderr, "; did you mean '%s %s'?", family->name, near);
  fprintf(stderr, "\nTry `kappa %s --help`.\n", family->name);
  return KP_EXIT_USAGE;
}
