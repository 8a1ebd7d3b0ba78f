/* kappa study: trains the runs of a plan, compares them, writes the report. */
#include <math.h>
#include <stdio.h>

#include "backend/cpu/cpu.h"
#include "cli/command.h"
#include "study/study.h"

typedef struct arguments {
  const char *plan, *out;
  kp_study_options options;
  bool report, quiet;
} arguments;

static const struct argp_option options[] = {
    {"out", 'o', "DIR", 0, "folder of the study", 0},
    {"report", 'r', 0, 0, "train nothing: compare what is there and write the report", 0},
    {"no-plot", 'n', 0, 0, "draw no figures", 0},
    {"threads", 't', "N", 0, "threads (default: all cores)", 0},
    {"device", 'b', "NAME", 0, KP_DEVICE_HELP, 0},
    {"backend", 0, 0, OPTION_ALIAS, 0, 0},
    {"quiet", 'q', 0, 0, "one line a run", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'o': a->out = value; return 0;
  case 'r': a->report = true; return 0;
  case 'n': a->options.figures = false; return 0;
  case 't': a->options.threads = kp_parse_threads(value, state); return 0;
  case 'b': a->options.backend = kp_parse_backend(value, state); return 0;
  case 'q': a->quiet = true; return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->plan, value, "plan", state);
  case ARGP_KEY_END:
    if (a->plan == NULL) argp_error(state, "which plan?");
    if (a->out == NULL) argp_error(state, "into which folder? give --out DIR");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "PLAN --out DIR",
    "Train all variants of a plan with all its seeds, one after another, and compare them.\v"
    "docs/studies.md says what a plan holds. A study that was stopped goes on with the same command: runs "
    "that are finished are skipped.\n\n"
    "Example:\n  kappa study bench/evidence.yaml --out runs/evidence",
    0,
    0,
    0};

static void print_run(const kp_study_progress *p) {
  printf("[%d/%d] %s, seed %lld", p->index + 1, p->count, p->run.variant->name, (long long)p->run.seed);
  if (p->run.text->name[0] != 0) printf(", %s", p->run.text->name);
}

static void print_training(const kp_study_progress *p) {
  char left[32];
  const kp_progress *t = p->training;
  print_run(p);
  printf(": step %lld/%lld, validation loss %.4f", (long long)t->step, (long long)t->steps,
         t->validation_loss);
  if (!isnan(p->seconds_left))
    printf("; the study has about %s left", kp_duration_text(p->seconds_left, left));
  putchar('\n');
}

static void print_progress(void *context, const kp_study_progress *p) {
  const arguments *a = context;
  switch (p->event) {
  case KP_STUDY_SKIPPED:
    print_run(p);
    puts(": finished before");
    break;
  case KP_STUDY_BEGINS:
    if (a->quiet) break;
    print_run(p);
    puts(": training");
    break;
  case KP_STUDY_TRAINS:
    if (p->training->evaluated && (!a->quiet || p->training->step == p->training->steps)) print_training(p);
    break;
  case KP_STUDY_ANALYZES: break;
  }
  fflush(stdout);
}

int kp_command_study(int argc, char **argv) {
  arguments a = {.options = {.backend = kp_backend_cpu(),
                             .figures = true,
                             .progress = print_progress,
                             .stop = &kp_stop_requested}};
  kp_error error = {0};
  kp_study_plan plan;
  kp_parse(&argp, argc, argv, &a);
  a.options.context = &a;
  if (kp_study_plan_open(a.plan, &plan, &error) != KP_OK) return kp_print_error(&error);
  kp_catch_stop();
  kp_status status = a.report ? KP_OK : kp_study_train(&plan, a.out, &a.options, &error);
  if (status == KP_OK) status = kp_study_report(&plan, a.out, &a.options, &error);
  kp_study_plan_close(&plan);
  if (status == KP_ERR_INTERRUPTED)
    kp_context(&error, "the same kappa study goes on from here, and finishes this run");
  if (status != KP_OK) return kp_print_error(&error);
  printf("written: %s/table.md, study.json, and figures of each text\n", a.out);
  return KP_EXIT_OK;
}
