/* Assertions for errors of the programmer: a shape that cannot be, an index
 * out of range inside the library.  They stay on in release builds, because a
 * wrong number that goes on silently costs more than the check. */
#ifndef KAPPA_CORE_ASSERT_H
#define KAPPA_CORE_ASSERT_H

#include <stdio.h>
#include <stdlib.h>

#define kp_assert(condition, ...)                                                                            \
  do {                                                                                                       \
    if (!(condition)) {                                                                                      \
      fprintf(stderr, "%s:%d: %s: assertion failed: %s: ", __FILE__, __LINE__, __func__, #condition);        \
      fprintf(stderr, __VA_ARGS__);                                                                          \
      fputc('\n', stderr);                                                                                   \
      abort();                                                                                               \
    }                                                                                                        \
  } while (0)

#endif
