/* Elementary functions in double for the scalar programs of the geometry, many rows at once.
 *
 * Straight-line code: choices are made by selects on finished values, so that a `#pragma omp simd` loop in
 * which they are inlined becomes vector instructions.  They cover the ranges that geometry/ uses, which are
 * stated; there the error is at most 4 units in the last place, a NaN comes out as a NaN, and infinities
 * give the limits.  The polynomials interpolate at Chebyshev nodes of the stated ranges (60 digits). */
#ifndef KAPPA_BACKEND_CPU_VECTOR_MATH_DOUBLE_H
#define KAPPA_BACKEND_CPU_VECTOR_MATH_DOUBLE_H

#include <math.h>
#include <stdint.h>

typedef union kp_double_bits {
  double value;
  uint64_t bits;
} kp_double_bits;

/* x = n log 2 + r with |r| <= log(2) / 2: the factor 2^n, and exp(r) - 1. */
typedef struct kp_lane_power {
  double power, rest;
} kp_lane_power;

/* For -708 <= x <= 709; beyond, x counts as the end of that range.  Adding 1.5 2^52 rounds to an integer that
 * then stands in the low bits; log 2 is split so that n times its head is exact. */
static inline kp_lane_power kp_lane_power_of(double x) {
  const double head = 0x1.62e42feep-1, tail = 0x1.a39ef35793c76p-33, shift = 0x1.8p52;
  const double low = x < -708 ? -708 : x, inside = low > 709 ? 709 : low;
  const kp_double_bits rounded = {.value = inside * 1.4426950408889634 + shift};
  const double n = rounded.value - shift;
  const double r = (inside - n * head) - n * tail;
  double q = 0x1.af38a9b0ec855p-26;
  q = q * r + 0x1.289185613a3d6p-22;
  q = q * r + 0x1.71de0dae63bb3p-19;
  q = q * r + 0x1.a019b90d2ae7ap-16;
  q = q * r + 0x1.a01a01a7c41d5p-13;
  q = q * r + 0x1.6c16c1788bd90p-10;
  q = q * r + 0x1.11111111109b3p-7;
  q = q * r + 0x1.5555555553d63p-5;
  q = q * r + 0x1.5555555555556p-3;
  q = q * r + 0x1.0000000000001p-1;
  const kp_double_bits power = {.bits = (rounded.bits << 52) + ((uint64_t)1023 << 52)};
  return (kp_lane_power){power.value, q * r * r + r};
}

static inline double kp_lane_exp(double x) {
  const kp_lane_power p = kp_lane_power_of(x);
  return p.power * p.rest + p.power;
}

static inline double kp_lane_expm1(double x) {
  const kp_lane_power p = kp_lane_power_of(x);
  return p.power * p.rest + (p.power - 1);
}

/* log x of a normal number x > 0: x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)) and
 * log(1 + f) = 2 s + s^3 L(s^2), s = f / (2 + f), summed as f - (f^2/2 - s (f^2/2 + s^2 L)).  0 gives -inf.
 */
static inline double kp_lane_log(double x) {
  const kp_double_bits whole = {.value = x}, magic = {.value = 0x1p52};
  const uint64_t above = whole.bits - UINT64_C(0x3fe6a09e667f3bcd) + (UINT64_C(1023) << 52);
  const uint64_t biased = above >> 52;
  const kp_double_bits mantissa = {.bits = whole.bits - ((biased - 1023) << 52)};
  const kp_double_bits shifted = {.bits = magic.bits | biased};
  const double e = shifted.value - (0x1p52 + 1023), f = mantissa.value - 1;
  const double s = f / (2 + f), z = s * s, half = 0.5 * f * f;
  double l = 0x1.2b5900de53b32p-3;
  l = l * z + 0x1.39fe51a7c18f9p-3;
  l = l * z + 0x1.7462b51cb66b1p-3;
  l = l * z + 0x1.c71c62e3f11e6p-3;
  l = l * z + 0x1.2492492df281ap-2;
  l = l * z + 0x1.99999999952d7p-2;
  l = l * z + 0x1.5555555555558p-1;
  const double small = s * (half + z * l) + e * 0x1.a39ef35793c76p-33;
  const double result = e * 0x1.62e42feep-1 + (f - (half - small));
  const double ordinary = x < (double)INFINITY ? result : x; /* +inf and NaN are their own logarithms */
  return x > 0 ? ordinary : x == 0 ? -(double)INFINITY : (double)NAN;
}

/* log(1 + x) for x >= 0; what rounding 1 + x has lost comes back to first order. */
static inline double kp_lane_log1p(double x) {
  const double sum = 1 + x, lost = x < 0x1p53 ? x - (sum - 1) : 0;
  return kp_lane_log(sum) + lost / sum;
}

static inline double kp_lane_tanh(double x) {
  const double m = kp_lane_expm1(-2 * fabs(x));
  return copysign(m / (2 + m), x);
}

/* For |x| <= 700. */
static inline double kp_lane_sinh(double x) {
  const double m = kp_lane_expm1(fabs(x));
  return copysign(0.5 * (m + m / (1 + m)), x);
}

/* For |x| <= 700. */
static inline double kp_lane_cosh(double x) {
  const double e = kp_lane_exp(fabs(x));
  return 0.5 * (e + 1 / e);
}

/* Sine and cosine for |x| <= 10^5: x = n pi/2 + r with |r| <= pi/4 and pi/2 in three parts. */
typedef struct kp_lane_circle {
  double sine, cosine;
} kp_lane_circle;

static inline kp_lane_circle kp_lane_circle_of(double x) {
  const double shift = 0x1.8p52;
  const kp_double_bits rounded = {.value = x * 0.63661977236758134 + shift};
  const double n = rounded.value - shift;
  const double r = ((x - n * 0x1.921fb544p+0) - n * 0x1.0b4611a6p-34) - n * 0x1.3198a2e037073p-69;
  const double z = r * r;
  double s = 0x1.5e0b19f8b1451p-33;
  s = s * z + -0x1.ae600b02b6262p-26;
  s = s * z + 0x1.71de37968a100p-19;
  s = s * z + -0x1.a01a019e83aaep-13;
  s = s * z + 0x1.1111111110bb2p-7;
  s = s * z + -0x1.5555555555555p-3;
  double c = -0x1.907da367a37cbp-37;
  c = c * z + 0x1.1eeb68e93b64cp-29;
  c = c * z + -0x1.27e4fa17da09ep-22;
  c = c * z + 0x1.a01a019f4eb01p-16;
  c = c * z + -0x1.6c16c16c16967p-10;
  c = c * z + 0x1.5555555555555p-5;
  const double sine = s * z * r + r, cosine = c * z * z + (1 - 0.5 * z);
  const int odd = (rounded.bits & 1) != 0, half_turn = (rounded.bits & 2) != 0;
  const double first = odd ? cosine : sine, second = odd ? -sine : cosine;
  return (kp_lane_circle){half_turn ? -first : first, half_turn ? -second : second};
}

static inline double kp_lane_sin(double x) {
  return kp_lane_circle_of(x).sine;
}
static inline double kp_lane_cos(double x) {
  return kp_lane_circle_of(x).cosine;
}
static inline double kp_lane_tan(double x) {
  const kp_lane_circle circle = kp_lane_circle_of(x);
  return circle.sine / circle.cosine;
}

/* Angle of (x, y) for x, y >= 0, not both 0, finite: with t = y / x, atan t = pi/2 + atan(-1/t) above tan(3
 * pi/8), pi/4 + atan((t - 1) / (t + 1)) above tan(pi/8); written as one quotient of x and y. */
static inline double kp_lane_atan2(double y, double x) {
  const int steep = y > 2.4142135623730949 * x, middle = !steep && y > 0.41421356237309503 * x;
  const double upper = steep ? -x : middle ? y - x : y, lower = steep ? y : middle ? x + y : x;
  const double base = steep ? 1.5707963267948966 : middle ? 0.78539816339744828 : 0;
  const double correction = steep ? 0x1.1a62633145c07p-54 : middle ? 0x1.1a62633145c07p-55 : 0;
  const double t = upper / lower, z = t * t;
  double a = -0x1.3a2b7a07caea9p-6;
  a = a * z + 0x1.41603647c7a7cp-5;
  a = a * z + -0x1.a098bb6ba4941p-5;
  a = a * z + 0x1.dfe61e80903d2p-5;
  a = a * z + -0x1.10fa75382537fp-4;
  a = a * z + 0x1.3b1262d95579ep-4;
  a = a * z + -0x1.745d0b26b83e7p-4;
  a = a * z + 0x1.c71c7185314cbp-4;
  a = a * z + -0x1.24924924360cbp-3;
  a = a * z + 0x1.999999999934ap-3;
  a = a * z + -0x1.5555555555555p-2;
  return base + (t + (a * z * t + correction));
}

/* For x >= 0. */
static inline double kp_lane_atan(double x) {
  return kp_lane_atan2(x, 1);
}

#endif
