/* The documents of text, JSON and JSON lines: what is read, and what is refused in which words. */
#include "data/compressed.h"

#include "data/documents.h"

/* All documents of a file, with '|' behind each; or the error's message. */
static char *read_all(const kp_documents_options *options, kp_error *error) {
  kp_documents *documents;
  kp_document document = {.text = ""};
  size_t size;
  char *joined = NULL;
  FILE *out = open_memstream(&joined, &size);
  assert_non_null(out);
  kp_status status = kp_documents_open(options, &documents, error);
  while (status == KP_OK && document.text != NULL) {
    status = kp_documents_next(documents, &document, error);
    if (status == KP_OK && document.text != NULL) {
      fwrite(document.text, 1, document.size, out);
      fputc('|', out);
    }
  }
  kp_documents_close(documents);
  assert_int_equal(fclose(out), 0);
  return joined;
}

static void check_options(const kp_documents_options *options, const char *expected) {
  kp_error error = {0};
  char *read = read_all(options, &error);
  check_ok(error.status, &error);
  assert_string_equal(read, expected);
  free(read);
}

static void check_refused(const kp_documents_options *options, const char *words) {
  kp_error error = {0};
  free(read_all(options, &error));
  assert_int_not_equal(error.status, KP_OK);
  check_words(&error, words);
}

typedef struct example {
  const char *name, *content, *field, *separator, *expected; /* expected: documents, or words of the error */
} example;

static void check_examples(fixture *files, const example *examples, size_t count, bool refused) {
  for (size_t i = 0; i < count; i++) {
    const char *path =
        fixture_write(files, examples[i].name, examples[i].content, strlen(examples[i].content));
    const kp_documents_options options = {
        .paths = &path, .path_count = 1, .field = examples[i].field, .separator = examples[i].separator};
    (refused ? check_refused : check_options)(&options, examples[i].expected);
  }
}

static void test_texts(void **state) {
  static const example examples[] = {
      {"a.txt", "one\n\ntwo\n", NULL, NULL, "one\n\ntwo\n|"},
      {"a.txt", "\xEF\xBB\xBFmarked", NULL, NULL, "marked|"},
      {"a.txt", "", NULL, NULL, ""},
      {"a.txt", "one\nmore\n<|endoftext|>\ntwo\n<|endoftext|>\n", NULL, "<|endoftext|>", "one\nmore|two|"},
      {"a.txt", "<|endoftext|>\n\n<|endoftext|>\r\n<|endoftext|>\none <|endoftext|>\n", NULL, "<|endoftext|>",
       "one <|endoftext|>|"},
      {"a.txt", "one\r\nmore\r\n\r\n \ntwo", NULL, "", "one\r\nmore|two|"},
      {"a.txt", "\xEF\xBB\xBF---\none\n---", NULL, "---", "one|"},
      {"a.words", "any other name is text", NULL, NULL, "any other name is text|"},
  };
  check_examples(*state, examples, sizeof examples / sizeof *examples, false);
}

static void test_json_lines(void **state) {
  static const example examples[] = {
      {"a.jsonl", "{\"text\": \"one\"}\n\n{\"id\": 99999999999999999999, \"text\": \"t\\u0077o\\n\"}", NULL,
       NULL, "one|two\n|"},
      {"a.ndjson", "\"one\"\r\n\"two\"\r\n", NULL, NULL, "one|two|"},
      {"a.jsonl", "{\"text\": \"\"}\n{\"text\": null}\n{\"text\": \"x\"}\n", NULL, NULL, "x|"},
      {"a.jsonl", "\xEF\xBB\xBF{\"a\": {\"b\": \"in\"}}\n{\"a.b\": \"dotted\"}\n", "a.b", NULL, "in|dotted|"},
      {"a.jsonl", "{\"m\": [{\"c\": \"0\"}, {\"c\": \"1\"}]}\n", "m.1.c", NULL, "1|"},
      {"a.jsonl", "{\"text\": \"\\ud83d\\ude00\"}\n", NULL, NULL, "\xF0\x9F\x98\x80|"},
  };
  check_examples(*state, examples, sizeof examples / sizeof *examples, false);
}

static void test_json(void **state) {
  static const example examples[] = {
      {"a.json", "[{\"text\": \"o]n}e\"},\n \"tw\\\"o\" , {\"text\":\"x\",\"l\":[1,[2]]}]\n", NULL, NULL,
       "o]n}e|tw\"o|x|"},
      {"a.json", "\xEF\xBB\xBF [ ] ", NULL, NULL, ""},
      {"a.json", "{\n \"text\":\n \"pretty\"\n}\n", NULL, NULL, "pretty|"},
      {"a.json", "{\"text\": \"lines\"}\n{\"text\": \"in json\"}", NULL, NULL, "lines|in json|"},
      {"a.json", "", NULL, NULL, ""},
  };
  check_examples(*state, examples, sizeof examples / sizeof *examples, false);
}

static void test_refused(void **state) {
  static const example examples[] = {
      {"a.jsonl", "{\"text\": \"x\"}\n{\"body\": \"y\", \"id\": 1}\n", NULL, NULL,
       "a.jsonl, line 2: there is no field 'text'; the fields are: body, id. Name that of the text "
       "(--field)"},
      {"a.jsonl", "{\"a\": {\"x\": 1, \"y\": 2}}\n", "a.b", NULL,
       "no field 'a.b'; the fields there are: x, y"},
      {"a.jsonl", "{\"a\\nb\": 1}\n", NULL, NULL, "the fields are: a?b."},
      {"a.jsonl", "{\"a\": \"s\"}\n", "a.b", NULL, "there is no 'a.b': a string stands on the way"},
      {"a.jsonl", "{\"m\": []}\n", "m.0", NULL, "there is no 'm.0': an array stands"},
      {"a.jsonl", "{\"text\": 5}\n", NULL, NULL, "line 1: the field 'text' is a number, not a string"},
      {"a.jsonl", "[\"x\"]\n", NULL, NULL, "this is an array. Is the file a JSON array (--format json)?"},
      {"a.jsonl", "\n\n{\"text\": \"x\"} 5\n", NULL, NULL,
       "a.jsonl, line 3, column 15: end of file expected"},
      {"a.jsonl", "{\"text\": \"ab\n", NULL, NULL, "a.jsonl, line 1, column"},
      {"a.jsonl", "\"ok\"\n{\"text\": \"a\xFF\"}\n", NULL, NULL,
       "a.jsonl, line 2: byte 0xFF at byte 12 of the line is not valid UTF-8"},
      {"a.jsonl", "\"\\ud800\"\n", NULL, NULL, "(--invalid replace)"},
      {"a.txt", "fine\nsepa\xC3\n", NULL, NULL, "a.txt, line 2: byte 0xC3 at byte 5 of the line"},
      {"a.txt",
       "fine\n--\nalso\nba\xC3"
       "d\n",
       NULL, "--", "a.txt, line 4: byte 0xC3 at byte 3 of the line"},
      {"a.json", "[\"x\", \"y\"", NULL, NULL, "line 1: the array is cut short"},
      {"a.json", "[\"x\",\n \"y", NULL, NULL, "line 2: the value that begins here is cut short"},
      {"a.json", "[\"x\"\n \"y\"]", NULL, NULL, "line 2: a ',' or ']' must stand between"},
      {"a.json", "[\"x\",]", NULL, NULL, "an element is missing"},
      {"a.json", "[\"x\"] \"y\"", NULL, NULL, "something stands behind the array"},
      {"a.json", "[[\"x\"]]", NULL, NULL, "this is an array"},
      {"a.json", "[\"x\",\n{\"text\":\n tru}]", NULL, NULL, "a.json, line 3, column"},
      {"a.json", "\"x\", \"y\"", NULL, NULL, "a document must begin here"},
      {"a.jsonl", "PAR1\x15\x04", NULL, NULL, "is a Parquet file; pass its rows on as JSON lines"},
  };
  check_examples(*state, examples, sizeof examples / sizeof *examples, true);
}

static void test_invalid_bytes_are_replaced(void **state) {
  static const struct {
    const char *name, *content, *expected;
  } cases[] = {
      {"a.txt",
       "a\xFF"
       "b\xE2\x82"
       "c\xED\xA0\x80\xF0\x9F",
       "a?b?c????|"},
      {"a.jsonl", "\"a\xFF\\ud800b\\\\ud800\\udc00\\ud83d\\ude00\"\n", "a??b\\ud800?\xF0\x9F\x98\x80|"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *path = fixture_write(*state, cases[i].name, cases[i].content, strlen(cases[i].content));
    const kp_documents_options options = {.paths = &path, .path_count = 1, .replace_invalid = true};
    char expected[64];
    size_t used = 0;
    for (const char *at = cases[i].expected; *at != 0; at++)
      used += (size_t)(*at == '?' ? snprintf(expected + used, 4, "\xEF\xBF\xBD")
                                  : snprintf(expected + used, 2, "%c", *at));
    check_options(&options, expected);
  }
}

static void test_compressed(void **state) {
  static const char *const filters[] = {"gzip", "zstd", "xz", "bzip2"}, *const endings[] = {"gz", "zst", "xz",
                                                                                            "bz2"};
  enum { LINES = 20000 };
  fixture *files = *state;
  char *lines = NULL, *expected = NULL;
  size_t size, expected_size;
  FILE *out = open_memstream(&lines, &size), *plain = open_memstream(&expected, &expected_size);
  for (int i = 0; i < LINES; i++) {
    fprintf(out, "{\"id\": %d, \"text\": \"document %d\"}\n", i, i * 7919 % 1000);
    fprintf(plain, "document %d|", i * 7919 % 1000);
  }
  fclose(out);
  fclose(plain);
  for (int i = 0; i < 4; i++) {
    char name[32];
    snprintf(name, sizeof name, "a.jsonl.%s", endings[i]);
    const char *path = fixture_compress(files, name, filters[i], lines, size);
    const kp_documents_options options = {.paths = &path, .path_count = 1};
    check_options(&options, expected);
    size_t compressed;
    char *bytes = fixture_read(path, &compressed);
    fixture_write(files, name, bytes, compressed / 2);
    check_refused(&options, "cannot read /tmp/kappa-data-");
    free(bytes);
  }
  free(lines);
  free(expected);
}

static void test_folders_and_patterns(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  check_ok(kp_directory_create(fixture_path(files, "in/below"), &error), &error);
  fixture_write(files, "in/b.txt", "b", 1);
  fixture_write(files, "in/a.jsonl", "\"a\"", 3);
  fixture_write(files, "in/below/c.json", "[\"c\"]", 5);
  fixture_write(files, "in/readme.md", "no", 2);
  const char *paths[] = {fixture_path(files, "in"), fixture_path(files, "in/[ab]*"),
                         fixture_path(files, "in/b.txt")};
  check_options(&(kp_documents_options){.paths = paths, .path_count = 3}, "a|b|c|a|b|b|");
  paths[0] = fixture_path(files, "none.txt");
  check_refused(&(kp_documents_options){.paths = paths, .path_count = 1}, "none.txt: it does not exist");
  paths[0] = fixture_path(files, "*.none");
  check_refused(&(kp_documents_options){.paths = paths, .path_count = 1}, "no file matches");
  check_ok(kp_directory_create(fixture_path(files, "empty"), &error), &error);
  paths[0] = fixture_path(files, "empty");
  check_refused(&(kp_documents_options){.paths = paths, .path_count = 1}, "has no file named .txt, .json");
  paths[0] = "-";
  check_refused(&(kp_documents_options){.paths = paths, .path_count = 1}, "--format");
}

static void test_places(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_documents *documents;
  kp_document document;
  static const char content[] = "[\n\"a\",\n\"\", {\n\"text\": \"b\"}]";
  const char *path = fixture_write(files, "a.json", content, sizeof content - 1);
  check_ok(kp_documents_open(&(kp_documents_options){.paths = &path, .path_count = 1}, &documents, &error),
           &error);
  assert_int_equal(kp_documents_total(documents), sizeof content - 1);
  check_ok(kp_documents_next(documents, &document, &error), &error);
  assert_int_equal(document.line, 2);
  check_ok(kp_documents_next(documents, &document, &error), &error);
  assert_int_equal(document.line, 3);
  assert_string_equal(document.path, path);
  check_ok(kp_documents_next(documents, &document, &error), &error);
  assert_null(document.text);
  assert_int_equal(kp_documents_empty(documents), 1);
  assert_int_equal(kp_documents_taken(documents), sizeof content - 1);
  kp_documents_close(documents);
}

/* A line of 100 MB is a document; beyond the bound there is a message, not an end of memory. */
static void test_long_lines(void **state) {
  enum { LONG = 100000000 };
  fixture *files = *state;
  kp_error error = {0};
  kp_documents *documents;
  kp_document document;
  char *line = malloc(LONG + 3);
  assert_non_null(line);
  memset(line, 'x', LONG + 2);
  line[0] = line[LONG + 1] = '"';
  line[LONG + 2] = '\n';
  const char *path = fixture_write(files, "long.jsonl", line, LONG + 3);
  free(line);
  kp_documents_options options = {.paths = &path, .path_count = 1};
  check_ok(kp_documents_open(&options, &documents, &error), &error);
  check_ok(kp_documents_next(documents, &document, &error), &error);
  assert_int_equal(document.size, LONG);
  kp_documents_close(documents);
  options.longest = 1000000;
  check_refused(&options, "long.jsonl, line 1: what begins here has more than 1000000 bytes");
  options.format = KP_DOCUMENTS_TEXT;
  check_refused(&options, "name the line that separates documents");
  options.format = KP_DOCUMENTS_JSON;
  check_refused(&options, "more than 1000000 bytes");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_texts),
      with_fixture(test_json_lines),
      with_fixture(test_json),
      with_fixture(test_refused),
      with_fixture(test_invalid_bytes_are_replaced),
      with_fixture(test_compressed),
      with_fixture(test_folders_and_patterns),
      with_fixture(test_places),
      with_fixture(test_long_lines),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
