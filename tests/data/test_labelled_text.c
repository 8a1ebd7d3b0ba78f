/* The three layouts of labelled texts, and what is wrong with files of them. */
#include "support/check.h"

#include <stdlib.h>
#include <string.h>

#include "data/labelled_text.h"

typedef struct reading {
  kp_label_set labels;
  kp_labelled_texts texts;
  kp_error error;
} reading;

static kp_status parse_bytes(reading *r, kp_task task, kp_labelled_format format, const char *text,
                             size_t size) {
  *r = (reading){0};
  r->texts = (kp_labelled_texts){.task = task, .labels = &r->labels};
  if (task == KP_TASK_TAG) format.layout = KP_LAYOUT_COLUMNS;
  char *data = malloc(size + 1);
  assert_non_null(data);
  memcpy(data, text, size);
  data[size] = 0;
  return kp_labelled_texts_parse(&r->texts, &format, "some.file", data, size, &r->error);
}

static void clear(reading *r) {
  kp_labelled_texts_clear(&r->texts);
  kp_label_set_clear(&r->labels);
}

static void parse(reading *r, kp_task task, kp_labelled_format format, const char *text) {
  check_ok(parse_bytes(r, task, format, text, strlen(text)), &r->error);
}

/* The text is refused with these words. */
static void refuse(kp_task task, kp_labelled_format format, const char *text, const char *words) {
  reading r;
  assert_int_equal(parse_bytes(&r, task, format, text, strlen(text)), KP_ERR_INPUT);
  if (strstr(r.error.message, words) == NULL || strncmp(r.error.message, "some.file: ", 11) != 0)
    fail_msg("'%s' is not in '%s'", words, r.error.message);
  clear(&r);
}

/* Example `i` has these pieces; NULL ends them. */
static void check_example(const reading *r, size_t i, const char *label, size_t line,
                          const char *const pieces[]) {
  const kp_labelled_example *example = &r->texts.examples[i];
  size_t count = 0;
  for (; pieces[count] != NULL; count++) {
    const kp_labelled_piece *piece = &r->texts.pieces[example->first + count];
    assert_true(count < example->count);
    assert_int_equal(piece->size, strlen(pieces[count]));
    assert_memory_equal(piece->text, pieces[count], piece->size);
  }
  assert_int_equal(example->count, count);
  assert_int_equal(example->line, line);
  assert_string_equal(example->path, "some.file");
  if (label == NULL) {
    assert_int_equal(example->label, -1);
    return;
  }
  int32_t number;
  check_ok(kp_label_set_add((kp_label_set *)&r->labels, label, strlen(label), &number, NULL), &r->error);
  assert_int_equal(number, example->label);
}

#define pieces(...)                                                                                          \
  (const char *const[]) {                                                                                    \
    __VA_ARGS__, NULL                                                                                        \
  }

static const kp_labelled_format table = {.layout = KP_LAYOUT_TABLE}, lines = {.layout = KP_LAYOUT_LINES};

static void test_table_with_usual_names(void **state) {
  (void)state;
  reading r;
  parse(&r, KP_TASK_CLASSIFY, table,
        "\xEF\xBB\xBFsentence\tlabel\r\na \"quoted one\t1\r\n\r\nan other \xE2\x82\xAC\t0");
  assert_int_equal(r.texts.example_count, 2);
  check_example(&r, 0, "1", 2, pieces("a \"quoted one"));
  check_example(&r, 1, "0", 4, pieces("an other \xE2\x82\xAC"));
  clear(&r);
  parse(&r, KP_TASK_CLASSIFY, table, "gold_label\tid\tpremise\thypothesis\nneutral\t7\tA man\tA fish\n");
  check_example(&r, 0, "neutral", 2, pieces("A man", "A fish"));
  clear(&r);
  parse(&r, KP_TASK_CLASSIFY, table, "index\tquestion\tsentence\tlabel\n0\twho\tme\tentailment\n");
  check_example(&r, 0, "entailment", 2, pieces("who", "me"));
  clear(&r);
}

static void test_table_with_given_columns(void **state) {
  (void)state;
  reading r;
  parse(&r, KP_TASK_CLASSIFY, (kp_labelled_format){.text = "b", .label = "a"}, "a\tb\tc\nL\tone\ttwo\n");
  check_example(&r, 0, "L", 2, pieces("one"));
  clear(&r);
  parse(&r, KP_TASK_CLASSIFY, (kp_labelled_format){.text = "3", .second = "2", .label = "1"},
        "L\tone\ttwo\nM\tx\ty\tz\n");
  assert_int_equal(r.texts.example_count, 2);
  check_example(&r, 0, "L", 1, pieces("two", "one"));
  check_example(&r, 1, "M", 2, pieces("y", "x"));
  clear(&r);
  parse(&r, KP_TASK_CLASSIFY, (kp_labelled_format){.text = "2", .label = "1", .header = true},
        "label\tone\nM\tx\n");
  assert_int_equal(r.texts.example_count, 1);
  check_example(&r, 0, "M", 2, pieces("x"));
  clear(&r);
}

static void test_tables_that_are_wrong(void **state) {
  (void)state;
  const kp_labelled_format numbers = {.text = "2", .label = "1"};
  refuse(KP_TASK_CLASSIFY, table, "", "it has no examples");
  refuse(KP_TASK_CLASSIFY, table, "sentence\tlabel\n", "it has no examples");
  refuse(KP_TASK_CLASSIFY, table, "sentence\tlabel\na\tb\nc\n", "line 3: it has 1 columns, the header has 2");
  refuse(KP_TASK_CLASSIFY, table, "sentence\tlabel\na\tb\tc\n", "line 2: it has 3 columns");
  refuse(KP_TASK_CLASSIFY, table, "words\tlabel\na\tb\n", "the header in line 1: no column or field has");
  refuse(KP_TASK_CLASSIFY, table, "sentence\ttruth\na\tb\n", "name that of the labels with --label");
  refuse(KP_TASK_CLASSIFY, (kp_labelled_format){.text = "words"}, "sentence\tlabel\na\tb\n",
         "there is no column or field 'words'");
  refuse(KP_TASK_CLASSIFY, (kp_labelled_format){.text = "sentence", .second = "sentence"},
         "sentence\tlabel\na\tb\n", "cannot be both sentences");
  refuse(KP_TASK_CLASSIFY, table, "sentence\tlabel\na\t\n", "line 2: the label is empty");
  refuse(KP_TASK_CLASSIFY, table, "sentence\tlabel\n\ta\n", "line 2: the sentence is empty");
  refuse(KP_TASK_CLASSIFY, table, "sentence\tlabel\na\xFF\tb\n", "line 2");
  refuse(KP_TASK_CLASSIFY, numbers, "L\n", "line 1: it has 1 columns, column 2 is asked for");
  refuse(KP_TASK_CLASSIFY, (kp_labelled_format){.text = "0", .label = "1"}, "a\tb\n", "numbered from 1");
  refuse(KP_TASK_CLASSIFY, (kp_labelled_format){.text = "1", .label = "300"}, "a\tb\n", "numbered from 1");
  reading r;
  assert_int_equal(parse_bytes(&r, KP_TASK_CLASSIFY, numbers, "a\tb\nc\0\td\n", 9), KP_ERR_INPUT);
  assert_non_null(strstr(r.error.message, "line 2 holds a zero byte"));
  clear(&r);
}

static void test_a_line_of_many_columns(void **state) {
  (void)state;
  char text[1024];
  memset(text, '\t', sizeof text - 1);
  text[sizeof text - 1] = 0;
  refuse(KP_TASK_CLASSIFY, table, text, "line 1 has more than 256 columns");
}

static void test_lines(void **state) {
  (void)state;
  reading r;
  parse(&r, KP_TASK_CLASSIFY, lines,
        "{\"sentence\": \"caf\\u00e9 \\\"x\\\"\", \"label\": 1, \"idx\": 0}\n \n"
        "{\"label\": true, \"sentence\": \"\\ud83d\\ude00\"}\n{\"label\": \"one\", \"sentence\": \"b\"}");
  assert_int_equal(r.texts.example_count, 3);
  check_example(&r, 0, "1", 1, pieces("caf\xC3\xA9 \"x\""));
  check_example(&r, 1, "true", 3, pieces("\xF0\x9F\x98\x80"));
  check_example(&r, 2, "one", 4, pieces("b"));
  clear(&r);
  parse(&r, KP_TASK_CLASSIFY, lines, "{\"sentence1\":\"a\",\"sentence2\":\"\",\"label\":-1}\n");
  check_example(&r, 0, "-1", 1, pieces("a", ""));
  clear(&r);
  parse(&r, KP_TASK_CLASSIFY,
        (kp_labelled_format){.layout = KP_LAYOUT_LINES, .text = "x", .second = "y", .label = "z"},
        "{\"x\":\"a\",\"y\":\"b\",\"z\":\"c\",\"sentence\":\"d\"}\n");
  check_example(&r, 0, "c", 1, pieces("a", "b"));
  clear(&r);
}

static void test_lines_that_are_wrong(void **state) {
  (void)state;
  refuse(KP_TASK_CLASSIFY, lines, "\n \n", "it has no examples");
  refuse(KP_TASK_CLASSIFY, lines, "{\"text\":\"a\",\"label\":1}\n{\"text\":\n", "line 2: it is not JSON");
  refuse(KP_TASK_CLASSIFY, lines, "[1]\n", "line 1: it is JSON, but not an object");
  refuse(KP_TASK_CLASSIFY, lines, "7\n", "not an object");
  refuse(KP_TASK_CLASSIFY, lines, "{\"a\":\"a\",\"label\":1}\n", "name it with --text");
  refuse(KP_TASK_CLASSIFY, lines, "{\"text\":1,\"label\":1}\n", "its \"text\" is not a text");
  refuse(KP_TASK_CLASSIFY, lines, "{\"text\":\"a\",\"label\":1.5}\n", "neither a text nor a whole number");
  refuse(KP_TASK_CLASSIFY, lines, "{\"text\":\"a\",\"label\":1}\n{\"label\":2}\n", "line 2: its \"text\"");
  refuse(KP_TASK_CLASSIFY, lines, "{\"text\":\"a\",\"text\":\"b\",\"label\":1}\n", "line 1: it is not JSON");
  refuse(KP_TASK_CLASSIFY, lines, "{\"text\":\"a\\u0000b\",\"label\":1}\n", "line 1: it is not JSON");
}

static void test_columns(void **state) {
  (void)state;
  reading r;
  parse(&r, KP_TASK_TAG, table,
        "-DOCSTART- -X- -X- O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\n\t\nNew York\tB-LOC\n#tag\tO\r\n");
  assert_int_equal(r.texts.example_count, 2);
  check_example(&r, 0, NULL, 3, pieces("EU", "rejects"));
  check_example(&r, 1, NULL, 7, pieces("New York", "#tag"));
  assert_int_equal(r.labels.count, 3);
  const kp_labelled_piece *words = r.texts.pieces;
  assert_int_equal(words[1].label, words[3].label);
  assert_int_not_equal(words[0].label, words[2].label);
  clear(&r);
}

static void test_columns_that_are_wrong(void **state) {
  (void)state;
  refuse(KP_TASK_TAG, table, "\n\n", "it has no examples");
  refuse(KP_TASK_TAG, table, "a O\nb\n", "line 2: it has one column");
  refuse(KP_TASK_TAG, table, "a\tO\n\tO\n", "line 2: its word is empty");
  refuse(KP_TASK_TAG, table, "a\tO\nb\t\n", "line 2: it has one column");
}

static void test_layout_by_name(void **state) {
  (void)state;
  assert_int_equal(kp_labelled_layout_of(KP_TASK_CLASSIFY, "a/b.jsonl"), KP_LAYOUT_LINES);
  assert_int_equal(kp_labelled_layout_of(KP_TASK_CLASSIFY, "b.json"), KP_LAYOUT_LINES);
  assert_int_equal(kp_labelled_layout_of(KP_TASK_CLASSIFY, "b.tsv"), KP_LAYOUT_TABLE);
  assert_int_equal(kp_labelled_layout_of(KP_TASK_CLASSIFY, "json"), KP_LAYOUT_TABLE);
  assert_int_equal(kp_labelled_layout_of(KP_TASK_TAG, "b.jsonl"), KP_LAYOUT_COLUMNS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_table_with_usual_names),
      cmocka_unit_test(test_table_with_given_columns),
      cmocka_unit_test(test_tables_that_are_wrong),
      cmocka_unit_test(test_a_line_of_many_columns),
      cmocka_unit_test(test_lines),
      cmocka_unit_test(test_lines_that_are_wrong),
      cmocka_unit_test(test_columns),
      cmocka_unit_test(test_columns_that_are_wrong),
      cmocka_unit_test(test_layout_by_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
