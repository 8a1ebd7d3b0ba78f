#include "support/check.h"
#include "core/dtype.h"
#include "core/half.h"

#include <math.h>

static void test_names_and_sizes(void **state) {
  (void)state;
  static const struct {
    kp_dtype dtype;
    const char *name;
    size_t size;
  } expected[] = {
      {KP_F64, "F64", 8}, {KP_F32, "F32", 4}, {KP_BF16, "BF16", 2}, {KP_F16, "F16", 2},
      {KP_I64, "I64", 8}, {KP_I32, "I32", 4}, {KP_I16, "I16", 2},   {KP_I8, "I8", 1},
      {KP_U8, "U8", 1},   {KP_U16, "U16", 2}, {KP_U32, "U32", 4},   {KP_BOOL, "BOOL", 1},
  };
  assert_int_equal(sizeof expected / sizeof expected[0], KP_DTYPE_COUNT);
  for (size_t i = 0; i < KP_DTYPE_COUNT; i++) {
    assert_string_equal(kp_dtype_name(expected[i].dtype), expected[i].name);
    assert_int_equal(kp_dtype_size(expected[i].dtype), expected[i].size);
    assert_int_equal(kp_dtype_is_float(expected[i].dtype), i < 4);
    kp_dtype found = KP_F64;
    assert_true(kp_dtype_from_name(expected[i].name, &found));
    assert_int_equal(found, expected[i].dtype);
  }
  kp_dtype found = KP_I8;
  assert_false(kp_dtype_from_name("f32", &found));
  assert_false(kp_dtype_from_name("", &found));
  assert_int_equal(found, KP_I8);
}

/* The value of a 16-bit float from its fields, by the definition of the format. */
static double decode(unsigned half, int exponent_bits, int fraction_bits) {
  int fraction = (int)(half & ((1u << fraction_bits) - 1));
  int exponent = (int)(half >> fraction_bits & ((1u << exponent_bits) - 1));
  int bias = (1 << (exponent_bits - 1)) - 1;
  double sign = half >> 15 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) return fraction != 0 ? (double)NAN : sign * (double)INFINITY;
  if (exponent == 0) return sign * ldexp(fraction, 1 - bias - fraction_bits);
  return sign * ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}

typedef struct format {
  float (*to_float)(uint16_t);
  uint16_t (*from_float)(float);
  int exponent_bits, fraction_bits;
} format;

static const format formats[] = {
    {kp_float_from_f16, kp_f16_from_float, 5, 10},
    {kp_float_from_bf16, kp_bf16_from_float, 8, 7},
};

static void test_every_half_comes_back(void **state) {
  (void)state;
  for (size_t f = 0; f < 2; f++) {
    for (unsigned half = 0; half < 65536; half++) {
      double expected = decode(half, formats[f].exponent_bits, formats[f].fraction_bits);
      float value = formats[f].to_float((uint16_t)half);
      if (isnan(expected)) {
        assert_true(isnan(value));
        assert_true(isnan(formats[f].to_float(formats[f].from_float(value))));
        continue;
      }
      if ((double)value != expected) fail_msg("%#x gives %g instead of %g", half, (double)value, expected);
      if (formats[f].from_float(value) != half) fail_msg("%#x does not come back", half);
    }
  }
}

/* Between two neighbours, floats round to the nearer, and the middle to the even one. */
static void test_rounding_is_to_nearest_even(void **state) {
  (void)state;
  for (size_t f = 0; f < 2; f++) {
    unsigned infinity = ((1u << formats[f].exponent_bits) - 1) << formats[f].fraction_bits;
    for (unsigned half = 0; half + 1 < infinity; half++) {
      double low = decode(half, formats[f].exponent_bits, formats[f].fraction_bits);
      double high = decode(half + 1, formats[f].exponent_bits, formats[f].fraction_bits);
      float middle = (float)(low + (high - low) / 2);
      unsigned even = half & 1 ? half + 1 : half;
      assert_int_equal(formats[f].from_float(middle), even);
      assert_int_equal(formats[f].from_float(nextafterf(middle, 0.0f)), half);
      assert_int_equal(formats[f].from_float(nextafterf(middle, INFINITY)), half + 1);
      assert_int_equal(formats[f].from_float(-middle), even | 0x8000u);
    }
  }
}

static void test_overflow_becomes_infinite(void **state) {
  (void)state;
  assert_int_equal(kp_f16_from_float(65519.996f), 0x7bff);
  assert_int_equal(kp_f16_from_float(65520.0f), 0x7c00);
  assert_int_equal(kp_f16_from_float(-1e30f), 0xfc00);
  assert_int_equal(kp_f16_from_float(1e-30f), 0);
  assert_int_equal(kp_bf16_from_float(3.4028235e38f), 0x7f80);
  assert_int_equal(kp_bf16_from_float(-INFINITY), 0xff80);
  assert_int_equal(kp_f16_from_float(INFINITY), 0x7c00);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_names_and_sizes),
      cmocka_unit_test(test_every_half_comes_back),
      cmocka_unit_test(test_rounding_is_to_nearest_even),
      cmocka_unit_test(test_overflow_becomes_infinite),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
