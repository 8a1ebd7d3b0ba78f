#include "data/data_sets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/directory.h"
#include "data/conversation_index.h"
#include "data/labelled.h"
#include "data/prepare.h"

static kp_status add(kp_data_sets *sets, const char *name, kp_data_entry **entry, kp_error *error) {
  kp_data_entry *grown = realloc(sets->entries, (sets->count + 1) * sizeof *grown);
  if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a list of data sets");
  sets->entries = grown;
  *entry = &grown[sets->count++];
  **entry = (kp_data_entry){0};
  snprintf((*entry)->name, sizeof(*entry)->name, "%s", name);
  KP_TRY(kp_path_join((*entry)->folder, sets->folder, name, error));
  (*entry)->state = kp_prepared_state_of((*entry)->folder);
  return KP_OK;
}

static kp_status add_catalogue(kp_data_sets *sets, kp_error *error) {
  size_t count;
  const kp_data_set *known = kp_catalogue(&count);
  for (size_t i = 0; i < count; i++) {
    kp_data_entry *entry = NULL;
    KP_TRY(add(sets, known[i].name, &entry, error));
    entry->known = &known[i];
    entry->task = kp_catalogue_task(&known[i]);
    entry->bytes = kp_catalogue_bytes(&known[i]);
    snprintf(entry->licence, sizeof entry->licence, "%s", known[i].licence);
    snprintf(entry->what, sizeof entry->what, "%s", known[i].what);
  }
  return KP_OK;
}

static const char *task_of(const char *folder) {
  kp_labelling labelling;
  char path[KP_PATH_SIZE];
  if (kp_path_join(path, folder, KP_TRAIN_DOCUMENTS_FILE, NULL) == KP_OK &&
      kp_path_kind_of(path) == KP_PATH_FILE)
    return "dialogue";
  if (!kp_labelling_stands_in(folder) || kp_labelling_read(folder, &labelling, NULL) != KP_OK) return "text";
  const char *task = kp_task_name(labelling.task);
  kp_labelling_clear(&labelling);
  return task;
}

/* What data.json of a folder says, where it can be read. */
static void describe(kp_data_entry *entry) {
  kp_prepared prepared;
  entry->task = task_of(entry->folder);
  snprintf(entry->licence, sizeof entry->licence, "unknown");
  if (kp_prepared_read(entry->folder, &prepared, NULL) != KP_OK) return;
  entry->bytes = prepared.train.text_bytes + prepared.validation.text_bytes;
  snprintf(entry->licence, sizeof entry->licence, "%s", prepared.licence);
  snprintf(entry->what, sizeof entry->what, "%.240s", prepared.source);
}

static kp_status add_others(kp_data_sets *sets, kp_error *error) {
  kp_directory_listing listing;
  if (kp_path_kind_of(sets->folder) != KP_PATH_FOLDER) return KP_OK;
  KP_TRY(kp_directory_list(sets->folder, &listing, error));
  kp_status status = KP_OK;
  for (size_t i = 0; i < listing.count && status == KP_OK; i++) {
    char folder[KP_PATH_SIZE];
    const kp_data_set *known;
    kp_data_entry *entry = NULL;
    if (kp_catalogue_find(listing.names[i], &known, NULL) == KP_OK) continue;
    if (strlen(listing.names[i]) >= sizeof entry->name) continue;
    status = kp_path_join(folder, sets->folder, listing.names[i], error);
    if (status != KP_OK || kp_prepared_state_of(folder) == KP_PREPARED_NOTHING) continue;
    status = add(sets, listing.names[i], &entry, error);
    if (status == KP_OK) describe(entry);
  }
  kp_directory_listing_clear(&listing);
  return status;
}

kp_status kp_data_sets_read(const char *data_folder, kp_data_sets *sets, kp_error *error) {
  *sets = (kp_data_sets){0};
  kp_status status = data_folder != NULL ? kp_path_join(sets->folder, "", data_folder, error)
                                         : kp_data_folder(sets->folder, error);
  if (status == KP_OK) status = add_catalogue(sets, error);
  if (status == KP_OK) status = add_others(sets, error);
  if (status != KP_OK) kp_data_sets_clear(sets);
  return status;
}

void kp_data_sets_clear(kp_data_sets *sets) {
  free(sets->entries);
  *sets = (kp_data_sets){0};
}
