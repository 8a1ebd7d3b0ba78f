#include "data/token_layout.h"

#include <string.h>

#include "core/assert.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "token files are mapped as they are: the host must be little-endian"
#endif

enum { field_mark = 3, field_vocabulary = 4, field_fingerprint = 5, field_text_bytes = 7 };

static const uint32_t kappa_mark = 0x4150414B; /* the bytes "KAPA" */

static uint32_t read_field(const unsigned char *data, size_t field) {
  uint32_t value;
  memcpy(&value, data + 4 * field, sizeof value);
  return value;
}

static uint64_t read_wide_field(const unsigned char *data, size_t field) {
  return (uint64_t)read_field(data, field + 1) << 32 | read_field(data, field);
}

static void write_field(unsigned char *data, size_t field, uint32_t value) {
  memcpy(data + 4 * field, &value, sizeof value);
}

static void write_wide_field(unsigned char *data, size_t field, uint64_t value) {
  write_field(data, field, (uint32_t)value);
  write_field(data, field + 1, (uint32_t)(value >> 32));
}

static kp_status read_shard(const unsigned char *data, size_t size, kp_token_layout *layout,
                            kp_error *error) {
  if (size < KP_SHARD_HEADER_BYTES)
    return kp_fail(error, KP_ERR_INPUT, "it is cut short: a shard's header has %d bytes, the file %zu",
                   KP_SHARD_HEADER_BYTES, size);
  bool wide = read_field(data, 0) == KP_SHARD_MAGIC_32;
  uint32_t version = read_field(data, 1), expected = wide ? KP_SHARD_VERSION_32 : KP_SHARD_VERSION_16;
  if (version != expected)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "its shard version is %u; version %u is known for magic %u",
                   version, expected, read_field(data, 0));
  *layout = (kp_token_layout){.begin = KP_SHARD_HEADER_BYTES, .token_size = wide ? 4 : 2};
  layout->count = (int32_t)read_field(data, 2);
  size_t bytes = size - KP_SHARD_HEADER_BYTES;
  if (layout->count <= 0)
    return kp_fail(error, KP_ERR_INPUT, "its header says %lld tokens", (long long)layout->count);
  if (bytes != (size_t)layout->count * layout->token_size)
    return kp_fail(error, KP_ERR_INPUT, "its header says %lld tokens but %zu bytes follow, enough for %zu%s",
                   (long long)layout->count, bytes, bytes / layout->token_size,
                   bytes < (size_t)layout->count * layout->token_size ? "; it is cut short, get it again"
                                                                      : "");
  if (read_field(data, field_mark) != kappa_mark) return KP_OK;
  if (read_field(data, field_vocabulary) > INT32_MAX)
    return kp_fail(error, KP_ERR_INPUT, "its header says a vocabulary of %u",
                   read_field(data, field_vocabulary));
  layout->vocabulary = (int32_t)read_field(data, field_vocabulary);
  layout->fingerprint = read_wide_field(data, field_fingerprint);
  layout->text_bytes = read_wide_field(data, field_text_bytes);
  return KP_OK;
}

/* Files that people give in place of tokens.  llm.c's magics read as tokens above 55000, NumPy's as 20115:
 * real token streams do not begin so. */
static const char *other_kind(const unsigned char *data, size_t size) {
  if (size >= 6 && memcmp(data, "\x93NUMPY", 6) == 0)
    return "a NumPy array file; write its tokens with numpy's tofile() instead of save()";
  if (size < 4) return NULL;
  switch (read_field(data, 0)) {
  case 20240326: return "a checkpoint of llm.c";
  case 20240327: return "a training state of llm.c";
  case 20240328: return "a tokenizer of llm.c";
  case 20240522: return "an evaluation file of llm.c";
  default: return NULL;
  }
}

static kp_status read_raw(size_t size, kp_token_layout *layout, kp_error *error) {
  if (size % 2 != 0)
    return kp_fail(error, KP_ERR_INPUT, "raw uint16 tokens take an even number of bytes, the file has %zu",
                   size);
  *layout = (kp_token_layout){.token_size = 2, .count = (int64_t)(size / 2)};
  return KP_OK;
}

kp_status kp_token_layout_read(const unsigned char *data, size_t size, bool raw_allowed,
                               kp_token_layout *layout, kp_error *error) {
  if (size == 0) return kp_fail(error, KP_ERR_INPUT, "the file is empty");
  uint32_t magic = size < 4 ? 0 : read_field(data, 0);
  if (magic == KP_SHARD_MAGIC_16 || magic == KP_SHARD_MAGIC_32) return read_shard(data, size, layout, error);
  const char *kind = other_kind(data, size);
  if (kind != NULL) return kp_fail(error, KP_ERR_INPUT, "it holds no tokens: it is %s", kind);
  if (!raw_allowed)
    return kp_fail(
        error, KP_ERR_INPUT,
        "it has no shard header (magic %d or %d) and is not named .bin; text must be prepared first",
        KP_SHARD_MAGIC_16, KP_SHARD_MAGIC_32);
  return read_raw(size, layout, error);
}

void kp_token_layout_write(const kp_token_layout *layout, unsigned char header[KP_SHARD_HEADER_BYTES]) {
  kp_assert(layout->count > 0 && layout->count <= INT32_MAX, "%lld tokens in a shard",
            (long long)layout->count);
  bool wide = layout->token_size == 4;
  memset(header, 0, KP_SHARD_HEADER_BYTES);
  write_field(header, 0, wide ? KP_SHARD_MAGIC_32 : KP_SHARD_MAGIC_16);
  write_field(header, 1, wide ? KP_SHARD_VERSION_32 : KP_SHARD_VERSION_16);
  write_field(header, 2, (uint32_t)layout->count);
  if (layout->vocabulary == 0) return;
  write_field(header, field_mark, kappa_mark);
  write_field(header, field_vocabulary, (uint32_t)layout->vocabulary);
  write_wide_field(header, field_fingerprint, layout->fingerprint);
  write_wide_field(header, field_text_bytes, layout->text_bytes);
}
