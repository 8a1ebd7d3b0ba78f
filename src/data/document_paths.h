/* Which files a user's words mean: files, patterns, folders and standard input. */
#ifndef KAPPA_DATA_DOCUMENT_PATHS_H
#define KAPPA_DATA_DOCUMENT_PATHS_H

#include "core/error.h"
#include "data/path_list.h"

typedef enum kp_document_format {
  KP_DOCUMENTS_BY_NAME, /* of the file: .jsonl or .ndjson, .json, else text; .gz, .zst, .xz, .bz2 behind it */
  KP_DOCUMENTS_TEXT,    /* plain text */
  KP_DOCUMENTS_JSON,    /* an array, or values behind each other */
  KP_DOCUMENTS_LINES,   /* JSON lines */
} kp_document_format;

/* Adds the files that `path` means, in the order of their names: the file itself; those that match a pattern
 * ("books/[a-m]*.txt"); of a folder and the folders below it those named .txt, .json, .jsonl or .ndjson,
 * compressed or not.  None is an error. */
kp_status kp_document_paths_add(kp_path_list *paths, const char *path, kp_error *error);

/* The format that a file's name says. */
kp_document_format kp_document_format_of(const char *path);

#endif
