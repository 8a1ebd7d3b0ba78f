#include "study/study_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config_yaml.h"
#include "core/file.h"
#include "core/number.h"
#include "train/settings.h"

enum { MOST_SEEDS = 1000, DEFAULT_ANALYZE = 8192 };

/* ---- reading ---- */

typedef struct reader {
  kp_study_plan *plan;
  const kp_yaml_document *document;
  char folder[KP_PATH_SIZE]; /* of the plan's file */
  kp_error *error;
} reader;

static kp_status refuse(reader *r, const kp_yaml_entry *entry, const char *words) {
  return kp_fail(r->error, KP_ERR_INPUT, "%s:%zu: %s %s", r->plan->path, entry->line, entry->key, words);
}

static kp_status read_text(reader *r, const kp_yaml_entry *entry, const char **text) {
  if (entry->kind != KP_YAML_SCALAR) return refuse(r, entry, "must be one text");
  *text = kp_arena_text(r->plan->arena, entry->items[0].text);
  return KP_OK;
}

/* A path relative to the plan's file. */
static kp_status read_path(reader *r, const kp_yaml_entry *entry, const char **path) {
  char joined[KP_PATH_SIZE];
  KP_TRY(read_text(r, entry, path));
  if (**path == 0) return refuse(r, entry, "must name a configuration file");
  if (**path == '/') return KP_OK;
  KP_TRY(kp_path_join(joined, r->folder, *path, r->error));
  *path = kp_arena_text(r->plan->arena, joined);
  return KP_OK;
}

static kp_status read_sets(reader *r, const kp_yaml_entry *entry, kp_settings_list *sets) {
  if (entry->kind != KP_YAML_LIST) return refuse(r, entry, "must be a list of settings, [key=value, …]");
  sets->list = kp_arena_take(r->plan->arena, (entry->count + 1) * sizeof *sets->list);
  sets->count = entry->count;
  for (size_t i = 0; i < entry->count; i++) {
    if (strchr(entry->items[i].text, '=') == NULL)
      return refuse(r, entry, "has a setting that is not key=value");
    sets->list[i] = kp_arena_text(r->plan->arena, entry->items[i].text);
  }
  return KP_OK;
}

static kp_status read_seeds(reader *r, const kp_yaml_entry *entry) {
  kp_study_plan *plan = r->plan;
  if (entry->kind != KP_YAML_LIST || entry->count == 0 || entry->count > MOST_SEEDS)
    return refuse(r, entry, "must be a list of 1 to 1000 seeds");
  plan->seed_count = (int)entry->count;
  plan->seeds = kp_arena_take(plan->arena, entry->count * sizeof *plan->seeds);
  for (size_t i = 0; i < entry->count; i++) {
    if (kp_number_integer(entry->items[i].text, &plan->seeds[i]) != KP_NUMBER_OK || plan->seeds[i] < 0)
      return refuse(r, entry, "has a seed that is no whole number from 0 on");
    for (size_t j = 0; j < i; j++)
      if (plan->seeds[j] == plan->seeds[i]) return refuse(r, entry, "has a seed twice");
  }
  return KP_OK;
}

static kp_status read_analyze(reader *r, const kp_yaml_entry *entry) {
  if (entry->kind != KP_YAML_SCALAR ||
      kp_number_integer(entry->items[0].text, &r->plan->analyze) != KP_NUMBER_OK || r->plan->analyze < 0)
    return refuse(r, entry, "must be a number of tokens, or 0");
  return KP_OK;
}

/* The name behind "texts." or "variants.", up to the next point; NULL when it may name no folder. */
static const char *read_name(reader *r, const char *key) {
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
  const size_t length = strcspn(key, ".");
  if (length == 0 || strspn(key, allowed) < length) return NULL;
  return kp_arena_format(r->plan->arena, "%.*s", (int)length, key);
}

static kp_status read_study_text(reader *r, const kp_yaml_entry *entry, const char *key) {
  kp_study_text *text = &r->plan->texts[r->plan->text_count++];
  text->name = read_name(r, key);
  if (text->name == NULL || strchr(key, '.') != NULL)
    return refuse(r, entry, "must have a name of letters, digits, - and _");
  return read_sets(r, entry, &text->sets);
}

/* The variant of that name, new or the last one. */
static kp_study_variant *find_variant(kp_study_plan *plan, const char *name) {
  for (int i = 0; i < plan->variant_count; i++)
    if (strcmp(plan->variants[i].name, name) == 0) return &plan->variants[i];
  plan->variants[plan->variant_count].name = name;
  return &plan->variants[plan->variant_count++];
}

static kp_status read_variant(reader *r, const kp_yaml_entry *entry, const char *key) {
  const char *name = read_name(r, key), *part = strchr(key, '.');
  if (name == NULL) return refuse(r, entry, "must have a name of letters, digits, - and _");
  kp_study_variant *variant = find_variant(r->plan, name);
  if (part == NULL) return entry->kind == KP_YAML_MAPPING ? KP_OK : read_sets(r, entry, &variant->sets);
  if (strcmp(part, ".config") == 0) return read_path(r, entry, &variant->config);
  if (strcmp(part, ".set") == 0) return read_sets(r, entry, &variant->sets);
  return refuse(r, entry, "is not known; a variant has config and set, or is a list of settings");
}

static kp_status read_entry(reader *r, const kp_yaml_entry *entry) {
  static const char texts[] = "texts.", variants[] = "variants.";
  kp_study_plan *plan = r->plan;
  if (strcmp(entry->key, "title") == 0) return read_text(r, entry, &plan->title);
  if (strcmp(entry->key, "about") == 0) return read_text(r, entry, &plan->about);
  if (strcmp(entry->key, "config") == 0) return read_path(r, entry, &plan->config);
  if (strcmp(entry->key, "set") == 0) return read_sets(r, entry, &plan->sets);
  if (strcmp(entry->key, "seeds") == 0) return read_seeds(r, entry);
  if (strcmp(entry->key, "analyze") == 0) return read_analyze(r, entry);
  if (strncmp(entry->key, texts, strlen(texts)) == 0)
    return read_study_text(r, entry, entry->key + strlen(texts));
  if (strncmp(entry->key, variants, strlen(variants)) == 0)
    return read_variant(r, entry, entry->key + strlen(variants));
  const bool group = strcmp(entry->key, "texts") == 0 || strcmp(entry->key, "variants") == 0;
  if (group && entry->kind == KP_YAML_MAPPING) return KP_OK;
  return refuse(r, entry,
                group
                    ? "must name each with its settings"
                    : "is not known; a study has title, about, config, set, seeds, analyze, texts, variants");
}

static kp_status check(reader *r) {
  kp_study_plan *plan = r->plan;
  if (plan->variant_count == 0)
    return kp_fail(r->error, KP_ERR_INPUT, "%s: no variants: there is nothing to train", plan->path);
  for (int i = 0; i < plan->variant_count; i++)
    if (plan->config == NULL && plan->variants[i].config == NULL)
      return kp_fail(r->error, KP_ERR_INPUT, "%s: variant %s has no configuration to start from: give config",
                     plan->path, plan->variants[i].name);
  if (plan->text_count == 0) plan->texts[plan->text_count++] = (kp_study_text){.name = ""};
  if (plan->seed_count == 0) {
    plan->seeds = kp_arena_take(plan->arena, sizeof *plan->seeds);
    plan->seeds[plan->seed_count++] = 1;
  }
  return KP_OK;
}

static kp_status read_document(kp_study_plan *plan, const kp_yaml_document *document, kp_error *error) {
  reader r = {.plan = plan, .document = document, .error = error};
  const char *name;
  KP_TRY(kp_path_split(plan->path, r.folder, &name, error));
  plan->texts = kp_arena_take(plan->arena, (document->count + 1) * sizeof *plan->texts);
  plan->variants = kp_arena_take(plan->arena, (document->count + 1) * sizeof *plan->variants);
  for (size_t i = 0; i < document->count; i++) KP_TRY(read_entry(&r, &document->entries[i]));
  return check(&r);
}

kp_status kp_study_plan_open(const char *path, kp_study_plan *plan, kp_error *error) {
  char *text = NULL;
  size_t size;
  kp_yaml_document document = {0};
  *plan = (kp_study_plan){.arena = kp_arena_create(), .title = "", .about = "", .analyze = DEFAULT_ANALYZE};
  kp_status status = kp_path_check(path, error);
  if (status == KP_OK) {
    snprintf(plan->path, sizeof plan->path, "%s", path);
    status = kp_file_read_all(path, KP_YAML_SIZE_LIMIT, &text, &size, error);
  }
  if (status == KP_OK) status = kp_yaml_read(text, size, path, &document, error);
  if (status == KP_OK) status = read_document(plan, &document, error);
  kp_yaml_clear(&document);
  free(text);
  if (status != KP_OK) kp_study_plan_close(plan);
  return status;
}

void kp_study_plan_close(kp_study_plan *plan) {
  if (plan->arena != NULL) kp_arena_destroy(plan->arena);
  *plan = (kp_study_plan){0};
}

/* ---- runs ---- */

int kp_study_plan_runs(const kp_study_plan *plan) {
  return plan->text_count * plan->variant_count * plan->seed_count;
}

kp_study_run kp_study_plan_run(const kp_study_plan *plan, int index) {
  const int variant = index / plan->seed_count;
  return (kp_study_run){.text = &plan->texts[variant / plan->variant_count],
                        .variant = &plan->variants[variant % plan->variant_count],
                        .seed = plan->seeds[index % plan->seed_count]};
}

kp_status kp_study_run_folder(const kp_study_run *run, const char *study, char folder[KP_PATH_SIZE],
                              kp_error *error) {
  char name[512];
  snprintf(name, sizeof name, "%.200s-%lld", run->variant->name, (long long)run->seed);
  KP_TRY(kp_path_join(folder, study, "runs", error));
  if (run->text->name[0] != 0) KP_TRY(kp_path_join(folder, folder, run->text->name, error));
  return kp_path_join(folder, folder, name, error);
}

kp_status kp_study_run_config(const kp_study_plan *plan, const kp_study_run *run, kp_config **config,
                              kp_error *error) {
  const kp_settings_list *parts[] = {&plan->sets, &run->text->sets, &run->variant->sets};
  char seed[64];
  size_t count = 0;
  snprintf(seed, sizeof seed, "train.seed=%lld", (long long)run->seed);
  const char **sets =
      malloc((plan->sets.count + run->text->sets.count + run->variant->sets.count + 1) * sizeof *sets);
  if (sets == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the settings of a run");
  for (int p = 0; p < 3; p++)
    for (size_t i = 0; i < parts[p]->count; i++) sets[count++] = parts[p]->list[i];
  sets[count++] = seed;
  kp_status status = kp_config_load(run->variant->config != NULL ? run->variant->config : plan->config,
                                    kp_training_schema(), sets, count, config, error);
  free(sets);
  if (status != KP_OK)
    kp_context(error, "%s: variant %s%s%s", plan->path, run->variant->name,
               run->text->name[0] != 0 ? ", text " : "", run->text->name);
  return status;
}
