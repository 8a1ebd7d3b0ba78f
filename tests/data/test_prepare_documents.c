/* Documents to shards: what goes where, and calls that were broken off. */
#include "data/fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "data/document_batch.h"
#include "data/prepare.h"
#include "data/token_file.h"
#include "support/program.h"

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789 .";

/* A character tokenizer's file. */
static const char *write_tokenizer(fixture *files) {
  char content[512];
  size_t used =
      (size_t)snprintf(content, sizeof content, "{\"type\": \"character\", \"characters\": [\" \", \".\"");
  for (const char *at = "0123456789abcdefghijklmnopqrstuvwxyz"; *at != 0; at++)
    used += (size_t)snprintf(content + used, sizeof content - used, ", \"%c\"", *at);
  used += (size_t)snprintf(content + used, sizeof content - used, "]}");
  return fixture_write(files, "tokenizer.json", content, used);
}

/* JSON lines of `count` documents with about `length` characters each; every tenth is one that was there. */
static const char *write_documents(fixture *files, const char *name, int count, int length) {
  char *lines = NULL;
  size_t size;
  FILE *out = open_memstream(&lines, &size);
  assert_non_null(out);
  for (int i = 0; i < count; i++) {
    const int number = i % 10 == 9 ? i - 5 : i;
    uint32_t state = (uint32_t)number * 2654435761u + 1;
    fprintf(out, "{\"text\": \"%d ", number);
    for (int c = 0; c < length; c++) {
      state = state * 1664525u + 1013904223u;
      fputc(alphabet[(state >> 16) % (sizeof alphabet - 1)], out);
    }
    fputs("\"}\n", out);
  }
  fclose(out);
  const char *path = fixture_write(files, name, lines, size);
  free(lines);
  return path;
}

static int64_t count_tokens(const char *folder, const char *split, kp_tokens **tokens) {
  kp_error error = {0};
  check_ok(kp_tokens_open(&folder, 1, split, tokens, &error), &error);
  return kp_tokens_count(*tokens);
}

/* Same bytes in all files of two sets. */
static void check_equal(fixture *files, const kp_prepared *set, const char *one, const char *other) {
  const int32_t counts[] = {set->train.shards, set->validation.shards};
  for (int side = 0; side < 2; side++)
    for (int32_t i = 0; i < counts[side]; i++) {
      char name[KP_PREPARED_NAME_SIZE], path[256];
      size_t size, other_size;
      kp_prepared_file_name(side == 1, counts[side], i, name);
      snprintf(path, sizeof path, "%s/%s", one, name);
      char *bytes = fixture_read(fixture_path(files, path), &size);
      snprintf(path, sizeof path, "%s/%s", other, name);
      char *others = fixture_read(fixture_path(files, path), &other_size);
      assert_int_equal(size, other_size);
      assert_memory_equal(bytes, others, size);
      free(bytes);
      free(others);
    }
}

static void test_split_and_shards(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared set, read, again;
  bool fresh;
  const char *text = write_documents(files, "in.jsonl", 500, 40);
  kp_prepare_options options = {.texts = &text,
                                .text_count = 1,
                                .tokenizer = write_tokenizer(files),
                                .folder = fixture_path(files, "set"),
                                .train_fraction = 0.75,
                                .shard_tokens = 4000};
  check_ok(kp_prepare(&options, &set, &fresh, &error), &error);
  assert_true(fresh && !set.separated);
  assert_int_equal(set.train.documents + set.validation.documents, 500);
  assert_in_range(set.train.documents, 340, 410);
  assert_int_equal(set.train.text_bytes, set.train.tokens);
  assert_in_range(set.train.shards, 3, 4);
  kp_tokens *tokens;
  assert_int_equal(count_tokens(options.folder, "train", &tokens), set.train.tokens);
  assert_int_equal(kp_tokens_files(tokens), set.train.shards);
  assert_int_equal(kp_tokens_text_bytes(tokens), set.train.text_bytes);
  assert_true(kp_tokens_fingerprint(tokens) == set.fingerprint);
  kp_tokens_destroy(tokens);
  check_ok(kp_prepared_read(options.folder, &read, &error), &error);
  assert_memory_equal(&read.train, &set.train, sizeof read.train);
  assert_memory_equal(&read.validation, &set.validation, sizeof read.validation);
  assert_string_equal(read.request_sha256, set.request_sha256);
  check_ok(kp_prepare(&options, &again, &fresh, &error), &error);
  assert_false(fresh);
  /* The same documents in one shard: none of the old ones is left. */
  options.shard_tokens = 0;
  check_ok(kp_prepare(&options, &again, &fresh, &error), &error);
  assert_true(fresh);
  assert_int_equal(again.train.shards, 1);
  assert_int_equal(count_tokens(options.folder, "train", &tokens), set.train.tokens);
  kp_tokens_destroy(tokens);
  /* A damaged shard is noticed. */
  char *bytes;
  size_t size;
  bytes = fixture_read(fixture_path(files, "set/val_000001.bin"), &size);
  bytes[size - 2] ^= 1;
  fixture_write(files, "set/val_000001.bin", bytes, size);
  free(bytes);
  check_ok(kp_prepare(&options, &again, &fresh, &error), &error);
  assert_true(fresh);
  check_ok(kp_prepared_verify(options.folder, &again, &error), &error);
}

static void test_documents_follow_each_other(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared set;
  bool fresh;
  const char *texts[] = {fixture_write(files, "a.txt", "first", 5),
                         fixture_write(files, "b.json", "[\"second\"]", 10)};
  kp_prepare_options options = {.texts = texts,
                                .text_count = 2,
                                .validation = fixture_write(files, "v.jsonl", "\"first\"\n\"third\"\n", 16),
                                .tokenizer = write_tokenizer(files),
                                .folder = fixture_path(files, "set")};
  kp_tokens *tokens;
  kp_tokenizer *tokenizer;
  int32_t ids[11];
  char *text;
  size_t size;
  check_ok(kp_prepare(&options, &set, &fresh, &error), &error);
  assert_int_equal(count_tokens(options.folder, "train", &tokens), 11);
  kp_tokens_copy(tokens, 0, 11, ids);
  check_ok(kp_tokenizer_open(options.folder, &tokenizer, &error), &error);
  check_ok(kp_tokenizer_decode(tokenizer, ids, 11, &text, &size, &error), &error);
  assert_string_equal(text, "firstsecond");
  assert_int_equal(set.validation.tokens, 10);
  free(text);
  kp_tokens_destroy(tokens);
  kp_tokenizer_destroy(tokenizer);
  /* What is in the training text is no test. */
  options.dedupe = true;
  check_ok(kp_prepare(&options, &set, &fresh, &error), &error);
  assert_int_equal(set.validation.tokens, 5);
  assert_int_equal(set.duplicates, 1);
}

/* The same documents through a pipe, compressed or not, and from files: the same tokens. */
static void test_standard_input(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared from_file, from_input;
  bool fresh;
  const char *text = write_documents(files, "in.jsonl", 500, 40), *input = "-";
  kp_prepare_options options = {.texts = &text,
                                .text_count = 1,
                                .tokenizer = write_tokenizer(files),
                                .folder = fixture_path(files, "file")};
  check_ok(kp_prepare(&options, &from_file, &fresh, &error), &error);
  options.texts = &input;
  options.folder = fixture_path(files, "input");
  assert_int_equal(kp_prepare(&options, &from_input, &fresh, &error), KP_ERR_INPUT);
  check_words(&error, "say text, json or jsonl (--format)");
  options.format = KP_DOCUMENTS_LINES;
  const int kept = dup(STDIN_FILENO);
  for (int round = 0; round < 2; round++) { /* what was read once cannot be known again: it is read */
    const int file = open(text, O_RDONLY);
    assert_true(file >= 0 && dup2(file, STDIN_FILENO) == STDIN_FILENO);
    check_ok(kp_prepare(&options, &from_input, &fresh, &error), &error);
    assert_true(fresh);
    close(file);
  }
  assert_string_equal(from_file.train.sha256, from_input.train.sha256);
  assert_string_equal(from_file.text_sha256, from_input.text_sha256);
  options.tokenizer = "bpe";
  assert_int_equal(kp_prepare(&options, &from_input, &fresh, &error), KP_ERR_INPUT);
  check_words(&error, "standard input can be read only once");
  assert_true(dup2(kept, STDIN_FILENO) == STDIN_FILENO);
  close(kept);
}

/* A tokenizer that is learned from the documents, and its end token behind each of them. */
static void test_learned_tokenizer(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared set, again;
  bool fresh;
  static const char content[] = "\"the cat and the dog\"\n\"the dog and <|endoftext|> the cat\"\n";
  const char *text = fixture_write(files, "in.jsonl", content, sizeof content - 1);
  kp_prepare_options options = {.texts = &text,
                                .text_count = 1,
                                .validation = text,
                                .tokenizer = "bpe",
                                .vocabulary = 264,
                                .folder = fixture_path(files, "set")};
  check_ok(kp_prepare(&options, &set, &fresh, &error), &error);
  assert_true(fresh && set.separated);
  assert_in_range(set.vocabulary, 258, 264);
  assert_string_equal(set.tokenizer, "bpe");
  kp_tokens *tokens;
  kp_tokenizer *tokenizer;
  check_ok(kp_tokenizer_open(options.folder, &tokenizer, &error), &error);
  assert_int_equal(set.separator, kp_tokenizer_special(tokenizer, "<|endoftext|>"));
  const int64_t count = count_tokens(options.folder, "train", &tokens);
  int32_t *ids = malloc((size_t)count * sizeof *ids), ends = 0;
  assert_non_null(ids);
  kp_tokens_copy(tokens, 0, count, ids);
  for (int64_t i = 0; i < count; i++) ends += ids[i] == set.separator;
  assert_int_equal(ends, 2); /* the words in the second document are words */
  assert_int_equal(ids[count - 1], set.separator);
  char *decoded;
  size_t size;
  check_ok(kp_tokenizer_decode(tokenizer, ids, (size_t)count, &decoded, &size, &error), &error);
  assert_string_equal(decoded,
                      "the cat and the dog<|endoftext|>the dog and <|endoftext|> the cat<|endoftext|>");
  free(decoded);
  free(ids);
  kp_tokens_destroy(tokens);
  kp_tokenizer_destroy(tokenizer);
  check_ok(kp_prepare(&options, &again, &fresh, &error), &error);
  assert_false(fresh);
  assert_int_equal(again.separator, set.separator);
  assert_true(again.separated);
  options.vocabulary = 260;
  check_ok(kp_prepare(&options, &again, &fresh, &error), &error);
  assert_true(fresh);
  assert_in_range(again.vocabulary, 258, 260);
  options.vocabulary = 100;
  assert_int_equal(kp_prepare(&options, &again, &fresh, &error), KP_ERR_INPUT);
}

/* One plain text is cut as nanoGPT does, whatever the tokenizer. */
static void test_learned_from_one_text(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared set, again;
  bool fresh;
  char text[4000];
  for (size_t i = 0; i < sizeof text; i++) text[i] = "the cat and the dog.\n"[i % 21];
  const char *path = fixture_write(files, "in.txt", text, sizeof text);
  kp_prepare_options options = {.texts = &path,
                                .text_count = 1,
                                .tokenizer = "bpe",
                                .vocabulary = 270,
                                .folder = fixture_path(files, "set")};
  check_ok(kp_prepare(&options, &set, &fresh, &error), &error);
  assert_int_equal(set.train.text_bytes, 3600);
  assert_int_equal(set.validation.text_bytes, 400);
  assert_true(set.train.tokens < 2000 && !set.separated && set.train.documents == 0);
  check_ok(kp_prepare(&options, &again, &fresh, &error), &error);
  assert_false(fresh);
  options.vocabulary = 265;
  check_ok(kp_prepare(&options, &again, &fresh, &error), &error);
  assert_true(fresh);
  /* The tokenizer that was learned, given by its folder. */
  options.tokenizer = fixture_path(files, "set");
  options.folder = fixture_path(files, "other");
  check_ok(kp_prepare(&options, &set, &fresh, &error), &error);
  assert_string_equal(set.train.sha256, again.train.sha256);
  check_ok(kp_prepare(&options, &set, &fresh, &error), &error);
  assert_false(fresh);
}

static void test_duplicates(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared all, set;
  bool fresh;
  const char *text = write_documents(files, "in.jsonl", 5000, 20);
  kp_prepare_options options = {.texts = &text,
                                .text_count = 1,
                                .tokenizer = write_tokenizer(files),
                                .folder = fixture_path(files, "set")};
  check_ok(kp_prepare(&options, &all, &fresh, &error), &error);
  assert_int_equal(all.duplicates, 0);
  options.dedupe = true;
  check_ok(kp_prepare(&options, &set, &fresh, &error), &error);
  assert_true(fresh);
  assert_int_equal(set.train.documents + set.validation.documents + set.duplicates, 5000);
  assert_int_equal(set.duplicates, 500);
}

static void test_refused(void **state) {
  fixture *files = *state;
  static const struct {
    const char *content, *tokenizer, *end, *words;
    bool begin;
  } cases[] = {
      {"\"one\"\n", NULL, NULL, "for validation; each needs one: give more documents", false},
      {"\"ok\"\n\n\"never ONE\"\n", NULL, NULL, "in.jsonl, the document of line 3: ", false},
      {"\"ok\"\n", "none", NULL, "there is no tokenizer 'none'", false},
      {"\"ok\"\n", "character", NULL, "the tokenizer 'character' is for whole texts", false},
      {"\"ok\"\n", NULL, "<|end|>", "has no special token '<|end|>'", false},
      {"\"ok\"\n", NULL, NULL, "has no begin token", true},
      {"{\"body\": \"x\"}\n", NULL, NULL, "there is no field 'text'; the fields are: body", false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    kp_error error = {0};
    kp_prepared set;
    bool fresh;
    const char *text = fixture_write(files, "in.jsonl", cases[i].content, strlen(cases[i].content));
    kp_prepare_options options = {.texts = &text,
                                  .text_count = 1,
                                  .tokenizer = cases[i].tokenizer != NULL ? cases[i].tokenizer
                                                                          : write_tokenizer(files),
                                  .end = cases[i].end,
                                  .begin = cases[i].begin,
                                  .folder = fixture_path(files, "set")};
    assert_int_equal(kp_prepare(&options, &set, &fresh, &error), KP_ERR_INPUT);
    check_words(&error, cases[i].words);
    assert_int_not_equal(kp_prepared_state_of(options.folder), KP_PREPARED_COMPLETE);
  }
}

/* ---- calls that are broken off ---- */

typedef struct breaking {
  int calls, break_at;
  bool killed;
  int64_t tokens;
} breaking;

static bool watch(void *context, const kp_prepare_progress *progress) {
  breaking *b = context;
  b->tokens = progress->tokens;
  if (++b->calls != b->break_at) return true;
  if (b->killed) kill(getpid(), SIGKILL);
  return false;
}

/* The options of a set that is broken off; the watch is the caller's. */
static kp_prepare_options broken_options(const char *const *text, const char *tokenizer, const char *folder,
                                         breaking *b) {
  return (kp_prepare_options){.texts = text,
                              .text_count = 1,
                              .tokenizer = tokenizer,
                              .folder = folder,
                              .name = "set",
                              .dedupe = true,
                              .shard_tokens = 3000000,
                              .progress = watch,
                              .context = b};
}

/* This program as the one that is killed: threads that ran before a fork would be missing behind it. */
static int be_killed(const char *text, const char *tokenizer, const char *folder) {
  breaking b = {.break_at = 2, .killed = true};
  const kp_prepare_options options = broken_options(&text, tokenizer, folder, &b);
  kp_prepared set;
  bool fresh;
  kp_prepare(&options, &set, &fresh, NULL);
  return 1;
}

static void run_killed(const char *text, const char *tokenizer, const char *folder) {
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    execl("/proc/self/exe", "killed", text, tokenizer, folder, (char *)NULL);
    _exit(1);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Killed behind one batch, stopped by the user behind the next, then to the end. */
static void test_broken_off(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared whole, set;
  bool fresh;
  const char *text = write_documents(files, "in.jsonl", 9000, 3000), *tokenizer = write_tokenizer(files);
  breaking b = {0};
  kp_prepare_options options = broken_options(&text, tokenizer, fixture_path(files, "whole"), &b);
  check_ok(kp_prepare(&options, &whole, &fresh, &error), &error);
  assert_int_equal(b.tokens, whole.train.tokens + whole.validation.tokens);
  assert_true(b.calls >= 3);
  options.folder = fixture_path(files, "broken");
  run_killed(text, tokenizer, options.folder);
  assert_int_equal(kp_prepared_state_of(options.folder), KP_PREPARED_PARTIAL);
  /* The next shard, put in place by a call that was killed before it said so. */
  assert_int_equal(access(fixture_path(files, "broken/train_000005.bin"), F_OK), 0);
  assert_int_equal(access(fixture_path(files, "broken/train_000006.bin"), F_OK), -1);
  fixture_write(files, "broken/train_000006.bin", "half", 4);
  b = (breaking){.break_at = 1};
  assert_int_equal(kp_prepare(&options, &set, &fresh, &error), KP_ERR_INTERRUPTED);
  check_words(&error, "shards done: the same command goes on behind them");
  b = (breaking){0};
  check_ok(kp_prepare(&options, &set, &fresh, &error), &error);
  assert_true(fresh);
  assert_true(b.tokens < (whole.train.tokens + whole.validation.tokens) / 2);
  assert_memory_equal(&set.train, &whole.train, sizeof set.train);
  assert_memory_equal(&set.validation, &whole.validation, sizeof set.validation);
  assert_string_equal(set.text_sha256, whole.text_sha256);
  assert_int_equal(set.duplicates, whole.duplicates);
  check_equal(files, &whole, "whole", "broken");
  assert_int_equal(access(fixture_path(files, "broken/" KP_PROGRESS_FILE), F_OK), -1);
  check_ok(kp_prepare(&options, &set, &fresh, &error), &error);
  assert_false(fresh);
}

/* Other options, or another file, begin anew. */
static void test_another_request_begins_anew(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared set;
  bool fresh;
  const char *text = write_documents(files, "in.jsonl", 6000, 3000);
  breaking b = {.break_at = 2};
  kp_prepare_options options = {.texts = &text,
                                .text_count = 1,
                                .tokenizer = write_tokenizer(files),
                                .folder = fixture_path(files, "set"),
                                .shard_tokens = 3000000,
                                .progress = watch,
                                .context = &b};
  assert_int_equal(kp_prepare(&options, &set, &fresh, &error), KP_ERR_INTERRUPTED);
  options.shard_tokens = 8000000;
  b = (breaking){.break_at = 2};
  assert_int_equal(kp_prepare(&options, &set, &fresh, &error), KP_ERR_INTERRUPTED);
  text = write_documents(files, "in.jsonl", 400, 3000);
  b = (breaking){0};
  check_ok(kp_prepare(&options, &set, &fresh, &error), &error);
  assert_int_equal(set.train.documents + set.validation.documents, 400);
  assert_int_equal(b.tokens, set.train.tokens + set.validation.tokens);
  check_ok(kp_prepared_verify(options.folder, &set, &error), &error);
}

/* The last document is too long for what is left of the disk. */
static void test_full_disk(void **state) {
  fixture *files = *state;
  kp_prepared set;
  program_result result;
  kp_error error = {0};
  const char *text = write_documents(files, "in.jsonl", 3000, 1000), *tokenizer = write_tokenizer(files);
  const char *longer = write_documents(files, "long.jsonl", 1, 900000);
  const char *const arguments[] = {
      "data",        "prepare",      "--data",
      files->folder, "--name",       "set",
      "--tokenizer", tokenizer,      "--shard-tokens",
      "300000",      "--validation", fixture_write(files, "val.jsonl", "\"x\"", 3),
      text,          longer,         NULL};
  program_limit_files(1000000);
  program_run(arguments, &result);
  program_limit_files(0);
  program_check_refused(&result, 1,
                        "behind 10 shards that are done, where the same command will go on: cannot write");
  assert_int_equal(kp_prepared_state_of(fixture_path(files, "set")), KP_PREPARED_PARTIAL);
  assert_int_equal(access(fixture_path(files, "set/train_000010.bin"), F_OK), 0);
  assert_int_equal(access(fixture_path(files, "set/train_000011.bin"), F_OK), -1);
  program_run(arguments, &result);
  program_check_ok(&result);
  check_ok(kp_prepared_read(fixture_path(files, "set"), &set, &error), &error);
  assert_int_equal(set.train.shards, 11);
  check_ok(kp_prepared_verify(fixture_path(files, "set"), &set, &error), &error);
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[0], "killed") == 0) return be_killed(argv[1], argv[2], argv[3]);
  const struct CMUnitTest tests[] = {
      with_fixture(test_split_and_shards),
      with_fixture(test_documents_follow_each_other),
      with_fixture(test_standard_input),
      with_fixture(test_learned_tokenizer),
      with_fixture(test_learned_from_one_text),
      with_fixture(test_duplicates),
      with_fixture(test_refused),
      with_fixture(test_broken_off),
      with_fixture(test_another_request_begins_anew),
      with_fixture(test_full_disk),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
