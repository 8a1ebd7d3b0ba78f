/* kappa merge: folds the adapters of a run into its weights. */
#include <stdio.h>

#include "cli/command.h"
#include "interchange/merge.h"

typedef struct arguments {
  const char *run, *out, *checkpoint;
} arguments;

static const struct argp_option options[] = {
    {"out", 'o', "DIR", 0, "folder of the new run", 0},
    {"checkpoint", 'c', "WHICH", 0, "best (default), last, or a step", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'o': a->out = value; return 0;
  case 'c': a->checkpoint = value; return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->run, value, "run", state);
  case ARGP_KEY_END:
    if (a->run == NULL) argp_error(state, "which run?");
    if (a->out == NULL) argp_error(state, "which folder? --out is missing");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "RUN --out DIR",
    "Fold the low-rank adapters of a run (train.lora) into its weights: the new "
    "run has the same outputs, and is like any other.\v"
    "`kappa eval`, `sample` and `export` do it themselves.\n\n"
    "Example:\n"
    "  kappa train --init runs/base --set train.lora.rank=8 --set data.path=tales "
    "--out runs/tuned\n"
    "  kappa merge runs/tuned --out runs/merged",
    0,
    0,
    0};

int kp_command_merge(int argc, char **argv) {
  arguments a = {.checkpoint = "best"};
  kp_error error = {0};
  kp_merge_report report;
  kp_parse(&argp, argc, argv, &a);
  if (kp_merge(a.run, a.checkpoint, a.out, &report, &error) != KP_OK) return kp_print_error(&error);
  printf("%s: %lld numbers of adapters are part of %lld parameters, of step %lld\n", a.out,
         (long long)report.adapters, (long long)report.parameters, (long long)report.step);
  return KP_EXIT_OK;
}
