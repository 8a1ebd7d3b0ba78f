/* kappa analyze: the geometry of a trained model. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "backend/cpu/cpu.h"
#include "cli/command.h"
#include "cli/table.h"
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
    {"threads", 't', "N", 0, "threads (default: all cores)", 0},
    {"backend", 'b', "NAME", 0, "cpu (default), or ref: double precision, slow", 0},
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
  case 't': a->options.threads = (int)kp_parse_integer(value, "--threads", 1, state); return 0;
  case 'b': a->options.backend = kp_parse_backend(value, state); return 0;
  case 'o': a->out = value; return 0;
  case 'p': a->no_plot = true; return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG:
    if (a->run != NULL) argp_error(state, "one run, not also '%s'", value);
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
    "Analyze a trained model: how its hidden states fill the space, its curvatures, its matrices' spectra.\v"
    "docs/studies.md says what the measures are.\n\n"
    "Example:\n  kappa analyze runs/mixed --checkpoint best --tokens 8192",
    0,
    0,
    0};

static void print_streams(const kp_analysis *a) {
  static const char *const flat[] = {"<stream",        "mean cosine", "participation ratio",
                                     "effective rank", "mean |h|",    NULL};
  static const char *const curved[] = {"<stream",  "mean cosine", "participation ratio", "effective rank",
                                       "mean |h|", "mean radius", "at the edge",         NULL};
  kp_table table;
  kp_table_begin(&table, a->groups > 0 ? curved : flat);
  for (int i = 0; i <= a->layers; i++) {
    const kp_stream_analysis *s = &a->streams[i];
    if (i < a->layers)
      kp_table_cell(&table, "before block %d", i);
    else
      kp_table_cell(&table, "at the end");
    kp_table_cell(&table, "%.4f", s->isotropy.mean_cosine);
    kp_table_cell(&table, "%.1f", s->isotropy.participation_ratio);
    kp_table_cell(&table, "%.1f of %lld", s->isotropy.effective_rank, (long long)a->width);
    kp_table_cell(&table, "%.3g", s->isotropy.mean_norm);
    if (a->groups == 0) continue;
    kp_table_cell(&table, "%.3f", s->mean_radius);
    kp_table_cell(&table, "%.1f%%", 100 * s->edge_share);
  }
  kp_table_print(&table, stdout);
}

/* Values of one block, those of many heads as their range. */
static void range_cell(kp_table *table, const double *values, int count) {
  double low = HUGE_VAL, high = -HUGE_VAL;
  for (int i = 0; i < count; i++) {
    low = fmin(low, values[i]);
    high = fmax(high, values[i]);
  }
  if (count == 1)
    kp_table_cell(table, "%.4f", values[0]);
  else
    kp_table_cell(table, "%.4f … %.4f", low, high);
}

static void print_curvature(const kp_analysis *a) {
  static const char *const one[] = {"<curvature κ", "start", "trained", NULL};
  static const char *const many[] = {"<curvature κ", "start", "trained", "<of heads", NULL};
  kp_table table;
  if (a->groups == 0) return;
  putchar('\n');
  kp_table_begin(&table, a->groups > 1 ? many : one);
  if (!isnan(a->embedding_curvature)) {
    kp_table_cell(&table, "embedding");
    kp_table_cell(&table, "%.4f", a->embedding_start);
    kp_table_cell(&table, "%.4f", a->embedding_curvature);
    if (a->groups > 1) kp_table_cell(&table, "%s", "");
  }
  for (int layer = 0; layer < a->layers; layer++) {
    const double *now = a->curvature + layer * a->groups;
    kp_table_cell(&table, "block %d", layer);
    range_cell(&table, a->start + layer * a->groups, a->groups);
    range_cell(&table, now, a->groups);
    if (a->groups == 1) continue;
    char heads[KP_TABLE_CELL] = "";
    for (int g = 0, length = 0; g < a->groups && length < KP_TABLE_CELL - 16; g++)
      length += snprintf(heads + length, sizeof heads - (size_t)length, "%s%.3f", g == 0 ? "" : " ", now[g]);
    kp_table_cell(&table, "%s", heads);
  }
  kp_table_print(&table, stdout);
}

static void print_matrices(const kp_analysis *a) {
  static const char *const titles[] = {"<matrix", "shape", "SVD entropy", "of at most", NULL};
  kp_table table;
  putchar('\n');
  kp_table_begin(&table, titles);
  for (int i = 0; i < a->matrix_count; i++) {
    const kp_matrix_analysis *m = &a->matrices[i];
    kp_table_cell(&table, "%s", m->name);
    kp_table_cell(&table, "%lld × %lld", (long long)m->rows, (long long)m->columns);
    kp_table_cell(&table, "%.4f", m->entropy);
    kp_table_cell(&table, "%.4f", log((double)(m->rows < m->columns ? m->rows : m->columns)));
  }
  kp_table_print(&table, stdout);
}

static void print_analysis(const kp_analysis *a) {
  char model[160];
  kp_run_record_describe(&a->record, model, sizeof model);
  printf("%s: %s, step %lld; loss %.4f on %lld validation tokens\n\n", a->record.name, model,
         (long long)a->step, a->loss, (long long)a->tokens);
  print_streams(a);
  print_curvature(a);
  print_matrices(a);
}

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
    print_analysis(analysis);
  }
  if (status == KP_OK) status = kp_analysis_write(analysis, a.out, !a.no_plot, &error);
  if (status == KP_OK && !a.json)
    printf("\nwritten: %s/analysis.json%s\n", a.out, a.no_plot ? "" : " and figures");
  kp_analysis_destroy(analysis);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
