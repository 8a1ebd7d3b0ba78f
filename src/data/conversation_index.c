#include "data/conversation_index.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/number.h"

kp_status kp_conversation_index_path(const char *token_file, char out[KP_PATH_SIZE], kp_error *error) {
  static const char ending[] = ".bin";
  const size_t size = strlen(token_file), cut = strlen(ending);
  const bool named = size > cut && strcmp(token_file + size - cut, ending) == 0;
  const int length =
      snprintf(out, KP_PATH_SIZE, "%.*s.documents.safetensors", (int)(named ? size - cut : size), token_file);
  if (length < KP_PATH_SIZE) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "the path %s is too long", token_file);
}

void kp_conversation_index_close(kp_conversation_index *index) {
  kp_safetensors_close(index->file);
  free(index->offsets);
  *index = (kp_conversation_index){0};
}

/* ---- metadata ---- */

/* The counts, each a text of digits. */
typedef struct named_count {
  const char *key;
  int64_t *value;
} named_count;

enum { COUNTS = 5 };

static void name_counts(kp_conversation_counts *c, named_count rows[COUNTS]) {
  const named_count named[COUNTS] = {{"turns", &c->turns},
                                     {"learned", &c->learned},
                                     {"shorter", &c->shorter},
                                     {"cut", &c->cut},
                                     {"left_out", &c->left_out}};
  memcpy(rows, named, sizeof named);
}

static kp_status read_metadata(kp_conversation_index *index, const kp_tokens *tokens, kp_error *error) {
  char fingerprint[17];
  named_count rows[COUNTS];
  name_counts(&index->counts, rows);
  for (int i = 0; i < COUNTS; i++) {
    const char *text = kp_safetensors_metadata(index->file, rows[i].key);
    if (text == NULL || kp_number_integer(text, rows[i].value) != KP_NUMBER_OK || *rows[i].value < 0)
      return kp_fail(error, KP_ERR_INPUT, "its metadata do not say \"%s\": prepare the data again",
                     rows[i].key);
  }
  index->template_name = kp_safetensors_metadata(index->file, "template");
  if (index->template_name == NULL) index->template_name = "unknown";
  snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, kp_tokens_fingerprint(tokens));
  const char *found = kp_safetensors_metadata(index->file, "tokenizer");
  if (found != NULL && strcmp(found, fingerprint) == 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "it belongs to tokens of the tokenizer %s, the tokens are of %s",
                 found == NULL ? "unknown" : found, fingerprint);
}

/* ---- tensors ---- */

static kp_status read_offsets(kp_conversation_index *index, kp_error *error) {
  const kp_safetensors_entry *entry;
  KP_TRY(kp_safetensors_require(index->file, "offsets", &entry, error));
  if (entry->dtype != KP_I64 || entry->rank != 1 || entry->elements < 2)
    return kp_fail(error, KP_ERR_INPUT, "its offsets are not a list of two or more int64");
  index->count = entry->elements - 1;
  index->counts.conversations = index->count;
  index->offsets = malloc(entry->size);
  if (index->offsets == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %lld conversations", (long long)index->count);
  memcpy(index->offsets, entry->data, entry->size);
  return KP_OK;
}

static kp_status check_offsets(kp_conversation_index *index, int64_t tokens, kp_error *error) {
  for (int64_t e = 0; e < index->count; e++) {
    const int64_t begin = index->offsets[e], end = index->offsets[e + 1];
    if (begin < 0 || end - begin < 2 || end > tokens || (e == 0 && begin != 0))
      return kp_fail(error, KP_ERR_INPUT, "conversation %lld lies at tokens %lld to %lld of %lld",
                     (long long)e, (long long)begin, (long long)end, (long long)tokens);
    if (end - begin > index->longest) index->longest = end - begin;
  }
  if (index->offsets[index->count] == tokens) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "its conversations end at token %lld of %lld",
                 (long long)index->offsets[index->count], (long long)tokens);
}

/* Every conversation has something to learn, which is never its first token. */
static kp_status check_mask(kp_conversation_index *index, kp_error *error) {
  int64_t learned = 0;
  for (int64_t e = 0; e < index->count; e++) {
    const int64_t before = learned;
    for (int64_t i = index->offsets[e]; i < index->offsets[e + 1]; i++) {
      if (index->mask[i] > 1 || (index->mask[i] == 1 && i == index->offsets[e]))
        return kp_fail(error, KP_ERR_INPUT, "the mask of token %lld is %d", (long long)i, index->mask[i]);
      learned += index->mask[i];
    }
    if (learned == before)
      return kp_fail(error, KP_ERR_INPUT, "nothing of conversation %lld is learned", (long long)e);
  }
  if (learned == index->counts.learned) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "its mask has %lld tokens to learn, its metadata say %lld",
                 (long long)learned, (long long)index->counts.learned);
}

static kp_status read_all(kp_conversation_index *index, const kp_tokens *tokens, kp_error *error) {
  const kp_safetensors_entry *mask;
  const int64_t count = kp_tokens_count(tokens);
  KP_TRY(read_metadata(index, tokens, error));
  KP_TRY(read_offsets(index, error));
  KP_TRY(check_offsets(index, count, error));
  KP_TRY(kp_safetensors_require_shape(index->file, "mask", 1, &count, &mask, error));
  if (mask->dtype != KP_U8) return kp_fail(error, KP_ERR_INPUT, "its mask is not uint8");
  index->mask = mask->data;
  return check_mask(index, error);
}

kp_status kp_conversation_index_open(const char *path, const kp_tokens *tokens, kp_conversation_index *index,
                                     kp_error *error) {
  *index = (kp_conversation_index){0};
  KP_TRY(kp_safetensors_open(path, &index->file, error));
  kp_status status = read_all(index, tokens, error);
  if (status == KP_OK) return KP_OK;
  kp_conversation_index_close(index);
  return kp_context(error, "%s", path);
}

/* ---- writing ---- */

static void checksum(const int64_t *offsets, int64_t count, const uint8_t *mask,
                     char sha256[KP_SHA256_HEX_SIZE]) {
  char both[2 * KP_SHA256_HEX_SIZE];
  kp_sha256(offsets, (size_t)(count + 1) * sizeof *offsets, both);
  kp_sha256(mask, (size_t)offsets[count], both + KP_SHA256_HEX_SIZE);
  kp_sha256(both, sizeof both, sha256);
}

kp_status kp_conversation_index_verify(const kp_conversation_index *index, kp_error *error) {
  char found[KP_SHA256_HEX_SIZE];
  const char *expected = kp_safetensors_metadata(index->file, "sha256");
  checksum(index->offsets, index->count, index->mask, found);
  if (expected != NULL && strcmp(found, expected) == 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "%s was changed: prepare the data again",
                 kp_safetensors_label(index->file));
}

static kp_status write_metadata(kp_safetensors_writer *writer, const kp_conversation_counts *counts,
                                const char *template_name, uint64_t fingerprint, const char *sha256,
                                kp_error *error) {
  char text[32];
  named_count rows[COUNTS];
  kp_conversation_counts copy = *counts;
  name_counts(&copy, rows);
  for (int i = 0; i < COUNTS; i++) {
    snprintf(text, sizeof text, "%lld", (long long)*rows[i].value);
    KP_TRY(kp_safetensors_writer_metadata(writer, rows[i].key, text, error));
  }
  snprintf(text, sizeof text, "%016" PRIx64, fingerprint);
  KP_TRY(kp_safetensors_writer_metadata(writer, "tokenizer", text, error));
  KP_TRY(kp_safetensors_writer_metadata(writer, "template", template_name, error));
  return kp_safetensors_writer_metadata(writer, "sha256", sha256, error);
}

static kp_status write_tensors(kp_safetensors_writer *writer, const int64_t *offsets, int64_t count,
                               const uint8_t *mask, kp_error *error) {
  const int64_t offset_count = count + 1, tokens = offsets[count];
  KP_TRY(kp_safetensors_writer_declare(writer, "offsets", KP_I64, 1, &offset_count, error));
  KP_TRY(kp_safetensors_writer_declare(writer, "mask", KP_U8, 1, &tokens, error));
  KP_TRY(
      kp_safetensors_writer_write(writer, "offsets", offsets, (size_t)offset_count * sizeof *offsets, error));
  KP_TRY(kp_safetensors_writer_write(writer, "mask", mask, (size_t)tokens, error));
  return kp_safetensors_writer_commit(writer, error);
}

kp_status kp_conversation_index_write(const char *path, const int64_t *offsets, const uint8_t *mask,
                                      const kp_conversation_counts *counts, const char *template_name,
                                      uint64_t fingerprint, kp_error *error) {
  char sha256[KP_SHA256_HEX_SIZE];
  kp_safetensors_writer *writer;
  checksum(offsets, counts->conversations, mask, sha256);
  KP_TRY(kp_safetensors_writer_create(path, &writer, error));
  kp_status status = write_metadata(writer, counts, template_name, fingerprint, sha256, error);
  if (status == KP_OK) status = write_tensors(writer, offsets, counts->conversations, mask, error);
  kp_safetensors_writer_destroy(writer);
  return status;
}
