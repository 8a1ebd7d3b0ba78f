/* The data sets that can be named: those of the catalogue, and those that were prepared in the data folder.
 */
#ifndef KAPPA_DATA_DATA_SETS_H
#define KAPPA_DATA_DATA_SETS_H

#include "data/catalogue.h"

typedef struct kp_data_entry {
  char name[64], licence[128], what[256];
  const char *task;          /* "text", "classify", "tag" or "dialogue" */
  char folder[KP_PATH_SIZE]; /* where it is, or would be */
  int64_t bytes;             /* to fetch; of a set that is not in the catalogue, of its text; 0: not known */
  kp_prepared_state state;
  const kp_data_set *known; /* of the catalogue, or NULL */
} kp_data_entry;

typedef struct kp_data_sets {
  char folder[KP_PATH_SIZE];
  kp_data_entry *entries;
  size_t count;
} kp_data_sets;

/* First the catalogue, then the other folders of `data_folder` (NULL: kp_data_folder) that hold data.  Clear
 * with kp_data_sets_clear. */
kp_status kp_data_sets_read(const char *data_folder, kp_data_sets *sets, kp_error *error);
void kp_data_sets_clear(kp_data_sets *sets);

#endif
