#include "data/bpe_train_files.h"

#include <stdlib.h>
#include <string.h>

#include "data/byte_buffer.h"
#include "data/byte_source.h"
#include "data/documents.h"
#include "data/utf8.h"
#include "data/utf8_repair.h"

/* Text that is counted at once: enough for many threads. */
enum { BATCH = 32 << 20 };

typedef struct reader {
  kp_bpe_trainer *trainer;
  const kp_bpe_train_files *files;
  const char *path;
  size_t files_left;
  uint64_t bytes; /* of all files */
  size_t batch;
  kp_byte_buffer text; /* that waits */
  kp_byte_buffer repaired;
  size_t *ends; /* of the documents in it */
  size_t count, room;
} reader;

static kp_status tell(const reader *r, kp_error *error) {
  const kp_bpe_train_files *files = r->files;
  if (files->progress == NULL || files->progress(files->context, (int64_t)r->bytes, (int64_t)r->files_left))
    return KP_OK;
  return kp_fail(error, KP_ERR_INTERRUPTED, "stopped after %llu bytes of text", (unsigned long long)r->bytes);
}

/* ---- plain text ---- */

/* Where in its file the text stands that waits. */
typedef struct position {
  uint64_t offset, line;
} position;

static kp_status count_text(reader *r, position *at, size_t size, kp_error *error) {
  const char *text = r->text.data;
  const size_t invalid = kp_utf8_invalid(text, size);
  kp_text_view view = {.data = text, .size = size};
  if (invalid < size && !r->files->replace_invalid)
    return kp_fail(
        error, KP_ERR_INPUT,
        "the byte at offset %llu (line %llu) is not valid UTF-8; convert the text, or let such bytes "
        "be replaced",
        (unsigned long long)(at->offset + invalid),
        (unsigned long long)(at->line + kp_text_line(text, invalid)));
  if (invalid < size) {
    KP_TRY(kp_utf8_repair(text, size, &r->repaired, error));
    view = (kp_text_view){.data = r->repaired.data, .size = r->repaired.size};
  }
  const kp_status status = kp_bpe_trainer_add(r->trainer, &view, 1, error);
  at->offset += size;
  at->line += kp_text_line(text, size) - 1;
  r->bytes += size;
  return status == KP_OK ? tell(r, error) : status;
}

/* Reads until `wanted` bytes wait or the file ends. */
static kp_status fill(reader *r, kp_byte_source *source, size_t wanted, bool *ended, kp_error *error) {
  while (!*ended && r->text.size < wanted) {
    const char *bytes;
    size_t size;
    KP_TRY(kp_byte_source_next(source, &bytes, &size, error));
    *ended = size == 0;
    KP_TRY(kp_byte_buffer_append(&r->text, bytes, size, error));
  }
  return KP_OK;
}

static kp_status read_text(reader *r, kp_byte_source *source, kp_error *error) {
  position at = {0};
  bool ended = false;
  for (size_t wanted = r->batch; !ended;) {
    KP_TRY(fill(r, source, wanted, &ended, error));
    const size_t size = ended ? r->text.size : kp_bpe_trainer_cut(r->trainer, r->text.data, r->text.size);
    if (size == 0 && !ended) {
      wanted *= 2; /* a text without a place to cut it */
      continue;
    }
    if (size > 0) KP_TRY(count_text(r, &at, size, error));
    r->text.size -= size;
    if (r->text.size > 0) memmove(r->text.data, r->text.data + size, r->text.size);
    wanted = r->batch;
  }
  return KP_OK;
}

static kp_status add_text(reader *r, kp_error *error) {
  kp_byte_source *source;
  KP_TRY(kp_byte_source_open(r->path, &source, error));
  const kp_status status = read_text(r, source, error);
  kp_byte_source_close(source);
  r->text.size = 0;
  if (status == KP_OK || status == KP_ERR_INTERRUPTED) return status;
  return kp_context(error, "%s", strcmp(r->path, KP_STANDARD_INPUT) == 0 ? "standard input" : r->path);
}

/* ---- documents in JSON ---- */

static kp_status count_documents(reader *r, kp_error *error) {
  kp_text_view *views = malloc((r->count + 1) * sizeof *views);
  if (views == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu documents", r->count);
  for (size_t i = 0; i < r->count; i++) {
    const size_t begin = i == 0 ? 0 : r->ends[i - 1];
    views[i] = (kp_text_view){.data = r->text.data + begin, .size = r->ends[i] - begin};
  }
  const kp_status status = kp_bpe_trainer_add(r->trainer, views, r->count, error);
  free(views);
  r->bytes += r->text.size;
  r->text.size = r->count = 0;
  return status == KP_OK ? tell(r, error) : status;
}

static kp_status keep_document(reader *r, const kp_document *document, kp_error *error) {
  if (r->count == r->room) {
    const size_t room = 2 * r->room + 1024;
    size_t *ends = realloc(r->ends, room * sizeof *ends);
    if (ends == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu documents", room);
    r->ends = ends;
    r->room = room;
  }
  KP_TRY(kp_byte_buffer_append(&r->text, document->text, document->size, error));
  r->ends[r->count++] = r->text.size;
  return r->text.size < r->batch ? KP_OK : count_documents(r, error);
}

static kp_status read_documents(reader *r, kp_documents *documents, kp_error *error) {
  kp_document document;
  for (;;) {
    KP_TRY(kp_documents_next(documents, &document, error));
    if (document.text == NULL) return count_documents(r, error);
    KP_TRY(keep_document(r, &document, error));
  }
}

static kp_status add_documents(reader *r, kp_error *error) {
  const kp_documents_options options = {.paths = &r->path,
                                        .path_count = 1,
                                        .format = r->files->format,
                                        .field = r->files->field,
                                        .replace_invalid = r->files->replace_invalid};
  kp_documents *documents;
  KP_TRY(kp_documents_open(&options, &documents, error));
  const kp_status status = read_documents(r, documents, error);
  kp_documents_close(documents);
  r->text.size = r->count = 0;
  return status;
}

/* ---- all files ---- */

static kp_status add_file(reader *r, kp_error *error) {
  kp_document_format format = r->files->format;
  if (format == KP_DOCUMENTS_BY_NAME) format = kp_document_format_of(r->path);
  return format == KP_DOCUMENTS_TEXT ? add_text(r, error) : add_documents(r, error);
}

kp_status kp_bpe_trainer_add_files(kp_bpe_trainer *trainer, const kp_bpe_train_files *files, uint64_t *bytes,
                                   kp_error *error) {
  reader r = {.trainer = trainer, .files = files, .batch = files->batch > 0 ? files->batch : BATCH};
  kp_path_list paths = {0};
  kp_status status = KP_OK;
  for (size_t i = 0; i < files->path_count && status == KP_OK; i++)
    status = kp_document_paths_add(&paths, files->paths[i], error);
  for (size_t i = 0; i < paths.count && status == KP_OK; i++) {
    r.path = paths.list[i];
    r.files_left = paths.count - i;
    status = add_file(&r, error);
  }
  kp_path_list_clear(&paths);
  kp_byte_buffer_clear(&r.text);
  kp_byte_buffer_clear(&r.repaired);
  free(r.ends);
  *bytes = r.bytes;
  return status;
}
