#include "backend/cpu/limits.h"

#include <omp.h>
#include <stdbool.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/sgemm.h"
#include "core/arena.h"

/* Repeats until this time has passed, and at least so often. */
static const double seconds_enough = 0.2;
enum { REPETITIONS = 5 };

/* One pass of a measurement by one of `threads` threads. */
typedef struct kp_probe {
  void (*pass)(const struct kp_probe *probe, int part, int parts);
  float *x, *w;
  float *y;
  int64_t count, rows, columns, depth;
  bool once; /* nobody asks for the time */
  const kp_cpu_functions *functions;
} kp_probe;

static double best_seconds(const kp_probe *probe, int threads) {
  double best = 1e30, spent = 0;
  for (int repetition = 0; repetition < REPETITIONS || spent < seconds_enough; repetition++) {
    double start = omp_get_wtime();
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int part = 0; part < threads; part++) probe->pass(probe, part, threads);
    const double seconds = omp_get_wtime() - start;
    spent += seconds;
    if (seconds < best) best = seconds;
    if (probe->once) break;
  }
  return best;
}

static void copy_pass(const kp_probe *probe, int part, int parts) {
  const int64_t first = probe->count * part / parts, last = probe->count * (part + 1) / parts;
  probe->functions->copy(probe->x + first, probe->y + first, last - first);
}

/* The sum is stored, so that reading cannot be left out. */
static void read_pass(const kp_probe *probe, int part, int parts) {
  const int64_t first = probe->count * part / parts, last = probe->count * (part + 1) / parts;
  probe->y[16 * part] = probe->functions->read(probe->x + first, last - first);
}

static void product_pass(const kp_probe *probe, int part, int parts) {
  const bool by_rows = probe->rows >= probe->columns;
  const int64_t whole = by_rows ? probe->rows : probe->columns;
  const int64_t first = whole * part / parts, size = whole * (part + 1) / parts - first;
  if (size == 0) return;
  const float *x = by_rows ? probe->x + first * probe->depth : probe->x;
  const float *w = by_rows ? probe->w : probe->w + first * probe->depth;
  float *y = probe->y + (by_rows ? first * probe->columns : first);
  kp_sgemm(false, true, by_rows ? size : probe->rows, by_rows ? probe->columns : size, probe->depth, 1.0f, x,
           probe->depth, w, probe->depth, 0.0f, y, probe->columns);
}

/* The other two products of a linear layer's training step: the gradient of its input and that of its weight.
 */
static void input_gradient_pass(const kp_probe *p, int part, int parts) {
  const int64_t first = p->rows * part / parts, size = p->rows * (part + 1) / parts - first;
  if (size > 0)
    kp_sgemm(false, false, size, p->depth, p->columns, 1.0f, p->y + first * p->columns, p->columns, p->w,
             p->depth, 0.0f, p->x + first * p->depth, p->depth);
}

static void weight_gradient_pass(const kp_probe *p, int part, int parts) {
  const int64_t first = p->columns * part / parts, size = p->columns * (part + 1) / parts - first;
  if (size > 0)
    kp_sgemm(true, false, size, p->depth, p->rows, 1.0f, p->y + first, p->columns, p->x, p->depth, 0.0f,
             p->w + first * p->depth, p->depth);
}

/* Measures `probe` with fresh buffers of x, w and y of so many floats. */
static kp_status measure(kp_probe *probe, int64_t x_count, int64_t w_count, int64_t y_count, int threads,
                         double *seconds, kp_error *error) {
  void *x = NULL, *w = NULL, *y = NULL;
  kp_status status = kp_buffer_create((size_t)x_count * sizeof(float), "a measurement", &x, error);
  if (status == KP_OK) status = kp_buffer_create((size_t)w_count * sizeof(float), "a measurement", &w, error);
  if (status == KP_OK) status = kp_buffer_create((size_t)y_count * sizeof(float), "a measurement", &y, error);
  if (status == KP_OK) {
    probe->x = x;
    probe->w = w;
    probe->y = y;
    probe->functions = kp_cpu_functions_of(kp_backend_cpu());
    *seconds = best_seconds(probe, threads);
  }
  kp_buffer_destroy(x);
  kp_buffer_destroy(w);
  kp_buffer_destroy(y);
  return status;
}

kp_status kp_limits_copy(size_t bytes, int threads, double *gigabytes, kp_error *error) {
  threads = kp_thread_count(threads);
  kp_probe probe = {.pass = copy_pass, .count = (int64_t)(bytes / sizeof(float))};
  double seconds = 0;
  KP_TRY(measure(&probe, probe.count, 0, probe.count, threads, &seconds, error));
  *gigabytes = 2e-9 * (double)bytes / seconds;
  return KP_OK;
}

kp_status kp_limits_read(size_t bytes, int threads, double *gigabytes, kp_error *error) {
  threads = kp_thread_count(threads);
  kp_probe probe = {.pass = read_pass, .count = (int64_t)(bytes / sizeof(float))};
  double seconds = 0;
  KP_TRY(measure(&probe, probe.count, 0, 16 * (int64_t)threads, threads, &seconds, error));
  *gigabytes = 1e-9 * (double)bytes / seconds;
  return KP_OK;
}

kp_status kp_limits_product(int64_t rows, int64_t columns, int64_t depth, int threads, double *gigaflops,
                            kp_error *error) {
  threads = kp_thread_count(threads);
  kp_probe probe = {.pass = product_pass, .rows = rows, .columns = columns, .depth = depth};
  double seconds = 0;
  KP_TRY(measure(&probe, rows * depth, columns * depth, rows * columns, threads, &seconds, error));
  *gigaflops = 2e-9 * (double)rows * (double)columns * (double)depth / seconds;
  return KP_OK;
}

kp_status kp_limits_warm_up(int64_t rows, int64_t columns, int64_t depth, int threads, kp_error *error) {
  static void (*const passes[])(const kp_probe *, int, int) = {product_pass, input_gradient_pass,
                                                               weight_gradient_pass};
  for (int i = 0; i < 3; i++) {
    kp_probe probe = {.pass = passes[i], .rows = rows, .columns = columns, .depth = depth, .once = true};
    double seconds = 0;
    KP_TRY(measure(&probe, rows * depth, columns * depth, rows * columns, threads, &seconds, error));
  }
  return KP_OK;
}
