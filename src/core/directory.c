#include "core/directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAXIMUM_DEPTH = 100, MAXIMUM_ATTEMPTS = 10000 };

static kp_status make_one(const char *path, kp_error *error) {
  if (mkdir(path, 0777) == 0) return KP_OK;
  int code = errno;
  if (kp_path_kind_of(path) == KP_PATH_FOLDER) return KP_OK;
  if (code == EEXIST)
    return kp_fail(error, KP_ERR_IO, "cannot make the folder '%s': a file has that name", path);
  errno = code;
  return kp_fail_errno(error, KP_ERR_IO, "cannot make the folder '%s'", path);
}

kp_status kp_directory_create(const char *path, kp_error *error) {
  KP_TRY(kp_path_check(path, error));
  char part[KP_PATH_SIZE];
  memcpy(part, path, strlen(path) + 1);
  for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    KP_TRY(make_one(part, error));
    *slash = '/';
  }
  return make_one(part, error);
}

kp_status kp_directory_create_temporary(const char *target, char temporary[KP_PATH_SIZE], kp_error *error) {
  char folder[KP_PATH_SIZE];
  const char *name = NULL;
  KP_TRY(kp_path_split(target, folder, &name, error));
  for (int attempt = 0; attempt < MAXIMUM_ATTEMPTS; attempt++) {
    char own_name[64];
    snprintf(own_name, sizeof own_name, KP_TEMPORARY_PREFIX "%ld-%d", (long)getpid(), attempt);
    KP_TRY(kp_path_join(temporary, folder, own_name, error));
    if (mkdir(temporary, 0777) == 0) return KP_OK;
    if (errno != EEXIST) break;
  }
  return kp_fail_errno(error, KP_ERR_IO, "cannot make a folder in '%s'", folder);
}

static kp_status sync_folder(const char *path, kp_error *error) {
  int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return kp_fail_errno(error, KP_ERR_IO, "cannot open the folder '%s'", path);
  kp_status status = KP_OK;
  /* Some network file systems cannot sync a folder and say EINVAL. */
  if (fsync(descriptor) != 0 && errno != EINVAL)
    status = kp_fail_errno(error, KP_ERR_IO, "cannot sync the folder '%s'", path);
  close(descriptor);
  return status;
}

kp_status kp_directory_rename_atomic(const char *from, const char *to, kp_error *error) {
  char old_parent[KP_PATH_SIZE], new_parent[KP_PATH_SIZE];
  const char *name = NULL;
  KP_TRY(kp_path_split(from, old_parent, &name, error));
  KP_TRY(kp_path_split(to, new_parent, &name, error));
  KP_TRY(sync_folder(from, error));
  struct stat info;
  if (lstat(to, &info) == 0)
    return kp_fail(error, KP_ERR_IO, "cannot rename '%s' to '%s', which exists; remove it first", from, to);
  if (rename(from, to) != 0)
    return kp_fail_errno(error, KP_ERR_IO, "cannot rename the folder '%s' to '%s'", from, to);
  KP_TRY(sync_folder(new_parent, error));
  return strcmp(old_parent, new_parent) == 0 ? KP_OK : sync_folder(old_parent, error);
}

/* One walk of a removal: errors name `root`, with the entry that resisted. */
typedef struct removal {
  const char *root;
  dev_t device;
  kp_error *error;
} removal;

static kp_status remove_entry(const removal *work, int folder, const char *name, int depth);

static bool is_dots(const char *name) {
  return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Removes all entries of an open folder whose names begin with `prefix`;
 * closes the descriptor in any case. */
static kp_status remove_entries(const removal *work, int descriptor, const char *prefix, int depth) {
  DIR *stream = fdopendir(descriptor);
  if (stream == NULL) {
    kp_status status = kp_fail_errno(work->error, KP_ERR_IO, "cannot list '%s'", work->root);
    close(descriptor);
    return status;
  }
  kp_status status = KP_OK;
  while (status == KP_OK) {
    errno = 0;
    struct dirent *entry = readdir(stream);
    if (entry == NULL) {
      if (errno != 0) status = kp_fail_errno(work->error, KP_ERR_IO, "cannot list '%s'", work->root);
      break;
    }
    if (is_dots(entry->d_name) || strncmp(entry->d_name, prefix, strlen(prefix)) != 0) continue;
    status = remove_entry(work, dirfd(stream), entry->d_name, depth);
  }
  closedir(stream);
  return status;
}

static kp_status remove_folder(const removal *work, int parent, const char *name, int depth) {
  if (depth > MAXIMUM_DEPTH)
    return kp_fail(work->error, KP_ERR_IO, "'%s' is nested more than %d folders deep; remove it by hand",
                   work->root, MAXIMUM_DEPTH);
  int descriptor = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0)
    return kp_fail_errno(work->error, KP_ERR_IO, "cannot open '%s' to remove '%s'", name, work->root);
  struct stat info;
  if (fstat(descriptor, &info) != 0 || info.st_dev != work->device) {
    close(descriptor);
    return kp_fail(work->error, KP_ERR_IO, "'%s' has another file system mounted at '%s'; unmount it first",
                   work->root, name);
  }
  KP_TRY(remove_entries(work, descriptor, "", depth + 1));
  if (unlinkat(parent, name, AT_REMOVEDIR) != 0)
    return kp_fail_errno(work->error, KP_ERR_IO, "cannot remove the folder '%s' of '%s'", name, work->root);
  return KP_OK;
}

static kp_status remove_entry(const removal *work, int folder, const char *name, int depth) {
  struct stat info;
  if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
    return errno == ENOENT
               ? KP_OK
               : kp_fail_errno(work->error, KP_ERR_IO, "cannot remove '%s' of '%s'", name, work->root);
  if (S_ISDIR(info.st_mode)) return remove_folder(work, folder, name, depth);
  if (unlinkat(folder, name, 0) != 0)
    return kp_fail_errno(work->error, KP_ERR_IO, "cannot remove '%s' of '%s'", name, work->root);
  return KP_OK;
}

kp_status kp_directory_remove_tree(const char *path, kp_error *error) {
  char parent[KP_PATH_SIZE];
  const char *name = NULL;
  KP_TRY(kp_path_split(path, parent, &name, error));
  struct stat info;
  if (lstat(path, &info) != 0)
    return errno == ENOENT ? KP_OK : kp_fail_errno(error, KP_ERR_IO, "cannot remove '%s'", path);
  if (!S_ISDIR(info.st_mode))
    return kp_fail(error, KP_ERR_IO, "'%s' is not a folder, so it is not removed", path);
  removal work = {.root = path, .device = info.st_dev, .error = error};
  return remove_folder(&work, AT_FDCWD, path, 0);
}

static kp_status open_folder(const char *path, int *descriptor, kp_error *error) {
  KP_TRY(kp_path_check(path, error));
  *descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (*descriptor >= 0) return KP_OK;
  if (errno == ENOENT)
    return kp_fail(error, KP_ERR_IO, "the folder '%s' does not exist; check the path", path);
  if (errno == ENOTDIR) return kp_fail(error, KP_ERR_IO, "'%s' is a file; give the path of a folder", path);
  return kp_fail_errno(error, KP_ERR_IO, "cannot open the folder '%s'", path);
}

kp_status kp_directory_remove_temporaries(const char *path, kp_error *error) {
  int descriptor = -1;
  KP_TRY(open_folder(path, &descriptor, error));
  struct stat info;
  if (fstat(descriptor, &info) != 0) {
    close(descriptor);
    return kp_fail_errno(error, KP_ERR_IO, "cannot look at '%s'", path);
  }
  removal work = {.root = path, .device = info.st_dev, .error = error};
  return remove_entries(&work, descriptor, KP_TEMPORARY_PREFIX, 0);
}

static kp_status append_name(kp_directory_listing *listing, size_t *capacity, const char *name,
                             kp_error *error) {
  if (listing->count == *capacity) {
    *capacity = *capacity == 0 ? 16 : *capacity * 2;
    char **grown = realloc(listing->names, *capacity * sizeof *grown);
    if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "not enough memory to list a folder");
    listing->names = grown;
  }
  char *copy = strdup(name);
  if (copy == NULL) return kp_fail(error, KP_ERR_MEMORY, "not enough memory to list a folder");
  listing->names[listing->count++] = copy;
  return KP_OK;
}

static kp_status read_names(const char *path, DIR *stream, kp_directory_listing *listing, kp_error *error) {
  size_t capacity = 0;
  for (;;) {
    errno = 0;
    struct dirent *entry = readdir(stream);
    if (entry == NULL && errno != 0)
      return kp_fail_errno(error, KP_ERR_IO, "cannot list the folder '%s'", path);
    if (entry == NULL) return KP_OK;
    if (entry->d_name[0] != '.') KP_TRY(append_name(listing, &capacity, entry->d_name, error));
  }
}

static int compare_names(const void *left, const void *right) {
  return strcmp(*(char *const *)left, *(char *const *)right);
}

kp_status kp_directory_list(const char *path, kp_directory_listing *listing, kp_error *error) {
  *listing = (kp_directory_listing){0};
  int descriptor = -1;
  KP_TRY(open_folder(path, &descriptor, error));
  DIR *stream = fdopendir(descriptor);
  if (stream == NULL) {
    close(descriptor);
    return kp_fail(error, KP_ERR_MEMORY, "not enough memory to list '%s'", path);
  }
  kp_status status = read_names(path, stream, listing, error);
  closedir(stream);
  if (status == KP_OK && listing->count > 1)
    qsort(listing->names, listing->count, sizeof *listing->names, compare_names);
  if (status != KP_OK) kp_directory_listing_clear(listing);
  return status;
}

void kp_directory_listing_clear(kp_directory_listing *listing) {
  for (size_t i = 0; i < listing->count; i++) free(listing->names[i]);
  free(listing->names);
  *listing = (kp_directory_listing){0};
}
