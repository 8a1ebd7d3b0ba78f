/* kappa data prepare --task dialogue: conversations become a data set. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/data.h"
#include "core/path.h"
#include "data/conversation_prepare.h"
#include "data/prepare.h"

enum { ROLES_MOST = 32 };

typedef struct arguments {
  kp_conversation_prepare_options options;
  kp_texts texts;
  kp_speaker_name roles[ROLES_MOST];
  const char *data_folder;
} arguments;

/* Options that have no letter. */
enum { KEY_FORMAT = 256, KEY_ROLE, KEY_TEMPLATE, KEY_LENGTH, KEY_TOKENIZER, KEY_VOCABULARY, KEY_INVALID };

static const struct argp_option options[] = {
    {"task", 't', "TASK", 0, "dialogue: what this is the help of", 0},
    {"name", 'n', "NAME", 0, "name of the data set, and of its folder", 0},
    {"format", KEY_FORMAT, "FORMAT", 0,
     "messages, sharegpt, alpaca, chatml or plain (default: by each file's first record)", 0},
    {"role", KEY_ROLE, "NAME=ROLE", 0,
     "what another name in the files means: system, user, assistant or tool; may be given several times", 0},
    {"template", KEY_TEMPLATE, "WHICH", 0,
     "chatml, llama3 or plain (default: the one whose special tokens the tokenizer has, else plain)", 0},
    {"length", KEY_LENGTH, "N", 0,
     "the most tokens of a conversation; longer ones lose their last turns (default: 1024)", 0},
    {"tokenizer", KEY_TOKENIZER, "WHICH", 0,
     "file or folder of a tokenizer; or character (default), or word: the most frequent words, others "
     "spelled",
     0},
    {"vocabulary", KEY_VOCABULARY, "COUNT", 0, "tokens of --tokenizer word (default: 4096)", 0},
    {"validation", 'v', "FILE", 0, "a file of its own for validation (default: a part of the conversations)",
     0},
    {"fraction", 'f', "SHARE", 0, "of the conversations that are for training (default: 0.9)", 0},
    {"invalid", KEY_INVALID, "WHAT", 0, "refuse (default) bytes that are not UTF-8, or replace them", 0},
    {"source", 's', "WORDS", 0, "where the conversations come from, to be remembered", 0},
    {"licence", 'l', "WORDS", 0, "their licence, to be remembered", 0},
    {"data", 'd', "DIR", 0, "folder of the data sets (default: $KAPPA_DATA, or data)", 0},
    {0},
};

/* The number of a word in a list of `count` names. */
static int find_word(const char *value, const char *option, int count, const char *(*name)(int),
                     struct argp_state *state) {
  char all[128] = "";
  for (int i = 0; i < count; i++) {
    if (strcmp(value, name(i)) == 0) return i;
    snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i > 0 ? ", " : "", name(i));
  }
  argp_error(state, "%s is one of %s, not '%s'", option, all, value);
  return 0;
}

static const char *format_name(int i) {
  return kp_conversation_format_name((kp_conversation_format)i);
}
static const char *template_name(int i) {
  return kp_template_name((kp_template)i);
}
static const char *role_name(int i) {
  return kp_speaker_text((kp_speaker)i);
}
static const char *policy_name(int i) {
  return i == 0 ? "refuse" : "replace";
}

static void add_role(arguments *a, char *value, struct argp_state *state) {
  kp_speaker_names *names = &a->options.reading.names;
  char *equals = strchr(value, '=');
  if (equals == NULL || equals == value) argp_error(state, "--role is NAME=ROLE, not '%s'", value);
  if (names->count == ROLES_MOST) argp_error(state, "more than %d roles are named", ROLES_MOST);
  *equals = 0;
  const int role = find_word(equals + 1, "the role behind --role NAME=", KP_SPEAKERS, role_name, state);
  a->roles[names->count++] = (kp_speaker_name){value, (kp_speaker)role};
  names->list = a->roles;
}

/* Those of conversations alone. */
static error_t parse_dialogue(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  kp_conversation_prepare_options *o = &a->options;
  switch (key) {
  case KEY_FORMAT:
    o->reading.any = false;
    o->reading.format =
        (kp_conversation_format)find_word(value, "--format", KP_CONVERSATION_FORMATS, format_name, state);
    return 0;
  case KEY_ROLE: add_role(a, value, state); return 0;
  case KEY_TEMPLATE:
    o->best_template = false;
    o->which = (kp_template)find_word(value, "--template", KP_TEMPLATES, template_name, state);
    return 0;
  case KEY_LENGTH: o->length = kp_parse_integer(value, "--length", 16, state); return 0;
  case KEY_INVALID: o->replace_invalid = find_word(value, "--invalid", 2, policy_name, state) == 1; return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static void check(const arguments *a, struct argp_state *state) {
  const kp_conversation_prepare_options *o = &a->options;
  if (a->texts.count == 0) argp_error(state, "which files?");
  if (o->name == NULL) argp_error(state, "--name is missing: what shall the data set be called?");
  if (strchr(o->name, '/') != NULL || o->name[0] == '.' || o->name[0] == 0)
    argp_error(state, "--name is a name, not a path: '%s'", o->name);
  if (o->vocabulary > 0 && (o->tokenizer == NULL || strcmp(o->tokenizer, "word") != 0))
    argp_error(state, "--vocabulary goes with --tokenizer word");
}

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  kp_conversation_prepare_options *o = &a->options;
  switch (key) {
  case 't': return 0;
  case 'n': o->name = value; return 0;
  case 'v': o->validation = value; return 0;
  case 'f':
    o->train_fraction = kp_parse_real(value, "--fraction", 0, 1, state);
    if (o->train_fraction <= 0 || o->train_fraction >= 1)
      argp_error(state, "--fraction %s leaves one of the two parts empty", value);
    return 0;
  case KEY_TOKENIZER: o->tokenizer = value; return 0;
  case KEY_VOCABULARY: {
    const long long vocabulary = kp_parse_integer(value, "--vocabulary", 2, state);
    if (vocabulary > INT32_MAX) argp_error(state, "--vocabulary %s is more than a token can number", value);
    o->vocabulary = (int32_t)vocabulary;
    return 0;
  }
  case 's': o->source = value; return 0;
  case 'l': o->licence = value; return 0;
  case 'd': a->data_folder = value; return 0;
  case ARGP_KEY_ARG: kp_texts_add(&a->texts, value); return 0;
  case ARGP_KEY_END: check(a, state); return 0;
  default: return parse_dialogue(key, value, state);
  }
}

static const struct argp argp = {
    options,
    parse,
    "FILE...",
    "Prepare conversations: the model learns what the assistant says.\v"
    "FILE is a file, a pattern in quotes, a folder, or - for standard input: messages, ShareGPT or Alpaca as "
    "JSON (an array) or JSON lines, ChatML or 'User: ...' and 'Assistant: ...' as text, each also "
    "compressed. "
    "docs/conversations.md says more.\n\n"
    "Example:\n"
    "  kappa data prepare --task dialogue --name talks --tokenizer word talks.jsonl.xz\n"
    "  kappa data prepare --task dialogue --name tools --tokenizer llama3/tokenizer.json --length 4096 "
    "--role function_call=assistant --role observation=tool 'glaive/*.json'\n"
    "  kappa data show talks --documents 3\n"
    "  kappa train configs/dialogue.yaml --set data.path=talks",
    0,
    0,
    0};

static void print_report(const kp_conversation_report *r, const char *folder, int64_t length) {
  const kp_prepared *p = &r->prepared;
  const int64_t tokens = p->train.tokens + p->validation.tokens,
                learned = r->train.learned + r->validation.learned,
                shorter = r->train.shorter + r->validation.shorter, cut = r->train.cut + r->validation.cut,
                left_out = r->train.left_out + r->validation.left_out;
  printf("%s: %lld training and %lld validation conversations, %lld tokens of which %.1f%% are learned, "
         "template %s, vocabulary %d (%s)\n%s %s\n",
         p->name, (long long)r->train.conversations, (long long)r->validation.conversations,
         (long long)tokens, 100 * (double)learned / (double)tokens, kp_template_name(r->which), p->vocabulary,
         p->tokenizer, r->fresh ? "prepared in" : "unchanged in", folder);
  if (shorter > 0)
    fprintf(stderr,
            "kappa: note: %lld conversations are longer than %lld tokens and lose their last turns "
            "(--length)\n",
            (long long)shorter, (long long)length);
  if (cut > 0) fprintf(stderr, "kappa: note: %lld end within a turn that alone is longer\n", (long long)cut);
  if (left_out > 0)
    fprintf(stderr, "kappa: note: %lld are left out: no turn of an assistant, or none that fits\n",
            (long long)left_out);
}

static kp_status prepare(arguments *a, kp_error *error) {
  char root[KP_PATH_SIZE], folder[KP_PATH_SIZE];
  kp_conversation_report report;
  if (a->data_folder != NULL)
    KP_TRY(kp_path_join(root, "", a->data_folder, error));
  else
    KP_TRY(kp_data_folder(root, error));
  KP_TRY(kp_path_join(folder, root, a->options.name, error));
  a->options.folder = folder;
  a->options.files = a->texts.list;
  a->options.file_count = a->texts.count;
  KP_TRY(kp_prepare_conversations(&a->options, &report, error));
  print_report(&report, folder, a->options.length == 0 ? KP_CONVERSATION_LENGTH : a->options.length);
  return KP_OK;
}

bool kp_data_asks_for_dialogue(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    const char *word = argv[i];
    if (strcmp(word, "--task=dialogue") == 0 || strcmp(word, "-tdialogue") == 0) return true;
    if ((strcmp(word, "--task") == 0 || strcmp(word, "-t") == 0) && i + 1 < argc &&
        strcmp(argv[i + 1], "dialogue") == 0)
      return true;
  }
  return false;
}

int kp_data_prepare_dialogue(int argc, char **argv) {
  arguments a = {.options = {.reading = {.any = true}, .best_template = true}};
  kp_error error = {0};
  kp_parse(&argp, argc, argv, &a);
  kp_status status = prepare(&a, &error);
  kp_texts_clear(&a.texts);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
