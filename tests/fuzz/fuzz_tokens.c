/* Feeds hostile bytes to everything that reads token data: the layout of a token file, a stream of it, a
 * text, and a tokenizer's file.  What is accepted must keep what the headers promise. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "data/character_tokenizer.h"
#include "data/token_layout.h"
#include "data/utf8.h"
#include "data/word_tokenizer.h"

static void read_layout(const uint8_t *data, size_t size) {
  for (int raw = 0; raw < 2; raw++) {
    kp_error error = {0};
    kp_token_layout layout;
    if (kp_token_layout_read(data, size, raw == 1, &layout, &error) != KP_OK) {
      if (error.message[0] == 0) abort();
      continue;
    }
    if (layout.count <= 0 || layout.vocabulary < 0) abort();
    if (layout.begin + (size_t)layout.count * layout.token_size != size) abort();
  }
}

/* The first bytes as the fields of a header, and behind it just the tokens that it counts, or one byte more
 * or less: sizes that a fuzzer rarely finds. */
static void read_framed(const uint8_t *data, size_t size) {
  unsigned char file[KP_SHARD_HEADER_BYTES + 4 * 64 + 1] = {0};
  size_t fields = size < 36 ? size : 36;
  memcpy(file, data, fields);
  uint32_t magic = size > 0 && data[0] % 2 == 0 ? KP_SHARD_MAGIC_16 : KP_SHARD_MAGIC_32;
  uint32_t version = magic == KP_SHARD_MAGIC_16 ? KP_SHARD_VERSION_16 : KP_SHARD_VERSION_32;
  uint32_t count = size > 8 ? data[8] % 64 : 1, width = magic == KP_SHARD_MAGIC_16 ? 2 : 4;
  memcpy(file, &magic, 4);
  memcpy(file + 4, &version, 4);
  memcpy(file + 8, &count, 4);
  for (size_t extra = 0; extra < 2; extra++) read_layout(file, KP_SHARD_HEADER_BYTES + count * width + extra);
}

/* A text that is accepted gives one id for each character, and comes back byte for byte. */
static void read_text(const char *text, size_t size) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  size_t characters, count, back_size;
  int32_t *ids;
  char *back;
  if (kp_character_tokenizer_create(&text, &size, 1, &tokenizer, &error) != KP_OK) {
    if (error.message[0] == 0) abort();
    return;
  }
  if (kp_utf8_count(text, size, &characters, &error) != KP_OK) abort();
  if (kp_tokenizer_encode(tokenizer, text, size, &ids, &count, &error) != KP_OK) abort();
  if (kp_tokenizer_decode(tokenizer, ids, count, &back, &back_size, &error) != KP_OK) abort();
  if (count != characters || back_size != size || memcmp(back, text, size) != 0) abort();
  free(ids);
  free(back);
  kp_tokenizer_destroy(tokenizer);
}

/* The words of the first half spell the whole text, which comes back byte for byte. */
static void read_words(const char *text, size_t size) {
  kp_error error = {0};
  kp_tokenizer *letters = NULL, *tokenizer = NULL;
  const char *texts[] = {text, text + size / 2};
  const size_t sizes[] = {size / 2, size - size / 2};
  size_t count, back_size;
  int32_t *ids;
  char *back;
  if (kp_character_tokenizer_create(texts, sizes, 2, &letters, &error) != KP_OK) return;
  int32_t vocabulary = letters->vocabulary + (size > 0 ? (unsigned char)text[0] % 8 : 0);
  kp_tokenizer_destroy(letters);
  while (kp_word_tokenizer_create(texts, sizes, 2, 1, vocabulary, &tokenizer, &error) != KP_OK) vocabulary--;
  if (kp_tokenizer_encode(tokenizer, text, size, &ids, &count, &error) != KP_OK) abort();
  if (kp_tokenizer_decode(tokenizer, ids, count, &back, &back_size, &error) != KP_OK) abort();
  if (back_size != size || memcmp(back, text, size) != 0) abort();
  free(ids);
  free(back);
  kp_tokenizer_destroy(tokenizer);
}

static void read_tokenizer(const char *text, size_t size) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  json_t *document = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
  if (document == NULL) return;
  kp_status status = kp_character_tokenizer_from_json(document, &tokenizer, &error);
  if ((status == KP_OK) != (tokenizer != NULL) || (status != KP_OK && error.message[0] == 0)) abort();
  kp_tokenizer_destroy(tokenizer);
  tokenizer = NULL;
  error = (kp_error){0};
  status = kp_word_tokenizer_from_json(document, &tokenizer, &error);
  if ((status == KP_OK) != (tokenizer != NULL) || (status != KP_OK && error.message[0] == 0)) abort();
  kp_tokenizer_destroy(tokenizer);
  json_decref(document);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  read_layout(data, size);
  read_framed(data, size);
  read_text((const char *)data, size);
  read_words((const char *)data, size);
  read_tokenizer((const char *)data, size);
  return 0;
}
