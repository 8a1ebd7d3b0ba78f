/* A YAML text as a flat list of entries: nested mappings become dotted keys.
 *
 * Only the part of YAML that a configuration needs is read: one document of
 * mappings, scalars and lists of scalars.  Anchors, aliases, tags, more than
 * one document and nested lists are refused, and so is a key that stands
 * twice, in whichever of its spellings.  What a scalar means (a number, a
 * word) is for the schema to say, not for this reader.
 *
 * Memory: the document owns everything in it; kp_yaml_clear frees it. */
#ifndef KAPPA_CORE_CONFIG_YAML_H
#define KAPPA_CORE_CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

enum {
  KP_YAML_SIZE_LIMIT = 1 << 20, /* bytes of a text */
  KP_YAML_DEPTH_LIMIT = 8,      /* mappings within mappings */
  KP_YAML_KEY_LIMIT = 200,      /* bytes of a dotted key */
  KP_YAML_ENTRY_LIMIT = 2048,   /* keys of a text */
  KP_YAML_ITEM_LIMIT = 4096,    /* items of a list */
  KP_YAML_SCALAR_LIMIT = 4096,  /* bytes of a scalar */
};

typedef enum kp_yaml_kind {
  KP_YAML_SCALAR,  /* items[0] */
  KP_YAML_LIST,    /* items[0 .. count) */
  KP_YAML_MAPPING, /* no items; its own keys are entries that follow */
} kp_yaml_kind;

typedef struct kp_yaml_scalar {
  char *text;  /* UTF-8, ends in zero, has no other zero */
  bool quoted; /* '…', "…" or a block scalar: never a null */
} kp_yaml_scalar;

typedef struct kp_yaml_entry {
  char *key; /* dotted */
  kp_yaml_kind kind;
  kp_yaml_scalar *items;
  size_t count;
  size_t children; /* of a mapping: how many keys stand in it */
  size_t line;     /* of the key, from 1 */
} kp_yaml_entry;

/* Zero-initialise before use. */
typedef struct kp_yaml_document {
  kp_yaml_entry *entries;
  size_t count;
} kp_yaml_document;

/* Reads a whole text whose root is a mapping.  Messages begin with `name`, the
 * line and the column.  On failure the document is left empty. */
kp_status kp_yaml_read(const char *text, size_t size, const char *name, kp_yaml_document *document,
                       kp_error *error);

/* Reads a text that is one scalar or one list, as the single entry `key`.
 * Messages name the column only. */
kp_status kp_yaml_read_value(const char *key, const char *text, kp_yaml_document *document, kp_error *error);

void kp_yaml_clear(kp_yaml_document *document);

/* Whether the scalar says "no value": nothing at all, ~ or null. */
bool kp_yaml_is_null(const kp_yaml_scalar *scalar);

#endif
