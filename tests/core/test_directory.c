#include "support/check_fails.h"
#include "support/temporary.h"
#include "core/directory.h"
#include "core/file.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_create_makes_all_levels(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "a/b/c");
  check_ok(kp_directory_create(path, &error), &error);
  assert_int_equal(kp_path_kind_of(path), KP_PATH_FOLDER);
  check_ok(kp_directory_create(path, &error), &error);
  check_ok(kp_directory_create(temporary_path(state, "a//d/"), &error), &error);
  assert_int_equal(kp_path_kind_of(temporary_path(state, "a/d")), KP_PATH_FOLDER);
  check_ok(kp_directory_create("/", &error), &error);

  const char *file = temporary_path(state, "a/file");
  temporary_write(file, "x", 1);
  assert_int_equal(kp_path_kind_of(file), KP_PATH_FILE);
  check_fails(kp_directory_create(temporary_path(state, "a/file"), &error), &error, KP_ERR_IO,
              "a file has that name");
  check_fails(kp_directory_create(temporary_path(state, "a/file/b"), &error), &error, KP_ERR_IO, "a/file'");
}

static void test_remove_tree_follows_no_links(void **state) {
  kp_error error = {0};
  const char *tree = temporary_path(state, "tree"), *outside = temporary_path(state, "outside");
  check_ok(kp_directory_create(temporary_path(state, "tree/a/b"), &error), &error);
  check_ok(kp_directory_create(outside, &error), &error);
  const char *kept = temporary_path(state, "outside/kept");
  temporary_write(kept, "x", 1);
  temporary_write(temporary_path(state, "tree/a/b/file"), "x", 1);
  temporary_write(temporary_path(state, "tree/.hidden"), "x", 1);
  assert_int_equal(symlink(outside, temporary_path(state, "tree/a/link")), 0);
  assert_int_equal(symlink(kept, temporary_path(state, "tree/file_link")), 0);
  check_ok(kp_directory_remove_tree(tree, &error), &error);
  assert_int_equal(kp_path_kind_of(tree), KP_PATH_MISSING);
  assert_int_equal(kp_path_kind_of(kept), KP_PATH_FILE);
  check_ok(kp_directory_remove_tree(tree, &error), &error);

  const char *link_path = temporary_path(state, "link");
  assert_int_equal(symlink(outside, link_path), 0);
  check_fails(kp_directory_remove_tree(link_path, &error), &error, KP_ERR_IO, "is not a folder");
  check_fails(kp_directory_remove_tree(kept, &error), &error, KP_ERR_IO, "is not a folder");
  assert_int_equal(kp_path_kind_of(kept), KP_PATH_FILE);
  check_fails(kp_directory_remove_tree("/", &error), &error, KP_ERR_INPUT, "'/'");
  check_fails(kp_directory_remove_tree(".", &error), &error, KP_ERR_INPUT, "'.'");
  check_fails(kp_directory_remove_tree("a/..", &error), &error, KP_ERR_INPUT, "'a/..'");
  check_fails(kp_directory_remove_tree("", &error), &error, KP_ERR_INPUT, "empty");
}

static void test_folder_appears_at_once(void **state) {
  kp_error error = {0};
  const char *target = temporary_path(state, "step-1"), *parent = temporary_path(state, "");
  char temporary[KP_PATH_SIZE], file[KP_PATH_SIZE];
  check_ok(kp_directory_create_temporary(target, temporary, &error), &error);
  check_ok(kp_path_join(file, temporary, "model", &error), &error);
  temporary_write(file, "x", 1);
  kp_directory_listing listing;
  check_ok(kp_directory_list(parent, &listing, &error), &error);
  assert_int_equal(listing.count, 0);
  kp_directory_listing_clear(&listing);

  check_ok(kp_directory_rename_atomic(temporary, target, &error), &error);
  assert_int_equal(kp_path_kind_of(temporary), KP_PATH_MISSING);
  assert_int_equal(kp_path_kind_of(temporary_path(state, "step-1/model")), KP_PATH_FILE);

  check_ok(kp_directory_create_temporary(target, temporary, &error), &error);
  check_fails(kp_directory_rename_atomic(temporary, target, &error), &error, KP_ERR_IO, "which exists");
  const char *missing = temporary_path(state, "none");
  check_fails(kp_directory_rename_atomic(missing, temporary_path(state, "x"), &error), &error, KP_ERR_IO,
              "none");
  check_fails(kp_directory_create_temporary(temporary_path(state, "none/x"), temporary, &error), &error,
              KP_ERR_IO, "none");
}

static void test_leftovers_are_removed(void **state) {
  kp_error error = {0};
  const char *folder = temporary_path(state, "");
  char temporary[KP_PATH_SIZE], file[KP_PATH_SIZE];
  for (int i = 0; i < 2; i++) {
    check_ok(kp_directory_create_temporary(temporary_path(state, "step-1"), temporary, &error), &error);
    check_ok(kp_path_join(file, temporary, "model", &error), &error);
    temporary_write(file, "x", 1);
  }
  temporary_write(temporary_path(state, KP_TEMPORARY_PREFIX "1-1"), "x", 1);
  temporary_write(temporary_path(state, "kept"), "x", 1);
  temporary_write(temporary_path(state, ".kept"), "x", 1);
  assert_int_equal(temporary_count(folder), 5);
  check_ok(kp_directory_remove_temporaries(folder, &error), &error);
  assert_int_equal(temporary_count(folder), 2);
}

static void test_listing_is_sorted(void **state) {
  kp_error error = {0};
  const char *folder = temporary_path(state, "");
  for (int i = 39; i >= 0; i--) {
    char path[KP_PATH_SIZE], name[16];
    snprintf(name, sizeof name, "name-%02d", i * 7 % 40);
    check_ok(kp_path_join(path, folder, name, &error), &error);
    temporary_write(path, "", 0);
  }
  temporary_write(temporary_path(state, ".hidden"), "", 0);
  kp_directory_listing listing;
  check_ok(kp_directory_list(folder, &listing, &error), &error);
  assert_int_equal(listing.count, 40);
  for (int i = 0; i < 40; i++) {
    char name[16];
    snprintf(name, sizeof name, "name-%02d", i);
    assert_string_equal(listing.names[i], name);
  }
  kp_directory_listing_clear(&listing);
  check_fails(kp_directory_list(temporary_path(state, "none"), &listing, &error), &error, KP_ERR_IO,
              "does not exist");
  check_fails(kp_directory_list(temporary_path(state, "name-01"), &listing, &error), &error, KP_ERR_IO,
              "is a file");
  assert_int_equal(listing.count, 0);
}

#define with_folder(test) cmocka_unit_test_setup_teardown(test, temporary_create, temporary_remove)

int main(void) {
  const struct CMUnitTest tests[] = {
      with_folder(test_create_makes_all_levels), with_folder(test_remove_tree_follows_no_links),
      with_folder(test_folder_appears_at_once),  with_folder(test_leftovers_are_removed),
      with_folder(test_listing_is_sorted),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
