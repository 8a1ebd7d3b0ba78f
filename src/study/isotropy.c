#include "study/isotropy.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/assert.h"
#include "study/spectrum.h"

struct kp_isotropy {
  int64_t columns, rows, directed; /* directed: rows that are not zero */
  double norms;                    /* Σ|h| */
  double *directions;              /* (d): Σ h/|h| */
  double *shift;                   /* (d): the first batch's mean */
  double *sum;                     /* (d): Σ (h - shift) */
  double *products;                /* (d, d), lower triangle: Σ (h - shift)(h - shift)ᵀ */
  kp_arena *arena;
};

kp_status kp_isotropy_create(int64_t columns, kp_isotropy **result, kp_error *error) {
  void *products;
  *result = NULL;
  KP_TRY(kp_buffer_create((size_t)(columns * columns) * sizeof(double), "a covariance", &products, error));
  kp_arena *arena = kp_arena_create();
  kp_isotropy *isotropy = kp_arena_take(arena, sizeof *isotropy);
  const size_t bytes = (size_t)columns * sizeof(double);
  *isotropy = (kp_isotropy){.columns = columns,
                            .directions = kp_arena_take(arena, bytes),
                            .shift = kp_arena_take(arena, bytes),
                            .sum = kp_arena_take(arena, bytes),
                            .products = products,
                            .arena = arena};
  *result = isotropy;
  return KP_OK;
}

void kp_isotropy_destroy(kp_isotropy *isotropy) {
  if (isotropy == NULL) return;
  kp_buffer_destroy(isotropy->products);
  kp_arena_destroy(isotropy->arena);
}

/* Norms and directions; finds values that are not finite. */
static kp_status add_directions(kp_isotropy *s, int64_t count, const double *rows, kp_error *error) {
  for (int64_t r = 0; r < count; r++) {
    const double *row = rows + r * s->columns;
    const double norm = cblas_dnrm2((int)s->columns, row, 1);
    if (!isfinite(norm))
      return kp_fail(error, KP_ERR_NUMERIC, "row %lld has a value that is not finite",
                     (long long)(s->rows + r));
    s->norms += norm;
    if (norm == 0) continue;
    s->directed++;
    for (int64_t i = 0; i < s->columns; i++) s->directions[i] += row[i] / norm;
  }
  return KP_OK;
}

static void choose_shift(kp_isotropy *s, int64_t count, const double *rows) {
  for (int64_t r = 0; r < count; r++)
    for (int64_t i = 0; i < s->columns; i++) s->shift[i] += rows[r * s->columns + i] / (double)count;
}

kp_status kp_isotropy_add(kp_isotropy *s, int64_t count, const double *rows, kp_error *error) {
  if (count == 0) return KP_OK;
  void *buffer;
  KP_TRY(kp_buffer_create((size_t)(count * s->columns) * sizeof(double), "shifted rows", &buffer, error));
  double *shifted = buffer;
  kp_status status = add_directions(s, count, rows, error);
  if (status == KP_OK) {
    if (s->rows == 0) choose_shift(s, count, rows);
    for (int64_t r = 0; r < count; r++)
      for (int64_t i = 0; i < s->columns; i++) {
        shifted[r * s->columns + i] = rows[r * s->columns + i] - s->shift[i];
        s->sum[i] += shifted[r * s->columns + i];
      }
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, (int)s->columns, (int)count, 1, shifted,
                (int)s->columns, 1, s->products, (int)s->columns);
    s->rows += count;
  }
  kp_buffer_destroy(buffer);
  return status;
}

/* Over all pairs of different unit vectors u: (|Σu|² - n) / (n (n - 1)). */
static double mean_cosine(const kp_isotropy *s) {
  const double n = (double)s->directed, length = cblas_dnrm2((int)s->columns, s->directions, 1);
  return s->directed < 2 ? (double)NAN : (length * length - n) / (n * (n - 1));
}

/* Of the covariance.  Rounding can leave eigenvalues a little below 0, and rows that are equal with a little
 * variance: both become 0. */
static kp_status eigenvalues_of(const kp_isotropy *s, double *values, kp_error *error) {
  const int64_t d = s->columns;
  const double n = (double)s->rows;
  void *buffer;
  KP_TRY(kp_buffer_create((size_t)(d * d) * sizeof(double), "a covariance", &buffer, error));
  double *covariance = buffer;
  for (int64_t i = 0; i < d; i++)
    for (int64_t j = 0; j <= i; j++)
      covariance[i * d + j] = (s->products[i * d + j] - s->sum[i] * s->sum[j] / n) / n;
  kp_status status = kp_symmetric_eigenvalues(d, covariance, values, error);
  kp_buffer_destroy(buffer);
  if (status != KP_OK) return status;
  const double mean_norm = s->norms / n, floor = 1e-28 * mean_norm * mean_norm;
  for (int64_t i = 0; i < d; i++) values[i] = values[i] > floor ? values[i] : 0;
  return KP_OK;
}

kp_status kp_isotropy_measure(const kp_isotropy *s, kp_isotropy_result *result, double *eigenvalues,
                              kp_error *error) {
  kp_assert(s->rows > 0, "no rows were added");
  KP_TRY(eigenvalues_of(s, eigenvalues, error));
  *result = (kp_isotropy_result){
      .rows = s->rows,
      .zero_rows = s->rows - s->directed,
      .mean_cosine = mean_cosine(s),
      .mean_norm = s->norms / (double)s->rows,
      .participation_ratio = kp_participation_ratio(eigenvalues, s->columns),
      .effective_rank = exp(kp_spectral_entropy(eigenvalues, s->columns)),
  };
  return KP_OK;
}
