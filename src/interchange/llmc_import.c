#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype_convert.h"
#include "core/file.h"
#include "interchange/llmc.h"

typedef struct source {
  kp_file_map map;
  kp_llmc_shape shape;
} source;

static bool recognises(const char *path) {
  int32_t magic = 0;
  FILE *file = kp_path_kind_of(path) == KP_PATH_FILE ? fopen(path, "rb") : NULL;
  if (file == NULL) return false;
  const bool read = fread(&magic, sizeof magic, 1, file) == 1;
  fclose(file);
  return read && magic == KP_LLMC_MAGIC;
}

static void describe(const kp_llmc_shape *s, kp_import_settings *settings) {
  kp_import_set(settings, "model.family=gpt");
  kp_import_set(settings, "model.activation=gelu_tanh");
  kp_import_set(settings, "model.bias=true");
  kp_import_set(settings, "model.vocabulary=%lld", (long long)s->vocabulary);
  kp_import_set(settings, "model.context=%lld", (long long)s->context);
  kp_import_set(settings, "model.layers=%lld", (long long)s->layers);
  kp_import_set(settings, "model.heads=%lld", (long long)s->heads);
  kp_import_set(settings, "model.width=%lld", (long long)s->width);
}

static void close_source(kp_imported *imported) {
  source *s = imported->weights;
  if (s == NULL) return;
  kp_file_map_close(&s->map);
  free(s);
  imported->weights = NULL;
}

static kp_status fill(const char *path, const kp_import_options *options, kp_imported *imported,
                      kp_error *error) {
  source *s = imported->weights;
  kp_import_settings settings = {.count = 0};
  KP_TRY(kp_file_map_open(path, KP_EMPTY_REFUSED, &s->map, error));
  KP_TRY(kp_llmc_read_header(s->map.data, s->map.size, path, &s->shape, error));
  describe(&s->shape, &settings);
  snprintf(imported->source, sizeof imported->source, "a GPT-2 of llm.c");
  KP_TRY(kp_import_configure(&settings, options, &imported->config, error));
  if (kp_config_integer(imported->config, "model.layers") == s->shape.layers) return KP_OK;
  return kp_config_fail(imported->config, "model.layers", error, "the file has %lld",
                        (long long)s->shape.layers);
}

static kp_status open_source(const char *path, const kp_import_options *options, kp_imported *imported,
                             kp_error *error) {
  *imported = (kp_imported){.weights = calloc(1, sizeof(source))};
  if (imported->weights == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to open %s", path);
  return fill(path, options, imported, error);
}

/* Of the two tables the first rows: tokens behind the vocabulary are padding, positions behind a shorter
 * context are never reached. */
static kp_status read_parameter(kp_imported *imported, const char *name, int dimensions, const int64_t *shape,
                                double *values, kp_error *error) {
  const source *s = imported->weights;
  const bool table =
      strcmp(name, "transformer.wte.weight") == 0 || strcmp(name, "transformer.wpe.weight") == 0;
  int64_t first, count, wanted = 1;
  for (int i = 0; i < dimensions; i++) wanted *= shape[i];
  if (!kp_llmc_find(&s->shape, name, &first, &count))
    return kp_fail(error, KP_ERR_INPUT, "a GPT-2 of llm.c has nothing that could be kappa's %s", name);
  const bool fits = table ? wanted <= count && shape[1] == s->shape.width : wanted == count;
  if (!fits)
    return kp_fail(error, KP_ERR_INPUT, "the file has %lld numbers for %s, and the model %lld: check --set",
                   (long long)count, name, (long long)wanted);
  const unsigned char *data = s->map.data + KP_LLMC_HEADER * sizeof(int32_t);
  kp_dtype_convert(s->shape.dtype, data + (size_t)first * kp_dtype_size(s->shape.dtype), (size_t)wanted,
                   KP_F64, values);
  return KP_OK;
}

/* The file has what its header says and nothing else. */
static const char *unused(const kp_imported *imported) {
  (void)imported;
  return NULL;
}

const kp_importer kp_importer_llmc = {.name = "llmc",
                                      .what = "llm.c: GPT-2 checkpoints, .bin of version 3 and 5",
                                      .recognises = recognises,
                                      .open = open_source,
                                      .read = read_parameter,
                                      .unused = unused,
                                      .close = close_source};
