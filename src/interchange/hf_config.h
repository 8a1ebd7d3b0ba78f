/* config.json of a Hugging Face model, read key by key.
 *
 * A reader asks for every key that it knows; what it never asked for can be listed afterwards, so that
 * nothing in the file is passed over in silence.  A key that is null counts as absent.  Every refusal names
 * the file, the key and its value. */
#ifndef KAPPA_INTERCHANGE_HF_CONFIG_H
#define KAPPA_INTERCHANGE_HF_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "core/error.h"
#include "core/path.h"

enum { KP_HF_MAX_KEYS = 128 };

typedef struct kp_hf_config {
  const json_t *object;
  char label[KP_PATH_SIZE];          /* of the object in messages: "DIR/config.json", "…: rope_scaling" */
  const char *asked[KP_HF_MAX_KEYS]; /* keys that were asked for: constant */
  size_t asked_count;
} kp_hf_config;

/* Looks at an object, which must outlive the reader. */
kp_status kp_hf_config_begin(kp_hf_config *config, const json_t *object, const char *label, kp_error *error);

/* Whether the key is there and not null; counts as asking. */
bool kp_hf_has(kp_hf_config *config, const char *key);

/* The value of a key; absent, it is `otherwise`. */
kp_status kp_hf_integer(kp_hf_config *config, const char *key, int64_t otherwise, int64_t *value,
                        kp_error *error);
kp_status kp_hf_real(kp_hf_config *config, const char *key, double otherwise, double *value, kp_error *error);
kp_status kp_hf_boolean(kp_hf_config *config, const char *key, bool otherwise, bool *value, kp_error *error);
/* A text, which lives as long as the object; `otherwise` may be NULL. */
kp_status kp_hf_text(kp_hf_config *config, const char *key, const char *otherwise, const char **value,
                     kp_error *error);
/* A positive whole number that must be there. */
kp_status kp_hf_size(kp_hf_config *config, const char *key, int64_t *value, kp_error *error);

/* Refuses the value that the key has. */
kp_status kp_hf_refuse(const kp_hf_config *config, const char *key, kp_error *error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Says of a list of keys, closed by NULL, that they do not change what the model computes. */
void kp_hf_ignore(kp_hf_config *config, const char *const *keys);

/* Writes "a, b, c": the keys that nobody asked for.  How many. */
size_t kp_hf_unknown(const kp_hf_config *config, char *text, size_t size);

#endif
