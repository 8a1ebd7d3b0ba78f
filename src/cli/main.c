/* kappa: language models in curved space.  This file knows the commands by name and nothing of what they do.
 */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "core/suggest.h"

static const kp_command commands[] = {
    {"data", "list, get, prepare and show data sets", kp_command_data},
    {"tokenizer", "encode, decode, describe and train tokenizers", kp_command_tokenizer},
    {"doctor", "what this machine offers, and what kappa uses", kp_command_doctor},
    {"info", "parameters, memory and operations of a configuration", kp_command_info},
    {"train", "train a model from a configuration", kp_command_train},
    {"sample", "write text with a trained model", kp_command_sample},
    {"logits", "print what a trained model predicts after given tokens", kp_command_logits},
    {"import", "make a run of another program's model", kp_command_import},
    {"merge", "fold a run's adapters into its weights", kp_command_merge},
    {"export", "write a run as a model of transformers", kp_command_export},
    {"eval", "score a text with a trained model", kp_command_eval},
    {"compare", "compare runs: losses, costs, fairness", kp_command_compare},
    {"study", "train and compare the runs of a plan", kp_command_study},
    {"plot", "draw the curves of a run", kp_command_plot},
    {"analyze", "geometry of a trained model: isotropy, curvature, spectra", kp_command_analyze},
    {"bench", "time training steps and operators", kp_command_bench},
    {"verify", "compare with other implementations' numbers", kp_command_verify},
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static void print_help(FILE *out) {
  fprintf(out, "Usage: kappa COMMAND [OPTION...]\n\nLanguage models in curved space: train, compare, "
               "sample.\n\nCommands:\n");
  for (int i = 0; i < COMMAND_COUNT; i++) fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
  fprintf(out, "\n`kappa COMMAND --help` says more, with an example.\n");
}

static const char *nearest_command(const char *name) {
  for (int i = 0; i < COMMAND_COUNT; i++)
    if (kp_edit_distance_is_near(kp_edit_distance(name, commands[i].name), name)) return commands[i].name;
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    print_help(stderr);
    return KP_EXIT_USAGE;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
    print_help(stdout);
    return KP_EXIT_OK;
  }
  if (strcmp(argv[1], "--version") == 0) {
    printf("kappa %s\n", KP_VERSION);
    return KP_EXIT_OK;
  }
  for (int i = 0; i < COMMAND_COUNT; i++) {
    if (strcmp(argv[1], commands[i].name) != 0) continue;
    char program[64];
    snprintf(program, sizeof program, "kappa %s", commands[i].name);
    argv[1] = program;
    return commands[i].run(argc - 1, argv + 1);
  }
  const char *near = nearest_command(argv[1]);
  fprintf(stderr, "kappa: no command '%s'", argv[1]);
  if (near != NULL) fprintf(stderr, "; did you mean '%s'?", near);
  fprintf(stderr, "\nTry `kappa --help`.\n");
  return KP_EXIT_USAGE;
}
