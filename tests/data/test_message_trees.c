/* Trees of messages: the conversation that was ranked best. */
#include "data/fixture.h"

#include "data/message_trees.h"

static const char trees[] =
    "{\"prompt\": {\"role\": \"prompter\", \"text\": \"Hi\", \"replies\": ["
    "{\"role\": \"assistant\", \"text\": \"worse\", \"rank\": 1, \"replies\": []},"
    "{\"role\": \"assistant\", \"text\": \"gone\", \"rank\": 0, \"deleted\": true, \"replies\": []},"
    "{\"role\": \"assistant\", \"text\": \"unranked\", \"rank\": null, \"replies\": []},"
    "{\"role\": \"assistant\", \"text\": \"best\", \"rank\": 0, \"replies\": ["
    "{\"role\": \"prompter\", \"text\": \"And?\", \"replies\": []}]}]}}\n"
    "{\"prompt\": {\"role\": \"prompter\", \"text\": \"alone\", \"replies\": []}}\n";

static void test_trees(void **state) {
  fixture *files = *state;
  kp_error reported = {0}, *error = &reported;
  char out[KP_PATH_SIZE];
  size_t size;
  snprintf(out, sizeof out, "%s", fixture_path(files, "out.jsonl"));
  fixture_write(files, "trees.jsonl", trees, strlen(trees));
  check_ok(kp_message_trees_convert(fixture_path(files, "trees.jsonl"), out, error), error);
  char *made = fixture_read(out, &size);
  assert_string_equal(made, "{\"messages\":[{\"role\":\"prompter\",\"content\":\"Hi\"},"
                            "{\"role\":\"assistant\",\"content\":\"best\"}]}\n");
  free(made);
  fixture_write(files, "bad.jsonl", "{\"prompt\": {\"role\": 3}}", 23);
  assert_int_equal(kp_message_trees_convert(fixture_path(files, "bad.jsonl"), out, error), KP_ERR_INPUT);
  check_words(error, "bad.jsonl, line 1");
  check_words(error, "lacks a \"role\"");
  fixture_write(files, "bad.jsonl", "{\"promt\": {}}", 13);
  assert_int_equal(kp_message_trees_convert(fixture_path(files, "bad.jsonl"), out, error), KP_ERR_INPUT);
  check_words(error, "no \"prompt\"");
}

int main(void) {
  const struct CMUnitTest tests[] = {with_fixture(test_trees)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
