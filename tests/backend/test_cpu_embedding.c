/* Embeddings on every instruction set. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "support/isa.h"
#include "support/kernel.h"

typedef struct shape {
  int rows, channels, vocabulary, positions;
} shape;

static const shape shapes[] = {
    {1, 1, 1, 1}, {3, 17, 5, 3}, {64, 65, 7, 16}, {65, 63, 1000, 65}, {1000, 64, 50, 100}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static int32_t *make_indices(int rows, int limit, int step) {
  int32_t *index = malloc((size_t)rows * sizeof *index);
  for (int n = 0; n < rows; n++) index[n] = (int32_t)((int64_t)n * step % limit);
  return index;
}

static void check_forward(const kp_test_isa *isa, shape s, const int32_t *tokens, const int32_t *positions,
                          int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const int count = s.rows * s.channels;
  float *table = kp_test_uniform(s.vocabulary * s.channels, 1, 1), *y = kp_test_unwritten(count);
  float *places = kp_test_uniform(s.positions * s.channels, 1, 2);
  double *expected = malloc((size_t)count * sizeof *expected);
  table[0] = NAN;
  for (int i = 0; i < count; i++) {
    const int n = i / s.channels, c = i % s.channels;
    expected[i] = (double)table[tokens[n] * s.channels + c];
    if (positions != NULL) expected[i] += (double)places[positions[n] * s.channels + c];
  }
  kp_test_kernel_begin(&kernel, KP_OP_EMBEDDING, NULL);
  kp_test_input(&kernel, tokens, KP_TYPE_INT32, 1, s.rows);
  kp_test_input(&kernel, table, KP_TYPE_REAL, 2, s.vocabulary, s.channels);
  if (positions != NULL) kp_test_input(&kernel, positions, KP_TYPE_INT32, 1, s.rows);
  if (positions != NULL) kp_test_input(&kernel, places, KP_TYPE_REAL, 2, s.positions, s.channels);
  kp_test_output(&kernel, y, KP_TYPE_REAL, 2, s.rows, s.channels);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("embedding", isa->name, y, expected, count, 1e-7, 0);
  free(table);
  free(places);
  free(y);
  free(expected);
}

static double *as_double(const float *x, int count) {
  double *y = malloc((size_t)count * sizeof *y);
  for (int i = 0; i < count; i++) y[i] = (double)x[i];
  return y;
}

/* Gradients are added to what is there, and are the same bits on any number of threads. */
static void check_backward(const kp_test_isa *isa, shape s, const int32_t *tokens, const int32_t *positions,
                           int threads) {
  kp_error error = {0};
  kp_test_kernel kernel;
  const int table_count = s.vocabulary * s.channels, place_count = s.positions * s.channels;
  float *g = kp_test_uniform(s.rows * s.channels, 1, 3);
  float *g_table = kp_test_uniform(table_count, 1, 4), *g_places = kp_test_uniform(place_count, 1, 5);
  double *sum_table = as_double(g_table, table_count), *sum_places = as_double(g_places, place_count);
  for (int i = 0; i < s.rows * s.channels; i++) {
    const int n = i / s.channels, c = i % s.channels;
    sum_table[tokens[n] * s.channels + c] += (double)g[i];
    if (positions != NULL) sum_places[positions[n] * s.channels + c] += (double)g[i];
  }
  kp_test_kernel_begin(&kernel, KP_OP_EMBEDDING_BACKWARD, NULL);
  kp_test_input(&kernel, tokens, KP_TYPE_INT32, 1, s.rows);
  kp_test_input(&kernel, g, KP_TYPE_REAL, 2, s.rows, s.channels);
  if (positions != NULL) kp_test_input(&kernel, positions, KP_TYPE_INT32, 1, s.rows);
  kp_test_output(&kernel, g_table, KP_TYPE_REAL, 2, s.vocabulary, s.channels);
  if (positions != NULL) kp_test_output(&kernel, g_places, KP_TYPE_REAL, 2, s.positions, s.channels);
  check_ok(kp_test_run(&kernel, isa->backend, threads, &error), &error);
  kp_test_close("embedding_backward", isa->name, g_table, sum_table, table_count, 1e-6, 1);
  kp_test_close("embedding_backward positions", isa->name, g_places, sum_places, place_count, 1e-6, 1);
  float *alone = kp_test_uniform(table_count, 1, 4);
  kernel.call.output[0] = alone;
  check_ok(kp_test_run(&kernel, isa->backend, 1, &error), &error);
  assert_memory_equal(alone, g_table, (size_t)table_count * sizeof *alone);
  free(alone);
  free(g);
  free(g_table);
  free(g_places);
  free(sum_table);
  free(sum_places);
}

static void test_against_loops(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int s = 0; s < SHAPES; s++) {
    int32_t *tokens = make_indices(shapes[s].rows, shapes[s].vocabulary, 7919);
    int32_t *positions = make_indices(shapes[s].rows, shapes[s].positions, 1);
    for (int i = 0; i < isas; i++)
      for (int threads = 1; threads <= 3; threads++) {
        check_forward(&isa[i], shapes[s], tokens, positions, threads);
        check_forward(&isa[i], shapes[s], tokens, NULL, threads);
        check_backward(&isa[i], shapes[s], tokens, positions, threads);
        check_backward(&isa[i], shapes[s], tokens, NULL, threads);
      }
    free(tokens);
    free(positions);
  }
}

static kp_status embed(const kp_test_isa *isa, const int32_t tokens[20], const int32_t positions[20],
                       bool backward, kp_error *error) {
  kp_test_kernel kernel;
  float table[8] = {0}, places[6] = {0}, y[40] = {0};
  kp_test_kernel_begin(&kernel, backward ? KP_OP_EMBEDDING_BACKWARD : KP_OP_EMBEDDING, NULL);
  kp_test_input(&kernel, tokens, KP_TYPE_INT32, 1, 20);
  if (backward)
    kp_test_input(&kernel, y, KP_TYPE_REAL, 2, 20, 2);
  else
    kp_test_input(&kernel, table, KP_TYPE_REAL, 2, 4, 2);
  kp_test_input(&kernel, positions, KP_TYPE_INT32, 1, 20);
  if (!backward) kp_test_input(&kernel, places, KP_TYPE_REAL, 2, 3, 2);
  if (backward) kp_test_output(&kernel, table, KP_TYPE_REAL, 2, 4, 2);
  if (backward)
    kp_test_output(&kernel, places, KP_TYPE_REAL, 2, 3, 2);
  else
    kp_test_output(&kernel, y, KP_TYPE_REAL, 2, 20, 2);
  return kp_test_run(&kernel, isa->backend, 2, error);
}

static void expect_refusal(const kp_test_isa *isa, const int32_t tokens[20], const int32_t positions[20],
                           bool backward, const char *words) {
  kp_error error = {0};
  assert_int_equal(embed(isa, tokens, positions, backward, &error), KP_ERR_INPUT);
  if (strstr(error.message, words) == NULL) fail_msg("'%s' does not say '%s'", error.message, words);
}

static void test_indices_outside_are_named(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int i = 0; i < isas; i++)
    for (int backward = 0; backward < 2; backward++) {
      int32_t tokens[20] = {0, 1, 2, 3}, positions[20] = {0, 1, 2};
      kp_error error = {0};
      check_ok(embed(&isa[i], tokens, positions, backward != 0, &error), &error);
      tokens[18] = 4;
      expect_refusal(&isa[i], tokens, positions, backward != 0, "row 18 has token 4");
      tokens[5] = -1;
      expect_refusal(&isa[i], tokens, positions, backward != 0, "row 5 has token -1");
      tokens[5] = tokens[18] = 0;
      positions[19] = 3;
      expect_refusal(&isa[i], tokens, positions, backward != 0, "row 19 has position 3");
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_loops),
      cmocka_unit_test(test_indices_outside_are_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
