/* What kappa train does and says where a run starts from another model. */
#include "cli/train_start.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/directory.h"
#include "interchange/import.h"

/* ---- a model of another program ---- */

/* Where it stands as a run. */
static kp_status import_path(char out[KP_PATH_SIZE], const char *folder, kp_error *error) {
  return kp_path_join(out, folder, "init", error);
}

static bool is_run(const char *folder) {
  char path[KP_PATH_SIZE];
  return kp_path_join(path, folder, "config.yaml", NULL) == KP_OK && kp_path_kind_of(path) != KP_PATH_MISSING;
}

kp_status kp_train_import(kp_config *config, const char *folder, bool *imported, kp_error *error) {
  static const char prefix[] = "hf:";
  const char *init = kp_config_string(config, "train.init");
  const kp_import_options options = {.format = "hf"};
  char run[KP_PATH_SIZE], assignment[KP_PATH_SIZE + 16];
  kp_import_report report;
  if (strncmp(init, prefix, strlen(prefix)) != 0) return KP_OK;
  if (is_run(folder))
    return kp_fail(error, KP_ERR_INPUT, "%s holds a run already: choose another folder with --out", folder);
  KP_TRY(import_path(run, folder, error));
  KP_TRY(kp_import(init + strlen(prefix), &options, run, &report, error));
  *imported = true;
  printf("imported %s: %s, %lld numbers, as run %s\n%s", init + strlen(prefix), report.source,
         (long long)report.parameters, run, report.notes);
  snprintf(assignment, sizeof assignment, "train.init=\"%s\"", run);
  return kp_config_set(config, assignment, error);
}

void kp_train_import_end(const char *folder) {
  char run[KP_PATH_SIZE];
  if (is_run(folder) || import_path(run, folder, NULL) != KP_OK) return;
  kp_directory_remove_tree(run, NULL);
  rmdir(folder); /* unless something else is in it */
}

/* ---- what was taken ---- */

/* "transformer.h.*.ln_1.weight" of "transformer.h.3.ln_1.weight": blocks are told as one. */
static void family_of(const char *name, char out[128]) {
  const char *block = strstr(name, ".h.");
  const size_t digits = block == NULL ? 0 : strspn(block + 3, "0123456789");
  if (digits == 0)
    snprintf(out, 128, "%s", name);
  else
    snprintf(out, 128, "%.*s*%s", (int)(block + 3 - name), name, block + 3 + digits);
}

/* How many of the list are of the same kind and family as number `index`; 0 unless it is the first. */
static int family_size(const kp_transfers *transfers, int index) {
  char own[128], other[128];
  int size = 0;
  family_of(transfers->list[index].name, own);
  for (int i = 0; i < transfers->count; i++) {
    family_of(transfers->list[i].name, other);
    if (transfers->list[i].kind != transfers->list[index].kind || strcmp(own, other) != 0) continue;
    if (i < index) return 0;
    size++;
  }
  return size;
}

static void print_transfer(const kp_transfers *transfers, int index) {
  const kp_transfer *t = &transfers->list[index];
  char name[128];
  const int size = family_size(transfers, index);
  if (size == 0) return;
  family_of(t->name, name);
  printf("    %s", name);
  if (size > 1) printf(" (%d)", size);
  if (t->kind == KP_TRANSFER_ROWS)
    printf(": %lld of %lld rows", (long long)(t->from < t->rows ? t->from : t->rows), (long long)t->rows);
  putchar('\n');
}

void kp_print_transfers(void *context, const kp_transfers *transfers) {
  static const char *const titles[KP_TRANSFER_KINDS] = {
      [KP_TRANSFER_COPIED] = "copied",
      [KP_TRANSFER_ROWS] = "copied in part, the other rows are new",
      [KP_TRANSFER_NEW] = "new",
      [KP_TRANSFER_OTHER] = "new, as the run's has another shape or is for other labels",
      [KP_TRANSFER_LEFT] = "of the run alone, left out"};
  (void)context;
  printf("starts from %s, step %lld (%s)\n", transfers->run, (long long)transfers->step, transfers->family);
  for (int kind = 0; kind < KP_TRANSFER_KINDS; kind++) {
    int64_t numbers = 0, count = 0;
    for (int i = 0; i < transfers->count; i++) {
      if ((int)transfers->list[i].kind != kind) continue;
      numbers += transfers->list[i].numbers;
      count++;
    }
    if (count == 0) continue;
    printf("  %s: %lld parameters", titles[kind], (long long)count);
    if (numbers > 0) printf(", %lld numbers", (long long)numbers);
    putchar('\n');
    for (int i = 0; i < transfers->count && kind != KP_TRANSFER_COPIED; i++)
      if ((int)transfers->list[i].kind == kind) print_transfer(transfers, i);
  }
  if (transfers->note != NULL) printf("  %s\n", transfers->note);
  if (transfers->tokenizer_unknown)
    printf("  that run has no tokenizer: whether the data has its tokens nothing says\n");
  fflush(stdout);
}
