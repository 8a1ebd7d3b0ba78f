/* JSON on disk: whole files, and files of one object a line (JSON lines).
 *
 * Values are jansson's json_t.  Whole files are written atomically.  Lines are
 * appended with a single write each; a crash can leave at most the last line
 * torn, and everything here ignores or removes such a line. */
#ifndef KAPPA_CORE_JSON_TEXT_H
#define KAPPA_CORE_JSON_TEXT_H

#include "core/error.h"

#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

/* Significant digits of printed reals that give every bit back. */
enum { KP_JSON_FLOAT_DIGITS = 9, KP_JSON_DOUBLE_DIGITS = 17 };

/* A real, or null where JSON has no word for the value (NaN, infinity).  NULL
 * when memory ran out. */
json_t *kp_json_number(double value);

/* Reads a whole file; errors have line and column.  A key that stands twice in
 * an object is refused.  *value belongs to the caller (json_decref). */
kp_status kp_json_read_file(const char *path, json_t **value, kp_error *error);

/* Writes `value`, indented by two, keys in their order, atomically. */
kp_status kp_json_write_file(const char *path, const json_t *value, int digits, kp_error *error);

/* Appends one line, creating the file if it is missing.  A torn last line is
 * removed first.  One writer at a time: see core/lock.h. */
kp_status kp_jsonl_append(const char *path, const json_t *value, int digits, kp_error *error);

/* The last `maximum` complete lines (all of them with SIZE_MAX), oldest first,
 * as a JSON array that belongs to the caller.  A line that is complete but not
 * JSON is an error that names it. */
kp_status kp_jsonl_read_last(const char *path, size_t maximum, json_t **lines, kp_error *error);

/* For a resumed run: removes the first line whose integer `key` is greater
 * than `value`, everything behind it, and a torn last line.  Lines without the
 * key are kept.  A file that is missing is fine. */
kp_status kp_jsonl_truncate_after(const char *path, const char *key, int64_t value, kp_error *error);

#endif
