/* Numbers as text, the same in every locale: what a configuration, a JSON
 * file or a report reads and writes must not depend on LC_NUMERIC. */
#ifndef KAPPA_CORE_NUMBER_H
#define KAPPA_CORE_NUMBER_H

#include <stdint.h>

typedef enum kp_number_status {
  KP_NUMBER_OK = 0,
  KP_NUMBER_MALFORMED, /* the text is not a number of that kind */
  KP_NUMBER_TOO_LARGE, /* it is one, but no double or int64_t holds it */
  KP_NUMBER_TOO_SMALL, /* it is not zero, but rounds to zero */
} kp_number_status;

/* Room for the longest text that kp_number_format writes, with its zero. */
enum { KP_NUMBER_SIZE = 32 };

/* Reads all of `text` as a decimal number of the YAML 1.2 core schema without
 * its .inf and .nan: an optional sign, digits with at most one point among or
 * beside them, an optional exponent.  "1e-3", ".5", "2." and "-7" are numbers;
 * "1_000", "0x10", " 1" and "nan" are not.  `*value` is set on success only. */
kp_number_status kp_number_real(const char *text, double *value);

/* Reads all of `text` as a decimal integer: an optional sign and digits. */
kp_number_status kp_number_integer(const char *text, int64_t *value);

/* Writes the shortest of 15, 16 and 17 significant digits that reads back as
 * the same double.  There is always a point ("3.0", "1.0e-05"), so that
 * readers of YAML 1.1, who take "1e-05" for a word, agree that it is a number.
 * `value` must be finite. */
void kp_number_format(double value, char text[KP_NUMBER_SIZE]);

#endif
