#include "data/token_writer.h"

#include <stdlib.h>

#include "core/assert.h"
#include "core/atomic_file.h"
#include "data/token_layout.h"

struct kp_token_writer {
  kp_atomic_file *file;
  kp_token_layout layout;
  int32_t limit; /* every token is smaller */
};

void kp_token_writer_abort(kp_token_writer *writer) {
  if (writer == NULL) return;
  kp_atomic_file_abort(writer->file);
  free(writer);
}

kp_status kp_token_writer_create(const char *path, int32_t vocabulary, uint64_t fingerprint,
                                 kp_token_writer **writer, kp_error *error) {
  kp_assert(vocabulary > 0, "a vocabulary of %d", vocabulary);
  const kp_token_layout layout = {.begin = KP_SHARD_HEADER_BYTES,
                                  .token_size = vocabulary <= UINT16_MAX + 1 ? 2 : 4,
                                  .vocabulary = vocabulary,
                                  .fingerprint = fingerprint};
  return kp_token_writer_create_as(path, &layout, writer, error);
}

kp_status kp_token_writer_create_as(const char *path, const kp_token_layout *layout, kp_token_writer **writer,
                                    kp_error *error) {
  kp_token_writer *made = calloc(1, sizeof *made);
  if (made == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to write %s", path);
  made->layout = *layout;
  made->layout.count = 0;
  made->limit = layout->vocabulary > 0    ? layout->vocabulary
                : layout->token_size == 2 ? UINT16_MAX + 1
                                          : INT32_MAX;
  static const unsigned char room[KP_SHARD_HEADER_BYTES] = {0}; /* the count is known only at the end */
  kp_status status = kp_atomic_file_open(path, &made->file, error);
  if (status == KP_OK) status = kp_atomic_file_write(made->file, room, layout->begin, error);
  if (status != KP_OK) {
    kp_token_writer_abort(made);
    return status;
  }
  *writer = made;
  return KP_OK;
}

static kp_status append_narrow(kp_token_writer *writer, const int32_t *tokens, size_t count,
                               kp_error *error) {
  enum { chunk = 4096 };
  uint16_t narrow[chunk];
  for (size_t done = 0; done < count;) {
    size_t part = count - done < chunk ? count - done : chunk;
    for (size_t i = 0; i < part; i++) narrow[i] = (uint16_t)tokens[done + i];
    KP_TRY(kp_atomic_file_write(writer->file, narrow, part * sizeof *narrow, error));
    done += part;
  }
  return KP_OK;
}

kp_status kp_token_writer_append(kp_token_writer *writer, const int32_t *tokens, size_t count,
                                 kp_error *error) {
  for (size_t i = 0; i < count; i++)
    kp_assert(tokens[i] >= 0 && tokens[i] < writer->limit, "token %d of %d", tokens[i], writer->limit);
  if (writer->layout.begin > 0 && count > (size_t)(INT32_MAX - writer->layout.count))
    return kp_fail(error, KP_ERR_UNSUPPORTED, "a token file holds 2^31 - 1 tokens at most; split the text");
  writer->layout.count += (int64_t)count;
  if (writer->layout.token_size == 2) return append_narrow(writer, tokens, count, error);
  return kp_atomic_file_write(writer->file, tokens, count * sizeof *tokens, error);
}

kp_status kp_token_writer_finish(kp_token_writer *writer, uint64_t text_bytes, kp_error *error) {
  if (writer->layout.count == 0) {
    kp_token_writer_abort(writer);
    return kp_fail(error, KP_ERR_INPUT, "there are no tokens to write");
  }
  unsigned char header[KP_SHARD_HEADER_BYTES];
  kp_status status = KP_OK;
  writer->layout.text_bytes = text_bytes;
  if (writer->layout.begin > 0) {
    kp_token_layout_write(&writer->layout, header);
    status = kp_atomic_file_write_at(writer->file, 0, header, sizeof header, error);
  }
  if (status != KP_OK) {
    kp_token_writer_abort(writer);
    return status;
  }
  kp_atomic_file *file = writer->file;
  free(writer);
  return kp_atomic_file_commit(file, error);
}
