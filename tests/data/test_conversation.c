/* Reading conversations of objects and texts, and what is wrong with some. */
#include "support/check.h"

#include <string.h>

#include "data/conversation.h"

static const kp_speaker_names no_names = {0};

/* Turns as "role=words" lines, for comparison. */
static void print_turns(const kp_conversation *c, char *out, size_t room) {
  size_t at = 0;
  out[0] = 0;
  for (size_t i = 0; i < c->count; i++) {
    const kp_turn *turn = &c->turns[i];
    at += (size_t)snprintf(out + at, room - at, "%s=%.*s|", kp_speaker_text(turn->role), (int)turn->size,
                           c->text + turn->begin);
  }
}

static void check_turns(const kp_conversation *c, const char *expected) {
  char text[2048];
  print_turns(c, text, sizeof text);
  assert_string_equal(text, expected);
}

static kp_status read_object(const char *text, const kp_speaker_names *names, kp_conversation *c,
                             kp_conversation_format *format, kp_error *error) {
  json_t *object = json_loads(text, 0, NULL);
  assert_non_null(object);
  kp_status status = kp_conversation_format_of_object(object, format, error);
  if (status == KP_OK) status = kp_conversation_from_object(c, *format, object, names, error);
  json_decref(object);
  return status;
}

static void check_object(const char *text, kp_conversation_format expected, const char *turns) {
  kp_conversation c = {0};
  kp_conversation_format format;
  kp_error error = {0};
  check_ok(read_object(text, &no_names, &c, &format, &error), &error);
  assert_int_equal(format, expected);
  check_turns(&c, turns);
  kp_conversation_clear(&c);
}

static void refuse_object(const char *text, const char *words) {
  kp_conversation c = {0};
  kp_conversation_format format;
  kp_error error = {0};
  assert_int_equal(read_object(text, &no_names, &c, &format, &error), KP_ERR_INPUT);
  if (strstr(error.message, words) == NULL) fail_msg("'%s' is not in '%s'", words, error.message);
  kp_conversation_clear(&c);
}

static void test_messages(void **state) {
  (void)state;
  check_object(
      "{\"id\": 1, \"messages\": [{\"role\": \"system\", \"content\": \"Be kind.\"},"
      "{\"role\": \"user\", \"content\": \" Hi\\n\"}, {\"role\": \"Assistant\", \"content\": "
      "[{\"type\": \"text\", \"text\": \"Hel\"}, {\"type\": \"text\", \"text\": \"lo \xE2\x82\xAC\"}]}]}",
      KP_CONVERSATION_MESSAGES, "system=Be kind.|user=Hi|assistant=Hello \xE2\x82\xAC|");
  check_object("{\"messages\": []}", KP_CONVERSATION_MESSAGES, "");
}

static void test_sharegpt(void **state) {
  (void)state;
  check_object("{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": "
               "\"b\"}, {\"from\": \"tool\", \"value\": \"c\"}], \"system\": \"s\"}",
               KP_CONVERSATION_SHAREGPT, "system=s|user=a|assistant=b|tool=c|");
  check_object("{\"conversations\": [{\"role\": \"user\", \"content\": \"a\"}], \"system\": \"\"}",
               KP_CONVERSATION_SHAREGPT, "user=a|");
}

static void test_alpaca(void **state) {
  (void)state;
  check_object("{\"instruction\": \"Add.\", \"input\": \"1, 2\", \"output\": \"3\"}", KP_CONVERSATION_ALPACA,
               "user=Add.\n\n1, 2|assistant=3|");
  check_object(
      "{\"instruction\": \"Hi\", \"input\": \"\", \"output\": \"Ho\", \"system\": \"s\", \"history\": "
      "[[\"q\", \"a\"]]}",
      KP_CONVERSATION_ALPACA, "system=s|user=q|assistant=a|user=Hi|assistant=Ho|");
}

static void test_objects_that_are_wrong(void **state) {
  (void)state;
  refuse_object("[1]", "is a JSON object");
  refuse_object("{\"question\": 1, \"turns\": [\"a\"]}", "(question, turns)");
  refuse_object("{\"instruction\": \"x\", \"output\": \"y\", \"history\": [[\"q\"]]}", "not a pair");
  refuse_object("{\"instruction\": \"x\", \"output\": \"y\", \"input\": 3}", "not a text");
  refuse_object("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"content\": \"b\"}]}",
                "turn 2: it has no text \"role\"");
  refuse_object("{\"messages\": [{\"role\": \"user\", \"content\": null}]}", "\"content\" is not a text");
  refuse_object("{\"messages\": [{\"role\": \"user\", \"content\": [{\"image\": 1}]}]}", "part 1");
  refuse_object("{\"conversations\": [{\"from\": \"observation\", \"value\": \"a\"}]}",
                "turn 1: the role 'observation' is unknown; known are system, user, human, prompter, tool, "
                "assistant, gpt");
}

static void test_roles_can_be_named(void **state) {
  (void)state;
  const kp_speaker_name list[] = {{"observation", KP_SPEAKER_TOOL}, {"gpt", KP_SPEAKER_USER}};
  const kp_speaker_names names = {list, 2};
  kp_conversation c = {0};
  kp_conversation_format format;
  kp_error error = {0};
  check_ok(
      read_object("{\"conversations\": [{\"from\": \"Observation\", \"value\": \"a\"}, {\"from\": \"gpt\", "
                  "\"value\": \"b\"}]}",
                  &names, &c, &format, &error),
      &error);
  check_turns(&c, "tool=a|user=b|");
  assert_false(kp_conversation_has_assistant(&c));
  kp_conversation_clear(&c);
}

/* ---- texts ---- */

/* All conversations, with "#" in front of each. */
static kp_status read_text(const char *text, char *out, size_t room, kp_error *error) {
  kp_conversation c = {0};
  kp_conversation_text from = {.text = text, .size = strlen(text)};
  kp_status status = kp_conversation_format_of_text(text, from.size, &no_names, &from.format, error);
  out[0] = 0;
  while (status == KP_OK) {
    kp_conversation_reset(&c);
    status = kp_conversation_from_text(&c, &from, &no_names, error);
    if (status != KP_OK || c.count == 0) break;
    const size_t length = strlen(out);
    snprintf(out + length, room - length, "#");
    print_turns(&c, out + length + 1, room - length - 1);
  }
  kp_conversation_clear(&c);
  return status;
}

static void check_text(const char *text, const char *expected) {
  char found[2048];
  kp_error error = {0};
  check_ok(read_text(text, found, sizeof found, &error), &error);
  assert_string_equal(found, expected);
}

static void refuse_text(const char *text, const char *words) {
  char found[2048];
  kp_error error = {0};
  assert_int_equal(read_text(text, found, sizeof found, &error), KP_ERR_INPUT);
  if (strstr(error.message, words) == NULL) fail_msg("'%s' is not in '%s'", words, error.message);
}

static void test_plain_text(void **state) {
  (void)state;
  check_text("User: Hi there\nAssistant: Hello.\nNote: two lines\n\nand more\nUser:bye\r\nassistant: Bye",
             "#user=Hi there|assistant=Hello.\nNote: two lines\n\nand more|user=bye|assistant=Bye|");
  check_text(
      "\n\nHuman: a\nAssistant: b\n<|endoftext|>\nSystem: s\nUser: c\nAssistant: d\nSystem: t\nUser: e\n",
      "#user=a|assistant=b|#system=s|user=c|assistant=d|#system=t|user=e|");
  check_text("User: a\nAssistant:", "#user=a|assistant=|");
}

static void test_chatml_text(void **state) {
  (void)state;
  check_text("<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nHi\nyou<|im_end|>\n<|im_start|>assistant\n"
             "Ho<|im_end|>\n",
             "#system=Be.|user=Hi\nyou|assistant=Ho|");
  check_text("<|im_start|>user\na<|im_end|>\n\n<|im_start|>user\nb<|im_end|><|endoftext|><|im_start|>user\n"
             "c<|im_end|>\n<|im_start|>system\nd<|im_end|>",
             "#user=a|#user=b|#user=c|#system=d|");
}

static void test_texts_that_are_wrong(void **state) {
  (void)state;
  refuse_text("Hello there", "line 1: a conversation begins with");
  refuse_text("", "line 1: a conversation begins with");
  refuse_text("<|im_start|>user\na<|im_end|>\nb", "line 3: a turn of ChatML begins");
  refuse_text("<|im_start|>user\na\n<|im_start|>assistant\nb<|im_end|>", "line 1: the turn that begins here");
  refuse_text("<|im_start|>user\na<|im_end|>\n<|im_start|>user\nb", "line 3: the turn that begins here");
  refuse_text("<|im_start|>user\na<|im_end|>\n<|im_start|>robot\nb<|im_end|>",
              "line 3: the role 'robot' is unknown; known are");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_messages),
      cmocka_unit_test(test_sharegpt),
      cmocka_unit_test(test_alpaca),
      cmocka_unit_test(test_objects_that_are_wrong),
      cmocka_unit_test(test_roles_can_be_named),
      cmocka_unit_test(test_plain_text),
      cmocka_unit_test(test_chatml_text),
      cmocka_unit_test(test_texts_that_are_wrong),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
