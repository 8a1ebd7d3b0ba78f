/* kappa data prepare: texts of the user's, or labelled examples, become a data set. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/data.h"
#include "cli/prepare_progress.h"
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
  bool document_options; /* ... or for documents */
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
  KEY_VOCABULARY,
  KEY_FORMAT,
  KEY_FIELD,
  KEY_SEPARATOR,
  KEY_INVALID,
  KEY_SPLIT,
  KEY_DEDUPE,
  KEY_BEGIN,
  KEY_END,
  KEY_SHARD_TOKENS,
  KEY_THREADS
};

static const struct argp_option options[] = {
    {"name", 'n', "NAME", 0, "name of the data set, and of its folder", 0},
    {"validation", 'v', "FILE", 0, "a file of its own for validation (default: a part of the texts)", 0},
    {"fraction", 'f', "SHARE", 0, "of the characters or documents that are for training (default: 0.9)", 0},
    {"tokenizer", KEY_TOKENIZER, "WHICH", 0,
     "file or folder of a tokenizer; or one that is made of the texts: character (default), word (the most "
     "frequent words, others spelled), bpe (byte-level, learned)",
     0},
    {"vocabulary", KEY_VOCABULARY, "COUNT", 0, "tokens of --tokenizer word (default: 4096) or bpe (32768)",
     0},
    {"source", 's', "WORDS", 0, "where the text comes from, to be remembered", 0},
    {"licence", 'l', "WORDS", 0, "its licence, to be remembered", 0},
    {"data", 'd', "DIR", 0, "folder of the data sets (default: $KAPPA_DATA, or data)", 0},
    {"format", KEY_FORMAT, "FORMAT", 0, "documents: text, json or jsonl (default: by the file's name)", 1},
    {"field", KEY_FIELD, "NAME", 0,
     "documents: the JSON field of the text, such as meta.body (default: text)", 1},
    {"separator", KEY_SEPARATOR, "LINE", 0,
     "documents: the line between them in plain text; '' for blank lines (default: a file is one)", 1},
    {"invalid", KEY_INVALID, "WHAT", 0,
     "documents: refuse (default) bytes that are not UTF-8, or replace them", 1},
    {"split", KEY_SPLIT, "RULE", 0,
     "hash: each document by its hash; characters: the end of the text is for validation (default for one "
     "plain "
     "text, and for the tokenizers character and word)",
     1},
    {"dedupe", KEY_DEDUPE, 0, 0, "documents: keep the first of those that are equal", 1},
    {"begin", KEY_BEGIN, 0, 0, "documents: the tokenizer's begin token in front of each", 1},
    {"end", KEY_END, "TOKEN", 0, "documents: the special token behind each (default: the tokenizer's)", 1},
    {"shard-tokens", KEY_SHARD_TOKENS, "N", 0, "documents: tokens of a file (default: 100000000)", 1},
    {"threads", KEY_THREADS, "N", 0, "documents: threads that encode (default: all)", 1},
    {"task", 't', "TASK", 0,
     "language (default), or of labelled examples: classify, tag; or dialogue, see --task dialogue --help",
     1},
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

static void parse_vocabulary(const char *value, kp_prepare_options *to, struct argp_state *state) {
  const long long vocabulary = kp_parse_integer(value, "--vocabulary", 2, state);
  if (vocabulary > INT32_MAX) argp_error(state, "--vocabulary %s is more than a token can number", value);
  to->vocabulary = (int32_t)vocabulary;
}

static int parse_word(const char *value, const char *option, const char *const *words,
                      struct argp_state *state) {
  char all[128] = "";
  for (int i = 0; words[i] != NULL; i++) {
    if (strcmp(value, words[i]) == 0) return i;
    snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i > 0 ? ", " : "", words[i]);
  }
  argp_error(state, "%s is one of %s, not '%s'", option, all, value);
  return 0;
}

/* Those of documents. */
static error_t parse_documents(int key, char *value, struct argp_state *state) {
  static const char *const formats[] = {"text", "json", "jsonl", NULL};
  static const char *const policies[] = {"refuse", "replace", NULL};
  static const char *const splits[] = {"characters", "hash", NULL};
  arguments *a = state->input;
  kp_prepare_options *o = &a->options;
  switch (key) {
  case KEY_FORMAT:
    o->format = (kp_document_format)(KP_DOCUMENTS_TEXT + parse_word(value, "--format", formats, state));
    break;
  case KEY_FIELD: o->field = value; break;
  case KEY_SEPARATOR: o->separator = value; break;
  case KEY_INVALID: o->replace_invalid = parse_word(value, "--invalid", policies, state) == 1; break;
  case KEY_SPLIT:
    o->split = (kp_prepare_split)(KP_PREPARE_CHARACTERS + parse_word(value, "--split", splits, state));
    return 0;
  case KEY_DEDUPE: o->dedupe = true; break;
  case KEY_BEGIN: o->begin = true; break;
  case KEY_END: o->end = value; break;
  case KEY_SHARD_TOKENS: o->shard_tokens = kp_parse_integer(value, "--shard-tokens", 1, state); break;
  case KEY_THREADS: o->threads = kp_parse_threads(value, state); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
  a->document_options = true;
  return 0;
}

static void check_tokenizer(const arguments *a, struct argp_state *state) {
  const bool words = a->options.tokenizer != NULL && strcmp(a->options.tokenizer, "word") == 0;
  const bool learned = a->options.tokenizer != NULL && strcmp(a->options.tokenizer, "bpe") == 0;
  if (a->options.vocabulary > 0 && !words && !learned)
    argp_error(state,
               "--vocabulary goes with --tokenizer word or bpe; a text has as many characters as it has");
  if (a->like != NULL && a->options.tokenizer != NULL)
    argp_error(state, "--like takes the tokenizer of that set; --tokenizer would make another");
  if (a->task != KP_TASK_LANGUAGE && learned)
    argp_error(state, "labelled examples take --tokenizer character, word, or that of a file or folder; "
                      "`kappa tokenizer train` makes one");
}

/* An option of documents is a word for them. */
static void check_documents(arguments *a, struct argp_state *state) {
  if (!a->document_options) return;
  if (a->task != KP_TASK_LANGUAGE) argp_error(state, "labelled examples have no options of documents");
  if (a->options.split == KP_PREPARE_CHARACTERS)
    argp_error(state, "--split characters cuts one text, and takes no options of documents");
  a->options.split = KP_PREPARE_DOCUMENTS;
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
  case KEY_TOKENIZER: a->options.tokenizer = value; return 0;
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
    check_documents(a, state);
    return 0;
  default: return parse_documents(key, value, state) == 0 ? 0 : parse_labelled(key, value, state);
  }
}

static const struct argp argp = {
    options,
    parse,
    "TEXT...",
    "Prepare texts of your own, UTF-8, or labelled examples.\v"
    "TEXT is a file, a pattern in quotes, a folder, or - for standard input: plain text, JSON (an array) or "
    "JSON "
    "lines, each also compressed by gzip, Zstandard, xz or bzip2. docs/data.md says more.\n\n"
    "Sentences to classify stand in tables (.tsv: columns between tabs, with a "
    "header or numbers) or in JSON lines (.jsonl); words to tag one a line, the "
    "tag last, a blank line between sentences (CoNLL). docs/tasks.md says more.\n\n"
    "Example:\n"
    "  kappa data prepare --name letters --licence CC0 letters.txt\n"
    "  kappa data prepare --name tales --tokenizer word --vocabulary 4096 tales.txt\n"
    "  kappa train configs/gpt.yaml --set data.path=letters\n"
    "  kappa data prepare --name web --tokenizer gpt2 --dedupe 'web/*.jsonl.zst'\n"
    "  zcat posts.jsonl.gz | kappa data prepare --name posts --tokenizer gpt2 --format jsonl --field body -\n"
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
  kp_progress shown = kp_progress_begin();
  a->options.progress = kp_progress_show;
  a->options.context = &shown;
  kp_catch_stop();
  const kp_status status = kp_prepare(&a->options, &prepared, &fresh, error);
  kp_progress_end(&shown);
  if (status != KP_OK) return status;
  kp_print_prepared(&prepared, folder, fresh);
  return KP_OK;
}

int kp_data_prepare(int argc, char **argv) {
  if (kp_data_asks_for_dialogue(argc, argv)) return kp_data_prepare_dialogue(argc, argv);
  arguments a = {0};
  kp_error error = {0};
  kp_parse(&argp, argc, argv, &a);
  kp_status status = a.task == KP_TASK_LANGUAGE ? prepare_text(&a, &error) : prepare_labelled(&a, &error);
  kp_texts_clear(&a.texts);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
