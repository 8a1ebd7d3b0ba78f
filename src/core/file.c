#include "core/file.h"
#include "core/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens for reading, with words for the mistakes that users make. */
static kp_status open_for_reading(const char *path, int flags, int *descriptor, struct stat *info,
                                  kp_error *error) {
  KP_TRY(kp_path_check(path, error));
  *descriptor = open(path, O_RDONLY | O_CLOEXEC | flags);
  if (*descriptor < 0) {
    if (errno == ENOENT) return kp_fail(error, KP_ERR_IO, "'%s' does not exist; check the path", path);
    if (errno == EACCES)
      return kp_fail(error, KP_ERR_IO, "'%s' may not be read; check its permissions", path);
    return kp_fail_errno(error, KP_ERR_IO, "cannot open '%s'", path);
  }
  kp_status status = KP_OK;
  if (fstat(*descriptor, info) != 0)
    status = kp_fail_errno(error, KP_ERR_IO, "cannot look at '%s'", path);
  else if (S_ISDIR(info->st_mode))
    status = kp_fail(error, KP_ERR_IO, "'%s' is a folder; give the path of a file", path);
  if (status != KP_OK) close(*descriptor);
  return status;
}

static kp_status map_descriptor(const char *path, int descriptor, const struct stat *info,
                                kp_file_empty empty, kp_file_map *map, kp_error *error) {
  if (!S_ISREG(info->st_mode))
    return kp_fail(error, KP_ERR_IO, "'%s' is a device or a pipe; give the path of a regular file", path);
  if (info->st_size == 0) {
    if (empty == KP_EMPTY_ALLOWED) return KP_OK;
    return kp_fail(error, KP_ERR_INPUT, "'%s' is empty; was it written completely?", path);
  }
  size_t size = (size_t)info->st_size;
  void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (data == MAP_FAILED) return kp_fail_errno(error, KP_ERR_IO, "cannot map '%s' into memory", path);
  map->data = data;
  map->size = size;
  return KP_OK;
}

kp_status kp_file_map_open(const char *path, kp_file_empty empty, kp_file_map *map, kp_error *error) {
  *map = (kp_file_map){0};
  int descriptor = -1;
  struct stat info;
  /* Without O_NONBLOCK the opening of a pipe would wait for a writer. */
  KP_TRY(open_for_reading(path, O_NONBLOCK, &descriptor, &info, error));
  kp_status status = map_descriptor(path, descriptor, &info, empty, map, error);
  close(descriptor);
  return status;
}

void kp_file_map_close(kp_file_map *map) {
  if (map->size > 0) munmap((void *)map->data, map->size);
  *map = (kp_file_map){0};
}

/* Reads to the end into a buffer that grows; a stated size is only a hint,
 * since pipes and files of /proc state none. */
static kp_status read_to_end(const char *path, int descriptor, size_t hint, size_t maximum, char **data,
                             size_t *size, kp_error *error) {
  size_t capacity = hint < 4096 ? 4096 : hint + 2;
  char *buffer = NULL;
  size_t used = 0;
  for (;;) {
    char *grown = realloc(buffer, capacity);
    if (grown == NULL) {
      free(buffer);
      return kp_fail(error, KP_ERR_MEMORY, "not enough memory to read '%s'", path);
    }
    buffer = grown;
    ssize_t count = read(descriptor, buffer + used, capacity - 1 - used);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      kp_status status = kp_fail_errno(error, KP_ERR_IO, "cannot read '%s'", path);
      free(buffer);
      return status;
    }
    used += (size_t)count;
    if (count == 0 || used > maximum) break;
    if (used == capacity - 1) capacity *= 2;
  }
  if (used > maximum) {
    free(buffer);
    return kp_fail(error, KP_ERR_INPUT, "'%s' is longer than the %zu bytes allowed here", path, maximum);
  }
  buffer[used] = 0;
  *data = buffer;
  *size = used;
  return KP_OK;
}

kp_status kp_file_read_all(const char *path, size_t maximum, char **data, size_t *size, kp_error *error) {
  *data = NULL;
  *size = 0;
  int descriptor = -1;
  struct stat info;
  KP_TRY(open_for_reading(path, 0, &descriptor, &info, error));
  size_t stated = S_ISREG(info.st_mode) ? (size_t)info.st_size : 0;
  kp_status status = KP_OK;
  if (stated > maximum)
    status = kp_fail(error, KP_ERR_INPUT, "'%s' has %zu bytes; at most %zu are allowed here", path, stated,
                     maximum);
  else
    status = read_to_end(path, descriptor, stated, maximum, data, size, error);
  close(descriptor);
  return status;
}

static kp_status append_whole(const char *path, int descriptor, const void *data, size_t size,
                              kp_error *error) {
  off_t before = lseek(descriptor, 0, SEEK_END);
  ssize_t count = 0;
  do count = write(descriptor, data, size);
  while (count < 0 && errno == EINTR);
  if (count == (ssize_t)size) return KP_OK;
  kp_status status = count < 0 ? kp_fail_errno(error, KP_ERR_IO, "cannot append to '%s'", path)
                               : kp_fail(error, KP_ERR_IO, "'%s' cannot grow; is the disk full?", path);
  if (count > 0 && (before < 0 || ftruncate(descriptor, before) != 0))
    return kp_context(error, "the last line of '%s' is incomplete", path);
  return status;
}

kp_status kp_file_append(const char *path, const void *data, size_t size, kp_error *error) {
  KP_TRY(kp_path_check(path, error));
  int descriptor = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) return kp_fail_errno(error, KP_ERR_IO, "cannot open '%s' to append to it", path);
  kp_status status = append_whole(path, descriptor, data, size, error);
  if (close(descriptor) != 0 && status == KP_OK)
    status = kp_fail_errno(error, KP_ERR_IO, "cannot finish appending to '%s'", path);
  return status;
}

kp_status kp_file_truncate(const char *path, size_t size, kp_error *error) {
  KP_TRY(kp_path_check(path, error));
  int descriptor = open(path, O_WRONLY | O_CLOEXEC);
  if (descriptor < 0) return kp_fail_errno(error, KP_ERR_IO, "cannot open '%s' to shorten it", path);
  kp_status status = KP_OK;
  if (ftruncate(descriptor, (off_t)size) != 0 || fsync(descriptor) != 0)
    status = kp_fail_errno(error, KP_ERR_IO, "cannot shorten '%s'", path);
  close(descriptor);
  return status;
}
