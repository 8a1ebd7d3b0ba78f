/* One result a token from its experts' results: a weighted sum, the Lorentz centroid, or the published fold.
 *
 * Each result is Σ α_i y_i, where the coefficients α depend only on the Gram
 * matrix of the token's points and on the weights: one pass over the points
 * for the Gram matrix, a small program in double, one pass for the sum.  The
 * backward pass has the same form: inner products of the gradient with the
 * points, the program in reverse, and each point's gradient as a combination
 * of the output's gradient and the points.  A flat sum needs no Gram matrix. */
#include <math.h>
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"

enum { FIRST_SHARED_INPUT = 4, FIRST_SHARED_BACKWARD = 6, FIRST_SHARED_OUTPUT = 3 };

/* Channels summed in double at a time. */
enum { BLOCK = 256 };

typedef struct combination {
  const kp_combine_arguments *arguments;
  int64_t N, C;
  int k, shared, points;
  const float *rows, *weights;
  void *const *z; /* the shared results */
  const int32_t *slot;
  double c;
} combination;

static combination combination_of(const kp_call *call, int first_shared) {
  const kp_node *node = call->node;
  combination m = {.arguments = node->arguments,
                   .N = kp_tensor_rows(node->input[1]),
                   .C = kp_tensor_columns(node->input[0]),
                   .k = (int)kp_tensor_columns(node->input[1]),
                   .shared = node->inputs - first_shared,
                   .rows = call->input[0],
                   .slot = call->input[1],
                   .weights = call->input[2],
                   .z = call->input + first_shared,
                   .c = call->input[3] == NULL ? 1 : (double)*(const float *)call->input[3]};
  m.points = m.shared + m.k;
  return m;
}

/* What a thread needs for one token of P points. */
typedef struct worker {
  const float **y;     /* (P): the shared points, then the experts' in ascending order */
  int64_t *pair;       /* (P): where an expert's weight stands */
  double *w, *t;       /* (P): weights and times */
  double *alpha;       /* (P) */
  double *a0, *square; /* (P): each step's a: its time, and the square of its space */
  double *factor;      /* (P): S √c/N(a) */
  double *unwound;     /* (P): α before the steps that are taken back */
  double *gw, *gt;     /* (P): gradients of weights and times */
  double *gram;        /* (P, P), the lower triangle */
  double *ggram;       /* (P, P) */
} worker;

/* Cuts a thread's memory into its pieces, or with NULL only measures it; returns its size in doubles. */
static size_t lay_out(int points, double *memory, worker *w) {
  enum { VECTORS = 11, MATRICES = 2 };
  const size_t P = (size_t)points;
  double *piece[VECTORS + MATRICES];
  size_t used = 0;
  for (int i = 0; i < VECTORS + MATRICES; i++) {
    piece[i] = memory == NULL ? NULL : memory + used;
    used += i < VECTORS ? P : P * P;
  }
  *w = (worker){.y = (const float **)piece[0],
                .pair = (int64_t *)piece[1],
                .w = piece[2],
                .t = piece[3],
                .alpha = piece[4],
                .a0 = piece[5],
                .square = piece[6],
                .factor = piece[7],
                .unwound = piece[8],
                .gw = piece[9],
                .gt = piece[10],
                .gram = piece[11],
                .ggram = piece[12]};
  return used;
}

static size_t worker_doubles(int points) {
  worker w;
  return lay_out(points, NULL, &w);
}

static worker worker_at(int points, double *memory, int thread) {
  worker w;
  lay_out(points, memory + (size_t)thread * worker_doubles(points), &w);
  return w;
}

static size_t scratch_bytes(const kp_node *node, int first_shared, int threads) {
  const int points = (int)kp_tensor_columns(node->input[1]) + node->inputs - first_shared;
  return (size_t)threads * worker_doubles(points) * sizeof(double);
}

size_t KP_SCRATCH(expert_combine)(const kp_node *node, int threads) {
  return scratch_bytes(node, FIRST_SHARED_INPUT, threads);
}

/* Behind the workers' memory: each thread's sum of the gradient of c. */
size_t KP_SCRATCH(expert_combine_backward)(const kp_node *node, int threads) {
  return scratch_bytes(node, FIRST_SHARED_BACKWARD, threads) + (size_t)threads * sizeof(double);
}

static double inner(const float *a, const float *b, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += (double)a[i] * (double)b[i];
  return sum;
}

/* The token's points in order: insertion by place among the sorted rows, which is by expert. */
static void collect(const combination *m, int64_t n, worker *w) {
  const int32_t *slot = m->slot + n * m->k;
  for (int i = 0; i < m->shared; i++) {
    w->y[i] = (const float *)m->z[i] + n * m->C;
    w->w[i] = 1;
  }
  for (int j = 0; j < m->k; j++) {
    int place = m->shared + j;
    for (; place > m->shared && slot[w->pair[place - 1] - n * m->k] > slot[j]; place--)
      w->pair[place] = w->pair[place - 1];
    w->pair[place] = n * m->k + j;
  }
  for (int i = m->shared; i < m->points; i++) {
    w->y[i] = m->rows + m->slot[w->pair[i]] * m->C;
    w->w[i] = (double)m->weights[w->pair[i]];
  }
}

static void measure(const combination *m, worker *w) {
  for (int i = 0; i < m->points; i++) {
    for (int j = 0; j <= i; j++) w->gram[i * m->points + j] = inner(w->y[i], w->y[j], m->C);
    w->t[i] = sqrt(w->gram[i * m->points + i] + m->c);
  }
}

static double gram_of(const combination *m, const worker *w, int i, int j) {
  return w->gram[i >= j ? i * m->points + j : j * m->points + i];
}

/* √c/N(a): N² = |a0² - square|, floored. */
static double norm_factor(const combination *m, double a0, double square) {
  const double q = fabs(a0 * a0 - square), floor = m->arguments->floor;
  return sqrt(m->c / (q > floor ? q : floor));
}

/* A fold scales the sum after each point, a centroid after the last.  Leaves α; returns the result's time. */
static double run_program(const combination *m, worker *w) {
  const bool fold = m->arguments->kind == KP_COMBINE_FOLD;
  const double S = fold ? m->arguments->scale : 1;
  double time = fold ? sqrt(m->c) : 0, square = 0;
  for (int i = 0; i < m->points; i++) {
    double cross = 0;
    for (int j = 0; j < i; j++) cross += w->alpha[j] * gram_of(m, w, i, j);
    w->alpha[i] = w->w[i];
    time += w->w[i] * w->t[i];
    square += w->w[i] * (2 * cross + w->w[i] * gram_of(m, w, i, i));
    w->a0[i] = time;
    w->square[i] = square;
    w->factor[i] = 1;
    if (!fold && i + 1 < m->points) continue;
    const double factor = S * norm_factor(m, time, square);
    w->factor[i] = factor;
    for (int j = 0; j <= i; j++) w->alpha[j] *= factor;
    square *= factor * factor;
    time = sqrt(square + m->c);
  }
  return time;
}

static void add_scaled(double *restrict sum, double factor, const float *restrict y, int64_t count) {
#pragma omp simd
  for (int64_t j = 0; j < count; j++) sum[j] += factor * (double)y[j];
}

static void narrow(const double *restrict from, float *restrict to, int64_t count) {
#pragma omp simd
  for (int64_t j = 0; j < count; j++) to[j] = (float)from[j];
}

/* Σ α_i y_i. */
static void write_sum(const combination *m, const worker *w, float *out) {
  for (int64_t first = 0; first < m->C; first += BLOCK) {
    const int64_t count = m->C - first < BLOCK ? m->C - first : BLOCK;
    double sum[BLOCK] = {0};
    for (int i = 0; i < m->points; i++) add_scaled(sum, w->alpha[i], w->y[i] + first, count);
    narrow(sum, out + first, count);
  }
}

kp_status KP_KERNEL(expert_combine)(const kp_call *call, kp_error *error) {
  (void)error;
  const combination m = combination_of(call, FIRST_SHARED_INPUT);
  float *space = call->output[0], *time = call->output[1];
  const int threads = kp_threads_for(call, 2 * m.N * m.C * m.points);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const kp_range range = kp_split(m.N, 1, part, threads);
    worker w = worker_at(m.points, call->scratch, part);
    for (int64_t n = range.first; n < range.last; n++) {
      collect(&m, n, &w);
      if (m.arguments->kind == KP_COMBINE_FLAT) {
        memcpy(w.alpha, w.w, (size_t)m.points * sizeof *w.alpha);
      } else {
        measure(&m, &w);
        time[n] = (float)run_program(&m, &w);
      }
      write_sum(&m, &w, space + n * m.C);
    }
  }
  return KP_OK;
}

/* ---- backward ---- */

/* The step back over α' = factor α, square' = factor² square, time' = √(square' + c), factor = S √c/N(a);
 * `gtime` and `gsquare` are those of time' and square' and become those of time and square. */
static double reverse_scaling(const combination *m, worker *w, int i, double *gtime, double *gsquare) {
  const double a0 = w->a0[i], square = w->square[i], factor = w->factor[i], q = a0 * a0 - square;
  const double lifted = *gtime / (2 * sqrt(factor * factor * square + m->c));
  double gfactor = (*gsquare + lifted) * 2 * factor * square;
  for (int j = 0; j <= i; j++) {
    w->unwound[j] /= factor;
    gfactor += w->gw[j] * w->unwound[j];
    w->gw[j] *= factor;
  }
  const double gq = fabs(q) > m->arguments->floor ? -gfactor * factor / (2 * q) : 0;
  *gsquare = (*gsquare + lifted) * factor * factor - gq;
  *gtime = 2 * a0 * gq;
  return lifted + gfactor * factor / (2 * m->c);
}

/* The program in reverse: gw holds the gradients of the final α, <g, y_i>, and becomes that of the weights;
 * leaves ggram, that of the Gram matrix.  Returns the gradient of c. */
static double reverse_program(const combination *m, worker *w, double gtime) {
  const bool fold = m->arguments->kind == KP_COMBINE_FOLD;
  const int P = m->points;
  double gc = 0, gsquare = 0;
  memcpy(w->unwound, w->alpha, (size_t)P * sizeof *w->alpha);
  for (int i = P - 1; i >= 0; i--) {
    if (fold || i == P - 1) gc += reverse_scaling(m, w, i, &gtime, &gsquare);
    double cross = 0;
    for (int j = 0; j < i; j++) {
      const double product = gram_of(m, w, i, j);
      cross += w->unwound[j] * product;
      w->gw[j] += gsquare * 2 * w->w[i] * product;
      w->ggram[i * P + j] = gsquare * 2 * w->w[i] * w->unwound[j];
    }
    w->gw[i] += gtime * w->t[i] + gsquare * 2 * (cross + w->w[i] * gram_of(m, w, i, i));
    w->gt[i] = gtime * w->w[i];
    w->ggram[i * P + i] = gsquare * w->w[i] * w->w[i] + w->gt[i] / (2 * w->t[i]);
    gc += w->gt[i] / (2 * w->t[i]);
  }
  return gc + (fold ? gtime / (2 * sqrt(m->c)) : 0);
}

/* g y_i = α_i g + 2 G'_ii y_i + Σ_j G'_ij y_j, G' the gradient of the Gram matrix. */
static void write_gradient(const combination *m, const worker *w, int i, const float *g, float *out) {
  const bool flat = m->arguments->kind == KP_COMBINE_FLAT;
  for (int64_t first = 0; first < m->C; first += BLOCK) {
    const int64_t count = m->C - first < BLOCK ? m->C - first : BLOCK;
    double sum[BLOCK] = {0};
    if (g != NULL) add_scaled(sum, w->alpha[i], g + first, count);
    for (int j = 0; j < m->points && !flat; j++) {
      const double factor = w->ggram[i >= j ? i * m->points + j : j * m->points + i];
      add_scaled(sum, i == j ? 2 * factor : factor, w->y[j] + first, count);
    }
    narrow(sum, out + first, count);
  }
}

/* One token; returns its gradient of c. */
static double token_backward(const combination *m, const kp_call *call, int64_t n, worker *w) {
  const float *gspace = call->input[4], *gtime = call->input[5];
  const float *g = gspace == NULL ? NULL : gspace + n * m->C;
  float *grows = call->output[0], *gweights = call->output[1];
  double gc = 0;
  collect(m, n, w);
  for (int i = 0; i < m->points; i++) w->gw[i] = g == NULL ? 0 : inner(g, w->y[i], m->C);
  if (m->arguments->kind == KP_COMBINE_FLAT) {
    memcpy(w->alpha, w->w, (size_t)m->points * sizeof *w->alpha);
  } else {
    measure(m, w);
    run_program(m, w);
    gc = reverse_program(m, w, gtime == NULL ? 0 : (double)gtime[n]);
  }
  for (int i = 0; i < m->shared; i++)
    write_gradient(m, w, i, g, (float *)call->output[FIRST_SHARED_OUTPUT + i] + n * m->C);
  for (int i = m->shared; i < m->points; i++) {
    write_gradient(m, w, i, g, grows + (int64_t)m->slot[w->pair[i]] * m->C);
    if (gweights != NULL) gweights[w->pair[i]] = (float)w->gw[i];
  }
  return gc;
}

kp_status KP_KERNEL(expert_combine_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const combination m = combination_of(call, FIRST_SHARED_BACKWARD);
  const int threads = kp_threads_for(call, 4 * m.N * m.C * m.points);
  float *gc = call->output[2];
  double *sums = (double *)call->scratch + (size_t)threads * worker_doubles(m.points), total = 0;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const kp_range range = kp_split(m.N, 1, part, threads);
    worker w = worker_at(m.points, call->scratch, part);
    double sum = 0;
    for (int64_t n = range.first; n < range.last; n++) sum += token_backward(&m, call, n, &w);
    sums[part] = sum;
  }
  for (int part = 0; part < threads; part++) total += sums[part];
  if (gc != NULL) *gc += (float)total;
  return KP_OK;
}
