/* kappa analyze: the geometry of a trained model. */
#include <jansson.h>
#include <stdio.h>

#include "backend/cpu/cpu.h"
#include "cli/command.h"
#include "cli/analyze_tables.h"
#include "core/json_text.h"
#include "core/path.h"
#include "study/analyze.h"

typedef struct arguments {
  const char *run, *out;
  kp_analysis_options options;
  bool json, no_plot;
} arguments;

static const struct argp_option options[] = {
    {"checkpoint", 'c', "WHICH", 0, "last (default), best, or a step", 0},
    {"data", 'd', "NAME", 0, "prepared data instead of the run's own: a folder or a set's name", 0},
    {"tokens", 'n', "N", 0, "validation tokens to read (default: 16384)", 0},
    {"over-training", 'a', 0, 0,
     "look at all checkpoints of the run, too (train.keep says how many there are)", 0},
    {"threads", 't', "N", 0, "threads (default: all cores)", 0},
    {"device", 'b', "NAME", 0, KP_DEVICE_HELP, 0},
    {"backend", 0, 0, OPTION_ALIAS, 0, 0},
    {"out", 'o', "DIR", 0, "folder for figures and analysis.json (default: analysis/ in the run)", 0},
    {"no-plot", 'p', 0, 0, "draw no figures", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'c': a->options.checkpoint = value; return 0;
  case 'd': a->options.data = value; return 0;
  case 'n': a->options.tokens = kp_parse_integer(value, "--tokens", 1, state); return 0;
  case 'a': a->options.over_training = true; return 0;
  case 't': a->options.threads = (int)kp_parse_integer(value, "--threads", 1, state); return 0;
  case 'b': a->options.backend = kp_parse_backend(value, state); return 0;
  case 'o': a->out = value; return 0;
  case 'p': a->no_plot = true; return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->run, value, "run", state);
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
    "Analyze a trained model: how its hidden states fill the space and how tree-like they are, its "
    "curvatures "
    "and where they started, its experts, its embeddings, its matrices' spectra.\v"
    "docs/studies.md says what the measures are.\n\n"
    "Example:\n  kappa analyze runs/mixed --checkpoint best --tokens 8192",
    0,
    0,
    0};

int kp_command_analyze(int argc, char **argv) {
  arguments a = {.options = {.backend = kp_backend_cpu()}};
  kp_error error = {0};
  kp_analysis *analysis = NULL;
  char folder[KP_PATH_SIZE];
  kp_parse(&argp, argc, argv, &a);
  kp_status status = kp_analysis_create(a.run, &a.options, &analysis, &error);
  if (status == KP_OK && a.out == NULL) {
    status = kp_path_join(folder, analysis->record.path, "analysis", &error);
    a.out = folder;
  }
  if (status == KP_OK && a.json) {
    json_t *json = kp_analysis_json(analysis);
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(KP_JSON_FLOAT_DIGITS));
    putchar('\n');
    json_decref(json);
  } else if (status == KP_OK) {
    kp_print_analysis(analysis);
  }
  if (status == KP_OK) status = kp_analysis_write(analysis, a.out, !a.no_plot, &error);
  if (status == KP_OK && !a.json)
    printf("\nwritten: %s/analysis.json%s\n", a.out, a.no_plot ? "" : " and figures");
  kp_analysis_destroy(analysis);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
