/* Packing: nothing is lost or doubled, rows are full, and every label is the right one. */
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "data/packed.h"
#include "support/check.h"

enum { LENGTH = 32, END = 1000000, PAD = -7, NONE = -1 };

static const kp_packed_marks marks = {.pad = PAD, .end = END, .ignore = NONE};

/* The sequence's token number i is i. */
static void copy_numbers(const void *from, int64_t offset, int64_t count, int32_t *out) {
  (void)from;
  for (int64_t i = 0; i < count; i++) out[i] = (int32_t)(offset + i);
}

static const kp_token_source numbers = {copy_numbers, NULL};

/* Documents of 1 … longest tokens, one behind the other. */
static kp_span *random_documents(uint64_t seed, int64_t count, int64_t longest, bool closed) {
  kp_span *spans = malloc((size_t)count * sizeof *spans);
  assert_non_null(spans);
  int64_t offset = 0;
  for (int64_t i = 0; i < count; i++) {
    const int64_t size =
        1 + (int64_t)kp_random_below(seed, KP_RANDOM_GENERIC, 0, (uint64_t)i, (uint64_t)longest);
    spans[i] = (kp_span){.offset = offset, .count = size, .closed = closed};
    offset += size;
  }
  return spans;
}

/* The label of token `at` of the document that holds it. */
static int32_t label_of(const kp_span *spans, int64_t count, int64_t at) {
  for (int64_t i = 0; i < count; i++)
    if (at >= spans[i].offset && at < spans[i].offset + spans[i].count)
      return at + 1 < spans[i].offset + spans[i].count ? (int32_t)at + 1 : END;
  fail_msg("token %lld is of no document", (long long)at);
  return 0;
}

/* Every row's pieces are tokens of one document each, with their labels and numbers; counts each token. */
static void check_rows(const kp_packed *packed, const kp_span *spans, int64_t count, int *seen) {
  int32_t tokens[LENGTH], labels[LENGTH], documents[LENGTH], positions[LENGTH];
  for (int64_t row = 0; row < packed->count; row++) {
    kp_packed_fill(packed, row, LENGTH, marks, numbers, tokens, labels, documents, positions);
    for (int t = 0; t < LENGTH; t++) {
      if (documents[t] < 0) {
        assert_true(tokens[t] == PAD && labels[t] == NONE);
        continue;
      }
      seen[tokens[t]]++;
      assert_int_equal(labels[t], label_of(spans, count, tokens[t]));
      const bool first = t == 0 || documents[t] != documents[t - 1];
      assert_int_equal(positions[t], first ? 0 : positions[t - 1] + 1);
      if (!first) assert_int_equal(tokens[t], tokens[t - 1] + 1);
      if (first && t > 0) assert_int_equal(documents[t], documents[t - 1] + 1);
    }
  }
}

static int64_t total_of(const kp_span *spans, int64_t count) {
  return spans[count - 1].offset + spans[count - 1].count;
}

/* In several calls, some rows taken after each. */
static void test_nothing_is_lost(void **state) {
  (void)state;
  enum { COUNT = 400, CALLS = 8 };
  for (int closed = 0; closed < 2; closed++)
    for (uint64_t seed = 0; seed < 8; seed++) {
      kp_error error = {0};
      kp_packer *packer;
      kp_packed packed = {0};
      kp_span *spans = random_documents(seed, COUNT, seed % 2 == 0 ? 20 : 90, closed);
      int *seen = calloc((size_t)total_of(spans, COUNT), sizeof *seen);
      assert_non_null(seen);
      check_ok(kp_packer_create(KP_PACKING_EXACT, 3, LENGTH, &packer, &error), &error);
      for (int call = 0; call < CALLS; call++) {
        check_ok(kp_packer_add(packer, spans + call * COUNT / CALLS, COUNT / CALLS, &error), &error);
        check_ok(kp_packer_take(packer, 3, &packed, &error), &error);
      }
      check_ok(kp_packer_take(packer, INT64_MAX, &packed, &error), &error);
      assert_int_equal(kp_packer_waiting(packer, NULL, 0), 0);
      if (!closed) check_rows(&packed, spans, COUNT, seen);
      int64_t tokens = 0;
      for (int64_t i = 0; i < packed.piece_count; i++) tokens += packed.pieces[i].size;
      assert_int_equal(tokens, packed.tokens);
      assert_int_equal(tokens, total_of(spans, COUNT) - (closed ? COUNT : 0));
      for (int64_t i = 0; i < total_of(spans, COUNT) && !closed; i++) assert_int_equal(seen[i], 1);
      kp_packer_destroy(packer);
      kp_packed_clear(&packed);
      free(spans);
      free(seen);
    }
}

/* A document that brings its end token predicts it and does not read it. */
static void test_closed_documents(void **state) {
  (void)state;
  kp_error error = {0};
  kp_packer *packer;
  kp_packed packed = {0};
  int32_t tokens[LENGTH], labels[LENGTH], documents[LENGTH];
  const kp_span spans[] = {{0, 5, true}, {5, 1, true}, {6, LENGTH + 3, true}};
  check_ok(kp_packer_create(KP_PACKING_EXACT, 1, LENGTH, &packer, &error), &error);
  check_ok(kp_packer_add(packer, spans, 3, &error), &error);
  check_ok(kp_packer_take(packer, 9, &packed, &error), &error);
  assert_int_equal(packed.count, 2);
  kp_packed_fill(&packed, 0, LENGTH, marks, numbers, tokens, labels, documents, NULL);
  assert_int_equal(tokens[LENGTH - 1], 6 + LENGTH - 1);
  assert_int_equal(labels[LENGTH - 1], 6 + LENGTH);
  kp_packed_fill(&packed, 1, LENGTH, marks, numbers, tokens, labels, documents, NULL);
  static const int32_t expected[] = {0, 1, 2, 3, 38, 39, PAD}, next[] = {1, 2, 3, 4, 39, 40, NONE};
  assert_memory_equal(tokens, expected, sizeof expected);
  assert_memory_equal(labels, next, sizeof next);
  kp_packer_destroy(packer);
  kp_packed_clear(&packed);
}

/* Best fit: 20 and 12 share a row, 18 and 14 the other, 3 waits. */
static void test_best_fit(void **state) {
  (void)state;
  kp_error error = {0};
  kp_packer *packer;
  kp_packed packed = {0};
  int64_t sizes[4];
  const kp_span spans[] = {{0, 14, false}, {14, 20, false}, {34, 12, false}, {46, 18, false}, {64, 3, false}};
  check_ok(kp_packer_create(KP_PACKING_EXACT, 1, LENGTH, &packer, &error), &error);
  check_ok(kp_packer_add(packer, spans, 5, &error), &error);
  assert_int_equal(kp_packer_waiting(packer, sizes, 4), 3);
  assert_true(sizes[0] == LENGTH && sizes[1] == LENGTH && sizes[2] == 3);
  check_ok(kp_packer_take(packer, 2, &packed, &error), &error);
  assert_int_equal(packed.count, 2);
  assert_int_equal(packed.tokens, 2 * LENGTH);
  assert_int_equal(kp_packer_waiting(packer, NULL, 0), 1);
  kp_packer_destroy(packer);
  kp_packed_clear(&packed);
}

/* Documents of 1 … 20 tokens fill rows of 32 to 98 %. */
static void test_rows_are_full(void **state) {
  (void)state;
  enum { COUNT = 3000 };
  kp_error error = {0};
  kp_packer *packer;
  kp_packed packed = {0};
  kp_span *spans = random_documents(3, COUNT, 20, false);
  check_ok(kp_packer_create(KP_PACKING_EXACT, 1, LENGTH, &packer, &error), &error);
  check_ok(kp_packer_add(packer, spans, COUNT, &error), &error);
  check_ok(kp_packer_take(packer, INT64_MAX, &packed, &error), &error);
  assert_true((double)packed.tokens > 0.98 * (double)(packed.count * LENGTH));
  kp_packer_destroy(packer);
  kp_packed_clear(&packed);
  free(spans);
}

/* HELM: tails of long documents are dropped, appended samples lose their first label, the longest their
 * last. */
static void test_helm(void **state) {
  (void)state;
  kp_error error = {0};
  kp_packer *packer;
  kp_packed packed = {0};
  int32_t tokens[LENGTH], labels[LENGTH], documents[LENGTH];
  const kp_span spans[] = {{0, LENGTH + 5, false}, {100, 20, false}, {200, 12, false}};
  check_ok(kp_packer_create(KP_PACKING_HELM, 2, LENGTH, &packer, &error), &error);
  check_ok(kp_packer_add(packer, spans, 3, &error), &error);
  check_ok(kp_packer_take(packer, 2, &packed, &error), &error);
  assert_int_equal(packed.count, 2);
  assert_int_equal(packed.tokens, LENGTH + 20 + 12);
  kp_packed_fill(&packed, 0, LENGTH, marks, numbers, tokens, labels, documents, NULL);
  assert_int_equal(tokens[LENGTH - 1], LENGTH - 1);
  assert_int_equal(labels[LENGTH - 1], NONE);
  kp_packed_fill(&packed, 1, LENGTH, marks, numbers, tokens, labels, documents, NULL);
  assert_true(labels[19] == END && labels[20] == NONE && labels[21] == 202 && labels[31] == END);
  assert_true(documents[19] == 0 && documents[20] == 1);
  kp_packer_destroy(packer);
  kp_packed_clear(&packed);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_nothing_is_lost),
      cmocka_unit_test(test_closed_documents),
      cmocka_unit_test(test_best_fit),
      cmocka_unit_test(test_rows_are_full),
      cmocka_unit_test(test_helm),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
