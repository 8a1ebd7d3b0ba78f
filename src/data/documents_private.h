/* How documents are cut out of a stream of bytes, and texts out of JSON. */
#ifndef KAPPA_DATA_DOCUMENTS_PRIVATE_H
#define KAPPA_DATA_DOCUMENTS_PRIVATE_H

#include <jansson.h>

#include "data/byte_buffer.h"
#include "data/byte_source.h"
#include "data/documents.h"

struct kp_documents {
  kp_documents_options options; /* with what NULL and 0 mean in them */
  kp_path_list paths;
  size_t next_path;
  uint64_t total, taken; /* of files that are done */
  int64_t empty;

  /* The open file. */
  kp_byte_source *source; /* NULL between files */
  const char *path;       /* "standard input" for KP_STANDARD_INPUT */
  kp_document_format format;
  const char *at, *end; /* what is left of the source's last bytes */
  bool ended;           /* the source has no more */
  bool fresh;           /* nothing was cut out of it yet */
  bool in_array;        /* of a JSON array: behind its '[' */
  size_t line;          /* of the next byte, from 1 */

  /* The document at hand. */
  kp_byte_buffer raw, repaired;
  size_t first_line; /* where it begins */
  json_t *value;     /* of JSON: holds the text */
};

/* Each reads the next piece of the file into documents->raw: a line without its end, a document between
 * separators (the whole file without), a JSON value.  *found is false at the end of the file. */
kp_status kp_documents_read_line(kp_documents *documents, bool *found, kp_error *error);
kp_status kp_documents_read_text(kp_documents *documents, bool *found, kp_error *error);
kp_status kp_documents_read_value(kp_documents *documents, bool *found, kp_error *error);

/* The text in the JSON of documents->raw; *size is 0 when there is none. */
kp_status kp_documents_parse(kp_documents *documents, const char **text, size_t *size, kp_error *error);

/* Makes documents->raw valid UTF-8, or fails. */
kp_status kp_documents_check(kp_documents *documents, const char **text, size_t *size, kp_error *error);

#endif
