/* The families that there are, one file each. */
#ifndef KAPPA_MODELS_FAMILIES_H
#define KAPPA_MODELS_FAMILIES_H

#include "models/model.h"

extern const kp_family kp_family_gpt;
extern const kp_family kp_family_llama;
extern const kp_family kp_family_deepseek;
extern const kp_family kp_family_mixed;
extern const kp_family kp_family_geometric;
extern const kp_family kp_family_ngpt;
extern const kp_family kp_family_helm_d;
extern const kp_family kp_family_helm_mice;

#endif
