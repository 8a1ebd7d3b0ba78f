#include "data/bpe_count.h"

#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "data/special_tokens.h"
#include "data/utf8.h"

/* Longer texts are shared among threads in parts of about this size. */
enum { PART_BYTES = 1 << 18 };
/* Bytes a thread, about, between two reports of progress. */
enum { ROUND_BYTES = 16 << 20 };

struct kp_bpe_counter {
  kp_bpe_count_options options;
  kp_special_token *specials; /* sorted */
  int threads;
  kp_pieces **pieces;    /* one a thread */
  kp_word_table *tables; /* one a thread */
  kp_text_view *parts;   /* of the batch */
  size_t part_count, part_room;
};

kp_status kp_bpe_counter_create(const kp_bpe_count_options *options, kp_bpe_counter **counter,
                                kp_error *error) {
  kp_bpe_counter *c = calloc(1, sizeof *c);
  if (c == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to count words");
  c->options = *options;
  c->threads = kp_thread_count(options->threads);
  c->specials = calloc(options->special_count + 1, sizeof *c->specials);
  c->pieces = calloc((size_t)c->threads, sizeof *c->pieces);
  c->tables = calloc((size_t)c->threads, sizeof *c->tables);
  kp_status status = KP_OK;
  if (c->specials == NULL || c->pieces == NULL || c->tables == NULL)
    status = kp_fail(error, KP_ERR_MEMORY, "no memory to count words with %d threads", c->threads);
  for (size_t i = 0; i < options->special_count && status == KP_OK; i++)
    c->specials[i].text = options->specials[i];
  if (status == KP_OK) kp_specials_sort(c->specials, options->special_count);
  for (int t = 0; t < c->threads && status == KP_OK; t++) {
    status = kp_pieces_create(options->pretokenizer, &c->pieces[t], error);
    if (status == KP_OK) status = kp_word_table_init(&c->tables[t], error);
  }
  if (status == KP_OK)
    *counter = c;
  else
    kp_bpe_counter_destroy(c);
  return status;
}

void kp_bpe_counter_destroy(kp_bpe_counter *c) {
  if (c == NULL) return;
  for (int t = 0; t < c->threads; t++) {
    if (c->pieces != NULL) kp_pieces_destroy(c->pieces[t]);
    if (c->tables != NULL) kp_word_table_clear(&c->tables[t]);
  }
  free(c->specials);
  free(c->pieces);
  free(c->tables);
  free(c->parts);
  free(c);
}

/* ---- a batch becomes parts ---- */

static kp_status add_part(kp_bpe_counter *c, const char *text, size_t size, kp_error *error) {
  if (size == 0) return KP_OK;
  if (c->part_count == c->part_room) {
    const size_t room = 2 * c->part_room + 64;
    kp_text_view *parts = realloc(c->parts, room * sizeof *parts);
    if (parts == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu parts of the texts", room);
    c->parts = parts;
    c->part_room = room;
  }
  c->parts[c->part_count++] = (kp_text_view){.data = text, .size = size};
  return KP_OK;
}

static kp_status cut_text(kp_bpe_counter *c, const char *text, size_t size, kp_error *error) {
  while (size > PART_BYTES) {
    const size_t cut = kp_pretokenizer_cut(c->options.pretokenizer, text, size, PART_BYTES);
    KP_TRY(add_part(c, text, cut, error));
    text += cut;
    size -= cut;
  }
  return add_part(c, text, size, error);
}

static kp_status cut_at_specials(kp_bpe_counter *c, kp_text_view text, kp_error *error) {
  const size_t count = c->options.special_count;
  for (size_t begin = 0; begin < text.size;) {
    size_t at = text.size;
    const kp_special_token *special = kp_specials_find(c->specials, count, text.data, begin, text.size, &at);
    const size_t end = special == NULL ? text.size : at;
    KP_TRY(cut_text(c, text.data + begin, end - begin, error));
    begin = special == NULL ? end : end + strlen(special->text);
  }
  return KP_OK;
}

/* ---- counting ---- */

static kp_status count_part(kp_pieces *pieces, kp_word_table *table, kp_text_view part, kp_error *error) {
  kp_text_view piece;
  kp_pieces_begin(pieces, part.data, part.size);
  for (;;) {
    int32_t number;
    KP_TRY(kp_pieces_next(pieces, &piece, error));
    if (piece.size == 0) return KP_OK;
    KP_TRY(kp_word_table_add(table, piece.data, piece.size, &number, error));
    table->words[number].count++;
  }
}

/* The parts first + t, first + t + threads, ... before `end`, of thread t. */
static kp_status count_share(kp_bpe_counter *c, size_t first, size_t end, int t, kp_error *error) {
  for (size_t i = first + (size_t)t; i < end; i += (size_t)c->threads)
    KP_TRY(count_part(c->pieces[t], &c->tables[t], c->parts[i], error));
  return KP_OK;
}

static kp_status count_parts(kp_bpe_counter *c, size_t first, size_t end, kp_error *error) {
  kp_status status = KP_OK;
#pragma omp parallel for schedule(static, 1) num_threads(c->threads)
  for (int t = 0; t < c->threads; t++) {
    kp_error fault = {0};
    const kp_status mine = count_share(c, first, end, t, &fault);
    if (mine == KP_OK) continue;
#pragma omp critical(kp_bpe_count)
    if (status == KP_OK) status = kp_fail(error, mine, "%s", fault.message);
  }
  return status;
}

static kp_status tell(const kp_bpe_counter *c, size_t done, size_t total, kp_error *error) {
  const kp_bpe_count_options *options = &c->options;
  if (options->progress == NULL || options->progress(options->context, (int64_t)done, (int64_t)total))
    return KP_OK;
  return kp_fail(error, KP_ERR_INTERRUPTED, "stopped at %zu of %zu bytes of text", done, total);
}

kp_status kp_bpe_counter_add(kp_bpe_counter *c, const kp_text_view *texts, size_t count, kp_error *error) {
  const size_t round = ROUND_BYTES * (size_t)c->threads;
  size_t total = 0, done = 0;
  c->part_count = 0;
  for (size_t i = 0; i < count; i++) {
    const kp_status status = kp_utf8_check(texts[i].data, texts[i].size, error);
    if (status != KP_OK) return count == 1 ? status : kp_context(error, "text %zu", i + 1);
    KP_TRY(cut_at_specials(c, texts[i], error));
  }
  for (size_t i = 0; i < c->part_count; i++) total += c->parts[i].size;
  for (size_t first = 0, end = 0; first < c->part_count; first = end) {
    const size_t begin = done;
    while (end < c->part_count && done - begin < round) done += c->parts[end++].size;
    KP_TRY(count_parts(c, first, end, error));
    KP_TRY(tell(c, done, total, error));
  }
  return KP_OK;
}

kp_status kp_bpe_counter_words(kp_bpe_counter *c, const kp_word_table **words, kp_error *error) {
  kp_word_table *all = &c->tables[0];
  for (int t = 1; t < c->threads; t++) {
    kp_word_table *table = &c->tables[t];
    for (int32_t i = 0; i < table->count; i++) {
      const kp_word *word = &table->words[i];
      int32_t number;
      KP_TRY(kp_word_table_add(all, word->bytes, word->size, &number, error));
      all->words[number].count += word->count;
    }
    kp_word_table_clear(table);
  }
  *words = all;
  return KP_OK;
}
