/* Random numbers and rows of them, for tests that go through many random cases: each call draws on, and every
 * run of a program draws the same. */
#ifndef KAPPA_TESTS_RANDOM_ROWS_H
#define KAPPA_TESTS_RANDOM_ROWS_H

#include <stdint.h>

double random_between(double low, double high);
int random_choose(int count); /* 0 .. count - 1 */
double random_normal(void);

/* One of a few curvatures on both sides of zero, and zero itself. */
double random_curvature(void);

/* `count` rows of C channels in random directions, of a length up to `size`.  Hostile rows (`far` not 0) are
 * zero, tiny, `far` times as long, not a number, or the same as the row before if that is not far out, where
 * the least rounding would part them. */
void random_rows(double *rows, int64_t count, int64_t C, double size, double far);

#endif
