/* The inside of a kp_config.  Internal to src/core/config*.c. */
#ifndef KAPPA_CORE_CONFIG_PRIVATE_H
#define KAPPA_CORE_CONFIG_PRIVATE_H

#include <stddef.h>

#include "core/config.h"
#include "core/config_value.h"

/* The longest chain of files that extend each other. */
enum { KP_CONFIG_FILE_LIMIT = 8 };

/* Owns everything but the schema. */
struct kp_config {
  const kp_schema *schema;
  kp_config_value *values; /* one for each row, in the order of the schema */
  size_t count;
  char *files[KP_CONFIG_FILE_LIMIT]; /* files[0] is the one that was asked for */
  size_t file_count;
};

/* The value of `key`, or NULL. */
kp_config_value *kp_config_find(const kp_config *config, const char *key);

/* Asserts that the schema makes sense: keys well formed, none twice, none also
 * a section, every choice and range readable. */
void kp_schema_check(const kp_schema *schema);

/* Reads a file and what it extends into the values. */
kp_status kp_config_read_file(kp_config *config, const char *path, kp_error *error);

/* Reads a text in memory into the values. */
kp_status kp_config_read_text(kp_config *config, const char *text, size_t size, const char *name,
                              kp_error *error);

#endif
