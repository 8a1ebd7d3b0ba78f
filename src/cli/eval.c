/* kappa eval: scores a text with a trained model. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "cli/command.h"
#include "cli/eval.h"
#include "core/json_text.h"
#include "infer/evaluate.h"

typedef struct arguments {
  const char *run, *data, *file, *checkpoint;
  const kp_backend *backend;
  kp_evaluation_options options;
  bool json;
} arguments;

static const struct argp_option options[] = {
    {"data", 'd', "PATH", 0, "prepared folder, data set or token file (default: the run's validation tokens)",
     0},
    {"file", 'f', "TEXT", 0, "a plain text file, by the run's tokenizer", 0},
    {"checkpoint", 'c', "WHICH", 0, "best (default), last, or a step", 0},
    {"batches", 'n', "N", 0, "score the first N batches only (default: all)", 0},
    {"threads", 't', "N", 0, "threads (default: all cores)", 0},
    {"device", 'b', "NAME", 0, KP_DEVICE_HELP, 0},
    {"backend", 0, 0, OPTION_ALIAS, 0, 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'd': a->data = value; return 0;
  case 'f': a->file = value; return 0;
  case 'c': a->checkpoint = value; return 0;
  case 'n': a->options.batches = kp_parse_integer(value, "--batches", 1, state); return 0;
  case 't': a->options.threads = (int)kp_parse_integer(value, "--threads", 1, state); return 0;
  case 'b': a->backend = kp_parse_backend(value, state); return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG:
    if (a->run != NULL) argp_error(state, "one run, not also '%s'", value);
    a->run = value;
    return 0;
  case ARGP_KEY_END:
    if (a->run == NULL) argp_error(state, "which run?");
    if (a->data != NULL && a->file != NULL) argp_error(state, "--data or --file, not both");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {options,
                                 parse,
                                 "RUN",
                                 "Score a text with a trained model: loss, perplexity, bits per byte; or "
                                 "labelled examples: loss, accuracy, F1.\v"
                                 "The text is cut into windows of the model's context, as in training.\n\n"
                                 "Example:\n"
                                 "  kappa eval runs/first\n"
                                 "  kappa eval runs/first --file letters.txt --checkpoint last --json",
                                 0,
                                 0,
                                 0};

/* A terminal gets a line that is overwritten, a file one line every ten seconds; short work says nothing. */
typedef struct progress_line {
  time_t start, last;
  bool terminal, shown;
} progress_line;

static void show_progress(void *context, int64_t done, int64_t batches, double loss) {
  progress_line *line = context;
  const time_t now = time(NULL);
  char left[32];
  if (now - line->last < (line->terminal ? 1 : 10)) return;
  line->last = now;
  line->shown = true;
  const double seconds = difftime(now, line->start) / (double)done * (double)(batches - done);
  fprintf(stderr, "%sbatch %lld/%lld  loss %.4f  %s left%s", line->terminal ? "\r\033[K" : "",
          (long long)done, (long long)batches, loss, kp_duration_text(seconds, left),
          line->terminal ? "" : "\n");
}

static void print_json(const arguments *a, const kp_trained *trained, const kp_evaluation *e) {
  json_t *json = json_pack("{s:s, s:I, s:s, s:o, s:o, s:o, s:o, s:I, s:I, s:o}", "run", a->run, "step",
                           (json_int_t)trained->step, "backend", a->backend->name, "loss",
                           kp_json_number(e->loss), "standard_error", kp_json_number(e->standard_error),
                           "perplexity", kp_json_number(e->perplexity), "bits_per_byte",
                           kp_json_number(e->bits_per_byte), "tokens", (json_int_t)e->tokens, "batches",
                           (json_int_t)e->batches, "seconds", kp_json_number(e->seconds));
  json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(KP_JSON_DOUBLE_DIGITS));
  putchar('\n');
  json_decref(json);
}

static void print_words(const arguments *a, const kp_trained *trained, const kp_evaluation *e) {
  char time_text[32];
  printf("%s, step %lld: loss %.4f", a->run, (long long)trained->step, e->loss);
  if (!isnan(e->standard_error)) printf(" ± %.4f", e->standard_error);
  printf("  perplexity %.4g", e->perplexity);
  if (!isnan(e->bits_per_byte)) printf("  %.4f bits per byte", e->bits_per_byte);
  printf("  (%lld tokens in %lld batches, %s)\n", (long long)e->tokens, (long long)e->batches,
         kp_duration_text(e->seconds, time_text));
}

static kp_status evaluate(arguments *a, const kp_trained *trained, kp_error *error) {
  progress_line line = {.start = time(NULL), .last = time(NULL), .terminal = isatty(STDERR_FILENO)};
  kp_tokens *tokens = NULL;
  kp_evaluation evaluation;
  a->options.progress = show_progress;
  a->options.context = &line;
  if (trained->options.task != KP_TASK_LANGUAGE) {
    if (a->file != NULL)
      return kp_fail(error, KP_ERR_INPUT,
                     "%s predicts labels, and a text has none: prepare labelled examples with `kappa data "
                     "prepare --task %s --like` and name them with --data",
                     a->run, kp_task_name(trained->options.task));
    a->options.progress = NULL;
    return kp_eval_labels(trained, a->data, &a->options, a->json, error);
  }
  KP_TRY(a->file != NULL ? kp_evaluation_text_open(trained, a->file, &tokens, error)
                         : kp_evaluation_data_open(trained, a->data, &tokens, error));
  kp_status status = kp_evaluate(trained, tokens, &a->options, &evaluation, error);
  kp_tokens_destroy(tokens);
  if (line.shown && line.terminal) fputs("\r\033[K", stderr);
  if (status != KP_OK) return status;
  (a->json ? print_json : print_words)(a, trained, &evaluation);
  return KP_OK;
}

int kp_command_eval(int argc, char **argv) {
  arguments a = {.checkpoint = "best", .backend = kp_backend_cpu()};
  kp_error error = {0};
  kp_trained trained;
  kp_parse(&argp, argc, argv, &a);
  kp_status status = kp_trained_open(a.run, a.checkpoint, a.backend, &trained, &error);
  if (status == KP_OK) {
    status = evaluate(&a, &trained, &error);
    kp_trained_close(&trained);
  }
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
