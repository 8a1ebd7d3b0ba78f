/* Numbers that must agree. */
#ifndef KAPPA_TESTS_STUDY_NEAR_H
#define KAPPA_TESTS_STUDY_NEAR_H

#include <math.h>

#include "support/check.h"

/* Fails the test unless |actual - expected| <= tolerance; a NaN never agrees. */
#define check_near(actual, expected, tolerance)                                                              \
  do {                                                                                                       \
    const double near_actual = (actual), near_expected = (expected);                                         \
    if (!(fabs(near_actual - near_expected) <= (tolerance)))                                                 \
      fail_msg("%s is %.17g, not %.17g", #actual, near_actual, near_expected);                               \
  } while (0)

#endif
