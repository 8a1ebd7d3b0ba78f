#include "train/data_source.h"

#include <stdio.h>
#include <string.h>

#include "data/prepare.h"
#include "data/prepared.h"

/* data.path names a folder, or a set in the data folder. */
static kp_status find_folder(const kp_config *config, char out[KP_PATH_SIZE], kp_error *error) {
  const char *name = kp_config_string(config, "data.path");
  char base[KP_PATH_SIZE];
  if (name[0] == 0)
    return kp_config_fail(config, "data.path", error,
                          "no data is named: give a prepared folder, or the name of a data set");
  KP_TRY(kp_path_check(name, error));
  snprintf(out, KP_PATH_SIZE, "%s", name);
  if (kp_path_kind_of(name) == KP_PATH_FOLDER) return KP_OK;
  KP_TRY(kp_data_folder(base, error));
  KP_TRY(kp_path_join(out, base, name, error));
  if (kp_path_kind_of(out) == KP_PATH_FOLDER) return KP_OK;
  return kp_config_fail(config, "data.path", error,
                        "no folder %s and no data set %s; `kappa data get %s` prepares a known one, `kappa "
                        "data prepare` your text",
                        name, out, name);
}

static kp_status open_split(const kp_config *config, const char *key, const char *split,
                            kp_data_source *source, kp_tokens **tokens, kp_error *error) {
  const char *path = kp_config_string(config, key);
  if (path[0] == 0) path = source->folder;
  return kp_tokens_open(&path, 1, split, tokens, error);
}

static kp_status open_prepared(const kp_config *config, kp_data_source *source, kp_error *error) {
  KP_TRY(find_folder(config, source->folder, error));
  if (kp_prepared_state_of(source->folder) == KP_PREPARED_PARTIAL)
    return kp_config_fail(config, "data.path", error, "%s is half prepared: prepare it again",
                          source->folder);
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, source->folder, KP_TOKENIZER_FILE, error));
  if (kp_path_kind_of(path) == KP_PATH_FILE) KP_TRY(kp_tokenizer_open(path, &source->tokenizer, error));
  return KP_OK;
}

/* Token files of one's own need not have the separator of the set. */
static void find_separator(const kp_config *config, kp_data_source *source) {
  kp_prepared prepared;
  if (source->folder[0] == 0 || kp_config_string(config, "data.train")[0] != 0) return;
  if (kp_prepared_read(source->folder, &prepared, NULL) == KP_OK && prepared.separated)
    source->separator = prepared.separator;
}

/* Of a dialogue set the loss is that of the assistant's words, so bits per byte would have no meaning. */
static kp_status check_dialogue(const kp_config *config, kp_data_source *source, kp_error *error) {
  source->dialogue = kp_tokens_index(source->train) != NULL;
  if (source->dialogue) source->bytes_per_token = 0;
  if (source->dialogue == (kp_tokens_index(source->validation) != NULL)) return KP_OK;
  return kp_config_fail(config, "data.validation", error,
                        "of %s and %s only one has an index of conversations beside it",
                        kp_tokens_path(source->train, 0), kp_tokens_path(source->validation, 0));
}

static kp_status open_text(const kp_config *config, kp_data_source *source, kp_error *error) {
  KP_TRY(open_split(config, "data.train", "train", source, &source->train, error));
  KP_TRY(open_split(config, "data.validation", "val", source, &source->validation, error));
  source->shape.vocabulary =
      source->tokenizer != NULL ? source->tokenizer->vocabulary : kp_tokens_vocabulary(source->train);
  const uint64_t bytes = kp_tokens_text_bytes(source->validation);
  if (bytes > 0) source->bytes_per_token = (double)bytes / (double)kp_tokens_count(source->validation);
  find_separator(config, source);
  return check_dialogue(config, source, error);
}

static kp_status open_labelled(const kp_config *config, kp_data_source *source, kp_error *error) {
  static const char *const keys[] = {"data.train", "data.validation"};
  for (int i = 0; i < 2; i++)
    if (kp_config_string(config, keys[i])[0] != 0)
      return kp_config_fail(config, keys[i], error,
                            "token files have no labels, and the examples of %s cannot do without",
                            source->folder);
  KP_TRY(kp_labelled_open(source->folder, &source->labelled, error));
  source->train = source->labelled.train.tokens;
  source->validation = source->labelled.validation.tokens;
  source->shape = (kp_data_shape){.task = source->labelled.labelling.task,
                                  .vocabulary = kp_labelling_vocabulary(&source->labelled.labelling),
                                  .classes = source->labelled.labelling.labels.count};
  return KP_OK;
}

static kp_status open_all(const kp_config *config, kp_data_source *source, kp_error *error) {
  const bool bare =
      kp_config_string(config, "data.train")[0] != 0 && kp_config_string(config, "data.validation")[0] != 0;
  if (!bare) KP_TRY(open_prepared(config, source, error));
  const bool labelled = !bare && kp_labelling_stands_in(source->folder);
  KP_TRY((labelled ? open_labelled : open_text)(config, source, error));
  if (source->tokenizer != NULL) {
    KP_TRY(kp_tokens_check_tokenizer(source->train, source->tokenizer, error));
    KP_TRY(kp_tokens_check_tokenizer(source->validation, source->tokenizer, error));
  }
  return KP_OK;
}

kp_status kp_data_source_open(const kp_config *config, kp_data_source *source, kp_error *error) {
  *source = (kp_data_source){.separator = -1};
  kp_status status = open_all(config, source, error);
  if (status != KP_OK) kp_data_source_close(source);
  return status;
}

void kp_data_source_close(kp_data_source *source) {
  if (source->shape.task == KP_TASK_LANGUAGE) {
    kp_tokens_destroy(source->train);
    kp_tokens_destroy(source->validation);
  }
  kp_labelled_close(&source->labelled);
  kp_tokenizer_destroy(source->tokenizer);
  *source = (kp_data_source){0};
}
