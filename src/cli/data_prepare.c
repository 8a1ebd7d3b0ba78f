/* kappa data prepare: texts of the user's become a data set. */
#include <string.h>

#include "cli/command.h"
#include "cli/data.h"
#include "data/prepare.h"

typedef struct arguments {
  kp_prepare_options options;
  kp_texts texts;
  const char *data_folder;
} arguments;

static const struct argp_option options[] = {
    {"name", 'n', "NAME", 0, "name of the data set, and of its folder", 0},
    {"validation", 'v', "FILE", 0, "a text of its own for validation (default: the end of the texts)", 0},
    {"fraction", 'f', "SHARE", 0, "of the characters that are for training (default: 0.9)", 0},
    {"tokenizer", 't', "KIND", 0, "character, or word: the most frequent words, others spelled", 0},
    {"vocabulary", 'V', "COUNT", 0, "tokens of --tokenizer word (default: 4096)", 0},
    {"source", 's', "WORDS", 0, "where the text comes from, to be remembered", 0},
    {"licence", 'l', "WORDS", 0, "its licence, to be remembered", 0},
    {"data", 'd', "DIR", 0, "folder of the data sets (default: $KAPPA_DATA, or data)", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'n': a->options.name = value; return 0;
  case 'v': a->options.validation = value; return 0;
  case 'f':
    a->options.train_fraction = kp_parse_real(value, "--fraction", 0, 1, state);
    if (a->options.train_fraction <= 0 || a->options.train_fraction >= 1)
      argp_error(state, "--fraction %s leaves one of the two parts empty", value);
    return 0;
  case 't':
    a->options.tokenizer = value;
    if (strcmp(value, "word") != 0 && strcmp(value, "character") != 0)
      argp_error(state, "--tokenizer is character or word, not '%s'", value);
    return 0;
  case 'V': {
    const long long vocabulary = kp_parse_integer(value, "--vocabulary", 2, state);
    if (vocabulary > INT32_MAX) argp_error(state, "--vocabulary %s is more than a token can number", value);
    a->options.vocabulary = (int32_t)vocabulary;
    return 0;
  }
  case 's': a->options.source = value; return 0;
  case 'l': a->options.licence = value; return 0;
  case 'd': a->data_folder = value; return 0;
  case ARGP_KEY_ARG: kp_texts_add(&a->texts, value); return 0;
  case ARGP_KEY_END:
    if (a->texts.count == 0) argp_error(state, "which text?");
    if (a->options.vocabulary > 0 &&
        (a->options.tokenizer == NULL || strcmp(a->options.tokenizer, "word") != 0))
      argp_error(state, "--vocabulary goes with --tokenizer word; a text has as many characters as it has");
    if (a->options.name == NULL) argp_error(state, "--name is missing: what shall the data set be called?");
    if (strchr(a->options.name, '/') != NULL || a->options.name[0] == '.' || a->options.name[0] == 0)
      argp_error(state, "--name is a name, not a path: '%s'", a->options.name);
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "TEXT...",
    "Prepare texts of your own: UTF-8, a token a character or a word.\v"
    "Example:\n"
    "  kappa data prepare --name letters --licence CC0 letters.txt\n"
    "  kappa data prepare --name tales --tokenizer word --vocabulary 4096 tales.txt\n"
    "  kappa train configs/gpt.yaml --set data.path=letters",
    0,
    0,
    0};

static kp_status prepare(arguments *a, kp_prepared *prepared, char folder[KP_PATH_SIZE], bool *fresh,
                         kp_error *error) {
  char root[KP_PATH_SIZE];
  if (a->data_folder != NULL)
    KP_TRY(kp_path_join(root, "", a->data_folder, error));
  else
    KP_TRY(kp_data_folder(root, error));
  KP_TRY(kp_path_join(folder, root, a->options.name, error));
  a->options.folder = folder;
  a->options.texts = a->texts.list;
  a->options.text_count = a->texts.count;
  return kp_prepare(&a->options, prepared, fresh, error);
}

int kp_data_prepare(int argc, char **argv) {
  arguments a = {0};
  kp_error error = {0};
  kp_prepared prepared;
  char folder[KP_PATH_SIZE];
  bool fresh;
  kp_parse(&argp, argc, argv, &a);
  kp_status status = prepare(&a, &prepared, folder, &fresh, &error);
  kp_texts_clear(&a.texts);
  if (status != KP_OK) return kp_print_error(&error);
  kp_print_prepared(&prepared, folder, fresh);
  return KP_EXIT_OK;
}
