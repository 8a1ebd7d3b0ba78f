/* Elements of a parameter's flat buffers, which are of doubles or of floats, as doubles.
 *
 * For passes whose time does not matter, or whose precision does. */
#ifndef KAPPA_OPTIM_ELEMENT_H
#define KAPPA_OPTIM_ELEMENT_H

#include "core/parameters.h"

static inline bool kp_is_wide(const kp_parameters *parameters) {
  return parameters->backend->real_size == sizeof(double);
}

static inline double kp_element(const void *buffer, bool wide, int64_t i) {
  return wide ? ((const double *)buffer)[i] : (double)((const float *)buffer)[i];
}

static inline void kp_element_set(void *buffer, bool wide, int64_t i, double value) {
  if (wide)
    ((double *)buffer)[i] = value;
  else
    ((float *)buffer)[i] = (float)value;
}

/* Where element i stands. */
static inline void *kp_element_at(void *buffer, bool wide, int64_t i) {
  return (char *)buffer + (size_t)i * (wide ? sizeof(double) : sizeof(float));
}

#endif
