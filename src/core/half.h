/* The two 16-bit floats, converted through their bits.
 *
 * bfloat16 is the upper half of a float32 (8 bits of exponent, 7 of fraction);
 * half precision is IEEE 754 binary16 (5 and 10).  To float is exact.  From
 * float rounds to nearest, ties to even; what is too large becomes infinite
 * and NaN stays NaN. */
#ifndef KAPPA_CORE_HALF_H
#define KAPPA_CORE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t kp_float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float kp_float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float kp_float_from_bf16(uint16_t half) {
  return kp_float_from_bits((uint32_t)half << 16);
}

static inline uint16_t kp_bf16_from_float(float value) {
  uint32_t bits = kp_float_bits(value);
  /* Rounding could carry a NaN's fraction away: keep it, and make it quiet. */
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
  return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float kp_float_from_f16(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
  uint32_t exponent = half >> 10 & 0x1fu;
  uint32_t fraction = half & 0x3ffu;
  if (exponent == 0) {
    /* Zero and the subnormals count steps of 2^-24. */
    float magnitude = (float)fraction * 0x1p-24f;
    return kp_float_from_bits(kp_float_bits(magnitude) | sign);
  }
  if (exponent == 31) return kp_float_from_bits(sign | 0x7f800000u | fraction << 13);
  return kp_float_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

static inline uint16_t kp_f16_from_float(float value) {
  uint32_t bits = kp_float_bits(value);
  uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
  if (magnitude >= kp_float_bits(65520.0f)) return (uint16_t)(sign | 0x7c00u);
  if (magnitude < kp_float_bits(0x1p-14f)) {
    /* One step of a float at 0.5 is the step of a subnormal half, 2^-24, so this addition rounds rightly. */
    float shifted = kp_float_from_bits(magnitude) + 0.5f;
    return (uint16_t)(sign | (kp_float_bits(shifted) - kp_float_bits(0.5f)));
  }
  magnitude += 0xfffu + (magnitude >> 13 & 1u);
  return (uint16_t)(sign | ((magnitude >> 13) - (112u << 10)));
}

#endif
