#include "study/exact_tests.h"

#include <math.h>

/* Outcomes within rounding of the observed one count as equally likely. */
static const double slack = 1 + 1e-7;

static double log_choose(int n, int k) {
  return lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0);
}

static double binomial(int successes, int trials, double probability) {
  if (probability <= 0) return successes == 0 ? 1 : 0;
  if (probability >= 1) return successes == trials ? 1 : 0;
  return exp(log_choose(trials, successes) + successes * log(probability) +
             (trials - successes) * log1p(-probability));
}

double kp_binomial_test(int successes, int trials, double probability) {
  const double observed = binomial(successes, trials, probability);
  double p = 0;
  for (int k = 0; k <= trials; k++) {
    const double here = binomial(k, trials, probability);
    if (here <= observed * slack) p += here;
  }
  return fmin(p, 1);
}

double kp_fisher_test(const int table[2][2]) {
  const int row = table[0][0] + table[0][1], other = table[1][0] + table[1][1];
  const int column = table[0][0] + table[1][0];
  const double all = log_choose(row + other, column);
  const int least = column > other ? column - other : 0, most = row < column ? row : column;
  const double observed = exp(log_choose(row, table[0][0]) + log_choose(other, table[1][0]) - all);
  double p = 0;
  for (int k = least; k <= most; k++) {
    const double here = exp(log_choose(row, k) + log_choose(other, column - k) - all);
    if (here <= observed * slack) p += here;
  }
  return fmin(p, 1);
}
