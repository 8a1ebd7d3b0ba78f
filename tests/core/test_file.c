#include "support/check_fails.h"
#include "support/temporary.h"
#include "core/atomic_file.h"
#include "core/file.h"
#include "core/path.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void expect_content(const char *path, const char *expected) {
  kp_error error = {0};
  char *data = NULL;
  size_t size = 0;
  check_ok(kp_file_read_all(path, 1 << 20, &data, &size, &error), &error);
  assert_int_equal(size, strlen(expected));
  assert_string_equal(data, expected);
  free(data);
}

static void test_paths_are_joined_and_split(void **state) {
  (void)state;
  kp_error error = {0};
  char path[KP_PATH_SIZE];
  check_ok(kp_path_join(path, "a/b", "c", &error), &error);
  assert_string_equal(path, "a/b/c");
  check_ok(kp_path_join(path, path, "d", &error), &error);
  assert_string_equal(path, "a/b/c/d");
  check_ok(kp_path_join(path, "/", "c", &error), &error);
  assert_string_equal(path, "/c");
  check_ok(kp_path_join(path, "", "c", &error), &error);
  assert_string_equal(path, "c");

  const char *name = NULL;
  check_ok(kp_path_split("a/b/c", path, &name, &error), &error);
  assert_string_equal(path, "a/b");
  assert_string_equal(name, "c");
  check_ok(kp_path_split("/c", path, &name, &error), &error);
  assert_string_equal(path, "/");
  check_ok(kp_path_split("c", path, &name, &error), &error);
  assert_string_equal(path, ".");
  check_fails(kp_path_split("a/b/", path, &name, &error), &error, KP_ERR_INPUT, "'a/b/'");
  check_fails(kp_path_split("a/..", path, &name, &error), &error, KP_ERR_INPUT, "'a/..'");

  assert_string_equal(kp_path_last_name("https://a.org/b/c.zip"), "c.zip");
  assert_string_equal(kp_path_last_name("c"), "c");
  assert_string_equal(kp_path_last_name("a/"), "");
}

static void test_long_paths_are_refused(void **state) {
  (void)state;
  kp_error error = {0};
  char longest[KP_PATH_SIZE + 1], path[KP_PATH_SIZE];
  memset(longest, 'x', sizeof longest);
  longest[KP_PATH_SIZE - 1] = 0;
  check_ok(kp_path_check(longest, &error), &error);
  longest[KP_PATH_SIZE - 3] = 0;
  check_ok(kp_path_join(path, longest, "a", &error), &error);
  assert_int_equal(strlen(path), KP_PATH_SIZE - 1);
  check_fails(kp_path_join(path, longest, "ab", &error), &error, KP_ERR_INPUT, "4095");
  memset(longest, 'x', KP_PATH_SIZE);
  longest[KP_PATH_SIZE] = 0;
  kp_file_map map;
  check_fails(kp_file_map_open(longest, KP_EMPTY_ALLOWED, &map, &error), &error, KP_ERR_INPUT, "4096");
  check_fails(kp_path_check("", &error), &error, KP_ERR_INPUT, "empty");
}

static void test_map_gives_the_bytes(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "file");
  temporary_write(path, "hello", 5);
  kp_file_map map;
  check_ok(kp_file_map_open(path, KP_EMPTY_REFUSED, &map, &error), &error);
  assert_int_equal(map.size, 5);
  assert_memory_equal(map.data, "hello", 5);
  kp_file_map_close(&map);
  kp_file_map_close(&map);
  assert_null(map.data);
}

static void test_map_refuses(void **state) {
  kp_error error = {0};
  kp_file_map map;
  const char *empty = temporary_path(state, "empty"), *pipe_path = temporary_path(state, "pipe");
  temporary_write(empty, "", 0);
  assert_int_equal(mkfifo(pipe_path, 0600), 0);
  check_fails(kp_file_map_open(empty, KP_EMPTY_REFUSED, &map, &error), &error, KP_ERR_INPUT, "is empty");
  check_ok(kp_file_map_open(empty, KP_EMPTY_ALLOWED, &map, &error), &error);
  assert_int_equal(map.size, 0);
  kp_file_map_close(&map);
  const char *missing = temporary_path(state, "missing");
  check_fails(kp_file_map_open(missing, KP_EMPTY_ALLOWED, &map, &error), &error, KP_ERR_IO, "does not exist");
  check_fails(kp_file_map_open(temporary_path(state, ""), KP_EMPTY_ALLOWED, &map, &error), &error, KP_ERR_IO,
              "is a folder");
  check_fails(kp_file_map_open(pipe_path, KP_EMPTY_ALLOWED, &map, &error), &error, KP_ERR_IO, "a pipe");
  check_fails(kp_file_map_open("/dev/null", KP_EMPTY_ALLOWED, &map, &error), &error, KP_ERR_IO, "a device");
}

static void test_read_all_is_bounded(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "file");
  temporary_write(path, "0123456789", 10);
  char *data = NULL;
  size_t size = 0;
  check_ok(kp_file_read_all(path, 10, &data, &size, &error), &error);
  assert_int_equal(size, 10);
  assert_string_equal(data, "0123456789");
  free(data);
  check_fails(kp_file_read_all(path, 9, &data, &size, &error), &error, KP_ERR_INPUT,
              "has 10 bytes; at most 9");
  assert_null(data);
  /* Devices state no size: the bound must hold while reading. */
  check_fails(kp_file_read_all("/dev/zero", 100000, &data, &size, &error), &error, KP_ERR_INPUT, "100000");
  check_ok(kp_file_read_all("/dev/null", 0, &data, &size, &error), &error);
  assert_int_equal(size, 0);
  free(data);
  check_fails(kp_file_read_all(temporary_path(state, ""), 9, &data, &size, &error), &error, KP_ERR_IO,
              "is a folder");
}

static void test_append_and_truncate(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "log");
  check_ok(kp_file_append(path, "one\n", 4, &error), &error);
  check_ok(kp_file_append(path, "two\n", 4, &error), &error);
  expect_content(path, "one\ntwo\n");
  check_ok(kp_file_truncate(path, 4, &error), &error);
  expect_content(path, "one\n");
  const char *missing = temporary_path(state, "none/log");
  check_fails(kp_file_append(missing, "x", 1, &error), &error, KP_ERR_IO, "none/log");
  check_fails(kp_file_truncate(missing, 0, &error), &error, KP_ERR_IO, "none/log");
}

static void test_atomic_write_replaces(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "file");
  check_ok(kp_file_write_atomic(path, "first", 5, &error), &error);
  assert_int_equal(chmod(path, 0640), 0);
  check_ok(kp_file_write_atomic(path, "second", 6, &error), &error);
  expect_content(path, "second");
  struct stat info;
  assert_int_equal(stat(path, &info), 0);
  assert_int_equal(info.st_mode & 0777, 0640);
  check_ok(kp_file_write_atomic(path, "", 0, &error), &error);
  expect_content(path, "");
  assert_int_equal(temporary_count(temporary_path(state, "")), 1);
}

static void test_atomic_write_follows_links(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "file"), *link_path = temporary_path(state, "link");
  temporary_write(path, "old", 3);
  assert_int_equal(symlink(path, link_path), 0);
  check_ok(kp_file_write_atomic(link_path, "new", 3, &error), &error);
  expect_content(path, "new");
  struct stat info;
  assert_int_equal(lstat(link_path, &info), 0);
  assert_true(S_ISLNK(info.st_mode));
  const char *dangling = temporary_path(state, "dangling");
  assert_int_equal(symlink("nowhere", dangling), 0);
  check_fails(kp_file_write_atomic(dangling, "x", 1, &error), &error, KP_ERR_IO, "leads nowhere");
}

static void test_atomic_write_refuses_targets(void **state) {
  kp_error error = {0};
  const char *folder = temporary_path(state, "");
  check_fails(kp_file_write_atomic(folder, "x", 1, &error), &error, KP_ERR_IO, "is a folder");
  check_fails(kp_file_write_atomic("/dev/null", "x", 1, &error), &error, KP_ERR_IO, "a device");
  check_fails(kp_file_write_atomic(temporary_path(state, "none/x"), "x", 1, &error), &error, KP_ERR_IO,
              "none/x");
  check_fails(kp_file_write_atomic(temporary_path(state, "x/"), "x", 1, &error), &error, KP_ERR_INPUT,
              "last name");
  assert_int_equal(temporary_count(folder), 0);
}

static void test_abort_leaves_the_old_file(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "file");
  temporary_write(path, "old", 3);
  kp_atomic_file *file = NULL;
  check_ok(kp_atomic_file_open(path, &file, &error), &error);
  check_ok(kp_atomic_file_write(file, "new", 3, &error), &error);
  assert_int_equal(temporary_count(temporary_path(state, "")), 2);
  kp_atomic_file_abort(file);
  kp_atomic_file_abort(NULL);
  expect_content(path, "old");
  assert_int_equal(temporary_count(temporary_path(state, "")), 1);
}

/* Small and large pieces, and bytes put in between, come out where they belong. */
static void test_streaming_writes(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "file");
  enum { SIZE = 1000 * 1000 };
  unsigned char *expected = malloc(SIZE);
  assert_non_null(expected);
  for (size_t i = 0; i < SIZE; i++) expected[i] = (unsigned char)(i * 31 >> 3);
  kp_atomic_file *file = NULL;
  check_ok(kp_atomic_file_open(path, &file, &error), &error);
  size_t place = 0;
  for (size_t piece = 1; place < SIZE; piece = piece * 3 + 1) {
    size_t size = piece < SIZE - place ? piece : SIZE - place;
    check_ok(kp_atomic_file_write(file, expected + place, size, &error), &error);
    place += size;
  }
  memcpy(expected + 77, "between", 7);
  check_ok(kp_atomic_file_write_at(file, 77, "between", 7, &error), &error);
  check_ok(kp_atomic_file_commit(file, &error), &error);
  kp_file_map map;
  check_ok(kp_file_map_open(path, KP_EMPTY_REFUSED, &map, &error), &error);
  assert_int_equal(map.size, SIZE);
  assert_memory_equal(map.data, expected, SIZE);
  kp_file_map_close(&map);
  free(expected);
}

/* Files may not grow beyond `bytes` while the limit holds, as if the disk were full. */
static struct rlimit limit_file_size(rlim_t bytes) {
  struct rlimit before;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit limited = {.rlim_cur = bytes, .rlim_max = before.rlim_max};
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
  return before;
}

static void test_full_disk_leaves_the_old_file(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "file"), *folder = temporary_path(state, "");
  const char *log = temporary_path(state, "log");
  static char large[600 * 1000];
  temporary_write(path, "old", 3);
  temporary_write(log, "line\n", 5);
  struct rlimit before = limit_file_size(4096);
  kp_error late = {0}, small = {0}, append = {0};
  kp_status status = kp_file_write_atomic(path, large, sizeof large, &error);
  /* Below the buffer's size the fault only shows in commit. */
  kp_status late_status = kp_file_write_atomic(path, large, 5000, &late);
  kp_atomic_file *file = NULL;
  kp_status open_status = kp_atomic_file_open(path, &file, &small);
  kp_status write_status = kp_atomic_file_write(file, large, sizeof large, NULL);
  kp_status commit_status = kp_atomic_file_commit(file, &small);
  kp_status append_status = kp_file_append(log, large, 5000, &append);
  setrlimit(RLIMIT_FSIZE, &before);

  assert_int_equal(status, KP_ERR_IO);
  assert_non_null(strstr(error.message, path));
  assert_int_equal(late_status, KP_ERR_IO);
  assert_int_equal(open_status, KP_OK);
  assert_int_equal(write_status, KP_ERR_IO);
  assert_int_equal(commit_status, KP_ERR_IO);
  assert_non_null(strstr(small.message, "not replaced"));
  expect_content(path, "old");
  assert_int_equal(append_status, KP_ERR_IO);
  expect_content(log, "line\n");
  assert_int_equal(temporary_count(folder), 2);
}

static void test_unwritable_folder(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "file"), *folder = temporary_path(state, "");
  temporary_write(path, "old", 3);
  assert_int_equal(chmod(folder, 0555), 0);
  /* Root may write anywhere: become somebody else for the moment. */
  bool root = geteuid() == 0;
  if (root) assert_int_equal(seteuid(65534), 0);
  kp_status status = kp_file_write_atomic(path, "new", 3, &error);
  if (root) assert_int_equal(seteuid(0), 0);
  assert_int_equal(chmod(folder, 0755), 0);
  assert_int_equal(status, KP_ERR_IO);
  assert_non_null(strstr(error.message, "Permission denied"));
  expect_content(path, "old");
  assert_int_equal(temporary_count(folder), 1);
}

static void test_unreadable_file(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "file"), *folder = temporary_path(state, "");
  temporary_write(path, "old", 3);
  assert_int_equal(chmod(path, 0), 0);
  assert_int_equal(chmod(folder, 0755), 0);
  bool root = geteuid() == 0;
  if (root) assert_int_equal(seteuid(65534), 0);
  kp_file_map map;
  kp_status status = kp_file_map_open(path, KP_EMPTY_REFUSED, &map, &error);
  if (root) assert_int_equal(seteuid(0), 0);
  assert_int_equal(status, KP_ERR_IO);
  assert_non_null(strstr(error.message, "may not be read"));
}

#define with_folder(test) cmocka_unit_test_setup_teardown(test, temporary_create, temporary_remove)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_paths_are_joined_and_split),
      cmocka_unit_test(test_long_paths_are_refused),
      with_folder(test_map_gives_the_bytes),
      with_folder(test_map_refuses),
      with_folder(test_read_all_is_bounded),
      with_folder(test_append_and_truncate),
      with_folder(test_atomic_write_replaces),
      with_folder(test_atomic_write_follows_links),
      with_folder(test_atomic_write_refuses_targets),
      with_folder(test_abort_leaves_the_old_file),
      with_folder(test_streaming_writes),
      with_folder(test_full_disk_leaves_the_old_file),
      with_folder(test_unwritable_folder),
      with_folder(test_unreadable_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
