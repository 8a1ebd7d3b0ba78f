/* Questions in every layout, the prompts that they become, and files that are refused. */
#include "data/compressed.h"

#include "infer/choice_examples.h"
#include "infer/choice_tasks.h"
#include "infer/choice_text.h"

/* The prompt of the first question of a text, and its choice. */
static void check_prompt(const char *task_name, const char *line, const char *expected, const char *answer) {
  kp_error error = {0};
  const kp_choice_task *task;
  kp_questions questions = {0};
  char *prompt;
  check_ok(kp_choice_task_find(task_name, &task, &error), &error);
  check_ok(kp_questions_parse(line, strlen(line), "file", task->layouts, &questions, &error), &error);
  check_ok(kp_choice_prompt(task, &questions.list[0], NULL, 0, &prompt, &error), &error);
  assert_string_equal(prompt, expected);
  assert_string_equal(kp_choice_answer(task, &questions.list[0], questions.list[0].gold), answer);
  free(prompt);
  kp_questions_clear(&questions);
}

/* The expected prompts were made by lm-evaluation-harness 0.4.13 from these objects. */
static void test_layouts_and_prompts(void **state) {
  (void)state;
  check_prompt("hellaswag", "{\"query\": \"Sport: He runs\", \"choices\": [\"and\", \"or\"], \"gold\": 1}",
               "Sport: He runs", "or");
  check_prompt("hellaswag",
               "{\"ind\": 3, \"activity_label\": \"Home\", \"ctx_a\": \"How to [header] it [step] Do.\", "
               "\"ctx_b\": \"the Man\", \"endings\": [\" [title] a  b\", \"c [x]d\", \"e\", \"f\"], "
               "\"label\": \"1\"}",
               "Home: How to it Do. The man", "c d");
  check_prompt("arc_easy",
               "{\"id\":\"a\",\"question\":{\"stem\":\"Why?\",\"choices\":[{\"text\":\"x\",\"label\":\"1\"},"
               "{\"text\":\"y z\",\"label\":\"2\"}]},\"answerKey\":\"2\"}",
               "Question: Why?\nAnswer:", "y z");
  check_prompt(
      "arc_challenge",
      "{\"question\":\"Why?\",\"choices\":{\"text\":[\"x\",\"y\",\"z\"],\"label\":[\"A\",\"B\",\"C\"]},"
      "\"answerKey\":\"C\"}",
      "Question: Why?\nAnswer:", "z");
  check_prompt("openbookqa",
               "{\"question_stem\":\"The sun\",\"choices\":{\"text\":[\"x\",\"y\"],\"label\":[\"A\",\"B\"]},"
               "\"answerKey\":\" A\"}",
               "The sun", "x");
  check_prompt("piqa", "{\"goal\":\"Open it\",\"sol1\":\"push\",\"sol2\":\"pull\",\"label\":1}",
               "Question: Open it\nAnswer:", "pull");
  check_prompt("piqa", "{\"query\":\"Goal: Open it\",\"choices\":[\"push\",\"pull\"],\"gold\":0}",
               "Question: Open it\nAnswer:", "push");
  check_prompt("social_iqa",
               "{\"context\":\"A sat.\",\"question\":\"Why?\",\"answerA\":\"x\",\"answerB\":\"y\","
               "\"answerC\":\"z\",\"label\":\"3\"}",
               "Q: A sat. Why?\nA:", "z");
  check_prompt("social_iqa",
               "{\"context\":\"A sat.\",\"question\":\"Why?\",\"answerA\":\"x\",\"answerB\":\"y\","
               "\"answerC\":\"z\",\"correct\":\"B\"}",
               "Q: A sat. Why?\nA:", "y");
  check_prompt("commonsense_qa",
               "{\"question\":{\"stem\":\" Where? \",\"choices\":[{\"label\":\"A\",\"text\":\"bank\"},"
               "{\"label\":\"B\",\"text\":\"shop\"}]},\"answerKey\":\"B\"}",
               "Question: Where?\nA. bank\nB. shop\nAnswer:", "B");
  check_prompt(
      "mmlu",
      "\n  \r\n{\"question\":\"What?\\n\",\"subject\":\"college_law\",\"choices\":[\"p\",\"q\",\"r\",\"s\"],"
      "\"answer\":2}",
      "The following are multiple choice questions (with answers) about college law.\n\n"
      "What?\nA. p\nB. q\nC. r\nD. s\nAnswer:",
      "C");
}

static void check_clean(const char *text, const char *expected) {
  char copy[128];
  snprintf(copy, sizeof copy, "%s", text);
  kp_hellaswag_clean(copy);
  assert_string_equal(copy, expected);
}

/* What Python's strip, re.sub(r"\[.*?\]", "") and replace give. */
static void test_hellaswag_texts(void **state) {
  (void)state;
  char *query;
  kp_error error = {0};
  check_clean(" \t\xe2\x80\x83 a [title] b [title]\n", "a. b. ");
  check_clean("[a] b [c [d] e] f", " b e] f");
  check_clean("[a\nb] c]", "[a\nb] c]");
  check_clean("a    b   c", "a  b  c");
  check_clean("", "");
  check_ok(kp_hellaswag_query("X", "A", "\xc3\xa9T\xc3\x89 \xce\xa3", &query, &error), &error);
  assert_string_equal(query, "X: A \xc3\x89t\xc3\xa9 \xcf\x83");
  free(query);
  assert_int_equal(kp_trailing_space("a \xc2\xa0\n", 5), 4);
  assert_int_equal(kp_trailing_space(" ", 1), 1);
  assert_int_equal(kp_trailing_space("\xa0", 1), 0);
}

/* ---- few shots ---- */

static const char pool[] = "{\"query\":\"q0\",\"choices\":[\"a\",\"b\"],\"gold\":0}\n"
                           "{\"query\":\"q1\",\"choices\":[\"a\",\"b\"],\"gold\":1}\n"
                           "{\"query\":\"q2\",\"choices\":[\"a\",\"b\"],\"gold\":0}\n"
                           "{\"query\":\"q3\",\"choices\":[\"a\",\"b\"],\"gold\":1}\n";

static void test_examples_stand_in_front(void **state) {
  (void)state;
  kp_error error = {0};
  const kp_choice_task *task;
  kp_questions questions = {0};
  kp_example_choice choice;
  const kp_question *examples[3];
  char *prompt;
  check_ok(kp_choice_task_find("arc_easy", &task, &error), &error);
  check_ok(kp_questions_parse(pool, sizeof pool - 1, "pool", task->layouts, &questions, &error), &error);
  /* random.Random(1234).sample(range(4), 2) is [3, 0], and then [0, 3]. */
  check_ok(kp_example_choice_init(&choice, task, NULL, &questions, 2, 1234, &error), &error);
  check_ok(kp_example_choice_next(&choice, &questions.list[1], examples, &error), &error);
  assert_ptr_equal(examples[0], &questions.list[3]);
  assert_ptr_equal(examples[1], &questions.list[0]);
  check_ok(kp_choice_prompt(task, &questions.list[1], examples, 2, &prompt, &error), &error);
  assert_string_equal(prompt, "Question: q3\nAnswer: b\n\nQuestion: q0\nAnswer: a\n\nQuestion: q1\nAnswer:");
  free(prompt);
  kp_example_choice_clear(&choice);
  kp_questions_clear(&questions);
}

/* Of the questions themselves every other one may stand in front, never the question. */
static void test_no_question_is_its_own_example(void **state) {
  (void)state;
  static const char *const names[] = {"openbookqa", "mmlu"};
  for (size_t n = 0; n < 2; n++) {
    kp_error error = {0};
    const kp_choice_task *task;
    kp_questions questions = {0};
    kp_example_choice choice;
    const kp_question *examples[3];
    check_ok(kp_choice_task_find(names[n], &task, &error), &error);
    check_ok(kp_questions_parse(pool, sizeof pool - 1, "pool", task->layouts, &questions, &error), &error);
    check_ok(kp_example_choice_init(&choice, task, &questions, NULL, 3, 7, &error), &error);
    for (size_t i = 0; i < questions.count; i++) {
      check_ok(kp_example_choice_next(&choice, &questions.list[i], examples, &error), &error);
      for (int k = 0; k < 3; k++) {
        assert_ptr_not_equal(examples[k], &questions.list[i]);
        for (int j = 0; j < k; j++) assert_ptr_not_equal(examples[k], examples[j]);
      }
    }
    kp_example_choice_clear(&choice);
    check_ok(kp_example_choice_init(&choice, task, &questions, NULL, 4, 7, &error), &error);
    const kp_question *many[4];
    assert_int_equal(kp_example_choice_next(&choice, &questions.list[0], many, &error), KP_ERR_INPUT);
    check_words(&error, "there are 3 examples for a question, not 4");
    kp_example_choice_clear(&choice);
    kp_questions_clear(&questions);
  }
}

/* ---- the random numbers of Python ---- */

static void check_sample(kp_python_random *random, size_t population, const size_t *expected, size_t count) {
  size_t chosen[64];
  kp_error error = {0};
  check_ok(kp_python_random_sample(random, population, count, chosen, &error), &error);
  for (size_t i = 0; i < count; i++) assert_int_equal(chosen[i], expected[i]);
}

/* Numbers of CPython 3.11: getrandbits(32), and sample(range(n), k) of both of its ways. */
static void test_random_numbers_are_those_of_python(void **state) {
  (void)state;
  kp_python_random random;
  static const size_t a[] = {989, 796, 451, 119, 7}, b[] = {92, 932, 965, 961, 826},
                      c[] = {18, 1, 2, 3, 11, 16}, d[] = {2, 3, 44, 82, 79, 61, 78, 59, 19, 11},
                      e[] = {93,  58, 7,   257, 249, 127, 33,  277, 238, 35, 45,  263, 296, 23,  138,
                             284, 32, 154, 246, 181, 136, 102, 232, 271, 9,  260, 36,  2,   170, 73},
                      f[] = {4672, 3898, 2054, 1038};
  kp_python_random_init(&random, 1234);
  assert_int_equal(kp_python_random_bits(&random), 4150886329u);
  assert_int_equal(kp_python_random_bits(&random), 3342196574u);
  assert_int_equal(kp_python_random_bits(&random), 1892932127u);
  kp_python_random_init(&random, 1234);
  check_sample(&random, 1000, a, 5);
  check_sample(&random, 1000, b, 5);
  check_sample(&random, 20, c, 6);
  check_sample(&random, 100, d, 10);
  check_sample(&random, 300, e, 30);
  kp_python_random_init(&random, ((uint64_t)1 << 40) + 7);
  check_sample(&random, 5000, f, 4);
}

/* ---- files that are refused ---- */

static void check_refused(const char *task_name, const char *text, const char *words) {
  kp_error error = {0};
  const kp_choice_task *task;
  kp_questions questions = {0};
  check_ok(kp_choice_task_find(task_name, &task, &error), &error);
  assert_int_equal(kp_questions_parse(text, strlen(text), "file", task->layouts, &questions, &error),
                   KP_ERR_INPUT);
  check_words(&error, words);
  kp_questions_clear(&questions);
}

static void test_wrong_lines(void **state) {
  (void)state;
  check_refused("hellaswag", "", "file: it has no questions");
  check_refused("hellaswag", "\n{\"a\":1", "file: line 2: it is not JSON");
  check_refused("hellaswag", "[1]", "line 1: it is JSON, but not an object");
  check_refused(
      "piqa", "{\"question\":\"x\",\"n\":1}",
      "it has the fields question, n: the task reads query, choices, gold; or goal, sol1, sol2, label");
  check_refused("piqa", "{\"goal\":\"x\",\"sol1\":\"a\"}", "there is no field \"sol2\"");
  check_refused("piqa", "{\"goal\":\"x\",\"sol1\":\"a\",\"sol2\":3}", "its \"sol2\" is not a text");
  check_refused("piqa", "{\"goal\":\"x\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":2}",
                "its \"label\" is none of its 2 choices");
  check_refused("mmlu", "{\"question\":\"x\",\"choices\":[\"a\"],\"answer\":0}", "it has 1 choices");
  check_refused("mmlu", "{\"question\":\"x\",\"choices\":[\"a\",2],\"answer\":0}",
                "item 2 of its \"choices\" is not a text");
  check_refused(
      "mmlu",
      "{\"question\":\"x\",\"answer\":0,\"choices\":[\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\","
      "\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\"]}",
      "more than 26 choices");
  check_refused("arc_easy",
                "{\"question\":{\"stem\":\"x\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},"
                "{\"text\":\"b\"}]},\"answerKey\":\"C\"}",
                "its \"answerKey\" C is no label of its choices");
  check_refused("arc_easy", "{\"question\":\"x\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\"]}}",
                "two lists \"text\" and \"label\" of one length");
}

static void test_labels_in_their_own_file(void **state) {
  fixture *files = *state;
  static const char text[] = "{\"goal\":\"x\",\"sol1\":\"a\",\"sol2\":\"b\"}\n"
                             "{\"goal\":\"y\",\"sol1\":\"a\",\"sol2\":\"b\"}\n";
  kp_error error = {0};
  kp_questions questions;
  kp_question_source source = {.path = fixture_write(files, "valid.jsonl", text, sizeof text - 1),
                               .layouts = KP_CHOICES_GOAL};
  assert_int_equal(kp_questions_read(&source, &questions, &error), KP_ERR_INPUT);
  check_words(&error, "question 1 has no right answer");
  source.labels = fixture_write(files, "labels.lst", "1\r\n0\n", 5);
  check_ok(kp_questions_read(&source, &questions, &error), &error);
  assert_int_equal(questions.list[0].gold, 1);
  assert_int_equal(questions.list[1].gold, 0);
  kp_questions_clear(&questions);
  static const struct {
    const char *labels, *words;
  } wrong[] = {{"1\n", "has 1 labels"},
               {"1\n0\n1\n", "has 3 labels"},
               {"1\n2\n", "line 2: question 2 has 2 choices, from 0 on"},
               {"1\nx\n", "line 2 is not a number"}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    source.labels = fixture_write(files, "labels.lst", wrong[i].labels, strlen(wrong[i].labels));
    assert_int_equal(kp_questions_read(&source, &questions, &error), KP_ERR_INPUT);
    check_words(&error, wrong[i].words);
  }
}

/* Quoted fields with commas, quotation marks and line ends, as the files of MMLU have. */
static void test_comma_separated_values(void **state) {
  fixture *files = *state;
  static const char text[] = "What?,p,q,r,s,C\r\n\"a, \"\"b\"\"\nc\",\"\",2,3,4,A\n";
  kp_error error = {0};
  kp_questions questions;
  const kp_question_source source = {
      .path = fixture_write(files, "high_school_physics_test.csv", text, sizeof text - 1),
      .layouts = KP_CHOICES_SUBJECT};
  check_ok(kp_questions_read(&source, &questions, &error), &error);
  assert_int_equal(questions.count, 2);
  assert_string_equal(questions.list[0].subject, "high_school_physics");
  assert_string_equal(questions.list[0].choices[3], "s");
  assert_int_equal(questions.list[0].gold, 2);
  assert_string_equal(questions.list[1].text, "a, \"b\"\nc");
  assert_string_equal(questions.list[1].choices[0], "");
  kp_questions_clear(&questions);
  static const struct {
    const char *text, *words;
  } wrong[] = {{"", "x_dev.csv: it has no questions"},
               {"q,1,2,3,4,A\nq,1,2,3,A\n", "line 2: it has 5 columns"},
               {"q,1,2,3,4,E\n", "line 1: its \"answer\" is none of its 4 choices"},
               {"q,1,2,3,4,\"A", "line 1: a quotation mark is never closed"},
               {"q,\"1\"2,2,3,4,A", "something stands behind a closing quotation mark"},
               {"q\xff,1,2,3,4,A\n", "line 1: it is not UTF-8"}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    questions = (kp_questions){0};
    assert_int_equal(
        kp_questions_parse_csv(wrong[i].text, strlen(wrong[i].text), "x_dev.csv", &questions, &error),
        KP_ERR_INPUT);
    check_words(&error, wrong[i].words);
    kp_questions_clear(&questions);
  }
}

/* One question, and the same cut short. */
static void test_compressed_files(void **state) {
  fixture *files = *state;
  static const char line[] = "{\"goal\":\"x\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":1}\n";
  kp_error error = {0};
  kp_questions questions;
  char *bytes;
  size_t size;
  const char *path = fixture_compress(files, "valid.jsonl.xz", "xz", line, sizeof line - 1);
  kp_question_source source = {.path = path, .layouts = KP_CHOICES_GOAL};
  check_ok(kp_questions_read(&source, &questions, &error), &error);
  assert_int_equal(questions.list[0].gold, 1);
  kp_questions_clear(&questions);
  bytes = fixture_read(path, &size);
  source.path = fixture_write(files, "cut.jsonl.xz", bytes, size - 20);
  assert_int_equal(kp_questions_read(&source, &questions, &error), KP_ERR_INPUT);
  free(bytes);
}

static void test_unknown_task(void **state) {
  (void)state;
  const kp_choice_task *task;
  kp_error error = {0};
  assert_int_equal(kp_choice_task_find("arc", &task, &error), KP_ERR_INPUT);
  check_words(&error, "there is no task 'arc'; there are hellaswag, arc_easy");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_layouts_and_prompts),
      cmocka_unit_test(test_hellaswag_texts),
      cmocka_unit_test(test_examples_stand_in_front),
      cmocka_unit_test(test_no_question_is_its_own_example),
      cmocka_unit_test(test_random_numbers_are_those_of_python),
      cmocka_unit_test(test_wrong_lines),
      with_fixture(test_labels_in_their_own_file),
      with_fixture(test_comma_separated_values),
      with_fixture(test_compressed_files),
      cmocka_unit_test(test_unknown_task),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
