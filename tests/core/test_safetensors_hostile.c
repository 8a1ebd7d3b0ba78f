/* Files that lie: each is refused with words that say what is wrong. */
#include "support/check_fails.h"
#include "support/temporary.h"
#include "core/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { DATA_SIZE = 64 };

/* A file in memory with that header and DATA_SIZE bytes of data; the length
 * field is `stated`, or right when `stated` is negative. */
static unsigned char *build(const char *header, size_t header_size, int64_t stated, size_t *size) {
  uint64_t length = stated < 0 ? header_size : (uint64_t)stated;
  *size = sizeof length + header_size + DATA_SIZE;
  unsigned char *bytes = malloc(*size);
  assert_non_null(bytes);
  memcpy(bytes, &length, sizeof length);
  memcpy(bytes + sizeof length, header, header_size);
  memset(bytes + sizeof length + header_size, 0x2a, DATA_SIZE);
  return bytes;
}

static kp_status parse_header(const char *header, int64_t stated, kp_safetensors **file, kp_error *error) {
  size_t size = 0;
  unsigned char *bytes = build(header, strlen(header), stated, &size);
  kp_status status = kp_safetensors_parse(bytes, size, "evil", file, error);
  if (status == KP_OK) {
    /* The entries point into the bytes, which end here: only the number of them is looked at. */
    assert_non_null(*file);
    kp_safetensors_close(*file);
  } else {
    assert_null(*file);
  }
  free(bytes);
  return status;
}

#define TENSOR(dtype, shape, offsets)                                                                        \
  "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static const struct {
  const char *header;
  const char *words;
} refused[] = {
    /* the JSON itself */
    {"", "does not begin with '{'"},
    {"[]", "does not begin with '{'"},
    {"   {}", "does not begin with '{'"},
    {"{", "not valid JSON"},
    {"{}{}", "not valid JSON"},
    {"{\"t\":}", "not valid JSON"},
    {"{\"\\u0000\":1}", "not valid JSON"},
    {"{\"\xff\":1}", "not valid JSON"},
    {"{\"a\":[[[[[[[[[[[[1]]]]]]]]]]]]}", "nested too deep"},
    {"{\"a\":{\"a\":{\"a\":{\"a\":{}}}}}", "nested too deep"},
    {"{\"t\":1,\"t\":2}", "duplicate"},
    {"{\"t\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "duplicate"},
    /* metadata */
    {"{\"__metadata__\":[]}", "'__metadata__'"},
    {"{\"__metadata__\":{\"a\":1}}", "not a text"},
    /* descriptions */
    {"{\"t\":[]}", "not described by a JSON object"},
    {"{\"t\":{}}", "no 'dtype'"},
    {"{\"t\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", "no 'dtype'"},
    {TENSOR("F33", "[1]", "[0,4]"), "dtype 'F33'"},
    {TENSOR("f32", "[1]", "[0,4]"), "dtype 'f32'"},
    {"{\"t\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", "shape of tensor 't'"},
    {TENSOR("U8", "4", "[0,4]"), "shape of tensor 't'"},
    {TENSOR("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), "at most 8"},
    {TENSOR("U8", "[-1]", "[0,1]"), "negative"},
    {TENSOR("U8", "[-1,-1]", "[0,1]"), "negative"},
    {TENSOR("U8", "[1.0]", "[0,1]"), "not whole"},
    {TENSOR("U8", "[\"1\"]", "[0,1]"), "not whole"},
    {TENSOR("U8", "[9223372036854775808]", "[0,1]"), "not valid JSON"},
    {TENSOR("F32", "[4611686018427387904]", "[0,0]"), "too large"},
    {TENSOR("U8", "[4294967296,4294967296]", "[0,0]"), "too large"},
    {TENSOR("F32", "[0,4294967296,4294967296]", "[0,0]"), "too large"},
    /* offsets */
    {"{\"t\":{\"dtype\":\"U8\",\"shape\":[1]}}", "'data_offsets'"},
    {TENSOR("U8", "[1]", "[0]"), "'data_offsets'"},
    {TENSOR("U8", "[1]", "[0,1,2]"), "'data_offsets'"},
    {TENSOR("U8", "[1]", "[0.0,1.0]"), "'data_offsets'"},
    {TENSOR("U8", "[1]", "{\"0\":0}"), "'data_offsets'"},
    {TENSOR("U8", "[1]", "[-1,0]"), "cannot be"},
    {TENSOR("U8", "[1]", "[2,1]"), "cannot be"},
    {TENSOR("U8", "[65]", "[0,65]"), "cut short"},
    {TENSOR("U8", "[1]", "[64,65]"), "cut short"},
    {TENSOR("U8", "[1]", "[9223372036854775806,9223372036854775807]"), "cut short"},
    {TENSOR("F32", "[4]", "[0,4]"), "need 16"},
    {TENSOR("F32", "[]", "[0,0]"), "need 4"},
    {TENSOR("F32", "[0]", "[0,4]"), "need 0"},
    /* overlaps */
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
     "'a' and 'b' of 'evil' share bytes"},
    {"{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[4,6]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}",
     "'a' and 'b' of 'evil' share bytes"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"e\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
     "share bytes"},
};

static void test_hostile_headers(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
    kp_error error = {0};
    kp_safetensors *file = NULL;
    kp_status status = parse_header(refused[i].header, -1, &file, &error);
    if (status == KP_OK) fail_msg("accepted: %s", refused[i].header);
    if (strstr(error.message, refused[i].words) == NULL || strstr(error.message, "'evil'") == NULL)
      fail_msg("%s: '%s' lacks '%s'", refused[i].header, error.message, refused[i].words);
  }
}

static const char *const accepted[] = {
    "{}",
    "{}      ",
    "{\"__metadata__\":{}}",
    TENSOR("F64", "[]", "[3,11]"),  /* unaligned */
    TENSOR("U8", "[0]", "[64,64]"), /* empty at the very end */
    TENSOR("U8", "[1,1,1,1,1,1,1,64]", "[0,64]"),
    "{\"t\":{\"shape\":[1],\"note\":\"x\",\"data_offsets\":[9,10],\"dtype\":\"BOOL\"}}",
    /* a hole, and neighbours that touch */
    "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[40,44]},"
    "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[44,48]},"
    "\"c\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
};

static void test_odd_but_good_headers(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; i++) {
    kp_error error = {0};
    kp_safetensors *file = NULL;
    if (parse_header(accepted[i], -1, &file, &error) != KP_OK) fail_msg("%s: %s", accepted[i], error.message);
  }
}

static void test_hostile_lengths(void **state) {
  (void)state;
  kp_error error = {0};
  kp_safetensors *file = NULL;
  check_fails(parse_header("{}", INT64_MAX, &file, &error), &error, KP_ERR_INPUT, "above the limit");
  check_fails(parse_header("{}", KP_SAFETENSORS_MAX_HEADER + 1, &file, &error), &error, KP_ERR_INPUT,
              "above the limit");
  check_fails(parse_header("{}", KP_SAFETENSORS_MAX_HEADER, &file, &error), &error, KP_ERR_INPUT,
              "cut short");
  check_fails(parse_header("{}", 2 + DATA_SIZE + 1, &file, &error), &error, KP_ERR_INPUT, "cut short");
  check_fails(parse_header("{}", 0, &file, &error), &error, KP_ERR_INPUT, "does not begin");
  check_fails(parse_header("{}", 1, &file, &error), &error, KP_ERR_INPUT, "not valid JSON");
  unsigned char all_ones[8];
  memset(all_ones, 0xff, sizeof all_ones);
  check_fails(kp_safetensors_parse(all_ones, 8, "evil", &file, &error), &error, KP_ERR_INPUT,
              "above the limit");
  check_fails(kp_safetensors_parse(all_ones, 7, "evil", &file, &error), &error, KP_ERR_INPUT,
              "7 bytes, too few");
  check_fails(kp_safetensors_parse(all_ones, 0, "evil", &file, &error), &error, KP_ERR_INPUT,
              "0 bytes, too few");
}

/* Every proper beginning of a good file is refused. */
static void test_truncated_files(void **state) {
  (void)state;
  const char header[] = TENSOR("U8", "[64]", "[0,64]");
  size_t size = 0;
  unsigned char *bytes = build(header, sizeof header - 1, -1, &size);
  kp_error error = {0};
  kp_safetensors *file = NULL;
  check_ok(kp_safetensors_parse(bytes, size, "whole", &file, &error), &error);
  kp_safetensors_close(file);
  for (size_t cut = 0; cut < size; cut++) {
    /* A copy that ends where its memory ends: the address sanitizer sees reads beyond the cut. */
    unsigned char *part = malloc(cut + 1);
    assert_non_null(part);
    memcpy(part + 1, bytes, cut);
    assert_int_equal(kp_safetensors_parse(part + 1, cut, "part", &file, &error), KP_ERR_INPUT);
    assert_null(file);
    free(part);
  }
  free(bytes);
}

static void test_long_names_fit_the_message(void **state) {
  (void)state;
  kp_error error = {0};
  kp_safetensors *file = NULL;
  char header[5000] = "{\"";
  memset(header + 2, 'n', 4000);
  strcpy(header + 4002, "\":{\"dtype\":\"X\"}}");
  check_fails(parse_header(header, -1, &file, &error), &error, KP_ERR_UNSUPPORTED,
              "convert it to F32 or BF16");
}

static void test_unaligned_data_is_read(void **state) {
  (void)state;
  kp_error error = {0};
  kp_safetensors *file = NULL;
  const char header[] = TENSOR("F64", "[2]", "[3,19]");
  size_t size = 0;
  unsigned char *bytes = build(header, sizeof header - 1, -1, &size);
  const double values[2] = {0.1, -7};
  memcpy(bytes + 8 + sizeof header - 1 + 3, values, sizeof values);
  check_ok(kp_safetensors_parse(bytes, size, "odd", &file, &error), &error);
  double doubles[2];
  float floats[2];
  check_ok(kp_safetensors_read(kp_safetensors_find(file, "t"), KP_F64, doubles, &error), &error);
  check_ok(kp_safetensors_read(kp_safetensors_find(file, "t"), KP_F32, floats, &error), &error);
  assert_memory_equal(doubles, values, sizeof values);
  assert_true(floats[0] == 0.1f && floats[1] == -7.0f);
  kp_safetensors_close(file);
  free(bytes);
}

/* Types that the format has and kappa does not. */
static void test_types_that_are_not_known(void **state) {
  static const char *const names[] = {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "C64", "U64"};
  (void)state;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    kp_error error = {0};
    kp_safetensors *file = NULL;
    char header[128], words[64];
    size_t size = 0;
    snprintf(header, sizeof header, TENSOR("%s", "[1]", "[0,1]"), names[i]);
    snprintf(words, sizeof words, "tensor 't' of 'odd' has the dtype '%s'", names[i]);
    unsigned char *bytes = build(header, strlen(header), -1, &size);
    check_fails(kp_safetensors_parse(bytes, size, "odd", &file, &error), &error, KP_ERR_UNSUPPORTED, words);
    assert_null(file);
    free(bytes);
  }
}

static void test_things_that_are_no_files(void **state) {
  kp_error error = {0};
  kp_safetensors *file = NULL;
  const char *path = temporary_path(state, "model.safetensors");
  check_fails(kp_safetensors_open(path, &file, &error), &error, KP_ERR_IO, "does not exist");
  check_fails(kp_safetensors_open(temporary_path(state, ""), &file, &error), &error, KP_ERR_IO,
              "is a folder");
  temporary_write(path, "", 0);
  check_fails(kp_safetensors_open(path, &file, &error), &error, KP_ERR_INPUT, "is empty");
  const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
  temporary_write(path, pointer, sizeof pointer - 1);
  check_fails(kp_safetensors_open(path, &file, &error), &error, KP_ERR_INPUT, "git lfs pull");
  const char text[] = "PK\003\004 a zip file, say a PyTorch checkpoint";
  temporary_write(path, text, sizeof text - 1);
  check_fails(kp_safetensors_open(path, &file, &error), &error, KP_ERR_INPUT, "not a safetensors file");
  assert_null(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_hostile_headers),
      cmocka_unit_test(test_odd_but_good_headers),
      cmocka_unit_test(test_hostile_lengths),
      cmocka_unit_test(test_truncated_files),
      cmocka_unit_test(test_long_names_fit_the_message),
      cmocka_unit_test(test_unaligned_data_is_read),
      cmocka_unit_test(test_types_that_are_not_known),
      cmocka_unit_test_setup_teardown(test_things_that_are_no_files, temporary_create, temporary_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
