/* JSON with bytes and escapes that stand for no character. */
#ifndef KAPPA_DATA_JSON_REPAIR_H
#define KAPPA_DATA_JSON_REPAIR_H

#include <stddef.h>

#include "core/error.h"

/* A copy in which U+FFFD stands for what is not valid UTF-8 (kp_utf8_replace) and for each escape \uD800 ...
 * \uDFFF that is not half of a pair.  The caller frees *out. */
kp_status kp_json_repair(const char *text, size_t size, char **out, size_t *out_size, kp_error *error);

#endif
