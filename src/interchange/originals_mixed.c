/* nanoGPT's checkpoints, and those of the mixed-curvature transformer (tomoqt's hyperbolic_transformer),
 * which is written as a change of nanoGPT: both are files of torch.save, {"model", "model_args", "iter_num",
 * …}, whose tensors are named and laid out as kappa's. */

#include "interchange/originals_import.h"

static const char *const needed[] = {"model.heads", NULL};
static const char *const needed_curved[] = {"model.heads", "model.curvature.value", NULL};

/* What both have; the shapes say all sizes but the number of heads. */
static kp_status describe_sizes(const kp_tensors *t, const char *family, kp_import_settings *settings,
                                kp_error *error) {
  int64_t vocabulary, width, context, layers;
  KP_TRY(kp_original_require_size(t, "transformer.wte.weight", 0, &vocabulary, error));
  KP_TRY(kp_original_require_size(t, "transformer.wte.weight", 1, &width, error));
  KP_TRY(kp_original_require_size(t, "transformer.wpe.weight", 0, &context, error));
  KP_TRY(kp_original_require_blocks(t, "transformer.h.%d.attn.c_attn.weight", &layers, error));
  kp_import_set(settings, "model.family=%s", family);
  kp_import_set(settings, "model.vocabulary=%lld", (long long)vocabulary);
  kp_import_set(settings, "model.width=%lld", (long long)width);
  kp_import_set(settings, "model.context=%lld", (long long)context);
  kp_import_set(settings, "model.layers=%lld", (long long)layers);
  kp_import_set(settings, "model.bias=%s",
                kp_tensors_find(t, "transformer.ln_f.bias") != NULL ? "true" : "false");
  kp_original_argument(t, "dropout", "model.dropout", settings);
  kp_original_argument(t, "n_head", "model.heads", settings);
  return KP_OK;
}

/* ---- nanoGPT ---- */

/* The mask of attention is stored by old versions; the head is the embedding's table. */
static kp_status skips_nanogpt(kp_tensors *t, const kp_tensors_entry *entry, bool *skipped, kp_error *error) {
  static const char *const names[] = {"transformer.h.%d.attn.bias", "lm_head.weight", NULL};
  (void)t;
  (void)error;
  *skipped = kp_original_is_one_of(entry->name, names);
  return KP_OK;
}

static kp_status describe_nanogpt(const kp_tensors *t, kp_import_settings *settings, kp_imported *imported,
                                  kp_error *error) {
  (void)imported;
  return describe_sizes(t, "gpt", settings, error);
}

static const kp_original_format nanogpt = {"nanoGPT", "gpt", needed, skips_nanogpt, describe_nanogpt};

static kp_status open_nanogpt(const char *path, const kp_import_options *options, kp_imported *imported,
                              kp_error *error) {
  return kp_original_open(&nanogpt, path, options, imported, error);
}

/* transformers names GPT-2's tensors alike, but stores them transposed. */
static bool recognises_nanogpt(const char *path) {
  kp_tensors *t;
  if (!kp_tensors_recognises(path) || kp_tensors_open(path, &t, NULL) != KP_OK) return false;
  static const char name[] = "transformer.h.0.attn.c_attn.weight";
  const int64_t width = kp_original_size(t, "transformer.wte.weight", 1);
  const bool found =
      width > 0 && kp_original_size(t, name, 0) == 3 * width && kp_original_size(t, name, 1) == width;
  kp_tensors_close(t);
  return found;
}

const kp_importer kp_importer_nanogpt = {.name = "nanogpt",
                                         .what = "nanoGPT: ckpt.pt",
                                         .recognises = recognises_nanogpt,
                                         .open = open_nanogpt,
                                         .read = kp_original_read,
                                         .unused = kp_original_unused,
                                         .close = kp_original_close};

/* ---- the mixed-curvature transformer ---- */

/* Beside those of nanoGPT, what the published code makes and never applies: the output projection of
 * attention, and a block's own curvature where it is predicted. */
static kp_status skips_mixed(kp_tensors *t, const kp_tensors_entry *entry, bool *skipped, kp_error *error) {
  static const char *const names[] = {"transformer.h.%d.attn.c_proj.weight",
                                      "transformer.h.%d.attn.c_proj.bias", NULL};
  static const char *const own[] = {"transformer.h.%d.c", NULL};
  const bool predicted = kp_tensors_find(t, "transformer.h.0.curvature_predictor.weight") != NULL;
  KP_TRY(skips_nanogpt(t, entry, skipped, error));
  if (kp_original_is_one_of(entry->name, names)) *skipped = true;
  if (predicted && kp_original_is_one_of(entry->name, own)) *skipped = true;
  return KP_OK;
}

/* Which curvatures there are says how many numbers are learned; fixed ones are told by the user.  A curvature
 * of one number has the scalar path, one of many a space for each head. */
static void describe_curvature(const kp_tensors *t, kp_import_settings *settings) {
  const int64_t own = kp_original_size(t, "transformer.h.0.c", 0);
  const int64_t shared = kp_original_size(t, "shared_curvature", 0);
  const int64_t predicted = kp_original_size(t, "transformer.h.0.curvature_predictor.bias", 0);
  const int64_t groups = predicted > 0 ? predicted : own > 0 ? own : shared;
  kp_import_set(settings, "model.curvature.mode=%s", own > 0 ? "random" : shared > 0 ? "tied" : "fixed");
  kp_import_set(settings, "model.curvature.per_head=%s", groups > 1 ? "true" : "false");
  kp_import_set(settings, "model.curvature.dynamic=%s", predicted > 0 ? "true" : "false");
  kp_import_set(settings, "model.curvature.embedding=%s",
                kp_tensors_find(t, "embedding_curvature") != NULL ? "true" : "false");
  if (groups > 1) kp_import_set(settings, "model.heads=%lld", (long long)groups);
  /* Learned ones overwrite their start. */
  if (groups > 0) kp_import_set(settings, "model.curvature.value=[-1]");
}

static kp_status describe_mixed(const kp_tensors *t, kp_import_settings *settings, kp_imported *imported,
                                kp_error *error) {
  KP_TRY(describe_sizes(t, "mixed", settings, error));
  kp_import_set(settings, "model.variant=upstream");
  kp_import_set(settings, "model.attention.output_projection=false");
  describe_curvature(t, settings);
  if (kp_tensors_find(t, "transformer.h.0.curvature_predictor.weight") != NULL)
    kp_import_note(imported, "its curvature is predicted from the last token of a sequence, as published: "
                             "logits of a token depend on later ones");
  return KP_OK;
}

static const kp_original_format mixed = {"the mixed-curvature transformer", "mixed", needed_curved,
                                         skips_mixed, describe_mixed};

static kp_status open_mixed(const char *path, const kp_import_options *options, kp_imported *imported,
                            kp_error *error) {
  return kp_original_open(&mixed, path, options, imported, error);
}

static bool recognises_mixed(const char *path) {
  return kp_original_has(path, "transformer.h.0.c") || kp_original_has(path, "shared_curvature") ||
         kp_original_has(path, "embedding_curvature");
}

const kp_importer kp_importer_mixed = {
    .name = "mixed",
    .what = "the mixed-curvature transformer: ckpt.pt, or its tensors as safetensors",
    .recognises = recognises_mixed,
    .open = open_mixed,
    .read = kp_original_read,
    .unused = kp_original_unused,
    .close = kp_original_close};
