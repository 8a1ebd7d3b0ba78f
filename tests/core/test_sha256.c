/* Test vectors of FIPS 180-4 (NIST's examples). */
#include "support/check_fails.h"
#include "support/temporary.h"
#include "core/sha256.h"

#include <stdlib.h>

static const char empty_hash[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char abc_hash[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
static const char million_hash[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

static void test_known_hashes(void **state) {
  (void)state;
  char hex[KP_SHA256_HEX_SIZE];
  kp_sha256(NULL, 0, hex);
  assert_string_equal(hex, empty_hash);
  kp_sha256("abc", 3, hex);
  assert_string_equal(hex, abc_hash);
}

static void test_files(void **state) {
  kp_error error = {0};
  char hex[KP_SHA256_HEX_SIZE];
  const char *path = temporary_path(state, "file");
  enum { SIZE = 1000 * 1000 };
  char *text = malloc(SIZE);
  assert_non_null(text);
  memset(text, 'a', SIZE);
  temporary_write(path, text, SIZE);
  free(text);
  check_ok(kp_sha256_file(path, hex, &error), &error);
  assert_string_equal(hex, million_hash);
  temporary_write(path, "", 0);
  check_ok(kp_sha256_file(path, hex, &error), &error);
  assert_string_equal(hex, empty_hash);
  check_fails(kp_sha256_file(temporary_path(state, "none"), hex, &error), &error, KP_ERR_IO,
              "does not exist");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_known_hashes),
      cmocka_unit_test_setup_teardown(test_files, temporary_create, temporary_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
