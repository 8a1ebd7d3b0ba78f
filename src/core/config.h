/* A configuration: YAML checked against a schema (core/config_schema.h).
 *
 * A kp_config holds one value for every key of its schema: the default, what a
 * file says, or what --set says, each later one over the earlier.  Whatever
 * is wrong is refused when it is read, with the file, the line and the key: an
 * unknown key (and the one that was probably meant), a wrong type, a value out
 * of range, a key given twice, a required key that is missing.  What remains
 * to check (does a number of heads divide a width?) its user reports with
 * kp_config_fail, which knows where the value came from.
 *
 * YAML that is understood: one document of mappings, scalars and lists of
 * scalars, as UTF-8 of at most 1 MiB.  "model: {layers: 3}" and "model.layers: 3"
 * mean the same.  The row of a key decides how its scalar is read, quoted or
 * not; null is never a value; numbers are those of core/number.h; booleans are
 * true and false.  "extends: other.yaml" (relative to the file that says so)
 * reads that file first; its keys may be given again.
 *
 * A getter with a key that the schema lacks, or of another type, asserts.
 * Pointers that getters return belong to the configuration and live until that
 * key is set again or the configuration is destroyed. */
#ifndef KAPPA_CORE_CONFIG_H
#define KAPPA_CORE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/config_schema.h"
#include "core/error.h"

typedef struct kp_config kp_config;

/* Reads the file, then `count` overrides of the form "key=value", where the
 * value is a YAML scalar or a list in brackets.  The schema must outlive the
 * configuration.  `*config` is for the caller to destroy; NULL on failure. */
kp_status kp_config_load(const char *path, const kp_schema *schema, const char *const *overrides,
                         size_t count, kp_config **config, kp_error *error);

/* The same for a text in memory, which messages call `name`.  It opens no
 * file: a text that extends another is refused. */
kp_status kp_config_parse(const char *text, size_t size, const char *name, const kp_schema *schema,
                          const char *const *overrides, size_t count, kp_config **config, kp_error *error);

/* Sets one key afterwards, "key=value".  The key's last word is enough where no other key ends in it:
 * "optimizer=muon".  On failure nothing has changed. */
kp_status kp_config_set(kp_config *config, const char *assignment, kp_error *error);

/* Makes "key=value" the default of a key, which changes nothing when the key was given. */
kp_status kp_config_preset(kp_config *config, const char *assignment, kp_error *error);

void kp_config_destroy(kp_config *config);

int64_t kp_config_integer(const kp_config *config, const char *key);
double kp_config_real(const kp_config *config, const char *key);
bool kp_config_boolean(const kp_config *config, const char *key);
const char *kp_config_string(const kp_config *config, const char *key);

/* The number of the chosen word within `allowed` of its row, from 0. */
int kp_config_choice(const kp_config *config, const char *key);

/* Lists; `*count` may be 0, the pointer is never NULL. */
const double *kp_config_reals(const kp_config *config, const char *key, size_t *count);
const int64_t *kp_config_integers(const kp_config *config, const char *key, size_t *count);
const char *const *kp_config_texts(const kp_config *config, const char *key, size_t *count);

/* Whether the value was given, by a file or by --set, rather than the default. */
bool kp_config_is_set(const kp_config *config, const char *key);

/* Whether the value is the default or a preset, or was given and equals the default of the schema. */
bool kp_config_is_default(const kp_config *config, const char *key);

/* Refuses the value of `key` with KP_ERR_INPUT and a message such as
 * "configs/a.yaml:12: model.heads: 5 does not divide model.width 384". */
kp_status kp_config_fail(const kp_config *config, const char *key, kp_error *error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The resolved configuration as YAML: every key, in the order of the schema,
 * nested, the same bytes for the same values, and the same values when read
 * again.  `*text` is for the caller to free; it ends in zero, which `*size`
 * does not count. */
kp_status kp_config_text(const kp_config *config, char **text, size_t *size, kp_error *error);

/* The value of one key as kp_config_set reads it, "key=value".  `*text` is for the caller to free. */
kp_status kp_config_assignment(const kp_config *config, const char *key, char **text, kp_error *error);

/* FNV-1a, 64 bits, of the text of the whole. */
uint64_t kp_config_hash(const kp_config *config);

#endif
