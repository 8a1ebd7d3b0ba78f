#include "data/bpe_merge.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- short pieces ---- */

size_t kp_bpe_merge_short(const kp_merge_table *table, int32_t *ids, size_t count) {
  uint32_t ranks[KP_BPE_SHORT]; /* of the pair that begins at each token */
  int32_t merged[KP_BPE_SHORT]; /* what it becomes */
  for (size_t i = 0; i + 1 < count; i++) ranks[i] = kp_merge_find(table, ids[i], ids[i + 1], &merged[i]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; i++)
      if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] == KP_NO_MERGE) break;
    ids[best] = merged[best];
    count--;
    memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof *ids);
    memmove(ranks + best, ranks + best + 1, (count - best - 1) * sizeof *ranks);
    memmove(merged + best, merged + best + 1, (count - best - 1) * sizeof *merged);
    if (best > 0) ranks[best - 1] = kp_merge_find(table, ids[best - 1], ids[best], &merged[best - 1]);
    if (best + 1 < count) ranks[best] = kp_merge_find(table, ids[best], ids[best + 1], &merged[best]);
  }
  return count;
}

/* ---- long pieces ---- */

/* Tokens as a list, in the place of their first byte; a token that went into its left neighbour is GONE.  The
 * heap holds pairs as rank · 2^32 + place, the least on top; a pair that changed since stays in it and is
 * noticed when it comes up. */
typedef struct list {
  const kp_merge_table *table;
  int32_t *ids;
  uint32_t *next, *previous; /* owned */
  uint64_t *heap;            /* owned */
  size_t heap_count, heap_capacity;
} list;

#define GONE    (-1)
#define NOWHERE UINT32_MAX

static void sift_down(list *l, size_t at) {
  const uint64_t value = l->heap[at];
  for (;;) {
    size_t child = 2 * at + 1;
    if (child >= l->heap_count) break;
    if (child + 1 < l->heap_count && l->heap[child + 1] < l->heap[child]) child++;
    if (value <= l->heap[child]) break;
    l->heap[at] = l->heap[child];
    at = child;
  }
  l->heap[at] = value;
}

static bool grow_heap(list *l) {
  const size_t capacity = l->heap_capacity + l->heap_capacity / 4 + 64;
  uint64_t *grown = realloc(l->heap, capacity * sizeof *grown);
  if (grown == NULL) return false;
  l->heap = grown;
  l->heap_capacity = capacity;
  return true;
}

static bool push(list *l, uint64_t value) {
  if (l->heap_count == l->heap_capacity && !grow_heap(l)) return false;
  size_t at = l->heap_count++;
  for (; at > 0 && l->heap[(at - 1) / 2] > value; at = (at - 1) / 2) l->heap[at] = l->heap[(at - 1) / 2];
  l->heap[at] = value;
  return true;
}

static uint64_t pop(list *l) {
  const uint64_t top = l->heap[0];
  l->heap[0] = l->heap[--l->heap_count];
  if (l->heap_count > 0) sift_down(l, 0);
  return top;
}

/* The rank of the pair at `place`, whose right token may be missing. */
static uint32_t rank_at(const list *l, uint32_t place, int32_t *id) {
  if (place == NOWHERE || l->ids[place] == GONE || l->next[place] == NOWHERE) return KP_NO_MERGE;
  return kp_merge_find(l->table, l->ids[place], l->ids[l->next[place]], id);
}

/* Puts the pair at `place` on the heap if it may merge; false when memory ran out. */
static bool offer(list *l, uint32_t place) {
  int32_t id;
  const uint32_t rank = rank_at(l, place, &id);
  return rank == KP_NO_MERGE || push(l, (uint64_t)rank << 32 | place);
}

static bool fill(list *l, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    l->next[i] = i + 1 < count ? i + 1 : NOWHERE;
    l->previous[i] = i > 0 ? i - 1 : NOWHERE;
  }
  for (uint32_t i = 0; i + 1 < count; i++) {
    int32_t id = -1;
    const uint32_t rank = kp_merge_find(l->table, l->ids[i], l->ids[i + 1], &id);
    if (rank == KP_NO_MERGE) continue;
    if (l->heap_count == l->heap_capacity && !grow_heap(l)) return false;
    l->heap[l->heap_count++] = (uint64_t)rank << 32 | i;
  }
  for (size_t i = l->heap_count / 2; i-- > 0;) sift_down(l, i);
  return true;
}

static bool merge_all(list *l) {
  while (l->heap_count > 0) {
    const uint64_t top = pop(l);
    const uint32_t place = (uint32_t)top;
    int32_t id = -1;
    if (rank_at(l, place, &id) != top >> 32) continue;
    const uint32_t right = l->next[place], behind = l->next[right];
    l->ids[place] = id;
    l->ids[right] = GONE;
    l->next[place] = behind;
    if (behind != NOWHERE) l->previous[behind] = place;
    if (!offer(l, l->previous[place]) || !offer(l, place)) return false;
  }
  return true;
}

kp_status kp_bpe_merge_long(const kp_merge_table *table, int32_t *ids, size_t *count, kp_error *error) {
  const size_t before = *count;
  if (before >= NOWHERE)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "a word of %zu bytes is too long to encode", before);
  list l = {.table = table, .ids = ids};
  l.next = malloc(before * sizeof *l.next);
  l.previous = malloc(before * sizeof *l.previous);
  bool done = l.next != NULL && l.previous != NULL && fill(&l, (uint32_t)before) && merge_all(&l);
  free(l.next);
  free(l.previous);
  free(l.heap);
  if (!done) return kp_fail(error, KP_ERR_MEMORY, "no memory to encode a word of %zu bytes", before);
  size_t kept = 0;
  for (size_t i = 0; i < before; i++)
    if (ids[i] != GONE) ids[kept++] = ids[i];
  *count = kept;
  return KP_OK;
}
