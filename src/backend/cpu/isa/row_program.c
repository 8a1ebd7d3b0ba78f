/* Row programs as operators of their own, forward and backward, KP_LANES rows at a time.
 *
 * Inner products and combinations are in double over the float rows, as in the seam (seam.h).  Vectors that a
 * program does not have are a row of zeros. */
#include "backend/cpu/isa/seam.h"
#include "backend/cpu/isa/split.h"

typedef struct programs {
  const kp_row_program *program;
  double parameter;
  int64_t rows, C, width; /* width: columns of the output */
  const float *v[3], *g, *origin;
  kp_curvature_rows table;
} programs;

static programs programs_of(const kp_call *call, const kp_tensor *output) {
  const kp_node *node = call->node;
  const kp_row_program_arguments *arguments = node->arguments;
  programs p = {.program = &kp_row_programs[arguments->program],
                .parameter = arguments->parameter,
                .rows = kp_tensor_rows(node->input[0]),
                .C = kp_tensor_columns(node->input[0]),
                .width = kp_tensor_columns(output)};
  for (int i = 0; i < p.program->inputs; i++) p.v[i] = call->input[i];
  p.table = kp_curvature_rows_of(call->input[3], node->input[3], p.rows);
  return p;
}

/* Row n of input i. */
static const float *row_of(const programs *p, int i, int64_t n) {
  return p->v[i] == NULL ? p->origin : p->v[i] + n * p->C;
}

static void gram_row(const programs *p, int64_t n, kp_lanes *lanes, int lane) {
  const int64_t groups = p->table.groups, D = p->C / groups;
  for (int64_t group = 0; group < groups; group++) {
    const float *a = row_of(p, 0, n) + group * D, *b = row_of(p, 1, n) + group * D;
    lanes[group].kappa[lane] = kp_curvature_of_row(&p->table, n, group);
    if (p->program->inputs == 3)
      kp_gram_triple(a, b, row_of(p, 2, n) + group * D, D, &lanes[group], lane);
    else if (p->program->difference)
      kp_gram_difference(a, b, D, &lanes[group], lane);
    else
      kp_gram_pair(a, b, D, &lanes[group], lane); /* with one input b is zero */
  }
}

/* to = f_0 g + f_1 b_1 + f_2 b_2 + f_3 b_3 in the program's basis. */
static void combine(const programs *p, const double f[4], const float *g, const float *const b[3], int64_t D,
                    float *to) {
  const float *a = b[0], *second = b[1], *third = b[2];
  const double f0 = f[0], f2 = f[2], f3 = f[3], f1 = f[1];
  if (p->program->difference) {
#pragma omp simd
    for (int64_t d = 0; d < D; d++) {
      const double first = (double)a[d];
      to[d] = (float)(f0 * (double)g[d] + f1 * first + f2 * ((double)second[d] - first));
    }
    return;
  }
#pragma omp simd
  for (int64_t d = 0; d < D; d++)
    to[d] = (float)(f0 * (double)g[d] + f1 * (double)a[d] + f2 * (double)second[d] + f3 * (double)third[d]);
}

static void forward_tile(const programs *p, kp_lanes *lanes, int64_t first, int count, float *out) {
  const int64_t groups = p->table.groups, D = p->C / groups;
  kp_lanes_clear(lanes, groups);
  for (int lane = 0; lane < count; lane++) gram_row(p, first + lane, lanes, lane);
  for (int64_t group = 0; group < groups; group++)
    KP_ISA_NAME(kp_lanes_forward)(p->program->id, p->parameter, &lanes[group]);
  for (int lane = 0; lane < count; lane++)
    for (int64_t group = 0; group < groups; group++) {
      const int64_t n = first + lane;
      double c[3];
      for (int i = 0; i < 3; i++) c[i] = lanes[group].coefficients[i][lane];
      if (p->program->scalar) {
        out[n * p->width + group] = (float)c[0];
        continue;
      }
      const float *b[3];
      for (int i = 0; i < 3; i++) b[i] = row_of(p, i, n) + group * D;
      combine(p, (double[4]){0, c[0], c[1], c[2]}, p->origin, b, D, out + n * p->C + group * D);
    }
}

static void lay_out(const programs *p, kp_scratch *scratch, kp_lanes **lanes) {
  *lanes = kp_scratch_take(scratch, (size_t)p->table.groups, sizeof(kp_lanes));
}

size_t KP_SCRATCH(row_program)(const kp_node *node, int threads) {
  const kp_call shapes = {.node = node};
  const programs p = programs_of(&shapes, node->output[0]);
  kp_scratch scratch = {NULL, 64};
  kp_lanes *lanes;
  kp_scratch_take(&scratch, (size_t)p.C, sizeof(float));
  for (int i = 0; i < threads; i++) lay_out(&p, &scratch, &lanes);
  return scratch.used;
}

static float *zeros(kp_scratch *scratch, int64_t count) {
  float *row = kp_scratch_take(scratch, (size_t)count, sizeof(float));
  for (int64_t c = 0; c < count; c++) row[c] = 0;
  return row;
}

static int tile_size(kp_range range, int64_t first) {
  const int64_t left = range.last - first;
  return left < KP_TILE ? (int)left : KP_TILE;
}

kp_status KP_KERNEL(row_program)(const kp_call *call, kp_error *error) {
  (void)error;
  programs p = programs_of(call, call->node->output[0]);
  kp_scratch scratch = kp_scratch_at(call->scratch);
  p.origin = zeros(&scratch, p.C);
  const int threads = kp_threads_for(call, p.rows * p.C);
  const size_t size = (size_t)p.table.groups * sizeof(kp_lanes);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    kp_scratch own = {scratch.base + scratch.used + (size_t)part * size, 0};
    kp_lanes *lanes;
    lay_out(&p, &own, &lanes);
    const kp_range range = kp_split(p.rows, KP_TILE, part, threads);
    for (int64_t first = range.first; first < range.last; first += KP_TILE)
      forward_tile(&p, lanes, first, tile_size(range, first), call->output[0]);
  }
  return KP_OK;
}

/* ---- backward ---- */

/* <g, b_i> of each basis vector, or the gradient of the scalar itself. */
static void coefficient_gradients(const programs *p, int64_t n, int64_t group, kp_lanes *lanes, int lane) {
  const int64_t D = p->C / p->table.groups;
  if (p->program->scalar) {
    lanes->coefficients_bar[0][lane] = (double)p->g[n * p->width + group];
    return;
  }
  const float *a = row_of(p, 0, n) + group * D, *b = row_of(p, 1, n) + group * D;
  const float *c = row_of(p, 2, n) + group * D, *g = p->g + n * p->C + group * D;
  const double less = p->program->difference ? 1 : 0;
  double first = 0, second = 0, third = 0;
#pragma omp simd reduction(+ : first, second, third)
  for (int64_t d = 0; d < D; d++) {
    const double out = (double)g[d], v1 = (double)a[d];
    first += out * v1, second += out * ((double)b[d] - less * v1), third += out * (double)c[d];
  }
  lanes->coefficients_bar[0][lane] = first;
  lanes->coefficients_bar[1][lane] = second;
  lanes->coefficients_bar[2][lane] = third;
}

/* Gradients of the basis as combinations of g and the basis; row i of `factors` is that of b_i. */
static void basis_gradients(const kp_row_program *program, const kp_lanes *lanes, int lane,
                            double factors[3][4]) {
  int entry = 0;
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 4; j++) factors[i][j] = 0;
  for (int i = 0; i < program->inputs; i++) {
    if (!program->scalar) factors[i][0] = lanes->coefficients[i][lane];
    for (int j = i; j < program->inputs; j++, entry++) { /* for i = j both add: d<b,b> = 2<b,db> */
      factors[i][1 + j] += lanes->gram_bar[entry][lane];
      factors[j][1 + i] += lanes->gram_bar[entry][lane];
    }
  }
  for (int j = 0; j < 4 && program->difference; j++) factors[0][j] -= factors[program->inputs - 1][j];
}

static void backward_row(const programs *p, const kp_lanes *lanes, int64_t n, int lane,
                         void *const output[3]) {
  const int64_t groups = p->table.groups, D = p->C / groups;
  for (int64_t group = 0; group < groups; group++) {
    double factors[3][4];
    const float *b[3], *g = p->program->scalar ? p->origin : p->g + n * p->C + group * D;
    basis_gradients(p->program, &lanes[group], lane, factors);
    for (int i = 0; i < 3; i++) b[i] = row_of(p, i, n) + group * D;
    for (int i = 0; i < p->program->inputs; i++)
      if (output[i] != NULL) combine(p, factors[i], g, b, D, (float *)output[i] + n * p->C + group * D);
  }
}

static void backward_tile(const programs *p, kp_lanes *lanes, int64_t first, int count, void *const output[3],
                          double *bars) {
  const int64_t groups = p->table.groups;
  kp_lanes_clear(lanes, groups);
  for (int lane = 0; lane < count; lane++) {
    gram_row(p, first + lane, lanes, lane);
    for (int64_t group = 0; group < groups; group++)
      coefficient_gradients(p, first + lane, group, &lanes[group], lane);
  }
  for (int64_t group = 0; group < groups; group++) {
    KP_ISA_NAME(kp_lanes_both)(p->program->id, p->parameter, &lanes[group]);
    for (int lane = 0; lane < count; lane++)
      bars[(first + lane) * groups + group] = lanes[group].kappa_bar[lane];
  }
  for (int lane = 0; lane < count; lane++) backward_row(p, lanes, first + lane, lane, output);
}

size_t KP_SCRATCH(row_program_backward)(const kp_node *node, int threads) {
  const kp_call shapes = {.node = node};
  const programs p = programs_of(&shapes, node->input[4]);
  kp_scratch scratch = {NULL, 64};
  kp_lanes *lanes;
  kp_scratch_take(&scratch, (size_t)p.C, sizeof(float));
  kp_scratch_take(&scratch, (size_t)(p.rows * p.table.groups), sizeof(double));
  kp_scratch_take(&scratch, (size_t)p.table.groups, sizeof(double));
  for (int i = 0; i < threads; i++) lay_out(&p, &scratch, &lanes);
  return scratch.used;
}

kp_status KP_KERNEL(row_program_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  programs p = programs_of(call, call->node->input[4]);
  p.g = call->input[4];
  kp_scratch scratch = kp_scratch_at(call->scratch);
  p.origin = zeros(&scratch, p.C);
  double *bars = kp_scratch_take(&scratch, (size_t)(p.rows * p.table.groups), sizeof(double));
  double *sums = kp_scratch_take(&scratch, (size_t)p.table.groups, sizeof(double));
  const int threads = kp_threads_for(call, p.rows * p.C);
  const size_t size = (size_t)p.table.groups * sizeof(kp_lanes);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    kp_scratch own = {scratch.base + scratch.used + (size_t)part * size, 0};
    kp_lanes *lanes;
    lay_out(&p, &own, &lanes);
    const kp_range range = kp_split(p.rows, KP_TILE, part, threads);
    for (int64_t first = range.first; first < range.last; first += KP_TILE)
      backward_tile(&p, lanes, first, tile_size(range, first), call->output, bars);
  }
  if (call->output[3] != NULL) kp_curvature_rows_reduce(&p.table, bars, sums, call->output[3]);
  return KP_OK;
}
