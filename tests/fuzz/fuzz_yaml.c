/* Any bytes, as a configuration in memory: they are refused with a message, or
 * they are read, and then the resolved text reads back to the same text. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const kp_config_row rows[] = {
    {"seed", KP_CONFIG_INTEGER, "1", NULL, "an integer"},
    {"model.layers", KP_CONFIG_INTEGER, "12", "[1, 512]", "an integer with a range"},
    {"model.kind", KP_CONFIG_CHOICE, "fixed", "fixed|parametric|tied", "a choice"},
    {"model.kappa", KP_CONFIG_REAL, "-1", "(-10, 10]", "a real with a range"},
    {"model.tie", KP_CONFIG_BOOLEAN, "true", NULL, "a boolean"},
    {"train.betas", KP_CONFIG_REALS, "[0.9, 0.95]", NULL, "a list of reals"},
    {"train.steps", KP_CONFIG_INTEGERS, "[]", "[0, inf)", "a list of integers"},
    {"train.deep.note", KP_CONFIG_STRING, "", NULL, "a text"},
};
static const kp_config_table table = {rows, sizeof rows / sizeof *rows};
static const kp_config_table *const tables[] = {&table};
static const kp_schema schema = {.tables = tables, .count = 1};

static void check_round_trip(const kp_config *config) {
  kp_error error = {0};
  char *text = NULL, *text_again = NULL;
  size_t size = 0, size_again = 0;
  kp_config *again = NULL;
  kp_status status = kp_config_text(config, &text, &size, &error);
  kp_assert(status == KP_OK, "%s", error.message);
  status = kp_config_parse(text, size, "again", &schema, NULL, 0, &again, &error);
  kp_assert(status == KP_OK, "%s", error.message);
  status = kp_config_text(again, &text_again, &size_again, &error);
  kp_assert(status == KP_OK, "%s", error.message);
  kp_assert(size == size_again && memcmp(text, text_again, size) == 0, "the text changed");
  kp_assert(kp_config_hash(config) == kp_config_hash(again), "the hash changed");
  kp_config_destroy(again);
  free(text_again);
  free(text);
}

/* The same bytes up to their first zero, as what follows --set. */
static void try_assignment(kp_config *config, const uint8_t *data, size_t size) {
  kp_error error = {0};
  char *assignment = malloc(size + 1);
  kp_assert(assignment != NULL, "out of memory");
  if (size > 0) memcpy(assignment, data, size);
  assignment[size] = 0;
  if (kp_config_set(config, assignment, &error) == KP_OK) check_round_trip(config);
  free(assignment);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  kp_error error = {0};
  kp_config *config = NULL;
  if (kp_config_parse((const char *)data, size, "input", &schema, NULL, 0, &config, &error) == KP_OK) {
    check_round_trip(config);
  } else {
    kp_assert(config == NULL && error.message[0] != 0, "a refusal has a message");
    kp_status status = kp_config_parse("{}", 2, "empty", &schema, NULL, 0, &config, &error);
    kp_assert(status == KP_OK, "%s", error.message);
  }
  try_assignment(config, data, size);
  kp_config_destroy(config);
  return 0;
}
