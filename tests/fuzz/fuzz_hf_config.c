/* Feeds hostile bytes to the readers of what stands beside the tensors of a Hugging Face folder: config.json,
 * and the index of shards.  What is accepted must be a model that can be described. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "interchange/hf_import.h"
#include "interchange/tensors_folder.h"
#include "models/model.h"

static void read_config(const char *data, size_t size) {
  kp_error error = {0};
  kp_imported imported = {0};
  kp_model_options model;
  const kp_hf_family *family;
  json_error_t problem;
  json_t *document = json_loadb(data, size, JSON_REJECT_DUPLICATES, &problem);
  if (document == NULL) return;
  if (kp_hf_translate(document, "config.json", &(kp_import_options){0}, &family, &imported, &error) ==
      KP_OK) {
    if (kp_model_options_read(imported.config, NULL, &model, &error) == KP_OK) {
      if (model.vocabulary < 1 || model.layers < 1 || model.heads % model.attention.kv_heads != 0) abort();
      kp_model_options_destroy(&model);
    } else if (error.message[0] == 0) {
      abort();
    }
  } else if (error.message[0] == 0) {
    abort();
  }
  kp_config_destroy(imported.config);
  json_decref(document);
}

/* The shards that it names are looked for in an empty folder: there are none. */
static void read_index(const char *data, size_t size) {
  static char folder[] = "/tmp/kappa-fuzz-hf-XXXXXX", path[64];
  kp_error error = {0};
  kp_tensor_files files;
  if (path[0] == 0) {
    if (mkdtemp(folder) == NULL) abort();
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
  }
  FILE *file = fopen(path, "wb");
  if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0) abort();
  if (kp_tensor_files_find(folder, &files, &error) == KP_OK) abort();
  if (error.message[0] == 0) abort();
  kp_tensor_files_clear(&files);
  unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  read_config((const char *)data, size);
  read_index((const char *)data, size);
  return 0;
}
