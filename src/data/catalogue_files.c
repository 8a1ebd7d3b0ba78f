#include "data/catalogue_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/atomic_file.h"
#include "core/directory.h"
#include "core/lock.h"
#include "data/archive_files.h"
#include "data/message_trees.h"
#include "data/program_output.h"

/* Bytes of the largest file that is taken out of an archive. */
static const int64_t member_largest = (int64_t)4 << 30;

/* What trees of messages become. */
static const char conversations_file[] = "conversations.jsonl";

/* GPT-2's tokenizer, as OpenAI publishes it. */
static const kp_data_file gpt2_files[] = {
    {"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json", 1042301,
     "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"},
    {"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe", 456318,
     "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"},
};

/* ---- one file ---- */

/* The file's own address, or that of the same file name at the mirror. */
static kp_status address(const char *own, const char *mirror, char *url, size_t size, kp_error *error) {
  if (mirror == NULL) mirror = getenv("KAPPA_MIRROR");
  const bool mirrored = mirror != NULL && mirror[0] != 0;
  size_t length = mirrored ? strlen(mirror) : 0;
  while (length > 0 && mirror[length - 1] == '/') length--;
  const int written = mirrored ? snprintf(url, size, "%.*s/%s", (int)length, mirror, kp_path_last_name(own))
                               : snprintf(url, size, "%s", own);
  if (written >= (int)size)
    return kp_fail(error, KP_ERR_INPUT, "the mirror's address %.60s... is too long", mirror);
  return KP_OK;
}

kp_status kp_catalogue_fetch(const kp_data_file *file, const kp_catalogue_options *options, const char *path,
                             kp_error *error) {
  char url[2048];
  if (file->sha256 == NULL && kp_path_kind_of(path) == KP_PATH_FILE) return KP_OK;
  KP_TRY(address(file->url, options->mirror, url, sizeof url, error));
  const kp_download_options download = {.url = url,
                                        .path = path,
                                        .sha256 = file->sha256,
                                        .size = file->size,
                                        .progress = options->progress,
                                        .context = options->context};
  if (kp_download(&download, error) == KP_OK) return KP_OK;
  return kp_context(error, "a copy of the file may also be put at %s", path);
}

/* Asks the program for the text, unless the catalogue's edition is there. */
static kp_status print(const kp_data_set *set, const char *path, kp_error *error) {
  const kp_data_file *known = &set->files[0];
  char found[KP_SHA256_HEX_SIZE];
  if (kp_path_kind_of(path) == KP_PATH_FILE && kp_sha256_file(path, found, NULL) == KP_OK &&
      strcmp(found, known->sha256) == 0)
    return KP_OK;
  char *text;
  size_t size;
  kp_status status = kp_program_output(set->arguments, (size_t)known->size * 4, &text, &size, error);
  if (status == KP_ERR_UNSUPPORTED)
    return kp_fail(error, status,
                   "the program '%s', which prints the text, is not installed: apt-get install %s",
                   set->arguments[0], set->package);
  KP_TRY(status);
  if (size < (size_t)known->size / 2)
    status =
        kp_fail(error, KP_ERR_INPUT, "'%s' printed %zu bytes, expected are about %lld: is package %s whole?",
                set->arguments[0], size, (long long)known->size, set->package);
  else
    status = kp_file_write_atomic(path, text, size, error);
  free(text);
  return status;
}

/* ---- the files of a set ---- */

/* A file or member of the set as it stands in its folder; empty where there is none. */
static kp_status source_path(const kp_data_set *set, const kp_catalogue_sources *sources, int i,
                             char path[KP_PATH_SIZE], kp_error *error) {
  const char *name = set->members[0] != NULL ? set->members[i] : set->files[i].url;
  path[0] = 0;
  return name == NULL ? KP_OK : kp_path_join(path, sources->folder, kp_path_last_name(name), error);
}

/* What was taken out before is not fetched again. */
static kp_status provide_members(const kp_data_set *set, const kp_catalogue_options *options,
                                 const kp_catalogue_sources *sources, kp_error *error) {
  char paths[KP_DATA_FILES][KP_PATH_SIZE], archive[KP_PATH_SIZE];
  kp_archive_member missing[KP_DATA_FILES];
  size_t count = 0;
  for (int i = 0; i < KP_DATA_FILES; i++) {
    KP_TRY(source_path(set, sources, i, paths[i], error));
    if (paths[i][0] != 0 && kp_path_kind_of(paths[i]) != KP_PATH_FILE)
      missing[count++] = (kp_archive_member){set->members[i], paths[i]};
  }
  if (count == 0) return KP_OK;
  KP_TRY(kp_path_join(archive, sources->folder, kp_path_last_name(set->files[0].url), error));
  KP_TRY(kp_catalogue_fetch(&set->files[0], options, archive, error));
  return kp_archive_extract(archive, missing, count, member_largest, error);
}

static kp_status provide_files(const kp_data_set *set, const kp_catalogue_options *options,
                               const kp_catalogue_sources *sources, kp_error *error) {
  char path[KP_PATH_SIZE], converted[KP_PATH_SIZE];
  for (int i = 0; i < KP_DATA_FILES && set->files[i].url != NULL; i++) {
    KP_TRY(source_path(set, sources, i, path, error));
    KP_TRY(kp_catalogue_fetch(&set->files[i], options, path, error));
  }
  if (!set->trees) return KP_OK;
  KP_TRY(source_path(set, sources, 0, path, error));
  KP_TRY(kp_path_join(converted, sources->folder, conversations_file, error));
  return kp_message_trees_convert(path, converted, error);
}

static kp_status provide_locked(const kp_data_set *set, const kp_catalogue_options *options,
                                const kp_catalogue_sources *sources, kp_error *error) {
  if (set->arguments != NULL)
    return print(set, sources->training, error) == KP_OK
               ? KP_OK
               : kp_context(error, "a copy of the text may also be put at %s", sources->training);
  if (set->members[0] != NULL) return provide_members(set, options, sources, error);
  if (set->files[1].url != NULL || set->kind != KP_DATA_TEXT)
    return provide_files(set, options, sources, error);
  return kp_catalogue_fetch(&set->files[0], options, sources->training, error);
}

/* Where the files will be. */
static kp_status describe(const kp_data_set *set, const char *folder, kp_catalogue_sources *sources,
                          kp_error *error) {
  const bool alone = set->kind == KP_DATA_TEXT && set->members[0] == NULL && set->files[1].url == NULL;
  if (alone) {
    KP_TRY(kp_path_join(sources->folder, "", folder, error));
    return kp_path_join(sources->training, folder, KP_TEXT_FILE, error);
  }
  KP_TRY(kp_path_join(sources->folder, folder, KP_SOURCE_FOLDER, error));
  KP_TRY(source_path(set, sources, 0, sources->training, error));
  if (set->trees) KP_TRY(kp_path_join(sources->training, sources->folder, conversations_file, error));
  KP_TRY(source_path(set, sources, 1, sources->validation, error));
  sources->separate = sources->validation[0] != 0;
  return KP_OK;
}

kp_status kp_catalogue_provide(const kp_data_set *set, const kp_catalogue_options *options,
                               const char *folder, kp_catalogue_sources *sources, kp_error *error) {
  char lock_path[KP_PATH_SIZE];
  kp_lock *lock = NULL;
  *sources = (kp_catalogue_sources){0};
  KP_TRY(describe(set, folder, sources, error));
  KP_TRY(kp_directory_create(sources->folder, error));
  KP_TRY(kp_path_join(lock_path, folder, ".fetch.lock", error));
  KP_TRY(kp_lock_acquire(lock_path, &lock, error));
  const kp_status status = provide_locked(set, options, sources, error);
  kp_lock_release(lock);
  return status;
}

/* ---- tokenizers ---- */

kp_status kp_catalogue_tokenizer(const char *name, const kp_catalogue_options *options, const char *root,
                                 char path[KP_PATH_SIZE], kp_error *error) {
  char file[KP_PATH_SIZE], lock_path[KP_PATH_SIZE];
  kp_lock *lock = NULL;
  kp_status status = KP_OK;
  KP_TRY(kp_path_join(path, "", name, error));
  if (strcmp(name, "gpt2") != 0 || kp_path_kind_of(path) != KP_PATH_MISSING) return KP_OK;
  KP_TRY(kp_path_join(path, root, KP_TOKENIZERS_FOLDER "/gpt2", error));
  KP_TRY(kp_directory_create(path, error));
  KP_TRY(kp_path_join(lock_path, path, ".fetch.lock", error));
  KP_TRY(kp_lock_acquire(lock_path, &lock, error));
  for (size_t i = 0; i < sizeof gpt2_files / sizeof *gpt2_files && status == KP_OK; i++) {
    status = kp_path_join(file, path, kp_path_last_name(gpt2_files[i].url), error);
    if (status == KP_OK) status = kp_catalogue_fetch(&gpt2_files[i], options, file, error);
  }
  kp_lock_release(lock);
  return status == KP_OK ? KP_OK : kp_context(error, "the tokenizer of GPT-2");
}
