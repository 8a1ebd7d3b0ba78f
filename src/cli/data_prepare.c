/* kappa data prepare: texts of the user's, or labelled examples, become a data set. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/data.h"
#include "core/path.h"
#include "data/labelled_prepare.h"
#include "data/prepare.h"

typedef struct arguments {
  kp_prepare_options options;
  kp_texts texts;
  const char *data_folder;
  kp_task task;
  kp_labelled_format format;
  int64_t length;
  const char *like;
  bool labelled_options; /* any that has a meaning for labelled examples alone */
} arguments;

/* Options that have no letter. */
enum {
  KEY_TEXT = 256,
  KEY_SECOND,
  KEY_LABEL,
  KEY_HEADER,
  KEY_LENGTH,
  KEY_LIKE,
  KEY_TOKENIZER,
  KEY_VOCABULARY
};

static const struct argp_option options[] = {
    {"name", 'n', "NAME", 0, "name of the data set, and of its folder", 0},
    {"validation", 'v', "FILE", 0, "a text of its own for validation (default: the end of the texts)", 0},
    {"fraction", 'f', "SHARE", 0, "of the characters that are for training (default: 0.9)", 0},
    {"tokenizer", KEY_TOKENIZER, "KIND", 0, "character, or word: the most frequent words, others spelled", 0},
    {"vocabulary", KEY_VOCABULARY, "COUNT", 0, "tokens of --tokenizer word (default: 4096)", 0},
    {"source", 's', "WORDS", 0, "where the text comes from, to be remembered", 0},
    {"licence", 'l', "WORDS", 0, "its licence, to be remembered", 0},
    {"data", 'd', "DIR", 0, "folder of the data sets (default: $KAPPA_DATA, or data)", 0},
    {"task", 't', "TASK", 0, "language (default), or of labelled examples: classify, tag", 1},
    {"label", KEY_LABEL, "COLUMN", 0, "classify: name or number of the labels' column or field", 2},
    {"text", KEY_TEXT, "COLUMN", 0, "classify: that of the sentence", 2},
    {"second", KEY_SECOND, "COLUMN", 0, "classify: that of a second sentence", 2},
    {"header", KEY_HEADER, 0, 0, "classify: skip the first line although the columns are numbers", 2},
    {"length", KEY_LENGTH, "N", 0, "the most tokens of an example; longer ones are cut (default: 256)", 2},
    {"like", KEY_LIKE, "SET", 0, "take tokenizer and labels of this labelled data set", 2},
    {0},
};

static kp_task parse_task(const char *name, struct argp_state *state) {
  for (kp_task task = KP_TASK_LANGUAGE; task <= KP_TASK_TAG; task++)
    if (strcmp(name, kp_task_name(task)) == 0) return task;
  argp_error(state, "--task is language, classify or tag, not '%s'", name);
  return KP_TASK_LANGUAGE;
}

static void parse_tokenizer(const char *value, kp_prepare_options *to, struct argp_state *state) {
  if (strcmp(value, "word") != 0 && strcmp(value, "character") != 0)
    argp_error(state, "--tokenizer is character or word, not '%s'", value);
  to->tokenizer = value;
}

static void parse_vocabulary(const char *value, kp_prepare_options *to, struct argp_state *state) {
  const long long vocabulary = kp_parse_integer(value, "--vocabulary", 2, state);
  if (vocabulary > INT32_MAX) argp_error(state, "--vocabulary %s is more than a token can number", value);
  to->vocabulary = (int32_t)vocabulary;
}

static void check_tokenizer(const arguments *a, struct argp_state *state) {
  const bool words = a->options.tokenizer != NULL && strcmp(a->options.tokenizer, "word") == 0;
  if (a->options.vocabulary > 0 && !words)
    argp_error(state, "--vocabulary goes with --tokenizer word; a text has as many characters as it has");
  if (a->like != NULL && a->options.tokenizer != NULL)
    argp_error(state, "--like takes the tokenizer of that set; --tokenizer would make another");
}

/* Those of labelled examples. */
static error_t parse_labelled(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case KEY_TEXT: a->format.text = value; break;
  case KEY_SECOND: a->format.second = value; break;
  case KEY_LABEL: a->format.label = value; break;
  case KEY_HEADER: a->format.header = true; break;
  case KEY_LENGTH: a->length = kp_parse_integer(value, "--length", 1, state); break;
  case KEY_LIKE: a->like = value; break;
  default: return ARGP_ERR_UNKNOWN;
  }
  a->labelled_options = true;
  return 0;
}

static void check_labelled(const arguments *a, struct argp_state *state) {
  const kp_labelled_format *f = &a->format;
  if (a->task == KP_TASK_LANGUAGE && a->labelled_options)
    argp_error(state, "--label, --text, --second, --header, --length and --like need --task classify or tag");
  if (a->task == KP_TASK_TAG && (f->text != NULL || f->second != NULL || f->label != NULL || f->header))
    argp_error(state,
               "tagged words stand in the first column and their tags in the last: there is nothing to "
               "name");
}

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
  case KEY_TOKENIZER: parse_tokenizer(value, &a->options, state); return 0;
  case KEY_VOCABULARY: parse_vocabulary(value, &a->options, state); return 0;
  case 's': a->options.source = value; return 0;
  case 'l': a->options.licence = value; return 0;
  case 'd': a->data_folder = value; return 0;
  case 't': a->task = parse_task(value, state); return 0;
  case ARGP_KEY_ARG: kp_texts_add(&a->texts, value); return 0;
  case ARGP_KEY_END:
    if (a->texts.count == 0) argp_error(state, "which text?");
    if (a->options.name == NULL) argp_error(state, "--name is missing: what shall the data set be called?");
    if (strchr(a->options.name, '/') != NULL || a->options.name[0] == '.' || a->options.name[0] == 0)
      argp_error(state, "--name is a name, not a path: '%s'", a->options.name);
    check_tokenizer(a, state);
    check_labelled(a, state);
    return 0;
  default: return parse_labelled(key, value, state);
  }
}

static const struct argp argp = {
    options,
    parse,
    "TEXT...",
    "Prepare texts of your own, UTF-8, a token a character or a word; or labelled "
    "examples.\v"
    "Sentences to classify stand in tables (.tsv: columns between tabs, with a "
    "header or numbers) or in JSON lines (.jsonl); words to tag one a line, the "
    "tag last, a blank line between sentences (CoNLL). docs/tasks.md says more.\n\n"
    "Example:\n"
    "  kappa data prepare --name letters --licence CC0 letters.txt\n"
    "  kappa data prepare --name tales --tokenizer word --vocabulary 4096 tales.txt\n"
    "  kappa train configs/gpt.yaml --set data.path=letters\n"
    "  kappa data prepare --task classify --name sst2 --validation dev.tsv "
    "train.tsv\n"
    "  kappa data prepare --task tag --name entities train.conll",
    0,
    0,
    0};

/* The data set's folder, in that of all sets. */
static kp_status set_folder(const arguments *a, const char *name, char folder[KP_PATH_SIZE],
                            kp_error *error) {
  char root[KP_PATH_SIZE];
  if (a->data_folder != NULL)
    KP_TRY(kp_path_join(root, "", a->data_folder, error));
  else
    KP_TRY(kp_data_folder(root, error));
  return kp_path_join(folder, root, name, error);
}

static void print_labelled(const kp_prepared *prepared, const kp_labelling *l, const char *folder,
                           bool fresh) {
  const int64_t cut = l->train.truncated + l->validation.truncated;
  printf(
      "%s: %lld training and %lld validation examples, %d labels, at most %lld tokens, vocabulary %d (%s)\n"
      "%s %s\n",
      prepared->name, (long long)l->train.examples, (long long)l->validation.examples, l->labels.count,
      (long long)(l->train.longest > l->validation.longest ? l->train.longest : l->validation.longest),
      prepared->vocabulary, prepared->tokenizer, fresh ? "prepared in" : "unchanged in", folder);
  if (cut > 0)
    fprintf(stderr,
            "kappa: note: %lld of %lld examples were longer than %lld tokens and are cut (--length)\n",
            (long long)cut, (long long)(l->train.examples + l->validation.examples), (long long)l->length);
}

static kp_status prepare_labelled(const arguments *a, kp_error *error) {
  char folder[KP_PATH_SIZE], like[KP_PATH_SIZE];
  kp_prepared prepared;
  kp_labelling labelling;
  bool fresh;
  KP_TRY(set_folder(a, a->options.name, folder, error));
  if (a->like != NULL && kp_path_kind_of(a->like) == KP_PATH_FOLDER)
    KP_TRY(kp_path_join(like, "", a->like, error));
  else if (a->like != NULL)
    KP_TRY(set_folder(a, a->like, like, error));
  const kp_labelled_prepare_options request = {.task = a->task,
                                               .format = a->format,
                                               .files = a->texts.list,
                                               .file_count = a->texts.count,
                                               .validation = a->options.validation,
                                               .train_fraction = a->options.train_fraction,
                                               .tokenizer = a->options.tokenizer,
                                               .vocabulary = a->options.vocabulary,
                                               .length = a->length,
                                               .like = a->like != NULL ? like : NULL,
                                               .folder = folder,
                                               .name = a->options.name,
                                               .source = a->options.source,
                                               .licence = a->options.licence};
  KP_TRY(kp_prepare_labelled(&request, &prepared, &labelling, &fresh, error));
  print_labelled(&prepared, &labelling, folder, fresh);
  kp_labelling_clear(&labelling);
  return KP_OK;
}

static kp_status prepare_text(arguments *a, kp_error *error) {
  char folder[KP_PATH_SIZE];
  kp_prepared prepared;
  bool fresh;
  KP_TRY(set_folder(a, a->options.name, folder, error));
  a->options.folder = folder;
  a->options.texts = a->texts.list;
  a->options.text_count = a->texts.count;
  KP_TRY(kp_prepare(&a->options, &prepared, &fresh, error));
  kp_print_prepared(&prepared, folder, fresh);
  return KP_OK;
}

int kp_data_prepare(int argc, char **argv) {
  arguments a = {0};
  kp_error error = {0};
  kp_parse(&argp, argc, argv, &a);
  kp_status status = a.task == KP_TASK_LANGUAGE ? prepare_text(&a, &error) : prepare_labelled(&a, &error);
  kp_texts_clear(&a.texts);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
