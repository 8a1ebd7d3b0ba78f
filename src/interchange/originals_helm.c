/* HELM-D and HELM-MiCE: state dicts.  All sizes but the context follow from shapes; sizes there count the
 * time coordinate, kappa's do not. */
#include <stdio.h>
#include <string.h>

#include "interchange/originals_import.h"

static const char *const needed[] = {"model.context", NULL};

/* A dimension of a tensor; what is missing fails. */
#define SIZE(variable, name, dimension)                                                                      \
  int64_t variable;                                                                                          \
  KP_TRY(kp_original_require_size(t, name, dimension, &variable, error))

static void set(kp_import_settings *settings, const char *key, int64_t value) {
  kp_import_set(settings, "%s=%lld", key, (long long)value);
}

static kp_status refuse_shapes(const kp_tensors *t, const char *what, kp_error *error) {
  return kp_fail(error, KP_ERR_INPUT, "the shapes of '%s' agree with no number of heads: %s",
                 kp_tensors_label(t), what);
}

/* Whether it is the curvature of a manifold, "….manifold_in.k"; those of experts are parameters. */
static bool is_manifold(const char *name) {
  const char *last = strrchr(name, '.');
  if (last == NULL || strcmp(last, ".k") != 0) return false;
  const char *before = last;
  while (before > name && before[-1] != '.') before--;
  return strstr(before, "manifold") != NULL && strncmp(before, "expert_", 7) != 0;
}

/* The published code makes and never runs a residual for positions, and adds a number to all scores, which
 * softmax takes away.  Every module lists the manifold that it works on, of the constant curvature -1. */
static kp_status skips(kp_tensors *t, const kp_tensors_entry *entry, bool *skipped, kp_error *error) {
  static const char *const names[] = {"token_embed.add_pos.w_y",
                                      "token_embed.add_pos.scale",
                                      "embed.add_pos.w_y",
                                      "embed.add_pos.scale",
                                      "resblocks.%d.attn.bias",
                                      "layers.%d.attn.bias",
                                      NULL};
  double k;
  *skipped = kp_original_is_one_of(entry->name, names);
  if (!is_manifold(entry->name) || entry->elements != 1) return KP_OK;
  KP_TRY(kp_tensors_read(t, entry, &k, error));
  *skipped = k == 1;
  if (*skipped) return KP_OK;
  return kp_fail(error, KP_ERR_UNSUPPORTED, "'%s' of '%s' is %g, and kappa's stream has the constant 1",
                 entry->name, kp_tensors_label(t), k);
}

/* ---- HELM-D ---- */

static kp_status describe_dense(const kp_tensors *t, kp_import_settings *settings, kp_imported *imported,
                                kp_error *error) {
  (void)imported;
  SIZE(vocabulary, "token_embed.embedding", 0);
  SIZE(width, "final_proj.linear.weight", 0);
  SIZE(hidden, "resblocks.0.mlp.w1.linear.weight", 0);
  SIZE(inner, "resblocks.0.attn.Wq.weight", 0);
  SIZE(ambient, "resblocks.0.attn.final_linear.weight", 1); /* the same with a time for each head */
  const int64_t heads = ambient - inner;
  int64_t layers;
  KP_TRY(kp_original_require_blocks(t, "resblocks.%d.ln_1.weight", &layers, error));
  if (heads < 1 || inner % heads != 0) return refuse_shapes(t, "resblocks.0.attn", error);
  kp_import_set(settings, "model.family=helm_d");
  kp_import_set(settings, "model.variant=upstream");
  set(settings, "model.vocabulary", vocabulary);
  set(settings, "model.width", width);
  set(settings, "model.hidden", hidden);
  set(settings, "model.layers", layers);
  set(settings, "model.heads", heads);
  set(settings, "model.attention.head_size", inner / heads);
  return KP_OK;
}

static const kp_original_format dense = {"HELM-D", "helm-d", needed, skips, describe_dense};

/* ---- HELM-MiCE ---- */

/* With H heads of p plain and ρ rotated channels of a key, and v of a value, the maps have these rows:
 *
 *   wq  H (p + ρ)      wkv_a  r + ρ      wkv_b  H (p + v)      wo  H (v + 1) columns
 *
 * so that H (1 + ρ) = wq - wkv_b + wo. */
static kp_status describe_latent(const kp_tensors *t, kp_import_settings *settings, kp_error *error) {
  SIZE(rank, "layers.0.attn.kv_norm.weight", 0);
  SIZE(queries, "layers.0.attn.wq.linear.weight", 0);
  SIZE(latent, "layers.0.attn.wkv_a.linear.weight", 0);
  SIZE(keys, "layers.0.attn.wkv_b.linear.weight", 0);
  SIZE(values, "layers.0.attn.wo.linear.weight", 1);
  const int64_t rotary = latent - rank, together = queries - keys + values;
  if (rotary < 1 || together < 1 || together % (1 + rotary) != 0)
    return refuse_shapes(t, "layers.0.attn", error);
  const int64_t heads = together / (1 + rotary);
  if (queries % heads != 0 || values % heads != 0 || queries / heads <= rotary || values / heads < 2)
    return refuse_shapes(t, "layers.0.attn", error);
  set(settings, "model.heads", heads);
  set(settings, "model.latent.rank", rank);
  set(settings, "model.latent.query_rank", 0);
  set(settings, "model.latent.plain", queries / heads - rotary);
  set(settings, "model.latent.rotary", rotary);
  set(settings, "model.latent.value", values / heads - 1);
  return KP_OK;
}

/* Writes the name of a tensor of a layer. */
static const char *name_of(char *out, size_t size, int64_t layer, const char *rest) {
  snprintf(out, size, "layers.%lld.%s", (long long)layer, rest);
  return out;
}

static kp_status describe_experts(const kp_tensors *t, int64_t layers, kp_import_settings *settings,
                                  kp_error *error) {
  char name[96], pattern[96];
  int64_t first = 0, routed, hidden, shared;
  while (first < layers && kp_tensors_find(t, name_of(name, sizeof name, first, "ffn.gate.weight")) == NULL)
    first++;
  set(settings, "model.experts.dense_layers", first);
  if (first > 0) {
    SIZE(dense_hidden, "layers.0.ffn.w1.linear.weight", 0);
    set(settings, "model.hidden", dense_hidden);
  }
  if (first == layers) return kp_fail(error, KP_ERR_INPUT, "'%s' has no experts", kp_tensors_label(t));
  name_of(pattern, sizeof pattern, first, "ffn.experts.%d.w1.linear.weight");
  routed = kp_original_blocks(t, pattern);
  name_of(name, sizeof name, first, "ffn.experts.0.w1.linear.weight");
  KP_TRY(kp_original_require_size(t, name, 0, &hidden, error));
  name_of(name, sizeof name, first, "ffn.shared_experts.w1.linear.weight");
  KP_TRY(kp_original_require_size(t, name, 0, &shared, error));
  set(settings, "model.experts.routed", routed);
  set(settings, "model.experts.hidden", hidden);
  set(settings, "model.experts.shared", (shared + 1) / (hidden + 1));
  name_of(name, sizeof name, first, "ffn.experts.0.expert_manifold.k");
  kp_import_set(settings, "model.experts.curvature.mode=%s",
                kp_tensors_find(t, name) != NULL ? "parametric" : "fixed");
  return KP_OK;
}

static kp_status describe_mice(const kp_tensors *t, kp_import_settings *settings, kp_imported *imported,
                               kp_error *error) {
  SIZE(vocabulary, "head.weight", 0);
  SIZE(width, "final_proj.linear.weight", 0);
  int64_t layers;
  KP_TRY(kp_original_require_blocks(t, "layers.%d.attn_norm.weight", &layers, error));
  kp_import_set(settings, "model.family=helm_mice");
  kp_import_set(settings, "model.variant=upstream");
  kp_import_set(settings, "model.embedding=%s",
                kp_tensors_find(t, "embed.embedding") != NULL ? "manifold" : "table");
  set(settings, "model.vocabulary", vocabulary);
  set(settings, "model.width", width);
  set(settings, "model.layers", layers);
  KP_TRY(describe_latent(t, settings, error));
  kp_import_note(imported, "two active experts in one group, chosen by a softmax, as published; what was "
                           "trained otherwise needs --set model.experts.score, .active, .groups, "
                           ".limited_groups or .route_scale, and model.rotary.base");
  return describe_experts(t, layers, settings, error);
}

static const kp_original_format mice = {"HELM-MiCE", "helm-mice", needed, skips, describe_mice};

/* ---- the importer ---- */

static kp_status open_helm(const char *path, const kp_import_options *options, kp_imported *imported,
                           kp_error *error) {
  const bool experts = kp_original_has(path, "layers.0.attn.wkv_a.linear.weight");
  return kp_original_open(experts ? &mice : &dense, path, options, imported, error);
}

static bool recognises(const char *path) {
  return kp_original_has(path, "layers.0.attn.wkv_a.linear.weight") ||
         kp_original_has(path, "resblocks.0.attn.final_linear.weight");
}

const kp_importer kp_importer_helm = {.name = "helm",
                                      .what = "HELM-D and HELM-MiCE: state dicts as .pt or safetensors",
                                      .recognises = recognises,
                                      .open = open_helm,
                                      .read = kp_original_read,
                                      .unused = kp_original_unused,
                                      .close = kp_original_close};
