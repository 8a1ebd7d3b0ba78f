#include "models/balance.h"

void kp_balance_update(double *bias, const double *counts, int64_t experts, double speed,
                       kp_balance_rule rule) {
  double total = 0;
  for (int64_t e = 0; e < experts; e++) total += counts[e];
  if (total == 0) return;
  for (int64_t e = 0; e < experts; e++) {
    const double missing = total / (double)experts - counts[e];
    bias[e] += speed * (rule == KP_BALANCE_SIGN ? (double)((missing > 0) - (missing < 0)) : missing / total);
  }
}
