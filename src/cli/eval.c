/* kappa eval: scores a text with a trained model. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "cli/command.h"
#include "cli/eval.h"
#include "core/json_text.h"
#include "infer/evaluate.h"

enum {
  OPTION_TASK = 256,
  OPTION_SHOTS,
  OPTION_EXAMPLES,
  OPTION_SEED,
  OPTION_LABELS,
  OPTION_QUESTIONS,
  OPTION_DETAILS,
  OPTION_CONTEXT,
  OPTION_STRIDE,
  OPTION_DOCUMENTS,
  OPTION_TOKENS,
};

static const struct argp_option options[] = {
    {"data", 'd', "PATH", 0, "prepared folder, data set or token file (default: the run's validation tokens)",
     0},
    {"file", 'f', "TEXT", 0, "a plain text file, by the run's tokenizer", 0},
    {"checkpoint", 'c', "WHICH", 0, "best (default), last, or a step", 0},
    {"batches", 'n', "N", 0, "score the first N batches only (default: all)", 0},
    {"context", OPTION_CONTEXT, "N", 0, "tokens of a window (default: the model's context)", 0},
    {"stride", OPTION_STRIDE, "N", 0,
     "a window begins every N tokens and scores what the last has not: each token sees at least context - N "
     "before it (default: the window's length)",
     0},
    {"documents", OPTION_DOCUMENTS, 0, 0, "windows stay inside documents (default: one stream)", 0},
    {"tokens", OPTION_TOKENS, "N", 0, "score the first N tokens only (default: all)", 0},
    {0, 0, 0, 0, "Multiple choice:", 1},
    {"task", OPTION_TASK, "NAME", 0,
     "hellaswag, arc_easy, arc_challenge, openbookqa, piqa, social_iqa, commonsense_qa or mmlu; the "
     "questions "
     "are a file, --data",
     1},
    {"shots", OPTION_SHOTS, "K", 0, "examples in front of a question (default: 0)", 1},
    {"examples", OPTION_EXAMPLES, "FILE", 0, "where they are from (default: other questions of --data)", 1},
    {"seed", OPTION_SEED, "N", 0, "of drawing them (default: 1234)", 1},
    {"labels", OPTION_LABELS, "FILE", 0, "right answers, one number a line, where the questions lack them",
     1},
    {"questions", OPTION_QUESTIONS, "N", 0, "score the first N questions only (default: all)", 1},
    {"details", OPTION_DETAILS, "FILE", 0, "write the scores of every question, one JSON object a line", 1},
    {0, 0, 0, 0, "Common:", 2},
    {"threads", 't', "N", 0, "threads (default: all cores)", 2},
    {"device", 'b', "NAME", 0, KP_DEVICE_HELP, 2},
    {"backend", 0, 0, OPTION_ALIAS, 0, 2},
    {"json", 'j', 0, 0, "print one JSON object", 2},
    {0},
};

/* What must go together. */
static void check(const kp_eval_arguments *a, struct argp_state *state) {
  const kp_evaluation_options *o = &a->options;
  const bool lengths = a->task != NULL && strcmp(a->task, "context") == 0,
             choices = a->task != NULL && !lengths;
  if (a->run == NULL) argp_error(state, "which run?");
  if (a->data != NULL && a->file != NULL) argp_error(state, "--data or --file, not both");
  if (choices && a->data == NULL)
    argp_error(state, "--task %s needs its questions: --data FILE.jsonl", a->task);
  if (!choices && (a->labels != NULL || a->examples != NULL || a->details != NULL || a->shots > 0))
    argp_error(state, "--shots, --examples, --labels and --details are about multiple choice, --task NAME");
  if (choices && (o->window > 0 || o->stride > 0 || o->tokens > 0 || o->batches > 0 || o->documents))
    argp_error(state, "--context, --stride, --tokens, --batches and --documents are about texts");
  if (lengths && (o->window > 0 || o->batches > 0))
    argp_error(state, "--task context chooses windows itself: bound the text by --tokens");
}

static error_t parse(int key, char *value, struct argp_state *state) {
  kp_eval_arguments *a = state->input;
  switch (key) {
  case 'd': a->data = value; return 0;
  case 'f': a->file = value; return 0;
  case 'c': a->checkpoint = value; return 0;
  case 'n': a->options.batches = kp_parse_integer(value, "--batches", 1, state); return 0;
  case 't': a->options.threads = (int)kp_parse_integer(value, "--threads", 1, state); return 0;
  case 'b': a->backend = kp_parse_backend(value, state); return 0;
  case 'j': a->json = true; return 0;
  case OPTION_CONTEXT: a->options.window = kp_parse_integer(value, "--context", 1, state); return 0;
  case OPTION_STRIDE: a->options.stride = kp_parse_integer(value, "--stride", 1, state); return 0;
  case OPTION_TOKENS: a->options.tokens = kp_parse_integer(value, "--tokens", 1, state); return 0;
  case OPTION_DOCUMENTS: a->options.documents = true; return 0;
  case OPTION_TASK: a->task = value; return 0;
  case OPTION_SHOTS: a->shots = kp_parse_integer(value, "--shots", 0, state); return 0;
  case OPTION_EXAMPLES: a->examples = value; return 0;
  case OPTION_SEED: a->seed = kp_parse_integer(value, "--seed", 0, state); return 0;
  case OPTION_LABELS: a->labels = value; return 0;
  case OPTION_QUESTIONS: a->questions = kp_parse_integer(value, "--questions", 1, state); return 0;
  case OPTION_DETAILS: a->details = value; return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->run, value, "run", state);
  case ARGP_KEY_END: check(a, state); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {options,
                                 parse,
                                 "RUN",
                                 "Score a text with a trained model: loss, perplexity, bits per byte; "
                                 "labelled examples: loss, accuracy, F1; multiple choice: accuracy.\v"
                                 "The text is cut into windows of the model's context, as in training.  "
                                 "Results are also added to evaluations.jsonl of the run.\n\n"
                                 "Example:\n"
                                 "  kappa eval runs/first\n"
                                 "  kappa eval runs/first --file letters.txt --checkpoint last --json\n"
                                 "  kappa eval runs/first --file letters.txt --stride 64\n"
                                 "  kappa eval runs/first --task context --file letters.txt\n"
                                 "  kappa eval runs/first --task hellaswag --data hellaswag_val.jsonl",
                                 0,
                                 0,
                                 0};

static json_t *result_of(const kp_eval_arguments *a, const kp_trained *trained, const kp_evaluation *e) {
  const char *data = a->file != NULL ? a->file : a->data;
  return json_pack(
      "{s:s, s:I, s:s, s:s, s:s?, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:o}", "run", a->run, "step",
      (json_int_t)trained->step, "backend", a->backend->name, "task", "language", "data", data, "loss",
      kp_json_number(e->loss), "standard_error", kp_json_number(e->standard_error), "perplexity",
      kp_json_number(e->perplexity), "bits_per_byte", kp_json_number(e->bits_per_byte), "tokens",
      (json_int_t)e->tokens, "batches", (json_int_t)e->batches, "context", (json_int_t)e->window, "stride",
      (json_int_t)e->stride, "documents", (json_int_t)e->documents, "seconds", kp_json_number(e->seconds));
}

static void print_words(const kp_eval_arguments *a, const kp_trained *trained, const kp_evaluation *e) {
  char time_text[32];
  printf("%s, step %lld: loss %.4f", a->run, (long long)trained->step, e->loss);
  if (!isnan(e->standard_error)) printf(" ± %.4f", e->standard_error);
  printf("  perplexity %.4g", e->perplexity);
  if (!isnan(e->bits_per_byte)) printf("  %.4f bits per byte", e->bits_per_byte);
  printf("  (%lld tokens in %lld batches, ", (long long)e->tokens, (long long)e->batches);
  if (e->stride < e->window)
    printf("windows of %lld every %lld, ", (long long)e->window, (long long)e->stride);
  if (a->options.documents) printf("%lld documents, ", (long long)e->documents);
  printf("%s)\n", kp_duration_text(e->seconds, time_text));
}

static kp_status evaluate_text(kp_eval_arguments *a, const kp_trained *trained, kp_error *error) {
  kp_progress_line line = kp_progress_line_begin();
  kp_tokens *tokens = NULL;
  kp_evaluation evaluation;
  a->options.progress = kp_eval_show_batches;
  a->options.context = &line;
  KP_TRY(kp_eval_open_text(a, trained, &tokens, error));
  kp_status status = kp_evaluate(trained, tokens, &a->options, &evaluation, error);
  kp_tokens_destroy(tokens);
  kp_progress_line_end(&line);
  KP_TRY(status);
  if (!a->json) print_words(a, trained, &evaluation);
  return kp_eval_finish(a, trained, result_of(a, trained, &evaluation), error);
}

static kp_status evaluate(kp_eval_arguments *a, const kp_trained *trained, kp_error *error) {
  if (a->task != NULL && strcmp(a->task, "context") == 0) return kp_eval_context(a, trained, error);
  if (a->task != NULL) return kp_eval_choices(a, trained, error);
  if (trained->options.task == KP_TASK_LANGUAGE) return evaluate_text(a, trained, error);
  if (a->file == NULL) return kp_eval_labels(a, trained, error);
  return kp_fail(error, KP_ERR_INPUT,
                 "%s predicts labels, and a text has none: prepare labelled examples with `kappa data "
                 "prepare --task %s --like` and name them with --data",
                 a->run, kp_task_name(trained->options.task));
}

int kp_command_eval(int argc, char **argv) {
  kp_eval_arguments a = {.checkpoint = "best", .backend = kp_backend_cpu(), .seed = 1234};
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
