#include "data/catalogue.h"

#include <stdio.h>
#include <string.h>

#include "data/catalogue_files.h"
#include "data/catalogue_shards.h"
#include "data/conversation_prepare.h"
#include "data/labelled_prepare.h"
#include "data/prepare.h"

/* What a set is prepared with. */
typedef struct request {
  const kp_data_set *set;
  const kp_catalogue_sources *sources;
  const char *tokenizer;
} request;

static const char *validation_of(const request *r) {
  return r->sources->separate ? r->sources->validation : NULL;
}

static kp_status prepare_text(const request *r, kp_catalogue_report *report, kp_error *error) {
  const char *texts[] = {r->sources->training};
  const kp_prepare_options options = {.texts = texts,
                                      .text_count = 1,
                                      .validation = validation_of(r),
                                      .tokenizer = r->tokenizer,
                                      .split = KP_PREPARE_CHARACTERS,
                                      .folder = report->folder,
                                      .name = r->set->name,
                                      .source = r->set->source,
                                      .licence = r->set->licence};
  KP_TRY(kp_prepare(&options, &report->prepared, &report->fresh, error));
  report->other_edition =
      r->set->arguments != NULL && strcmp(report->prepared.text_sha256, r->set->files[0].sha256) != 0;
  return KP_OK;
}

static kp_status prepare_labelled(const request *r, kp_catalogue_report *report, kp_error *error) {
  const char *files[] = {r->sources->training};
  kp_labelling labelling;
  const kp_labelled_prepare_options options = {.task = r->set->kind == KP_DATA_TAG ? KP_TASK_TAG
                                                                                   : KP_TASK_CLASSIFY,
                                               .files = files,
                                               .file_count = 1,
                                               .validation = validation_of(r),
                                               .tokenizer = r->tokenizer,
                                               .folder = report->folder,
                                               .name = r->set->name,
                                               .source = r->set->source,
                                               .licence = r->set->licence};
  KP_TRY(kp_prepare_labelled(&options, &report->prepared, &labelling, &report->fresh, error));
  report->unit = "examples";
  report->training = labelling.train.examples;
  report->validation = labelling.validation.examples;
  kp_labelling_clear(&labelling);
  return KP_OK;
}

static kp_status prepare_dialogue(const request *r, kp_catalogue_report *report, kp_error *error) {
  const char *files[] = {r->sources->training};
  kp_conversation_report made;
  const kp_conversation_prepare_options options = {.files = files,
                                                   .file_count = 1,
                                                   .reading = {.any = true},
                                                   .best_template = true,
                                                   .validation = validation_of(r),
                                                   .tokenizer = r->tokenizer,
                                                   .folder = report->folder,
                                                   .name = r->set->name,
                                                   .source = r->set->source,
                                                   .licence = r->set->licence};
  KP_TRY(kp_prepare_conversations(&options, &made, error));
  report->prepared = made.prepared;
  report->fresh = made.fresh;
  report->unit = "conversations";
  report->training = made.train.conversations;
  report->validation = made.validation.conversations;
  return KP_OK;
}

/* The command that makes the set. */
static kp_status name_pipe(const kp_data_set *set, const char *tokenizer, kp_error *error) {
  return kp_fail(
      error, KP_ERR_UNSUPPORTED,
      "%s is published as Parquet alone, which needs a pipe (docs/data.md):\n"
      "  duckdb -c \"COPY (SELECT text FROM '%s') TO '/dev/stdout' (FORMAT json)\" |\n"
      "    kappa data prepare --name %s --tokenizer %s --source '%s' --licence '%s' --format jsonl -",
      set->name, set->rows, set->name, tokenizer, set->source, set->licence);
}

static kp_status prepare_files(const kp_data_set *set, const kp_catalogue_options *options,
                               const char *tokenizer, kp_catalogue_report *report, kp_error *error) {
  kp_catalogue_sources sources;
  KP_TRY(kp_catalogue_provide(set, options, report->folder, &sources, error));
  const request r = {set, &sources, tokenizer};
  switch (set->kind) {
  case KP_DATA_CLASSIFY:
  case KP_DATA_TAG: return prepare_labelled(&r, report, error);
  case KP_DATA_DIALOGUE: return prepare_dialogue(&r, report, error);
  default: return prepare_text(&r, report, error);
  }
}

static kp_status check(const kp_data_set *set, const kp_catalogue_options *options, kp_error *error) {
  if (options->shards != 0 && set->kind != KP_DATA_SHARDS)
    return kp_fail(error, KP_ERR_INPUT, "%s has no shards to choose from", set->name);
  if (options->tokenizer != NULL && set->kind == KP_DATA_SHARDS)
    return kp_fail(error, KP_ERR_INPUT,
                   "%s is in tokens already, those of %s: no other tokenizer can be chosen", set->name,
                   set->tokenizer);
  return KP_OK;
}

kp_status kp_catalogue_prepare(const kp_data_set *set, const kp_catalogue_options *options,
                               kp_catalogue_report *report, kp_error *error) {
  char root[KP_PATH_SIZE], tokenizer[KP_PATH_SIZE];
  const char *wanted = options->tokenizer != NULL ? options->tokenizer : set->tokenizer;
  *report = (kp_catalogue_report){0};
  KP_TRY(check(set, options, error));
  if (options->data_folder != NULL)
    KP_TRY(kp_path_join(root, "", options->data_folder, error));
  else
    KP_TRY(kp_data_folder(root, error));
  KP_TRY(kp_path_join(report->folder, root, set->name, error));
  kp_status status =
      kp_catalogue_tokenizer(wanted != NULL ? wanted : "character", options, root, tokenizer, error);
  if (status == KP_OK && set->kind == KP_DATA_PIPE) return name_pipe(set, tokenizer, error);
  if (status == KP_OK)
    status = (set->kind == KP_DATA_SHARDS ? kp_catalogue_prepare_shards
                                          : prepare_files)(set, options, tokenizer, report, error);
  return status == KP_OK ? KP_OK : kp_context(error, "data set %s", set->name);
}
