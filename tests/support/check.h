/* cmocka with the headers that it wants in front. */
#ifndef KAPPA_TESTS_CHECK_H
#define KAPPA_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/error.h"

/* Fails the test with the error's own words when `call` does not return KP_OK. */
#define check_ok(call, error)                                                                                \
  do {                                                                                                       \
    if ((call) != KP_OK) fail_msg("%s: %s", #call, (error)->message);                                        \
  } while (0)

#endif
