/* What torch calls things in its files. */
#ifndef KAPPA_INTERCHANGE_TORCH_NAMES_H
#define KAPPA_INTERCHANGE_TORCH_NAMES_H

#include "core/dtype.h"
#include "interchange/pickle.h"

/* The names that may occur in a file: those of tensors, and those of plain data that checkpoints carry beside
 * them, which is read over (random states of numpy, devices). */
kp_pickle_use kp_torch_name_use(kp_pickle_text module, kp_pickle_text name);

/* The numbers of a typed storage ("FloatStorage") or of a dtype ("float32"); false when kappa has no such
 * type. */
bool kp_torch_dtype(kp_pickle_text name, kp_dtype *dtype);

#endif
