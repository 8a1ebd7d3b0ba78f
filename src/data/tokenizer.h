/* What every tokenizer offers: text to token ids and back.
 *
 * A tokenizer never changes after it was made, so threads may share it.  Its fingerprint is a 64-bit hash of
 * the vocabulary: token files carry it (data/token_file.h), so that tokens are never read with the wrong
 * vocabulary.
 *
 * A kind of tokenizer is a struct that begins with kp_tokenizer and fills it: data/character_tokenizer.c,
 * data/word_tokenizer.c, data/bpe_tokenizer.c.
 *
 * Text is UTF-8, and bytes that are not are an error that names their place; kp_utf8_repair
 * (data/utf8_repair.h) repairs a text beforehand where that is wanted. */
#ifndef KAPPA_DATA_TOKENIZER_H
#define KAPPA_DATA_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "core/error.h"

/* The name of a tokenizer's file in a prepared folder. */
#define KP_TOKENIZER_FILE "tokenizer.json"

typedef struct kp_tokenizer kp_tokenizer;

/* A growing list of ids.  Zero-initialise; kp_ids_clear frees it. */
typedef struct kp_ids {
  int32_t *list;
  size_t count, capacity;
} kp_ids;
void kp_ids_clear(kp_ids *ids);
/* Makes room for `more` ids behind the last. */
kp_status kp_ids_reserve(kp_ids *ids, size_t more, kp_error *error);
kp_status kp_ids_append(kp_ids *ids, const int32_t *list, size_t count, kp_error *error);

/* A view of text that somebody else holds. */
typedef struct kp_text_view {
  const char *data;
  size_t size;
} kp_text_view;

/* A token that plain text never becomes: its text is encoded like any other, unless it is asked for. */
typedef struct kp_special_token {
  const char *text; /* "<|endoftext|>" */
  int32_t id;
} kp_special_token;

/* The functions of one kind. */
typedef struct kp_tokenizer_kind {
  const char *name; /* "character", "word" or "bpe" */
  /* Appends the ids of text[begin .. end), as if nothing stood around it; errors count from the front of
   * `text`. */
  kp_status (*append)(const kp_tokenizer *tokenizer, const char *text, size_t begin, size_t end, kp_ids *ids,
                      kp_error *error);
  /* The first place behind `from` at which the text may be cut: both sides have the ids of the whole.  `size`
   * where there is none. */
  size_t (*cut)(const kp_tokenizer *tokenizer, const char *text, size_t size, size_t from);
  void (*token_bytes)(const kp_tokenizer *tokenizer, int32_t id, const char **bytes, size_t *size);
  kp_status (*save)(const kp_tokenizer *tokenizer, const char *path, kp_error *error);
  void (*destroy)(kp_tokenizer *tokenizer);
} kp_tokenizer_kind;

struct kp_tokenizer {
  const kp_tokenizer_kind *kind;
  int32_t vocabulary;               /* ids are 0 .. vocabulary - 1 */
  uint64_t fingerprint;             /* never 0: 0 means "unknown" in token files */
  const kp_special_token *specials; /* by their bytes, as strcmp sorts; the kind's */
  size_t special_count;
  int32_t begin, end; /* specials in front of a document and behind it; -1: none */
};

/* Opens a tokenizer; the caller destroys it.  A file is recognised by its content: kappa's own, Hugging
 * Face's tokenizer.json, a vocabulary (vocab.json, encoder.json) with its merges (merges.txt, vocab.bpe)
 * beside it, or a rank file of tiktoken (tokenizer.model of Llama 3, gpt2.tiktoken).  A folder holds one of
 * these, looked for in that order. */
kp_status kp_tokenizer_open(const char *path, kp_tokenizer **tokenizer, kp_error *error);

/* NULL is allowed. */
void kp_tokenizer_destroy(kp_tokenizer *tokenizer);

/* Writes the tokenizer to a file that kp_tokenizer_open reads; whole or not at all. */
kp_status kp_tokenizer_save(const kp_tokenizer *tokenizer, const char *path, kp_error *error);

const char *kp_tokenizer_name(const kp_tokenizer *tokenizer);

/* The ids of `text`.  The caller frees *ids (never NULL on success).  Text that the tokenizer has no ids for
 * is an error that names the character, its byte offset and line. */
kp_status kp_tokenizer_encode(const kp_tokenizer *tokenizer, const char *text, size_t size, int32_t **ids,
                              size_t *count, kp_error *error);

/* Appends the ids of the text from byte *offset on, of `bytes` bytes or more until a place where the text may
 * be cut, and moves *offset there; with `threads` threads (0: all).  For texts whose ids would not fit in
 * memory at once: the ids of all parts are those of kp_tokenizer_encode, and errors count from the front of
 * `text`. */
kp_status kp_tokenizer_append_part(const kp_tokenizer *tokenizer, kp_text_view text, size_t *offset,
                                   size_t bytes, int threads, kp_ids *ids, kp_error *error);

/* Appends the ids of `text`, in which the text of a special token becomes that token when `with_specials`. */
kp_status kp_tokenizer_append(const kp_tokenizer *tokenizer, kp_text_view text, bool with_specials,
                              kp_ids *ids, kp_error *error);

/* Appends the ids of many texts, with `threads` threads (0: all): those of text i begin at offsets[i] of the
 * list, and offsets[count] is its new end.  The ids are those of kp_tokenizer_append, text by text. */
kp_status kp_tokenizer_append_all(const kp_tokenizer *tokenizer, const kp_text_view *texts, size_t count,
                                  bool with_specials, int threads, kp_ids *ids, size_t *offsets,
                                  kp_error *error);

/* The id of the special token of that text, or -1. */
int32_t kp_tokenizer_special(const kp_tokenizer *tokenizer, const char *text);

/* The bytes of the ids, closed by a zero that *size does not count.  The caller frees *bytes.  The bytes of
 * a single id need not be whole characters in every tokenizer. */
kp_status kp_tokenizer_decode(const kp_tokenizer *tokenizer, const int32_t *ids, size_t count, char **bytes,
                              size_t *size, kp_error *error);

/* For the kinds: writes a file's document, which is released, and NULL means that there was no memory for it;
 * and checks the fingerprint in a document, where there is one, against that of its vocabulary. */
kp_status kp_tokenizer_write_json(json_t *document, const char *path, kp_error *error);
kp_status kp_tokenizer_check_fingerprint(const json_t *document, const kp_tokenizer *tokenizer,
                                         kp_error *error);

/* FNV-1a, 64 bits (Fowler, Noll, Vo), going on from `hash`; begin with KP_FNV_BASIS. */
#define KP_FNV_BASIS UINT64_C(0xcbf29ce484222325)
uint64_t kp_fnv(uint64_t hash, const void *bytes, size_t size);

#endif
