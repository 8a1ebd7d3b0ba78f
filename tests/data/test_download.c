/* Downloads from a server on this machine: whole, resumed, redirected, cut, refused, wrong. */
#include "data/fixture.h"

#include "core/sha256.h"
#include "data/download.h"
#include "support/http_server.h"

enum { body_size = 300000 };

typedef struct download_test {
  fixture *files;
  http_server server;
  char *body;
  char sha256[KP_SHA256_HEX_SIZE];
  char url[128];
} download_test;

static int setup(void **state) {
  download_test *test = calloc(1, sizeof *test);
  void *files = NULL;
  setenv("no_proxy", "*", 1);
  if (test == NULL || fixture_setup(&files) != 0) return -1;
  test->files = files;
  test->body = malloc(body_size);
  if (test->body == NULL) return -1;
  for (size_t i = 0; i < body_size; i++) test->body[i] = (char)((i * 2654435761u) >> 13);
  kp_sha256(test->body, body_size, test->sha256);
  *state = test;
  return http_server_start(&test->server, test->body, body_size);
}

static int teardown(void **state) {
  download_test *test = *state;
  void *files = test->files;
  http_server_stop(&test->server);
  free(test->body);
  free(test);
  return fixture_teardown(&files);
}

static kp_download_options options_for(download_test *test, const char *server_path) {
  http_server_url(&test->server, server_path, test->url, sizeof test->url);
  return (kp_download_options){.url = test->url,
                               .path = fixture_path(test->files, "text"),
                               .sha256 = test->sha256,
                               .size = body_size,
                               .stall_seconds = 1};
}

static const char *part_of(download_test *test) {
  return fixture_path(test->files, "text.part");
}

static void check_downloaded(download_test *test) {
  size_t size;
  char *found = fixture_read(fixture_path(test->files, "text"), &size);
  assert_int_equal(size, body_size);
  assert_memory_equal(found, test->body, body_size);
  assert_int_equal(access(part_of(test), F_OK), -1);
  free(found);
}

static void check_fails(const kp_download_options *options, kp_status status, const char *words) {
  kp_error error = {0};
  assert_int_equal(kp_download(options, &error), status);
  check_words(&error, words);
  assert_int_equal(access(options->path, F_OK), -1);
}

static long part_size(download_test *test) {
  struct stat information;
  return stat(part_of(test), &information) == 0 ? (long)information.st_size : -1;
}

static void test_whole_file(void **state) {
  download_test *test = *state;
  kp_error error = {0};
  kp_download_options options = options_for(test, "/file");
  check_ok(kp_download(&options, &error), &error);
  check_downloaded(test);
  /* The second time there is nothing to do, and nobody to ask. */
  check_ok(kp_download(&options, &error), &error);
  assert_int_equal(test->server.log->requests, 1);
}

static void test_nothing_known_about_the_file(void **state) {
  download_test *test = *state;
  kp_error error = {0};
  kp_download_options options = options_for(test, "/unsized");
  options.sha256 = NULL;
  options.size = 0;
  fixture_write(test->files, "text.part", "stale", 5);
  check_ok(kp_download(&options, &error), &error);
  check_downloaded(test);
  assert_int_equal(test->server.log->ranges, 0);
}

static void test_cut_connection_is_resumed(void **state) {
  download_test *test = *state;
  kp_error error = {0};
  kp_download_options options = options_for(test, "/cut");
  check_fails(&options, KP_ERR_IO, "the connection was cut; 150000 bytes are there; run again");
  assert_int_equal(part_size(test), body_size / 2);
  check_ok(kp_download(&options, &error), &error);
  check_downloaded(test);
  assert_int_equal(test->server.log->ranges, 1);
  assert_int_equal(test->server.log->last_range_begin, body_size / 2);
}

static void test_server_without_ranges_starts_anew(void **state) {
  download_test *test = *state;
  kp_error error = {0};
  kp_download_options options = options_for(test, "/no-range");
  fixture_write(test->files, "text.part", test->body, 1000);
  check_ok(kp_download(&options, &error), &error);
  check_downloaded(test);
  assert_int_equal(test->server.log->ranges, 1);
}

static void test_complete_part_needs_no_network(void **state) {
  download_test *test = *state;
  kp_error error = {0};
  kp_download_options options = options_for(test, "/file");
  fixture_write(test->files, "text.part", test->body, body_size);
  check_ok(kp_download(&options, &error), &error);
  check_downloaded(test);
  assert_int_equal(test->server.log->requests, 0);
}

static void test_refused_range_starts_anew(void **state) {
  download_test *test = *state;
  kp_error error = {0};
  kp_download_options options = options_for(test, "/refuse-range");
  fixture_write(test->files, "text.part", test->body, 1000);
  check_ok(kp_download(&options, &error), &error);
  check_downloaded(test);
  assert_int_equal(test->server.log->requests, 2);
}

static void test_range_that_was_not_asked_for(void **state) {
  download_test *test = *state;
  kp_download_options options = options_for(test, "/shifted");
  fixture_write(test->files, "text.part", test->body, 1000);
  check_fails(&options, KP_ERR_IO, "sent bytes from 1001 on when asked from 1000");
}

static void test_wrong_checksum_removes_the_part(void **state) {
  download_test *test = *state;
  kp_error error = {0};
  kp_download_options options = options_for(test, "/file");
  fixture_write(test->files, "text.part", "another beginning", 17);
  check_fails(&options, KP_ERR_INPUT, "expected was");
  assert_int_equal(part_size(test), -1);
  check_ok(kp_download(&options, &error), &error);
  check_downloaded(test);
}

static void test_longer_than_expected(void **state) {
  download_test *test = *state;
  kp_download_options options = options_for(test, "/file");
  options.size = 1000;
  check_fails(&options, KP_ERR_INPUT, "longer than the 1000 bytes expected");
}

static void test_refusals_of_the_server(void **state) {
  download_test *test = *state;
  kp_download_options options = options_for(test, "/missing");
  check_fails(&options, KP_ERR_IO, "the server answered 404 (not found)");
  options = options_for(test, "/loop");
  check_fails(&options, KP_ERR_IO, "redirects without end");
  options = options_for(test, "/local");
  check_fails(&options, KP_ERR_INPUT, "other than http:// or https://");
  options.url = "file:///etc/hostname";
  check_fails(&options, KP_ERR_INPUT, "other than http:// or https://");
}

static void test_redirect_is_followed(void **state) {
  download_test *test = *state;
  kp_error error = {0};
  kp_download_options options = options_for(test, "/elsewhere");
  check_ok(kp_download(&options, &error), &error);
  check_downloaded(test);
  assert_int_equal(test->server.log->requests, 2);
}

static void test_silent_server(void **state) {
  download_test *test = *state;
  kp_download_options options = options_for(test, "/silent");
  check_fails(&options, KP_ERR_IO, "was silent too long");
}

static void test_no_server(void **state) {
  download_test *test = *state;
  kp_download_options options = options_for(test, "/file");
  /* The reserved port 1 of this machine: nobody listens there. */
  options.url = "http://127.0.0.1:1/file";
  check_fails(&options, KP_ERR_IO, "is there a network?");
}

static void test_full_disk(void **state) {
  download_test *test = *state;
  kp_download_options options = options_for(test, "/file");
  assert_int_equal(symlink("/dev/full", part_of(test)), 0);
  check_fails(&options, KP_ERR_IO, "No space left on device");
}

static void test_missing_folder(void **state) {
  download_test *test = *state;
  kp_download_options options = options_for(test, "/file");
  options.path = fixture_path(test->files, "nowhere/text");
  check_fails(&options, KP_ERR_IO, "nowhere/text.part");
}

static bool stop_at_once(void *context, int64_t done, int64_t total) {
  (void)done;
  (void)total;
  ++*(int *)context;
  return false;
}

static bool remember(void *context, int64_t done, int64_t total) {
  int64_t *seen = context;
  seen[0] = done;
  seen[1] = total;
  return true;
}

static void test_progress(void **state) {
  download_test *test = *state;
  kp_error error = {0};
  int calls = 0;
  int64_t seen[2] = {0};
  kp_download_options options = options_for(test, "/cut");
  options.progress = stop_at_once;
  options.context = &calls;
  check_fails(&options, KP_ERR_INTERRUPTED, "was stopped");
  assert_int_equal(calls, 1);
  fixture_write(test->files, "text.part", test->body, 1000);
  options.progress = remember;
  options.context = seen;
  check_ok(kp_download(&options, &error), &error);
  assert_int_equal(seen[0], body_size);
  assert_int_equal(seen[1], body_size);
}

int main(void) {
#define on_server(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
  const struct CMUnitTest tests[] = {
      on_server(test_whole_file),
      on_server(test_nothing_known_about_the_file),
      on_server(test_cut_connection_is_resumed),
      on_server(test_server_without_ranges_starts_anew),
      on_server(test_complete_part_needs_no_network),
      on_server(test_refused_range_starts_anew),
      on_server(test_range_that_was_not_asked_for),
      on_server(test_wrong_checksum_removes_the_part),
      on_server(test_longer_than_expected),
      on_server(test_refusals_of_the_server),
      on_server(test_redirect_is_followed),
      on_server(test_silent_server),
      on_server(test_no_server),
      on_server(test_full_disk),
      on_server(test_missing_folder),
      on_server(test_progress),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
