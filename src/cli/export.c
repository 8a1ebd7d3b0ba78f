/* kappa export: writes a run as a model of another program. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "interchange/export.h"
#include "interchange/llmc.h"

typedef struct arguments {
  const char *run, *out;
  kp_export_options options;
  bool llmc, json;
} arguments;

enum { CHECKPOINT = 256, TO };

static const struct argp_option options[] = {
    {"out", 'o', "DIR", 0, "folder to write, or file of llm.c, which must not be there", 0},
    {"to", TO, "FORMAT", 0, "hf (default): Hugging Face's transformers; llmc: a GPT-2 of llm.c", 0},
    {"dtype", 'd', "TYPE", 0, "of the tensors: f32 (default), bf16 or f16", 0},
    {"checkpoint", CHECKPOINT, "WHICH", 0, "best (default), last, or a step", 0},
    {"json", 'j', 0, 0, "print one JSON object instead of text", 0},
    {0},
};

static kp_dtype parse_dtype(const char *word, struct argp_state *state) {
  if (strcmp(word, "f32") == 0) return KP_F32;
  if (strcmp(word, "bf16") == 0) return KP_BF16;
  if (strcmp(word, "f16") != 0) argp_error(state, "--dtype is f32, bf16 or f16, not '%s'", word);
  return KP_F16;
}

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'o': a->out = value; return 0;
  case 'd': a->options.dtype = parse_dtype(value, state); return 0;
  case CHECKPOINT: a->options.checkpoint = value; return 0;
  case 'j': a->json = true; return 0;
  case TO:
    a->llmc = strcmp(value, "llmc") == 0;
    if (!a->llmc && strcmp(value, "hf") != 0) argp_error(state, "--to is hf or llmc, not '%s'", value);
    return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->run, value, "run", state);
  case ARGP_KEY_END:
    if (a->run == NULL) argp_error(state, "which run?");
    if (a->out == NULL) argp_error(state, "where to? say --out DIR");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "RUN --out DIR",
    "Write a run as a model of Hugging Face's transformers, or as a checkpoint of llm.c.\v"
    "What GPT-2 or LLaMA can express becomes one; all other models come with modeling_kappa.py, which "
    "transformers loads with trust_remote_code=True.  The logits stay kappa's.\n\n"
    "Example:\n"
    "  kappa export runs/first --to hf --out exported/first\n"
    "  kappa export runs/ngpt --out exported/ngpt --dtype bf16 --checkpoint last\n"
    "  kappa export runs/gpt2 --to llmc --out gpt2.bin",
    0,
    0,
    0};

static void print_report(const arguments *a, const kp_export_report *report) {
  for (const char *note = report->notes; *note != 0;) {
    const size_t size = strcspn(note, "\n");
    fprintf(stderr, "kappa: note: %.*s\n", (int)size, note);
    note += size + (note[size] != 0);
  }
  if (a->json)
    kp_print_json(json_pack("{s:s, s:s, s:I, s:I, s:b}", "folder", a->out, "model_type", report->model_type,
                            "parameters", (json_int_t)report->parameters, "step", (json_int_t)report->step,
                            "tokenizer", report->tokenizer));
  else
    printf("%s: a %s model of %lld parameters, of step %lld\n", a->out, report->model_type,
           (long long)report->parameters, (long long)report->step);
}

int kp_command_export(int argc, char **argv) {
  arguments a = {.options = {.dtype = KP_F32, .checkpoint = "best"}};
  kp_error error = {0};
  kp_export_report report;
  kp_parse(&argp, argc, argv, &a);
  const kp_status status =
      (a.llmc ? kp_export_llmc : kp_export_hf)(a.run, &a.options, a.out, &report, &error);
  if (status != KP_OK) return kp_print_error(&error);
  print_report(&a, &report);
  return KP_EXIT_OK;
}
