#include "data/catalogue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/atomic_file.h"
#include "core/directory.h"
#include "core/lock.h"
#include "data/prepare.h"
#include "data/program_output.h"

static const char *const bible_arguments[] = {"bible", "-f", "Gen1:1-Rev22:21", NULL};

static const kp_data_set sets[] = {
    {
        .name = "kjv_char",
        .what = "King James Bible, one verse a line behind its reference; characters",
        .source = "printed by the program 'bible' of Debian's package bible-kjv",
        .licence = "public domain",
        .size = 4404412,
        .sha256 = "cd45f0c9cedab8e4439bd6486c8952c77cc8b0ecc5d1f6ae3513f2039f47229d",
        .method = KP_DATA_PROGRAM,
        .arguments = bible_arguments,
        .package = "bible-kjv",
    },
    {
        .name = "shakespeare_char",
        .what = "tiny Shakespeare, 40,000 lines of the plays; characters",
        .source = "karpathy/char-rnn, data/tinyshakespeare/input.txt",
        .licence = "public domain",
        .size = 1115394,
        .sha256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        .method = KP_DATA_DOWNLOAD,
        .url = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    },
};

enum { set_count = sizeof sets / sizeof sets[0] };

const kp_data_set *kp_catalogue(size_t *count) {
  *count = set_count;
  return sets;
}

kp_status kp_catalogue_find(const char *name, const kp_data_set **set, kp_error *error) {
  char known[512] = "";
  for (size_t i = 0; i < set_count; i++) {
    if (strcmp(sets[i].name, name) == 0) {
      *set = &sets[i];
      return KP_OK;
    }
    size_t used = strlen(known);
    snprintf(known + used, sizeof known - used, "%s%s", i == 0 ? "" : ", ", sets[i].name);
  }
  return kp_fail(error, KP_ERR_INPUT, "there is no data set '%s'; known are %s", name, known);
}

/* The address of the text: the set's own, or that of the same file name at the mirror. */
static kp_status address(const kp_data_set *set, const char *mirror, char *url, size_t size,
                         kp_error *error) {
  if (mirror == NULL) mirror = getenv("KAPPA_MIRROR");
  bool mirrored = mirror != NULL && mirror[0] != 0;
  size_t length = mirrored ? strlen(mirror) : 0;
  while (length > 0 && mirror[length - 1] == '/') length--;
  int written = mirrored ? snprintf(url, size, "%.*s%s", (int)length, mirror, strrchr(set->url, '/'))
                         : snprintf(url, size, "%s", set->url);
  if (written >= (int)size)
    return kp_fail(error, KP_ERR_INPUT, "the mirror's address %.60s... is too long", mirror);
  return KP_OK;
}

static kp_status fetch(const kp_data_set *set, const kp_catalogue_options *options, const char *path,
                       kp_error *error) {
  char url[2048];
  KP_TRY(address(set, options->mirror, url, sizeof url, error));
  kp_download_options download = {.url = url,
                                  .path = path,
                                  .sha256 = set->sha256,
                                  .size = set->size,
                                  .progress = options->progress,
                                  .context = options->context};
  return kp_download(&download, error);
}

/* Asks the program for the text, unless the catalogue's edition is there. */
static kp_status print(const kp_data_set *set, const char *path, kp_error *error) {
  char found[KP_SHA256_HEX_SIZE];
  if (kp_path_kind_of(path) == KP_PATH_FILE && kp_sha256_file(path, found, NULL) == KP_OK &&
      strcmp(found, set->sha256) == 0)
    return KP_OK;
  char *text;
  size_t size;
  kp_status status = kp_program_output(set->arguments, (size_t)set->size * 4, &text, &size, error);
  if (status == KP_ERR_UNSUPPORTED)
    return kp_fail(error, status,
                   "the program '%s', which prints the text, is not installed: apt-get install %s",
                   set->arguments[0], set->package);
  KP_TRY(status);
  if (size < (size_t)set->size / 2)
    status =
        kp_fail(error, KP_ERR_INPUT, "'%s' printed %zu bytes, expected are about %lld: is package %s whole?",
                set->arguments[0], size, (long long)set->size, set->package);
  else
    status = kp_file_write_atomic(path, text, size, error);
  free(text);
  return status;
}

/* Puts the text of the set at `path`; one process at a time. */
static kp_status provide_text(const kp_data_set *set, const kp_catalogue_options *options, const char *folder,
                              const char *path, kp_error *error) {
  char lock_path[KP_PATH_SIZE];
  kp_lock *lock = NULL;
  KP_TRY(kp_directory_create(folder, error));
  KP_TRY(kp_path_join(lock_path, folder, ".fetch.lock", error));
  KP_TRY(kp_lock_acquire(lock_path, &lock, error));
  kp_status status =
      set->method == KP_DATA_DOWNLOAD ? fetch(set, options, path, error) : print(set, path, error);
  kp_lock_release(lock);
  return status;
}

kp_status kp_catalogue_prepare(const kp_data_set *set, const kp_catalogue_options *options,
                               char folder[KP_PATH_SIZE], kp_prepared *prepared, bool *fresh,
                               kp_error *error) {
  char root[KP_PATH_SIZE], path[KP_PATH_SIZE];
  if (options->data_folder != NULL)
    KP_TRY(kp_path_join(root, "", options->data_folder, error));
  else
    KP_TRY(kp_data_folder(root, error));
  KP_TRY(kp_path_join(folder, root, set->name, error));
  KP_TRY(kp_path_join(path, folder, KP_TEXT_FILE, error));
  if (provide_text(set, options, folder, path, error) != KP_OK)
    return kp_context(error, "data set %s (a copy of the text may also be put at %s)", set->name, path);
  const char *texts[] = {path};
  kp_prepare_options prepare = {.texts = texts,
                                .text_count = 1,
                                .folder = folder,
                                .name = set->name,
                                .source = set->source,
                                .licence = set->licence};
  return kp_prepare(&prepare, prepared, fresh, error);
}
