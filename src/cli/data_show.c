/* kappa data show: what is in a prepared folder or token file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/data.h"
#include "cli/data_show_dialogue.h"
#include "data/inspect.h"

typedef struct arguments {
  const char *name, *data_folder;
  long long tokens;
  kp_dialogue_view dialogue;
  bool json;
} arguments;

enum { KEY_CONTEXT = 256 };

static const struct argp_option options[] = {
    {"tokens", 'n', "N", 0, "print the first N tokens of each part (default: 64)", 0},
    {"documents", 'c', "N", 0,
     "of conversations: print the first N, what is learned between brackets (default: 1)", 0},
    {"context", KEY_CONTEXT, "T", 0,
     "of conversations: tokens of a row, to tell how full rows are (default: what the longest needs)", 0},
    {"data", 'd', "DIR", 0, "folder of the data sets (default: $KAPPA_DATA, or data)", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'n': a->tokens = kp_parse_integer(value, "--tokens", 0, state); return 0;
  case 'c': a->dialogue.documents = kp_parse_integer(value, "--documents", 0, state); return 0;
  case KEY_CONTEXT: a->dialogue.context = kp_parse_integer(value, "--context", 1, state); return 0;
  case 'd': a->data_folder = value; return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->name, value, "path or name", state);
  case ARGP_KEY_NO_ARGS: argp_error(state, "which folder, file or data set?"); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {options,
                                 parse,
                                 "PATH|NAME",
                                 "Say what is in a prepared folder or token file.\v"
                                 "Example:\n"
                                 "  kappa data show kjv_char --tokens 200\n"
                                 "  kappa data show talks --documents 3 --context 512",
                                 0,
                                 0,
                                 0};

static int32_t vocabulary(const kp_inspected *in) {
  return in->tokenizer != NULL ? in->tokenizer->vocabulary : kp_tokens_vocabulary(in->parts[0].tokens);
}

/* The first tokens of a part and their text. */
static kp_status print_begin(const kp_inspected *in, int i, long long wanted, kp_error *error) {
  int64_t count = wanted;
  int32_t *ids;
  char *text;
  KP_TRY(kp_inspected_begin(in, i, &count, &ids, &text, error));
  if (count > 0) {
    printf("  first %lld:", (long long)count);
    for (int64_t t = 0; t < count; t++) printf(" %d", ids[t]);
    putchar('\n');
    if (text != NULL) printf("  decoded:\n%s\n", text);
  }
  free(ids);
  free(text);
  return KP_OK;
}

static kp_dialogue_view dialogue_view(const arguments *a) {
  kp_dialogue_view view = a->dialogue;
  view.tokens = a->tokens;
  return view;
}

static kp_status print_part(const kp_inspected *in, int i, const arguments *a, kp_error *error) {
  const kp_tokens *tokens = in->parts[i].tokens;
  char size[32];
  printf("%-12s %lld tokens, %zu file%s of %s", in->parts[i].name, (long long)kp_tokens_count(tokens),
         kp_tokens_files(tokens), kp_tokens_files(tokens) == 1 ? "" : "s",
         kp_bytes_text((double)kp_tokens_file_bytes(tokens), size));
  if (kp_tokens_text_bytes(tokens) > 0)
    printf(", %llu bytes of text", (unsigned long long)kp_tokens_text_bytes(tokens));
  putchar('\n');
  if (kp_tokens_index(tokens) == NULL) return print_begin(in, i, a->tokens, error);
  const kp_dialogue_view view = dialogue_view(a);
  return kp_print_dialogue(in, i, &view, error);
}

/* How many of each label there are in training and validation. */
static void count_labels(const kp_labelled_set *set, int32_t label, int64_t counts[2]) {
  const kp_examples *parts[] = {&set->train, &set->validation};
  for (int p = 0; p < 2; p++) {
    const bool words = set->labelling.task == KP_TASK_TAG;
    const int64_t places = words ? parts[p]->offsets[parts[p]->count] : parts[p]->count;
    counts[p] = 0;
    for (int64_t i = 0; i < places; i++) counts[p] += parts[p]->labels[i] == label;
  }
}

static void print_labels(const kp_labelled_set *set) {
  enum { SHOWN = 40 };
  const kp_labelling *l = &set->labelling;
  printf(
      "task         %s\nexamples     %lld training, %lld validation; at most %lld tokens, %lld + %lld cut\n",
      kp_task_name(l->task), (long long)set->train.count, (long long)set->validation.count,
      (long long)l->length, (long long)l->train.truncated, (long long)l->validation.truncated);
  for (int32_t i = 0; i < l->labels.count && i < SHOWN; i++) {
    int64_t counts[2];
    count_labels(set, i, counts);
    printf("label        %-20s %lld + %lld\n", l->labels.names[i], (long long)counts[0],
           (long long)counts[1]);
  }
  if (l->labels.count > SHOWN) printf("             and %d more\n", l->labels.count - SHOWN);
}

static kp_status print_all(const kp_inspected *in, const arguments *a, kp_error *error) {
  printf("%s\n", in->path);
  if (in->prepared)
    printf("name         %s\nsource       %s\nlicence      %s\ntext sha256  %s\n", in->set.name,
           in->set.source, in->set.licence, in->set.text_sha256);
  printf("tokenizer    %s\n", in->tokenizer != NULL ? kp_tokenizer_name(in->tokenizer) : "none");
  if (vocabulary(in) > 0)
    printf("vocabulary   %d\n", vocabulary(in));
  else
    printf("vocabulary   not said\n");
  if (in->prepared && in->set.train.documents > 0)
    printf("documents    %lld training, %lld validation; %lld duplicates left out\n",
           (long long)in->set.train.documents, (long long)in->set.validation.documents,
           (long long)in->set.duplicates);
  if (in->prepared && in->set.separated) printf("separator    %d\n", in->set.separator);
  if (in->labelled) print_labels(&in->examples);
  for (int i = 0; i < in->part_count; i++) KP_TRY(print_part(in, i, a, error));
  return KP_OK;
}

static kp_status part_json(const kp_inspected *in, int i, const arguments *a, json_t **json,
                           kp_error *error) {
  const kp_tokens *tokens = in->parts[i].tokens;
  const kp_dialogue_view view = dialogue_view(a);
  int64_t count = a->tokens;
  int32_t *ids;
  char *text;
  json_t *dialogue;
  KP_TRY(kp_dialogue_json(in, i, &view, &dialogue, error));
  KP_TRY(kp_inspected_begin(in, i, &count, &ids, &text, error));
  json_t *first = json_array(), *words = NULL;
  if (text != NULL && kp_show_text(text, strlen(text), &words, error) != KP_OK) words = NULL;
  for (int64_t t = 0; t < count; t++) json_array_append_new(first, json_integer(ids[t]));
  *json = json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:o?}", "name", in->parts[i].name, "tokens",
                    (json_int_t)kp_tokens_count(tokens), "files", (json_int_t)kp_tokens_files(tokens),
                    "file_bytes", (json_int_t)kp_tokens_file_bytes(tokens), "text_bytes",
                    (json_int_t)kp_tokens_text_bytes(tokens), "first", first, "text", words);
  if (dialogue != NULL) json_object_set_new(*json, "dialogue", dialogue);
  free(ids);
  free(text);
  return KP_OK;
}

static json_t *labels_json(const kp_labelled_set *set) {
  json_t *labels = json_array();
  for (int32_t i = 0; i < set->labelling.labels.count; i++) {
    int64_t counts[2];
    count_labels(set, i, counts);
    json_array_append_new(labels,
                          json_pack("{s:s, s:I, s:I}", "name", set->labelling.labels.names[i], "train",
                                    (json_int_t)counts[0], "validation", (json_int_t)counts[1]));
  }
  return labels;
}

static kp_status print_json(const kp_inspected *in, const arguments *a, kp_error *error) {
  json_t *parts = json_array();
  for (int i = 0; i < in->part_count; i++) {
    json_t *part = NULL;
    KP_TRY(part_json(in, i, a, &part, error));
    json_array_append_new(parts, part);
  }
  json_t *json = json_pack("{s:s, s:b, s:s?, s:i, s:o}", "path", in->path, "prepared", in->prepared,
                           "tokenizer", in->tokenizer != NULL ? kp_tokenizer_name(in->tokenizer) : NULL,
                           "vocabulary", (int)vocabulary(in), "parts", parts);
  if (in->labelled) {
    json_object_set_new(json, "task", json_string(kp_task_name(in->examples.labelling.task)));
    json_object_set_new(json, "train_examples", json_integer(in->examples.train.count));
    json_object_set_new(json, "validation_examples", json_integer(in->examples.validation.count));
    json_object_set_new(json, "labels", labels_json(&in->examples));
  }
  if (in->prepared) {
    json_object_set_new(json, "name", json_string(in->set.name));
    json_object_set_new(json, "source", json_string(in->set.source));
    json_object_set_new(json, "licence", json_string(in->set.licence));
    json_object_set_new(json, "text_sha256", json_string(in->set.text_sha256));
  }
  kp_print_json(json);
  return KP_OK;
}

int kp_data_show(int argc, char **argv) {
  arguments a = {.tokens = 64, .dialogue = {.documents = 1}};
  kp_error error = {0};
  kp_inspected inspected;
  kp_parse(&argp, argc, argv, &a);
  kp_status status = kp_inspect(a.name, a.data_folder, &inspected, &error);
  if (status == KP_OK) {
    status = (a.json ? print_json : print_all)(&inspected, &a, &error);
    kp_inspected_clear(&inspected);
  }
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
