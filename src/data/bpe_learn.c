#include "data/bpe_learn.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "data/bpe_pairs.h"

/* A pair and a list of words to merge it in, waiting its turn. */
typedef struct batch {
  int64_t count; /* of the pair when the batch was queued: an upper bound that is checked at its turn */
  uint32_t pair, size;
  size_t first; /* its words are places[first .. first + size - 1] */
} batch;

typedef struct sighting {
  uint32_t pair, word;
} sighting;

typedef struct learner {
  const kp_bpe_learn_options *options;
  const kp_word_table *words;
  int32_t *symbols;  /* all words' tokens; a word shrinks in its place */
  size_t *first;     /* of each word in `symbols` */
  uint32_t *lengths; /* of each word in tokens */
  kp_bpe_pairs pairs;
  batch *queue; /* a heap */
  size_t queued, queue_room;
  uint32_t *places;
  size_t placed, place_room;
  sighting *sightings; /* of this round: pairs that came up, in the order of their coming */
  size_t seen, seen_room;
  uint32_t *touched; /* of this round: the pairs of the sightings, each once */
  size_t touched_count, touched_room;
  kp_bpe_learned *learned;
  size_t merge_room;
} learner;

/* Room for `count` elements of `size` bytes in a list that grows.  `list` points to the pointer of any type,
 * which is therefore copied as bytes. */
static kp_status reserve(void *list, size_t *room, size_t count, size_t size, kp_error *error) {
  if (count <= *room) return KP_OK;
  void *data, *grown = NULL;
  size_t wanted = *room + *room / 2 + 1024;
  if (wanted < count) wanted = count;
  memcpy(&data, list, sizeof data);
  if (wanted <= SIZE_MAX / size) grown = realloc(data, wanted * size);
  if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the pairs of the text's words");
  memcpy(list, &grown, sizeof grown);
  *room = wanted;
  return KP_OK;
}

/* ---- the queue ---- */

static bool goes_before(const learner *l, const batch *a, const batch *b) {
  if (a->count != b->count) return a->count > b->count;
  const kp_bpe_pair *x = &l->pairs.list[a->pair], *y = &l->pairs.list[b->pair];
  if (x->left != y->left) return x->left < y->left;
  if (x->right != y->right) return x->right < y->right;
  return a->first < b->first;
}

static void queue_lower(learner *l) {
  const batch moved = l->queue[0];
  size_t at = 0;
  for (;;) {
    size_t child = 2 * at + 1;
    if (child >= l->queued) break;
    if (child + 1 < l->queued && goes_before(l, &l->queue[child + 1], &l->queue[child])) child++;
    if (!goes_before(l, &l->queue[child], &moved)) break;
    l->queue[at] = l->queue[child];
    at = child;
  }
  l->queue[at] = moved;
}

static kp_status queue_add(learner *l, const batch *added, kp_error *error) {
  KP_TRY(reserve(&l->queue, &l->queue_room, l->queued + 1, sizeof *l->queue, error));
  size_t at = l->queued++;
  for (; at > 0 && goes_before(l, added, &l->queue[(at - 1) / 2]); at = (at - 1) / 2)
    l->queue[at] = l->queue[(at - 1) / 2];
  l->queue[at] = *added;
  return KP_OK;
}

static void queue_remove_first(learner *l) {
  l->queue[0] = l->queue[--l->queued];
  if (l->queued > 0) queue_lower(l);
}

/* ---- a round: pairs come and go, then those that came are queued ---- */

static kp_status pair_comes(learner *l, int32_t left, int32_t right, uint32_t word, kp_error *error) {
  uint32_t index;
  KP_TRY(kp_bpe_pairs_add(&l->pairs, left, right, &index, error));
  kp_bpe_pair *pair = &l->pairs.list[index];
  pair->count += l->words->words[word].count;
  if (pair->fresh > 0 && pair->last_word == word) return KP_OK;
  if (pair->fresh == 0) {
    KP_TRY(reserve(&l->touched, &l->touched_room, l->touched_count + 1, sizeof *l->touched, error));
    l->touched[l->touched_count++] = index;
  }
  KP_TRY(reserve(&l->sightings, &l->seen_room, l->seen + 1, sizeof *l->sightings, error));
  l->sightings[l->seen++] = (sighting){.pair = index, .word = word};
  pair->fresh++;
  pair->last_word = word;
  return KP_OK;
}

static kp_status pair_goes(learner *l, int32_t left, int32_t right, uint32_t word, kp_error *error) {
  uint32_t index;
  KP_TRY(kp_bpe_pairs_add(&l->pairs, left, right, &index, error));
  l->pairs.list[index].count -= l->words->words[word].count;
  return KP_OK;
}

static kp_status end_round(learner *l, kp_error *error) {
  KP_TRY(reserve(&l->places, &l->place_room, l->placed + l->seen, sizeof *l->places, error));
  for (size_t i = 0; i < l->touched_count; i++) {
    kp_bpe_pair *pair = &l->pairs.list[l->touched[i]];
    const batch added = {
        .count = pair->count, .pair = l->touched[i], .size = pair->fresh, .first = l->placed};
    pair->place = l->placed;
    l->placed += pair->fresh;
    pair->fresh = 0;
    if (pair->count > 0) KP_TRY(queue_add(l, &added, error));
  }
  for (size_t i = 0; i < l->seen; i++)
    l->places[l->pairs.list[l->sightings[i].pair].place++] = l->sightings[i].word;
  l->seen = l->touched_count = 0;
  return KP_OK;
}

/* ---- beginning ---- */

static kp_status spell_words(learner *l, kp_error *error) {
  const kp_word_table *words = l->words;
  int32_t id_of[KP_BPE_BYTES];
  size_t total = 0;
  for (int32_t id = 0; id < KP_BPE_BYTES; id++) id_of[l->options->alphabet[id]] = id;
  for (int32_t w = 0; w < words->count; w++) {
    if (words->words[w].size > UINT32_MAX)
      return kp_fail(error, KP_ERR_UNSUPPORTED, "the text has a word of %zu bytes, too long to learn from",
                     words->words[w].size);
    total += words->words[w].size;
  }
  l->symbols = malloc((total + 1) * sizeof *l->symbols);
  l->first = malloc(((size_t)words->count + 1) * sizeof *l->first);
  l->lengths = malloc(((size_t)words->count + 1) * sizeof *l->lengths);
  if (l->symbols == NULL || l->first == NULL || l->lengths == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %d words of %zu bytes", words->count, total);
  size_t at = 0;
  for (int32_t w = 0; w < words->count; w++) {
    const kp_word *word = &words->words[w];
    l->first[w] = at;
    l->lengths[w] = (uint32_t)word->size;
    for (size_t i = 0; i < word->size; i++) l->symbols[at++] = id_of[(unsigned char)word->bytes[i]];
  }
  return KP_OK;
}

static kp_status count_pairs(learner *l, kp_error *error) {
  for (uint32_t w = 0; w < (uint32_t)l->words->count; w++) {
    const int32_t *symbols = l->symbols + l->first[w];
    for (uint32_t i = 0; i + 1 < l->lengths[w]; i++)
      KP_TRY(pair_comes(l, symbols[i], symbols[i + 1], w, error));
  }
  return end_round(l, error);
}

static kp_status begin_tokens(kp_bpe_learned *learned, const unsigned char *alphabet, kp_error *error) {
  KP_TRY(kp_word_table_init(&learned->tokens, error));
  for (int32_t id = 0; id < KP_BPE_BYTES; id++) {
    const char byte = (char)alphabet[id];
    int32_t number;
    KP_TRY(kp_word_table_add(&learned->tokens, &byte, 1, &number, error));
    kp_assert(number == id, "byte %d stands twice in the alphabet", alphabet[id]);
  }
  return KP_OK;
}

/* ---- merging ---- */

/* The id of the token that the two spell together, made if it is new; -1 when it is reserved. */
static kp_status join(learner *l, int32_t left, int32_t right, int32_t *id, kp_error *error) {
  kp_word_table *tokens = &l->learned->tokens;
  const kp_word *a = &tokens->words[left], *b = &tokens->words[right];
  const size_t size = a->size + b->size;
  char *bytes = malloc(size);
  if (bytes == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a token of %zu bytes", size);
  memcpy(bytes, a->bytes, a->size);
  memcpy(bytes + a->size, b->bytes, b->size);
  *id = -1;
  kp_status status = KP_OK;
  if (l->options->reserved == NULL || kp_word_table_find(l->options->reserved, bytes, size) < 0)
    status = kp_word_table_add(tokens, bytes, size, id, error);
  free(bytes);
  return status;
}

static kp_status merge_in_word(learner *l, const kp_merge *merge, uint32_t word, kp_error *error) {
  int32_t *symbols = l->symbols + l->first[word];
  const uint32_t length = l->lengths[word];
  uint32_t kept = 0;
  for (uint32_t i = 0; i < length; i++) {
    if (symbols[i] != merge->left || i + 1 == length || symbols[i + 1] != merge->right) {
      symbols[kept++] = symbols[i];
      continue;
    }
    if (kept > 0) {
      KP_TRY(pair_goes(l, symbols[kept - 1], merge->left, word, error));
      KP_TRY(pair_comes(l, symbols[kept - 1], merge->id, word, error));
    }
    if (i + 2 < length) {
      KP_TRY(pair_goes(l, merge->right, symbols[i + 2], word, error));
      KP_TRY(pair_comes(l, merge->id, symbols[i + 2], word, error));
    }
    symbols[kept++] = merge->id;
    i++;
  }
  l->lengths[word] = kept;
  return KP_OK;
}

static kp_status merge_batch(learner *l, const batch *top, kp_error *error) {
  kp_bpe_learned *learned = l->learned;
  const kp_bpe_pair *pair = &l->pairs.list[top->pair];
  kp_merge merge = {.left = pair->left, .right = pair->right};
  KP_TRY(join(l, merge.left, merge.right, &merge.id, error));
  if (merge.id < 0) return KP_OK;
  KP_TRY(reserve(&learned->merges, &l->merge_room, learned->merge_count + 1, sizeof merge, error));
  learned->merges[learned->merge_count++] = merge;
  for (uint32_t i = 0; i < top->size; i++) KP_TRY(merge_in_word(l, &merge, l->places[top->first + i], error));
  return end_round(l, error);
}

static kp_status tell(const learner *l, kp_error *error) {
  const kp_bpe_learn_options *options = l->options;
  if (options->progress == NULL ||
      options->progress(options->context, l->learned->tokens.count, options->tokens))
    return KP_OK;
  return kp_fail(error, KP_ERR_INTERRUPTED, "stopped at %d of %d tokens", l->learned->tokens.count,
                 options->tokens);
}

static kp_status merge_all(learner *l, kp_error *error) {
  while (l->queued > 0 && l->learned->tokens.count < l->options->tokens) {
    const batch top = l->queue[0];
    const int64_t count = l->pairs.list[top.pair].count;
    if (count != top.count) {
      l->queue[0].count = count;
      queue_lower(l);
      continue;
    }
    if (count < 1 || count < l->options->minimum_count) break;
    queue_remove_first(l);
    KP_TRY(merge_batch(l, &top, error));
    KP_TRY(tell(l, error));
  }
  return KP_OK;
}

static void clear(learner *l) {
  free(l->symbols);
  free(l->first);
  free(l->lengths);
  kp_bpe_pairs_clear(&l->pairs);
  free(l->queue);
  free(l->places);
  free(l->sightings);
  free(l->touched);
}

kp_status kp_bpe_learn(const kp_word_table *words, const kp_bpe_learn_options *options,
                       kp_bpe_learned *learned, kp_error *error) {
  learner l = {.options = options, .words = words, .learned = learned};
  *learned = (kp_bpe_learned){0};
  kp_status status = begin_tokens(learned, options->alphabet, error);
  if (status == KP_OK) status = kp_bpe_pairs_init(&l.pairs, error);
  if (status == KP_OK) status = spell_words(&l, error);
  if (status == KP_OK) status = count_pairs(&l, error);
  if (status == KP_OK) status = merge_all(&l, error);
  clear(&l);
  if (status != KP_OK) kp_bpe_learned_clear(learned);
  return status;
}

void kp_bpe_learned_clear(kp_bpe_learned *learned) {
  kp_word_table_clear(&learned->tokens);
  free(learned->merges);
  *learned = (kp_bpe_learned){0};
}
