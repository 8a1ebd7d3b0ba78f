/* Feeds hostile bytes to everything that reads byte-level BPE tokenizers, and hostile texts to their
 * patterns.  The first byte chooses what; a zero parts two inputs. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "data/bpe_files.h"
#include "data/bpe_save.h"
#include "data/pretokenizer.h"
#include "data/utf8.h"

/* What is accepted is written and read back as the same tokenizer. */
static void save_and_read(const kp_tokenizer *tokenizer) {
  kp_error error = {0};
  kp_tokenizer *again = NULL;
  json_t *document = kp_bpe_to_json(tokenizer);
  if (document == NULL) abort();
  if (kp_bpe_read_json(document, &again, &error) != KP_OK) abort();
  if (again->fingerprint != tokenizer->fingerprint || again->vocabulary != tokenizer->vocabulary) abort();
  if (again->begin != tokenizer->begin || again->end != tokenizer->end) abort();
  kp_tokenizer_destroy(again);
  json_decref(document);
}

/* A text that is encoded comes back byte for byte.  A hostile pattern may take long over each byte: few of
 * them. */
static void encode(const kp_tokenizer *tokenizer, const char *text, size_t size) {
  enum { LONGEST = 32 };
  const kp_text_view view = {.data = text, .size = size < LONGEST ? size : LONGEST};
  for (int with_specials = 0; with_specials < 2; with_specials++) {
    kp_error error = {0};
    kp_ids ids = {0};
    char *back;
    size_t length;
    if (kp_tokenizer_append(tokenizer, view, with_specials == 1, &ids, &error) == KP_OK) {
      if (kp_tokenizer_decode(tokenizer, ids.list, ids.count, &back, &length, &error) != KP_OK) abort();
      if (length != view.size || memcmp(back, text, length) != 0) abort();
      free(back);
    } else if (error.message[0] == 0 || ids.count != 0) {
      abort();
    }
    kp_ids_clear(&ids);
  }
}

static void use(kp_status status, kp_tokenizer *tokenizer, const kp_error *error, const char *text,
                size_t size) {
  if (status != KP_OK) {
    if (tokenizer != NULL || error->message[0] == 0) abort();
    return;
  }
  if (tokenizer->fingerprint == 0 || tokenizer->vocabulary <= 0) abort();
  encode(tokenizer, text, size);
  save_and_read(tokenizer);
  kp_tokenizer_destroy(tokenizer);
}

/* tokenizer.json, and a vocabulary with its merges behind a zero. */
static void read_json(const char *data, size_t size, const char *rest, size_t rest_size, bool with_merges) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  json_t *document = json_loadb(data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
  if (document == NULL) return;
  const kp_status status = with_merges ? kp_bpe_read_vocabulary(document, rest, rest_size, &tokenizer, &error)
                                       : kp_bpe_read_json(document, &tokenizer, &error);
  use(status, tokenizer, &error, rest, rest_size);
  json_decref(document);
}

static void read_ranks(const char *data, size_t size, const char *rest, size_t rest_size) {
  static const char *const specials[] = {"<|endoftext|>", "<s>", NULL};
  static const kp_bpe_scheme scheme = {
      .pattern = "\\p{L}+", .specials = specials, .reserved = 3, .first_reserved = 1, .begin = "<s>"};
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  const kp_status status = kp_bpe_read_ranks(data, size, &scheme, &tokenizer, &error);
  use(status, tokenizer, &error, rest, rest_size);
}

/* The pieces are the text. */
static void cut(const kp_pretokenizer *pretokenizer, const char *text, size_t size) {
  kp_error error = {0};
  kp_pieces *pieces;
  kp_text_view piece;
  size_t at = 0;
  if (kp_pieces_create(pretokenizer, &pieces, &error) != KP_OK) abort();
  kp_pieces_begin(pieces, text, size);
  while (kp_pieces_next(pieces, &piece, &error) == KP_OK) {
    if (piece.size == 0) {
      if (at != size) abort();
      break;
    }
    if (piece.data != text + at) abort();
    at += piece.size;
  }
  kp_pieces_destroy(pieces);
}

static void read_pattern(const char *pattern, const char *text, size_t size) {
  enum { LONGEST = 32 };
  const char *const patterns[] = {pattern, "\\p{N}"};
  kp_error error = {0};
  kp_pretokenizer *pretokenizer = NULL;
  if (kp_pretokenizer_create(patterns, 2, false, &pretokenizer, &error) != KP_OK) {
    if (error.message[0] == 0) abort();
    return;
  }
  const size_t length = size < LONGEST ? size : LONGEST;
  if (kp_utf8_invalid(text, length) == length) cut(pretokenizer, text, length);
  kp_pretokenizer_destroy(pretokenizer);
}

/* Both ways to cut by the known patterns. */
typedef struct known {
  kp_pretokenizer *both[2];
  kp_pieces *pieces[2];
} known;

static known make_known(const char *pattern) {
  known made;
  for (int i = 0; i < 2; i++) {
    if (kp_pretokenizer_create(&pattern, 1, i == 1, &made.both[i], NULL) != KP_OK) abort();
    if (kp_pieces_create(made.both[i], &made.pieces[i], NULL) != KP_OK) abort();
  }
  return made;
}

/* The pieces by code and by PCRE2 are the same, also of both sides of a cut. */
static void compare(const known *k, const char *text, size_t size) {
  const size_t middle = kp_pretokenizer_cut(k->both[0], text, size, size / 2);
  if (kp_utf8_invalid(text, size) != size) return;
  size_t begin = 0, end = middle;
  kp_pieces_begin(k->pieces[1], text, size);
  kp_pieces_begin(k->pieces[0], text, middle);
  for (;;) {
    kp_text_view a, b;
    if (kp_pieces_next(k->pieces[0], &a, NULL) != KP_OK) abort();
    if (a.size == 0 && end < size) {
      begin = end;
      end = size;
      kp_pieces_begin(k->pieces[0], text + begin, end - begin);
      continue;
    }
    if (kp_pieces_next(k->pieces[1], &b, NULL) != KP_OK) abort();
    if (a.size != b.size || (a.size > 0 && a.data != b.data)) abort();
    if (a.size == 0) break;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static known gpt2, llama3; /* made once: they look at every character of Unicode */
  if (gpt2.both[0] == NULL) {
    gpt2 = make_known(KP_PATTERN_GPT2);
    llama3 = make_known(KP_PATTERN_LLAMA3);
  }
  if (size == 0) return 0;
  char *copy = malloc(size); /* of just these bytes, closed by a zero */
  if (copy == NULL) abort();
  memcpy(copy, data + 1, size - 1);
  copy[size - 1] = 0;
  const size_t first = strlen(copy);
  const char *rest = first < size - 1 ? copy + first + 1 : copy + first;
  const size_t rest_size = first < size - 1 ? size - 2 - first : 0;
  switch (data[0]) {
  case 'j': read_json(copy, first, rest, rest_size, false); break;
  case 'v': read_json(copy, first, rest, rest_size, true); break;
  case 'r': read_ranks(copy, first, rest, rest_size); break;
  case 'p': read_pattern(copy, rest, rest_size); break;
  default: compare(&gpt2, copy, size - 1); compare(&llama3, copy, size - 1);
  }
  free(copy);
  return 0;
}
