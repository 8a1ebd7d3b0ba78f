/* One value of a configuration: read from a YAML entry, checked against its
 * row.  Internal to src/core/config*.c. */
#ifndef KAPPA_CORE_CONFIG_VALUE_H
#define KAPPA_CORE_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/config_schema.h"
#include "core/config_yaml.h"
#include "core/error.h"

typedef struct kp_config_value {
  const kp_config_row *row;
  union { /* row->type says which */
    int64_t integer;
    double real;
    bool boolean;
    int choice;
    char *text;
    double *reals;
    int64_t *integers;
    char **texts;
  };
  size_t count;     /* of a list */
  bool is_present;  /* false: required and not yet given */
  bool is_set;      /* given by the user, not the default */
  const char *file; /* where: a file's name owned by the configuration, or NULL: --set or default */
  size_t line;
} kp_config_value;

/* Reads the entry as a value of `row`.  Messages say what was expected and
 * what was found, not where.  On failure `value` owns nothing. */
kp_status kp_config_value_read(const kp_config_row *row, const kp_yaml_entry *entry, kp_config_value *value,
                               kp_error *error);

/* The default of `row`; not present when the row is required.  A default that
 * is wrong asserts; only memory can fail. */
kp_status kp_config_value_default(const kp_config_row *row, kp_config_value *value, kp_error *error);

/* Frees what the value owns and zeroes it. */
void kp_config_value_clear(kp_config_value *value);

/* What the entry holds, for messages: "the number 1.5", "a list", "nothing". */
void kp_config_entry_name(const kp_yaml_entry *entry, char *text, size_t size);

#endif
