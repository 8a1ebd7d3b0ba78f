/* Checks that a call is refused, with the right status and telling words. */
#ifndef KAPPA_TESTS_CHECK_FAILS_H
#define KAPPA_TESTS_CHECK_FAILS_H

#include "support/check.h"

#include <string.h>

/* Fails the test unless `call` returns `expected`, has left that status in the
 * error, and has `words` in its message. */
#define check_fails(call, error, expected, words)                                                            \
  do {                                                                                                       \
    memset((error), 0, sizeof *(error));                                                                     \
    assert_int_equal((call), (expected));                                                                    \
    assert_int_equal((error)->status, (expected));                                                           \
    if (strstr((error)->message, (words)) == NULL)                                                           \
      fail_msg("%s: the message '%s' lacks '%s'", #call, (error)->message, (words));                         \
  } while (0)

#endif
