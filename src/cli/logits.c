/* kappa logits: what a trained model predicts after given tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "core/safetensors.h"
#include "infer/logits.h"

typedef struct arguments {
  const char *run, *checkpoint, *tokens, *out;
  const kp_backend *backend;
  int threads;
  bool json;
} arguments;

enum { CHECKPOINT = 256, MOST_TOKENS = 1 << 20 };

static const struct argp_option options[] = {
    {"tokens", 'k', "LIST", 0, "token ids, with spaces or commas between them", 0},
    {"checkpoint", CHECKPOINT, "WHICH", 0, "best (default), last, or a step", 0},
    {"out", 'o', "FILE", 0, "write the logits to a safetensors file, float32 (tokens, vocabulary)", 0},
    {"json", 'j', 0, 0, "print all logits as JSON", 0},
    {"threads", 't', "N", 0, "threads (default: all cores)", 0},
    {"device", 'b', "NAME", 0, KP_DEVICE_HELP, 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'k': a->tokens = value; return 0;
  case CHECKPOINT: a->checkpoint = value; return 0;
  case 'o': a->out = value; return 0;
  case 'j': a->json = true; return 0;
  case 't': a->threads = kp_parse_threads(value, state); return 0;
  case 'b': a->backend = kp_parse_backend(value, state); return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->run, value, "run", state);
  case ARGP_KEY_END:
    if (a->run == NULL) argp_error(state, "which run?");
    if (a->tokens == NULL) argp_error(state, "which tokens? say --tokens \"1 2 3\"");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "RUN --tokens LIST",
    "Print what a trained model predicts after each of the given tokens: the likeliest next token and its "
    "logit, or all logits.\v"
    "Example:\n"
    "  kappa logits runs/first --tokens \"18 47 56 57\"\n"
    "  kappa logits runs/first --tokens 18,47,56 --out logits.safetensors",
    0,
    0,
    0};

static kp_status parse_tokens(const char *text, int32_t **tokens, int64_t *count, kp_error *error) {
  const char *at = text;
  *count = 0;
  *tokens = malloc((strlen(text) + 1) * sizeof **tokens); /* no fewer than there can be */
  if (*tokens == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the tokens");
  while (*(at += strspn(at, " ,\t\n")) != 0) {
    char *end;
    const long value = strtol(at, &end, 10);
    if (end == at || value < 0 || value > INT32_MAX || *count == MOST_TOKENS)
      return kp_fail(error, KP_ERR_INPUT, "--tokens: \"%.20s\" is no token id", at);
    (*tokens)[(*count)++] = (int32_t)value;
    at = end;
  }
  return KP_OK;
}

static kp_status write_file(const char *path, const double *logits, int64_t rows, int64_t columns,
                            kp_error *error) {
  kp_safetensors_writer *writer;
  float *narrow = malloc((size_t)(rows * columns) * sizeof *narrow);
  if (narrow == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the logits");
  for (int64_t i = 0; i < rows * columns; i++) narrow[i] = (float)logits[i];
  kp_status status = kp_safetensors_writer_create(path, &writer, error);
  if (status == KP_OK) {
    status = kp_safetensors_writer_declare(writer, "logits", KP_F32, 2, (int64_t[]){rows, columns}, error);
    if (status == KP_OK)
      status = kp_safetensors_writer_write(writer, "logits", narrow,
                                           (size_t)(rows * columns) * sizeof *narrow, error);
    if (status == KP_OK) status = kp_safetensors_writer_commit(writer, error);
    kp_safetensors_writer_destroy(writer);
  }
  free(narrow);
  return status;
}

static void print_json(const int32_t *tokens, const double *logits, int64_t rows, int64_t columns) {
  json_t *all = json_array(), *ids = json_array();
  for (int64_t r = 0; r < rows; r++) {
    json_t *row = json_array();
    for (int64_t c = 0; c < columns; c++) json_array_append_new(row, json_real(logits[r * columns + c]));
    json_array_append_new(all, row);
    json_array_append_new(ids, json_integer(tokens[r]));
  }
  kp_print_json(json_pack("{s:o, s:o}", "tokens", ids, "logits", all));
}

static void print_text(const int32_t *tokens, const double *logits, int64_t rows, int64_t columns) {
  printf("position  token  likeliest  logit\n");
  for (int64_t r = 0; r < rows; r++) {
    const double *row = logits + r * columns;
    int64_t best = 0;
    for (int64_t c = 1; c < columns; c++)
      if (row[c] > row[best]) best = c;
    printf("%8lld  %5d  %9lld  %.6g\n", (long long)r, tokens[r], (long long)best, row[best]);
  }
}

static kp_status show(const arguments *a, const int32_t *tokens, int64_t count, kp_error *error) {
  kp_trained trained;
  double *logits = NULL;
  KP_TRY(kp_trained_open(a->run, a->checkpoint, a->backend, &trained, error));
  const int64_t vocabulary = trained.options.vocabulary;
  kp_status status = kp_logits(&trained, tokens, count, a->threads, &logits, error);
  if (status == KP_OK && a->out != NULL)
    status = write_file(a->out, logits, count, vocabulary, error);
  else if (status == KP_OK)
    (a->json ? print_json : print_text)(tokens, logits, count, vocabulary);
  free(logits);
  kp_trained_close(&trained);
  return status;
}

int kp_command_logits(int argc, char **argv) {
  arguments a = {.checkpoint = "best"};
  kp_error error = {0};
  int32_t *tokens;
  int64_t count;
  a.backend = kp_parse_backend("cpu", NULL);
  kp_parse(&argp, argc, argv, &a);
  kp_status status = parse_tokens(a.tokens, &tokens, &count, &error);
  if (status == KP_OK) status = show(&a, tokens, count, &error);
  free(tokens);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
