#include "data/labelled.h"

#include <stdlib.h>
#include <string.h>

#include "core/path.h"
#include "core/safetensors.h"
#include "data/batches.h"
#include "data/prepared.h"

static void close_examples(kp_examples *examples) {
  kp_tokens_destroy(examples->tokens);
  free(examples->offsets);
  free(examples->labels);
  *examples = (kp_examples){0};
}

void kp_labelled_close(kp_labelled_set *set) {
  close_examples(&set->train);
  close_examples(&set->validation);
  kp_labelling_clear(&set->labelling);
}

/* ---- the index of a split ---- */

/* Offsets as int64: the file's type is compared, since safetensors converts no int64. */
static kp_status read_offsets(const kp_safetensors *file, kp_examples *examples, kp_error *error) {
  const kp_safetensors_entry *entry;
  const int64_t shape[] = {examples->count + 1};
  KP_TRY(kp_safetensors_require_shape(file, "offsets", 1, shape, &entry, error));
  if (entry->dtype != KP_I64) return kp_fail(error, KP_ERR_INPUT, "its offsets are not int64");
  examples->offsets = malloc((size_t)shape[0] * sizeof *examples->offsets);
  if (examples->offsets == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %lld examples", (long long)examples->count);
  return kp_safetensors_read(entry, KP_I64, examples->offsets, error);
}

static kp_status check_offsets(kp_examples *examples, kp_error *error) {
  const int64_t tokens = kp_tokens_count(examples->tokens);
  for (int64_t e = 0; e < examples->count; e++) {
    const int64_t begin = examples->offsets[e], end = examples->offsets[e + 1];
    if (begin < 0 || end <= begin || end > tokens || (e == 0 && begin != 0))
      return kp_fail(error, KP_ERR_INPUT, "example %lld lies at tokens %lld to %lld of %lld", (long long)e,
                     (long long)begin, (long long)end, (long long)tokens);
    if (end - begin > examples->longest) examples->longest = end - begin;
  }
  if (examples->offsets[examples->count] == tokens) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "its examples end at token %lld of %lld",
                 (long long)examples->offsets[examples->count], (long long)tokens);
}

static kp_status read_labels(const kp_safetensors *file, const kp_labelling *labelling, kp_examples *examples,
                             kp_error *error) {
  const kp_safetensors_entry *entry;
  const bool words = labelling->task == KP_TASK_TAG;
  const int64_t count = words ? kp_tokens_count(examples->tokens) : examples->count;
  KP_TRY(kp_safetensors_require_shape(file, "labels", 1, &count, &entry, error));
  examples->labels = malloc((size_t)count * sizeof *examples->labels);
  if (examples->labels == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %lld labels", (long long)count);
  KP_TRY(kp_safetensors_read(entry, KP_I32, examples->labels, error));
  for (int64_t i = 0; i < count; i++) {
    const int32_t label = examples->labels[i];
    if (label >= labelling->labels.count || label < (words ? KP_IGNORE : 0))
      return kp_fail(error, KP_ERR_INPUT, "label %d at place %lld is none of the %d", label, (long long)i,
                     labelling->labels.count);
  }
  return KP_OK;
}

static kp_status read_index(const kp_labelling *labelling, const kp_safetensors *file, kp_examples *examples,
                            kp_error *error) {
  KP_TRY(read_offsets(file, examples, error));
  KP_TRY(check_offsets(examples, error));
  return read_labels(file, labelling, examples, error);
}

static kp_status open_examples(const char *folder, const char *tokens, const char *index, int64_t count,
                               const kp_labelling *labelling, kp_examples *examples, kp_error *error) {
  char path[KP_PATH_SIZE];
  const char *paths[] = {path};
  kp_safetensors *file;
  KP_TRY(kp_path_join(path, folder, tokens, error));
  KP_TRY(kp_tokens_open(paths, 1, NULL, &examples->tokens, error));
  KP_TRY(kp_path_join(path, folder, index, error));
  KP_TRY(kp_safetensors_open(path, &file, error));
  examples->count = count;
  kp_status status = read_index(labelling, file, examples, error);
  kp_safetensors_close(file);
  return status == KP_OK ? KP_OK : kp_context(error, "%s", path);
}

static kp_status open_all(const char *folder, kp_labelled_set *set, kp_error *error) {
  kp_prepared prepared;
  KP_TRY(kp_prepared_read(folder, &prepared, error));
  KP_TRY(kp_labelling_read(folder, &set->labelling, error));
  KP_TRY(open_examples(folder, KP_TRAIN_FILE, KP_TRAIN_EXAMPLES_FILE, set->labelling.train.examples,
                       &set->labelling, &set->train, error));
  return open_examples(folder, KP_VALIDATION_FILE, KP_VALIDATION_EXAMPLES_FILE,
                       set->labelling.validation.examples, &set->labelling, &set->validation, error);
}

kp_status kp_labelled_open(const char *folder, kp_labelled_set *set, kp_error *error) {
  *set = (kp_labelled_set){0};
  kp_status status = open_all(folder, set, error);
  if (status != KP_OK) kp_labelled_close(set);
  return status;
}
