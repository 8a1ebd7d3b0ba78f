/* kappa compare: runs side by side. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/compare_tasks.h"
#include "cli/table.h"
#include "core/json_text.h"
#include "core/path.h"
#include "study/compare.h"

typedef struct arguments {
  kp_texts runs;
  const char *out;
  bool json, no_plot, best;
} arguments;

static const struct argp_option options[] = {
    {"out", 'o', "DIR", 0,
     "folder for figures and comparison.json (default: comparison/ beside the first run)", 0},
    {"no-plot", 'n', 0, 0, "draw no figures", 0},
    {"best", 'b', 0, 0, "print only the folder of the run with the lowest validation loss, and write nothing",
     0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'o': a->out = value; return 0;
  case 'n': a->no_plot = true; return 0;
  case 'b': a->best = true; return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG: kp_texts_add(&a->runs, value); return 0;
  case ARGP_KEY_END:
    if (a->runs.count == 0) argp_error(state, "which runs?");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "RUN...",
    "Compare runs: what they reached, what it cost, and whether the comparison is fair.\v"
    "Runs that differ in train.seed alone share a row: mean ± standard deviation.\n"
    "A curved model is compared with its flat twin, the run that differs in curvature alone; when there is "
    "none "
    "among the runs, a warning says how to train it.\n\n"
    "Example:\n  kappa compare runs/flat runs/twin runs/mixed --out report",
    0,
    0,
    0};

/* "1.5921 ± 0.0031", or without the spread of a single run. */
static const char *statistic_text(kp_statistic s, int digits, char text[64]) {
  if (isnan(s.mean))
    snprintf(text, 64, "–");
  else if (isnan(s.spread))
    snprintf(text, 64, "%.*f", digits, s.mean);
  else
    snprintf(text, 64, "%.*f ± %.*f", digits, s.mean, digits, s.spread);
  return text;
}

/* "4.6M": numbers of parameters and tokens. */
static const char *count_text(double count, char text[64]) {
  static const char *const units[] = {"", "k", "M", "G", "T"};
  int unit = 0;
  if (isnan(count)) return "–";
  for (; count >= 9999.5 && unit < 4; unit++) count /= 1000;
  snprintf(text, 64, count < 99.95 && unit > 0 ? "%.1f%s" : "%.0f%s", count, units[unit]);
  return text;
}

static void print_losses(const kp_comparison *c) {
  static const char *const titles[] = {"<run",
                                       "<model",
                                       "n",
                                       "final loss",
                                       "best loss",
                                       "at step",
                                       "bits per byte",
                                       "loss at 1/4 of the steps",
                                       NULL};
  kp_table table;
  kp_table_begin(&table, titles);
  for (int i = 0; i < c->row_count; i++) {
    const kp_comparison_row *r = &c->rows[i];
    char text[64];
    kp_table_cell(&table, "%s", r->name);
    kp_table_cell(&table, "%s", r->model);
    kp_table_cell(&table, "%d", r->count);
    kp_table_cell(&table, "%s", statistic_text(r->measures[KP_FINAL_LOSS], 4, text));
    kp_table_cell(&table, "%s", statistic_text(r->measures[KP_BEST_LOSS], 4, text));
    kp_table_cell(&table, "%.0f", r->measures[KP_BEST_STEP].mean);
    kp_table_cell(&table, "%s", statistic_text(r->measures[KP_BITS_PER_BYTE], 4, text));
    kp_table_cell(&table, "%s", statistic_text(r->measures[KP_QUARTER_LOSS], 4, text));
  }
  kp_table_print(&table, stdout);
}

static void print_costs(const kp_comparison *c) {
  static const char *const titles[] = {"<run",     "parameters", "steps", "tokens", "tokens/s",
                                       "time",     "ms a step",  "ratio", "<to",    "memory planned",
                                       "boundary", "skipped",    NULL};
  kp_table table;
  kp_table_begin(&table, titles);
  for (int i = 0; i < c->row_count; i++) {
    const kp_comparison_row *r = &c->rows[i];
    char text[64], small[32];
    kp_table_cell(&table, "%s", r->name);
    kp_table_cell(&table, "%s", count_text(r->parameters, text));
    kp_table_cell(&table, "%.0f", r->measures[KP_STEPS].mean);
    kp_table_cell(&table, "%s", count_text(r->measures[KP_TOKENS].mean, text));
    kp_table_cell(&table, "%s", count_text(r->measures[KP_TOKENS_PER_S].mean, text));
    kp_table_cell(&table, "%s", kp_duration_text(r->measures[KP_SECONDS].mean, small));
    kp_table_cell(&table, "%s", statistic_text(r->measures[KP_STEP_MS], 1, text));
    if (isnan(r->step_ratio))
      kp_table_cell(&table, "–");
    else
      kp_table_cell(&table, "×%.2f", r->step_ratio);
    kp_table_cell(&table, "%s", c->rows[r->reference].name);
    kp_table_cell(&table, "%s", isnan(r->planned_bytes) ? "–" : kp_bytes_text(r->planned_bytes, small));
    if (isnan(r->measures[KP_BOUNDARY_SHARE].mean))
      kp_table_cell(&table, "–");
    else
      kp_table_cell(&table, "%.1f%%", 100 * r->measures[KP_BOUNDARY_SHARE].mean);
    kp_table_cell(&table, "%.0f", isnan(r->measures[KP_SKIPPED].mean) ? 0 : r->measures[KP_SKIPPED].mean);
  }
  kp_table_print(&table, stdout);
}

static void print_geometry(const kp_comparison *c) {
  static const char *const titles[] = {"<run",        "κ < -0.1",         "flat",       "κ > 0.1",
                                       "mean cosine", "effective rank",   "relative δ", "of a Gaussian",
                                       "SVD entropy", "frequency·length", NULL};
  static const kp_measure columns[] = {KP_HYPERBOLIC,
                                       KP_EUCLIDEAN,
                                       KP_SPHERICAL,
                                       KP_MEAN_COSINE,
                                       KP_EFFECTIVE_RANK,
                                       KP_RELATIVE_DELTA,
                                       KP_RELATIVE_DELTA_GAUSSIAN,
                                       KP_SVD_ENTROPY,
                                       KP_FREQUENCY_CORRELATION};
  kp_table table;
  bool known = false;
  for (int i = 0; i < c->row_count; i++)
    for (size_t m = 0; m < sizeof columns / sizeof *columns; m++)
      known |= c->rows[i].measures[columns[m]].count > 0;
  if (!known) return;
  putchar('\n');
  kp_table_begin(&table, titles);
  for (int i = 0; i < c->row_count; i++) {
    kp_table_cell(&table, "%s", c->rows[i].name);
    for (size_t m = 0; m < sizeof columns / sizeof *columns; m++) {
      char text[64];
      kp_table_cell(&table, "%s",
                    statistic_text(c->rows[i].measures[columns[m]], kp_measure_digits(columns[m]), text));
    }
  }
  kp_table_print(&table, stdout);
}

/* "lower by 0.0123, 95 % interval [-0.0200, -0.0046]"; of one seed a side, the difference alone. */
static void print_difference(const kp_difference *d) {
  if (kp_verdict_of(d) == KP_VERDICT_UNKNOWN) {
    printf("final loss %+.4f; with one seed a side it is not known what that means", d->value);
    return;
  }
  printf("final loss %s, %+.4f (95 %% interval %+.4f to %+.4f, p = %.2g)", kp_verdict_words(d), d->value,
         d->low, d->high, d->p);
}

static void print_twins(const kp_comparison *c) {
  static const char *const against[KP_TWINS] = {"its flat twin", "its flat twin in a ball of the same size",
                                                "the same with frozen curvature"};
  int printed = 0;
  for (int i = 0; i < c->row_count; i++) {
    const kp_comparison_row *r = &c->rows[i];
    if (r->twins[KP_TWIN_FLAT] >= 0) {
      printf("%s%s against its flat twin, %s: ", printed++ == 0 ? "\n" : "", r->name,
             c->rows[r->twins[KP_TWIN_FLAT]].name);
      print_difference(&r->differences[KP_TWIN_FLAT][KP_FINAL_LOSS]);
      if (!isnan(r->twin_paired.low))
        printf("; paired by seed %s (p = %.2g)", kp_verdict_words(&r->twin_paired), r->twin_paired.p);
      if (!isnan(r->differences[KP_TWIN_FLAT][KP_QUARTER_LOSS].value))
        printf("; at a quarter of the steps %+.4f", r->differences[KP_TWIN_FLAT][KP_QUARTER_LOSS].value);
      if (!isnan(r->step_ratio)) printf("; %.2f times its step time", r->step_ratio);
      putchar('\n');
    }
    for (int kind = KP_TWIN_BOUNDED; kind < KP_TWINS; kind++) {
      if (r->twins[kind] < 0) continue;
      printf("%s%s against %s, %s: ", printed++ == 0 ? "\n" : "", r->name, against[kind],
             c->rows[r->twins[kind]].name);
      print_difference(&r->differences[kind][KP_FINAL_LOSS]);
      putchar('\n');
    }
    if (r->curvature.heads == 0 || !kp_run_record_learns_curvature(r->runs[0])) continue;
    char sentence[1024];
    kp_curvature_sentence(&r->curvature, sentence, sizeof sentence);
    printf("%s%s: %s\n", printed++ == 0 ? "\n" : "", r->name, sentence);
  }
}

static void print_keys(const kp_comparison *c) {
  kp_table table;
  const char *titles[KP_TABLE_COLUMNS + 1] = {"<key"};
  const int shown = c->row_count < KP_TABLE_COLUMNS - 1 ? c->row_count : KP_TABLE_COLUMNS - 1;
  char names[KP_TABLE_COLUMNS][KP_TABLE_CELL];
  if (c->key_count == 0) return;
  for (int i = 0; i < shown; i++) {
    snprintf(names[i], KP_TABLE_CELL, "<%.190s", c->rows[i].name);
    titles[i + 1] = names[i];
  }
  printf("\nKeys that differ (train.seed aside)%s\n",
         shown < c->row_count ? ", of the first runs; comparison.json has all:" : ":");
  kp_table_begin(&table, titles);
  for (int k = 0; k < c->key_count; k++) {
    kp_table_cell(&table, "%s", c->keys[k].key);
    for (int i = 0; i < shown; i++) kp_table_cell(&table, "%s", c->keys[k].values[i]);
  }
  kp_table_print(&table, stdout);
}

static void print_comparison(const kp_comparison *c) {
  print_losses(c);
  putchar('\n');
  print_costs(c);
  kp_print_tasks(c->tasks);
  print_geometry(c);
  print_twins(c);
  print_keys(c);
  for (int i = 0; i < c->warning_count; i++) printf("%swarning: %s\n", i == 0 ? "\n" : "", c->warnings[i]);
}

static kp_status default_folder(const char *run, char out[KP_PATH_SIZE], kp_error *error) {
  char folder[KP_PATH_SIZE];
  const char *name;
  KP_TRY(kp_path_split(run, folder, &name, error));
  return kp_path_join(out, folder, "comparison", error);
}

/* The first run of the row with the lowest best loss; NULL when none was evaluated. */
static const char *best_run(const kp_comparison *c) {
  const kp_comparison_row *best = NULL;
  for (int i = 0; i < c->row_count; i++)
    if (c->rows[i].measures[KP_BEST_LOSS].count > 0 &&
        (best == NULL || c->rows[i].measures[KP_BEST_LOSS].mean < best->measures[KP_BEST_LOSS].mean))
      best = &c->rows[i];
  return best == NULL ? NULL : best->runs[0]->path;
}

static int print_best(kp_comparison *comparison) {
  const char *best = best_run(comparison);
  kp_error error = {0};
  if (best != NULL)
    puts(best);
  else
    kp_fail(&error, KP_ERR_INPUT, "none of the runs has been evaluated");
  const int code = best != NULL ? KP_EXIT_OK : kp_print_error(&error);
  kp_comparison_destroy(comparison);
  return code;
}

int kp_command_compare(int argc, char **argv) {
  arguments a = {0};
  kp_error error = {0};
  kp_comparison *comparison = NULL;
  char folder[KP_PATH_SIZE];
  kp_parse(&argp, argc, argv, &a);
  kp_status status = kp_comparison_create(a.runs.list, a.runs.count, &comparison, &error);
  if (status == KP_OK && a.best) {
    kp_texts_clear(&a.runs);
    return print_best(comparison);
  }
  if (status == KP_OK && a.out == NULL) {
    status = default_folder(comparison->runs[0].path, folder, &error);
    a.out = folder;
  }
  if (status == KP_OK && a.json) {
    json_t *json = kp_comparison_json(comparison);
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(KP_JSON_FLOAT_DIGITS));
    putchar('\n');
    json_decref(json);
  } else if (status == KP_OK) {
    print_comparison(comparison);
  }
  if (status == KP_OK) status = kp_comparison_write(comparison, a.out, !a.no_plot, &error);
  if (status == KP_OK && !a.json)
    printf("\nwritten: %s/comparison.json%s\n", a.out, a.no_plot ? "" : ", loss.png, loss.svg");
  kp_comparison_destroy(comparison);
  kp_texts_clear(&a.runs);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
