#include "study/spectrum.h"

#include <math.h>
#include <stdlib.h>

/* LAPACK as Fortran compilers call it: everything by address, lengths of texts at the end. */
extern void dsyevd_(const char *job, const char *triangle, const int *n, double *a, const int *lda, double *w,
                    double *work, const int *work_size, int *integers, const int *integers_size, int *info,
                    size_t job_length, size_t triangle_length);
extern void dgesdd_(const char *job, const int *m, const int *n, double *a, const int *lda, double *s,
                    double *u, const int *ldu, double *vt, const int *ldvt, double *work,
                    const int *work_size, int *integers, int *info, size_t job_length);

static kp_status check_finite(const double *matrix, int64_t count, kp_error *error) {
  for (int64_t i = 0; i < count; i++)
    if (!isfinite(matrix[i]))
      return kp_fail(error, KP_ERR_NUMERIC, "a matrix with values that are not finite has no spectrum");
  return KP_OK;
}

static kp_status check_result(int info, kp_error *error) {
  return info == 0 ? KP_OK
                   : kp_fail(error, KP_ERR_NUMERIC, "a spectrum did not converge (LAPACK says %d)", info);
}

kp_status kp_symmetric_eigenvalues(int64_t n, double *matrix, double *values, kp_error *error) {
  const int size = (int)n, query = -1;
  int integers_wanted, info;
  double wanted;
  if (n == 0) return KP_OK;
  KP_TRY(check_finite(matrix, n * n, error));
  /* Row-major lower is column-major upper. */
  dsyevd_("N", "U", &size, matrix, &size, values, &wanted, &query, &integers_wanted, &query, &info, 1, 1);
  const int work_size = (int)wanted;
  double *work = malloc((size_t)work_size * sizeof *work);
  int *integers = malloc((size_t)integers_wanted * sizeof *integers);
  kp_status status = KP_OK;
  if (work == NULL || integers == NULL)
    status = kp_fail(error, KP_ERR_MEMORY, "no memory for the eigenvalues of %lld rows", (long long)n);
  if (status == KP_OK) {
    dsyevd_("N", "U", &size, matrix, &size, values, work, &work_size, integers, &integers_wanted, &info, 1,
            1);
    status = check_result(info, error);
  }
  free(work);
  free(integers);
  for (int64_t i = 0; i < n / 2 && status == KP_OK; i++) { /* LAPACK's order is ascending */
    const double small = values[i];
    values[i] = values[n - 1 - i];
    values[n - 1 - i] = small;
  }
  return status;
}

kp_status kp_singular_values(int64_t rows, int64_t columns, double *matrix, double *values, kp_error *error) {
  /* A row-major matrix is its transpose to Fortran; both have the same singular values. */
  const int m = (int)columns, n = (int)rows, query = -1, one = 1;
  const int64_t rank = rows < columns ? rows : columns;
  double wanted;
  int info;
  if (rank == 0) return KP_OK;
  KP_TRY(check_finite(matrix, rows * columns, error));
  int *integers = malloc((size_t)(8 * rank) * sizeof *integers);
  dgesdd_("N", &m, &n, matrix, &m, values, NULL, &one, NULL, &one, &wanted, &query, integers, &info, 1);
  const int work_size = (int)wanted;
  double *work = malloc((size_t)work_size * sizeof *work);
  kp_status status = KP_OK;
  if (work == NULL || integers == NULL)
    status = kp_fail(error, KP_ERR_MEMORY, "no memory for the singular values of a matrix (%lld, %lld)",
                     (long long)rows, (long long)columns);
  if (status == KP_OK) {
    dgesdd_("N", &m, &n, matrix, &m, values, NULL, &one, NULL, &one, work, &work_size, integers, &info, 1);
    status = check_result(info, error);
  }
  free(work);
  free(integers);
  return status;
}

double kp_participation_ratio(const double *values, int64_t count) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < count; i++) {
    sum += values[i];
    squares += values[i] * values[i];
  }
  return squares > 0 ? sum * sum / squares : (double)NAN;
}

double kp_spectral_entropy(const double *values, int64_t count) {
  double sum = 0, entropy = 0;
  for (int64_t i = 0; i < count; i++) sum += values[i];
  if (!(sum > 0)) return (double)NAN;
  for (int64_t i = 0; i < count; i++) {
    const double p = values[i] / sum;
    if (p > 0) entropy -= p * log(p);
  }
  return entropy;
}
