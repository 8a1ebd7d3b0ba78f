/* Any bytes, as a text to learn byte-pair encoding from: refused because they are no UTF-8, or learned from,
 * with one thread and with two alike; a tokenizer of what was learned encodes the text and decodes it to
 * itself.
 *
 * The pretokenizers are made once: their tables of characters take longer than all the rest. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "data/bpe_count.h"
#include "data/bpe_learn.h"
#include "data/bpe_tokenizer.h"
#include "data/pretokenizer.h"

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const patterns[] = {KP_PATTERN_GPT2, KP_PATTERN_LLAMA3};
static kp_pretokenizer *pretokenizers[2];
static unsigned char alphabet[KP_BPE_BYTES];
static const char *const specials[] = {"<|endoftext|>", "ab"};

int LLVMFuzzerInitialize(int *count, char ***arguments) {
  (void)count;
  (void)arguments;
  kp_error error = {0};
  for (int i = 0; i < 2; i++) {
    const kp_status status = kp_pretokenizer_create(&patterns[i], 1, false, &pretokenizers[i], &error);
    kp_assert(status == KP_OK, "%s", error.message);
  }
  for (int i = 0; i < KP_BPE_BYTES; i++) alphabet[i] = (unsigned char)(KP_BPE_BYTES - 1 - i);
  return 0;
}

/* Whether the text was taken. */
static bool learn(kp_text_view text, const uint8_t *choices, int threads, kp_bpe_learned *learned) {
  kp_error error = {0};
  kp_bpe_counter *counter = NULL;
  const kp_word_table *words;
  const kp_bpe_count_options count = {.pretokenizer = pretokenizers[choices[2] % 2],
                                      .specials = specials,
                                      .special_count = choices[2] / 2 % 3,
                                      .threads = threads};
  const kp_bpe_learn_options options = {
      .alphabet = alphabet, .tokens = KP_BPE_BYTES + choices[0], .minimum_count = choices[1] % 4};
  kp_status status = kp_bpe_counter_create(&count, &counter, &error);
  kp_assert(status == KP_OK, "%s", error.message);
  const kp_status taken = kp_bpe_counter_add(counter, &text, 1, &error);
  if (taken == KP_OK) {
    status = kp_bpe_counter_words(counter, &words, &error);
    if (status == KP_OK) status = kp_bpe_learn(words, &options, learned, &error);
    kp_assert(status == KP_OK, "%s", error.message);
    kp_assert(learned->tokens.count <= options.tokens, "%d tokens are too many", learned->tokens.count);
  } else {
    kp_assert(error.message[0] != 0, "a refusal has a message");
  }
  kp_bpe_counter_destroy(counter);
  return taken == KP_OK;
}

static void check_same(const kp_bpe_learned *a, const kp_bpe_learned *b) {
  const size_t bytes = a->merge_count * sizeof *a->merges;
  kp_assert(a->merge_count == b->merge_count, "%zu merges and %zu", a->merge_count, b->merge_count);
  kp_assert(bytes == 0 || memcmp(a->merges, b->merges, bytes) == 0, "the merges differ");
}

static void check_encoding(const kp_bpe_learned *learned, kp_text_view text) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  kp_ids ids = {0};
  char *back = NULL;
  size_t size = 0;
  kp_text_view tokens[KP_BPE_BYTES + 256];
  for (int32_t i = 0; i < learned->tokens.count; i++)
    tokens[i] = (kp_text_view){.data = learned->tokens.words[i].bytes, .size = learned->tokens.words[i].size};
  const kp_bpe_parts parts = {.tokens = tokens,
                              .vocabulary = learned->tokens.count,
                              .merges = learned->merges,
                              .merge_count = learned->merge_count,
                              .begin = -1,
                              .end = -1};
  kp_status status = kp_bpe_tokenizer_create(&parts, &tokenizer, &error);
  if (status == KP_OK) status = kp_tokenizer_append(tokenizer, text, false, &ids, &error);
  if (status == KP_OK) status = kp_tokenizer_decode(tokenizer, ids.list, ids.count, &back, &size, &error);
  kp_assert(status == KP_OK, "%s", error.message);
  kp_assert(size == text.size && memcmp(back, text.data, size) == 0, "the text changed");
  free(back);
  kp_ids_clear(&ids);
  kp_tokenizer_destroy(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 4) return 0;
  const kp_text_view text = {.data = (const char *)data + 3, .size = size - 3};
  kp_bpe_learned one, two;
  if (!learn(text, data, 1, &one)) return 0;
  kp_assert(learn(text, data, 2, &two), "two threads refuse what one takes");
  check_same(&one, &two);
  check_encoding(&one, text);
  kp_bpe_learned_clear(&one);
  kp_bpe_learned_clear(&two);
  return 0;
}
