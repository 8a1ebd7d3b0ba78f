/* One writer at a time: an advisory lock on a file.
 *
 * The kernel holds the lock with the open file, so it ends when the process
 * ends, however it ends; a lock file that lies around locks nothing.  The file
 * says who holds it ("process 4711 on host sun") for the words of the error. */
#ifndef KAPPA_CORE_LOCK_H
#define KAPPA_CORE_LOCK_H

#include "core/error.h"

typedef struct kp_lock kp_lock;

/* Takes the lock of the file at `path`, which is created if it is missing, or
 * fails at once and says who holds it.  A lock taken twice in one process
 * fails too.  The caller ends it with kp_lock_release. */
kp_status kp_lock_acquire(const char *path, kp_lock **lock, kp_error *error);

/* Gives the lock back; the file stays.  NULL is allowed. */
void kp_lock_release(kp_lock *lock);

#endif
