/* kappa tokenizer info: what a tokenizer is, and how well it fits a text. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/tokenizer.h"

typedef struct arguments {
  const char *tokenizer, *file;
  bool json;
  int threads;
} arguments;

/* What a tokenizer makes of a text. */
typedef struct text_fit {
  size_t bytes, tokens;
  bool lossless; /* decoding gives the text back */
} text_fit;

static const struct argp_option options[] = {
    {"file", 'f', "FILE", 0, "a text to measure bytes per token with; '-' is standard input", 0},
    {"threads", 't', "N", 0, "threads (default: all)", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'f': a->file = value; return 0;
  case 't': a->threads = kp_parse_threads(value, state); return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->tokenizer, value, "tokenizer", state);
  case ARGP_KEY_NO_ARGS: argp_error(state, "which tokenizer?"); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {options,
                                 parse,
                                 "TOKENIZER",
                                 "Say what a tokenizer is: kind, vocabulary, special tokens, fingerprint.\v"
                                 "Example:\n  kappa tokenizer info tokenizer.json --file book.txt",
                                 0,
                                 0,
                                 0};

static kp_status compare(const kp_tokenizer *tokenizer, const kp_ids *ids, kp_text_view text, text_fit *fit,
                         kp_error *error) {
  char *back;
  size_t size;
  KP_TRY(kp_tokenizer_decode(tokenizer, ids->list, ids->count, &back, &size, error));
  fit->bytes = text.size;
  fit->tokens = ids->count;
  fit->lossless = size == text.size && memcmp(back, text.data, size) == 0;
  free(back);
  return KP_OK;
}

static kp_status measure(const arguments *a, const kp_tokenizer *tokenizer, text_fit *fit, kp_error *error) {
  char *read;
  kp_text_view text;
  kp_ids ids = {0};
  size_t offsets[2];
  KP_TRY(kp_read_text(a->file, &read, &text.size, error));
  text.data = read;
  kp_status status = kp_tokenizer_append_all(tokenizer, &text, 1, false, a->threads, &ids, offsets, error);
  if (status == KP_OK) status = compare(tokenizer, &ids, text, fit, error);
  kp_ids_clear(&ids);
  free(read);
  return status == KP_OK ? KP_OK : kp_context(error, "%s", a->file);
}

static int by_id(const void *a, const void *b) {
  const int32_t x = ((const kp_special_token *)a)->id, y = ((const kp_special_token *)b)->id;
  return (x > y) - (x < y);
}

/* The special tokens in the order of their ids; the caller frees them.  NULL: no memory. */
static kp_special_token *sorted_specials(const kp_tokenizer *tokenizer) {
  kp_special_token *list = malloc((tokenizer->special_count + 1) * sizeof *list);
  if (list == NULL) return NULL;
  for (size_t i = 0; i < tokenizer->special_count; i++) list[i] = tokenizer->specials[i];
  qsort(list, tokenizer->special_count, sizeof *list, by_id);
  return list;
}

static void print_bound(const char *name, const kp_tokenizer *tokenizer, int32_t id) {
  if (id < 0)
    printf("%-12s none\n", name);
  else
    for (size_t i = 0; i < tokenizer->special_count; i++)
      if (tokenizer->specials[i].id == id) printf("%-12s %d %s\n", name, id, tokenizer->specials[i].text);
}

static void print_all(const kp_tokenizer *tokenizer, const kp_special_token *specials, const text_fit *fit) {
  printf("kind         %s\nvocabulary   %d\nfingerprint  %016" PRIx64 "\nspecials     %zu\n",
         kp_tokenizer_name(tokenizer), tokenizer->vocabulary, tokenizer->fingerprint,
         tokenizer->special_count);
  enum { SHOWN = 20 };
  for (size_t i = 0; i < tokenizer->special_count && i < SHOWN; i++)
    printf("             %d %s\n", specials[i].id, specials[i].text);
  if (tokenizer->special_count > SHOWN)
    printf("             and %zu more\n", tokenizer->special_count - SHOWN);
  print_bound("begin", tokenizer, tokenizer->begin);
  print_bound("end", tokenizer, tokenizer->end);
  if (fit->tokens > 0)
    printf("text         %zu bytes, %zu tokens, %.4f bytes a token, %s\n", fit->bytes, fit->tokens,
           (double)fit->bytes / (double)fit->tokens,
           fit->lossless ? "decoded without loss" : "NOT the same when it is decoded");
}

static void print_json(const kp_tokenizer *tokenizer, const kp_special_token *specials, const text_fit *fit) {
  char fingerprint[17];
  snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, tokenizer->fingerprint);
  json_t *list = json_array();
  for (size_t i = 0; i < tokenizer->special_count; i++)
    json_array_append_new(list, json_pack("{s:i, s:s}", "id", (int)specials[i].id, "text", specials[i].text));
  json_t *json = json_pack("{s:s, s:i, s:s, s:o}", "kind", kp_tokenizer_name(tokenizer), "vocabulary",
                           (int)tokenizer->vocabulary, "fingerprint", fingerprint, "specials", list);
  json_object_set_new(json, "begin", tokenizer->begin < 0 ? json_null() : json_integer(tokenizer->begin));
  json_object_set_new(json, "end", tokenizer->end < 0 ? json_null() : json_integer(tokenizer->end));
  if (fit->tokens > 0)
    json_object_set_new(json, "text",
                        json_pack("{s:I, s:I, s:f, s:b}", "bytes", (json_int_t)fit->bytes, "tokens",
                                  (json_int_t)fit->tokens, "bytes_per_token",
                                  (double)fit->bytes / (double)fit->tokens, "lossless", fit->lossless));
  kp_print_json(json);
}

static kp_status show(const arguments *a, const kp_tokenizer *tokenizer, kp_error *error) {
  text_fit fit = {0};
  if (a->file != NULL) KP_TRY(measure(a, tokenizer, &fit, error));
  kp_special_token *specials = sorted_specials(tokenizer);
  if (specials == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the special tokens");
  if (a->json)
    print_json(tokenizer, specials, &fit);
  else
    print_all(tokenizer, specials, &fit);
  free(specials);
  return KP_OK;
}

static kp_status run(const arguments *a, kp_error *error) {
  kp_tokenizer *tokenizer;
  KP_TRY(kp_tokenizer_open(a->tokenizer, &tokenizer, error));
  const kp_status status = show(a, tokenizer, error);
  kp_tokenizer_destroy(tokenizer);
  return status;
}

int kp_tokenizer_info_command(int argc, char **argv) {
  arguments a = {0};
  kp_error error = {0};
  kp_parse(&argp, argc, argv, &a);
  return run(&a, &error) == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
