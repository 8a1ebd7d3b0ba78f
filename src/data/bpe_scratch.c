#include "data/bpe_scratch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct kp_bpe_pool {
  const kp_pretokenizer *pretokenizer;
  pthread_mutex_t lock;
  kp_bpe_scratch *free; /* owned */
};

kp_status kp_bpe_pool_create(const kp_pretokenizer *pretokenizer, kp_bpe_pool **result, kp_error *error) {
  kp_bpe_pool *pool = calloc(1, sizeof *pool);
  if (pool == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a tokenizer");
  pool->pretokenizer = pretokenizer;
  pthread_mutex_init(&pool->lock, NULL);
  *result = pool;
  return KP_OK;
}

static void destroy_scratch(kp_bpe_scratch *scratch) {
  kp_pieces_destroy(scratch->pieces);
  free(scratch->cache);
  free(scratch);
}

void kp_bpe_pool_destroy(kp_bpe_pool *pool) {
  if (pool == NULL) return;
  for (kp_bpe_scratch *next; pool->free != NULL; pool->free = next) {
    next = pool->free->next;
    destroy_scratch(pool->free);
  }
  pthread_mutex_destroy(&pool->lock);
  free(pool);
}

static kp_status create_scratch(const kp_bpe_pool *pool, kp_bpe_scratch **result, kp_error *error) {
  kp_bpe_scratch *scratch = calloc(1, sizeof *scratch);
  if (scratch != NULL) scratch->cache = calloc(KP_CACHED_PIECES, sizeof *scratch->cache);
  kp_status status = scratch == NULL || scratch->cache == NULL
                         ? kp_fail(error, KP_ERR_MEMORY, "no memory to encode")
                         : kp_pieces_create(pool->pretokenizer, &scratch->pieces, error);
  if (status == KP_OK)
    *result = scratch;
  else if (scratch != NULL)
    destroy_scratch(scratch);
  return status;
}

kp_status kp_bpe_pool_take(kp_bpe_pool *pool, kp_bpe_scratch **scratch, kp_error *error) {
  pthread_mutex_lock(&pool->lock);
  *scratch = pool->free;
  if (*scratch != NULL) pool->free = (*scratch)->next;
  pthread_mutex_unlock(&pool->lock);
  return *scratch != NULL ? KP_OK : create_scratch(pool, scratch, error);
}

void kp_bpe_pool_give(kp_bpe_pool *pool, kp_bpe_scratch *scratch) {
  pthread_mutex_lock(&pool->lock);
  scratch->next = pool->free;
  pool->free = scratch;
  pthread_mutex_unlock(&pool->lock);
}

kp_cached_piece *kp_cached_place(const kp_bpe_scratch *scratch, const char *bytes, size_t size) {
  uint64_t hash = size;
  for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
    uint64_t eight = 0;
    memcpy(&eight, bytes + at, size - at < sizeof eight ? size - at : sizeof eight);
    hash = (hash ^ eight) * UINT64_C(0x9E3779B97F4A7C15);
    hash ^= hash >> 29;
  }
  return &scratch->cache[(hash ^ hash >> 32) % KP_CACHED_PIECES];
}
