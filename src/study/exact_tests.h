/* Exact tests on counts: no approximation for small numbers of heads or runs.
 *
 * Two-sided p-values add the probabilities of all outcomes that are not
 * likelier than the observed one (Fisher's rule). */
#ifndef KAPPA_STUDY_EXACT_TESTS_H
#define KAPPA_STUDY_EXACT_TESTS_H

/* p of `successes` of `trials` when each has `probability`; 1 without trials. */
double kp_binomial_test(int successes, int trials, double probability);

/* Fisher's exact test of a 2 × 2 table: p of rows and columns being independent, given the margins. */
double kp_fisher_test(const int table[2][2]);

#endif
