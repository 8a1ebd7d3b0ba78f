/* Pickles written by hand: what each opcode gives, and how hostile ones end. */
#include "support/check_fails.h"
#include "interchange/pickle.h"

#include <stdlib.h>

/* A name of module "m" may be used as its own name says. */
static kp_pickle_use use_of(kp_pickle_text module, kp_pickle_text name) {
  if (!kp_pickle_text_is(module, "m")) return KP_PICKLE_REFUSED;
  if (kp_pickle_text_is(name, "mention")) return KP_PICKLE_MENTIONED;
  if (kp_pickle_text_is(name, "mapping")) return KP_PICKLE_MAPPING;
  if (kp_pickle_text_is(name, "object")) return KP_PICKLE_OBJECT;
  return kp_pickle_text_is(name, "call") ? KP_PICKLE_CALLED : KP_PICKLE_REFUSED;
}

static kp_status parse(const char *bytes, size_t size, kp_pickle **pickle, kp_error *error) {
  return kp_pickle_parse(bytes, size, "test", use_of, pickle, error);
}

/* The value of a pickle of protocol 2 without its first two bytes and its last. */
#define PICKLE(body) "\x80\x02" body "."
#define check_value(pickle, body)                                                                            \
  do {                                                                                                       \
    kp_error problem = {0};                                                                                  \
    check_ok(parse(PICKLE(body), sizeof PICKLE(body) - 1, &(pickle), &problem), &problem);                   \
  } while (0)
#define check_refused(body, status, words)                                                                   \
  do {                                                                                                       \
    kp_error problem = {0};                                                                                  \
    kp_pickle *none = NULL;                                                                                  \
    check_fails(parse(PICKLE(body), sizeof PICKLE(body) - 1, &none, &problem), &problem, status, words);     \
    assert_null(none);                                                                                       \
  } while (0)

static void test_numbers(void **state) {
  (void)state;
  kp_pickle *pickle;
  check_value(pickle, "(K\x05M\x01\x02J\xfe\xff\xff\xff\x8a\x00\x8a\x01\xff\x8a\x05\x00\x00\x00\x00\x01"
                      "G\x3f\xf8\x00\x00\x00\x00\x00\x00\x88\x89Nt");
  const kp_pickle_value *root = kp_pickle_root(pickle);
  static const int64_t integers[] = {5, 513, -2, 0, -1, INT64_C(1) << 32};
  assert_int_equal(root->kind, KP_PICKLE_TUPLE);
  assert_int_equal(root->list.count, 10);
  for (size_t i = 0; i < 6; i++) {
    assert_int_equal(root->list.items[i]->kind, KP_PICKLE_INTEGER);
    assert_int_equal(root->list.items[i]->integer, integers[i]);
  }
  assert_true(root->list.items[6]->kind == KP_PICKLE_REAL && root->list.items[6]->real == 1.5);
  assert_int_equal(root->list.items[7]->integer, 1);
  assert_int_equal(root->list.items[8]->integer, 0);
  assert_int_equal(root->list.items[9]->kind, KP_PICKLE_NONE);
  kp_pickle_destroy(pickle);
  check_value(pickle, "\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01");
  assert_int_equal(kp_pickle_root(pickle)->kind, KP_PICKLE_WIDE);
  kp_pickle_destroy(pickle);
}

static void test_texts_and_containers(void **state) {
  (void)state;
  kp_pickle *pickle;
  check_value(pickle, "}(X\x01\x00\x00\x00"
                      "a]q\x00(K\x01K\x02"
                      "eX\x01\x00\x00\x00"
                      "bh\x00h\x00\x86uX\x01\x00\x00\x00"
                      "cC\x02xys");
  const kp_pickle_value *root = kp_pickle_root(pickle);
  assert_int_equal(root->kind, KP_PICKLE_DICT);
  assert_int_equal(root->list.count, 6);
  assert_true(kp_pickle_is_text(root->list.items[0], "a"));
  const kp_pickle_value *list = root->list.items[1];
  assert_true(list->kind == KP_PICKLE_LIST && list->list.count == 2);
  assert_true(root->list.items[3]->kind == KP_PICKLE_TUPLE && root->list.items[3]->list.items[1] == list);
  assert_int_equal(root->list.items[5]->kind, KP_PICKLE_BYTES);
  kp_pickle_destroy(pickle);
}

static void test_calls_are_values(void **state) {
  (void)state;
  kp_pickle *pickle;
  char words[64];
  check_value(pickle, "cm\ncall\nK\x07\x85R");
  const kp_pickle_value *root = kp_pickle_root(pickle);
  assert_int_equal(root->kind, KP_PICKLE_CALL);
  assert_true(kp_pickle_is_global(root->call.callee, "m", "call"));
  assert_int_equal(root->call.arguments->list.items[0]->integer, 7);
  kp_pickle_describe(root, words, sizeof words);
  assert_string_equal(words, "a call of m.call");
  kp_pickle_destroy(pickle);
  check_value(pickle, "\x8c\x01m\x8c\x04"
                      "call\x93)\x81N\x62"); /* by STACK_GLOBAL, NEWOBJ, BUILD */
  assert_int_equal(kp_pickle_root(pickle)->kind, KP_PICKLE_CALL);
  kp_pickle_destroy(pickle);
  check_value(pickle, "K\x07Q");
  assert_int_equal(kp_pickle_root(pickle)->reference->integer, 7);
  kp_pickle_destroy(pickle);
}

static void test_mappings_and_objects(void **state) {
  (void)state;
  kp_pickle *pickle;
  check_value(pickle, "cm\nmapping\n)RK\x01K\x02s}K\x03K\x04sb");
  assert_int_equal(kp_pickle_root(pickle)->list.count, 2); /* attributes of a dict are no items */
  kp_pickle_destroy(pickle);
  check_value(pickle, "cm\nobject\n)\x81}K\x03K\x04sb");
  assert_int_equal(kp_pickle_root(pickle)->kind, KP_PICKLE_DICT);
  assert_int_equal(kp_pickle_root(pickle)->list.items[1]->integer, 4);
  kp_pickle_destroy(pickle);
}

static void test_names_that_are_refused(void **state) {
  (void)state;
  check_refused("cos\nsystem\n)R", KP_ERR_UNSUPPORTED, "needs the name os.system");
  check_refused("cm\nother\n", KP_ERR_UNSUPPORTED, "needs the name m.other");
  check_refused("\x8c\x02os\x8c\x06system\x93", KP_ERR_UNSUPPORTED, "needs the name os.system");
  check_refused("cm\nmention\n)R", KP_ERR_UNSUPPORTED, "m.mention, called like a function");
  check_refused("cm\nmapping\nN\x85R", KP_ERR_UNSUPPORTED, "m.mapping, called with arguments");
  check_refused("K\x01)R", KP_ERR_UNSUPPORTED, "a whole number, called like a function");
  check_refused("cm\ncall\n]R", KP_ERR_INPUT, "the arguments of a call are no tuple");
}

static void test_opcodes_that_are_refused(void **state) {
  (void)state;
  /* Every byte is an opcode that is known, or one that is refused by its number. */
  for (int opcode = 0; opcode < 256; opcode++) {
    const char bytes[] = {'\x80', 2, (char)opcode, '.'};
    kp_pickle *pickle = NULL;
    kp_error error = {0};
    if (parse(bytes, sizeof bytes, &pickle, &error) != KP_OK) assert_true(error.message[0] != 0);
    kp_pickle_destroy(pickle);
  }
  check_refused("I1\n", KP_ERR_UNSUPPORTED, "has the opcode 0x49 at byte 2");
  check_refused("i__main__\nX\n", KP_ERR_UNSUPPORTED, "has the opcode 0x69");
  check_refused("(o", KP_ERR_UNSUPPORTED, "has the opcode 0x6f");
  check_refused("P1\n", KP_ERR_UNSUPPORTED, "has the opcode 0x50");
  check_refused("\x82\x01", KP_ERR_UNSUPPORTED, "has the opcode 0x82"); /* an extension's number */
  check_refused("\x92", KP_ERR_UNSUPPORTED, "has the opcode 0x92");     /* NEWOBJ_EX */
}

static void test_damage(void **state) {
  (void)state;
  check_refused("", KP_ERR_INPUT, "it does not end with one value");
  check_refused("NN", KP_ERR_INPUT, "it does not end with one value");
  check_refused("N(", KP_ERR_INPUT, "it does not end with one value");
  check_refused("R", KP_ERR_INPUT, "a value is missing");
  check_refused("N(0", KP_ERR_INPUT, "a value is missing"); /* below the mark */
  check_refused("N\x86", KP_ERR_INPUT, "a value is missing");
  check_refused("t", KP_ERR_INPUT, "a mark is missing");
  check_refused("h\x00", KP_ERR_INPUT, "the memo has no such value");
  check_refused("Nr\xff\xff\xff\x7f", KP_ERR_INPUT, "the memo has a gap");
  check_refused("}(Nu", KP_ERR_INPUT, "a key has no value");
  check_refused("NNNs", KP_ERR_INPUT, "no list or dict");
  check_refused("NNa", KP_ERR_INPUT, "no list or dict");
  check_refused("NNb", KP_ERR_INPUT, "attributes are given");
  check_refused("X\xff\xff\xff\xff", KP_ERR_INPUT, "longer than the file");
  check_refused("\x8d\xff\xff\xff\xff\xff\xff\xff\xff", KP_ERR_INPUT, "longer than the file");
  check_refused("cm", KP_ERR_INPUT, "a name has no end");
  check_refused("\x80\x07", KP_ERR_UNSUPPORTED, "has protocol 7");
  kp_error error = {0};
  kp_pickle *pickle = NULL;
  check_fails(parse("\x80\x02K", 3, &pickle, &error), &error, KP_ERR_INPUT, "it ends early");
  check_fails(parse("N.", 2, &pickle, &error), &error, KP_ERR_INPUT, "does not begin like a pickle");
  check_fails(parse("", 0, &pickle, &error), &error, KP_ERR_INPUT, "it ends early");
}

/* A list in itself, and attributes that would be copied over and over. */
static void test_bombs(void **state) {
  (void)state;
  kp_pickle *pickle;
  kp_error error = {0};
  check_value(pickle, "]q\x00h\x00"
                      "a");
  assert_ptr_equal(kp_pickle_root(pickle)->list.items[0], kp_pickle_root(pickle));
  kp_pickle_destroy(pickle);
  static char bomb[40000] = "\x80\x02}q\x00(";
  size_t size = 6;
  while (size < 20000) bomb[size++] = 'N';
  memcpy(bomb + size, "ucm\nobject\nq\x01", 13);
  size += 13;
  while (size + 16 < sizeof bomb) {
    memcpy(bomb + size,
           "0h\x01)\x81h\x00"
           "b",
           8);
    size += 8;
  }
  bomb[size++] = '.';
  check_fails(parse(bomb, size, &pickle, &error), &error, KP_ERR_INPUT, "more items than bytes");
  check_fails(kp_pickle_parse(bomb, KP_PICKLE_MAX_SIZE + 1, "test", use_of, &pickle, &error), &error,
              KP_ERR_INPUT, "above the limit");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_numbers),
      cmocka_unit_test(test_texts_and_containers),
      cmocka_unit_test(test_calls_are_values),
      cmocka_unit_test(test_mappings_and_objects),
      cmocka_unit_test(test_names_that_are_refused),
      cmocka_unit_test(test_opcodes_that_are_refused),
      cmocka_unit_test(test_damage),
      cmocka_unit_test(test_bombs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
