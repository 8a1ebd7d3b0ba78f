/* An arena: memory that is taken piece by piece and given back all at once.
 *
 * Graphs, configurations and plans own one each; nothing in them is freed
 * alone.  Running out of memory while a graph is being built is an assertion:
 * these objects are small, the large buffers go through kp_buffer_create. */
#ifndef KAPPA_CORE_ARENA_H
#define KAPPA_CORE_ARENA_H

#include <stddef.h>

#include "core/error.h"

typedef struct kp_arena kp_arena;

kp_arena *kp_arena_create(void);
void kp_arena_destroy(kp_arena *arena);

/* Zeroed memory, aligned for any type; lives until the arena is destroyed. */
void *kp_arena_take(kp_arena *arena, size_t bytes);

/* A copy of `text` in the arena; NULL stays NULL. */
char *kp_arena_text(kp_arena *arena, const char *text);

/* printf into the arena. */
char *kp_arena_format(kp_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A large zeroed buffer, aligned to 64 bytes; `what` and the size go into the
 * error message.  A size of 0 gives a valid pointer.  Free with kp_buffer_destroy. */
kp_status kp_buffer_create(size_t bytes, const char *what, void **buffer, kp_error *error);
void kp_buffer_destroy(void *buffer);

#endif
