/* Any bytes, as a text to learn a tokenizer from: refused because they are no UTF-8, or learned from, with
 * any number of threads alike; and then the text is encoded and decoded to itself. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "data/bpe_train.h"
#include "data/pretokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const specials[] = {"<|endoftext|>", "ab", "\xC4\xA0"};

static kp_tokenizer *train(kp_text_view text, kp_bpe_train_options options, int threads, kp_error *error) {
  kp_tokenizer *tokenizer = NULL;
  options.threads = threads;
  const kp_status status = kp_bpe_train(&text, 1, &options, &tokenizer, error);
  kp_assert((status == KP_OK) == (tokenizer != NULL), "a status and a tokenizer disagree");
  return tokenizer;
}

static void check_encoding(const kp_tokenizer *tokenizer, kp_text_view text, bool with_specials) {
  kp_error error = {0};
  kp_ids ids = {0};
  char *back = NULL;
  size_t size = 0;
  kp_status status = kp_tokenizer_append(tokenizer, text, with_specials, &ids, &error);
  kp_assert(status == KP_OK, "%s", error.message);
  status = kp_tokenizer_decode(tokenizer, ids.list, ids.count, &back, &size, &error);
  kp_assert(status == KP_OK, "%s", error.message);
  kp_assert(size == text.size && memcmp(back, text.data, size) == 0, "the text changed");
  for (size_t i = 0; i < ids.count && !with_specials; i++)
    for (size_t k = 0; k < tokenizer->special_count; k++)
      kp_assert(ids.list[i] != tokenizer->specials[k].id, "plain text became a special token");
  free(back);
  kp_ids_clear(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  kp_error error = {0};
  if (size < 3) return 0;
  const kp_bpe_train_options options = {.vocabulary = 256 + data[0],
                                        .minimum_count = data[1] % 4,
                                        .pattern = data[2] % 2 == 0 ? NULL : KP_PATTERN_LLAMA3,
                                        .specials = specials,
                                        .special_count = data[2] / 2 % 3};
  const kp_text_view text = {.data = (const char *)data + 3, .size = size - 3};
  kp_tokenizer *one = train(text, options, 1, &error);
  kp_assert(one != NULL || error.message[0] != 0, "a refusal has a message");
  if (one == NULL) return 0;
  kp_assert(one->vocabulary <= options.vocabulary, "%d tokens are too many", one->vocabulary);
  kp_tokenizer *two = train(text, options, 2, &error);
  kp_assert(two != NULL && one->fingerprint == two->fingerprint, "two threads learn otherwise than one");
  check_encoding(one, text, false);
  check_encoding(one, text, true);
  kp_tokenizer_destroy(one);
  kp_tokenizer_destroy(two);
  return 0;
}
