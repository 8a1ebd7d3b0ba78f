/* Condition numbers and eigen learning rates against values known by hand. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "near.h"
#include "ops/ops.h"
#include "study/condition_numbers.h"
#include "study/learning_rates.h"

static void one_matrix(void **state) {
  (void)state;
  kp_error error = {0};
  double condition;
  double matrix[] = {0, 3, 0, 6, 0, 0}, singular[] = {1, 2, 2, 4}, same[] = {0, -5, 5, 0};
  check_ok(kp_condition_number(2, 3, matrix, &condition, &error), &error);
  check_near(condition, 2, 1e-14);
  check_ok(kp_condition_number(2, 2, same, &condition, &error), &error);
  check_near(condition, 1, 1e-14);
  check_ok(kp_condition_number(2, 2, singular, &condition, &error), &error);
  assert_true(condition > 1e15);
}

static void vectors_of_length_one(void **state) {
  (void)state;
  double rows[] = {3, 4, 0, 0}, columns[] = {3, 0, 4, 2};
  kp_normalise_vectors(2, 2, false, rows);
  check_near(rows[0], 0.6, 1e-15);
  check_near(rows[1], 0.8, 1e-15);
  check_near(rows[2], 0, 0);
  kp_normalise_vectors(2, 2, true, columns);
  check_near(columns[0], 0.6, 1e-15);
  check_near(columns[2], 0.8, 1e-15);
  check_near(columns[3], 1, 1e-15);
}

enum { WIDTH = 2, LAYERS = 2 };

static void add(kp_parameters *parameters, const char *name, kp_group group, int64_t rows, int64_t columns) {
  const int64_t shape[] = {rows, columns};
  kp_parameters_add(parameters, name, columns == 0 ? 1 : 2, shape, (kp_initial){0}, group, true);
}

static void set(kp_parameters *parameters, const char *name, const double *values) {
  kp_parameters_write(parameters, parameters->values, kp_parameters_find(parameters, name), values);
}

static kp_parameters *small_model(void) {
  static const double attention[] = {2, 0, 0, 1, 3, 0, 0, 1, 4, 0, 0, 1}; /* conditions 2, 3, 4; unit: 1 */
  static const double projection[] = {5, 0, 0, 1}, table[] = {3, 4, 0, 1, 1, 0};
  static const double rates[] = {-0.2, 0.4}, gains[] = {0.5, 0.7}, scales[] = {1, 2, 3, 7};
  kp_error error = {0};
  kp_parameters *parameters = kp_parameters_create();
  add(parameters, "transformer.wte.weight", KP_GROUP_TABLE, 3, WIDTH);
  add(parameters, "transformer.h.1.attn.c_attn.weight", KP_GROUP_DECAY, 3 * WIDTH, WIDTH);
  add(parameters, "transformer.h.1.attn.c_proj.weight", KP_GROUP_DECAY, WIDTH, WIDTH);
  add(parameters, "transformer.h.1.attn.c_proj.bias", KP_GROUP_NO_DECAY, WIDTH, 0);
  add(parameters, "transformer.h.1.attn.rate", KP_GROUP_NO_DECAY, WIDTH, 0);
  add(parameters, "transformer.h.1.attn.query_gain", KP_GROUP_NO_DECAY, WIDTH, 0);
  add(parameters, "transformer.h.1.mlp.scale", KP_GROUP_NO_DECAY, 2 * WIDTH, 0);
  check_ok(kp_parameters_allocate(parameters, kp_backend_ref(), false, &error), &error);
  set(parameters, "transformer.wte.weight", table);
  set(parameters, "transformer.h.1.attn.c_attn.weight", attention);
  set(parameters, "transformer.h.1.attn.c_proj.weight", projection);
  set(parameters, "transformer.h.1.attn.rate", rates);
  set(parameters, "transformer.h.1.attn.query_gain", gains);
  set(parameters, "transformer.h.1.mlp.scale", scales);
  return parameters;
}

static void matrices_of_a_model(void **state) {
  (void)state;
  kp_error error = {0};
  kp_arena *arena = kp_arena_create();
  kp_parameters *parameters = small_model();
  kp_model_options options = {.layers = LAYERS, .heads = 1, .width = WIDTH};
  options.attention.kv_heads = 1, options.attention.head_size = WIDTH;
  kp_condition_numbers numbers;
  check_ok(kp_condition_numbers_read(parameters, &options, arena, &numbers, &error), &error);
  assert_int_equal(numbers.matrix_count, 4);
  assert_string_equal(numbers.matrices[1].part, "key");
  check_near(numbers.matrices[1].condition.raw, 3, 1e-14);
  check_near(numbers.matrices[3].condition.raw, 5, 1e-14);
  check_near(numbers.blocks[1].attention.raw, 3.5, 1e-14); /* of 2, 3, 4, 5 */
  check_near(numbers.blocks[1].attention.normalised, 1, 1e-14);
  assert_true(isnan(numbers.blocks[1].feed_forward.raw) && isnan(numbers.blocks[0].attention.raw));
  assert_int_equal(numbers.table_count, 1);
  check_near(numbers.tables[0].least, 1, 0);
  check_near(numbers.tables[0].most, 5, 0);
  check_near(numbers.tables[0].mean, 7.0 / 3, 1e-14);
  check_near(numbers.tables[0].deviation, sqrt(9 - 49.0 / 9), 1e-14);
  json_t *json = kp_condition_numbers_json(&numbers);
  assert_int_equal(json_array_size(json_object_get(json, "matrices")), 4);
  json_decref(json);
  kp_parameters_destroy(parameters);
  kp_arena_destroy(arena);
}

static void rates_of_a_model(void **state) {
  (void)state;
  kp_error error = {0};
  kp_arena *arena = kp_arena_create();
  kp_parameters *parameters = small_model();
  kp_learning_rates rates;
  check_ok(kp_learning_rates_read(parameters, LAYERS, 0.5, 0.05, arena, &rates, &error), &error);
  assert_true(kp_learning_rates_present(&rates));
  check_near(rates.blocks[1].attention, 0.03, 1e-15);
  check_near(rates.blocks[1].query_gain, 1.2, 1e-15);
  check_near(rates.blocks[1].up_scale, 1.5, 1e-15);
  check_near(rates.blocks[1].gate_scale, 5, 1e-15);
  assert_true(isnan(rates.blocks[1].feed_forward) && isnan(rates.blocks[0].attention));
  assert_true(isnan(rates.logit_scale));
  json_t *json = kp_learning_rates_json(&rates);
  assert_true(json_is_null(json_object_get(json, "logit_scale")));
  json_decref(json);
  kp_parameters_destroy(parameters);
  kp_arena_destroy(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_matrix),
      cmocka_unit_test(vectors_of_length_one),
      cmocka_unit_test(matrices_of_a_model),
      cmocka_unit_test(rates_of_a_model),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
