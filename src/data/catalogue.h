/* Data sets that kappa knows by name, where they come from, and how they are made.
 *
 * docs/data.md lists them.  A set is prepared into <data folder>/<name>.  What it is made of stands there
 * too: a single text as input.txt, other files in source/.  Files that are there already are not fetched
 * again, so a set can also be carried by hand to a machine without a network. */
#ifndef KAPPA_DATA_CATALOGUE_H
#define KAPPA_DATA_CATALOGUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/path.h"
#include "data/download.h"
#include "data/prepared.h"

#define KP_TEXT_FILE     "input.txt"
#define KP_SOURCE_FOLDER "source"
/* In the data folder: tokenizers that sets are made with. */
#define KP_TOKENIZERS_FOLDER "tokenizers"

/* What becomes of the files. */
typedef enum kp_data_kind {
  KP_DATA_TEXT,     /* data/prepare.h, characters */
  KP_DATA_CLASSIFY, /* data/labelled_prepare.h */
  KP_DATA_TAG,
  KP_DATA_DIALOGUE, /* data/conversation_prepare.h */
  KP_DATA_SHARDS,   /* token files of others, used as they are */
  KP_DATA_PIPE,     /* published as Parquet alone: another program must read it */
} kp_data_kind;

/* A file at an address, whose last part is the file's name. */
typedef struct kp_data_file {
  const char *url;
  int64_t size;       /* bytes; 0: not known for certain */
  const char *sha256; /* NULL: not fixed, or not known */
} kp_data_file;

enum { KP_DATA_FILES = 3 }; /* for training, validation and test */

typedef struct kp_data_set {
  const char *name;
  const char *what; /* one line */
  const char *source;
  const char *licence;
  kp_data_kind kind;
  const char *tokenizer;             /* that is taken unless another is asked for; NULL: characters */
  kp_data_file files[KP_DATA_FILES]; /* the first is an archive when there are `members` */
  const char *members[KP_DATA_FILES];
  bool trees; /* the first file holds trees of messages: data/message_trees.h */
  /* A text that a program of the system prints; files[0] is the edition that is known, and has no address. */
  const char *const *arguments; /* closed by NULL */
  const char *package;          /* of Debian, that has the program */
  /* Shards: that for validation is files[0], those for training are at <shard_url>000001.bin and on. */
  const char *shard_url;
  int32_t shards;      /* for training that there are */
  int64_t shard_bytes; /* about */
  const char *rows;    /* a pipe's: the address of the Parquet files for duckdb */
} kp_data_set;

typedef struct kp_catalogue_options {
  const char *data_folder; /* NULL: kp_data_folder */
  const char *mirror;      /* files come from <mirror>/<last name of the url>; NULL: $KAPPA_MIRROR, or none */
  const char *tokenizer;   /* "character", "word", "bpe", "gpt2", or a file or folder; NULL: the set's own */
  int32_t shards;          /* for training; 0: KP_CATALOGUE_SHARDS, or all if there are fewer */
  kp_download_progress progress; /* may be NULL */
  void *context;                 /* for progress */
} kp_catalogue_options;

enum { KP_CATALOGUE_SHARDS = 10 };

/* What was made. */
typedef struct kp_catalogue_report {
  char folder[KP_PATH_SIZE];
  kp_prepared prepared;
  bool fresh;                   /* false: it was there already */
  bool other_edition;           /* a program printed another text than the catalogue's */
  const char *unit;             /* "examples", "conversations", or NULL: tokens alone are counted */
  int64_t training, validation; /* of these */
} kp_catalogue_report;

/* All sets; the table is constant. */
const kp_data_set *kp_catalogue(size_t *count);

/* The set of that name; an unknown name is an error that lists those that are known. */
kp_status kp_catalogue_find(const char *name, const kp_data_set **set, kp_error *error);

/* "text", "classify", "tag" or "dialogue". */
const char *kp_catalogue_task(const kp_data_set *set);

/* Bytes to fetch; of shards as many as are fetched unless more are asked for; 0 when not known. */
int64_t kp_catalogue_bytes(const kp_data_set *set);

/* Fetches and prepares a set.  One that needs a pipe is KP_ERR_UNSUPPORTED, and the message is the command.
 */
kp_status kp_catalogue_prepare(const kp_data_set *set, const kp_catalogue_options *options,
                               kp_catalogue_report *report, kp_error *error);

#endif
