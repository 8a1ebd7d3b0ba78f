/* Encoding in shares: many texts at once, and long ones cut where the tokenizer says that they may be. */
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "core/assert.h"
#include "data/special_tokens.h"
#include "data/tokenizer.h"

/* Bytes of text of one share, about: long enough that handing it out costs nothing, short enough that all
 * threads end together. */
enum { SHARE = 1 << 18 };

/* Whole texts first .. last - 1, or bytes [begin, end) of text `first`. */
typedef struct share {
  size_t first, last;
  size_t begin, end;
  kp_ids ids; /* owned */
} share;

/* What is encoded, and its shares in order. */
typedef struct work {
  const kp_tokenizer *tokenizer;
  const kp_text_view *texts;
  bool with_specials;
  share *list; /* owned */
  size_t count, capacity;
} work;

/* ---- one after the other ---- */

static kp_status append_range(const work *w, const char *text, size_t begin, size_t end, kp_ids *ids,
                              kp_error *error) {
  const kp_tokenizer *tokenizer = w->tokenizer;
  while (w->with_specials && begin < end) {
    size_t at;
    const kp_special_token *special =
        kp_specials_find(tokenizer->specials, tokenizer->special_count, text, begin, end, &at);
    if (special == NULL) break;
    KP_TRY(tokenizer->kind->append(tokenizer, text, begin, at, ids, error));
    KP_TRY(kp_ids_append(ids, &special->id, 1, error));
    begin = at + strlen(special->text);
  }
  return tokenizer->kind->append(tokenizer, text, begin, end, ids, error);
}

kp_status kp_tokenizer_append(const kp_tokenizer *tokenizer, kp_text_view text, bool with_specials,
                              kp_ids *ids, kp_error *error) {
  const work w = {.tokenizer = tokenizer, .with_specials = with_specials};
  const size_t before = ids->count;
  kp_status status = append_range(&w, text.data, 0, text.size, ids, error);
  if (status != KP_OK) ids->count = before;
  return status;
}

/* ---- in shares ---- */

static kp_status add_share(work *w, share added, kp_error *error) {
  if (w->count == w->capacity) {
    const size_t capacity = 2 * w->capacity + 16;
    share *grown = realloc(w->list, capacity * sizeof *grown);
    if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu shares of text", capacity);
    w->list = grown;
    w->capacity = capacity;
  }
  w->list[w->count++] = added;
  return KP_OK;
}

/* Shares of bytes [begin, end) of one text.  None is cut inside a special token. */
static kp_status share_text(work *w, size_t number, size_t begin, size_t end, kp_error *error) {
  const kp_tokenizer *tokenizer = w->tokenizer;
  const char *text = w->texts[number].data;
  for (size_t plain = begin; plain < end;) {
    const kp_special_token *special = NULL;
    size_t plain_end = end;
    if (w->with_specials)
      special = kp_specials_find(tokenizer->specials, tokenizer->special_count, text, plain, end, &plain_end);
    if (special == NULL) plain_end = end;
    while (plain_end - begin > SHARE) {
      const size_t from = plain > begin + SHARE ? plain : begin + SHARE;
      const size_t at =
          from >= plain_end ? plain_end : tokenizer->kind->cut(tokenizer, text, plain_end, from);
      KP_TRY(add_share(w, (share){.first = number, .last = number + 1, .begin = begin, .end = at}, error));
      begin = plain = at;
    }
    if (special == NULL) break;
    plain = plain_end + strlen(special->text);
  }
  if (begin == end) return KP_OK;
  return add_share(w, (share){.first = number, .last = number + 1, .begin = begin, .end = end}, error);
}

static kp_status share_texts(work *w, size_t count, kp_error *error) {
  size_t taken = SHARE; /* bytes of the last share, when it is of whole texts; SHARE: begin another */
  for (size_t i = 0; i < count; i++) {
    const size_t size = w->texts[i].size;
    if (size > 2 * SHARE) {
      KP_TRY(share_text(w, i, 0, size, error));
      taken = SHARE;
      continue;
    }
    if (taken >= SHARE) {
      KP_TRY(add_share(w, (share){.first = i, .last = i}, error));
      taken = 0;
    }
    w->list[w->count - 1].last = i + 1;
    w->list[w->count - 1].end = size;
    taken += size + 1;
  }
  return KP_OK;
}

/* Encodes one share; offsets[] of the texts that begin in it count from its front. */
static kp_status run_share(const work *w, share *s, size_t *offsets, kp_error *error) {
  if (s->last - s->first == 1) {
    if (s->begin == 0 && offsets != NULL) offsets[s->first] = 0;
    return append_range(w, w->texts[s->first].data, s->begin, s->end, &s->ids, error);
  }
  for (size_t i = s->first; i < s->last; i++) {
    if (offsets != NULL) offsets[i] = s->ids.count;
    kp_status status = append_range(w, w->texts[i].data, 0, w->texts[i].size, &s->ids, error);
    if (status != KP_OK) return kp_context(error, "text %zu", i);
  }
  return KP_OK;
}

/* Runs all shares; of several errors the first in the order of the texts is reported. */
static kp_status run_shares(const work *w, int threads, size_t *offsets, kp_error *error) {
  size_t failed = SIZE_MAX;
  kp_status status = KP_OK;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (size_t i = 0; i < w->count; i++) {
    size_t first;
#pragma omp atomic read
    first = failed;
    if (i > first) continue;
    kp_error fault = {0};
    const kp_status own = run_share(w, &w->list[i], offsets, &fault);
    if (own == KP_OK) continue;
#pragma omp critical
    if (i < failed) {
#pragma omp atomic write
      failed = i;
      status = own;
      if (error != NULL) *error = fault;
    }
  }
  return status;
}

static kp_status join_shares(work *w, kp_ids *ids, size_t *offsets, kp_error *error) {
  size_t total = 0;
  for (size_t i = 0; i < w->count; i++) total += w->list[i].ids.count;
  KP_TRY(kp_ids_reserve(ids, total, error));
  for (size_t i = 0; i < w->count; i++) {
    share *s = &w->list[i];
    for (size_t k = s->first; offsets != NULL && s->begin == 0 && k < s->last; k++) offsets[k] += ids->count;
    KP_TRY(kp_ids_append(ids, s->ids.list, s->ids.count, error));
    kp_ids_clear(&s->ids);
  }
  return KP_OK;
}

/* Runs the shares and appends their ids; releases them in any case. */
static kp_status finish(work *w, int threads, kp_ids *ids, size_t *offsets, kp_error *error) {
  kp_status status = run_shares(w, threads, offsets, error);
  if (status == KP_OK) status = join_shares(w, ids, offsets, error);
  for (size_t i = 0; i < w->count; i++) kp_ids_clear(&w->list[i].ids);
  free(w->list);
  return status;
}

static int thread_count(int threads) {
  return threads > 0 ? threads : omp_get_max_threads();
}

kp_status kp_tokenizer_append_all(const kp_tokenizer *tokenizer, const kp_text_view *texts, size_t count,
                                  bool with_specials, int threads, kp_ids *ids, size_t *offsets,
                                  kp_error *error) {
  work w = {.tokenizer = tokenizer, .texts = texts, .with_specials = with_specials};
  const size_t before = ids->count;
  kp_status status = share_texts(&w, count, error);
  if (status == KP_OK)
    status = finish(&w, thread_count(threads), ids, offsets, error);
  else
    free(w.list);
  if (status != KP_OK) ids->count = before;
  offsets[count] = ids->count;
  return status;
}

kp_status kp_tokenizer_append_part(const kp_tokenizer *tokenizer, kp_text_view text, size_t *offset,
                                   size_t bytes, int threads, kp_ids *ids, kp_error *error) {
  kp_assert(*offset <= text.size, "offset %zu of a text of %zu bytes", *offset, text.size);
  const size_t left = text.size - *offset;
  size_t end = text.size;
  if (bytes < left)
    end = tokenizer->kind->cut(tokenizer, text.data, text.size, *offset + (bytes > 0 ? bytes - 1 : 0));
  work w = {.tokenizer = tokenizer, .texts = &text};
  const size_t before = ids->count;
  kp_status status = share_text(&w, 0, *offset, end, error);
  if (status == KP_OK)
    status = finish(&w, thread_count(threads), ids, NULL, error);
  else
    free(w.list);
  if (status == KP_OK)
    *offset = end;
  else
    ids->count = before;
  return status;
}
