/* Errors are values.
 *
 * Every function that can fail because of a user, a file, a network or the
 * machine returns a kp_status and takes a kp_error as its last argument.  The
 * function that finds the fault writes the message with kp_fail; callers on
 * the way up may put what they were doing in front of it with kp_context.
 * Only programs (src/cli) print messages and only they exit.
 *
 * A programmer's error (a shape that cannot be, a null argument) is not a
 * kp_error: it is an assertion, see kp_assert in core/assert.h.
 */
#ifndef KAPPA_CORE_ERROR_H
#define KAPPA_CORE_ERROR_H

#include <stddef.h>

typedef enum kp_status {
  KP_OK = 0,
  KP_ERR_INPUT,       /* what the user gave is wrong: a key, a value, a shape, a file's content */
  KP_ERR_IO,          /* the file system or the network refused */
  KP_ERR_MEMORY,      /* not enough memory */
  KP_ERR_NUMERIC,     /* a value that must be finite is not */
  KP_ERR_UNSUPPORTED, /* understood, but this build or backend cannot do it */
  KP_ERR_INTERRUPTED, /* the user asked to stop */
} kp_status;

/* One error: its status and one sentence that says what is wrong, where, and
 * what to do.  Zero-initialise before first use: kp_error error = {0}. */
typedef struct kp_error {
  kp_status status;
  char message[1024];
} kp_error;

/* Writes the message (printf format) and returns `status`.  `error` may be
 * NULL when the caller does not want the words.  Always returns `status`. */
kp_status kp_fail(kp_error *error, kp_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Same, and appends ": " and the text of the current errno. */
kp_status kp_fail_errno(kp_error *error, kp_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " in front of the message that is there.  Returns the
 * error's status, so that it can be returned at once. */
kp_status kp_context(kp_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Returns from the calling function when `call` failed. */
#define KP_TRY(call)                                                                                         \
  do {                                                                                                       \
    kp_status kp_try_status = (call);                                                                        \
    if (kp_try_status != KP_OK) return kp_try_status;                                                        \
  } while (0)

#endif
