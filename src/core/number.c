#include "core/number.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

#define DIGITS "0123456789"

/* strtod and printf follow the thread's locale; these two put the "C" locale
 * in place and take it away again.  Asking for all of "C" allocates nothing. */
typedef struct c_locale {
  locale_t plain, previous;
} c_locale;

static c_locale c_locale_enter(void) {
  c_locale scope = {.plain = newlocale(LC_ALL_MASK, "C", (locale_t)0)};
  kp_assert(scope.plain != (locale_t)0, "the C locale always exists");
  scope.previous = uselocale(scope.plain);
  return scope;
}

static void c_locale_leave(c_locale scope) {
  uselocale(scope.previous);
  freelocale(scope.plain);
}

static bool is_integer(const char *text) {
  text += *text == '-' || *text == '+';
  size_t digits = strspn(text, DIGITS);
  return digits > 0 && text[digits] == 0;
}

static bool is_real(const char *text) {
  text += *text == '-' || *text == '+';
  size_t before = strspn(text, DIGITS), after = 0;
  text += before;
  if (*text == '.') {
    after = strspn(++text, DIGITS);
    text += after;
  }
  if (before + after == 0) return false;
  if (*text == 0) return true;
  if (*text != 'e' && *text != 'E') return false;
  return is_integer(text + 1);
}

kp_number_status kp_number_real(const char *text, double *value) {
  if (!is_real(text)) return KP_NUMBER_MALFORMED;
  c_locale scope = c_locale_enter();
  errno = 0;
  double result = strtod(text, NULL);
  bool out_of_range = errno == ERANGE;
  c_locale_leave(scope);
  if (isinf(result)) return KP_NUMBER_TOO_LARGE;
  if (out_of_range && fpclassify(result) == FP_ZERO) return KP_NUMBER_TOO_SMALL;
  *value = result;
  return KP_NUMBER_OK;
}

kp_number_status kp_number_integer(const char *text, int64_t *value) {
  if (!is_integer(text)) return KP_NUMBER_MALFORMED;
  errno = 0;
  long long result = strtoll(text, NULL, 10);
  if (errno == ERANGE) return KP_NUMBER_TOO_LARGE;
  *value = result;
  return KP_NUMBER_OK;
}

/* Puts ".0" in front of the exponent, or at the end, where there is no point. */
static void add_point(char text[KP_NUMBER_SIZE]) {
  if (strchr(text, '.') != NULL) return;
  char *exponent = strchr(text, 'e');
  if (exponent == NULL) exponent = text + strlen(text);
  memmove(exponent + 2, exponent, strlen(exponent) + 1);
  exponent[0] = '.';
  exponent[1] = '0';
}

void kp_number_format(double value, char text[KP_NUMBER_SIZE]) {
  kp_assert(isfinite(value), "only finite numbers are written");
  c_locale scope = c_locale_enter();
  for (int digits = 15; digits <= 17; digits++) {
    /* 17 digits take at most 24 bytes: there is room for add_point. */
    snprintf(text, KP_NUMBER_SIZE - 2, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  c_locale_leave(scope);
  add_point(text);
}
