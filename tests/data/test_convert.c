/* Token files between the layouts of three programs: the bytes that are written, and what is refused. */
#include "data/fixture.h"

#include "data/convert.h"
#include "data/token_file.h"
#include "data/token_writer.h"

enum { COUNT = 20000 };

static int32_t token(int i, int32_t vocabulary) {
  return (int32_t)((uint32_t)i * 2654435761u % (uint32_t)vocabulary);
}

static const char *write_raw(fixture *files, const char *name, int32_t vocabulary) {
  uint16_t *tokens = malloc(COUNT * sizeof *tokens);
  assert_non_null(tokens);
  for (int i = 0; i < COUNT; i++) tokens[i] = (uint16_t)token(i, vocabulary);
  const char *path = fixture_write(files, name, tokens, COUNT * sizeof *tokens);
  free(tokens);
  return path;
}

/* Kappa's own, wide when the vocabulary is. */
static const char *write_shard(fixture *files, const char *name, int32_t vocabulary, uint64_t fingerprint) {
  const char *path = fixture_path(files, name);
  kp_error error = {0};
  kp_token_writer *writer;
  check_ok(kp_token_writer_create(path, vocabulary, fingerprint, &writer, &error), &error);
  for (int i = 0; i < COUNT; i++) {
    const int32_t id = token(i, vocabulary);
    check_ok(kp_token_writer_append(writer, &id, 1, &error), &error);
  }
  check_ok(kp_token_writer_finish(writer, 77777, &error), &error);
  return path;
}

static void check_tokens(const char *path, int32_t vocabulary, int copies) {
  kp_error error = {0};
  kp_tokens *tokens;
  int32_t *ids = malloc(COUNT * sizeof *ids);
  assert_non_null(ids);
  check_ok(kp_tokens_open(&path, 1, NULL, &tokens, &error), &error);
  assert_int_equal(kp_tokens_count(tokens), (int64_t)copies * COUNT);
  for (int c = 0; c < copies; c++) {
    kp_tokens_copy(tokens, (int64_t)c * COUNT, COUNT, ids);
    for (int i = 0; i < COUNT; i++)
      if (ids[i] != token(i, vocabulary)) fail_msg("token %d is %d", i, ids[i]);
  }
  free(ids);
  kp_tokens_destroy(tokens);
}

static void convert(const char *input, const char *output, kp_convert_to to, int32_t vocabulary) {
  kp_error error = {0};
  const kp_convert_options options = {.input = input, .output = output, .to = to, .vocabulary = vocabulary};
  check_ok(kp_convert(&options, NULL, NULL, &error), &error);
}

static void check_refused(const kp_convert_options *options, const char *words) {
  kp_error error = {0};
  assert_int_not_equal(kp_convert(options, NULL, NULL, &error), KP_OK);
  check_words(&error, words);
}

/* Round all three and back to the same bytes. */
static void test_round(void **state) {
  fixture *files = *state;
  const char *raw = write_raw(files, "train.bin", 50257), *llmc = fixture_path(files, "llmc.bin"),
             *kappa = fixture_path(files, "kappa.bin"), *back = fixture_path(files, "back.bin");
  size_t size, back_size;
  convert(raw, llmc, KP_CONVERT_LLMC, 0);
  check_tokens(llmc, 50257, 1);
  char *bytes = fixture_read(llmc, &size);
  assert_int_equal(size, 1024 + 2 * COUNT);
  static const int32_t head[] = {20240520, 1, COUNT, 0};
  assert_memory_equal(bytes, head, sizeof head);
  for (size_t i = sizeof head; i < 1024; i++) assert_int_equal(bytes[i], 0);
  free(bytes);
  convert(llmc, kappa, KP_CONVERT_KAPPA, 50257);
  check_tokens(kappa, 50257, 1);
  convert(kappa, back, KP_CONVERT_NANOGPT, 0);
  bytes = fixture_read(raw, &size);
  char *again = fixture_read(back, &back_size);
  assert_int_equal(size, 2 * COUNT);
  assert_int_equal(back_size, size);
  assert_memory_equal(bytes, again, size);
  free(bytes);
  free(again);
}

static void test_what_kappa_says_stays(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_tokens *tokens;
  const char *shard = write_shard(files, "in.bin", 100000, 42), *out = fixture_path(files, "out.bin");
  convert(shard, out, KP_CONVERT_KAPPA, 0);
  check_tokens(out, 100000, 1);
  check_ok(kp_tokens_open(&out, 1, NULL, &tokens, &error), &error);
  assert_int_equal(kp_tokens_vocabulary(tokens), 100000);
  assert_int_equal(kp_tokens_text_bytes(tokens), 77777);
  assert_int_equal(kp_tokens_width(tokens), 4);
  assert_true(kp_tokens_fingerprint(tokens) == 42);
  kp_tokens_destroy(tokens);
  const char *wide = fixture_path(files, "wide.bin");
  convert(shard, wide, KP_CONVERT_LLMC, 0);
  size_t size;
  char *bytes = fixture_read(wide, &size);
  static const int32_t head[] = {20240801, 7, COUNT, 0};
  assert_memory_equal(bytes, head, sizeof head);
  free(bytes);
}

static void test_patterns_and_folders(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  check_ok(kp_directory_create(fixture_path(files, "in"), &error), &error);
  write_raw(files, "in/train_1.bin", 500);
  write_raw(files, "in/train_2.bin", 500);
  write_raw(files, "in/val.bin", 500);
  const char *joined = fixture_path(files, "joined.bin"), *folder = fixture_path(files, "out");
  convert(fixture_path(files, "in/train_*.bin"), joined, KP_CONVERT_LLMC, 0);
  check_tokens(joined, 500, 2);
  convert(fixture_path(files, "in"), folder, KP_CONVERT_KAPPA, 500);
  check_tokens(fixture_path(files, "out/train_2.bin"), 500, 1);
  check_tokens(fixture_path(files, "out/val.bin"), 500, 1);
}

/* The tokenizer gives a vocabulary, a fingerprint, and the bytes of the text. */
static void test_tokenizer(void **state) {
  fixture *files = *state;
  static const char characters[] = "{\"type\": \"character\", \"characters\": [\"a\", \"b\", \"\\u20ac\"]}";
  static const uint16_t tokens[] = {0, 2, 1, 2};
  kp_error error = {0};
  kp_tokenizer *tokenizer;
  kp_tokens *read;
  check_ok(kp_tokenizer_open(fixture_write(files, "t.json", characters, sizeof characters - 1), &tokenizer,
                             &error),
           &error);
  const char *out = fixture_path(files, "set/");
  kp_convert_options options = {.input = fixture_write(files, "train.bin", tokens, sizeof tokens),
                                .output = out,
                                .to = KP_CONVERT_KAPPA,
                                .tokenizer = tokenizer};
  check_ok(kp_convert(&options, NULL, NULL, &error), &error);
  out = fixture_path(files, "set/train.bin");
  check_ok(kp_tokens_open(&out, 1, NULL, &read, &error), &error);
  check_ok(kp_tokens_check_tokenizer(read, tokenizer, &error), &error);
  assert_int_equal(kp_tokens_vocabulary(read), 3);
  assert_int_equal(kp_tokens_text_bytes(read), 8);
  kp_tokens_destroy(read);
  assert_int_equal(access(fixture_path(files, "set/tokenizer.json"), F_OK), 0);
  options.output = fixture_path(files, "other.bin");
  options.input = write_raw(files, "large.bin", 500);
  check_refused(&options, "is not below the vocabulary of 3");
  assert_int_equal(access(options.output, F_OK), -1);
  options.input = write_shard(files, "of_another.bin", 3, 42);
  check_refused(&options, "was made with another tokenizer");
  kp_tokenizer_destroy(tokenizer);
}

static void test_refused(void **state) {
  fixture *files = *state;
  static const uint16_t header_like[] = {20240520 & 0xFFFF, 20240520 >> 16, 7};
  const char *raw = write_raw(files, "in.bin", 500), *out = fixture_path(files, "out.bin");
  check_refused(&(kp_convert_options){.input = raw, .output = out, .to = KP_CONVERT_KAPPA}, "(--tokenizer)");
  check_refused(&(kp_convert_options){.input = raw, .output = out, .to = KP_CONVERT_KAPPA, .vocabulary = 499},
                "is not below the vocabulary of 499");
  check_refused(&(kp_convert_options){.input = raw, .output = raw, .to = KP_CONVERT_LLMC},
                "is there already");
  check_refused(&(kp_convert_options){.input = write_shard(files, "wide.bin", 100000, 0), .output = out},
                "nanoGPT's files hold 16 bits a token");
  check_refused(&(kp_convert_options){.input = fixture_path(files, "none.bin"), .output = out},
                "does not exist");
  kp_error error = {0};
  check_ok(kp_directory_create(fixture_path(files, "empty"), &error), &error);
  check_refused(&(kp_convert_options){.input = fixture_path(files, "empty"), .output = out}, "no token file");
  assert_int_equal(access(out, F_OK), -1);
  /* The very tokens of a header, where they are tokens. */
  const char *path = fixture_path(files, "tokens.bin");
  kp_token_writer *writer;
  check_ok(kp_token_writer_create(path, 60000, 0, &writer, &error), &error);
  const int32_t ids[] = {header_like[0], header_like[1], header_like[2]};
  check_ok(kp_token_writer_append(writer, ids, 3, &error), &error);
  check_ok(kp_token_writer_finish(writer, 0, &error), &error);
  check_refused(&(kp_convert_options){.input = path, .output = out}, "would be read as one");
  convert(path, out, KP_CONVERT_LLMC, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_round),
      with_fixture(test_what_kappa_says_stays),
      with_fixture(test_patterns_and_folders),
      with_fixture(test_tokenizer),
      with_fixture(test_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
