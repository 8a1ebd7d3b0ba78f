/* How tokens lie in a file.  All numbers are little-endian.
 *
 *   raw         no header; uint16 tokens to the end of the file            nanoGPT's train.bin
 *   shard       1024 bytes of header, then the tokens                      llm.c, modded-nanogpt, kappa
 *
 * The header is 256 int32:
 *
 *   [0] magic       20240520 (uint16 tokens) or 20240801 (uint32 tokens)
 *   [1] version     1 for the first magic, 7 for the second
 *   [2] count       tokens in the file; the file's size must say the same
 *   [3] mark        "KAPA" when kappa wrote the file, else 0 and what follows means nothing
 *   [4] vocabulary  every token is smaller
 *   [5] [6]         fingerprint of the tokenizer, low word first; 0 is unknown
 *   [7] [8]         bytes of the text that the tokens stand for, low word first; 0 is unknown
 *   the rest is 0
 *
 * Fields 3 to 8 are reserved in llm.c, so its programs read kappa's files too. */
#ifndef KAPPA_DATA_TOKEN_LAYOUT_H
#define KAPPA_DATA_TOKEN_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

enum {
  KP_SHARD_HEADER_INTS = 256,
  KP_SHARD_HEADER_BYTES = 1024,
  KP_SHARD_MAGIC_16 = 20240520,
  KP_SHARD_VERSION_16 = 1,
  KP_SHARD_MAGIC_32 = 20240801,
  KP_SHARD_VERSION_32 = 7,
};

typedef struct kp_token_layout {
  size_t begin;         /* byte of the first token: 0 or 1024 */
  size_t token_size;    /* bytes of a token: 2 or 4 */
  int64_t count;        /* tokens, > 0 */
  int32_t vocabulary;   /* 0 when the file does not say */
  uint64_t fingerprint; /* 0 when the file does not say */
  uint64_t text_bytes;  /* 0 when the file does not say */
} kp_token_layout;

/* Finds the layout of a whole file of `size` bytes.  Without a shard's magic the bytes are raw tokens if
 * `raw_allowed`, else an error.  A file that is empty, odd, cut short, or another kind of file that is known
 * by its first bytes is an error; the message does not name the file. */
kp_status kp_token_layout_read(const unsigned char *data, size_t size, bool raw_allowed,
                               kp_token_layout *layout, kp_error *error);

/* Writes the header of a shard with the layout's token size, count and what is known; with vocabulary 0 as
 * llm.c does, without kappa's mark. */
void kp_token_layout_write(const kp_token_layout *layout, unsigned char header[KP_SHARD_HEADER_BYTES]);

#endif
