/* A data set and a model so small that training takes milliseconds in double precision.  Include
 * data/fixture.h's setup and teardown for the folder. */
#ifndef KAPPA_TESTS_SMALL_RUN_H
#define KAPPA_TESTS_SMALL_RUN_H

#include <jansson.h>
#include <stdint.h>

#include "data/fixture.h"

/* Prepares the set "text" in the folder, and writes small.yaml: one block, two heads, width 8, context 8,
 * four rows, 20 steps.  Returns the path of the configuration. */
const char *small_config(fixture *files);

/* Fails unless both files hold the same bytes. */
void small_check_same(const char *a, const char *b);

/* state.json of a checkpoint, without the seconds it took; json_decref. */
json_t *small_state(const char *run, int64_t step);

/* All lines of metrics.jsonl as an array; json_decref. */
json_t *small_metrics(const char *run);

/* "a, b, c": the names in a folder, sorted; hidden ones too.  In a buffer of the caller. */
const char *small_listing(const char *folder, char *text, size_t size);

/* Overwrites the first element of a tensor of doubles in a safetensors file. */
void small_poison(const char *path, const char *tensor, double value);

#endif
