#include "data/bpe_train.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/bpe_count.h"
#include "data/bpe_tokenizer.h"
#include "data/byte_alphabet.h"
#include "data/pretokenizer.h"
#include "data/utf8.h"

struct kp_bpe_trainer {
  kp_bpe_train_options options;
  kp_pretokenizer *pretokenizer;
  kp_bpe_counter *counter;
  kp_word_table reserved; /* bytes that a token must not have, as it would be written as a special is */
};

/* A special token as the bytes of a token that would be written with the same characters, if there is one. */
static kp_status reserve_special(kp_bpe_trainer *trainer, const char *special, kp_error *error) {
  const size_t size = strlen(special);
  char *bytes = malloc(size + 1);
  int32_t number;
  if (bytes == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a special token");
  const size_t count = kp_alphabet_read(special, size, bytes);
  kp_status status = KP_OK;
  if (count == 1)
    status = kp_fail(error, KP_ERR_INPUT,
                     "special token '%s' is how a byte of text is written; take a longer text", special);
  else if (count != SIZE_MAX)
    status = kp_word_table_add(&trainer->reserved, bytes, count, &number, error);
  free(bytes);
  return status;
}

static kp_status check_specials(kp_bpe_trainer *trainer, kp_error *error) {
  const char *const *specials = trainer->options.specials;
  for (size_t i = 0; i < trainer->options.special_count; i++) {
    if (specials[i][0] == 0) return kp_fail(error, KP_ERR_INPUT, "special token %zu is empty", i + 1);
    KP_TRY(kp_utf8_check(specials[i], strlen(specials[i]), error));
    for (size_t k = 0; k < i; k++)
      if (strcmp(specials[i], specials[k]) == 0)
        return kp_fail(error, KP_ERR_INPUT, "special token '%s' is given twice", specials[i]);
    KP_TRY(reserve_special(trainer, specials[i], error));
  }
  return KP_OK;
}

static kp_status init(kp_bpe_trainer *trainer, kp_error *error) {
  const kp_bpe_train_options *o = &trainer->options;
  if (o->vocabulary < KP_BPE_BYTES || (size_t)o->vocabulary - KP_BPE_BYTES < o->special_count)
    return kp_fail(error, KP_ERR_INPUT, "a vocabulary of %d has no room for the 256 bytes and %zu special %s",
                   o->vocabulary, o->special_count, o->special_count == 1 ? "token" : "tokens");
  KP_TRY(kp_word_table_init(&trainer->reserved, error));
  KP_TRY(check_specials(trainer, error));
  KP_TRY(kp_pretokenizer_create(&o->pattern, 1, false, &trainer->pretokenizer, error));
  const kp_bpe_count_options count = {.pretokenizer = trainer->pretokenizer,
                                      .specials = o->specials,
                                      .special_count = o->special_count,
                                      .threads = o->threads,
                                      .progress = o->counting,
                                      .context = o->context};
  return kp_bpe_counter_create(&count, &trainer->counter, error);
}

kp_status kp_bpe_trainer_create(const kp_bpe_train_options *options, kp_bpe_trainer **trainer,
                                kp_error *error) {
  kp_bpe_trainer *made = calloc(1, sizeof *made);
  if (made == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to train a tokenizer");
  made->options = *options;
  if (options->pattern == NULL) made->options.pattern = KP_PATTERN_GPT2;
  const kp_status status = init(made, error);
  if (status == KP_OK)
    *trainer = made;
  else
    kp_bpe_trainer_destroy(made);
  return status;
}

void kp_bpe_trainer_destroy(kp_bpe_trainer *trainer) {
  if (trainer == NULL) return;
  kp_bpe_counter_destroy(trainer->counter);
  kp_pretokenizer_destroy(trainer->pretokenizer);
  kp_word_table_clear(&trainer->reserved);
  free(trainer);
}

kp_status kp_bpe_trainer_add(kp_bpe_trainer *trainer, const kp_text_view *texts, size_t count,
                             kp_error *error) {
  return kp_bpe_counter_add(trainer->counter, texts, count, error);
}

/* Whether a special token stands across `place`. */
static bool is_in_special(const kp_bpe_train_options *o, const char *text, size_t size, size_t place) {
  for (size_t i = 0; i < o->special_count; i++) {
    const size_t length = strlen(o->specials[i]);
    for (size_t begin = place < length ? 0 : place - length + 1; begin < place; begin++)
      if (length <= size - begin && memcmp(text + begin, o->specials[i], length) == 0) return true;
  }
  return false;
}

size_t kp_bpe_trainer_cut(const kp_bpe_trainer *trainer, const char *text, size_t size) {
  enum { NEAR_END = 4096 };
  const kp_bpe_train_options *o = &trainer->options;
  size_t longest = KP_UTF8_LONGEST; /* what the text may end within */
  for (size_t i = 0; i < o->special_count; i++)
    if (strlen(o->specials[i]) > longest) longest = strlen(o->specials[i]);
  if (size <= longest) return 0;
  const size_t end = size - longest;
  for (size_t back = NEAR_END;; back *= 2) {
    size_t place = back < end ? end - back : 0;
    do place = kp_pretokenizer_cut(trainer->pretokenizer, text, size, place);
    while (place <= end && is_in_special(o, text, size, place));
    if (place <= end) return place;
    if (back >= end) return 0;
  }
}

/* The bytes in the order of their characters in GPT-2's alphabet. */
static void order_bytes(unsigned char alphabet[KP_BPE_BYTES]) {
  int count = 0;
  for (uint32_t character = 0; character < KP_ALPHABET_END; character++) {
    const int byte = kp_alphabet_byte(character);
    if (byte >= 0) alphabet[count++] = (unsigned char)byte;
  }
}

/* The learned tokens behind the special ones. */
static kp_status make_tokenizer(const kp_bpe_trainer *trainer, const kp_bpe_learned *learned,
                                kp_tokenizer **tokenizer, kp_error *error) {
  const kp_bpe_train_options *o = &trainer->options;
  const int32_t shift = (int32_t)o->special_count;
  kp_text_view *tokens = malloc((o->special_count + (size_t)learned->tokens.count) * sizeof *tokens);
  kp_bpe_added *added = malloc((o->special_count + 1) * sizeof *added);
  kp_merge *merges = malloc((learned->merge_count + 1) * sizeof *merges);
  kp_status status = KP_OK;
  if (tokens == NULL || added == NULL || merges == NULL)
    status = kp_fail(error, KP_ERR_MEMORY, "no memory for a tokenizer of %d tokens", learned->tokens.count);
  for (int32_t i = 0; i < shift && status == KP_OK; i++) {
    tokens[i] = (kp_text_view){.data = o->specials[i], .size = strlen(o->specials[i])};
    added[i] = (kp_bpe_added){.text = o->specials[i], .id = i, .special = true};
  }
  for (int32_t i = 0; i < learned->tokens.count && status == KP_OK; i++)
    tokens[shift + i] =
        (kp_text_view){.data = learned->tokens.words[i].bytes, .size = learned->tokens.words[i].size};
  for (size_t i = 0; i < learned->merge_count && status == KP_OK; i++)
    merges[i] = (kp_merge){.left = shift + learned->merges[i].left,
                           .right = shift + learned->merges[i].right,
                           .id = shift + learned->merges[i].id};
  const kp_bpe_parts parts = {.tokens = tokens,
                              .vocabulary = shift + learned->tokens.count,
                              .merges = merges,
                              .merge_count = learned->merge_count,
                              .added = added,
                              .added_count = o->special_count,
                              .patterns = &o->pattern,
                              .pattern_count = 1,
                              .begin = -1,
                              .end = -1};
  if (status == KP_OK) status = kp_bpe_tokenizer_create(&parts, tokenizer, error);
  free(tokens);
  free(added);
  free(merges);
  return status;
}

kp_status kp_bpe_trainer_finish(kp_bpe_trainer *trainer, kp_tokenizer **tokenizer, kp_error *error) {
  const kp_bpe_train_options *o = &trainer->options;
  unsigned char alphabet[KP_BPE_BYTES];
  const kp_bpe_learn_options learn = {.alphabet = alphabet,
                                      .tokens = o->vocabulary - (int32_t)o->special_count,
                                      .minimum_count = o->minimum_count,
                                      .reserved = &trainer->reserved,
                                      .progress = o->merging,
                                      .context = o->context};
  const kp_word_table *words;
  kp_bpe_learned learned;
  order_bytes(alphabet);
  KP_TRY(kp_bpe_counter_words(trainer->counter, &words, error));
  KP_TRY(kp_bpe_learn(words, &learn, &learned, error));
  const kp_status status = make_tokenizer(trainer, &learned, tokenizer, error);
  kp_bpe_learned_clear(&learned);
  return status;
}

kp_status kp_bpe_train(const kp_text_view *texts, size_t count, const kp_bpe_train_options *options,
                       kp_tokenizer **tokenizer, kp_error *error) {
  kp_bpe_trainer *trainer;
  KP_TRY(kp_bpe_trainer_create(options, &trainer, error));
  kp_status status = kp_bpe_trainer_add(trainer, texts, count, error);
  if (status == KP_OK) status = kp_bpe_trainer_finish(trainer, tokenizer, error);
  kp_bpe_trainer_destroy(trainer);
  return status;
}
