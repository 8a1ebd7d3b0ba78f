/* A bin is a row that is being filled.  Bins stand in an array in the order that the helm rule prescribes;
 * the exact rule finds the best one through lists of bins by the room they have left, the oldest first. */
#include "data/packing.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

typedef struct bin {
  kp_piece *pieces;
  int32_t count, capacity;
  int64_t size;
  struct bin *next; /* with as much room */
} bin;

/* A queue of bins. */
typedef struct queue {
  bin *first, *last;
} queue;

struct kp_packer {
  kp_packing_rule rule;
  int64_t rows, length;
  queue *by_room; /* (length), exact: full bins have room 0 */
  bin **bins;     /* helm: in order */
  int64_t count, capacity;
};

/* A sample to be placed. */
typedef struct sample {
  kp_piece piece;
  int64_t order;
} sample;

kp_status kp_packer_create(kp_packing_rule rule, int64_t rows, int64_t length, kp_packer **packer,
                           kp_error *error) {
  kp_assert(rows > 0 && length > 0 && length <= INT32_MAX, "%lld rows of %lld tokens", (long long)rows,
            (long long)length);
  kp_packer *made = calloc(1, sizeof *made);
  queue *by_room = calloc((size_t)length, sizeof *by_room);
  if (made == NULL || by_room == NULL) {
    free(made);
    free(by_room);
    return kp_fail(error, KP_ERR_MEMORY, "no memory to pack rows of %lld tokens", (long long)length);
  }
  *made = (kp_packer){.rule = rule, .rows = rows, .length = length, .by_room = by_room};
  *packer = made;
  return KP_OK;
}

static void destroy_bin(bin *one) {
  free(one->pieces);
  free(one);
}

void kp_packer_destroy(kp_packer *packer) {
  if (packer == NULL) return;
  for (int64_t room = 0; room < packer->length; room++)
    for (bin *one = packer->by_room[room].first, *next; one != NULL; one = next) {
      next = one->next;
      destroy_bin(one);
    }
  for (int64_t i = 0; packer->rule == KP_PACKING_HELM && i < packer->count; i++) destroy_bin(packer->bins[i]);
  free(packer->by_room);
  free(packer->bins);
  free(packer);
}

/* ---- bins ---- */

static kp_status no_memory(kp_error *error) {
  return kp_fail(error, KP_ERR_MEMORY, "no memory to pack documents");
}

static kp_status append_piece(bin *to, kp_piece piece, kp_error *error) {
  if (to->count == to->capacity) {
    const int32_t capacity = to->capacity == 0 ? 4 : 2 * to->capacity;
    kp_piece *grown = realloc(to->pieces, (size_t)capacity * sizeof *grown);
    if (grown == NULL) return no_memory(error);
    to->pieces = grown;
    to->capacity = capacity;
  }
  to->pieces[to->count++] = piece;
  to->size += piece.size;
  return KP_OK;
}

static kp_status open_bin(kp_piece piece, bin **opened, kp_error *error) {
  bin *one = calloc(1, sizeof *one);
  if (one == NULL) return no_memory(error);
  kp_status status = append_piece(one, piece, error);
  if (status != KP_OK)
    destroy_bin(one);
  else
    *opened = one;
  return status;
}

/* ---- exact ---- */

static void push(kp_packer *packer, bin *one) {
  queue *to = &packer->by_room[packer->length - one->size];
  one->next = NULL;
  if (to->first == NULL)
    to->first = one;
  else
    to->last->next = one;
  to->last = one;
  packer->count++;
}

static bin *pop(kp_packer *packer, int64_t room) {
  bin *one = packer->by_room[room].first;
  if (one == NULL) return NULL;
  packer->by_room[room].first = one->next;
  packer->count--;
  return one;
}

static kp_status place_exact(kp_packer *packer, kp_piece piece, kp_error *error) {
  bin *best = NULL;
  const bool shares = packer->rule == KP_PACKING_EXACT;
  for (int64_t room = piece.size; shares && room < packer->length && best == NULL; room++)
    best = pop(packer, room);
  kp_status status = best == NULL ? open_bin(piece, &best, error) : append_piece(best, piece, error);
  if (best != NULL) push(packer, best);
  return status;
}

/* ---- helm ---- */

static kp_status push_ordered(kp_packer *packer, bin *one, kp_error *error) {
  if (packer->count == packer->capacity) {
    const int64_t capacity = packer->capacity == 0 ? 64 : 2 * packer->capacity;
    bin **grown = realloc(packer->bins, (size_t)capacity * sizeof *grown);
    if (grown == NULL) return no_memory(error);
    packer->bins = grown;
    packer->capacity = capacity;
  }
  packer->bins[packer->count++] = one;
  return KP_OK;
}

static kp_status open_ordered(kp_packer *packer, kp_piece piece, kp_error *error) {
  bin *one = NULL;
  KP_TRY(open_bin(piece, &one, error));
  kp_status status = push_ordered(packer, one, error);
  if (status != KP_OK) destroy_bin(one);
  return status;
}

/* `left` samples are to be placed, this one included: so many that each must open a row, or none has to. */
static kp_status place_helm(kp_packer *packer, kp_piece piece, int64_t left, kp_error *error) {
  const int64_t missing = packer->rows > packer->count ? packer->rows - packer->count : 0;
  int64_t i = 0;
  while (i < packer->count && packer->length - packer->bins[i]->size < piece.size) i++;
  if (left == missing || i == packer->count) return open_ordered(packer, piece, error);
  bin *one = packer->bins[i];
  memmove(packer->bins + i, packer->bins + i + 1, (size_t)(packer->count - 1 - i) * sizeof *packer->bins);
  packer->bins[packer->count - 1] = one;
  piece.first_ignored = true;
  return append_piece(one, piece, error);
}

/* Orders the bins by falling size, equal ones as they stand: insertions, for most are in order from before.
 */
static void sort_bins(kp_packer *packer) {
  for (int64_t i = 1; i < packer->count; i++) {
    bin *one = packer->bins[i];
    int64_t to = i;
    for (; to > 0 && packer->bins[to - 1]->size < one->size; to--) packer->bins[to] = packer->bins[to - 1];
    packer->bins[to] = one;
  }
}

/* ---- documents to samples ---- */

/* Samples of one document: written where `out` is not NULL, and counted. */
static int64_t samples_of(const kp_packer *packer, kp_span document, sample *out) {
  const bool exact = packer->rule != KP_PACKING_HELM;
  const int64_t inputs = exact && document.closed ? document.count - 1 : document.count,
                length = packer->length;
  const int64_t kept = exact || inputs <= length ? inputs : inputs / length * length;
  int64_t count = 0;
  for (int64_t first = 0; first < kept; first += length, count++) {
    if (out == NULL) continue;
    const bool ends = first + length >= inputs;
    const kp_last_label last = !exact || (ends && !document.closed) ? KP_LAST_END : KP_LAST_NEXT;
    const int64_t size = kept - first < length ? kept - first : length;
    out[count].piece = (kp_piece){.offset = document.offset + first, .size = (int32_t)size, .last = last};
  }
  return count;
}

static int longest_first(const void *a, const void *b) {
  const sample *x = a, *y = b;
  if (x->piece.size != y->piece.size) return x->piece.size < y->piece.size ? 1 : -1;
  return x->order < y->order ? -1 : x->order > y->order;
}

static kp_status place_all(kp_packer *packer, const sample *samples, int64_t count, kp_error *error) {
  for (int64_t i = 0; i < count; i++) {
    kp_piece piece = samples[i].piece;
    if (packer->rule != KP_PACKING_HELM) {
      KP_TRY(place_exact(packer, piece, error));
      continue;
    }
    if (piece.size == samples[0].piece.size) piece.last = KP_LAST_NONE;
    KP_TRY(place_helm(packer, piece, count - i, error));
  }
  return KP_OK;
}

kp_status kp_packer_add(kp_packer *packer, const kp_span *documents, int64_t count, kp_error *error) {
  int64_t total = 0;
  for (int64_t i = 0; i < count; i++) total += samples_of(packer, documents[i], NULL);
  if (total == 0) return KP_OK;
  sample *samples = malloc((size_t)total * sizeof *samples);
  if (samples == NULL) return no_memory(error);
  total = 0;
  for (int64_t i = 0; i < count; i++) total += samples_of(packer, documents[i], samples + total);
  for (int64_t i = 0; i < total; i++) samples[i].order = i;
  qsort(samples, (size_t)total, sizeof *samples, longest_first);
  kp_status status = place_all(packer, samples, total, error);
  free(samples);
  return status;
}

/* ---- rows ---- */

void kp_packed_clear(kp_packed *packed) {
  free(packed->pieces);
  free(packed->first);
  *packed = (kp_packed){0};
}

static kp_status make_room(kp_packed *packed, int64_t pieces, kp_error *error) {
  if (packed->count + 2 > packed->row_capacity) {
    const int64_t capacity = packed->row_capacity == 0 ? 256 : 2 * packed->row_capacity;
    int64_t *grown = realloc(packed->first, (size_t)capacity * sizeof *grown);
    if (grown == NULL) return no_memory(error);
    packed->first = grown;
    packed->row_capacity = capacity;
  }
  if (packed->piece_count + pieces > packed->piece_capacity) {
    const int64_t capacity = 2 * packed->piece_capacity + pieces;
    kp_piece *grown = realloc(packed->pieces, (size_t)capacity * sizeof *grown);
    if (grown == NULL) return no_memory(error);
    packed->pieces = grown;
    packed->piece_capacity = capacity;
  }
  return KP_OK;
}

/* Appends the bin's row and, in either case, destroys the bin. */
static kp_status emit(kp_packed *packed, bin *one, kp_error *error) {
  kp_status status = make_room(packed, one->count, error);
  if (status == KP_OK) {
    memcpy(packed->pieces + packed->piece_count, one->pieces, (size_t)one->count * sizeof *one->pieces);
    packed->first[packed->count++] = packed->piece_count;
    packed->piece_count += one->count;
    packed->first[packed->count] = packed->piece_count;
    packed->tokens += one->size;
  }
  destroy_bin(one);
  return status;
}

static kp_status take_exact(kp_packer *packer, int64_t maximum, kp_packed *packed, kp_error *error) {
  for (int64_t room = 0, taken = 0; room < packer->length; room++)
    for (bin *one; taken < maximum && (one = pop(packer, room)) != NULL; taken++)
      KP_TRY(emit(packed, one, error));
  return KP_OK;
}

static kp_status take_helm(kp_packer *packer, int64_t maximum, kp_packed *packed, kp_error *error) {
  sort_bins(packer);
  const int64_t taken = packer->count < maximum ? packer->count : maximum;
  kp_status status = KP_OK;
  for (int64_t i = 0; i < taken; i++) {
    kp_status one = emit(packed, packer->bins[i], error);
    if (status == KP_OK) status = one;
  }
  packer->count -= taken;
  memmove(packer->bins, packer->bins + taken, (size_t)packer->count * sizeof *packer->bins);
  return status;
}

kp_status kp_packer_take(kp_packer *packer, int64_t maximum, kp_packed *packed, kp_error *error) {
  if (packer->count == 0) return KP_OK;
  return (packer->rule == KP_PACKING_HELM ? take_helm : take_exact)(packer, maximum, packed, error);
}

int64_t kp_packer_waiting(const kp_packer *packer, int64_t *sizes, int64_t room) {
  if (packer->rule == KP_PACKING_HELM) {
    for (int64_t i = 0; i < packer->count && i < room; i++) sizes[i] = packer->bins[i]->size;
    return packer->count;
  }
  int64_t seen = 0;
  for (int64_t free_room = 0; free_room < packer->length; free_room++)
    for (const bin *one = packer->by_room[free_room].first; one != NULL && seen < room; one = one->next)
      sizes[seen++] = one->size;
  return packer->count;
}
