/* kappa plot: the curves of one run. */
#include <stdio.h>

#include "cli/command.h"
#include "core/path.h"
#include "study/run_plot.h"

typedef struct arguments {
  const char *run, *out;
} arguments;

static const struct argp_option options[] = {
    {"out", 'o', "DIR", 0, "folder for the figures (default: plots/ in the run)", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'o': a->out = value; return 0;
  case ARGP_KEY_ARG:
    if (a->run != NULL) argp_error(state, "one run, not also '%s'; `kappa compare` takes several", value);
    a->run = value;
    return 0;
  case ARGP_KEY_END:
    if (a->run == NULL) argp_error(state, "which run?");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "RUN",
    "Draw the curves of a run: losses, learning rate, norm of the gradient, step time, "
    "curvature by block, rows at the boundary.\v"
    "Example:\n  kappa plot runs/mixed",
    0,
    0,
    0};

int kp_command_plot(int argc, char **argv) {
  arguments a = {0};
  kp_error error = {0};
  kp_run_record run;
  char folder[KP_PATH_SIZE];
  kp_parse(&argp, argc, argv, &a);
  if (kp_run_record_open(a.run, &run, &error) != KP_OK) return kp_print_error(&error);
  kp_status status = KP_OK;
  if (a.out == NULL) {
    status = kp_path_join(folder, run.path, "plots", &error);
    a.out = folder;
  }
  if (status == KP_OK && run.step_count == 0 && run.evaluation_count == 0)
    status = kp_fail(&error, KP_ERR_INPUT, "%s has no metrics yet: there is nothing to draw", run.path);
  if (status == KP_OK) status = kp_plot_run(&run, a.out, &error);
  kp_run_record_close(&run);
  if (status != KP_OK) return kp_print_error(&error);
  printf("written: %s/run.png, run.svg\n", a.out);
  return KP_EXIT_OK;
}
