/* Sets of the catalogue that are shards, or need a pipe. */
#include "data/served_sets.h"

#include "data/token_file.h"
#include "data/token_layout.h"

enum { SHARD_TOKENS = 50 };

/* A shard of modded-nanogpt, whose tokens are all `token`. */
static void serve_shard(kinds_test *test, const char *name, uint16_t token) {
  unsigned char data[KP_SHARD_HEADER_BYTES + 2 * SHARD_TOKENS];
  char sha256[KP_SHA256_HEX_SIZE];
  const kp_token_layout layout = {.begin = KP_SHARD_HEADER_BYTES, .token_size = 2, .count = SHARD_TOKENS};
  kp_token_layout_write(&layout, data);
  for (int i = 0; i < SHARD_TOKENS; i++) {
    data[KP_SHARD_HEADER_BYTES + 2 * i] = (unsigned char)token;
    data[KP_SHARD_HEADER_BYTES + 2 * i + 1] = (unsigned char)(token >> 8);
  }
  serve(test, name, data, sizeof data, sha256);
}

static const kp_data_set shard_set = {.name = "web",
                                      .what = "a test",
                                      .source = "here",
                                      .licence = "CC0",
                                      .kind = KP_DATA_SHARDS,
                                      .tokenizer = "gpt2",
                                      .files = {{"https://example.invalid/web_val_000000.bin", 0, NULL}},
                                      .shard_url = "https://example.invalid/web_train_",
                                      .shards = 3};

/* Five characters stand for GPT-2's tokenizer: the name means a file or folder here before anything else. */
static void use_tokenizer(kinds_test *test, kp_data_set *set, char path[KP_PATH_SIZE]) {
  static const char json[] = "{\"type\": \"character\", \"characters\": [\"a\", \"b\", \"c\", \"d\", \"e\"]}";
  snprintf(path, KP_PATH_SIZE, "%s", fixture_write(test->files, "five.json", json, strlen(json)));
  set->tokenizer = path;
}

static void test_shards(void **state) {
  kinds_test *test = *state;
  kp_data_set set = shard_set;
  char tokenizer[KP_PATH_SIZE];
  use_tokenizer(test, &set, tokenizer);
  serve_shard(test, "web_val_000000.bin", 4);
  serve_shard(test, "web_train_000001.bin", 1);
  serve_shard(test, "web_train_000002.bin", 2);
  test->options.shards = 1;
  check_prepared(test, &set);
  assert_int_equal(test->report.prepared.train.tokens, SHARD_TOKENS);
  assert_int_equal(test->report.prepared.validation.tokens, SHARD_TOKENS);
  assert_int_equal(test->server.log->requests, 2);
  check_ok(prepare(test, &set), &test->error);
  assert_false(test->report.fresh);
  /* More of them: the others stay. */
  test->options.shards = 2;
  check_prepared(test, &set);
  assert_true(test->report.fresh);
  assert_int_equal(test->server.log->requests, 3);
  assert_int_equal(test->report.prepared.train.tokens, 2 * SHARD_TOKENS);
  kp_tokens *tokens = NULL;
  const char *folder = test->report.folder;
  int32_t two[2];
  check_ok(kp_tokens_open(&folder, 1, "train", &tokens, &test->error), &test->error);
  kp_tokens_copy(tokens, SHARD_TOKENS - 1, 2, two);
  assert_int_equal(two[0], 1);
  assert_int_equal(two[1], 2);
  kp_tokens_destroy(tokens);
  /* The third is not there. */
  test->options.shards = 3;
  assert_int_equal(prepare(test, &set), KP_ERR_IO);
  check_words(&test->error, "web_train_000003.bin");
  check_words(&test->error, "404");
  test->options.shards = 4;
  assert_int_equal(prepare(test, &set), KP_ERR_INPUT);
  check_words(&test->error, "has 3 shards");
}

/* Without a checksum the version that the server names tells whether the halves belong together. */
static void test_broken_shards(void **state) {
  kinds_test *test = *state;
  kp_data_set set = shard_set;
  char tokenizer[KP_PATH_SIZE], mirror[160];
  use_tokenizer(test, &set, tokenizer);
  serve_shard(test, "web_val_000000.bin", 4);
  serve_shard(test, "web_train_000001.bin", 1);
  snprintf(mirror, sizeof mirror, "%s/broken", test->mirror);
  test->options.shards = 1;
  test->options.mirror = mirror;
  assert_int_equal(prepare(test, &set), KP_ERR_IO);
  check_words(&test->error, "web_val_000000.bin");
  check_words(&test->error, "run again to go on from there");
  assert_int_equal(prepare(test, &set), KP_ERR_IO);
  check_words(&test->error, "web_train_000001.bin");
  assert_int_equal(test->server.log->ranges, 1);
  /* A server that cannot be reached changes nothing. */
  test->options.mirror = "http://127.0.0.1:1";
  assert_int_equal(prepare(test, &set), KP_ERR_IO);
  assert_int_equal(access(fixture_path(test->files, "data/web/source/web_train_000001.bin.part.tag"), F_OK),
                   0);
  test->options.mirror = mirror;
  /* Another version is there by now: its front does not come behind the old one's. */
  serve_shard(test, "web_train_000001.bin", 3);
  assert_int_equal(prepare(test, &set), KP_ERR_IO);
  check_prepared(test, &set);
  kp_tokens *tokens = NULL;
  const char *folder = test->report.folder;
  int32_t all[SHARD_TOKENS];
  check_ok(kp_tokens_open(&folder, 1, "train", &tokens, &test->error), &test->error);
  kp_tokens_copy(tokens, 0, SHARD_TOKENS, all);
  for (int i = 0; i < SHARD_TOKENS; i++) assert_int_equal(all[i], 3);
  kp_tokens_destroy(tokens);
  assert_int_equal(access(fixture_path(test->files, "data/web/source/web_train_000001.bin.part.tag"), F_OK),
                   -1);
}

static void test_bad_shards(void **state) {
  kinds_test *test = *state;
  kp_data_set set = shard_set;
  char tokenizer[KP_PATH_SIZE], sha256[KP_SHA256_HEX_SIZE];
  use_tokenizer(test, &set, tokenizer);
  serve_shard(test, "web_val_000000.bin", 4);
  serve_shard(test, "web_train_000001.bin", 5);
  test->options.shards = 1;
  assert_int_equal(prepare(test, &set), KP_ERR_INPUT); /* of five tokens 5 is none */
  assert_int_equal(kp_prepared_state_of(test->report.folder), KP_PREPARED_PARTIAL);
  unlink(fixture_path(test->files, "data/web/source/web_train_000001.bin"));
  serve(test, "web_train_000001.bin", "<html>", 6, sha256);
  assert_int_equal(prepare(test, &set), KP_ERR_INPUT);
  test->options.tokenizer = "bpe";
  assert_int_equal(prepare(test, &set), KP_ERR_INPUT);
  check_words(&test->error, "in tokens already");
}

/* ---- pipes ---- */

static void test_pipe(void **state) {
  kinds_test *test = *state;
  const kp_data_set set = {.name = "rows",
                           .what = "a test",
                           .source = "there",
                           .licence = "CC0",
                           .kind = KP_DATA_PIPE,
                           .tokenizer = "bpe",
                           .rows = "hf://datasets/some/rows/*.parquet"};
  assert_int_equal(prepare(test, &set), KP_ERR_UNSUPPORTED);
  check_words(&test->error, "needs a pipe");
  check_words(&test->error, "SELECT text FROM 'hf://datasets/some/rows/*.parquet'");
  check_words(&test->error, "kappa data prepare --name rows --tokenizer bpe");
  test->options.shards = 2;
  assert_int_equal(prepare(test, &set), KP_ERR_INPUT);
  check_words(&test->error, "no shards to choose from");
}

int main(void) {
  const struct CMUnitTest tests[] = {with_server(test_shards), with_server(test_broken_shards),
                                     with_server(test_bad_shards), with_server(test_pipe)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
