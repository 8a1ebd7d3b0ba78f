/* kappa import: makes a run of another program's model. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "interchange/import.h"

typedef struct arguments {
  const char *path, *out;
  kp_import_options options;
  kp_texts sets;
  bool list, json;
} arguments;

enum { CONFIG = 256, SET, FORMATS };

static const struct argp_option options[] = {
    {"out", 'o', "RUN", 0, "folder of the run, which must not be there", 0},
    {"format", 'f', "FORMAT", 0, "what the source is (default: found by looking); see --formats", 0},
    {"tokenizer", 't', "PATH", 0, "tokenizer file or folder (default: the source's own)", 0},
    {"config", CONFIG, "FILE", 0, "configuration, for sources that do not say what the model is", 0},
    {"set", SET, "KEY=VALUE", 0, "override a key of the configuration; may be repeated", 0},
    {"json", 'j', 0, 0, "print one JSON object instead of text", 0},
    {"formats", FORMATS, 0, 0, "list the formats and end", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'o': a->out = value; return 0;
  case 'f': a->options.format = value; return 0;
  case 't': a->options.tokenizer = value; return 0;
  case CONFIG: a->options.config = value; return 0;
  case SET: kp_texts_add(&a->sets, value); return 0;
  case 'j': a->json = true; return 0;
  case FORMATS: a->list = true; return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->path, value, "source", state);
  case ARGP_KEY_END:
    if (a->list) return 0;
    if (a->path == NULL) argp_error(state, "which model?");
    if (a->out == NULL) argp_error(state, "where to? say --out RUN");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "PATH --out RUN\n--formats",
    "Make a run of another program's model: to evaluate, sample, export and train further.\v"
    "The model's numbers stay what they are: what kappa cannot compute is refused by its key.\n\n"
    "Example:\n"
    "  kappa import downloads/gpt2 --out runs/gpt2\n"
    "  kappa sample runs/gpt2 --prompt \"Once upon a time\"\n"
    "  kappa import downloads/Llama-3.2-1B --out runs/llama --set model.context=4096",
    0,
    0,
    0};

static void print_formats(void) {
  size_t count;
  const kp_importer *const *importers = kp_importers(&count);
  for (size_t i = 0; i < count; i++) printf("%-14s %s\n", importers[i]->name, importers[i]->what);
}

static void print_notes(const char *notes) {
  while (*notes != 0) {
    const size_t size = strcspn(notes, "\n");
    fprintf(stderr, "kappa: note: %.*s\n", (int)size, notes);
    notes += size + (notes[size] != 0);
  }
}

static void print_report(const arguments *a, const kp_import_report *report) {
  print_notes(report->notes);
  if (a->json) {
    kp_print_json(json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:i}", "run", a->out, "format", report->format,
                            "source", report->source, "family", report->family, "parameters",
                            (json_int_t)report->parameters, "step", (json_int_t)report->step,
                            "tokenizer_vocabulary", (int)report->vocabulary));
    return;
  }
  printf("%s: %s, now a %s of %lld parameters\n", a->out, report->source, report->family,
         (long long)report->parameters);
}

int kp_command_import(int argc, char **argv) {
  arguments a = {0};
  kp_error error = {0};
  kp_import_report report;
  kp_parse(&argp, argc, argv, &a);
  if (a.list) {
    print_formats();
    return KP_EXIT_OK;
  }
  a.options.sets = a.sets.list;
  a.options.set_count = a.sets.count;
  const kp_status status = kp_import(a.path, &a.options, a.out, &report, &error);
  kp_texts_clear(&a.sets);
  if (status != KP_OK) return kp_print_error(&error);
  print_report(&a, &report);
  return KP_EXIT_OK;
}
