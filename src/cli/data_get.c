/* kappa data get: fetches and prepares a set of the catalogue. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/data.h"
#include "data/catalogue.h"

typedef struct arguments {
  const char *name;
  kp_catalogue_options options;
  bool terminal; /* a bar that moves, instead of a line every few seconds */
  time_t printed;
} arguments;

static const struct argp_option options[] = {
    {"mirror", 'm', "URL", 0, "fetch from <URL>/<file name> (default: $KAPPA_MIRROR, or the source)", 0},
    {"tokenizer", 't', "WHICH", 0,
     "character, word, bpe (learned from the text), gpt2 (fetched), or the file or folder of one (default: "
     "gpt2, "
     "but of kjv_char and shakespeare_char character, and of sets with labels word)",
     0},
    {"shards", 's', "N", 0, "of a set of shards: how many for training (default: 10, a billion tokens)", 0},
    {"data", 'd', "DIR", 0, "folder of the data sets (default: $KAPPA_DATA, or data)", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'm': a->options.mirror = value; return 0;
  case 't': a->options.tokenizer = value; return 0;
  case 's': {
    const long long shards = kp_parse_integer(value, "--shards", 1, state);
    a->options.shards = shards > INT32_MAX ? INT32_MAX : (int32_t)shards;
    return 0;
  }
  case 'd': a->options.data_folder = value; return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->name, value, "data set", state);
  case ARGP_KEY_NO_ARGS: argp_error(state, "which data set? `kappa data list` names them"); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {options,
                                 parse,
                                 "NAME",
                                 "Fetch and prepare a data set that kappa knows.\v"
                                 "Example:\n"
                                 "  kappa data get shakespeare_char\n"
                                 "  kappa data get wikitext-2 --tokenizer bpe\n"
                                 "  kappa data get fineweb10B --shards 4\n\n"
                                 "A download that broke off goes on where it stopped. Without a network, put "
                                 "a text at DIR/NAME/input.txt, other files into DIR/NAME/source.",
                                 0,
                                 0,
                                 0};

static void print_bar(int64_t done, int64_t total) {
  enum { WIDTH = 40 };
  char bar[WIDTH + 1], there[32], all[32];
  const int filled = total > 0 ? (int)(WIDTH * done / total) : 0;
  for (int i = 0; i < WIDTH; i++) bar[i] = i < filled ? '#' : '.';
  bar[WIDTH] = 0;
  kp_bytes_text((double)done, there);
  kp_bytes_text((double)total, all);
  fprintf(stderr, "\r[%s] %s of %s ", bar, there, total > 0 ? all : "?");
  if (done == total) fputc('\n', stderr);
}

static bool progress(void *context, int64_t done, int64_t total) {
  enum { SECONDS_BETWEEN_LINES = 5 };
  arguments *a = context;
  const time_t now = time(NULL);
  char there[32], all[32];
  if (a->terminal) {
    print_bar(done, total);
  } else if (now - a->printed >= SECONDS_BETWEEN_LINES) {
    a->printed = now;
    fprintf(stderr, "%s: %s of %s\n", a->name, kp_bytes_text((double)done, there),
            total > 0 ? kp_bytes_text((double)total, all) : "?");
  }
  return !kp_stop_requested;
}

void kp_print_prepared(const kp_prepared *p, const char *folder, bool fresh) {
  printf("%s: %lld training and %lld validation tokens, vocabulary %d (%s)\n", p->name,
         (long long)p->train.tokens, (long long)p->validation.tokens, p->vocabulary, p->tokenizer);
  if (p->train.documents > 0) {
    printf("%lld training and %lld validation documents", (long long)p->train.documents,
           (long long)p->validation.documents);
    if (p->duplicates > 0) printf(", %lld duplicates left out", (long long)p->duplicates);
    if (p->empty > 0) printf(", %lld without text left out", (long long)p->empty);
    putchar('\n');
  }
  printf("%s %s\n", fresh ? "prepared in" : "unchanged in", folder);
  if (p->train.documents > 0 && !p->separated)
    fprintf(stderr,
            "kappa: note: the tokenizer has no end token: nothing marks where a document ends (--end)\n");
}

static void print_report(const kp_data_set *set, const kp_catalogue_report *r) {
  if (r->unit != NULL)
    printf("%s: %lld training and %lld validation %s\n", set->name, (long long)r->training,
           (long long)r->validation, r->unit);
  kp_print_prepared(&r->prepared, r->folder, r->fresh);
  if (r->other_edition)
    fprintf(stderr,
            "kappa: note: this is another edition of the text than the catalogue's (sha256 %.16s… instead of "
            "%.16s…): results are not comparable to the digit\n",
            r->prepared.text_sha256, set->files[0].sha256);
}

int kp_data_get(int argc, char **argv) {
  arguments a = {.terminal = isatty(STDERR_FILENO) == 1, .printed = time(NULL)};
  const kp_data_set *set;
  kp_error error = {0};
  kp_catalogue_report report;
  kp_parse(&argp, argc, argv, &a);
  a.options.progress = progress;
  a.options.context = &a;
  kp_catch_stop();
  kp_status status = kp_catalogue_find(a.name, &set, &error);
  if (status == KP_OK) status = kp_catalogue_prepare(set, &a.options, &report, &error);
  if (status != KP_OK) return kp_print_error(&error);
  print_report(set, &report);
  return KP_EXIT_OK;
}
