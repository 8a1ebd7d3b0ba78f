/* NVIDIA's nGPT, and the baseline of the same repository: {"model", "model_args", "iter_num", …}. */
#include <math.h>

#include "interchange/originals_import.h"

static const char *const needed[] = {"model.heads", "model.context", NULL};

/* Learned scales are stored times base_scale: one over the root of the width for nGPT, 0.02 for the baseline
 * (its train.py). */
static void describe_scale(const kp_tensors *t, bool normalised, int64_t width,
                           kp_import_settings *settings) {
  kp_import_set(settings, "model.sphere_scale=%.17g", normalised ? 1 / sqrt((double)width) : 0.02);
  kp_original_argument(t, "base_scale", "model.sphere_scale", settings);
}

static kp_status describe(const kp_tensors *t, kp_import_settings *settings, kp_imported *imported,
                          kp_error *error) {
  int64_t vocabulary, width, layers;
  const bool normalised = kp_tensors_find(t, "sz") != NULL;
  KP_TRY(kp_original_require_size(t, "transformer.wte.weight", 0, &vocabulary, error));
  KP_TRY(kp_original_require_size(t, "transformer.wte.weight", 1, &width, error));
  KP_TRY(kp_original_require_blocks(t, "transformer.h.%d.query.weight", &layers, error));
  kp_import_set(settings, "model.family=%s", normalised ? "ngpt" : "llama");
  kp_import_set(settings, "model.variant=upstream");
  kp_import_set(settings, "model.vocabulary=%lld", (long long)vocabulary);
  kp_import_set(settings, "model.width=%lld", (long long)width);
  kp_import_set(settings, "model.layers=%lld", (long long)layers);
  kp_import_set(settings, "model.bias=%s",
                kp_tensors_find(t, "transformer.h.0.query.bias") != NULL ? "true" : "false");
  kp_original_argument(t, "n_head", "model.heads", settings);
  kp_original_argument(t, "block_size", "model.context", settings);
  describe_scale(t, normalised, width, settings);
  kp_import_note(imported, "positions are encoded as published, which is no rotation; for a model trained "
                           "with the rotation that was meant: --set model.variant=exact");
  return KP_OK;
}

static const kp_original_format format = {"NVIDIA's nGPT", "ngpt", needed, NULL, describe};

static kp_status open_ngpt(const char *path, const kp_import_options *options, kp_imported *imported,
                           kp_error *error) {
  return kp_original_open(&format, path, options, imported, error);
}

static bool recognises(const char *path) {
  return kp_original_has(path, "transformer.h.0.query.weight");
}

const kp_importer kp_importer_ngpt = {.name = "ngpt",
                                      .what = "NVIDIA's nGPT and its baseline: ckpt.pt, or safetensors",
                                      .recognises = recognises,
                                      .open = open_ngpt,
                                      .read = kp_original_read,
                                      .unused = kp_original_unused,
                                      .close = kp_original_close};
