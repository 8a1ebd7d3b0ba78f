/* Gets the files of a set of the catalogue: by download, out of an archive, or from a program. */
#ifndef KAPPA_DATA_CATALOGUE_FILES_H
#define KAPPA_DATA_CATALOGUE_FILES_H

#include "data/catalogue.h"

/* What a set is prepared from. */
typedef struct kp_catalogue_sources {
  char folder[KP_PATH_SIZE]; /* of the files */
  char training[KP_PATH_SIZE], validation[KP_PATH_SIZE];
  bool separate; /* there is a file for validation */
} kp_catalogue_sources;

/* Puts the set's files into its folder; one process at a time.  Those of sets of shards are fetched one by
 * one, with kp_catalogue_fetch. */
kp_status kp_catalogue_provide(const kp_data_set *set, const kp_catalogue_options *options,
                               const char *folder, kp_catalogue_sources *sources, kp_error *error);

/* Downloads a file from its address or the mirror to `path`.  One whose checksum is not known is taken as it
 * is when it is there. */
kp_status kp_catalogue_fetch(const kp_data_file *file, const kp_catalogue_options *options, const char *path,
                             kp_error *error);

/* What the name of a tokenizer means: "gpt2" that of GPT-2, which is fetched into <root>/tokenizers/gpt2
 * unless a file or folder of that name stands here; others mean themselves. */
kp_status kp_catalogue_tokenizer(const char *name, const kp_catalogue_options *options, const char *root,
                                 char path[KP_PATH_SIZE], kp_error *error);

#endif
