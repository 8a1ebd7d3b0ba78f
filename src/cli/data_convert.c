/* kappa data convert: token files from one program's layout to another's. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/data.h"
#include "data/convert.h"

typedef struct arguments {
  kp_convert_options options;
  const char *tokenizer;
  bool chosen;
} arguments;

enum { KEY_TO = 256, KEY_TOKENIZER, KEY_VOCABULARY };

static const struct argp_option options[] = {
    {"to", KEY_TO, "LAYOUT", 0, "nanogpt (uint16, no header), llmc (llm.c, modded-nanogpt) or kappa", 0},
    {"tokenizer", KEY_TOKENIZER, "FILE", 0,
     "file or folder of the tokenizer that made the tokens: they are checked against it, and kappa's files "
     "name it",
     0},
    {"vocabulary", KEY_VOCABULARY, "COUNT", 0, "without a tokenizer: every token must be below", 0},
    {0},
};

static void parse_layout(arguments *a, const char *value, struct argp_state *state) {
  static const char *const layouts[] = {"nanogpt", "llmc", "kappa"};
  for (int i = 0; i < 3; i++)
    if (strcmp(value, layouts[i]) == 0) {
      a->options.to = (kp_convert_to)i;
      a->chosen = true;
      return;
    }
  argp_error(state, "--to is nanogpt, llmc or kappa, not '%s'", value);
}

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case KEY_TO: parse_layout(a, value, state); return 0;
  case KEY_TOKENIZER: a->tokenizer = value; return 0;
  case KEY_VOCABULARY: {
    const long long vocabulary = kp_parse_integer(value, "--vocabulary", 2, state);
    if (vocabulary > INT32_MAX) argp_error(state, "--vocabulary %s is more than a token can number", value);
    a->options.vocabulary = (int32_t)vocabulary;
    return 0;
  }
  case ARGP_KEY_ARG:
    if (a->options.output != NULL) argp_error(state, "one input and one output, not also '%s'", value);
    *(a->options.input == NULL ? &a->options.input : &a->options.output) = value;
    return 0;
  case ARGP_KEY_END:
    if (a->options.output == NULL) argp_error(state, "which tokens, and where to?");
    if (!a->chosen) argp_error(state, "--to is missing: nanogpt, llmc or kappa?");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "IN OUT",
    "Convert token files between nanoGPT's layout, llm.c's shards and kappa's.\v"
    "IN is a file, a pattern in quotes, or a folder; OUT is a file for all of it, or a folder for a file "
    "each.\n\n"
    "Example:\n"
    "  kappa data convert openwebtext/train.bin owt/ --to kappa --tokenizer gpt2\n"
    "  kappa data convert 'fineweb_train_*.bin' train.bin --to nanogpt",
    0,
    0,
    0};

static void print_file(void *context, const kp_converted *file) {
  (void)context;
  printf("%s: %lld tokens\n", file->path, (long long)file->tokens);
}

int kp_data_convert(int argc, char **argv) {
  arguments a = {0};
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  kp_status status = KP_OK;
  kp_parse(&argp, argc, argv, &a);
  if (a.tokenizer != NULL) status = kp_tokenizer_open(a.tokenizer, &tokenizer, &error);
  a.options.tokenizer = tokenizer;
  if (status == KP_OK) status = kp_convert(&a.options, print_file, NULL, &error);
  kp_tokenizer_destroy(tokenizer);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
