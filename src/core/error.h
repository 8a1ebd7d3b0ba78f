/* Making errors: kappa/error.h says what they are.
 *
 * The function that finds the fault writes the message with kp_fail; callers on
 * the way up may put what they were doing in front of it with kp_context.
 * Only programs (src/cli) print messages and only they exit.
 *
 * A programmer's error (a shape that cannot be, a null argument) is not a
 * kp_error: it is an assertion, see kp_assert in core/assert.h.
 */
#ifndef KAPPA_CORE_ERROR_H
#define KAPPA_CORE_ERROR_H

#include <stddef.h>

#include "kappa/error.h"

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
