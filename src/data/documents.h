/* The documents of files: plain text, JSON and JSON lines, each also compressed (data/byte_source.h).
 *
 *   text   a file is one document; or documents stand between lines that say `separator` ("<|endoftext|>"),
 * or, with an empty separator, between blank lines.  The line end in front of a separator belongs to it, and
 * so does that at the end of a file. JSON   an array whose elements are documents, or documents behind each
 * other lines  a document a line
 *
 * A document in JSON is a string, or an object with its text in `field`: a key ("text"), or keys and places
 * in lists with dots in between ("meta.body", "messages.0.content").  Documents without text (empty, null)
 * are left out and counted.  Reading is streaming: memory is that of the longest document. */
#ifndef KAPPA_DATA_DOCUMENTS_H
#define KAPPA_DATA_DOCUMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "core/error.h"
#include "data/document_paths.h"

/* Bytes of the longest document, and of a line or element of JSON that holds one. */
#define KP_DOCUMENT_LONGEST ((size_t)1 << 30)
/* The field of the text, when none is named. */
#define KP_DOCUMENT_FIELD "text"

typedef struct kp_documents_options {
  const char *const *paths; /* files, folders, patterns, KP_STANDARD_INPUT: kp_document_paths_add */
  size_t path_count;
  kp_document_format format; /* standard input has no name to tell it by */
  const char *field;         /* NULL: KP_DOCUMENT_FIELD */
  const char *separator;     /* NULL: a text file is one document */
  bool objects;              /* JSON documents are whole objects, kp_document.object; `field` is not read */
  bool replace_invalid;      /* bytes that are not UTF-8 become U+FFFD instead of an error */
  size_t longest;            /* 0: KP_DOCUMENT_LONGEST */
} kp_documents_options;

/* Stays until the next document is read. */
typedef struct kp_document {
  const char *text;     /* UTF-8; NULL when there is no further document */
  size_t size;          /* > 0 */
  const json_t *object; /* of JSON, when objects are asked for; `text` is then as it stands in the file */
  const char *path;
  size_t line; /* where it begins in its file, from 1 */
} kp_document;

typedef struct kp_documents kp_documents;

/* The options' strings must outlive the documents, which the caller closes; *documents is NULL on failure. */
kp_status kp_documents_open(const kp_documents_options *options, kp_documents **documents, kp_error *error);

/* Errors name the file and the line. */
kp_status kp_documents_next(kp_documents *documents, kp_document *document, kp_error *error);

/* The files. */
const kp_path_list *kp_documents_paths(const kp_documents *documents);

/* Bytes of the files that were read so far, and of all of them; 0 when unknown: a pipe. */
uint64_t kp_documents_taken(const kp_documents *documents);
uint64_t kp_documents_total(const kp_documents *documents);

/* Documents that were left out because they have no text. */
int64_t kp_documents_empty(const kp_documents *documents);

/* NULL is allowed. */
void kp_documents_close(kp_documents *documents);

#endif
