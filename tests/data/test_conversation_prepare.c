/* Files of conversations become a data set: what is in it, when it is made anew, and which files are refused.
 */
#include "data/fixture.h"

#include "data/conversation_prepare.h"
#include "data/prepare.h"
#include "data/token_file.h"

static const char *sample(const char *name) {
  static char paths[8][KP_PATH_SIZE];
  static int next;
  char *path = paths[next++ % 8];
  snprintf(path, KP_PATH_SIZE, "%s/data/conversations/%s", KP_TEST_DIRECTORY, name);
  return path;
}

static const kp_speaker_name tool_names[] = {{"function_call", KP_SPEAKER_ASSISTANT},
                                             {"observation", KP_SPEAKER_TOOL}};

/* A request for one file, which is what the model is judged by too. */
static kp_conversation_prepare_options request(fixture *files, const char *const *file) {
  return (kp_conversation_prepare_options){.files = file,
                                           .file_count = 1,
                                           .reading = {.any = true, .names = {tool_names, 2}},
                                           .best_template = true,
                                           .validation = *file,
                                           .length = 100000,
                                           .folder = fixture_path(files, "set"),
                                           .name = "set"};
}

static void prepare(const kp_conversation_prepare_options *options, kp_conversation_report *report) {
  kp_error error = {0};
  check_ok(kp_prepare_conversations(options, report, &error), &error);
}

static void refuse(const kp_conversation_prepare_options *options, const char *words) {
  kp_error error = {0};
  kp_conversation_report report;
  assert_int_not_equal(kp_prepare_conversations(options, &report, &error), KP_OK);
  check_words(&error, words);
}

static kp_tokens *open_side(const kp_conversation_prepare_options *options, const char *split) {
  kp_error error = {0};
  kp_tokens *tokens = NULL;
  check_ok(kp_tokens_open(&options->folder, 1, split, &tokens, &error), &error);
  return tokens;
}

/* The text of a side's tokens, all or the learned ones; for the caller to free. */
static char *text_of(const kp_conversation_prepare_options *options, const char *split, bool learned) {
  kp_error error = {0};
  kp_tokens *tokens = open_side(options, split);
  const kp_conversation_index *index = kp_tokens_index(tokens);
  assert_non_null(index);
  int32_t *ids = malloc((size_t)kp_tokens_count(tokens) * sizeof *ids);
  size_t count = 0, size;
  char *text;
  kp_tokenizer *tokenizer;
  assert_non_null(ids);
  for (int64_t i = 0; i < kp_tokens_count(tokens); i++) {
    kp_tokens_copy(tokens, i, 1, ids + count);
    count += !learned || index->mask[i] == 1;
  }
  check_ok(kp_tokenizer_open(options->folder, &tokenizer, &error), &error);
  check_ok(kp_tokenizer_decode(tokenizer, ids, count, &text, &size, &error), &error);
  kp_tokenizer_destroy(tokenizer);
  kp_tokens_destroy(tokens);
  free(ids);
  return text;
}

/* ---- what is read ---- */

static void test_all_formats(void **state) {
  static const struct {
    const char *file;
    int conversations, turns;
    const char *begins, *learned;
  } rows[] = {
      {"messages.jsonl", 6, 72, "User: I want to make a restaurant reservation for 2 people",
       " What city do you want to dine in?"},
      {"sharegpt.json", 4, 16, "User: Who are you?\nAssistant: I am Vicuna",
       " I am Vicuna, a language model"},
      {"tools.json", 3, 28, "User: Hi, I have some ingredients", " Of course! I can help"},
      {"alpaca.json.xz", 5, 10, "User: hi\nAssistant: Hello! I am {{name}}", " Hello! I am {{name}}"},
      {"paths.jsonl.gz", 3, 6, "User: How can I find the best 401k plan", " The first step is to research"},
      {"plain.txt", 4, 11, "System: You answer in one sentence.\nUser: What",
       " It is Paris.\n It is Lisbon:\na"},
      {"chatml.txt", 3, 7, "System: Be brief.\nUser: Hello!\n", " Hello.\n A model.\n Good bye.\n"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    kp_conversation_report report;
    const char *file = sample(rows[i].file);
    const kp_conversation_prepare_options options = request(*state, &file);
    prepare(&options, &report);
    assert_true(report.fresh);
    if (report.train.conversations != rows[i].conversations || report.train.turns != rows[i].turns)
      fail_msg("%s: %d conversations, %d turns", file, (int)report.train.conversations,
               (int)report.train.turns);
    assert_memory_equal(&report.train, &report.validation, sizeof report.train);
    assert_int_equal(report.which, KP_TEMPLATE_PLAIN);
    char *text = text_of(&options, "train", false), *learned = text_of(&options, "val", true);
    if (strncmp(text, rows[i].begins, strlen(rows[i].begins)) != 0) fail_msg("%s: '%.80s'", file, text);
    if (strncmp(learned, rows[i].learned, strlen(rows[i].learned)) != 0)
      fail_msg("%s: '%.80s'", file, learned);
    assert_null(strstr(learned, "User:"));
    free(text);
    free(learned);
  }
}

static void test_the_format_can_be_told(void **state) {
  kp_conversation_report report;
  const char *file = sample("chatml.txt");
  kp_conversation_prepare_options options = request(*state, &file);
  options.reading = (kp_conversation_reading){.format = KP_CONVERSATION_CHATML};
  options.which = KP_TEMPLATE_CHATML;
  options.best_template = false;
  prepare(&options, &report);
  assert_int_equal(report.train.conversations, 3);
  char *learned = text_of(&options, "train", true);
  assert_string_equal(learned, "Hello.<|im_end|>A model.<|im_end|>Good bye.<|im_end|>");
  free(learned);
  options.reading.format = KP_CONVERSATION_MESSAGES;
  refuse(&options, "chatml.txt");
  file = sample("messages.jsonl");
  options.validation = file;
  options.reading.format = KP_CONVERSATION_ALPACA;
  refuse(&options, "messages.jsonl, line 1: its \"instruction\" is not a text");
}

/* ---- the split ---- */

static const char *write_many(fixture *files, int count) {
  char *text = malloc((size_t)count * 128), *at = text;
  assert_non_null(text);
  for (int i = 0; i < count; i++)
    at += sprintf(at, "{\"instruction\": \"Say %d.\", \"output\": \"%d\"}\n", i / 2, i / 2);
  const char *path = fixture_write(files, "many.jsonl", text, (size_t)(at - text));
  free(text);
  return path;
}

static void test_equal_ones_fall_on_one_side(void **state) {
  kp_conversation_report report;
  const char *file = write_many(*state, 2000);
  kp_conversation_prepare_options options = request(*state, &file);
  options.validation = NULL;
  options.train_fraction = 0.8;
  prepare(&options, &report);
  assert_int_equal(report.train.conversations + report.validation.conversations, 2000);
  assert_int_equal(report.train.conversations % 2, 0);
  assert_true(abs((int)report.train.conversations - 1600) < 80);
}

/* ---- long ones ---- */

static void test_long_conversations(void **state) {
  kp_conversation_report report;
  const char *file = sample("plain.txt");
  kp_conversation_prepare_options options = request(*state, &file);
  options.length = 100;
  prepare(&options, &report);
  assert_int_equal(report.train.shorter, 1);
  assert_int_equal(report.train.cut, 0);
  assert_int_equal(report.train.left_out, 0);
  char *learned = text_of(&options, "train", true);
  assert_string_equal(learned, " It is Paris.\n Blue.\n Green.\n One, two, three.\n");
  free(learned);
  options.length = 90;
  prepare(&options, &report);
  assert_int_equal(report.train.left_out, 1);
  assert_int_equal(report.train.conversations, 3);
  options.length = 16;
  refuse(&options, "there are 0 conversations for training and 0 for validation (8 have no turn");
}

/* ---- again ---- */

static void flip_last_byte(const char *path) {
  FILE *file = fopen(path, "r+b");
  assert_non_null(file);
  fseek(file, -1, SEEK_END);
  const int byte = fgetc(file);
  fseek(file, -1, SEEK_END);
  fputc(byte ^ 1, file);
  fclose(file);
}

static void test_made_anew_when_it_must(void **state) {
  kp_conversation_report report, again;
  const char *file = sample("plain.txt");
  kp_conversation_prepare_options options = request(*state, &file);
  prepare(&options, &report);
  prepare(&options, &again);
  assert_true(report.fresh && !again.fresh);
  assert_memory_equal(&report.train, &again.train, sizeof report.train);
  flip_last_byte(fixture_path(*state, "set/val.documents.safetensors"));
  prepare(&options, &again);
  assert_true(again.fresh);
  options.length = 200;
  prepare(&options, &again);
  assert_true(again.fresh);
  options.tokenizer = "word";
  options.vocabulary = 60;
  prepare(&options, &again);
  assert_true(again.fresh && again.prepared.vocabulary == 60);
}

/* A text in the place of conversations has no index. */
static void test_a_text_takes_its_place(void **state) {
  kp_error error = {0};
  kp_conversation_report report;
  kp_prepared prepared;
  bool fresh;
  const char *file = sample("plain.txt");
  const kp_conversation_prepare_options options = request(*state, &file);
  prepare(&options, &report);
  const kp_prepare_options text = {.texts = &file, .text_count = 1, .folder = options.folder};
  check_ok(kp_prepare(&text, &prepared, &fresh, &error), &error);
  kp_tokens *tokens = open_side(&options, "train");
  assert_null(kp_tokens_index(tokens));
  kp_tokens_destroy(tokens);
  assert_int_equal(kp_path_kind_of(fixture_path(*state, "set/val.documents.safetensors")), KP_PATH_MISSING);
}

/* ---- what is wrong ---- */

static void refuse_text(void **state, const char *name, const char *text, const char *words) {
  const char *file = fixture_write(*state, name, text, strlen(text));
  const kp_conversation_prepare_options options = request(*state, &file);
  refuse(&options, words);
  assert_int_equal(kp_path_kind_of(fixture_path(*state, "set/data.json")), KP_PATH_MISSING);
}

static void test_files_that_are_wrong(void **state) {
  refuse_text(state, "a.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n",
              "there are 0 conversations for training");
  refuse_text(
      state, "a.jsonl",
      "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n\n{\"messages\": [{\"role\": \"bot\"}]}\n",
      "a.jsonl, line 3: turn 1: the role 'bot' is unknown; known are system");
  refuse_text(state, "a.jsonl", "{\"messages\": [}", "a.jsonl, line 1");
  refuse_text(state, "a.jsonl", "{\"messages\": []}\n{\"text\": \"a\"}\n",
              "a.jsonl, line 2: its \"messages\" are no list");
  refuse_text(state, "a.json", "[{\"text\": \"a\"}]", "a.json, line 1: there are no \"messages\"");
  refuse_text(state, "a.json", "[1]", "a.json, line 1: a document is an object; this is a number");
  refuse_text(state, "a.txt", "Hello", "line 1: a conversation begins with");
  refuse_text(state, "a.txt", "User: a\nAssistant: \xff", "a.txt, line 2: byte 0xFF");
  refuse_text(state, "a.txt", "", "there is no conversation in /");
  refuse_text(state, "a.jsonl.gz", "\x1f\x8b\x08\x00garbage", "a.jsonl.gz");
}

static void test_wrong_requests(void **state) {
  const char *file = sample("plain.txt"), *standard = "-";
  kp_conversation_prepare_options options = request(*state, &file);
  options.best_template = false;
  options.which = KP_TEMPLATE_LLAMA3;
  refuse(&options, "the template llama3 is made of special tokens, and the tokenizer 'character' has none");
  options = request(*state, &file);
  options.length = 3;
  refuse(&options, "a length of 3 tokens");
  options = request(*state, &file);
  options.train_fraction = 1.5;
  refuse(&options, "the train fraction is 1.5");
  options = request(*state, &standard);
  refuse(&options, "standard input has no name");
  options = request(*state, &file);
  options.tokenizer = "/nowhere/tokenizer.json";
  refuse(&options, "/nowhere/tokenizer.json");
}

int main(void) {
  const struct CMUnitTest tests[] = {with_fixture(test_all_formats),
                                     with_fixture(test_the_format_can_be_told),
                                     with_fixture(test_equal_ones_fall_on_one_side),
                                     with_fixture(test_long_conversations),
                                     with_fixture(test_made_anew_when_it_must),
                                     with_fixture(test_a_text_takes_its_place),
                                     with_fixture(test_files_that_are_wrong),
                                     with_fixture(test_wrong_requests)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
