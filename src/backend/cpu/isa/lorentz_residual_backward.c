/* The seam of a Lorentz network, backward, in one pass.
 *
 * With a = x + w u, z = x' = κ a, r = 1 / root mean square of z, and the gradients of the two lifted times
 * folded in (y_along = g y_time / y_time, z_along = g z_time / z_time):
 *
 *     Gy = g y + y_along r κ weight a                                  the whole gradient of y
 *     g a = κ r weight Gy + κ² (z_along - r³ P/C) a + κ g z + along a,  P = <weight Gy, z>
 *     along = κ <g z, a> / q, q = a_time² - |a|²,  g a_time = -along a_time
 *
 * A first loop over a row takes the inner products, a second one writes the gradients in float.  In
 * <g z, a> the norm's part is P r³ ε/κ: the rest cancels, and is left out.  Where a time was derived, its
 * gradient goes to the space part, and the terms along x and u are combined before they are rounded. */
#include <math.h>

#include "backend/cpu/isa/lorentz_seam.h"
#include "backend/cpu/isa/row_sums.h"
#include "backend/cpu/isa/scratch.h"
#include "backend/cpu/isa/split.h"

enum { TILE = 16 };

/* Gradients of w, s and c of each row. */
typedef struct bars {
  double *w, *s, *c;
} bars;

typedef struct worker {
  const kp_lorentz_call *k;
  const float *statistics, *gz, *gz_time, *gy, *gy_time; /* incoming; NULL where absent */
  const float *ones, *zeros;                             /* (C) */
  float *gx, *gx_time, *gu, *gu_time;                    /* gu NULL: not wanted */
  bars bars;
  float *discarded;   /* (C) */
  float *tile_weight; /* (C): of the rows since the last flush */
  double *weight;     /* (C): of this thread's rows */
} worker;

/* The inner products of a row; g: the incoming gradient of z, h = weight · g y. */
typedef struct products {
  double ha, aa, ga, hu, au, gu;
  double weighted_aa, weighted_au; /* of weight · a and weight · u */
} products;

/* A row's vectors; absent ones are zeros or ones. */
typedef struct row_vectors {
  const float *x, *u, *gz, *gy, *weight;
} row_vectors;

enum { HA, AA, GA, HU, AU, GU, WEIGHTED_AA, WEIGHTED_AU, PRODUCTS };

static inline void product_step(const row_vectors *v, float w, int64_t i, int64_t count,
                                kp_floats sum[PRODUCTS]) {
  kp_floats a, u, g, h, weight;
  kp_load(v->x + i, count, &a), kp_load(v->u + i, count, &u), kp_load(v->weight + i, count, &weight);
  kp_load(v->gz + i, count, &g), kp_load(v->gy + i, count, &h);
  a += w * u, h *= weight;
  sum[HA] += h * a, sum[AA] += a * a, sum[GA] += g * a;
  sum[HU] += h * u, sum[AU] += a * u, sum[GU] += g * u;
  a *= weight, u *= weight;
  sum[WEIGHTED_AA] += a * a, sum[WEIGHTED_AU] += a * u;
}

/* Lanes are summed in float over a few steps and then in double: as exact as the gradients that come in. */
static products products_of(const row_vectors *v, float w, int64_t C) {
  enum { STEPS = 16 * KP_FLOATS };
  double total[PRODUCTS] = {0};
  for (int64_t first = 0; first < C; first += STEPS) {
    kp_floats sum[PRODUCTS] = {{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}};
    const int64_t last = first + STEPS < C ? first + STEPS : C;
    const int64_t whole = first + (last - first) / KP_FLOATS * KP_FLOATS;
    for (int64_t i = first; i < whole; i += KP_FLOATS) product_step(v, w, i, KP_FLOATS, sum);
    if (whole < last) product_step(v, w, whole, last - whole, sum);
    for (int i = 0; i < PRODUCTS; i++) total[i] += (double)kp_total_float(&sum[i]);
  }
  return (products){total[HA], total[AA], total[GA],          total[HU],
                    total[AU], total[GU], total[WEIGHTED_AA], total[WEIGHTED_AU]};
}

/* Factors of a row's gradients:
 *     G = gy + y_part (weight a),  h = y_factor weight G + a_factor a + z_factor gz
 *     gx = h + xx x + xu u,  gu = w h + xu x + uu u */
typedef struct factors {
  float w, y_part, y_factor, a_factor, z_factor, xx, xu, uu;
} factors;

static factors norm_alone(const products *p, double inverse, double y_along, const kp_lorentz_call *k) {
  const double P = p->ha + y_along * inverse * p->weighted_aa;
  return (factors){.y_part = (float)(y_along * inverse),
                   .y_factor = (float)inverse,
                   .a_factor = (float)(-inverse * inverse * inverse * P / (double)k->C),
                   .z_factor = 1};
}

static double gradient_along(const float *g_time, int64_t n, double time) {
  return g_time == NULL ? 0 : (double)g_time[n] / time;
}

static factors row_factors(const worker *t, int64_t n, const products *p) {
  const kp_lorentz_call *k = t->k;
  const float *statistics = t->statistics + n * KP_LORENTZ_STATISTICS;
  const double w = kp_lorentz_branch_weight(k, n), unit = (double)statistics[KP_LORENTZ_FACTOR];
  const double kappa = k->u == NULL ? 1 : k->s * unit, epsilon = k->arguments->epsilon;
  const double squares = kappa * kappa * p->aa;
  const double r = k->arguments->norm ? 1 / sqrt(squares / (double)k->C + epsilon) : 0;
  const double y_squares = kappa * kappa * r * r * p->weighted_aa;
  const double z_along = gradient_along(t->gz_time, n, sqrt(squares + k->c));
  const double y_along = gradient_along(t->gy_time, n, sqrt(y_squares + k->c));
  t->bars.c[n] = 0.5 * (z_along + y_along), t->bars.w[n] = t->bars.s[n] = 0;
  if (k->u == NULL) return norm_alone(p, r, y_along, k);
  const double tx = (double)statistics[KP_LORENTZ_STREAM_TIME],
               tu = (double)statistics[KP_LORENTZ_BRANCH_TIME];
  const double part = y_along * r * kappa, cube = r * r * r;
  const double P = p->ha + part * p->weighted_aa; /* <weight G, a> */
  const double common = cube * kappa * P / (double)k->C;
  const double z_a = P * cube * epsilon + p->ga + z_along * kappa * p->aa;
  const double z_u = r * (p->hu + part * p->weighted_au) + p->gu + (z_along - common) * kappa * p->au;
  const double along = kappa * z_a * (double)statistics[KP_LORENTZ_INVERSE_SQUARE];
  const double time_bar = -along * (tx + w * tu);
  factors f = {.w = (float)w,
               .y_part = (float)part,
               .y_factor = (float)(kappa * r),
               .a_factor = (float)(kappa * kappa * (z_along - common)),
               .z_factor = (float)kappa,
               .xx = (float)along,
               .xu = (float)(w * along),
               .uu = (float)(w * w * along)};
  t->bars.w[n] = kappa * z_u + along * p->au + time_bar * tu;
  t->bars.s[n] = unit * z_a;
  t->bars.c[n] += kappa * z_a / (2 * k->c);
  if (k->x_time == NULL) {
    f.xx = (float)(-along * w * tu / tx);
    t->bars.c[n] += 0.5 * time_bar / tx;
  } else if (t->gx_time != NULL) {
    t->gx_time[n] = (float)time_bar;
  }
  if (k->u_time == NULL) {
    f.uu = (float)(-along * w * tx / tu);
    t->bars.c[n] += 0.5 * w * time_bar / tu;
  } else if (t->gu_time != NULL) {
    t->gu_time[n] = (float)(w * time_bar);
  }
  return f;
}

/* gx may be gz. */
static void gradient_row(const row_vectors *v, factors f, int64_t C, float *gx, float *gu, float *g_weight) {
#pragma omp simd
  for (int64_t i = 0; i < C; i++) {
    const float x = v->x[i], u = v->u[i], weight = v->weight[i], a = x + f.w * u;
    const float gy = v->gy[i] + f.y_part * (weight * a);
    const float h = f.y_factor * (weight * gy) + f.a_factor * a + f.z_factor * v->gz[i];
    gx[i] = h + f.xx * x + f.xu * u;
    gu[i] = f.w * h + f.xu * x + f.uu * u;
    g_weight[i] += f.y_factor * (a * gy);
  }
}

/* The same without u. */
static void norm_gradient_row(const row_vectors *v, factors f, int64_t C, float *gx, float *g_weight) {
#pragma omp simd
  for (int64_t i = 0; i < C; i++) {
    const float x = v->x[i], weight = v->weight[i], gy = v->gy[i] + f.y_part * (weight * x);
    gx[i] = f.y_factor * (weight * gy) + f.a_factor * x + f.z_factor * v->gz[i];
    g_weight[i] += f.y_factor * (x * gy);
  }
}

static const float *row_or(const float *rows, int64_t at, const float *absent) {
  return rows == NULL ? absent : rows + at;
}

static void back_row(const worker *t, int64_t n) {
  const kp_lorentz_call *k = t->k;
  const int64_t C = k->C, at = n * C;
  const row_vectors v = {k->x + at, row_or(k->u, at, t->zeros), row_or(t->gz, at, t->zeros),
                         row_or(t->gy, at, t->zeros), row_or(k->weight, 0, t->ones)};
  const products p = products_of(&v, k->u == NULL ? 0 : (float)kp_lorentz_branch_weight(k, n), C);
  const factors f = row_factors(t, n, &p);
  if (k->u == NULL)
    norm_gradient_row(&v, f, C, t->gx + at, t->tile_weight);
  else
    gradient_row(&v, f, C, t->gx + at, t->gu == NULL ? t->discarded : t->gu + at, t->tile_weight);
}

static void work(const worker *t, kp_range range) {
  const int64_t C = t->k->C;
  for (int64_t i = 0; i < C; i++) t->weight[i] = 0;
  for (int64_t first = range.first; first < range.last; first += TILE) {
    const int64_t last = first + TILE < range.last ? first + TILE : range.last;
    for (int64_t i = 0; i < C; i++) t->tile_weight[i] = 0;
    for (int64_t n = first; n < last; n++) back_row(t, n);
    for (int64_t i = 0; i < C; i++) t->weight[i] += (double)t->tile_weight[i];
  }
}

/* What all threads share, and what each has. */
static void lay_out_common(kp_scratch *scratch, int64_t rows, int64_t C, bars *b, float **ones,
                           float **zeros) {
  b->w = kp_scratch_take(scratch, (size_t)rows, sizeof(double));
  b->s = kp_scratch_take(scratch, (size_t)rows, sizeof(double));
  b->c = kp_scratch_take(scratch, (size_t)rows, sizeof(double));
  *ones = kp_scratch_take(scratch, (size_t)C, sizeof(float));
  *zeros = kp_scratch_take(scratch, (size_t)C, sizeof(float));
}

static void lay_out(kp_scratch *scratch, int64_t C, worker *t) {
  t->weight = kp_scratch_take(scratch, (size_t)C, sizeof(double));
  t->tile_weight = kp_scratch_take(scratch, (size_t)C, sizeof(float));
  t->discarded = kp_scratch_take(scratch, (size_t)C, sizeof(float));
}

size_t KP_SCRATCH(lorentz_residual_backward)(const kp_node *node, int threads) {
  const int64_t rows = kp_tensor_rows(node->input[0]), C = kp_tensor_columns(node->input[0]);
  kp_scratch scratch = {NULL, 64};
  bars b;
  float *ones, *zeros;
  worker t;
  lay_out_common(&scratch, rows, C, &b, &ones, &zeros);
  for (int i = 0; i < threads; i++) lay_out(&scratch, C, &t);
  return scratch.used;
}

static void add_bars(const double *row_bars, int64_t rows, float *gradient) {
  double sum = 0;
  if (gradient == NULL) return;
  for (int64_t n = 0; n < rows; n++) sum += row_bars[n];
  *gradient += (float)sum;
}

static void add_scalars(const kp_call *call, const kp_lorentz_call *k, const bars *b) {
  float *gw = call->output[4];
  if (k->one_w)
    add_bars(b->w, k->rows, gw);
  else
    for (int64_t n = 0; n < k->rows && gw != NULL; n++) gw[n] += (float)b->w[n];
  add_bars(b->s, k->rows, call->output[5]);
  add_bars(b->c, k->rows, call->output[7]);
}

kp_status KP_KERNEL(lorentz_residual_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_lorentz_call k = kp_lorentz_call_of(call);
  kp_scratch scratch = kp_scratch_at(call->scratch), one = {NULL, 0};
  float *ones, *zeros;
  worker common = {.k = &k,
                   .statistics = call->input[8],
                   .gz = call->input[9],
                   .gz_time = call->input[10],
                   .gy = call->input[11],
                   .gy_time = call->input[12],
                   .gx = call->output[0],
                   .gx_time = call->output[1],
                   .gu = call->output[2],
                   .gu_time = call->output[3]};
  lay_out_common(&scratch, k.rows, k.C, &common.bars, &ones, &zeros);
  for (int64_t i = 0; i < k.C; i++) ones[i] = 1, zeros[i] = 0;
  common.ones = ones, common.zeros = zeros;
  worker shape = common;
  lay_out(&one, k.C, &shape);
  const int threads = kp_threads_for(call, k.rows * k.C);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    worker t = common;
    kp_scratch own = {scratch.base + scratch.used + (size_t)part * one.used, 0};
    lay_out(&own, k.C, &t);
    work(&t, kp_split(k.rows, TILE, part, threads));
  }
  lay_out(&scratch, k.C, &shape);
  kp_add_parts(shape.weight, one.used, threads, k.C, call->output[6]);
  add_scalars(call, &k, &common.bars);
  return KP_OK;
}
