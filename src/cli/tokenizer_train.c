/* kappa tokenizer train: a byte-level BPE tokenizer learned from the user's texts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/tokenizer.h"
#include "core/directory.h"
#include "core/path.h"
#include "data/bpe_train_files.h"
#include "data/pretokenizer.h"

/* What GPT-2 puts between documents. */
static const char *const default_special = "<|endoftext|>";

typedef struct arguments {
  kp_bpe_train_options options;
  kp_bpe_train_files files;
  kp_texts paths, specials;
  const char *out;
  bool no_specials, json;
  bool terminal; /* one line that is written again and again, instead of a line every few seconds */
  time_t printed;
  uint64_t bytes;
} arguments;

enum { KEY_SPECIAL = 256, KEY_NO_SPECIALS, KEY_MINIMUM, KEY_FORMAT, KEY_FIELD, KEY_INVALID };

static const struct argp_option options[] = {
    {"vocabulary", 'n', "COUNT", 0, "tokens, with the 256 bytes and the special ones (default: 32768)", 0},
    {"pattern", 'p', "NAME", 0, "how text is cut into words: gpt2 (default) or llama3", 0},
    {"special", KEY_SPECIAL, "TEXT", 0,
     "a special token; again for more (default: <|endoftext|>). Where its text stands in a file, a document "
     "ends",
     0},
    {"no-specials", KEY_NO_SPECIALS, 0, 0, "no special tokens at all", 0},
    {"minimum", KEY_MINIMUM, "COUNT", 0, "merge no pair that is rarer (default: 2)", 0},
    {"format", KEY_FORMAT, "NAME", 0, "of the files: text, json or jsonl (default: by their names)", 0},
    {"field", KEY_FIELD, "NAME", 0, "JSON: the field of the text (default: text)", 0},
    {"invalid", KEY_INVALID, "WHAT", 0, "refuse (default) bytes that are not UTF-8, or replace them", 0},
    {"out", 'o', "FILE|FOLDER", 0, "the tokenizer's file, or a folder to put tokenizer.json into", 0},
    {"threads", 't', "N", 0, "threads (default: all); the result is the same", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static const char *parse_pattern(const char *name, struct argp_state *state) {
  if (strcmp(name, "gpt2") == 0) return KP_PATTERN_GPT2;
  if (strcmp(name, "llama3") != 0) argp_error(state, "--pattern is gpt2 or llama3, not '%s'", name);
  return KP_PATTERN_LLAMA3;
}

static kp_document_format parse_format(const char *name, struct argp_state *state) {
  if (strcmp(name, "text") == 0) return KP_DOCUMENTS_TEXT;
  if (strcmp(name, "json") == 0) return KP_DOCUMENTS_JSON;
  if (strcmp(name, "jsonl") != 0) argp_error(state, "--format is text, json or jsonl, not '%s'", name);
  return KP_DOCUMENTS_LINES;
}

static void check(const arguments *a, struct argp_state *state) {
  if (a->out == NULL) argp_error(state, "--out is missing: where shall the tokenizer be written?");
  if (a->no_specials && a->specials.count > 0)
    argp_error(state, "--special and --no-specials contradict each other");
}

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  long long number;
  switch (key) {
  case 'n':
    number = kp_parse_integer(value, "--vocabulary", 256, state);
    if (number > INT32_MAX) argp_error(state, "--vocabulary %s is more than a token can number", value);
    a->options.vocabulary = (int32_t)number;
    return 0;
  case 'p': a->options.pattern = parse_pattern(value, state); return 0;
  case KEY_SPECIAL: kp_texts_add(&a->specials, value); return 0;
  case KEY_NO_SPECIALS: a->no_specials = true; return 0;
  case KEY_MINIMUM: a->options.minimum_count = kp_parse_integer(value, "--minimum", 1, state); return 0;
  case KEY_FORMAT: a->files.format = parse_format(value, state); return 0;
  case KEY_FIELD: a->files.field = value; return 0;
  case KEY_INVALID: a->files.replace_invalid = kp_parse_invalid(value, state); return 0;
  case 'o': a->out = value; return 0;
  case 't': a->options.threads = kp_parse_threads(value, state); return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG: kp_texts_add(&a->paths, value); return 0;
  case ARGP_KEY_NO_ARGS: argp_error(state, "which texts? '-' is standard input"); return 0;
  case ARGP_KEY_END: check(a, state); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "FILE...",
    "Learn a byte-level BPE tokenizer from texts: plain text, JSON or JSON lines, compressed or not.\v"
    "Example:\n  kappa tokenizer train book.txt --vocabulary 8192 --out mine/tokenizer.json\n\n"
    "The file is read by kappa and by Hugging Face's tokenizers (Tokenizer.from_file). The result does not "
    "depend on the order of the files or the number of threads.",
    0,
    0,
    0};

/* ---- progress ---- */

/* Whether a line is due now; the last one always is, on a terminal. */
static bool line_is_due(arguments *a, bool last) {
  enum { SECONDS_BETWEEN_LINES = 5 };
  const time_t now = time(NULL);
  if (a->terminal ? now == a->printed && !last : now - a->printed < SECONDS_BETWEEN_LINES) return false;
  a->printed = now;
  return true;
}

static bool show_counting(void *context, int64_t done, int64_t files_left) {
  arguments *a = context;
  char size[32];
  if (line_is_due(a, false))
    fprintf(stderr, "%s%s of text counted, %lld file%s left%s", a->terminal ? "\r" : "",
            kp_bytes_text((double)done, size), (long long)files_left, files_left == 1 ? "" : "s",
            a->terminal ? "  " : "\n");
  return !kp_stop_requested;
}

static bool show_merging(void *context, int64_t done, int64_t total) {
  arguments *a = context;
  if (line_is_due(a, done == total))
    fprintf(stderr, "%s%lld of %lld tokens%s", a->terminal ? "\r" : "", (long long)done, (long long)total,
            a->terminal && done < total ? "  " : "\n");
  return !kp_stop_requested;
}

/* ---- the work ---- */

static kp_status learn(arguments *a, kp_tokenizer **tokenizer, kp_error *error) {
  kp_bpe_trainer *trainer;
  KP_TRY(kp_bpe_trainer_create(&a->options, &trainer, error));
  kp_status status = kp_bpe_trainer_add_files(trainer, &a->files, &a->bytes, error);
  if (status == KP_OK) status = kp_bpe_trainer_finish(trainer, tokenizer, error);
  kp_bpe_trainer_destroy(trainer);
  return status;
}

/* FOLDER/tokenizer.json for a folder, which is made when the path ends with a slash.  Whether the file can be
 * written there is asked before the work, not after it. */
static kp_status target(const char *out, char path[KP_PATH_SIZE], kp_error *error) {
  char parent[KP_PATH_SIZE];
  const char *name;
  const size_t length = strlen(out);
  const bool named_folder = length > 0 && out[length - 1] == '/';
  if (named_folder) KP_TRY(kp_directory_create(out, error));
  const bool folder = named_folder || kp_path_kind_of(out) == KP_PATH_FOLDER;
  KP_TRY(kp_path_join(path, folder ? out : "", folder ? KP_TOKENIZER_FILE : out, error));
  KP_TRY(kp_path_split(path, parent, &name, error));
  if (kp_path_kind_of(parent) == KP_PATH_FOLDER) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "there is no folder '%s' to put '%s' into; make it first", parent,
                 name);
}

static void print_made(const arguments *a, const char *path, const kp_tokenizer *tokenizer) {
  char size[32];
  if (a->json)
    kp_print_json(json_pack("{s:s, s:i, s:I, s:I}", "path", path, "vocabulary", (int)tokenizer->vocabulary,
                            "specials", (json_int_t)tokenizer->special_count, "bytes", (json_int_t)a->bytes));
  else
    printf("%s: %d tokens learned from %s\n", path, tokenizer->vocabulary,
           kp_bytes_text((double)a->bytes, size));
  if (tokenizer->vocabulary < a->options.vocabulary)
    fprintf(stderr, "kappa: note: no pair came %lld times any more: %d tokens instead of %d\n",
            (long long)a->options.minimum_count, tokenizer->vocabulary, a->options.vocabulary);
}

static kp_status train(arguments *a, kp_error *error) {
  char path[KP_PATH_SIZE];
  kp_tokenizer *tokenizer;
  KP_TRY(target(a->out, path, error));
  KP_TRY(learn(a, &tokenizer, error));
  const kp_status status = kp_tokenizer_save(tokenizer, path, error);
  if (status == KP_OK) print_made(a, path, tokenizer);
  kp_tokenizer_destroy(tokenizer);
  return status;
}

int kp_tokenizer_train_command(int argc, char **argv) {
  arguments a = {.options = {.vocabulary = 32768, .minimum_count = 2},
                 .terminal = isatty(STDERR_FILENO) == 1,
                 .printed = time(NULL)};
  kp_error error = {0};
  kp_parse(&argp, argc, argv, &a);
  if (a.specials.count == 0 && !a.no_specials) kp_texts_add(&a.specials, default_special);
  a.options.specials = a.specials.list;
  a.options.special_count = a.specials.count;
  a.options.merging = show_merging;
  a.files.paths = a.paths.list;
  a.files.path_count = a.paths.count;
  a.files.progress = show_counting;
  a.options.context = a.files.context = &a;
  kp_catch_stop();
  const kp_status status = train(&a, &error);
  kp_texts_clear(&a.paths);
  kp_texts_clear(&a.specials);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
