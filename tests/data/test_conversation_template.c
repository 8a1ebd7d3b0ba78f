/* Conversations as tokens: what each template writes, what is learned of it, and what is left out when there
 * is too little room. */
#include "support/check.h"

#include <string.h>

#include "data/character_tokenizer.h"
#include "data/conversation_template.h"
#include "data/special_tokens.h"

/* Characters, and special tokens behind them when asked for. */
typedef struct vocabulary {
  kp_tokenizer *tokenizer;
  kp_special_token specials[6];
} vocabulary;

static void make_vocabulary(vocabulary *v, const char *const *specials, size_t count) {
  const char *text = "abcdefghijklmnopqrstuvwxyzSUATy_<|>: .\n";
  const size_t size = strlen(text);
  kp_error error = {0};
  check_ok(kp_character_tokenizer_create(&text, &size, 1, &v->tokenizer, &error), &error);
  for (size_t i = 0; i < count; i++)
    v->specials[i] = (kp_special_token){specials[i], v->tokenizer->vocabulary++};
  kp_specials_sort(v->specials, count);
  v->tokenizer->specials = v->specials;
  v->tokenizer->special_count = count;
}

static kp_conversation *make_conversation(const char *text) {
  static kp_conversation c;
  const kp_speaker_names names = {0};
  kp_conversation_text from = {.text = text, .size = strlen(text), .format = KP_CONVERSATION_PLAIN};
  kp_error error = {0};
  kp_conversation_reset(&c);
  check_ok(kp_conversation_from_text(&c, &from, &names, &error), &error);
  return &c;
}

/* The tokens as text: special ones as their text, learned ones between brackets. */
static void print_tokens(const vocabulary *v, const kp_masked_ids *list, size_t first, char *out) {
  char *at = out;
  bool learned = false;
  for (size_t i = first; i <= list->ids.count; i++) {
    const bool now = i < list->ids.count && list->mask[i] == 1;
    if (now != learned) *at++ = now ? '[' : ']';
    learned = now;
    if (i == list->ids.count) break;
    const int32_t id = list->ids.list[i];
    const char *bytes = NULL;
    for (size_t k = 0; k < v->tokenizer->special_count; k++)
      if (v->specials[k].id == id) bytes = v->specials[k].text;
    size_t size = bytes != NULL ? strlen(bytes) : 0;
    if (bytes == NULL) v->tokenizer->kind->token_bytes(v->tokenizer, id, &bytes, &size);
    memcpy(at, bytes, size);
    at += size;
  }
  *at = 0;
}

static void check_written(const vocabulary *v, kp_template which, const char *conversation, size_t room,
                          kp_written expected, const char *tokens) {
  char found[1024];
  kp_masked_ids list = {0};
  kp_written written;
  kp_error error = {0};
  /* A conversation in front, which must stay as it is. */
  check_ok(kp_template_write(KP_TEMPLATE_PLAIN, make_conversation("User: a\nAssistant: b"), v->tokenizer, 99,
                             &list, &written, &error),
           &error);
  const size_t first = list.ids.count;
  check_ok(
      kp_template_write(which, make_conversation(conversation), v->tokenizer, room, &list, &written, &error),
      &error);
  print_tokens(v, &list, first, found);
  assert_string_equal(found, tokens);
  assert_int_equal(written, expected);
  assert_true(list.ids.count - first <= room);
  print_tokens(v, &(kp_masked_ids){.ids = {.list = list.ids.list, .count = first}, .mask = list.mask}, 0,
               found);
  assert_string_equal(found, v->tokenizer->end >= 0 ? "User: a\nAssistant:[ b<|im_end|>]\n"
                                                    : "User: a\nAssistant:[ b\n]");
  kp_masked_ids_clear(&list);
}

static const char *const chatml_marks[] = {"<|im_start|>", "<|im_end|>"};
static const char talk[] = "System: be.\nUser: hi\nAssistant: hello you\nUser: so\nAssistant: bye\nUser: ok";

static void test_chatml(void **state) {
  (void)state;
  vocabulary with = {0}, without = {0};
  make_vocabulary(&with, chatml_marks, 2);
  make_vocabulary(&without, NULL, 0);
  const char *expected = "<|im_start|>system\nbe.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
                         "<|im_start|>assistant\n[hello you<|im_end|>]\n<|im_start|>user\nso<|im_end|>\n"
                         "<|im_start|>assistant\n[bye<|im_end|>]\n";
  check_written(&with, KP_TEMPLATE_CHATML, talk, 1000, KP_WRITTEN_WHOLE, expected);
  check_written(&without, KP_TEMPLATE_CHATML, talk, 1000, KP_WRITTEN_WHOLE, expected);
  kp_tokenizer_destroy(with.tokenizer);
  kp_tokenizer_destroy(without.tokenizer);
}

/* What a turn says is never a special token. */
static void test_words_are_words(void **state) {
  (void)state;
  vocabulary v = {0};
  kp_masked_ids list = {0};
  kp_written written;
  kp_error error = {0};
  make_vocabulary(&v, chatml_marks, 2);
  check_ok(kp_template_write(KP_TEMPLATE_CHATML,
                             make_conversation("User: <|im_end|>\nAssistant: <|im_start|>"), v.tokenizer,
                             1000, &list, &written, &error),
           &error);
  size_t specials = 0;
  for (size_t i = 0; i < list.ids.count; i++) specials += list.ids.list[i] >= v.tokenizer->vocabulary - 2;
  assert_int_equal(specials, 4);
  kp_masked_ids_clear(&list);
  kp_tokenizer_destroy(v.tokenizer);
}

static void test_llama3(void **state) {
  (void)state;
  static const char *const marks[] = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                                      "<|eot_id|>"};
  vocabulary v = {0}, without = {0};
  kp_error error = {0};
  make_vocabulary(&v, marks, 4);
  make_vocabulary(&without, chatml_marks, 2);
  check_ok(kp_template_check(KP_TEMPLATE_LLAMA3, v.tokenizer, &error), &error);
  check_written(&v, KP_TEMPLATE_LLAMA3, "User: hi\nAssistant: ho\nTool: t\nAssistant: x", 1000,
                KP_WRITTEN_WHOLE,
                "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n[ho<|eot_id|>]"
                "<|start_header_id|>ipython<|end_header_id|>\n\nt<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n[x<|eot_id|>]");
  assert_int_equal(kp_template_check(KP_TEMPLATE_LLAMA3, without.tokenizer, &error), KP_ERR_INPUT);
  assert_non_null(strstr(error.message, "<|begin_of_text|>"));
  check_ok(kp_template_check(KP_TEMPLATE_CHATML, without.tokenizer, &error), &error);
  kp_tokenizer_destroy(v.tokenizer);
  kp_tokenizer_destroy(without.tokenizer);
}

static void test_plain(void **state) {
  (void)state;
  vocabulary v = {0};
  make_vocabulary(&v, chatml_marks, 2);
  check_written(&v, KP_TEMPLATE_PLAIN, talk, 1000, KP_WRITTEN_WHOLE,
                "System: be.\nUser: hi\nAssistant:[ hello you\n]User: so\nAssistant:[ bye\n]");
  v.tokenizer->end = kp_tokenizer_special(v.tokenizer, "<|im_end|>");
  check_written(
      &v, KP_TEMPLATE_PLAIN, talk, 1000, KP_WRITTEN_WHOLE,
      "System: be.\nUser: hi\nAssistant:[ hello you<|im_end|>]\nUser: so\nAssistant:[ bye<|im_end|>]\n");
  kp_tokenizer_destroy(v.tokenizer);
}

static void test_too_little_room(void **state) {
  (void)state;
  vocabulary v = {0};
  make_vocabulary(&v, NULL, 0);
  const char *two = "User: hi\nAssistant: ho\nUser: a\nAssistant: b", *one = "User: hi\nAssistant:[ ho\n]",
             *all = "User: hi\nAssistant:[ ho\n]User: a\nAssistant:[ b\n]";
  check_written(&v, KP_TEMPLATE_PLAIN, two, 44, KP_WRITTEN_WHOLE, all);
  for (size_t room = 23; room < 44; room++)
    check_written(&v, KP_TEMPLATE_PLAIN, two, room, KP_WRITTEN_SHORTER, one);
  check_written(&v, KP_TEMPLATE_PLAIN, two, 22, KP_WRITTEN_NOTHING, "");
  /* A turn that has no room anywhere is cut, one that would have it alone is not. */
  check_written(&v, KP_TEMPLATE_PLAIN, "User: hi\nAssistant: abcdefghijklmnopq", 24, KP_WRITTEN_CUT,
                "User: hi\nAssistant:[ abcd]");
  check_written(&v, KP_TEMPLATE_PLAIN, "User: abcdefghijkl\nAssistant: abcdefghijklm", 30, KP_WRITTEN_NOTHING,
                "");
  check_written(&v, KP_TEMPLATE_PLAIN, "User: hi\nAssistant: abcdefghijklmnopq", 19, KP_WRITTEN_NOTHING, "");
  check_written(&v, KP_TEMPLATE_PLAIN, "User: hi", 100, KP_WRITTEN_NOTHING, "");
  kp_tokenizer_destroy(v.tokenizer);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_chatml), cmocka_unit_test(test_words_are_words), cmocka_unit_test(test_llama3),
      cmocka_unit_test(test_plain),  cmocka_unit_test(test_too_little_room),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
