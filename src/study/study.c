#include "study/study.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/atomic_file.h"
#include "core/directory.h"
#include "core/json_text.h"
#include "study/study_private.h"

/* All runs of one text, in the order of the plan. */
static kp_status compare_text(const kp_study_plan *plan, const char *folder, int text, kp_text_result *result,
                              kp_error *error) {
  const int count = plan->variant_count * plan->seed_count;
  char(*paths)[KP_PATH_SIZE] = malloc((size_t)count * sizeof *paths);
  const char **list = malloc((size_t)count * sizeof *list);
  kp_status status = KP_OK;
  if (paths == NULL || list == NULL) status = kp_fail(error, KP_ERR_MEMORY, "no memory for a list of runs");
  for (int i = 0; i < count && status == KP_OK; i++) {
    const kp_study_run run = kp_study_plan_run(plan, text * count + i);
    status = kp_study_run_folder(&run, folder, paths[i], error);
    list[i] = paths[i];
  }
  result->text = &plan->texts[text];
  if (status == KP_OK) status = kp_comparison_create(list, (size_t)count, &result->comparison, error);
  if (status == KP_OK) result->findings = kp_findings_of(result->comparison, &result->finding_count);
  free(paths);
  free(list);
  return status;
}

static json_t *text_json(const kp_text_result *result) {
  json_t *findings = json_array();
  for (int i = 0; i < result->finding_count; i++)
    json_array_append_new(findings, kp_finding_json(&result->findings[i]));
  return json_pack("{s:s, s:o, s:o}", "name", result->text->name, "claims", findings, "comparison",
                   kp_comparison_json(result->comparison));
}

static kp_status write_json(const kp_study_plan *plan, const char *folder, const kp_text_result *results,
                            kp_error *error) {
  char path[KP_PATH_SIZE];
  json_t *texts = json_array(), *seeds = json_array();
  for (int t = 0; t < plan->text_count; t++) json_array_append_new(texts, text_json(&results[t]));
  for (int i = 0; i < plan->seed_count; i++) json_array_append_new(seeds, json_integer(plan->seeds[i]));
  json_t *json = json_pack("{s:s, s:s, s:o, s:o}", "title", plan->title, "about", plan->about, "seeds", seeds,
                           "texts", texts);
  kp_status status = kp_path_join(path, folder, "study.json", error);
  if (status == KP_OK) status = kp_json_write_file(path, json, KP_JSON_FLOAT_DIGITS, error);
  json_decref(json);
  return status;
}

static kp_status write_table(const kp_study_plan *plan, const char *folder, const kp_text_result *results,
                             kp_error *error) {
  char path[KP_PATH_SIZE], *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  if (out == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the report of a study");
  kp_study_write_report(plan, results, out);
  const bool complete = fclose(out) == 0;
  kp_status status = complete ? KP_OK : kp_fail(error, KP_ERR_MEMORY, "no memory for the report of a study");
  if (status == KP_OK) status = kp_path_join(path, folder, "table.md", error);
  if (status == KP_OK) status = kp_file_write_atomic(path, text, size, error);
  free(text);
  return status;
}

kp_status kp_study_report(const kp_study_plan *plan, const char *folder, const kp_study_options *options,
                          kp_error *error) {
  kp_text_result *results = calloc((size_t)plan->text_count, sizeof *results);
  if (results == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the results of a study");
  kp_status status = kp_directory_create(folder, error);
  for (int t = 0; t < plan->text_count && status == KP_OK; t++) {
    char path[KP_PATH_SIZE];
    status = compare_text(plan, folder, t, &results[t], error);
    if (status == KP_OK) status = kp_path_join(path, folder, "comparison", error);
    if (status == KP_OK && plan->texts[t].name[0] != 0)
      status = kp_path_join(path, path, plan->texts[t].name, error);
    if (status == KP_OK) status = kp_comparison_write(results[t].comparison, path, options->figures, error);
  }
  if (status == KP_OK) status = write_json(plan, folder, results, error);
  if (status == KP_OK) status = write_table(plan, folder, results, error);
  for (int t = 0; t < plan->text_count; t++) kp_comparison_destroy(results[t].comparison);
  free(results);
  return status;
}
