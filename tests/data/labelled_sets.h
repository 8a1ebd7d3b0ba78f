/* Labelled sets that are prepared in a fixture's folder. */
#ifndef KAPPA_TESTS_DATA_LABELLED_SETS_H
#define KAPPA_TESTS_DATA_LABELLED_SETS_H

#include "data/fixture.h"

#include "data/labelled_prepare.h"

typedef struct prepared_set {
  kp_prepared prepared;
  kp_labelling labelling;
  bool fresh;
} prepared_set;

static inline kp_status prepare(const kp_labelled_prepare_options *options, prepared_set *set,
                                kp_error *error) {
  kp_status status = kp_prepare_labelled(options, &set->prepared, &set->labelling, &set->fresh, error);
  if (status == KP_OK) kp_labelling_clear(&set->labelling);
  return status;
}

static inline const char *write_text(fixture *files, const char *name, const char *text) {
  return fixture_write(files, name, text, strlen(text));
}

static inline void open_set(const char *folder, kp_labelled_set *set) {
  kp_error error = {0};
  check_ok(kp_labelled_open(folder, set, &error), &error);
}

/* `count` sentences, each twice. */
static inline const char *write_doubles(fixture *files, int count) {
  char *text = calloc((size_t)count + 1, 40);
  assert_non_null(text);
  strcpy(text, "label\tsentence\n");
  char *at = text + strlen(text);
  for (int i = 0; i < 2 * count; i++) at += sprintf(at, "%d\tsentence %d\n", i % 3, i % count);
  const char *path = write_text(files, "doubles.tsv", text);
  free(text);
  return path;
}

/* The set of twenty such sentences in the folder. */
static inline void prepare_doubles(fixture *files, const char *folder) {
  kp_error error = {0};
  prepared_set made;
  const char *input[] = {write_doubles(files, 20)};
  kp_labelled_prepare_options options = {
      .task = KP_TASK_CLASSIFY, .files = input, .file_count = 1, .folder = folder, .name = "doubles"};
  check_ok(prepare(&options, &made, &error), &error);
}

#endif
