#include "data/bpe_tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "data/bpe_merge.h"
#include "data/bpe_save.h"
#include "data/bpe_scratch.h"
#include "data/special_tokens.h"
#include "data/token_table.h"
#include "data/utf8.h"

typedef struct bpe_tokenizer {
  kp_tokenizer base;
  kp_bpe_parts parts;         /* views into what follows */
  char *bytes;                /* of all tokens, each closed by a zero; owned */
  kp_text_view *tokens;       /* (V) owned */
  kp_merge *merges;           /* owned */
  kp_bpe_added *added;        /* by id; owned */
  kp_special_token *specials; /* sorted; owned */
  kp_special_token *always;   /* the added tokens that are not special, sorted; owned */
  size_t always_count;
  kp_pretokenizer *pretokenizer; /* owned */
  const char *patterns[KP_PRETOKENIZER_PATTERNS];
  kp_merge_table table;
  kp_token_table whole;  /* what a piece may be found in; only with ignore_merges */
  int32_t byte_ids[256]; /* -1: the vocabulary lacks the byte */
  kp_bpe_pool *pool;     /* owned */
} bpe_tokenizer;

static void destroy(kp_tokenizer *base) {
  bpe_tokenizer *t = (bpe_tokenizer *)base;
  kp_bpe_pool_destroy(t->pool);
  kp_pretokenizer_destroy(t->pretokenizer);
  kp_merge_table_clear(&t->table);
  kp_token_table_clear(&t->whole);
  free(t->bytes);
  free(t->tokens);
  free(t->merges);
  free(t->added);
  free(t->specials);
  free(t->always);
  free(t);
}

/* ---- encoding ---- */

/* Writes the ids of the bytes, one each; false where the vocabulary lacks one, which *missing is. */
static bool spell(const bpe_tokenizer *t, kp_text_view piece, int32_t *ids, size_t *missing) {
  for (size_t i = 0; i < piece.size; i++) {
    ids[i] = t->byte_ids[(unsigned char)piece.data[i]];
    if (ids[i] >= 0) continue;
    *missing = i;
    return false;
  }
  return true;
}

/* Appends the ids of one piece, for whose bytes there is room. */
static kp_status merge_piece(const bpe_tokenizer *t, const char *text, kp_text_view piece, kp_ids *ids,
                             kp_error *error) {
  int32_t *out = ids->list + ids->count;
  size_t count = piece.size, missing;
  const int32_t whole = t->parts.ignore_merges ? kp_token_table_find(&t->whole, piece.data, piece.size) : -1;
  if (whole >= 0) {
    *out = whole;
    count = 1;
  } else if (!spell(t, piece, out, &missing)) {
    const char *at = piece.data + missing;
    return kp_fail(error, KP_ERR_INPUT,
                   "byte 0x%02X at offset %zu (line %zu) is not in the tokenizer's vocabulary",
                   (unsigned char)*at, (size_t)(at - text), kp_text_line(text, (size_t)(at - text)));
  } else if (count <= KP_BPE_SHORT) {
    count = kp_bpe_merge_short(&t->table, out, count);
  } else {
    KP_TRY(kp_bpe_merge_long(&t->table, out, &count, error));
  }
  ids->count += count;
  return KP_OK;
}

static kp_status append_piece(const bpe_tokenizer *t, const kp_bpe_scratch *scratch, const char *text,
                              kp_text_view piece, kp_ids *ids, kp_error *error) {
  if (ids->capacity - ids->count < piece.size) KP_TRY(kp_ids_reserve(ids, piece.size, error));
  if (piece.size > KP_CACHED_BYTES) return merge_piece(t, text, piece, ids, error);
  kp_cached_piece *cached = kp_cached_place(scratch, piece.data, piece.size);
  if (cached->size == piece.size && memcmp(cached->bytes, piece.data, piece.size) == 0) {
    for (size_t i = 0; i < cached->count; i++) ids->list[ids->count + i] = cached->ids[i];
    ids->count += cached->count;
    return KP_OK;
  }
  const size_t before = ids->count;
  KP_TRY(merge_piece(t, text, piece, ids, error));
  if (ids->count - before > KP_CACHED_IDS) return KP_OK;
  cached->size = (uint8_t)piece.size;
  cached->count = (uint8_t)(ids->count - before);
  memcpy(cached->bytes, piece.data, piece.size);
  memcpy(cached->ids, ids->list + before, cached->count * sizeof *ids->list);
  return KP_OK;
}

static kp_status append_plain(const bpe_tokenizer *t, const kp_bpe_scratch *scratch, const char *text,
                              size_t begin, size_t end, kp_ids *ids, kp_error *error) {
  kp_pieces_begin(scratch->pieces, text + begin, end - begin);
  for (;;) {
    kp_text_view piece;
    KP_TRY(kp_pieces_next(scratch->pieces, &piece, error));
    if (piece.size == 0) return KP_OK;
    KP_TRY(append_piece(t, scratch, text, piece, ids, error));
  }
}

static kp_status append_with(const bpe_tokenizer *t, const kp_bpe_scratch *scratch, const char *text,
                             size_t begin, size_t end, kp_ids *ids, kp_error *error) {
  for (;;) {
    size_t at;
    const kp_special_token *found = kp_specials_find(t->always, t->always_count, text, begin, end, &at);
    if (found == NULL) break;
    KP_TRY(append_plain(t, scratch, text, begin, at, ids, error));
    KP_TRY(kp_ids_append(ids, &found->id, 1, error));
    begin = at + strlen(found->text);
  }
  return append_plain(t, scratch, text, begin, end, ids, error);
}

static kp_status append(const kp_tokenizer *base, const char *text, size_t begin, size_t end, kp_ids *ids,
                        kp_error *error) {
  const bpe_tokenizer *t = (const bpe_tokenizer *)base;
  kp_bpe_scratch *scratch;
  const size_t invalid = begin + kp_utf8_invalid(text + begin, end - begin);
  if (invalid < end) return kp_utf8_fail(text, invalid, error);
  KP_TRY(kp_bpe_pool_take(t->pool, &scratch, error));
  kp_status status = append_with(t, scratch, text, begin, end, ids, error);
  kp_bpe_pool_give(t->pool, scratch);
  return status;
}

/* Added tokens that are always found may lie across any place. */
static size_t cut(const kp_tokenizer *base, const char *text, size_t size, size_t from) {
  const bpe_tokenizer *t = (const bpe_tokenizer *)base;
  return t->always_count > 0 ? size : kp_pretokenizer_cut(t->pretokenizer, text, size, from);
}

static void token_bytes(const kp_tokenizer *base, int32_t id, const char **bytes, size_t *size) {
  const kp_text_view token = ((const bpe_tokenizer *)base)->tokens[id];
  *bytes = token.data;
  *size = token.size;
}

static const kp_tokenizer_kind bpe_kind = {
    .name = "bpe",
    .append = append,
    .cut = cut,
    .token_bytes = token_bytes,
    .save = kp_bpe_save,
    .destroy = destroy,
};

const kp_bpe_parts *kp_bpe_tokenizer_parts(const kp_tokenizer *tokenizer) {
  return tokenizer->kind == &bpe_kind ? &((const bpe_tokenizer *)tokenizer)->parts : NULL;
}

/* ---- making one ---- */

static kp_status no_memory(kp_error *error) {
  return kp_fail(error, KP_ERR_MEMORY, "no memory for a tokenizer");
}

static kp_status copy_tokens(bpe_tokenizer *t, const kp_bpe_parts *parts, kp_error *error) {
  size_t total = 0;
  for (int32_t id = 0; id < parts->vocabulary; id++) total += parts->tokens[id].size + 1;
  t->bytes = malloc(total + 1);
  t->tokens = malloc(((size_t)parts->vocabulary + 1) * sizeof *t->tokens);
  if (t->bytes == NULL || t->tokens == NULL) return no_memory(error);
  char *at = t->bytes;
  for (int32_t id = 0; id < parts->vocabulary; id++) {
    const kp_text_view token = parts->tokens[id];
    t->tokens[id] = (kp_text_view){.data = at, .size = token.size};
    if (token.size > 0) memcpy(at, token.data, token.size);
    at[token.size] = 0;
    at += token.size + 1;
  }
  return KP_OK;
}

static bool joins(const bpe_tokenizer *t, kp_merge merge, int32_t vocabulary) {
  if (merge.left < 0 || merge.left >= vocabulary || merge.right < 0 || merge.right >= vocabulary)
    return false;
  if (merge.id < 0 || merge.id >= vocabulary) return false;
  const kp_text_view left = t->tokens[merge.left], right = t->tokens[merge.right],
                     whole = t->tokens[merge.id];
  return left.size > 0 && right.size > 0 && whole.size == left.size + right.size &&
         memcmp(whole.data, left.data, left.size) == 0 &&
         memcmp(whole.data + left.size, right.data, right.size) == 0;
}

static kp_status copy_merges(bpe_tokenizer *t, const kp_bpe_parts *parts, kp_error *error) {
  t->merges = malloc((parts->merge_count + 1) * sizeof *t->merges);
  if (t->merges == NULL) return no_memory(error);
  for (size_t i = 0; i < parts->merge_count; i++) {
    if (!joins(t, parts->merges[i], parts->vocabulary))
      return kp_fail(error, KP_ERR_INPUT, "merge %zu does not join two tokens to a third", i);
    t->merges[i] = parts->merges[i];
  }
  return kp_merge_table_init(&t->table, t->merges, parts->merge_count, error);
}

static int by_id(const void *a, const void *b) {
  const int32_t x = ((const kp_bpe_added *)a)->id, y = ((const kp_bpe_added *)b)->id;
  return (x > y) - (x < y);
}

static kp_status check_added(const bpe_tokenizer *t, const kp_bpe_parts *parts, kp_error *error) {
  for (size_t i = 0; i < parts->added_count; i++) {
    const kp_bpe_added *added = &parts->added[i];
    if (added->text[0] == 0) return kp_fail(error, KP_ERR_INPUT, "added token %zu has no text", i);
    if (added->id < 0 || added->id >= parts->vocabulary)
      return kp_fail(error, KP_ERR_INPUT, "the added token '%s' has id %d, outside the vocabulary of %d",
                     added->text, added->id, parts->vocabulary);
    const kp_text_view token = t->tokens[added->id];
    if (token.size != strlen(added->text) || memcmp(token.data, added->text, token.size) != 0)
      return kp_fail(error, KP_ERR_INPUT, "the added token '%s' has id %d, which is another token",
                     added->text, added->id);
  }
  return KP_OK;
}

/* Sorts the added tokens by id, and the special ones and the others by text. */
static kp_status copy_added(bpe_tokenizer *t, const kp_bpe_parts *parts, kp_error *error) {
  const size_t count = parts->added_count;
  t->added = malloc((count + 1) * sizeof *t->added);
  t->specials = malloc((count + 1) * sizeof *t->specials);
  t->always = malloc((count + 1) * sizeof *t->always);
  if (t->added == NULL || t->specials == NULL || t->always == NULL) return no_memory(error);
  KP_TRY(check_added(t, parts, error));
  for (size_t i = 0; i < count; i++) {
    t->added[i] = parts->added[i];
    t->added[i].text = t->tokens[parts->added[i].id].data;
    const kp_special_token token = {.text = t->added[i].text, .id = t->added[i].id};
    if (t->added[i].special)
      t->specials[t->base.special_count++] = token;
    else
      t->always[t->always_count++] = token;
  }
  if (count > 1) qsort(t->added, count, sizeof *t->added, by_id);
  for (size_t i = 1; i < count; i++)
    if (t->added[i].id == t->added[i - 1].id)
      return kp_fail(error, KP_ERR_INPUT, "the added token '%s' stands twice", t->added[i].text);
  kp_specials_sort(t->specials, t->base.special_count);
  kp_specials_sort(t->always, t->always_count);
  t->base.specials = t->specials;
  return KP_OK;
}

static kp_status copy_patterns(bpe_tokenizer *t, const kp_bpe_parts *parts, kp_error *error) {
  KP_TRY(kp_pretokenizer_create(parts->patterns, parts->pattern_count, false, &t->pretokenizer, error));
  for (size_t i = 0; i < parts->pattern_count; i++)
    t->patterns[i] = kp_pretokenizer_pattern(t->pretokenizer, i);
  return kp_bpe_pool_create(t->pretokenizer, &t->pool, error);
}

/* The ids of the bytes, and where pieces are looked up.  Added tokens are not: plain text never gives them.
 */
static kp_status index_tokens(bpe_tokenizer *t, const kp_bpe_parts *parts, kp_error *error) {
  size_t next_added = 0;
  for (int byte = 0; byte < 256; byte++) t->byte_ids[byte] = -1;
  KP_TRY(kp_token_table_init(&t->whole, t->tokens, parts->vocabulary, error));
  for (int32_t id = 0; id < parts->vocabulary; id++) {
    const bool is_added = next_added < parts->added_count && t->added[next_added].id == id;
    next_added += is_added;
    if (is_added || t->tokens[id].size == 0) continue;
    const int32_t first = kp_token_table_add(&t->whole, id);
    if (first != id) return kp_fail(error, KP_ERR_INPUT, "tokens %d and %d have the same bytes", first, id);
    if (t->tokens[id].size == 1) t->byte_ids[(unsigned char)t->tokens[id].data[0]] = id;
  }
  return KP_OK;
}

/* True when some token, as a piece, would not be merged to itself: only then it matters that merges are
 * ignored for pieces that are tokens. */
static kp_status needs_whole(const bpe_tokenizer *t, bool *needs, kp_error *error) {
  kp_ids ids = {0};
  kp_status status = KP_OK;
  *needs = false;
  for (int32_t id = 0; id < t->base.vocabulary && status == KP_OK && !*needs; id++) {
    const kp_text_view token = t->tokens[id];
    size_t missing;
    if (token.size == 0 || kp_token_table_find(&t->whole, token.data, token.size) != id) continue;
    ids.count = 0;
    status = kp_ids_reserve(&ids, token.size, error);
    if (status != KP_OK) break;
    if (spell(t, token, ids.list, &missing)) status = merge_piece(t, token.data, token, &ids, error);
    *needs = ids.count != 1 || ids.list[0] != id;
  }
  kp_ids_clear(&ids);
  return status;
}

static uint64_t hash_number(uint64_t hash, uint64_t number) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(number >> 8 * i);
  return kp_fnv(hash, bytes, sizeof bytes);
}

static uint64_t hash_text(uint64_t hash, const char *bytes, size_t size) {
  return kp_fnv(hash_number(hash, size), bytes, size);
}

/* Of the merges, what they make and in which order: how a token is made follows from it where the vocabulary
 * was learned, and rank files do not say it. */
static kp_status fingerprint(bpe_tokenizer *t, kp_error *error) {
  uint64_t hash = KP_FNV_BASIS;
  unsigned char *made = calloc((size_t)t->base.vocabulary + 1, 1);
  if (made == NULL) return no_memory(error);
  for (int32_t id = 0; id < t->base.vocabulary; id++)
    hash = hash_text(hash, t->tokens[id].data, t->tokens[id].size);
  for (size_t i = 0; i < t->parts.merge_count; i++) {
    const int32_t id = t->merges[i].id;
    if (!made[id]) hash = hash_number(hash, (uint64_t)id);
    made[id] = 1;
  }
  free(made);
  for (size_t i = 0; i < t->parts.added_count; i++)
    hash = hash_number(hash, (uint64_t)t->added[i].id << 1 | t->added[i].special);
  for (size_t i = 0; i < t->parts.pattern_count; i++)
    hash = hash_text(hash, t->patterns[i], strlen(t->patterns[i]));
  hash = hash_number(hash, t->parts.ignore_merges);
  t->base.fingerprint = hash == 0 ? 1 : hash;
  return KP_OK;
}

static int32_t first_special(const kp_tokenizer *tokenizer, const char *const *names) {
  int32_t id = -1;
  for (; id < 0 && *names != NULL; names++) id = kp_tokenizer_special(tokenizer, *names);
  return id;
}

static void find_ends(bpe_tokenizer *t) {
  static const char *const begins[] = {"<|begin_of_text|>", "<s>", NULL};
  static const char *const ends[] = {"<|end_of_text|>", "<|endoftext|>", "</s>", NULL};
  t->base.begin = t->parts.begin >= 0 ? t->parts.begin : first_special(&t->base, begins);
  t->base.end = t->parts.end >= 0 ? t->parts.end : first_special(&t->base, ends);
}

static kp_status fill(bpe_tokenizer *t, const kp_bpe_parts *parts, kp_error *error) {
  KP_TRY(copy_tokens(t, parts, error));
  KP_TRY(copy_merges(t, parts, error));
  KP_TRY(copy_added(t, parts, error));
  KP_TRY(copy_patterns(t, parts, error));
  KP_TRY(index_tokens(t, parts, error));
  t->parts = *parts;
  t->parts.tokens = t->tokens;
  t->parts.merges = t->merges;
  t->parts.added = t->added;
  t->parts.patterns = t->patterns;
  t->parts.ignore_merges = false;
  if (parts->ignore_merges) KP_TRY(needs_whole(t, &t->parts.ignore_merges, error));
  find_ends(t);
  return fingerprint(t, error);
}

kp_status kp_bpe_tokenizer_create(const kp_bpe_parts *parts, kp_tokenizer **result, kp_error *error) {
  if (parts->vocabulary <= 0) return kp_fail(error, KP_ERR_INPUT, "the vocabulary is empty");
  if (parts->begin >= parts->vocabulary || parts->end >= parts->vocabulary)
    return kp_fail(error, KP_ERR_INPUT, "the token that begins or ends a text is outside the vocabulary");
  bpe_tokenizer *t = calloc(1, sizeof *t);
  if (t == NULL) return no_memory(error);
  t->base = (kp_tokenizer){.kind = &bpe_kind, .vocabulary = parts->vocabulary, .begin = -1, .end = -1};
  kp_status status = fill(t, parts, error);
  if (status == KP_OK)
    *result = &t->base;
  else
    destroy(&t->base);
  return status;
}
