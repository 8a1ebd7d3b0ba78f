/* kappa tokenizer encode: text to token ids. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/tokenizer.h"
#include "data/token_writer.h"

typedef struct arguments {
  const char *tokenizer, *text, *file, *out;
  bool specials, pieces, replace_invalid, json;
  int threads;
} arguments;

enum { KEY_SPECIALS = 256, KEY_PIECES, KEY_INVALID };

static const struct argp_option options[] = {
    {"file", 'f', "FILE", 0, "encode a file; '-' is standard input", 0},
    {"specials", KEY_SPECIALS, 0, 0, "texts of special tokens become these tokens", 0},
    {"pieces", KEY_PIECES, 0, 0, "one line a token: its id and its text", 0},
    {"invalid", KEY_INVALID, "WHAT", 0, "refuse (default) bytes that are not UTF-8, or replace them", 0},
    {"out", 'o', "FILE.bin", 0, "write a token file (docs/formats.md) instead of printing", 0},
    {"threads", 't', "N", 0, "threads (default: all)", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'f': a->file = value; return 0;
  case KEY_SPECIALS: a->specials = true; return 0;
  case KEY_PIECES: a->pieces = true; return 0;
  case KEY_INVALID: a->replace_invalid = kp_parse_invalid(value, state); return 0;
  case 'o': a->out = value; return 0;
  case 't': a->threads = kp_parse_threads(value, state); return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG:
    if (a->text != NULL) argp_error(state, "one text, not also '%s': put it in quotation marks", value);
    if (a->tokenizer == NULL)
      a->tokenizer = value;
    else
      a->text = value;
    return 0;
  case ARGP_KEY_NO_ARGS: argp_error(state, "which tokenizer?"); return 0;
  case ARGP_KEY_END:
    if (a->text != NULL && a->file != NULL) argp_error(state, "TEXT and --file: which of the two?");
    if (a->out != NULL && a->pieces) argp_error(state, "--out writes a file; --pieces prints");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "TOKENIZER [TEXT]",
    "Print the token ids of a text: TEXT, --file, or standard input.\v"
    "Example:\n  kappa tokenizer encode tokenizer.json 'Hello world' --pieces\n\n"
    "TOKENIZER is a tokenizer's file or its folder. The text of a special token is encoded like any other "
    "text unless --specials is given.",
    0,
    0,
    0};

static kp_status print_pieces(const kp_tokenizer *tokenizer, const kp_ids *ids, kp_error *error) {
  for (size_t i = 0; i < ids->count; i++) {
    char *bytes;
    size_t size;
    KP_TRY(kp_tokenizer_decode(tokenizer, ids->list + i, 1, &bytes, &size, error));
    printf("%d\t", ids->list[i]);
    kp_print_bytes(bytes, size);
    putchar('\n');
    free(bytes);
  }
  return KP_OK;
}

static kp_status pieces_json(const kp_tokenizer *tokenizer, const kp_ids *ids, json_t *list,
                             kp_error *error) {
  for (size_t i = 0; i < ids->count; i++) {
    char *bytes;
    size_t size;
    KP_TRY(kp_tokenizer_decode(tokenizer, ids->list + i, 1, &bytes, &size, error));
    json_array_append_new(list, kp_json_bytes(bytes, size));
    free(bytes);
  }
  return KP_OK;
}

static kp_status print_json(const arguments *a, const kp_tokenizer *tokenizer, const kp_ids *ids,
                            size_t bytes, kp_error *error) {
  json_t *json = json_pack("{s:I, s:I}", "bytes", (json_int_t)bytes, "tokens", (json_int_t)ids->count);
  if (a->out != NULL) {
    json_object_set_new(json, "path", json_string(a->out));
  } else {
    json_t *list = json_array();
    for (size_t i = 0; i < ids->count; i++) json_array_append_new(list, json_integer(ids->list[i]));
    json_object_set_new(json, "ids", list);
  }
  kp_status status = KP_OK;
  if (a->pieces) {
    json_t *list = json_array();
    json_object_set_new(json, "pieces", list);
    status = pieces_json(tokenizer, ids, list, error);
  }
  if (status == KP_OK)
    kp_print_json(json);
  else
    json_decref(json);
  return status;
}

static void print_ids(const kp_ids *ids) {
  for (size_t i = 0; i < ids->count; i++) printf("%s%d", i == 0 ? "" : " ", ids->list[i]);
  putchar('\n');
}

static kp_status write_tokens(const char *path, const kp_tokenizer *tokenizer, const kp_ids *ids,
                              size_t bytes, kp_error *error) {
  kp_token_writer *writer;
  KP_TRY(kp_token_writer_create(path, tokenizer->vocabulary, tokenizer->fingerprint, &writer, error));
  const kp_status status = kp_token_writer_append(writer, ids->list, ids->count, error);
  if (status == KP_OK) return kp_token_writer_finish(writer, bytes, error);
  kp_token_writer_abort(writer);
  return status;
}

static kp_status print(const arguments *a, const kp_tokenizer *tokenizer, const kp_ids *ids, size_t bytes,
                       kp_error *error) {
  if (a->json) return print_json(a, tokenizer, ids, bytes, error);
  if (a->pieces) return print_pieces(tokenizer, ids, error);
  if (a->out == NULL)
    print_ids(ids);
  else
    printf("%s: %zu tokens of %zu bytes\n", a->out, ids->count, bytes);
  return KP_OK;
}

static kp_status show(const arguments *a, const kp_tokenizer *tokenizer, const kp_ids *ids, size_t bytes,
                      kp_error *error) {
  if (a->out != NULL) KP_TRY(write_tokens(a->out, tokenizer, ids, bytes, error));
  KP_TRY(print(a, tokenizer, ids, bytes, error));
  if (fflush(stdout) == 0 && ferror(stdout) == 0) return KP_OK;
  return kp_fail_errno(error, KP_ERR_IO, "cannot write the tokens to standard output");
}

static kp_status encode(const arguments *a, const kp_tokenizer *tokenizer, kp_text_view text,
                        kp_error *error) {
  kp_ids ids = {0};
  size_t offsets[2];
  kp_status status =
      kp_tokenizer_append_all(tokenizer, &text, 1, a->specials, a->threads, &ids, offsets, error);
  if (status == KP_OK) status = show(a, tokenizer, &ids, text.size, error);
  kp_ids_clear(&ids);
  return status;
}

/* TEXT, the file or standard input; the caller frees *text. */
static kp_status read_text(const arguments *a, char **text, size_t *size, kp_error *error) {
  if (a->text == NULL) {
    KP_TRY(kp_read_text(a->file, text, size, error));
  } else {
    *text = strdup(a->text);
    *size = strlen(a->text);
    if (*text == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the text");
  }
  return a->replace_invalid ? kp_repair_text(text, size, error) : KP_OK;
}

static kp_status run(const arguments *a, const kp_tokenizer *tokenizer, kp_error *error) {
  char *text = NULL;
  size_t size = 0;
  kp_status status = read_text(a, &text, &size, error);
  if (status == KP_OK) {
    status = encode(a, tokenizer, (kp_text_view){.data = text, .size = size}, error);
    if (status == KP_ERR_INPUT && a->text == NULL)
      kp_context(error, "%s", a->file == NULL ? "standard input" : a->file);
  }
  free(text);
  return status;
}

int kp_tokenizer_encode_command(int argc, char **argv) {
  arguments a = {0};
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  kp_parse(&argp, argc, argv, &a);
  kp_status status = kp_tokenizer_open(a.tokenizer, &tokenizer, &error);
  if (status == KP_OK) status = run(&a, tokenizer, &error);
  kp_tokenizer_destroy(tokenizer);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
