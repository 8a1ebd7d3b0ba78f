/* Token files as others write them and as kappa does, streams of several, and the words of errors. */
#include "data/fixture.h"

#include "data/token_file.h"
#include "data/token_layout.h"
#include "data/token_writer.h"

/* A shard as llm.c writes it, with `count` in its header and the tokens' bytes behind it. */
static const char *write_shard(fixture *files, const char *name, int32_t magic, int32_t version,
                               int32_t count, const void *tokens, size_t bytes) {
  static unsigned char content[KP_SHARD_HEADER_BYTES + 4096];
  int32_t head[3] = {magic, version, count};
  memset(content, 0, sizeof content);
  memcpy(content, head, sizeof head);
  memcpy(content + KP_SHARD_HEADER_BYTES, tokens, bytes);
  return fixture_write(files, name, content, KP_SHARD_HEADER_BYTES + bytes);
}

static kp_tokens *open_one(const char *path) {
  kp_error error = {0};
  kp_tokens *tokens = NULL;
  check_ok(kp_tokens_open(&path, 1, NULL, &tokens, &error), &error);
  return tokens;
}

static void check_stream(const kp_tokens *tokens, const int32_t *expected, int64_t count) {
  assert_int_equal(kp_tokens_count(tokens), count);
  for (int64_t begin = 0; begin <= count; begin++) {
    int32_t found[64];
    kp_tokens_copy(tokens, begin, count - begin, found);
    assert_memory_equal(found, expected + begin, (size_t)(count - begin) * sizeof *found);
  }
}

static void check_refused(const char *path, const char *split, const char *words) {
  kp_error error = {0};
  kp_tokens *tokens = NULL;
  assert_int_not_equal(kp_tokens_open(&path, 1, split, &tokens, &error), KP_OK);
  check_words(&error, words);
  assert_null(tokens);
}

static void test_raw(void **state) {
  fixture *files = *state;
  static const uint16_t raw[] = {5, 0, 65535, 7};
  static const int32_t expected[] = {5, 0, 65535, 7};
  kp_tokens *tokens = open_one(fixture_write(files, "train.bin", raw, sizeof raw));
  check_stream(tokens, expected, 4);
  assert_int_equal(kp_tokens_vocabulary(tokens), 0);
  assert_int_equal(kp_tokens_text_bytes(tokens), 0);
  kp_tokens_destroy(tokens);
}

static void test_shards_of_others(void **state) {
  fixture *files = *state;
  static const uint16_t narrow[] = {1, 2, 50256};
  static const uint32_t wide[] = {1, 2, 128000};
  static const int32_t expected_narrow[] = {1, 2, 50256}, expected_wide[] = {1, 2, 128000};
  kp_tokens *tokens = open_one(write_shard(files, "a.bin", 20240520, 1, 3, narrow, sizeof narrow));
  check_stream(tokens, expected_narrow, 3);
  kp_tokens_destroy(tokens);
  tokens = open_one(write_shard(files, "b.tokens", 20240801, 7, 3, wide, sizeof wide));
  check_stream(tokens, expected_wide, 3);
  kp_tokens_destroy(tokens);
}

static void test_what_lies_in_reserved_fields_of_others_is_ignored(void **state) {
  fixture *files = *state;
  static const uint16_t narrow[] = {1};
  const char *path = write_shard(files, "a.bin", 20240520, 1, 1, narrow, sizeof narrow);
  size_t size;
  char *content = fixture_read(path, &size);
  memset(content + 12, 0x77, 24);
  path = fixture_write(files, "a.bin", content, size);
  free(content);
  kp_tokens *tokens = open_one(path);
  assert_int_equal(kp_tokens_vocabulary(tokens), 0);
  assert_int_equal(kp_tokens_fingerprint(tokens), 0);
  kp_tokens_destroy(tokens);
}

static const char *write_own(fixture *files, const char *name, int32_t vocabulary, uint64_t fingerprint,
                             const int32_t *ids, size_t count, uint64_t text_bytes) {
  kp_error error = {0};
  kp_token_writer *writer = NULL;
  const char *path = fixture_path(files, name);
  check_ok(kp_token_writer_create(path, vocabulary, fingerprint, &writer, &error), &error);
  check_ok(kp_token_writer_append(writer, ids, count / 2, &error), &error);
  check_ok(kp_token_writer_append(writer, ids + count / 2, count - count / 2, &error), &error);
  check_ok(kp_token_writer_finish(writer, text_bytes, &error), &error);
  return path;
}

static void test_own_files(void **state) {
  fixture *files = *state;
  static const int32_t ids[] = {64, 0, 33, 1, 2};
  const char *path =
      write_own(files, "train.bin", 65, UINT64_C(0xfedcba9876543210), ids, 5, UINT64_C(5000000000));
  kp_tokens *tokens = open_one(path);
  check_stream(tokens, ids, 5);
  assert_int_equal(kp_tokens_vocabulary(tokens), 65);
  assert_true(kp_tokens_fingerprint(tokens) == UINT64_C(0xfedcba9876543210));
  assert_true(kp_tokens_text_bytes(tokens) == UINT64_C(5000000000));
  kp_tokens_destroy(tokens);
  /* What llm.c looks at: magic, version, count, and uint16 tokens from byte 1024 to the end. */
  size_t size;
  char *content = fixture_read(path, &size);
  int32_t head[3];
  uint16_t last;
  memcpy(head, content, sizeof head);
  memcpy(&last, content + size - 2, sizeof last);
  assert_int_equal(size, 1024 + 2 * 5);
  assert_int_equal(head[0], 20240520);
  assert_int_equal(head[1], 1);
  assert_int_equal(head[2], 5);
  assert_int_equal(last, 2);
  free(content);
}

static void test_large_vocabularies_take_four_bytes(void **state) {
  fixture *files = *state;
  static const int32_t ids[] = {65535, 65536, 0};
  kp_tokens *tokens = open_one(write_own(files, "a.bin", 65537, 1, ids, 3, 0));
  check_stream(tokens, ids, 3);
  kp_tokens_destroy(tokens);
  struct stat information;
  assert_int_equal(stat(fixture_path(files, "a.bin"), &information), 0);
  assert_int_equal(information.st_size, 1024 + 4 * 3);
  kp_tokens_destroy(open_one(write_own(files, "b.bin", 65536, 1, ids, 1, 0)));
  assert_int_equal(stat(fixture_path(files, "b.bin"), &information), 0);
  assert_int_equal(information.st_size, 1024 + 2 * 1);
}

static void test_unfinished_files_do_not_appear(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_token_writer *writer = NULL;
  static const int32_t ids[] = {1, 2};
  check_ok(kp_token_writer_create(fixture_path(files, "a.bin"), 3, 0, &writer, &error), &error);
  check_ok(kp_token_writer_append(writer, ids, 2, &error), &error);
  assert_int_equal(access(fixture_path(files, "a.bin"), F_OK), -1);
  kp_token_writer_abort(writer);
  assert_int_equal(access(fixture_path(files, "a.bin"), F_OK), -1);
  check_ok(kp_token_writer_create(fixture_path(files, "a.bin"), 3, 0, &writer, &error), &error);
  assert_int_equal(kp_token_writer_finish(writer, 0, &error), KP_ERR_INPUT);
  assert_int_equal(access(fixture_path(files, "a.bin"), F_OK), -1);
}

static void test_several_files_are_one_stream(void **state) {
  fixture *files = *state;
  static const int32_t ids[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  write_own(files, "x_train_2.bin", 10, 7, ids + 3, 1, 30);
  write_own(files, "x_train_1.bin", 10, 7, ids, 3, 20);
  write_own(files, "x_train_3.bin", 10, 7, ids + 4, 6, 50);
  write_own(files, "x_val_1.bin", 10, 7, ids, 2, 9);
  kp_error error = {0};
  kp_tokens *tokens = open_one(fixture_path(files, "x_train_*.bin"));
  check_stream(tokens, ids, 10);
  assert_int_equal(kp_tokens_files(tokens), 3);
  assert_int_equal(kp_tokens_text_bytes(tokens), 100);
  assert_non_null(strstr(kp_tokens_path(tokens, 1), "x_train_2.bin"));
  kp_tokens_destroy(tokens);
  const char *folder = files->folder;
  check_ok(kp_tokens_open(&folder, 1, "train", &tokens, &error), &error);
  check_stream(tokens, ids, 10);
  kp_tokens_destroy(tokens);
  check_ok(kp_tokens_open(&folder, 1, "val", &tokens, &error), &error);
  check_stream(tokens, ids, 2);
  kp_tokens_destroy(tokens);
  const char *list[] = {fixture_path(files, "x_train_1.bin"), fixture_path(files, "x_train_2.bin")};
  check_ok(kp_tokens_open(list, 2, NULL, &tokens, &error), &error);
  check_stream(tokens, ids, 4);
  kp_tokens_destroy(tokens);
  check_refused(folder, NULL, "both train and val");
  check_refused(folder, "test", "no token file *test*.bin");
}

static void test_files_of_different_tokenizers_do_not_mix(void **state) {
  fixture *files = *state;
  static const int32_t ids[] = {0, 1};
  write_own(files, "a.bin", 10, 7, ids, 2, 0);
  write_own(files, "b.bin", 10, 8, ids, 2, 0);
  check_refused(files->folder, NULL, "different tokenizers");
}

static void test_range_check_names_file_and_position(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  static const uint16_t first[] = {1, 2, 3}, second[] = {4, 5, 600};
  const char *paths[] = {fixture_write(files, "one.bin", first, sizeof first),
                         fixture_write(files, "two.bin", second, sizeof second)};
  kp_tokens *tokens = NULL;
  check_ok(kp_tokens_open(paths, 2, NULL, &tokens, &error), &error);
  check_ok(kp_tokens_check(tokens, 601, &error), &error);
  assert_int_equal(kp_tokens_check(tokens, 600, &error), KP_ERR_INPUT);
  check_words(&error, "two.bin: token 600 at position 2 is not below the vocabulary of 600");
  kp_tokens_destroy(tokens);
  static const uint32_t negative[] = {0xFFFFFFFFu};
  tokens = open_one(write_shard(files, "w.bin", 20240801, 7, 1, negative, sizeof negative));
  assert_int_equal(kp_tokens_check(tokens, INT32_MAX, &error), KP_ERR_INPUT);
  kp_tokens_destroy(tokens);
}

static void test_bad_files_are_refused(void **state) {
  fixture *files = *state;
  static const uint16_t narrow[] = {1, 2, 3, 4};
  check_refused(fixture_path(files, "gone.bin"), NULL, "gone.bin does not exist");
  check_refused(fixture_path(files, "gone*.bin"), NULL, "no file matches");
  check_refused(files->folder, NULL, "has no token file");
  check_refused(fixture_write(files, "empty.bin", "", 0), NULL, "empty");
  check_refused(fixture_write(files, "odd.bin", "abc", 3), NULL, "even number of bytes, the file has 3");
  check_refused(fixture_write(files, "text.txt", "To be, or not to be", 19), NULL, "must be prepared first");
  check_refused(fixture_write(files, "numpy.bin", "\x93NUMPY\1\0", 8), NULL, "NumPy");
  check_refused(write_shard(files, "a.bin", 20240520, 1, 5, narrow, 8), NULL, "cut short");
  check_refused(write_shard(files, "a.bin", 20240520, 1, 3, narrow, 8), NULL,
                "says 3 tokens but 8 bytes follow");
  check_refused(write_shard(files, "a.bin", 20240520, 1, 4, narrow, 7), NULL, "cut short");
  check_refused(write_shard(files, "a.bin", 20240520, 1, 0, narrow, 0), NULL, "says 0 tokens");
  check_refused(write_shard(files, "a.bin", 20240520, 1, -1, narrow, 8), NULL, "says -1 tokens");
  check_refused(write_shard(files, "a.bin", 20240520, 2, 4, narrow, 8), NULL,
                "version is 2; version 1 is known");
  check_refused(write_shard(files, "a.bin", 20240801, 1, 2, narrow, 8), NULL,
                "version is 1; version 7 is known");
  check_refused(write_shard(files, "a.bin", 20240326, 3, 2, narrow, 8), NULL, "a checkpoint of llm.c");
  check_refused(write_shard(files, "a.dat", 1234, 1, 2, narrow, 8), NULL, "no shard header");
  static const int32_t magic = 20240520;
  check_refused(fixture_write(files, "a.bin", &magic, sizeof magic), NULL, "a shard's header has 1024 bytes");
}

static void test_folder_names_may_look_like_patterns(void **state) {
  fixture *files = *state;
  static const uint16_t raw[] = {1, 2};
  assert_int_equal(mkdir(fixture_path(files, "set[1]*"), 0777), 0);
  fixture_write(files, "set[1]*/train.bin", raw, sizeof raw);
  kp_tokens *tokens = open_one(fixture_path(files, "set[1]*"));
  assert_int_equal(kp_tokens_count(tokens), 2);
  kp_tokens_destroy(tokens);
  tokens = open_one(fixture_path(files, "set[1]*/train.bin"));
  kp_tokens_destroy(tokens);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_raw),
      with_fixture(test_shards_of_others),
      with_fixture(test_what_lies_in_reserved_fields_of_others_is_ignored),
      with_fixture(test_own_files),
      with_fixture(test_large_vocabularies_take_four_bytes),
      with_fixture(test_unfinished_files_do_not_appear),
      with_fixture(test_several_files_are_one_stream),
      with_fixture(test_files_of_different_tokenizers_do_not_mix),
      with_fixture(test_range_check_names_file_and_position),
      with_fixture(test_bad_files_are_refused),
      with_fixture(test_folder_names_may_look_like_patterns),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
