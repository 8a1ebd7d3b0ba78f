/* modeling_kappa.py, embedded at build time: the PyTorch code that an export of a curved model comes with. */
#ifndef KAPPA_INTERCHANGE_MODELING_MODELING_H
#define KAPPA_INTERCHANGE_MODELING_MODELING_H

#include <stddef.h>

extern const unsigned char kp_modeling_kappa[];
extern const size_t kp_modeling_kappa_size;

#endif
