/* The schema of a configuration: one row a key.
 *
 * A module that has settings exports one constant kp_config_table; a program
 * lists the tables it needs in a kp_schema.  Everything in a row is text, so
 * that a table reads like documentation:
 *
 *   {"model.layers", KP_CONFIG_INTEGER, "12", "[1, 512]", "number of blocks"},
 *   {"model.curvature", KP_CONFIG_CHOICE, "fixed", "fixed|tied|random", "…"},
 *   {"train.betas", KP_CONFIG_REALS, "[0.9, 0.95]", "[0, 1)", "…"},
 *   {"data.train", KP_CONFIG_STRING, NULL, NULL, "token file, required"},
 *
 * A row that contradicts itself (a default out of its range, a key that stands
 * twice, a key that is also a section) is a programmer's error; it is found
 * whenever a configuration is read. */
#ifndef KAPPA_CORE_CONFIG_SCHEMA_H
#define KAPPA_CORE_CONFIG_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

typedef enum kp_config_type {
  KP_CONFIG_INTEGER,  /* int64_t */
  KP_CONFIG_REAL,     /* finite double */
  KP_CONFIG_BOOLEAN,  /* true or false */
  KP_CONFIG_STRING,   /* UTF-8 */
  KP_CONFIG_CHOICE,   /* one of the words in `allowed` */
  KP_CONFIG_REALS,    /* list of finite doubles */
  KP_CONFIG_INTEGERS, /* list of int64_t */
  KP_CONFIG_TEXTS,    /* list of UTF-8 texts */
} kp_config_type;

typedef struct kp_config_row {
  const char *key; /* dotted lower-case words: "model.layers" */
  kp_config_type type;
  const char *fallback; /* the default as one would write it in YAML; a text without quotes; NULL: required */
  const char *allowed;  /* numbers: interval "[0, 1)", "(0, inf)", NULL: any; choices: "one|other" */
  const char *help;     /* one line */
} kp_config_row;

typedef struct kp_config_table {
  const kp_config_row *rows;
  size_t count;
} kp_config_table;

struct kp_config;

/* Several tables, one behind the other.  `presets`, which may be NULL, is called when files and --set have
 * been read: it may change defaults that hang on what was given (kp_config_preset). */
typedef struct kp_schema {
  const kp_config_table *const *tables;
  size_t count;
  kp_status (*presets)(struct kp_config *config, kp_error *error);
} kp_schema;

/* The number of rows of all tables, and the row with that number. */
size_t kp_schema_size(const kp_schema *schema);
const kp_config_row *kp_schema_row(const kp_schema *schema, size_t index);

/* The row of `key`, or NULL. */
const kp_config_row *kp_schema_find(const kp_schema *schema, const char *key);

/* Whether `key` stands in front of a dot of some key: "model". */
bool kp_schema_is_section(const kp_schema *schema, const char *key);

/* The key that was probably meant by `key`, or NULL when none is near. */
const char *kp_schema_nearest(const kp_schema *schema, const char *key);

/* The type's name with its article: "an integer", "a list of reals". */
const char *kp_config_type_name(kp_config_type type);

/* An interval; a bound that is open does not belong to it. */
typedef struct kp_config_range {
  double minimum, maximum;
  bool minimum_is_open, maximum_is_open;
} kp_config_range;

/* Reads `allowed` of a row of numbers; asserts that it is an interval. */
kp_config_range kp_config_range_of(const kp_config_row *row);
bool kp_config_range_holds(const kp_config_range *range, double value);

/* The number of the choice that is `word`, or -1. */
int kp_config_choice_find(const kp_config_row *row, const char *word);

/* Choice number `index` as pointer and length into `allowed`; NULL behind the last. */
const char *kp_config_choice_word(const kp_config_row *row, size_t index, size_t *length);

/* A table of all keys for people: key, type, what is allowed, default, help.
 * `*text` is for the caller to free; it ends in zero, `*size` does not count it. */
kp_status kp_config_describe(const kp_schema *schema, char **text, size_t *size, kp_error *error);

#endif
