/* PyTorch files built by hand around a storage "0" of eight float32, 0 to 7: tensors that reach outside, zips
 * that lie, and what a checkpoint's parts are taken for. */
#include "support/check_fails.h"
#include "interchange/torch_file.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct archive {
  unsigned char bytes[16384], directory[2048];
  size_t size, directory_size;
  int count;
} archive;

static void put(unsigned char *bytes, size_t *size, const void *data, size_t count) {
  memcpy(bytes + *size, data, count);
  *size += count;
}

static void put_number(unsigned char *bytes, size_t *size, uint64_t number, size_t width) {
  put(bytes, size, &number, width);
}

/* What local and central headers have in common. */
static void put_common(unsigned char *bytes, size_t *size, const char *name, size_t length, int method) {
  put_number(bytes, size, 20, 2);
  put_number(bytes, size, 0, 2);
  put_number(bytes, size, (uint64_t)method, 2);
  put_number(bytes, size, 0, 8);
  put_number(bytes, size, length, 4);
  put_number(bytes, size, length, 4);
  put_number(bytes, size, strlen(name), 2);
  put_number(bytes, size, 0, 2);
}

static void add_entry(archive *a, const char *name, const void *data, size_t length, int method) {
  const size_t place = a->size;
  put(a->bytes, &a->size, "PK\3\4", 4);
  put_common(a->bytes, &a->size, name, length, method);
  put(a->bytes, &a->size, name, strlen(name));
  put(a->bytes, &a->size, data, length);
  put(a->directory, &a->directory_size, "PK\1\2\0\0", 6);
  put_common(a->directory, &a->directory_size, name, length, method);
  put_number(a->directory, &a->directory_size, 0, 8);
  put_number(a->directory, &a->directory_size, 0, 2);
  put_number(a->directory, &a->directory_size, place, 4);
  put(a->directory, &a->directory_size, name, strlen(name));
  a->count++;
}

static void finish(archive *a) {
  const size_t place = a->size;
  put(a->bytes, &a->size, a->directory, a->directory_size);
  put(a->bytes, &a->size, "PK\5\6\0\0\0\0", 8);
  put_number(a->bytes, &a->size, (uint64_t)a->count, 2);
  put_number(a->bytes, &a->size, (uint64_t)a->count, 2);
  put_number(a->bytes, &a->size, a->directory_size, 4);
  put_number(a->bytes, &a->size, place, 4);
  put_number(a->bytes, &a->size, 0, 2);
}

/* A file with this pickle, but for its first two bytes and its last. */
static kp_status parse(const char *body, size_t size, kp_torch **file, kp_error *error) {
  static archive a;
  static unsigned char pickle[8192];
  float storage[8];
  for (int i = 0; i < 8; i++) storage[i] = (float)i;
  memset(&a, 0, sizeof a);
  size_t length = 0;
  put(pickle, &length, "\x80\x02", 2);
  put(pickle, &length, body, size);
  put(pickle, &length, ".", 1);
  add_entry(&a, "a/data.pkl", pickle, length, 0);
  add_entry(&a, "a/data/0", storage, sizeof storage, 0);
  finish(&a);
  return kp_torch_parse(a.bytes, a.size, "hand.pt", file, error);
}

#define TEXT(size, words) "X" size "\x00\x00\x00" words
/* A tensor: storage "0" of `type` with `count` elements, offset, shape and strides as tuples. */
#define STORAGE(type, key, count)                                                                            \
  "(" TEXT("\x07", "storage") "ctorch\n" type "\n" TEXT("\x01", key) TEXT("\x03", "cpu") "K" count "tQ"
#define TENSOR_OF(storage, offset, shape, strides)                                                           \
  "ctorch._utils\n_rebuild_tensor_v2\n(" storage offset shape strides "\x89}tR"
#define TENSOR(offset, shape, strides) TENSOR_OF(STORAGE("FloatStorage", "0", "\x08"), offset, shape, strides)
/* {"w": tensor} */
#define DICT(tensor) "}" TEXT("\x01", "w") tensor "s"

#define check_refused(body, words)                                                                           \
  do {                                                                                                       \
    kp_error problem = {0};                                                                                  \
    kp_torch *none = NULL;                                                                                   \
    check_fails(parse(body, sizeof(body) - 1, &none, &problem), &problem, KP_ERR_INPUT, words);              \
    assert_null(none);                                                                                       \
  } while (0)

static void test_good_tensors(void **state) {
  static const char body[] = DICT(TENSOR("K\x01", "K\x02K\x03\x86", "K\x01K\x02\x86"));
  kp_error error = {0};
  kp_torch *file = NULL;
  size_t count;
  (void)state;
  check_ok(parse(body, sizeof body - 1, &file, &error), &error);
  const kp_tensors_entry *entry = kp_torch_entries(file, &count);
  float first;
  assert_int_equal(count, 1);
  assert_string_equal(entry->name, "w");
  assert_true(entry->rank == 2 && entry->shape[0] == 2 && entry->shape[1] == 3 && entry->elements == 6);
  assert_true(entry->strides[0] == 1 && entry->strides[1] == 2);
  memcpy(&first, entry->data, sizeof first);
  assert_true(first == 1);
  kp_torch_close(file);
}

static void test_tensors_that_reach_outside(void **state) {
  (void)state;
  check_refused(DICT(TENSOR("K\x01", "K\x08\x85", "K\x01\x85")), "reaches outside of its storage");
  check_refused(DICT(TENSOR("K\x09", "K\x01\x85", "K\x01\x85")), "reaches outside of its storage");
  check_refused(DICT(TENSOR("K\x00", "K\x02K\x02\x86", "K\x07K\x01\x86")), "reaches outside");
  check_refused(DICT(TENSOR("J\xff\xff\xff\xff", "K\x01\x85", "K\x01\x85")), "has no offset");
  check_refused(DICT(TENSOR("K\x07", "K\x02\x85", "J\xff\xff\xff\xff\x85")), "has a size below zero");
  check_refused(DICT(TENSOR("K\x00", "J\xff\xff\xff\xff\x85", "K\x01\x85")), "has a size below zero");
  check_refused(DICT(TENSOR("K\x00", "K\x02K\x02\x86", "K\x01\x85")), "has strides of another rank");
  check_refused(DICT(TENSOR("K\x00", "\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40K\x02\x86", "K\x00K\x00\x86")),
                "has too many elements");
  check_refused(DICT(TENSOR("K\x00", "K\x02\x85", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85")),
                "reaches outside");
  check_refused(DICT(TENSOR("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "K\x02\x85", "K\x01\x85")),
                "reaches outside");
  check_refused(DICT(TENSOR("K\x00", "M\xff\xff\x85", "K\x00\x85")), "is an expanded view");
  check_refused(DICT(TENSOR("K\x00", "(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01t", "K\x01\x85")),
                "more than 8 dimensions");
  check_refused(DICT(TENSOR("K\x00", "N", "K\x01\x85")), "has no shape");
}

static void test_storages_that_lie(void **state) {
  (void)state;
  check_refused(DICT(TENSOR_OF(STORAGE("FloatStorage", "0", "\x09"), "K\x00", "K\x01\x85", "K\x01\x85")),
                "fewer bytes than it says");
  check_refused(DICT(TENSOR_OF(STORAGE("DoubleStorage", "0", "\x08"), "K\x00", "K\x01\x85", "K\x01\x85")),
                "fewer bytes than it says");
  check_refused(DICT(TENSOR_OF(STORAGE("FloatStorage", "1", "\x08"), "K\x00", "K\x01\x85", "K\x01\x85")),
                "is not in the file");
  check_refused(DICT(TENSOR_OF("K\x01", "K\x00", "K\x01\x85", "K\x01\x85")), "has no storage");
  check_refused(DICT(TENSOR_OF("NQ", "K\x00", "K\x01\x85", "K\x01\x85")), "says not which");
  check_refused(DICT("ctorch._utils\n_rebuild_tensor_v2\n)R"), "has no storage");
}

static void test_checkpoints_that_are_none(void **state) {
  (void)state;
  check_refused("}", "holds no tensors");
  check_refused("N", "holds None instead of a dict");
  check_refused("}" TEXT("\x05", "model") "}s", "holds no tensors");
  check_refused("}q\x00" TEXT("\x01", "a") "h\x00s", "nested deeper than 16 levels");
  check_refused("}(" TEXT("\x03", "a.b") TENSOR("K\x00", "K\x01\x85", "K\x01\x85")
                    TEXT("\x01", "a") "}" TEXT("\x01", "b") TENSOR("K\x00", "K\x01\x85", "K\x01\x85") "su",
                "two tensors called 'a.b'");
  check_refused("}" TEXT("\x01", "\xff") TENSOR("K\x00", "K\x01\x85", "K\x01\x85") "s", "no UTF-8 text");
  check_refused("}" TEXT("\x02", "a\0") TENSOR("K\x00", "K\x01\x85", "K\x01\x85") "s", "no UTF-8 text");
}

/* Lists of lists of lists …, which are few values that stand in each other 2^30 times. */
static void test_a_bomb_beside_the_model(void **state) {
  char body[2048] = "}(" TEXT("\x05", "model");
  const size_t front = 2 + 1 + 4 + 5;
  static const char model[] = DICT(TENSOR("K\x00", "K\x01\x85", "K\x01\x85")) TEXT("\x01", "x") "]q\x00";
  kp_error error = {0};
  kp_torch *file = NULL;
  size_t size = front + sizeof model - 1;
  (void)state;
  memcpy(body + front, model, sizeof model - 1);
  for (int i = 0; i < 15; i++) /* ten times the list before */
    size += (size_t)sprintf(body + size, "0](h%ch%ch%ch%ch%ch%ch%ch%ch%ch%ceq%c", i, i, i, i, i, i, i, i, i,
                            i, i + 1);
  body[size++] = 'u';
  check_fails(parse(body, size, &file, &error), &error, KP_ERR_INPUT, "more than 1048576 values");
  assert_null(file);
}

static void test_archives_that_lie(void **state) {
  static archive a;
  static const char good[] = "\x80\x02}.";
  kp_error error = {0};
  kp_torch *file = NULL;
  (void)state;
  memset(&a, 0, sizeof a);
  add_entry(&a, "a/data.pkl", good, 4, 8);
  finish(&a);
  check_fails(kp_torch_parse(a.bytes, a.size, "x.pt", &file, &error), &error, KP_ERR_UNSUPPORTED,
              "compressed");
  memset(&a, 0, sizeof a);
  add_entry(&a, "data.pkl", good, 4, 0);
  finish(&a);
  check_fails(kp_torch_parse(a.bytes, a.size, "x.pt", &file, &error), &error, KP_ERR_INPUT,
              "has no data.pkl");
  memset(&a, 0, sizeof a);
  add_entry(&a, "a/data.pkl", good, 4, 0);
  add_entry(&a, "a/data.pkl", good, 4, 0);
  finish(&a);
  check_fails(kp_torch_parse(a.bytes, a.size, "x.pt", &file, &error), &error, KP_ERR_INPUT, "the same name");
  a.bytes[a.size - 12] = 0xff; /* more entries than the directory has room for */
  check_fails(kp_torch_parse(a.bytes, a.size, "x.pt", &file, &error), &error, KP_ERR_INPUT, "is too short");
  check_fails(kp_torch_parse("PK\3\4", 4, "x.pt", &file, &error), &error, KP_ERR_INPUT, "it is too short");
  check_fails(kp_torch_parse("\x80\x02}.", 4, "x.pkl", &file, &error), &error, KP_ERR_UNSUPPORTED,
              "bare pickle");
  check_fails(kp_torch_parse("text", 4, "x.txt", &file, &error), &error, KP_ERR_INPUT, "no zip archive");
  assert_null(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_good_tensors),
      cmocka_unit_test(test_tensors_that_reach_outside),
      cmocka_unit_test(test_storages_that_lie),
      cmocka_unit_test(test_checkpoints_that_are_none),
      cmocka_unit_test(test_a_bomb_beside_the_model),
      cmocka_unit_test(test_archives_that_lie),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
