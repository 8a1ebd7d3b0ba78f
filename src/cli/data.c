/* kappa data: the data sets that kappa knows and those that were prepared here. */
#include "cli/data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/subcommand.h"
#include "cli/table.h"
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

/* A set that only a pipe makes says so until it is there. */
static const char *state_word(const kp_data_entry *entry) {
  static const char *const words[] = {"-", "foreign", "partial", "prepared"};
  const bool pipe = entry->known != NULL && entry->known->kind == KP_DATA_PIPE;
  return pipe && entry->state == KP_PREPARED_NOTHING ? "needs a pipe" : words[entry->state];
}

/* Addresses, sizes and checksums of what is fetched; null where they are not fixed. */
static json_t *files_json(const kp_data_set *set) {
  json_t *files = json_array();
  for (size_t i = 0; i < KP_DATA_FILES && set->files[i].url != NULL; i++) {
    const kp_data_file *file = &set->files[i];
    json_t *size = file->size > 0 ? json_integer((json_int_t)file->size) : json_null();
    json_array_append_new(
        files, json_pack("{s:s, s:o, s:s?}", "url", file->url, "bytes", size, "sha256", file->sha256));
  }
  return files;
}

static json_t *set_json(const kp_data_entry *entry) {
  json_t *object =
      json_pack("{s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:b}", "name", entry->name, "bytes",
                (json_int_t)entry->bytes, "task", entry->task, "state", state_word(entry), "licence",
                entry->licence, "what", entry->what, "folder", entry->folder, "known", entry->known != NULL);
  if (entry->known == NULL) return object;
  json_object_set_new(object, "source", json_string(entry->known->source));
  json_object_set_new(object, "tokenizer",
                      json_string(entry->known->tokenizer != NULL ? entry->known->tokenizer : "character"));
  json_object_set_new(object, "files", files_json(entry->known));
  return object;
}

static void print_sets(const kp_data_sets *sets) {
  static const char *const titles[] = {"<name", "size", "<task", "<here", "<licence", "<what", NULL};
  kp_table table;
  kp_table_begin(&table, titles);
  for (size_t i = 0; i < sets->count; i++) {
    const kp_data_entry *entry = &sets->entries[i];
    char size[32];
    kp_table_cell(&table, "%s", entry->name);
    kp_table_cell(&table, "%s", entry->bytes > 0 ? kp_bytes_text((double)entry->bytes, size) : "?");
    kp_table_cell(&table, "%s", entry->task);
    kp_table_cell(&table, "%s", state_word(entry));
    kp_table_cell(&table, "%s", entry->licence);
    kp_table_cell(&table, "%s", entry->what);
  }
  kp_table_print(&table, stdout);
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
