#include "core/atomic_file.h"
#include "core/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_SIZE = 256 * 1024, TEMPORARY_NAME_SIZE = 64, MAXIMUM_ATTEMPTS = 10000 };

struct kp_atomic_file {
  int descriptor;
  int folder;                          /* open for the *at calls and for its fsync */
  char target[KP_PATH_SIZE];           /* the whole path, links resolved */
  const char *name;                    /* last name of the target, points into it */
  char temporary[TEMPORARY_NAME_SIZE]; /* in the same folder */
  bool failed;
  uint64_t position; /* where the buffer will be written */
  size_t buffered;
  unsigned char buffer[BUFFER_SIZE];
};

/* Resolves links and refuses targets that a rename would wrongly replace:
 * writing to /dev/null must not turn it into a file.  *mode is 0 for a new
 * file. */
static kp_status resolve_target(const char *path, char target[KP_PATH_SIZE], mode_t *mode, kp_error *error) {
  KP_TRY(kp_path_check(path, error));
  memcpy(target, path, strlen(path) + 1);
  *mode = 0;
  struct stat info;
  if (lstat(path, &info) != 0) {
    if (errno == ENOENT) return KP_OK;
    return kp_fail_errno(error, KP_ERR_IO, "cannot write '%s'", path);
  }
  if (S_ISLNK(info.st_mode) && (realpath(path, target) == NULL || stat(target, &info) != 0))
    return kp_fail_errno(error, KP_ERR_IO, "cannot write '%s', a link that leads nowhere", path);
  if (S_ISDIR(info.st_mode))
    return kp_fail(error, KP_ERR_IO, "cannot write '%s': it is a folder; give the path of a file", path);
  if (!S_ISREG(info.st_mode))
    return kp_fail(error, KP_ERR_IO, "cannot write '%s': it is a device or a pipe; give the path of a file",
                   path);
  *mode = info.st_mode & 0777;
  return KP_OK;
}

static kp_status create_temporary(kp_atomic_file *file, kp_error *error) {
  for (int attempt = 0; attempt < MAXIMUM_ATTEMPTS; attempt++) {
    snprintf(file->temporary, sizeof file->temporary, KP_TEMPORARY_PREFIX "%ld-%d", (long)getpid(), attempt);
    file->descriptor = openat(file->folder, file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file->descriptor >= 0) return KP_OK;
    if (errno != EEXIST) break;
  }
  file->temporary[0] = 0; /* whatever has that name is not ours to remove */
  return kp_fail_errno(error, KP_ERR_IO, "cannot create '%s'", file->target);
}

static kp_status open_in_folder(kp_atomic_file *file, const char *path, kp_error *error) {
  mode_t mode = 0;
  KP_TRY(resolve_target(path, file->target, &mode, error));
  char folder[KP_PATH_SIZE];
  KP_TRY(kp_path_split(file->target, folder, &file->name, error));
  file->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file->folder < 0)
    return kp_fail_errno(error, KP_ERR_IO, "cannot write '%s' because its folder cannot be opened", path);
  KP_TRY(create_temporary(file, error));
  if (mode != 0 && fchmod(file->descriptor, mode) != 0)
    return kp_fail_errno(error, KP_ERR_IO, "cannot keep the permissions of '%s'", path);
  return KP_OK;
}

kp_status kp_atomic_file_open(const char *path, kp_atomic_file **result, kp_error *error) {
  *result = NULL;
  kp_atomic_file *file = calloc(1, sizeof *file);
  if (file == NULL) return kp_fail(error, KP_ERR_MEMORY, "not enough memory to write '%s'", path);
  file->descriptor = -1;
  file->folder = -1;
  kp_status status = open_in_folder(file, path, error);
  if (status == KP_OK)
    *result = file;
  else
    kp_atomic_file_abort(file);
  return status;
}

static kp_status write_bytes(kp_atomic_file *file, uint64_t offset, const unsigned char *data, size_t size,
                             kp_error *error) {
  while (size > 0) {
    ssize_t count = pwrite(file->descriptor, data, size, (off_t)offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      file->failed = true;
      return kp_fail_errno(error, KP_ERR_IO, "cannot write '%s'", file->target);
    }
    data += count;
    size -= (size_t)count;
    offset += (uint64_t)count;
  }
  return KP_OK;
}

static kp_status flush_buffer(kp_atomic_file *file, kp_error *error) {
  KP_TRY(write_bytes(file, file->position, file->buffer, file->buffered, error));
  file->position += file->buffered;
  file->buffered = 0;
  return KP_OK;
}

kp_status kp_atomic_file_write(kp_atomic_file *file, const void *data, size_t size, kp_error *error) {
  if (size > BUFFER_SIZE - file->buffered) KP_TRY(flush_buffer(file, error));
  if (size > BUFFER_SIZE) {
    KP_TRY(write_bytes(file, file->position, data, size, error));
    file->position += size;
  } else if (size > 0) {
    memcpy(file->buffer + file->buffered, data, size);
    file->buffered += size;
  }
  return KP_OK;
}

kp_status kp_atomic_file_write_at(kp_atomic_file *file, uint64_t offset, const void *data, size_t size,
                                  kp_error *error) {
  /* The buffer goes first, so that the later of two writes to a place wins. */
  KP_TRY(flush_buffer(file, error));
  return write_bytes(file, offset, data, size, error);
}

static kp_status publish(kp_atomic_file *file, kp_error *error) {
  if (file->failed)
    return kp_fail(error, KP_ERR_IO, "'%s' is not replaced because a write to it failed", file->target);
  KP_TRY(flush_buffer(file, error));
  if (fsync(file->descriptor) != 0) return kp_fail_errno(error, KP_ERR_IO, "cannot sync '%s'", file->target);
  int descriptor = file->descriptor;
  file->descriptor = -1;
  if (close(descriptor) != 0) return kp_fail_errno(error, KP_ERR_IO, "cannot close '%s'", file->target);
  if (renameat(file->folder, file->temporary, file->folder, file->name) != 0)
    return kp_fail_errno(error, KP_ERR_IO, "cannot rename the new file to '%s'", file->target);
  file->temporary[0] = 0;
  /* Some network file systems cannot sync a folder and say EINVAL. */
  if (fsync(file->folder) != 0 && errno != EINVAL)
    return kp_fail_errno(error, KP_ERR_IO, "cannot sync the folder of '%s'", file->target);
  return KP_OK;
}

kp_status kp_atomic_file_commit(kp_atomic_file *file, kp_error *error) {
  kp_status status = publish(file, error);
  kp_atomic_file_abort(file);
  return status;
}

void kp_atomic_file_abort(kp_atomic_file *file) {
  if (file == NULL) return;
  if (file->descriptor >= 0) close(file->descriptor);
  if (file->temporary[0] != 0) unlinkat(file->folder, file->temporary, 0);
  if (file->folder >= 0) close(file->folder);
  free(file);
}

kp_status kp_file_write_atomic(const char *path, const void *data, size_t size, kp_error *error) {
  kp_atomic_file *file = NULL;
  KP_TRY(kp_atomic_file_open(path, &file, error));
  kp_status status = kp_atomic_file_write(file, data, size, error);
  if (status == KP_OK) return kp_atomic_file_commit(file, error);
  kp_atomic_file_abort(file);
  return status;
}
