#include "core/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

enum { CHUNK_BYTES = 1 << 16, ALIGNMENT = 16 };

typedef struct kp_chunk {
  struct kp_chunk *next;
  size_t used, size;
} kp_chunk;

struct kp_arena {
  kp_chunk *chunks;
};

static size_t round_up(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

kp_arena *kp_arena_create(void) {
  kp_arena *arena = calloc(1, sizeof *arena);
  kp_assert(arena != NULL, "out of memory for an arena");
  return arena;
}

void kp_arena_destroy(kp_arena *arena) {
  if (arena == NULL) return;
  for (kp_chunk *chunk = arena->chunks; chunk != NULL;) {
    kp_chunk *next = chunk->next;
    free(chunk);
    chunk = next;
  }
  free(arena);
}

void *kp_arena_take(kp_arena *arena, size_t bytes) {
  const size_t header = round_up(sizeof(kp_chunk), ALIGNMENT);
  bytes = round_up(bytes, ALIGNMENT);
  kp_chunk *chunk = arena->chunks;
  if (chunk == NULL || chunk->size - chunk->used < bytes) {
    size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
    chunk = calloc(1, header + size);
    kp_assert(chunk != NULL, "out of memory for %zu bytes of an arena", size);
    chunk->size = size;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
  }
  void *memory = (char *)chunk + header + chunk->used;
  chunk->used += bytes;
  return memory;
}

char *kp_arena_text(kp_arena *arena, const char *text) {
  if (text == NULL) return NULL;
  size_t size = strlen(text) + 1;
  return memcpy(kp_arena_take(arena, size), text, size);
}

char *kp_arena_format(kp_arena *arena, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  char *text = kp_arena_take(arena, (size_t)length + 1);
  vsnprintf(text, (size_t)length + 1, format, again);
  va_end(again);
  return text;
}

kp_status kp_buffer_create(size_t bytes, const char *what, void **buffer, kp_error *error) {
  size_t size = round_up(bytes == 0 ? 1 : bytes, 64);
  *buffer = aligned_alloc(64, size);
  if (*buffer == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %s (%.1f MiB)", what, (double)bytes / 1048576.0);
  memset(*buffer, 0, size);
  return KP_OK;
}

void kp_buffer_destroy(void *buffer) {
  free(buffer);
}
