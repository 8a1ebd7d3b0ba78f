/* The cached form of fast attention: a sequence in pieces gives what the whole gives, on every instruction
 * set that this processor has. */
#include "support/check.h"

#include <stdlib.h>
#include <string.h>

#include "support/attention_run.h"

/* Feeds the sequence in pieces of the given lengths and compares with attention over the whole. */
static void check_cached(const attention_kernels *set, const oracle_problem *p, const oracle_result *expected,
                         const int *pieces, int count) {
  enum { SPARE = 3 };
  const int D = p->size, all = (p->heads + 2 * p->kv_heads) * D, width = p->heads * D,
            capacity = p->length + SPARE;
  const size_t cache_count = (size_t)(p->batch * p->kv_heads * capacity * D);
  float *keys = attention_poisoned(cache_count), *values = attention_poisoned(cache_count);
  attention_run whole;
  attention_run_create(&whole, p, true);
  int32_t start = 0;
  for (int piece = 0; piece < count; start += pieces[piece++]) {
    const int T = pieces[piece];
    float *rows = attention_poisoned((size_t)(p->batch * T * all)),
          *out = attention_poisoned((size_t)(p->batch * T * width));
    for (int b = 0; b < p->batch; b++)
      memcpy(rows + b * T * all, whole.input[0] + (b * p->length + start) * all,
             sizeof(float) * (size_t)(T * all));
    kp_attention_arguments arguments = whole.arguments;
    arguments.length = T;
    kp_tensor cache = {.dimensions = 4, .shape = {p->batch, p->kv_heads, capacity, D}};
    kp_node node = {.operation = KP_OP_ATTENTION_CACHED, .inputs = 6, .outputs = 1, .arguments = &arguments};
    node.input[1] = node.input[2] = &cache;
    kp_call call = {.input = {rows, keys, values, &start, p->power == 0 ? NULL : p->kappa,
                              p->power == 0 ? NULL : p->beta},
                    .output = {out}};
    attention_call(set->cached, set->cached_scratch, &node, &call, 2);
    for (int b = 0; b < p->batch; b++)
      memcpy(whole.o_rows + (b * p->length + start) * width, out + b * T * width,
             sizeof(float) * (size_t)(T * width));
    free(rows);
    free(out);
  }
  attention_check_output(set, &whole, p, expected, "the cached output");
  attention_run_destroy(&whole);
  free(keys);
  free(values);
}

static void test_cached_equals_whole(void **state) {
  (void)state;
  attention_kernels sets[ATTENTION_SETS];
  const int set_count = attention_kernel_sets(sets);
  const int split[][6] = {{134, 1, 1, 1, 3, 9}, {1, 1, 7, 64, 65, 11}};
  for (int power = 0; power <= 2; power++)
    for (int shape = 0; shape < 2; shape++) {
      oracle_problem p = attention_problem(2, 149, 6, shape == 0 ? 6 : 2, shape == 0 ? 8 : 33, true, power);
      oracle_result expected;
      oracle_result_create(&expected, &p);
      oracle_run(&p, &expected);
      for (int s = 0; s < set_count; s++)
        for (int i = 0; i < 2; i++) check_cached(&sets[s], &p, &expected, split[i], 6);
      oracle_result_destroy(&expected);
      oracle_problem_destroy(&p);
    }
}

static void test_full_cache_is_an_error(void **state) {
  (void)state;
  attention_kernels sets[ATTENTION_SETS];
  const int set_count = attention_kernel_sets(sets);
  for (int s = 0; s < set_count; s++) {
    kp_attention_arguments arguments = {.batch = 1,
                                        .length = 2,
                                        .heads = 1,
                                        .kv_heads = 1,
                                        .head_size = 4,
                                        .packed = true,
                                        .causal = true,
                                        .scale = 0.5};
    kp_tensor cache = {.dimensions = 4, .shape = {1, 1, 8, 4}};
    kp_node node = {.operation = KP_OP_ATTENTION_CACHED, .arguments = &arguments};
    node.input[1] = node.input[2] = &cache;
    const kp_run run = {.threads = 1};
    int32_t start = 7;
    float rows[24] = {0}, keys[32] = {0}, values[32] = {0}, out[8];
    kp_call call = {.node = &node, .run = &run, .input = {rows, keys, values, &start}, .output = {out}};
    kp_error error = {0};
    assert_int_equal(sets[s].cached(&call, &error), KP_ERR_INPUT);
    assert_non_null(strstr(error.message, "cache of 8"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cached_equals_whole),
      cmocka_unit_test(test_full_cache_is_an_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
