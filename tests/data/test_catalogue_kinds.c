/* Sets of each kind, small ones, from a server of our own: several files, archives, broken connections. */
#include "data/served_sets.h"

#include "data/archive_files.h"

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
  check_words(error, "served/b.zip: ");
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

int main(void) {
  const struct CMUnitTest tests[] = {
      with_server(test_text_in_a_zip), with_server(test_text_in_a_tar),     with_server(test_wrong_checksum),
      with_server(test_bpe),           with_server(test_broken_connection), with_server(test_gpt2_is_checked),
      with_server(test_bad_archives),  with_server(test_classes),           with_server(test_pairs),
      with_server(test_tags),          with_server(test_dialogue),          with_server(test_set_of_trees),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
