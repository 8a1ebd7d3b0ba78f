/* Elementary functions for inner loops.
 *
 * The functions of libm are calls, and a loop with a call in it does not
 * vectorise.  These are straight-line float code: choices are made by selects
 * on finished values, so that the body of a `#pragma omp simd` loop which uses them
 * becomes vector instructions on every instruction set.
 *
 * What holds always: the error is at most 2 units in the last place; a NaN
 * comes out as a NaN; infinities give the limits.  Results too small for a
 * normal float are zero.  The polynomials are minimax fits on the stated ranges
 * (Remez exchange in 40 digits), rounded to float. */
#ifndef KAPPA_BACKEND_CPU_VECTOR_MATH_H
#define KAPPA_BACKEND_CPU_VECTOR_MATH_H

#include <math.h>
#include <stdint.h>

typedef union kp_float_bits {
  float value;
  uint32_t bits;
} kp_float_bits;

/* exp(x); exactly 1 at 0, 0 below -86.9.
 * x = n log 2 + r with |r| <= log(2)/2, and log 2 split so that n times its head is exact.  Adding 1.5 2^23
 * rounds to an integer that then stands in the low bits.  2^(n-1) and a factor 2 reach n = 128. */
static inline float kp_expf(float x) {
  const float head = 0x1.62e4p-1f, tail = 0x1.7f7d1cp-20f, shift = 0x1.8p23f;
  const float top = x > 89.0f ? 89.0f : x;
  const kp_float_bits rounded = {.value = top * 1.44269504f + shift};
  const float n = rounded.value - shift;
  const float r = (top - n * head) - n * tail;
  float q = 0.001395169319f;
  q = q * r + 0.008369598132f;
  q = q * r + 0.0416661876f;
  q = q * r + 0.1666651289f;
  q = q * r + 0.5000000101f;
  const float twice = 2.0f * ((q * r * r + r) + 1.0f);
  const kp_float_bits half_power = {.bits = (rounded.bits << 23) + (126u << 23)};
  const float result = twice * half_power.value;
  return x < -86.9f ? 0.0f : result;
}

/* log(x); -inf at 0, NaN below.
 * x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), log(1 + f) = f - f^2/2 + f^3 R(f). */
static inline float kp_logf(float x) {
  const float scaled = x < 0x1p-126f ? x * 0x1p24f : x;
  const kp_float_bits whole = {.value = scaled};
  const int32_t exponent = (int32_t)(whole.bits - 0x3f3504f3u) >> 23;
  const kp_float_bits mantissa = {.bits = whole.bits - ((uint32_t)exponent << 23)};
  const float e = (float)exponent - (x < 0x1p-126f ? 24.0f : 0.0f);
  const float f = mantissa.value - 1.0f, square = f * f;
  float r = 0.06937306228f;
  r = r * f + -0.1184674351f;
  r = r * f + 0.1188879741f;
  r = r * f + -0.1237748559f;
  r = r * f + 0.1421711758f;
  r = r * f + -0.1666948374f;
  r = r * f + 0.2000218728f;
  r = r * f + -0.2499998384f;
  r = r * f + 0.3333331404f;
  const float small = e * 0x1.7f7d1cp-20f + (r * f * square - 0.5f * square);
  const float result = (e * 0x1.62e4p-1f + f) + small;
  const float ordinary = x < INFINITY ? result : x; /* +inf and NaN are their own logarithms */
  const float defined = x < 0.0f ? NAN : ordinary;
  return x == 0.0f ? -INFINITY : defined;
}

/* tanh(x): odd polynomial below 0.6, 1 - 2 / (exp(2|x|) + 1) above. */
static inline float kp_tanhf(float x) {
  const float size = fabsf(x), square = x * x;
  float p = -0.005856427883f;
  p = p * square + 0.02077541453f;
  p = p * square + -0.05378289287f;
  p = p * square + 0.133319983f;
  p = p * square + -0.333333053f;
  const float near = size + size * square * p;
  const float far = 1.0f - 2.0f / (kp_expf(2.0f * size) + 1.0f);
  return copysignf(size < 0.6f ? near : far, x);
}

/* erf(x): odd polynomial below 1 (its first coefficient less 1, so that the last sum rounds once), 1 -
 * exp(-R(|x|)) above, where R is -log erfc; 1 from 4 on. */
static inline float kp_erff(float x) {
  const float size = fabsf(x), square = x * x;
  float p = 7.889107825e-5f;
  p = p * square + -0.000802083787f;
  p = p * square + 0.00518953497f;
  p = p * square + -0.02685444441f;
  p = p * square + 0.1128360017f;
  p = p * square + -0.3761262714f;
  p = p * square + 0.128379166f;
  const float near = size + size * p;
  const float a = size > 4.0f ? 4.0f : size;
  float r = -2.121102719e-7f;
  r = r * a + 2.475458023e-5f;
  r = r * a + -0.0004603598868f;
  r = r * a + 0.004270643046f;
  r = r * a + -0.02534893889f;
  r = r * a + 0.1086066159f;
  r = r * a + 0.6330657224f;
  r = r * a + 1.129649351f;
  r = r * a + -0.0002020664503f;
  const float far = 1.0f - kp_expf(-r);
  return copysignf(size < 1.0f ? near : far, x);
}

#endif
