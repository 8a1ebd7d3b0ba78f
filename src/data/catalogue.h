/* Data sets that kappa knows by name, where they come from, and how they are made.
 *
 * docs/data.md lists them.  A set is prepared (data/prepare.h) into <data folder>/<name>, with its text as
 * input.txt; a text that is there already with the right checksum is not fetched again, so a set can also be
 * carried by hand to a machine without a network. */
#ifndef KAPPA_DATA_CATALOGUE_H
#define KAPPA_DATA_CATALOGUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/path.h"
#include "data/download.h"
#include "data/prepared.h"

#define KP_TEXT_FILE "input.txt"

typedef enum kp_data_method {
  KP_DATA_DOWNLOAD, /* the text is at `url` */
  KP_DATA_PROGRAM,  /* the program `arguments` of the system prints it */
} kp_data_method;

/* One set.  A program may print another edition of the text than the one that `size` and `sha256` describe.
 */
typedef struct kp_data_set {
  const char *name;
  const char *what; /* one line */
  const char *source;
  const char *licence;
  int64_t size;       /* bytes of the text */
  const char *sha256; /* of the text */
  kp_data_method method;
  const char *url;
  const char *const *arguments; /* closed by NULL */
  const char *package;          /* of Debian, that has the program */
} kp_data_set;

typedef struct kp_catalogue_options {
  const char *data_folder; /* NULL: kp_data_folder */
  const char *mirror;      /* texts come from <mirror>/<last name of the url>; NULL: $KAPPA_MIRROR, or none */
  kp_download_progress progress; /* may be NULL */
  void *context;                 /* for progress */
} kp_catalogue_options;

/* All sets; the table is constant. */
const kp_data_set *kp_catalogue(size_t *count);

/* The set of that name; an unknown name is an error that lists those that are known. */
kp_status kp_catalogue_find(const char *name, const kp_data_set **set, kp_error *error);

/* Fetches and prepares a set; writes the folder's path to `folder` and what stands there to *prepared.
 * *fresh as in kp_prepare.  The text is another edition than the catalogue's exactly if
 * prepared->text_sha256 differs from set->sha256. */
kp_status kp_catalogue_prepare(const kp_data_set *set, const kp_catalogue_options *options,
                               char folder[KP_PATH_SIZE], kp_prepared *prepared, bool *fresh,
                               kp_error *error);

#endif
