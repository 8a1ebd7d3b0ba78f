#include "train/initial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/assert.h"
#include "train/curving.h"
#include "train/settings.h"

/* ---- the name ---- */

static bool is_checkpoint(const char *word) {
  if (strcmp(word, "best") == 0 || strcmp(word, "last") == 0) return true;
  return *word != 0 && word[strspn(word, "0123456789")] == 0;
}

kp_status kp_initial_name(const char *text, char run[KP_PATH_SIZE], const char **which, kp_error *error) {
  KP_TRY(kp_path_check(text, error));
  snprintf(run, KP_PATH_SIZE, "%s", text);
  *which = "best";
  const char *at = strrchr(text, '@');
  if (at == NULL || !is_checkpoint(at + 1)) return KP_OK;
  run[at - text] = 0;
  *which = at + 1;
  return KP_OK;
}

/* ---- the configuration ---- */

static kp_status load_config(const char *run, kp_config **config, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, run, "config.yaml", error));
  if (kp_path_kind_of(path) != KP_PATH_FILE)
    return kp_fail(error, KP_ERR_INPUT, "%s is no run to start from: it has no config.yaml", run);
  return kp_config_load(path, kp_training_schema(), NULL, 0, config, error);
}

/* What hangs on the new data is not the source's to say. */
static bool hangs_on_data(const char *key) {
  return strcmp(key, "model.task") == 0 || strcmp(key, "model.classes") == 0;
}

static kp_status take_key(kp_config *config, const kp_config *source, const char *key, kp_error *error) {
  char *assignment;
  if (hangs_on_data(key) || kp_config_is_set(config, key)) return KP_OK;
  KP_TRY(kp_config_assignment(source, key, &assignment, error));
  const kp_status status = kp_config_preset(config, assignment, error);
  free(assignment);
  return status;
}

static kp_status take_model(kp_config *config, const kp_config *source, kp_error *error) {
  const kp_schema *schema = kp_model_schema();
  for (size_t i = 0; i < kp_schema_size(schema); i++)
    KP_TRY(take_key(config, source, kp_schema_row(schema, i)->key, error));
  const bool same = kp_config_choice(config, "model.family") == kp_config_choice(source, "model.family") &&
                    kp_config_choice(config, "model.variant") == kp_config_choice(source, "model.variant");
  if (!same) KP_TRY(kp_model_presets(config, error));
  return kp_curving_complete(config, source, error);
}

bool kp_initial_completes(const kp_config *config) {
  const kp_schema *schema = kp_model_schema();
  bool complete = true;
  for (size_t i = 0; i < kp_schema_size(schema); i++)
    complete &= kp_config_is_set(config, kp_schema_row(schema, i)->key);
  return !complete && kp_config_string(config, "train.init")[0] != 0;
}

kp_status kp_initial_complete(kp_config *config, kp_error *error) {
  char run[KP_PATH_SIZE];
  const char *which;
  kp_config *source;
  if (!kp_initial_completes(config)) return KP_OK;
  KP_TRY(kp_initial_name(kp_config_string(config, "train.init"), run, &which, error));
  KP_TRY(load_config(run, &source, error));
  const kp_status status = take_model(config, source, error);
  kp_config_destroy(source);
  return status;
}

/* ---- the tokens ---- */

/* Of the tokenizer alone: labelled examples have two more. */
static int64_t plain_vocabulary(const kp_data_source *data) {
  return data->shape.task == KP_TASK_LANGUAGE ? data->shape.vocabulary : data->labelled.labelling.vocabulary;
}

static kp_status check_tokens(const kp_trained *source, const kp_data_source *data, kp_error *error) {
  const char *folder = data->folder[0] != 0 ? data->folder : kp_tokens_path(data->train, 0);
  const kp_tokenizer *theirs = source->tokenizer;
  const uint64_t ours =
      data->tokenizer != NULL ? data->tokenizer->fingerprint : kp_tokens_fingerprint(data->train);
  const long long vocabulary = plain_vocabulary(data);
  if (theirs != NULL && ours != 0 && theirs->fingerprint != ours)
    return kp_fail(
        error, KP_ERR_INPUT,
        "%s has %lld tokens of another tokenizer (fingerprint %016llx) than the %lld that run %s "
        "knows (%016llx): prepare the data with its tokenizer, `kappa data prepare --tokenizer %s`",
        folder, vocabulary, (unsigned long long)ours, (long long)theirs->vocabulary, source->run,
        (unsigned long long)theirs->fingerprint, source->run);
  if (vocabulary > source->options.vocabulary)
    return kp_fail(error, KP_ERR_INPUT,
                   "%s has %lld tokens and run %s knows %lld: prepare the data with that run's tokenizer",
                   folder, vocabulary, source->run, (long long)source->options.vocabulary);
  return KP_OK;
}

static kp_status fit_config(kp_config *config, const kp_trained *source, const kp_data_source *data,
                            kp_error *error) {
  const int64_t theirs = source->options.vocabulary, ours = data->shape.vocabulary;
  char assignment[64];
  snprintf(assignment, sizeof assignment, "model.vocabulary=%lld",
           (long long)(theirs > ours ? theirs : ours));
  KP_TRY(kp_config_preset(config, assignment, error));
  snprintf(assignment, sizeof assignment, "model.task=%s", kp_task_name(data->shape.task));
  return kp_config_preset(config, assignment, error);
}

kp_status kp_initial_open(kp_config *config, const kp_data_source *data, const kp_backend *backend,
                          kp_trained *source, kp_error *error) {
  char run[KP_PATH_SIZE];
  const char *which;
  KP_TRY(kp_initial_name(kp_config_string(config, "train.init"), run, &which, error));
  KP_TRY(kp_trained_open(run, which, backend->device == NULL ? backend : kp_backend_cpu(), source, error));
  kp_status status = check_tokens(source, data, error);
  if (status == KP_OK) status = fit_config(config, source, data, error);
  if (status != KP_OK) kp_trained_close(source);
  return status;
}

/* ---- the parameters ---- */

static bool begins_with(const char *name, const char *prefix) {
  return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Row r of such a table means the same in a longer one. */
static bool is_list_of_rows(const char *name) {
  return begins_with(name, "transformer.wte.") || begins_with(name, "transformer.wpe.") ||
         begins_with(name, "lm_head.");
}

static int64_t row_size(const kp_parameter *p) {
  return p->dimensions == 0 || p->shape[0] == 0 ? 0 : p->count / p->shape[0];
}

static bool same_from(const kp_parameter *a, const kp_parameter *b, int first) {
  bool same = a->dimensions == b->dimensions;
  for (int i = first; same && i < a->dimensions; i++) same = a->shape[i] == b->shape[i];
  return same;
}

/* The label of number n is the same in both. */
static bool same_labels(const kp_trained *source, const kp_data_source *data) {
  kp_labelling theirs = {0};
  if (!kp_labelling_stands_in(source->run)) return false;
  if (kp_labelling_read(source->run, &theirs, NULL) != KP_OK) return false;
  const bool same = theirs.task == data->labelled.labelling.task &&
                    kp_label_set_equal(&theirs.labels, &data->labelled.labelling.labels);
  kp_labelling_clear(&theirs);
  return same;
}

/* The source's parameter that `p` starts as, or -1; a head of its own starts as the table that was both. */
static int counterpart(const kp_parameters *source, const kp_parameter *p) {
  const int found = kp_parameters_find(source, p->name);
  if (found >= 0 || strcmp(p->name, "lm_head.weight") != 0) return found;
  return kp_parameters_find(source, "transformer.wte.weight");
}

static kp_transfer_kind kind_of(const kp_parameter *from, const kp_parameter *to, bool labels) {
  if (begins_with(to->name, "classifier.") && !begins_with(to->name, "classifier.norm.") && !labels)
    return KP_TRANSFER_OTHER;
  if (same_from(from, to, 0)) return KP_TRANSFER_COPIED;
  return is_list_of_rows(to->name) && same_from(from, to, 1) ? KP_TRANSFER_ROWS : KP_TRANSFER_OTHER;
}

/* Copies what has a place, and returns the numbers that did. */
static int64_t copy_numbers(const kp_trained *source, int from, kp_parameters *parameters, int to) {
  const kp_parameter *a = &source->parameters->list[from], *b = &parameters->list[to];
  const int64_t count = a->count < b->count ? a->count : b->count;
  double *theirs = malloc((size_t)a->count * sizeof *theirs + 1);
  double *ours = malloc((size_t)b->count * sizeof *ours + 1);
  kp_assert(theirs != NULL && ours != NULL, "out of memory for a copy of %s", b->name);
  kp_parameters_read(source->parameters, source->parameters->values, from, theirs);
  kp_parameters_read(parameters, parameters->values, to, ours);
  memcpy(ours, theirs, (size_t)count * sizeof *ours);
  kp_parameters_write(parameters, parameters->values, to, ours);
  free(theirs);
  free(ours);
  return count;
}

static kp_transfer *add(kp_transfers *transfers, const char *name, kp_transfer_kind kind) {
  kp_transfer *t = &transfers->list[transfers->count++];
  *t = (kp_transfer){.kind = kind};
  snprintf(t->name, sizeof t->name, "%s", name);
  return t;
}

static void transfer(const kp_trained *source, kp_parameters *parameters, int index, bool labels,
                     kp_transfers *transfers, bool *taken) {
  const kp_parameter *to = &parameters->list[index];
  const int from = counterpart(source->parameters, to);
  if (from < 0) {
    add(transfers, to->name, KP_TRANSFER_NEW);
    return;
  }
  taken[from] = true;
  const kp_parameter *theirs = &source->parameters->list[from];
  kp_transfer *t = add(transfers, to->name, kind_of(theirs, to, labels));
  if (t->kind == KP_TRANSFER_OTHER) return;
  t->numbers = copy_numbers(source, from, parameters, index);
  t->rows = row_size(to) == 0 ? 0 : to->shape[0];
  t->from = row_size(theirs) == 0 ? 0 : theirs->shape[0];
}

/* Scores by distance weigh products as the dot products did. */
static void set_sharpness(const kp_trained *source, const kp_model_options *model,
                          kp_parameters *parameters) {
  double sharpness, values[KP_MAX_LAYERS];
  if (!kp_curving_sharpness(&source->options, model, &sharpness)) return;
  for (int p = 0; p < parameters->count; p++) {
    const kp_parameter *parameter = &parameters->list[p];
    const char *end = strstr(parameter->name, ".attn.sharpness");
    if (end == NULL || parameter->count > KP_MAX_LAYERS) continue;
    for (int64_t i = 0; i < parameter->count; i++) values[i] = sharpness;
    kp_parameters_write(parameters, parameters->values, p, values);
  }
}

kp_status kp_initial_copy(const kp_trained *source, const kp_data_source *data, const kp_model_options *model,
                          kp_parameters *parameters, kp_transfers *transfers, kp_error *error) {
  const int theirs = source->parameters->count, most = theirs + parameters->count;
  const bool labels = data->shape.task != KP_TASK_LANGUAGE && same_labels(source, data);
  *transfers = (kp_transfers){.step = source->step,
                              .family = source->options.family->name,
                              .tokenizer_unknown = source->tokenizer == NULL};
  snprintf(transfers->run, sizeof transfers->run, "%s", source->run);
  transfers->list = malloc((size_t)most * sizeof *transfers->list);
  bool *taken = calloc((size_t)theirs + 1, sizeof *taken);
  if (transfers->list == NULL || taken == NULL) {
    free(taken);
    return kp_fail(error, KP_ERR_MEMORY, "no memory for a list of %d parameters", most);
  }
  int64_t copied = 0;
  for (int i = 0; i < parameters->count; i++) {
    transfer(source, parameters, i, labels, transfers, taken);
    copied += transfers->list[i].numbers;
  }
  transfers->note = kp_curving_note(&source->options, model);
  set_sharpness(source, model, parameters);
  for (int i = 0; i < theirs; i++)
    if (!taken[i]) add(transfers, source->parameters->list[i].name, KP_TRANSFER_LEFT);
  free(taken);
  if (copied > 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "no parameter of run %s has a name and shape of this model: give the sizes of that run, or "
                 "leave the model section to it",
                 source->run);
}

void kp_transfers_clear(kp_transfers *transfers) {
  free(transfers->list);
  *transfers = (kp_transfers){0};
}
