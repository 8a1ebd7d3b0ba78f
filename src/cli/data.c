/* kappa data: the data sets that kappa knows and those that were prepared here. */
#include "cli/data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/subcommand.h"
#include "data/catalogue.h"
#include "data/data_sets.h"

/* ---- list ---- */

typedef struct arguments {
  const char *data_folder;
  bool json;
} arguments;

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "folder of the data sets (default: $KAPPA_DATA, or data)", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'd': a->data_folder = value; return 0;
  case 'j': a->json = true; return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp list_argp = {
    options,
    parse,
    "",
    "List the data sets that kappa knows, and those that were prepared here.\v"
    "Example:\n  kappa data list --json",
    0,
    0,
    0};

static const char *state_word(kp_prepared_state state) {
  static const char *const words[] = {"-", "foreign", "partial", "prepared"};
  return words[state];
}

static json_t *set_json(const kp_data_entry *entry) {
  return json_pack("{s:s, s:I, s:s, s:s, s:s, s:s, s:b}", "name", entry->name, "bytes",
                   (json_int_t)entry->bytes, "state", state_word(entry->state), "licence", entry->licence,
                   "what", entry->what, "folder", entry->folder, "known", entry->known);
}

static void print_sets(const kp_data_sets *sets) {
  printf("%-20s %10s  %-9s %-16s %s\n", "name", "text", "here", "licence", "what");
  for (size_t i = 0; i < sets->count; i++) {
    const kp_data_entry *entry = &sets->entries[i];
    char size[32];
    printf("%-20s %10s  %-9s %-16s %s\n", entry->name, kp_bytes_text((double)entry->bytes, size),
           state_word(entry->state), entry->licence, entry->what);
  }
  printf("\nFolder of the data sets: %s\n`kappa data get NAME` prepares a known set, `kappa data prepare` a "
         "text of yours.\n",
         sets->folder);
}

int kp_data_list(int argc, char **argv) {
  arguments a = {0};
  kp_error error = {0};
  kp_data_sets sets;
  kp_parse(&list_argp, argc, argv, &a);
  if (kp_data_sets_read(a.data_folder, &sets, &error) != KP_OK) return kp_print_error(&error);
  if (a.json) {
    json_t *list = json_array();
    for (size_t i = 0; i < sets.count; i++) json_array_append_new(list, set_json(&sets.entries[i]));
    kp_print_json(json_pack("{s:s, s:o}", "folder", sets.folder, "sets", list));
  } else {
    print_sets(&sets);
  }
  kp_data_sets_clear(&sets);
  return KP_EXIT_OK;
}

/* ---- the table of sub-commands ---- */

static const kp_command commands[] = {
    {"list", "the data sets that kappa knows, and those prepared here", kp_data_list},
    {"get", "fetch and prepare a known data set", kp_data_get},
    {"prepare", "prepare texts of your own", kp_data_prepare},
    {"show", "what is in a prepared folder or token file", kp_data_show},
    {"convert", "token files between the layouts of nanoGPT, llm.c and kappa", kp_data_convert},
};
static const kp_command_family family = {"data", commands, sizeof commands / sizeof *commands,
                                         "kappa data get kjv_char"};

int kp_command_data(int argc, char **argv) {
  return kp_run_family(&family, argc, argv);
}
