#include "data/documents.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/documents_private.h"
#include "data/utf8.h"
#include "data/utf8_repair.h"

/* Sizes are summed while all are known; a pipe has none. */
static void add_size(kp_documents *documents, const char *path, bool *known) {
  struct stat information;
  if (strcmp(path, KP_STANDARD_INPUT) == 0 || stat(path, &information) != 0 || !S_ISREG(information.st_mode))
    *known = false;
  else
    documents->total += (uint64_t)information.st_size;
}

static kp_status add_paths(kp_documents *documents, kp_error *error) {
  bool known = true;
  for (size_t i = 0; i < documents->options.path_count; i++)
    KP_TRY(kp_document_paths_add(&documents->paths, documents->options.paths[i], error));
  for (size_t i = 0; i < documents->paths.count; i++) {
    const char *path = documents->paths.list[i];
    add_size(documents, path, &known);
    if (strcmp(path, KP_STANDARD_INPUT) == 0 && documents->options.format == KP_DOCUMENTS_BY_NAME)
      return kp_fail(error, KP_ERR_INPUT,
                     "standard input has no name that tells its format: say text, json or jsonl (--format)");
  }
  if (!known) documents->total = 0;
  return KP_OK;
}

kp_status kp_documents_open(const kp_documents_options *options, kp_documents **documents, kp_error *error) {
  *documents = NULL;
  if (options->path_count == 0) return kp_fail(error, KP_ERR_INPUT, "no file was named");
  kp_documents *opened = calloc(1, sizeof *opened);
  if (opened == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to read documents");
  opened->options = *options;
  if (options->field == NULL) opened->options.field = KP_DOCUMENT_FIELD;
  if (options->longest == 0) opened->options.longest = KP_DOCUMENT_LONGEST;
  const kp_status status = add_paths(opened, error);
  if (status != KP_OK) {
    kp_documents_close(opened);
    return status;
  }
  *documents = opened;
  return KP_OK;
}

static void close_file(kp_documents *documents) {
  if (documents->source != NULL) documents->taken += kp_byte_source_taken(documents->source);
  kp_byte_source_close(documents->source);
  documents->source = NULL;
}

void kp_documents_close(kp_documents *documents) {
  if (documents == NULL) return;
  kp_byte_source_close(documents->source);
  kp_path_list_clear(&documents->paths);
  kp_byte_buffer_clear(&documents->raw);
  kp_byte_buffer_clear(&documents->repaired);
  json_decref(documents->value);
  free(documents);
}

static kp_status open_file(kp_documents *documents, kp_error *error) {
  const char *path = documents->paths.list[documents->next_path++];
  const bool standard = strcmp(path, KP_STANDARD_INPUT) == 0;
  KP_TRY(kp_byte_source_open(path, &documents->source, error));
  documents->path = standard ? "standard input" : path;
  documents->format = documents->options.format != KP_DOCUMENTS_BY_NAME ? documents->options.format
                                                                        : kp_document_format_of(path);
  documents->at = documents->end = NULL;
  documents->ended = documents->in_array = false;
  documents->fresh = true;
  documents->line = 1;
  return KP_OK;
}

kp_status kp_documents_check(kp_documents *documents, const char **text, size_t *size, kp_error *error) {
  const kp_byte_buffer *raw = &documents->raw;
  const size_t invalid = kp_utf8_invalid(raw->data, raw->size);
  *text = raw->data;
  *size = raw->size;
  if (invalid == raw->size) return KP_OK;
  if (!documents->options.replace_invalid) {
    const size_t line = kp_text_line(raw->data, invalid);
    const char *line_start = raw->data + invalid;
    while (line_start > raw->data && line_start[-1] != '\n') line_start--;
    return kp_fail(error, KP_ERR_INPUT,
                   "%s, line %zu: byte 0x%02X at byte %zu of the line is not valid UTF-8; convert the file "
                   "(iconv), or have such bytes replaced (--invalid replace)",
                   documents->path, documents->first_line + line - 1, (unsigned char)raw->data[invalid],
                   (size_t)(raw->data + invalid - line_start) + 1);
  }
  KP_TRY(kp_utf8_repair(raw->data, raw->size, &documents->repaired, error));
  *text = documents->repaired.data;
  *size = documents->repaired.size;
  return KP_OK;
}

/* The next document of the open file, which may be empty. */
static kp_status read_document(kp_documents *documents, const char **text, size_t *size, bool *found,
                               kp_error *error) {
  *text = "";
  *size = 0;
  switch (documents->format) {
  case KP_DOCUMENTS_LINES: KP_TRY(kp_documents_read_line(documents, found, error)); break;
  case KP_DOCUMENTS_JSON: KP_TRY(kp_documents_read_value(documents, found, error)); break;
  default: KP_TRY(kp_documents_read_text(documents, found, error));
  }
  if (!*found) return KP_OK;
  return documents->format == KP_DOCUMENTS_TEXT ? kp_documents_check(documents, text, size, error)
                                                : kp_documents_parse(documents, text, size, error);
}

kp_status kp_documents_next(kp_documents *documents, kp_document *document, kp_error *error) {
  *document = (kp_document){0};
  for (;;) {
    bool found;
    if (documents->source == NULL) {
      if (documents->next_path == documents->paths.count) return KP_OK;
      KP_TRY(open_file(documents, error));
    }
    KP_TRY(read_document(documents, &document->text, &document->size, &found, error));
    if (found && document->size > 0) break;
    if (found)
      documents->empty++;
    else
      close_file(documents);
    document->text = NULL;
  }
  if (documents->options.objects && documents->format != KP_DOCUMENTS_TEXT)
    document->object = documents->value;
  document->path = documents->path;
  document->line = documents->first_line;
  return KP_OK;
}

const kp_path_list *kp_documents_paths(const kp_documents *documents) {
  return &documents->paths;
}

uint64_t kp_documents_taken(const kp_documents *documents) {
  return documents->taken + (documents->source == NULL ? 0 : kp_byte_source_taken(documents->source));
}

uint64_t kp_documents_total(const kp_documents *documents) {
  return documents->total;
}

int64_t kp_documents_empty(const kp_documents *documents) {
  return documents->empty;
}
