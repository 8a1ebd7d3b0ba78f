/* How far a preparation got: what is written comes back, and what is damaged counts for nothing. */
#include "data/fixture.h"

#include "data/prepare_state.h"

static const char request[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/* A folder with a shard for training and its state. */
static void write_state(fixture *files, kp_shard_writer writers[2]) {
  kp_error error = {0};
  kp_prepare_state state = {.read = 3};
  kp_shard shard = {.tokens = 5, .text_bytes = 6, .file_bytes = 4, .documents = 2};
  memcpy(state.request_sha256, request, sizeof request);
  memcpy(state.chain_sha256, request, sizeof request);
  memcpy(shard.sha256, request, sizeof request);
  for (int side = 0; side < 2; side++)
    writers[side] = (kp_shard_writer){.folder = files->folder, .validation = side == 1};
  fixture_write(files, "train_000001.bin", "abcd", 4);
  check_ok(kp_shard_writer_add(&writers[0], &shard, &error), &error);
  check_ok(kp_prepare_state_write(files->folder, &state, writers, &error), &error);
  kp_shard_writer_clear(&writers[0]);
}

static bool read_state(fixture *files, const char *sha256, kp_shard_writer writers[2]) {
  kp_error error = {0};
  kp_prepare_state state;
  bool found = true;
  check_ok(kp_prepare_state_read(files->folder, sha256, &state, writers, &found, &error), &error);
  if (found) {
    assert_int_equal(state.read, 3);
    assert_string_equal(state.chain_sha256, request);
    assert_string_equal(state.request_sha256, request);
    assert_int_equal(kp_shard_writer_documents(&writers[0]), 2);
    assert_int_equal(writers[0].shards[0].text_bytes, 6);
  } else {
    assert_int_equal(state.read, 0);
    assert_int_equal(writers[0].shard_count + writers[1].shard_count, 0);
  }
  kp_shard_writer_clear(&writers[0]);
  return found;
}

static void test_there_and_back(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_shard_writer writers[2];
  write_state(files, writers);
  assert_true(read_state(files, request, writers));
  assert_false(read_state(files, "another request", writers));
  fixture_write(files, "train_000001.bin", "abcde", 5);
  assert_false(read_state(files, request, writers));
  unlink(fixture_path(files, "train_000001.bin"));
  assert_false(read_state(files, request, writers));
  fixture_write(files, "train_000001.bin", "abcd", 4);
  assert_true(read_state(files, request, writers));
  check_ok(kp_prepare_state_remove(files->folder, &error), &error);
  assert_false(read_state(files, request, writers));
  check_ok(kp_prepare_state_remove(files->folder, &error), &error);
}

/* Each of its bytes in turn is another one: never a crash, and never what was not written. */
static void test_damaged(void **state) {
  fixture *files = *state;
  kp_shard_writer writers[2];
  size_t size;
  write_state(files, writers);
  const char *path = fixture_path(files, KP_PROGRESS_FILE);
  char *whole = fixture_read(path, &size), *changed = malloc(size);
  assert_non_null(changed);
  for (size_t i = 0; i < size; i++) {
    fixture_write(files, KP_PROGRESS_FILE, whole, i);
    assert_false(read_state(files, request, writers) && i + 2 < size);
    memcpy(changed, whole, size);
    changed[i] = '-';
    fixture_write(files, KP_PROGRESS_FILE, changed, size);
    kp_error error = {0};
    kp_prepare_state read;
    bool found;
    check_ok(kp_prepare_state_read(files->folder, request, &read, writers, &found, &error), &error);
    assert_true(read.read >= 0 && writers[0].shard_count <= 1);
    kp_shard_writer_clear(&writers[0]);
  }
  free(changed);
  free(whole);
}

int main(void) {
  const struct CMUnitTest tests[] = {with_fixture(test_there_and_back), with_fixture(test_damaged)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
