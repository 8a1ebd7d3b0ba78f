/* The families that there are, one file each. */
#ifndef KAPPA_MODELS_FAMILIES_H
#define KAPPA_MODELS_FAMILIES_H

#include "models/model.h"

extern const kp_family kp_family_gpt;
extern const kp_family kp_family_mixed;

#endif
