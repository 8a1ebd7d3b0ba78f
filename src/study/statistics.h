/* Means, spreads and what can be said of a difference of two means.
 *
 * Runs are few (three seeds, say), so intervals are Student's, not the normal
 * distribution's: with three runs a side the factor is about 2.8 to 4.3, not
 * 1.96.  A value that is not finite is unknown and left out. */
#ifndef KAPPA_STUDY_STATISTICS_H
#define KAPPA_STUDY_STATISTICS_H

#include <stdint.h>

/* Mean and sample standard deviation (NaN below two values). */
typedef struct kp_statistic {
  double mean, spread;
  int count;
} kp_statistic;

kp_statistic kp_statistic_of(const double *values, int count);

/* mean(a) - mean(b) and how well it is known; what cannot be said is NaN. */
typedef struct kp_difference {
  double value, error; /* and its standard error */
  double freedom;      /* degrees of freedom */
  double low, high;    /* the interval that holds the true difference with 95 % confidence */
  double p;            /* of a difference at least as large when there is none, two-sided */
} kp_difference;

/* Welch's test: independent samples whose variances may differ (Welch 1947, Satterthwaite 1946 for the
 * degrees of freedom).  Without spread on either side the interval is the point itself. */
kp_difference kp_welch(kp_statistic a, kp_statistic b);

/* Student's test of a[i] - b[i]: what is common to a pair, the order of its batches say, cancels. */
kp_difference kp_paired(const double *a, const double *b, int count);

typedef enum kp_verdict {
  KP_VERDICT_UNKNOWN, /* one run a side, or none: nothing is known of the spread */
  KP_VERDICT_LOWER,   /* the interval lies below 0 */
  KP_VERDICT_SAME,    /* the interval holds 0: the two cannot be told apart */
  KP_VERDICT_HIGHER,  /* the interval lies above 0 */
} kp_verdict;

kp_verdict kp_verdict_of(const kp_difference *difference);

/* Student's t: P(|T| >= |t|), and the t with P(|T| >= t) = p. */
double kp_student_tail(double t, double freedom);
double kp_student_quantile(double p, double freedom);

/* Spearman's rank correlation of pairs (ties share their mean rank), and its p by Student's t with count - 2
 * degrees of freedom; NaN where one side is constant or with fewer than three pairs. */
typedef struct kp_correlation {
  double value, p;
} kp_correlation;

kp_correlation kp_spearman(const double *x, const double *y, int64_t count);

#endif
