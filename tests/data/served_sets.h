/* Sets of the catalogue that a server of our own has: a folder whose files it shows, and one for what is
 * made. */
#ifndef KAPPA_TESTS_DATA_SERVED_SETS_H
#define KAPPA_TESTS_DATA_SERVED_SETS_H

#include "data/fixture.h"

#include <archive.h>
#include <archive_entry.h>

#include "core/sha256.h"
#include "data/catalogue.h"
#include "support/http_server.h"

/* A server, the folder that it shows, and the folder of the data sets. */
typedef struct kinds_test {
  fixture *files;
  http_server server;
  char mirror[128];
  kp_catalogue_options options;
  char data[KP_PATH_SIZE];
  kp_catalogue_report report;
  kp_error error;
} kinds_test;

static inline int served_setup(void **state) {
  kinds_test *test = calloc(1, sizeof *test);
  void *files = NULL;
  if (test == NULL || fixture_setup(&files) != 0) return -1;
  test->files = files;
  setenv("no_proxy", "*", 1);
  if (mkdir(fixture_path(files, "served"), 0777) != 0) return -1;
  if (http_server_start_folder(&test->server, fixture_path(files, "served")) != 0) return -1;
  http_server_url(&test->server, "", test->mirror, sizeof test->mirror);
  snprintf(test->data, sizeof test->data, "%s", fixture_path(files, "data"));
  test->options = (kp_catalogue_options){.data_folder = test->data, .mirror = test->mirror};
  *state = test;
  return 0;
}

static inline int served_teardown(void **state) {
  kinds_test *test = *state;
  void *files = test->files;
  http_server_stop(&test->server);
  free(test);
  return fixture_teardown(&files);
}

/* Puts a file on the server; its checksum to `sha256`. */
static inline void serve(kinds_test *test, const char *name, const void *data, size_t size,
                         char sha256[KP_SHA256_HEX_SIZE]) {
  char path[128];
  snprintf(path, sizeof path, "served/%s", name);
  fixture_write(test->files, path, data, size);
  kp_sha256(data, size, sha256);
}

/* The contents of an archive. */
typedef struct part {
  const char *name, *data;
} part;

static inline void serve_archive(kinds_test *test, const char *name, const char *format, const char *filter,
                                 const part *parts, size_t count, char sha256[KP_SHA256_HEX_SIZE]) {
  char path[128];
  snprintf(path, sizeof path, "served/%s", name);
  struct archive *archive = archive_write_new();
  assert_int_equal(archive_write_set_format_by_name(archive, format), ARCHIVE_OK);
  if (filter != NULL) assert_int_equal(archive_write_add_filter_by_name(archive, filter), ARCHIVE_OK);
  assert_int_equal(archive_write_open_filename(archive, fixture_path(test->files, path)), ARCHIVE_OK);
  for (size_t i = 0; i < count; i++) {
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, parts[i].name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, (la_int64_t)strlen(parts[i].data));
    assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
    assert_int_equal(archive_write_data(archive, parts[i].data, strlen(parts[i].data)),
                     strlen(parts[i].data));
    archive_entry_free(entry);
  }
  assert_int_equal(archive_write_close(archive), ARCHIVE_OK);
  archive_write_free(archive);
  kp_error error = {0};
  check_ok(kp_sha256_file(fixture_path(test->files, path), sha256, &error), &error);
}

static inline kp_status prepare(kinds_test *test, const kp_data_set *set) {
  return kp_catalogue_prepare(set, &test->options, &test->report, &test->error);
}

static inline void check_prepared(kinds_test *test, const kp_data_set *set) {
  kp_prepared read;
  check_ok(prepare(test, set), &test->error);
  check_ok(kp_prepared_read(test->report.folder, &read, &test->error), &test->error);
  check_ok(kp_prepared_verify(test->report.folder, &read, &test->error), &test->error);
  assert_string_equal(read.name, set->name);
  assert_string_equal(read.licence, set->licence);
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, served_setup, served_teardown)

#endif
