/* What is done with bytes that are not UTF-8. */
#ifndef KAPPA_DATA_UTF8_REPAIR_H
#define KAPPA_DATA_UTF8_REPAIR_H

#include <stddef.h>

#include "data/byte_buffer.h"

/* Writes `text` to `out`, which is emptied first, with U+FFFD in place of each longest piece that could begin
 * a character but does not (Unicode 15, section 3.9, "maximal subpart"), as Python and browsers do. */
kp_status kp_utf8_repair(const char *text, size_t size, kp_byte_buffer *out, kp_error *error);

/* The same for JSON: also an escape \uD800 ... \uDFFF that is not half of a pair becomes \uFFFD. */
kp_status kp_utf8_repair_json(const char *text, size_t size, kp_byte_buffer *out, kp_error *error);

#endif
