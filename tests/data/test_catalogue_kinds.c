/* Sets of each kind, small ones, from a server of our own: several files, archives, broken connections. */
#include "data/fixture.h"

#include <archive.h>
#include <archive_entry.h>

#include "core/sha256.h"
#include "data/archive_files.h"
#include "data/catalogue.h"
#include "data/message_trees.h"
#include "data/token_file.h"
#include "data/token_layout.h"
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

static int setup(void **state) {
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

static int teardown(void **state) {
  kinds_test *test = *state;
  void *files = test->files;
  http_server_stop(&test->server);
  free(test);
  return fixture_teardown(&files);
}

/* Puts a file on the server; its checksum to `sha256`. */
static void serve(kinds_test *test, const char *name, const void *data, size_t size,
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

static void serve_archive(kinds_test *test, const char *name, const char *format, const char *filter,
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

static kp_status prepare(kinds_test *test, const kp_data_set *set) {
  return kp_catalogue_prepare(set, &test->options, &test->report, &test->error);
}

static void check_prepared(kinds_test *test, const kp_data_set *set) {
  kp_prepared read;
  check_ok(prepare(test, set), &test->error);
  check_ok(kp_prepared_read(test->report.folder, &read, &test->error), &test->error);
  check_ok(kp_prepared_verify(test->report.folder, &read, &test->error), &test->error);
  assert_string_equal(read.name, set->name);
  assert_string_equal(read.licence, set->licence);
}

/* ---- text ---- */

static const part texts[] = {{"wiki/README", "not this"},
                             {"wiki/train.raw", "the cat sat on the mat and the cat ate the rat\n"},
                             {"wiki/valid.raw", "the rat sat\n"},
                             {"wiki/test.raw", "the mat sat\n"}};

static kp_data_set text_set(const char *url, const char *sha256) {
  return (kp_data_set){.name = "wiki",
                       .what = "a test",
                       .source = "here",
                       .licence = "CC0",
                       .kind = KP_DATA_TEXT,
                       .files = {{url, 0, sha256}},
                       .members = {"wiki/train.raw", "wiki/valid.raw", "wiki/test.raw"}};
}

static void check_archive(kinds_test *test, const char *url, const char *format, const char *filter) {
  char sha256[KP_SHA256_HEX_SIZE];
  serve_archive(test, strrchr(url, '/') + 1, format, filter, texts, 4, sha256);
  const kp_data_set set = text_set(url, sha256);
  check_prepared(test, &set);
  assert_true(test->report.fresh);
  assert_int_equal(test->report.prepared.train.text_bytes, strlen(texts[1].data));
  assert_int_equal(test->report.prepared.validation.text_bytes, strlen(texts[2].data));
  size_t size;
  char *read = fixture_read(fixture_path(test->files, "data/wiki/source/test.raw"), &size);
  assert_string_equal(read, texts[3].data);
  free(read);
  assert_int_equal(access(fixture_path(test->files, "data/wiki/source/README"), F_OK), -1);
  /* What was taken out is not fetched again. */
  const int requests = test->server.log->requests;
  check_ok(prepare(test, &set), &test->error);
  assert_false(test->report.fresh);
  assert_int_equal(test->server.log->requests, requests);
}

static void test_text_in_a_zip(void **state) {
  check_archive(*state, "https://example.invalid/a/wiki.zip", "zip", NULL);
}

static void test_text_in_a_tar(void **state) {
  check_archive(*state, "https://example.invalid/a/wiki.tar.gz", "pax", "gzip");
}

static void test_wrong_checksum(void **state) {
  kinds_test *test = *state;
  char sha256[KP_SHA256_HEX_SIZE], other[KP_SHA256_HEX_SIZE];
  serve_archive(test, "wiki.zip", "zip", NULL, texts, 4, sha256);
  kp_sha256("other", 5, other);
  const kp_data_set set = text_set("https://example.invalid/wiki.zip", other);
  assert_int_equal(prepare(test, &set), KP_ERR_INPUT);
  check_words(&test->error, "data set wiki");
  check_words(&test->error, sha256);
  check_words(&test->error, "it was removed");
  assert_int_equal(access(fixture_path(test->files, "data/wiki/source/wiki.zip.part"), F_OK), -1);
  assert_int_equal(kp_prepared_state_of(fixture_path(test->files, "data/wiki")), KP_PREPARED_NOTHING);
}

static void test_broken_connection(void **state) {
  kinds_test *test = *state;
  char sha256[KP_SHA256_HEX_SIZE], mirror[160];
  serve_archive(test, "wiki.zip", "zip", NULL, texts, 4, sha256);
  const kp_data_set set = text_set("https://example.invalid/wiki.zip", sha256);
  snprintf(mirror, sizeof mirror, "%s/broken", test->mirror);
  test->options.mirror = mirror;
  assert_int_equal(prepare(test, &set), KP_ERR_IO);
  check_words(&test->error, "run again to go on from there");
  assert_int_equal(access(fixture_path(test->files, "data/wiki/source/wiki.zip.part"), F_OK), 0);
  check_prepared(test, &set);
  assert_int_equal(test->server.log->ranges, 1);
  assert_true(test->server.log->last_range_begin > 0);
}

static void test_bpe(void **state) {
  kinds_test *test = *state;
  char sha256[KP_SHA256_HEX_SIZE];
  serve_archive(test, "wiki.zip", "zip", NULL, texts, 4, sha256);
  kp_data_set set = text_set("https://example.invalid/wiki.zip", sha256);
  set.tokenizer = "bpe";
  check_prepared(test, &set);
  assert_string_equal(test->report.prepared.tokenizer, "bpe");
  assert_true(test->report.prepared.train.tokens < (int64_t)strlen(texts[1].data));
  /* Another tokenizer may be asked for: the folder of this one. */
  char learned[KP_PATH_SIZE];
  snprintf(learned, sizeof learned, "%s", fixture_path(test->files, "bpe"));
  assert_int_equal(rename(test->report.folder, learned), 0);
  const uint64_t fingerprint = test->report.prepared.fingerprint;
  set.tokenizer = NULL;
  test->options.tokenizer = learned;
  check_prepared(test, &set);
  assert_true(test->report.prepared.fingerprint == fingerprint);
}

/* That of GPT-2 is fetched, and checked. */
static void test_gpt2_is_checked(void **state) {
  kinds_test *test = *state;
  char sha256[KP_SHA256_HEX_SIZE];
  serve(test, "encoder.json", "{}", 2, sha256);
  kp_data_set set = text_set("https://example.invalid/wiki.zip", sha256);
  set.tokenizer = "gpt2";
  assert_int_equal(prepare(test, &set), KP_ERR_INPUT);
  check_words(&test->error, "the tokenizer of GPT-2");
  check_words(&test->error, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783");
}

/* ---- archives ---- */

static void test_bad_archives(void **state) {
  kinds_test *test = *state;
  char sha256[KP_SHA256_HEX_SIZE], archive[KP_PATH_SIZE], out[KP_PATH_SIZE];
  kp_error *error = &test->error;
  serve_archive(test, "a.zip", "zip", NULL, texts, 4, sha256);
  snprintf(archive, sizeof archive, "%s", fixture_path(test->files, "served/a.zip"));
  snprintf(out, sizeof out, "%s", fixture_path(test->files, "out"));
  kp_archive_member member = {"wiki/train.raw", out};
  const int64_t size = (int64_t)strlen(texts[1].data);
  check_ok(kp_archive_extract(archive, &member, 1, size, error), error);
  unlink(out);
  assert_int_equal(kp_archive_extract(archive, &member, 1, size - 1, error), KP_ERR_INPUT);
  check_words(error, "more than 46 bytes");
  assert_int_equal(access(out, F_OK), -1);
  member.name = "wiki/other.raw";
  assert_int_equal(kp_archive_extract(archive, &member, 1, size, error), KP_ERR_INPUT);
  check_words(error, "holds no wiki/other.raw");
  member.name = "wiki/test.raw";
  assert_int_equal(truncate(archive, 120), 0);
  assert_int_equal(kp_archive_extract(archive, &member, 1, size, error), KP_ERR_INPUT);
  serve(test, "b.zip", "no archive at all, but words", 28, sha256);
  assert_int_equal(kp_archive_extract(fixture_path(test->files, "served/b.zip"), &member, 1, size, error),
                   KP_ERR_INPUT);
  check_words(error, "cannot read the archive");
  assert_int_equal(access(out, F_OK), -1);
}

/* ---- labels ---- */

static void test_classes(void **state) {
  kinds_test *test = *state;
  static const part parts[] = {{"./SST/train.tsv", "sentence\tlabel\ngood film\t1\nbad film\t0\nfine\t1\n"},
                               {"./SST/dev.tsv", "sentence\tlabel\ngood\t1\nbad\t0\n"}};
  char sha256[KP_SHA256_HEX_SIZE];
  serve_archive(test, "SST.zip", "zip", NULL, parts, 2, sha256);
  const kp_data_set set = {.name = "sst",
                           .what = "a test",
                           .source = "here",
                           .licence = "CC0",
                           .kind = KP_DATA_CLASSIFY,
                           .tokenizer = "character",
                           .files = {{"https://example.invalid/SST.zip", 0, sha256}},
                           .members = {"SST/train.tsv", "SST/dev.tsv"}};
  check_prepared(test, &set);
  assert_string_equal(test->report.unit, "examples");
  assert_int_equal(test->report.training, 3);
  assert_int_equal(test->report.validation, 2);
  assert_string_equal(test->report.prepared.tokenizer, "character");
}

/* The columns of GLUE's MNLI, which are other ones in the file for validation. */
static void test_pairs(void **state) {
  kinds_test *test = *state;
  static const part parts[] = {
      {"MNLI/train.tsv",
       "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
       "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"
       "0\t1\t1n\ttravel\tx\tx\tx\tx\tIt rains.\tIt is wet.\tneutral\tentailment\n"
       "1\t2\t2n\ttravel\tx\tx\tx\tx\tIt rains.\tIt is dry.\tneutral\tcontradiction\n"},
      {"MNLI/dev_matched.tsv",
       "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
       "sentence2_parse\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
       "0\t1\t1n\ttravel\tx\tx\tx\tx\tA.\tB.\ta\ta\ta\ta\ta\tentailment\n"}};
  char sha256[KP_SHA256_HEX_SIZE];
  serve_archive(test, "MNLI.zip", "zip", NULL, parts, 2, sha256);
  const kp_data_set set = {.name = "pairs",
                           .what = "a test",
                           .source = "here",
                           .licence = "CC0",
                           .kind = KP_DATA_CLASSIFY,
                           .files = {{"https://example.invalid/MNLI.zip", 0, sha256}},
                           .members = {"MNLI/train.tsv", "MNLI/dev_matched.tsv"}};
  check_prepared(test, &set);
  assert_int_equal(test->report.training, 2);
  assert_int_equal(test->report.validation, 1);
}

/* Three files with addresses of their own. */
static void test_tags(void **state) {
  kinds_test *test = *state;
  static const char train[] = "Ann\tB-person\nsings\tO\n\nBob\tB-person\n", dev[] = "Ann\tB-person\n\n",
                    last[] = "Bob\tB-person\n\n";
  char sha256[3][KP_SHA256_HEX_SIZE];
  serve(test, "a.conll", train, strlen(train), sha256[0]);
  serve(test, "b.conll", dev, strlen(dev), sha256[1]);
  serve(test, "c.conll", last, strlen(last), sha256[2]);
  const kp_data_set set = {.name = "names",
                           .what = "a test",
                           .source = "here",
                           .licence = "CC0",
                           .kind = KP_DATA_TAG,
                           .files = {{"https://example.invalid/a.conll", (int64_t)strlen(train), sha256[0]},
                                     {"https://example.invalid/b.conll", (int64_t)strlen(dev), sha256[1]},
                                     {"https://example.invalid/c.conll", (int64_t)strlen(last), sha256[2]}}};
  check_prepared(test, &set);
  assert_int_equal(test->report.training, 2);
  assert_int_equal(test->report.validation, 1);
  assert_int_equal(access(fixture_path(test->files, "data/names/source/c.conll"), F_OK), 0);
  assert_int_equal(test->server.log->requests, 3);
}

/* ---- conversations ---- */

static void test_dialogue(void **state) {
  kinds_test *test = *state;
  char talks[4096] = "[", sha256[KP_SHA256_HEX_SIZE];
  for (int i = 0; i < 20; i++)
    snprintf(talks + strlen(talks), sizeof talks - strlen(talks),
             "%s{\"instruction\": \"add %d and 1\", \"input\": \"\", \"output\": \"it is %d\"}",
             i > 0 ? "," : "", i, i + 1);
  strcat(talks, "]");
  serve(test, "talks.json", talks, strlen(talks), sha256);
  const kp_data_set set = {.name = "talks",
                           .what = "a test",
                           .source = "here",
                           .licence = "CC0",
                           .kind = KP_DATA_DIALOGUE,
                           .files = {{"https://example.invalid/talks.json", 0, sha256}}};
  check_prepared(test, &set);
  assert_string_equal(test->report.unit, "conversations");
  assert_int_equal(test->report.training + test->report.validation, 20);
  assert_true(test->report.validation > 0);
}

static const char trees[] =
    "{\"prompt\": {\"role\": \"prompter\", \"text\": \"Hi\", \"replies\": ["
    "{\"role\": \"assistant\", \"text\": \"worse\", \"rank\": 1, \"replies\": []},"
    "{\"role\": \"assistant\", \"text\": \"gone\", \"rank\": 0, \"deleted\": true, \"replies\": []},"
    "{\"role\": \"assistant\", \"text\": \"unranked\", \"rank\": null, \"replies\": []},"
    "{\"role\": \"assistant\", \"text\": \"best\", \"rank\": 0, \"replies\": ["
    "{\"role\": \"prompter\", \"text\": \"And?\", \"replies\": []}]}]}}\n"
    "{\"prompt\": {\"role\": \"prompter\", \"text\": \"alone\", \"replies\": []}}\n";

static void test_trees(void **state) {
  kinds_test *test = *state;
  kp_error *error = &test->error;
  char out[KP_PATH_SIZE];
  size_t size;
  snprintf(out, sizeof out, "%s", fixture_path(test->files, "out.jsonl"));
  fixture_write(test->files, "trees.jsonl", trees, strlen(trees));
  check_ok(kp_message_trees_convert(fixture_path(test->files, "trees.jsonl"), out, error), error);
  char *made = fixture_read(out, &size);
  assert_string_equal(made, "{\"messages\":[{\"role\":\"prompter\",\"content\":\"Hi\"},"
                            "{\"role\":\"assistant\",\"content\":\"best\"}]}\n");
  free(made);
  fixture_write(test->files, "bad.jsonl", "{\"prompt\": {\"role\": 3}}", 23);
  assert_int_equal(kp_message_trees_convert(fixture_path(test->files, "bad.jsonl"), out, error),
                   KP_ERR_INPUT);
  check_words(error, "bad.jsonl, line 1");
  check_words(error, "lacks a \"role\"");
  fixture_write(test->files, "bad.jsonl", "{\"promt\": {}}", 13);
  assert_int_equal(kp_message_trees_convert(fixture_path(test->files, "bad.jsonl"), out, error),
                   KP_ERR_INPUT);
  check_words(error, "no \"prompt\"");
}

static void test_set_of_trees(void **state) {
  kinds_test *test = *state;
  char lines[8192] = "", sha256[KP_SHA256_HEX_SIZE];
  for (int i = 0; i < 20; i++)
    snprintf(
        lines + strlen(lines), sizeof lines - strlen(lines),
        "{\"prompt\": {\"role\": \"prompter\", \"text\": \"ask %d\", \"replies\": [{\"role\": \"assistant\", "
        "\"text\": \"say %d\", \"rank\": 0, \"replies\": []}]}}\n",
        i, i);
  serve(test, "trees.jsonl", lines, strlen(lines), sha256);
  const kp_data_set set = {.name = "trees",
                           .what = "a test",
                           .source = "here",
                           .licence = "CC0",
                           .kind = KP_DATA_DIALOGUE,
                           .files = {{"https://example.invalid/trees.jsonl", 0, sha256}},
                           .trees = true};
  check_prepared(test, &set);
  assert_int_equal(test->report.training + test->report.validation, 20);
  check_ok(prepare(test, &set), &test->error);
  assert_false(test->report.fresh);
}

/* ---- shards ---- */

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

#define with_server(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      with_server(test_text_in_a_zip),
      with_server(test_text_in_a_tar),
      with_server(test_wrong_checksum),
      with_server(test_bpe),
      with_server(test_broken_connection),
      with_server(test_gpt2_is_checked),
      with_server(test_bad_archives),
      with_server(test_classes),
      with_server(test_pairs),
      with_server(test_tags),
      with_server(test_dialogue),
      with_server(test_trees),
      with_server(test_set_of_trees),
      with_server(test_shards),
      with_server(test_broken_shards),
      with_server(test_bad_shards),
      with_server(test_pipe),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
