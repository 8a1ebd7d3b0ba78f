/* kappa tokenizer convert: the tokenizer of any file that kappa reads as tokenizer.json. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/command.h"
#include "cli/tokenizer.h"

typedef struct arguments {
  const char *tokenizer, *out;
} arguments;

static const struct argp_option options[] = {
    {"out", 'o', "FILE.json", 0, "where to write it", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'o': a->out = value; return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->tokenizer, value, "tokenizer", state);
  case ARGP_KEY_END:
    if (a->tokenizer == NULL) argp_error(state, "which tokenizer?");
    if (a->out == NULL) argp_error(state, "where to? --out=FILE.json");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "TOKENIZER --out=FILE.json",
    "Write a tokenizer of any kind that kappa reads as tokenizer.json.\v"
    "Example:\n  kappa tokenizer convert tokenizer.model --out tokenizer.json\n\n"
    "TOKENIZER is a file or a folder: tokenizer.json, vocab.json with merges.txt, encoder.json with "
    "vocab.bpe, "
    "or a rank file of tiktoken (tokenizer.model of Llama 3, gpt2.tiktoken). Hugging Face's tokenizers loads "
    "what is written, except kappa's own character and word tokenizers.",
    0,
    0,
    0};

int kp_tokenizer_convert_command(int argc, char **argv) {
  arguments a = {0};
  kp_error error = {0};
  kp_tokenizer *tokenizer;
  kp_parse(&argp, argc, argv, &a);
  if (kp_tokenizer_open(a.tokenizer, &tokenizer, &error) != KP_OK) return kp_print_error(&error);
  const kp_status status = kp_tokenizer_save(tokenizer, a.out, &error);
  if (status == KP_OK)
    printf("%s: %s, %d tokens, fingerprint %016" PRIx64 "\n", a.out, kp_tokenizer_name(tokenizer),
           tokenizer->vocabulary, tokenizer->fingerprint);
  kp_tokenizer_destroy(tokenizer);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
