/* How the selection bias of a mixture of experts follows the load, once an optimizer step. */
#ifndef KAPPA_MODELS_BALANCE_H
#define KAPPA_MODELS_BALANCE_H

#include "models/model.h"

/* Moves `bias` (experts) by the counts of choices since the last step, summed over micro-batches:
 *
 *   proportional  b_e += speed · (1/E - n_e/Σn)     (the published HELM-MiCE code)
 *   sign          b_e += speed · sign(Σn/E - n_e)   (DeepSeek-V3, arXiv 2412.19437, section 2.1.2)
 *
 * Counts that are all zero change nothing. */
void kp_balance_update(double *bias, const double *counts, int64_t experts, double speed,
                       kp_balance_rule rule);

#endif
