/* kappa tokenizer decode: token ids to text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/tokenizer.h"
#include "data/id_text.h"
#include "data/token_file.h"

typedef struct arguments {
  const char *tokenizer, *file;
  kp_texts ids;
  bool json;
} arguments;

static const struct argp_option options[] = {
    {"file", 'f', "FILE", 0, "ids from a token file (.bin) or a text of ids; '-' is standard input", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'f': a->file = value; return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG:
    if (a->tokenizer == NULL)
      a->tokenizer = value;
    else
      kp_texts_add(&a->ids, value);
    return 0;
  case ARGP_KEY_NO_ARGS: argp_error(state, "which tokenizer?"); return 0;
  case ARGP_KEY_END:
    if (a->ids.count > 0 && a->file != NULL) argp_error(state, "ID... and --file: which of the two?");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "TOKENIZER [ID...]",
    "Write the text of token ids: ID..., --file, or standard input.\v"
    "Example:\n  kappa tokenizer decode tokenizer.json 15496 995\n\n"
    "Ids in a text are whole numbers with white space or commas between them; brackets are passed over. The "
    "bytes are written as they are: ids that end within a character give bytes that are no UTF-8, which "
    "--json shows as \\xHH.",
    0,
    0,
    0};

static kp_status read_token_file(const char *path, const kp_tokenizer *tokenizer, kp_ids *ids,
                                 kp_error *error) {
  kp_tokens *tokens;
  KP_TRY(kp_tokens_open(&path, 1, NULL, &tokens, error));
  kp_status status = kp_tokens_check_tokenizer(tokens, tokenizer, error);
  if (status == KP_OK) status = kp_ids_reserve(ids, (size_t)kp_tokens_count(tokens), error);
  if (status == KP_OK) {
    kp_tokens_copy(tokens, 0, kp_tokens_count(tokens), ids->list);
    ids->count = (size_t)kp_tokens_count(tokens);
  }
  kp_tokens_destroy(tokens);
  return status;
}

static bool is_token_file(const char *path) {
  const size_t length = strlen(path);
  return length > 4 && strcmp(path + length - 4, ".bin") == 0;
}

static kp_status collect(const arguments *a, const kp_tokenizer *tokenizer, kp_ids *ids, kp_error *error) {
  for (size_t i = 0; i < a->ids.count; i++)
    KP_TRY(kp_ids_read_text(a->ids.list[i], strlen(a->ids.list[i]), ids, error));
  if (a->ids.count > 0) return KP_OK;
  if (a->file != NULL && is_token_file(a->file)) return read_token_file(a->file, tokenizer, ids, error);
  char *text;
  size_t size;
  KP_TRY(kp_read_text(a->file, &text, &size, error));
  const kp_status status = kp_ids_read_text(text, size, ids, error);
  free(text);
  if (status == KP_OK) return KP_OK;
  return kp_context(error, "%s", a->file == NULL ? "standard input" : a->file);
}

/* A newline is added on a terminal alone, so that a file gets the bytes of the text and no more. */
static kp_status show(const arguments *a, size_t count, const char *text, size_t size, kp_error *error) {
  if (a->json) {
    kp_print_json(json_pack("{s:I, s:I, s:o}", "tokens", (json_int_t)count, "bytes", (json_int_t)size, "text",
                            kp_json_bytes(text, size)));
    return KP_OK;
  }
  if (fwrite(text, 1, size, stdout) != size || fflush(stdout) != 0)
    return kp_fail_errno(error, KP_ERR_IO, "cannot write the text");
  if (isatty(STDOUT_FILENO) == 1) putchar('\n');
  return KP_OK;
}

static kp_status decode(const arguments *a, const kp_tokenizer *tokenizer, kp_error *error) {
  kp_ids ids = {0};
  char *text = NULL;
  size_t size = 0;
  kp_status status = collect(a, tokenizer, &ids, error);
  if (status == KP_OK) status = kp_tokenizer_decode(tokenizer, ids.list, ids.count, &text, &size, error);
  if (status == KP_OK) status = show(a, ids.count, text, size, error);
  free(text);
  kp_ids_clear(&ids);
  return status;
}

int kp_tokenizer_decode_command(int argc, char **argv) {
  arguments a = {0};
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  kp_parse(&argp, argc, argv, &a);
  kp_status status = kp_tokenizer_open(a.tokenizer, &tokenizer, &error);
  if (status == KP_OK) status = decode(&a, tokenizer, &error);
  kp_tokenizer_destroy(tokenizer);
  kp_texts_clear(&a.ids);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
