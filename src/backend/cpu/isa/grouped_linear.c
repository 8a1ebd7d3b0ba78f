/* One linear map an expert on rows sorted by expert, and its gradients.
 *
 * Each expert's product is cut into tiles, as many as its share of the rows asks for, and the threads take
 * tiles as they become free: 2 or 256 experts, with equal or with very different numbers of rows, keep them
 * all busy.  Every tile is one product of the library and no sum is split between tiles, so results do not
 * depend on which thread took which.  An expert without rows has no tile.
 *
 * y = o (a (W x + time · time weight) + b): what is added is laid into the output before the product adds
 * o a W x to it. */
#include <string.h>

#include "backend/cpu/isa/linear_few.h"
#include "backend/cpu/isa/product.h"
#include "backend/cpu/sgemm.h"

/* Tiles a thread: more level out unequal ones. */
enum { TILES_A_THREAD = 4 };

static float at(const float *values, int64_t i, float absent) {
  return values == NULL ? absent : values[i];
}

/* The tiles of all experts: expert e's are first_tile[e] … first_tile[e+1]-1. */
typedef struct grouping {
  const int32_t *offsets;
  int32_t *first_tile; /* (E+1) */
  int64_t E, R;
} grouping;

static int64_t rows_of(const grouping *g, int64_t e) {
  return g->offsets[e + 1] - g->offsets[e];
}

static grouping grouping_of(const int32_t *offsets, int64_t E, int64_t R, int threads, void *scratch) {
  const grouping g = {offsets, scratch, E, R};
  g.first_tile[0] = 0;
  for (int64_t e = 0; e < E; e++) {
    const int64_t rows = rows_of(&g, e), shares = (TILES_A_THREAD * threads * rows + R - 1) / R;
    g.first_tile[e + 1] = g.first_tile[e] + (rows == 0 ? 0 : threads == 1 ? 1 : (int32_t)shares);
  }
  return g;
}

/* The expert that tile `t` belongs to. */
static int64_t expert_of(const grouping *g, int32_t t) {
  int64_t low = 0, high = g->E;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (g->first_tile[middle] <= t)
      low = middle;
    else
      high = middle;
  }
  while (g->first_tile[low + 1] <= t) low++; /* experts without tiles */
  return low;
}

/* Tile `t` of expert e's matrix of so many rows and columns. */
static kp_tile tile_of(const grouping *g, int64_t e, int32_t t, int64_t rows, int64_t columns) {
  const kp_grid grid = kp_grid_choose(rows, columns, g->first_tile[e + 1] - g->first_tile[e]);
  return kp_grid_tile(grid, rows, columns, t - g->first_tile[e]);
}

static int64_t width(kp_range range) {
  return range.last - range.first;
}

static size_t grouping_bytes(int64_t E) {
  return ((size_t)(E + 1) * sizeof(int32_t) + 63) / 64 * 64;
}

/* ---- forward ---- */

typedef struct grouped {
  const float *x, *w, *bias, *time, *time_weight, *in, *out;
  float *y;
  int64_t M, K;
} grouped;

/* o (b + a t tw) of one row, for a range of columns. */
static void lay_row(const grouped *m, int64_t e, int64_t r, kp_range columns) {
  const float a = at(m->in, e, 1), o = at(m->out, e, 1), t = o * a * at(m->time, r, 0);
  const float *bias = m->bias == NULL ? NULL : m->bias + e * m->M;
  float *y = m->y + r * m->M;
  if (bias != NULL) {
#pragma omp simd
    for (int64_t i = columns.first; i < columns.last; i++) y[i] = o * bias[i];
  } else {
    memset(y + columns.first, 0, (size_t)width(columns) * sizeof *y);
  }
  if (m->time == NULL) return;
  const float *weight = m->time_weight + e * m->M;
#pragma omp simd
  for (int64_t i = columns.first; i < columns.last; i++) y[i] += t * weight[i];
}

static void forward_tile(const grouped *m, const grouping *g, int32_t t) {
  const int64_t e = expert_of(g, t), first = g->offsets[e];
  const kp_tile tile = tile_of(g, e, t, rows_of(g, e), m->M);
  const bool laid = m->bias != NULL || m->time != NULL;
  const int64_t row = first + tile.rows.first, rows = width(tile.rows), columns = width(tile.columns);
  if (rows <= 0 || columns <= 0) return;
  for (int64_t r = row; r < row + rows && laid; r++) lay_row(m, e, r, tile.columns);
  kp_sgemm(false, true, rows, columns, m->K, at(m->in, e, 1) * at(m->out, e, 1), m->x + row * m->K, m->K,
           m->w + (e * m->M + tile.columns.first) * m->K, m->K, laid ? 1.0f : 0.0f,
           m->y + row * m->M + tile.columns.first, m->M);
}

/* A row of W x + time · time weight becomes o (a y + b). */
static void finish_row(const grouped *m, int64_t e, int64_t r) {
  const float a = at(m->in, e, 1), o = at(m->out, e, 1);
  float *y = m->y + r * m->M;
  for (int64_t i = 0; i < m->M; i++) y[i] = o * (a * y[i] + at(m->bias, e * m->M + i, 0));
}

/* For decoding: the time is that of reading the matrices. */
static void forward_few(const grouped *m, const int32_t *offsets, int64_t E, int threads) {
  const bool timed = m->time != NULL;
  for (int64_t e = 0; e < E; e++) {
    const int64_t first = offsets[e], rows = offsets[e + 1] - first;
    const kp_few_rows few = {.x = m->x + first * m->K,
                             .w = m->w + e * m->M * m->K,
                             .time = timed ? m->time + first : NULL,
                             .time_weight = timed ? m->time_weight + e * m->M : NULL,
                             .y = m->y + first * m->M,
                             .rows = rows,
                             .columns = m->M,
                             .depth = m->K,
                             .groups = timed};
    if (rows == 0) continue;
    KP_ISA_NAME(kp_cpu_linear_few)(&few, threads);
    for (int64_t r = first; r < first + rows; r++) finish_row(m, e, r);
  }
}

size_t KP_SCRATCH(grouped_linear)(const kp_node *node, int threads) {
  (void)threads;
  return grouping_bytes(node->input[2]->shape[0]);
}

size_t KP_SCRATCH(grouped_linear_backward_input)(const kp_node *node, int threads) {
  return KP_SCRATCH(grouped_linear)(node, threads);
}

kp_status KP_KERNEL(grouped_linear)(const kp_call *call, kp_error *error) {
  (void)error;
  const int64_t *shape = call->node->input[2]->shape, E = shape[0], R = kp_tensor_rows(call->node->input[0]);
  const grouped m = {.x = call->input[0],
                     .w = call->input[2],
                     .bias = call->input[3],
                     .time = call->input[4],
                     .time_weight = call->input[5],
                     .in = call->input[6],
                     .out = call->input[7],
                     .y = call->output[0],
                     .M = shape[1],
                     .K = shape[2]};
  if (R <= KP_FEW_ROWS) {
    forward_few(&m, call->input[1], E, kp_threads_for(call, R * m.M * m.K / 4));
    return KP_OK;
  }
  const int threads = kp_product_threads(R, m.M, m.K, call->run->threads);
  const grouping g = grouping_of(call->input[1], E, R, threads, call->scratch);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int32_t t = 0; t < g.first_tile[E]; t++) forward_tile(&m, &g, t);
  return KP_OK;
}

/* ---- gradient of the input: gx = o a gy W, g time = o a <gy, tw> ---- */

typedef struct grouped_input {
  const float *gy, *w, *time_weight, *in, *out;
  float *gx, *gtime;
  int64_t M, K;
} grouped_input;

static void input_tile(const grouped_input *m, const grouping *g, int32_t t) {
  const int64_t e = expert_of(g, t);
  const kp_tile tile = tile_of(g, e, t, rows_of(g, e), m->K);
  const int64_t row = g->offsets[e] + tile.rows.first, rows = width(tile.rows), columns = width(tile.columns);
  const float scale = at(m->in, e, 1) * at(m->out, e, 1);
  if (rows <= 0 || columns <= 0) return;
  kp_sgemm(false, false, rows, columns, m->M, scale, m->gy + row * m->M, m->M,
           m->w + e * m->M * m->K + tile.columns.first, m->K, 0.0f, m->gx + row * m->K + tile.columns.first,
           m->K);
  if (m->gtime == NULL || tile.columns.first > 0) return;
  for (int64_t r = row; r < row + rows; r++) {
    const float *gy = m->gy + r * m->M, *weight = m->time_weight + e * m->M;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < m->M; i++) sum += gy[i] * weight[i];
    m->gtime[r] = scale * sum;
  }
}

kp_status KP_KERNEL(grouped_linear_backward_input)(const kp_call *call, kp_error *error) {
  (void)error;
  const int64_t *shape = call->node->input[2]->shape, E = shape[0], R = kp_tensor_rows(call->node->input[0]);
  const grouped_input m = {.gy = call->input[0],
                           .w = call->input[2],
                           .time_weight = call->input[3],
                           .in = call->input[4],
                           .out = call->input[5],
                           .gx = call->output[0],
                           .gtime = call->output[1],
                           .M = shape[1],
                           .K = shape[2]};
  const int threads = kp_product_threads(R, m.M, m.K, call->run->threads);
  const grouping g = grouping_of(call->input[1], E, R, threads, call->scratch);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int32_t t = 0; t < g.first_tile[E]; t++) input_tile(&m, &g, t);
  return KP_OK;
}

/* ---- gradients of the weights: gW = o a gyᵀ x, and sums over an expert's rows ---- */

enum { SUM_WIDTH = 64, SUM_ROWS = 128 };

typedef struct grouped_weight {
  const float *gy, *x, *time, *bias, *in, *out, *y;
  float *gw, *gbias, *gtime_weight, *gin, *gout;
  int64_t M, K, blocks; /* blocks of SUM_WIDTH columns */
  double *sums;         /* (E, blocks, 2): Σ <gy, y> and Σ <gy, b> */
} grouped_weight;

static void weight_tile(const grouped_weight *m, const grouping *g, int32_t t) {
  const int64_t e = expert_of(g, t), first = g->offsets[e];
  const kp_tile tile = tile_of(g, e, t, m->M, m->K);
  const int64_t rows = width(tile.rows), columns = width(tile.columns);
  if (rows <= 0 || columns <= 0) return;
  kp_sgemm(true, false, rows, columns, rows_of(g, e), at(m->in, e, 1) * at(m->out, e, 1),
           m->gy + first * m->M + tile.rows.first, m->M, m->x + first * m->K + tile.columns.first, m->K, 1.0f,
           m->gw + (e * m->M + tile.rows.first) * m->K + tile.columns.first, m->K);
}

/* Column sums of some columns over one expert's rows. */
typedef struct column_sums {
  double plain[SUM_WIDTH], with_time[SUM_WIDTH], with_output;
} column_sums;

/* Rows are summed in blocks first, so that rounding errors grow with the block and not with the batch. */
static void sum_block(const grouped_weight *m, kp_range rows, int64_t first, int64_t count, column_sums *s) {
  float plain[SUM_WIDTH] = {0}, with_time[SUM_WIDTH] = {0}, with_output[SUM_WIDTH] = {0};
  for (int64_t r = rows.first; r < rows.last; r++) {
    const float *gy = m->gy + r * m->M + first;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) plain[i] += gy[i];
    if (m->time != NULL) {
      const float t = m->time[r];
#pragma omp simd
      for (int64_t i = 0; i < count; i++) with_time[i] += t * gy[i];
    }
    if (m->y != NULL) {
      const float *y = m->y + r * m->M + first;
#pragma omp simd
      for (int64_t i = 0; i < count; i++) with_output[i] += y[i] * gy[i];
    }
  }
  for (int64_t i = 0; i < count; i++) {
    s->plain[i] += (double)plain[i];
    s->with_time[i] += (double)with_time[i];
    s->with_output += (double)with_output[i];
  }
}

static void sum_columns(const grouped_weight *m, const grouping *g, int64_t unit) {
  const int64_t e = unit / m->blocks, first = unit % m->blocks * SUM_WIDTH;
  const int64_t count = m->M - first < SUM_WIDTH ? m->M - first : SUM_WIDTH;
  const double a = (double)at(m->in, e, 1), o = (double)at(m->out, e, 1);
  column_sums s = {{0}, {0}, 0};
  double with_bias = 0;
  for (int64_t r = g->offsets[e]; r < g->offsets[e + 1]; r += SUM_ROWS) {
    const int64_t last = r + SUM_ROWS < g->offsets[e + 1] ? r + SUM_ROWS : g->offsets[e + 1];
    sum_block(m, (kp_range){r, last}, first, count, &s);
  }
  for (int64_t i = 0; i < count; i++) {
    const int64_t place = e * m->M + first + i;
    if (m->gbias != NULL) m->gbias[place] += (float)(o * s.plain[i]);
    if (m->gtime_weight != NULL) m->gtime_weight[place] += (float)(o * a * s.with_time[i]);
    if (m->bias != NULL) with_bias += (double)m->bias[place] * s.plain[i];
  }
  m->sums[2 * unit] = s.with_output;
  m->sums[2 * unit + 1] = with_bias;
}

/* g_o = Σ <gy, y>/o and g_a = (Σ <gy, y> - o Σ <gy, b>)/a. */
static void add_scale_gradients(const grouped_weight *m, int64_t E) {
  for (int64_t e = 0; e < E; e++) {
    const double a = (double)at(m->in, e, 1), o = (double)at(m->out, e, 1);
    double with_output = 0, with_bias = 0;
    for (int64_t unit = e * m->blocks; unit < (e + 1) * m->blocks; unit++) {
      with_output += m->sums[2 * unit];
      with_bias += m->sums[2 * unit + 1];
    }
    if (m->gin != NULL) m->gin[e] += (float)((with_output - o * with_bias) / a);
    if (m->gout != NULL) m->gout[e] += (float)(with_output / o);
  }
}

static int64_t sum_blocks(int64_t M) {
  return (M + SUM_WIDTH - 1) / SUM_WIDTH;
}

size_t KP_SCRATCH(grouped_linear_backward_weight)(const kp_node *node, int threads) {
  (void)threads;
  const int64_t E = kp_tensor_count(node->input[1]) - 1, M = kp_tensor_columns(node->input[0]);
  return grouping_bytes(E) + (size_t)(2 * E * sum_blocks(M)) * sizeof(double);
}

kp_status KP_KERNEL(grouped_linear_backward_weight)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const int64_t E = kp_tensor_count(node->input[1]) - 1, R = kp_tensor_rows(node->input[0]);
  const int64_t M = kp_tensor_columns(node->input[0]), K = kp_tensor_columns(node->input[2]);
  const grouped_weight m = {.gy = call->input[0],
                            .x = call->input[2],
                            .time = call->input[3],
                            .bias = call->input[4],
                            .in = call->input[5],
                            .out = call->input[6],
                            .y = call->input[7],
                            .gw = call->output[0],
                            .gbias = call->output[1],
                            .gtime_weight = call->output[2],
                            .gin = call->output[3],
                            .gout = call->output[4],
                            .M = M,
                            .K = K,
                            .blocks = sum_blocks(M),
                            .sums = (double *)((char *)call->scratch + grouping_bytes(E))};
  const int threads = kp_product_threads(R, M, K, call->run->threads);
  const grouping g = grouping_of(call->input[1], E, R, threads, call->scratch);
  const int32_t tiles = m.gw == NULL ? 0 : g.first_tile[E];
  const bool scales = m.gin != NULL || m.gout != NULL;
  const bool sums = m.gbias != NULL || m.gtime_weight != NULL || scales;
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(dynamic, 1) nowait
    for (int32_t t = 0; t < tiles; t++) weight_tile(&m, &g, t);
#pragma omp for schedule(dynamic, 1)
    for (int64_t unit = 0; unit < (sums ? E * m.blocks : 0); unit++) sum_columns(&m, &g, unit);
  }
  if (scales) add_scale_gradients(&m, E);
  return KP_OK;
}
