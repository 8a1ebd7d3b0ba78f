#include "interchange/import.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/atomic_file.h"
#include "core/json_text.h"
#include "interchange/hf_import.h"
#include "interchange/llmc.h"
#include "interchange/originals_import.h"
#include "interchange/whole_folder.h"
#include "train/run.h"
#include "train/settings.h"

static const kp_importer *const importers[] = {&kp_importer_hf,   &kp_importer_mixed, &kp_importer_nanogpt,
                                               &kp_importer_ngpt, &kp_importer_helm,  &kp_importer_llmc};

const kp_importer *const *kp_importers(size_t *count) {
  *count = sizeof importers / sizeof *importers;
  return importers;
}

/* ---- for importers ---- */

void kp_import_set(kp_import_settings *settings, const char *format, ...) {
  const size_t room = sizeof settings->list / sizeof *settings->list;
  if (settings->count == room) return;
  va_list values;
  va_start(values, format);
  vsnprintf(settings->list[settings->count++], sizeof *settings->list, format, values);
  va_end(values);
}

kp_status kp_import_configure(const kp_import_settings *settings, const kp_import_options *options,
                              kp_config **config, kp_error *error) {
  static const char bare[] = "data: {path: \"\"}\n";
  const size_t count = settings->count + options->set_count;
  const char **all = calloc(count + 1, sizeof *all);
  if (all == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a list of settings");
  for (size_t i = 0; i < settings->count; i++) all[i] = settings->list[i];
  for (size_t i = 0; i < options->set_count; i++) all[settings->count + i] = options->sets[i];
  kp_status status = options->config != NULL
                         ? kp_config_load(options->config, kp_training_schema(), all, count, config, error)
                         : kp_config_parse(bare, sizeof bare - 1, "the imported model", kp_training_schema(),
                                           all, count, config, error);
  free(all);
  return status;
}

void kp_import_note(kp_imported *imported, const char *format, ...) {
  char line[KP_IMPORT_NOTES];
  const size_t used = strlen(imported->notes);
  va_list values;
  va_start(values, format);
  vsnprintf(line, sizeof line, format, values);
  va_end(values);
  if (used + strlen(line) + 2 <= sizeof imported->notes)
    snprintf(imported->notes + used, sizeof imported->notes - used, "%s\n", line);
}

/* ---- a model from a source ---- */

/* Tensors that cannot be read say why; those that can, and are of no model that is known, what they are. */
static kp_status refuse_tensors(const char *path, const char *names, kp_error *error) {
  kp_tensors *tensors;
  KP_TRY(kp_tensors_open(path, &tensors, error));
  const size_t count = kp_tensors_count(tensors);
  kp_fail(error, KP_ERR_INPUT,
          "%s holds %zu tensors, '%.80s' the first, and looks like none of the formats %s; say which with "
          "--format",
          path, count, count == 0 ? "" : kp_tensors_at(tensors, 0)->name, names);
  kp_tensors_close(tensors);
  return KP_ERR_INPUT;
}

static kp_status choose(const char *path, const char *format, const kp_importer **chosen, kp_error *error) {
  char names[512] = "";
  for (size_t i = 0; i < sizeof importers / sizeof *importers; i++) {
    *chosen = importers[i];
    if (format != NULL ? strcmp(format, importers[i]->name) == 0 : importers[i]->recognises(path))
      return KP_OK;
    snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i == 0 ? "" : ", ",
             importers[i]->name);
  }
  *chosen = NULL;
  if (format != NULL) return kp_fail(error, KP_ERR_INPUT, "no format \"%s\"; there are: %s", format, names);
  if (kp_path_kind_of(path) == KP_PATH_MISSING)
    return kp_fail(error, KP_ERR_INPUT, "%s: no such file or folder", path);
  if (kp_tensors_recognises(path)) return refuse_tensors(path, names, error);
  return kp_fail(error, KP_ERR_INPUT, "%s looks like none of the formats %s; say which with --format", path,
                 names);
}

typedef struct import {
  const kp_importer *importer;
  kp_imported source;
  kp_model_options model;
  kp_parameters *parameters;
  kp_tokenizer *tokenizer; /* NULL: none */
} import;

/* Parameters that nothing reads keep their initial values. */
static bool has_unused(const kp_parameters *parameters) {
  for (int i = 0; i < parameters->count; i++)
    if (!parameters->list[i].used) return true;
  return false;
}

static kp_status build_model(import *m, kp_error *error) {
  const kp_build build = {.mode = KP_BUILD_LOGITS, .batch = 1, .length = 1};
  kp_network *network; /* building any graph fills the table of parameters */
  KP_TRY(kp_model_options_read(m->source.config, NULL, &m->model, error));
  m->parameters = kp_parameters_create();
  KP_TRY(kp_network_create(&m->model, m->parameters, build, &network, error));
  kp_network_destroy(network);
  KP_TRY(kp_parameters_allocate(m->parameters, kp_backend_cpu(), false, error));
  if (has_unused(m->parameters)) kp_parameters_initialise(m->parameters, 0);
  return KP_OK;
}

static kp_status read_parameter(import *m, int index, double *values, kp_error *error) {
  kp_parameter *p = &m->parameters->list[index];
  p->moments = 0;             /* no optimizer has been here */
  if (!p->used) return KP_OK; /* keeps its initial value, which nothing reads */
  KP_TRY(m->importer->read(&m->source, p->name, p->dimensions, p->shape, values, error));
  for (int64_t i = 0; i < p->count; i++)
    if (!isfinite(values[i]))
      return kp_fail(error, KP_ERR_INPUT, "number %lld of what becomes %s is not finite", (long long)i,
                     p->name);
  kp_parameters_write(m->parameters, m->parameters->values, index, values);
  return KP_OK;
}

static kp_status read_parameters(import *m, kp_error *error) {
  int64_t largest = 0;
  for (int i = 0; i < m->parameters->count; i++)
    if (m->parameters->list[i].count > largest) largest = m->parameters->list[i].count;
  double *values = calloc((size_t)largest + 1, sizeof *values);
  if (values == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for a parameter of %lld numbers", (long long)largest);
  kp_status status = KP_OK;
  for (int i = 0; i < m->parameters->count && status == KP_OK; i++)
    status = read_parameter(m, i, values, error);
  free(values);
  const char *unused = status == KP_OK ? m->importer->unused(&m->source) : NULL;
  if (unused != NULL)
    return kp_fail(error, KP_ERR_INPUT, "the tensor \"%s\" has no place in a %s model of kappa", unused,
                   m->model.family->name);
  return status;
}

/* A tokenizer that the user names must do; the source's own is left out with a note when it cannot be read.
 */
static kp_status open_tokenizer(import *m, const char *given, kp_error *error) {
  const char *path = given != NULL ? given : m->source.tokenizer;
  kp_error reason = {0};
  if (path[0] == 0) {
    kp_import_note(&m->source, "there is no tokenizer: give one with --tokenizer to work with text");
    return KP_OK;
  }
  if (kp_tokenizer_open(path, &m->tokenizer, &reason) != KP_OK) {
    if (given != NULL) return kp_fail(error, KP_ERR_INPUT, "%s", reason.message);
    kp_import_note(&m->source, "the tokenizer was left out: %s", reason.message);
    return KP_OK;
  }
  if (m->tokenizer->vocabulary <= m->model.vocabulary) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "the tokenizer %s has %d tokens, the model only %lld: give its own "
                 "with --tokenizer",
                 path, m->tokenizer->vocabulary, (long long)m->model.vocabulary);
}

/* ---- the run ---- */

static kp_status write_description(const import *m, const char *run, kp_error *error) {
  char path[KP_PATH_SIZE], hash[32];
  KP_TRY(kp_path_join(path, run, "run.json", error));
  snprintf(hash, sizeof hash, "%016llx", (unsigned long long)kp_config_hash(m->source.config));
  json_t *json =
      json_pack("{s:s, s:s, s:s, s:I, s:s, s:s}", "program", "kappa", "family", m->model.family->name,
                "config_hash", hash, "parameters", (json_int_t)kp_parameters_elements(m->parameters),
                "imported", m->importer->name, "source", m->source.source);
  kp_status status = json == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for run.json")
                                  : kp_json_write_file(path, json, KP_JSON_DOUBLE_DIGITS, error);
  json_decref(json);
  return status;
}

static kp_status write_config(const import *m, const char *run, kp_error *error) {
  char path[KP_PATH_SIZE], *text;
  size_t size;
  KP_TRY(kp_path_join(path, run, "config.yaml", error));
  KP_TRY(kp_config_text(m->source.config, &text, &size, error));
  kp_status status = kp_file_write_atomic(path, text, size, error);
  free(text);
  return status;
}

static kp_status fill_run(const void *context, const char *run, kp_error *error) {
  const import *m = context;
  char path[KP_PATH_SIZE];
  const kp_run_state state = {
      .step = m->source.step, .best_loss = HUGE_VAL, .best_step = -1, .evaluated_step = -1};
  KP_TRY(kp_checkpoint_write(run, m->parameters, &state, 1, error));
  if (m->tokenizer != NULL) {
    KP_TRY(kp_path_join(path, run, KP_TOKENIZER_FILE, error));
    KP_TRY(kp_tokenizer_save(m->tokenizer, path, error));
  }
  KP_TRY(write_description(m, run, error));
  return write_config(m, run, error);
}

static void write_report(const import *m, kp_import_report *report) {
  *report = (kp_import_report){.format = m->importer->name,
                               .parameters = kp_parameters_elements(m->parameters),
                               .step = m->source.step,
                               .vocabulary = m->tokenizer == NULL ? 0 : m->tokenizer->vocabulary};
  snprintf(report->source, sizeof report->source, "%s", m->source.source);
  snprintf(report->family, sizeof report->family, "%s", m->model.family->name);
  snprintf(report->notes, sizeof report->notes, "%s", m->source.notes);
}

kp_status kp_import(const char *path, const kp_import_options *options, const char *run,
                    kp_import_report *report, kp_error *error) {
import m = {0 };
  KP_TRY(kp_path_check(path, error));
  KP_TRY(kp_whole_folder_check(run, error));
  KP_TRY(choose(path, options->format, &m.importer, error));
  kp_status status = m.importer->open(path, options, &m.source, error);
  if (status == KP_OK) status = build_model(&m, error);
  if (status == KP_OK) status = read_parameters(&m, error);
  if (status == KP_OK) status = open_tokenizer(&m, options->tokenizer, error);
  if (status == KP_OK) status = kp_whole_folder_create(run, fill_run, &m, error);
  if (status == KP_OK && report != NULL) write_report(&m, report);
  m.importer->close(&m.source);
  kp_config_destroy(m.source.config);
  kp_model_options_destroy(&m.model);
  kp_parameters_destroy(m.parameters);
  kp_tokenizer_destroy(m.tokenizer);
  return status;
}
