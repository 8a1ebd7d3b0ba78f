#include "support/parity.h"

#include <stdlib.h>

#include "core/directory.h"
#include "study/verify.h"
#include "support/check.h"

static int failures_of(const kp_verify_report *report) {
  int failures = 0;
  for (int i = 0; i < report->count; i++) {
    const kp_verify_check *check = &report->checks[i];
    if (check->error <= check->tolerance) continue;
    print_error("%s: %s: error %.3g exceeds %.3g\n", report->name, check->name, check->error,
                check->tolerance);
    failures++;
  }
  return failures;
}

/* One case; the number of its failures. */
static int run_case(const char *path, const kp_backend *backend) {
  kp_error error = {0};
  kp_verify_report *report = malloc(sizeof *report);
  assert_non_null(report);
  check_ok(kp_verify_case(path, backend, 2, report, &error), &error);
  assert_true(report->count > 0);
  const int failures = failures_of(report);
  free(report);
  return failures;
}

/* All cases of one folder; the number of failures. */
static int run_cases(const char *folder, const kp_backend *backend) {
  kp_error error = {0};
  kp_directory_listing listing;
  int failures = 0;
  check_ok(kp_directory_list(folder, &listing, &error), &error);
  assert_true(listing.count > 0);
  for (size_t i = 0; i < listing.count; i++) {
    char path[KP_PATH_SIZE];
    check_ok(kp_path_join(path, folder, listing.names[i], &error), &error);
    failures += run_case(path, backend);
  }
  kp_directory_listing_clear(&listing);
  return failures;
}

void check_goldens(const kp_backend *backend) {
  kp_error error = {0};
  kp_directory_listing listing;
  int failures = 0, folders = 0;
  check_ok(kp_directory_list(KP_TEST_DIRECTORY "/goldens", &listing, &error), &error);
  for (size_t i = 0; i < listing.count; i++) {
    char path[KP_PATH_SIZE];
    check_ok(kp_path_join(path, KP_TEST_DIRECTORY "/goldens", listing.names[i], &error), &error);
    if (kp_path_kind_of(path) != KP_PATH_FOLDER) continue;
    failures += run_cases(path, backend);
    folders++;
  }
  kp_directory_listing_clear(&listing);
  assert_true(folders > 0);
  assert_int_equal(failures, 0);
}
