/* For nftw. */
#define _XOPEN_SOURCE 700

#include "support/temporary.h"
#include "support/check.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAXIMUM_PATHS = 32 };

typedef struct temporary {
  char folder[64];
  char *paths[MAXIMUM_PATHS];
  size_t count;
} temporary;

int temporary_create(void **state) {
  temporary *self = calloc(1, sizeof *self);
  if (self == NULL) return -1;
  strcpy(self->folder, "/tmp/kappa-test-XXXXXX");
  *state = self;
  return mkdtemp(self->folder) == NULL ? -1 : 0;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place) {
  (void)info;
  (void)kind;
  (void)place;
  return remove(path);
}

int temporary_remove(void **state) {
  temporary *self = *state;
  for (size_t i = 0; i < self->count; i++) free(self->paths[i]);
  int result = nftw(self->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
  free(self);
  return result;
}

const char *temporary_path(void **state, const char *name) {
  temporary *self = *state;
  assert_true(self->count < MAXIMUM_PATHS);
  size_t size = strlen(self->folder) + strlen(name) + 2;
  char *path = malloc(size);
  assert_non_null(path);
  snprintf(path, size, "%s%s%s", self->folder, name[0] == 0 ? "" : "/", name);
  self->paths[self->count++] = path;
  return path;
}

void temporary_write(const char *path, const void *data, size_t size) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

size_t temporary_count(const char *path) {
  DIR *stream = opendir(path);
  assert_non_null(stream);
  size_t count = 0;
  while (readdir(stream) != NULL) count++;
  closedir(stream);
  return count - 2;
}
