/* The fast kernels of geometry against the reference backend, on every instruction set of this processor.
 *
 * Random shapes and every program that the models combine.  Both backends get the same float values.  Errors
 * are relative to the largest magnitude of the array: 2e-6 for results, 1e-5 for gradients.  Gradients that
 * kernels add to start from random values. */
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/executor.h"
#include "core/random.h"
#include "geometry/row_program.h"
#include "ops/ops.h"

static const double result_tolerance = 2e-6, gradient_tolerance = 1e-5;

/* ---- random numbers ---- */

static uint64_t drawn;

static double uniform(void) {
  return (double)(kp_random_bits(20, KP_RANDOM_GENERIC, 0, drawn++) >> 11) * 0x1p-53;
}
static double between(double low, double high) {
  return low + (high - low) * uniform();
}
static int choose(int count) {
  return (int)(uniform() * count);
}
static double normal(void) {
  return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform());
}

/* ---- one node on two backends ---- */

typedef struct bench {
  kp_graph *graph;
  kp_tensor *input[KP_MAX_INPUTS], *output[KP_MAX_OUTPUTS];
  double *value[KP_MAX_INPUTS];                              /* of the inputs */
  double *start[KP_MAX_OUTPUTS];                             /* of outputs that are added to */
  double *expected[KP_MAX_OUTPUTS], *actual[KP_MAX_OUTPUTS]; /* results */
  int32_t *tokens;                                           /* the value of an int32 input */
} bench;

static bench bench_create(void) {
  return (bench){.graph = kp_graph_create(kp_operator_table)};
}

static void bench_destroy(bench *b) {
  for (int i = 0; i < KP_MAX_INPUTS; i++) free(b->value[i]);
  for (int i = 0; i < KP_MAX_OUTPUTS; i++) free(b->start[i]), free(b->expected[i]), free(b->actual[i]);
  kp_graph_destroy(b->graph);
}

static double *numbers(int64_t count) {
  double *memory = calloc((size_t)count + 1, sizeof *memory);
  assert_non_null(memory);
  return memory;
}

/* An input of float values; `fill` writes them. */
static double *give(bench *b, int slot, kp_type type, int dimensions, const int64_t *shape) {
  b->input[slot] = kp_graph_input(b->graph, "input", type, dimensions, shape);
  b->value[slot] = numbers(kp_tensor_count(b->input[slot]));
  return b->value[slot];
}

static double *give_matrix(bench *b, int slot, kp_type type, int64_t rows, int64_t columns) {
  return give(b, slot, type, 2, (int64_t[]){rows, columns});
}

static void want(bench *b, int slot, kp_type type, int64_t rows, int64_t columns) {
  b->output[slot] = kp_graph_activation(b->graph, "output", type, 2, (int64_t[]){rows, columns});
  kp_graph_keep(b->output[slot]);
}

/* An output that the kernel adds to. */
static void want_sum(bench *b, int slot, const kp_tensor *like) {
  b->output[slot] = kp_graph_state(b->graph, "sum", like->type, like->dimensions, like->shape);
  const int64_t count = kp_tensor_count(like);
  b->start[slot] = numbers(count);
  for (int64_t i = 0; i < count; i++) b->start[slot][i] = (double)(float)between(-1, 1);
}

static void round_inputs(bench *b) {
  for (int i = 0; i < KP_MAX_INPUTS; i++)
    for (int64_t j = 0; b->value[i] != NULL && j < kp_tensor_count(b->input[i]); j++)
      b->value[i][j] = (double)(float)b->value[i][j];
}

static void run_on(bench *b, const kp_backend *backend, int threads, double *result[KP_MAX_OUTPUTS]) {
  kp_error error = {0};
  kp_executor *executor;
  kp_executor_options options = {.threads = threads, .poison = true};
  check_ok(kp_executor_create(b->graph, backend, NULL, options, &executor, &error), &error);
  for (int i = 0; i < KP_MAX_INPUTS; i++)
    if (b->value[i] != NULL) kp_executor_write(executor, b->input[i], b->value[i]);
  for (int i = 0; i < KP_MAX_INPUTS; i++)
    if (b->input[i] != NULL && b->input[i]->type == KP_TYPE_INT32)
      kp_executor_write_int32(executor, b->input[i], b->tokens);
  for (int i = 0; i < KP_MAX_OUTPUTS; i++)
    if (b->start[i] != NULL) kp_executor_write(executor, b->output[i], b->start[i]);
  check_ok(kp_executor_run(executor, 0, b->graph->node_count, &error), &error);
  for (int i = 0; i < KP_MAX_OUTPUTS; i++) {
    if (b->output[i] == NULL) continue;
    if (result[i] == NULL) result[i] = numbers(kp_tensor_count(b->output[i]));
    kp_executor_read(executor, b->output[i], result[i]);
  }
  kp_executor_destroy(executor);
}

static void compare(const bench *b, int slot, double tolerance, const char *what) {
  double largest = 0, worst = 0;
  const int64_t count = kp_tensor_count(b->output[slot]);
  for (int64_t i = 0; i < count; i++) {
    const double expected = b->expected[slot][i], actual = b->actual[slot][i];
    if (isnan(expected) != isnan(actual))
      fail_msg("%s: output %d element %lld is %g, not %g", what, slot, (long long)i, actual, expected);
    if (isnan(expected)) continue;
    largest = fmax(largest, fabs(expected));
    worst = fmax(worst, fabs(actual - expected));
  }
  if (worst > tolerance * largest)
    fail_msg("%s: output %d is off by %.2g of %.3g", what, slot, worst / largest, largest);
}

static const char *const isas[] = {"sse", "avx2", "avx512", "plain"};

/* Results (not sums of gradients) are the same to the last bit with one thread and with two. */
static void check_thread_count(bench *b, const kp_backend *backend, const char *what) {
  double *alone[KP_MAX_OUTPUTS] = {NULL};
  run_on(b, backend, 1, alone);
  for (int slot = 0; slot < KP_MAX_OUTPUTS; slot++) {
    if (b->output[slot] == NULL) continue;
    const size_t size = (size_t)kp_tensor_count(b->output[slot]) * sizeof(double);
    if (memcmp(alone[slot], b->actual[slot], size) != 0)
      fail_msg("%s, %s: output %d depends on the number of threads", what, backend->name, slot);
    free(alone[slot]);
  }
}

/* Runs the graph's node on ref and, with 1 and 2 threads, on every fast backend.  Slots of `exact` must agree
 * to the last digit; those of `skip` are not looked at. */
static void check_node(bench *b, double tolerance, unsigned exact, unsigned skip, const char *what) {
  run_on(b, kp_backend_ref(), 1, b->expected);
  for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
    kp_error error = {0};
    const kp_backend *backend = kp_backend_cpu_named(isas[i], &error);
    if (backend == NULL) continue;
    for (int threads = 1; threads <= 2; threads++) {
      char name[512];
      snprintf(name, sizeof name, "%s, %s, %d threads", what, isas[i], threads);
      run_on(b, backend, threads, b->actual);
      for (int slot = 0; slot < KP_MAX_OUTPUTS; slot++)
        if (b->output[slot] != NULL && (skip >> slot & 1) == 0)
          compare(b, slot, (exact >> slot & 1) != 0 ? 0 : tolerance, name);
    }
    if (tolerance == result_tolerance) check_thread_count(b, backend, what);
  }
}

/* ---- the seam ---- */

typedef enum hostility { ORDINARY, BOUNDARY, HOSTILE } hostility;

typedef struct seam_case {
  int update, tangent;
  bool own, shift, given, stream_reference, curvature, affine, carry;
  int64_t B, T, D, update_groups, tangent_groups, update_rows, tangent_rows;
  kp_norm norm;
  hostility hostility;
} seam_case;

static int64_t channels(const seam_case *s) {
  return s->D * s->update_groups * s->tangent_groups;
}

static bool reads_reference(int update) {
  return update >= 0 && kp_row_programs[update].inputs == 3;
}

/* A row of length `size` in a random direction. */
static void fill_row(double *row, int64_t C, double size) {
  double square = 0;
  for (int64_t c = 0; c < C; c++) {
    row[c] = normal();
    square += row[c] * row[c];
  }
  for (int64_t c = 0; c < C; c++) row[c] *= size / sqrt(square + 1e-30);
}

static double length_of(const double *row, int64_t C) {
  double square = 0;
  for (int64_t c = 0; c < C; c++) square += row[c] * row[c];
  return sqrt(square);
}

/* Hostile rows (`far` not 0) are zero, tiny, `far` times as long, not a number, or the same as the row before
 * if that is not far out, where the least rounding would part them. */
static void fill_rows(double *rows, int64_t count, int64_t C, double size, double far) {
  for (int64_t n = 0; n < count; n++) {
    double *row = rows + n * C;
    fill_row(row, C, size * between(0.1, 1));
    if (far == 0) continue;
    int kind = choose(8);
    if (kind == 4 && (n == 0 || !(length_of(row - C, C) <= size))) kind = 5;
    for (int64_t c = 0; c < C; c++) {
      if (kind == 0) row[c] = 0;
      if (kind == 1) row[c] *= 1e-20;
      if (kind == 2) row[c] *= far;
      if (kind == 3 && c == C / 2) row[c] = NAN;
      if (kind == 4) row[c] = row[c - C];
    }
  }
}

static double some_curvature(const seam_case *s) {
  static const double values[] = {-1.3, -0.4, -1e-4, 0, 1e-3, 0.3};
  return s->hostility != ORDINARY ? -1 : values[choose(6)];
}

static bool is_published(int program) {
  return program == KP_PROGRAM_UPSTREAM_UPDATE || program == KP_PROGRAM_UPSTREAM_LOG_SCALAR ||
         program == KP_PROGRAM_UPSTREAM_LOG_PER_HEAD;
}

/* How long rows may be: well inside of the pole for κ > 0, far out near the boundary.  The published programs
 * work on points of the ball and do not resolve its boundary. */
static double some_size(const seam_case *s) {
  if (is_published(s->update) || is_published(s->tangent)) return 0.4;
  return s->hostility == BOUNDARY ? 15 : 1.2;
}

/* Points of the published programs must stay in the ball; exp_r(u) far out and gradients between points that
 * are both far out leave the range of float. */
static double some_distance(const seam_case *s) {
  if (s->hostility != HOSTILE) return 0;
  if (is_published(s->update) || is_published(s->tangent)) return 1;
  return reads_reference(s->update) || s->tangent >= 0 ? 5 : 1e5;
}

static void give_curvature(bench *b, const seam_case *s, int slot, int64_t rows, int64_t groups) {
  double *kappa = give_matrix(b, slot, KP_TYPE_STATISTIC, rows, groups);
  for (int64_t i = 0; i < rows * groups; i++) kappa[i] = some_curvature(s);
}

static kp_residual_norm_arguments arguments_of(const seam_case *s) {
  return (kp_residual_norm_arguments){
      .update = s->update,
      .tangent = s->tangent,
      .own = s->own,
      .shift = s->shift,
      .length = s->T,
      .norm = s->norm,
      .epsilon = channels(s) < 16 ? 1 : 1e-6}; /* the norm of one channel is a sign */
}

/* Inputs 0 .. 8. */
static void give_seam(bench *b, const seam_case *s, bool backward) {
  const int64_t N = s->B * s->T, C = channels(s);
  const double size = some_size(s), far = some_distance(s);
  fill_rows(give_matrix(b, 0, KP_TYPE_REAL, N, C), N, C, size, far);
  if (s->update >= 0 && !(backward && s->update == KP_PROGRAM_FLAT_ADD))
    fill_rows(give_matrix(b, 1, KP_TYPE_REAL, N, C), N, C, size / 3, far);
  if (s->given && s->stream_reference)
    b->input[2] = b->input[0];
  else if (s->given)
    fill_rows(give_matrix(b, 2, KP_TYPE_REAL, N, C), N, C, size, far);
  if (s->curvature && s->update >= 0) give_curvature(b, s, 3, s->update_rows, s->update_groups);
  if (s->curvature && s->tangent >= 0) give_curvature(b, s, 4, s->tangent_rows, s->tangent_groups);
  if (s->affine) {
    double *weight = give(b, 5, KP_TYPE_REAL, 1, &C), *bias = give(b, 6, KP_TYPE_REAL, 1, &C);
    for (int64_t c = 0; c < C; c++) weight[c] = between(0.5, 1.5), bias[c] = between(-0.5, 0.5);
  }
  if (s->carry && s->given) fill_rows(give_matrix(b, 7, KP_TYPE_REAL, s->B, C), s->B, C, size, 0);
  if (s->carry && s->own) fill_rows(give_matrix(b, 8, KP_TYPE_REAL, s->B, C), s->B, C, size, 0);
}

static void want_seam(bench *b, const seam_case *s) {
  const int64_t N = s->B * s->T, C = channels(s);
  if (s->update >= 0) want(b, 0, KP_TYPE_REAL, N, C);
  if (s->norm != KP_NORM_NONE) {
    want(b, 1, KP_TYPE_REAL, N, C);
    want(b, 2, KP_TYPE_STATISTIC, N, 2);
  }
  want(b, 3, KP_TYPE_STATISTIC, 1, 1);
}

static void describe(const seam_case *s, char text[256]) {
  snprintf(text, 256, "%s + %s%s%s%s%s, B %d T %d C %d, G %d %d, K %d %d, norm %d, kind %d",
           s->update < 0 ? "none" : kp_row_programs[s->update].name,
           s->tangent < 0 ? "none" : kp_row_programs[s->tangent].name, s->own ? ", own" : "",
           s->given ? ", given" : "", s->shift ? " shifted" : "", s->stream_reference ? " stream" : "",
           (int)s->B, (int)s->T, (int)channels(s), (int)s->update_groups, (int)s->tangent_groups,
           (int)s->update_rows, (int)s->tangent_rows, (int)s->norm, (int)s->hostility);
}

static void copy_input(bench *to, int slot, const bench *from, int from_slot) {
  const kp_tensor *tensor = from->input[from_slot];
  if (tensor == NULL) return;
  const double *values = from->value[from_slot];
  if (values == NULL) values = from->value[0]; /* a reference that is the stream */
  memcpy(give(to, slot, tensor->type, tensor->dimensions, tensor->shape), values,
         (size_t)kp_tensor_count(tensor) * sizeof *values);
}

/* The statistics that belong to x' as rounded to float: those of a seam that has x' for its stream. */
static void give_statistics(bench *b, const bench *forward, const seam_case *s) {
  const int64_t N = s->B * s->T, C = channels(s);
  bench plain = bench_create();
  kp_residual_norm_arguments arguments = arguments_of(s);
  arguments.update = -1;
  memcpy(give_matrix(&plain, 0, KP_TYPE_REAL, N, C),
         s->update >= 0 ? forward->expected[0] : forward->value[0], (size_t)(N * C) * sizeof(double));
  for (int i = 2; i < 9; i++)
    if (i != 3) copy_input(&plain, i, forward, i);
  for (int i = 1; i < 3; i++) want(&plain, i, KP_TYPE_REAL, N, i == 1 ? C : 2);
  want(&plain, 3, KP_TYPE_STATISTIC, 1, 1);
  round_inputs(&plain);
  kp_graph_node(plain.graph, KP_OP_RESIDUAL_NORM, &arguments, sizeof arguments, 9, plain.input, 4,
                plain.output);
  run_on(&plain, kp_backend_ref(), 1, plain.expected);
  memcpy(give_matrix(b, 12, KP_TYPE_STATISTIC, N, 2), plain.expected[2], (size_t)(2 * N) * sizeof(double));
  bench_destroy(&plain);
}

/* The backward node on values that the forward gave; x' and the statistics rounded to float. */
static void check_seam_backward(const bench *forward, const seam_case *s, const char *what) {
  const int64_t N = s->B * s->T, C = channels(s);
  bench b = bench_create();
  kp_residual_norm_arguments arguments = arguments_of(s);
  arguments.stream_reference = s->stream_reference && !s->own && !reads_reference(s->update);
  const uint64_t before = drawn;
  give_seam(&b, s, true);
  drawn = before;
  for (int i = 0; i < 9; i++)
    if (b.value[i] != NULL)
      memcpy(b.value[i], forward->value[i], (size_t)kp_tensor_count(b.input[i]) * sizeof(double));
  if (s->update >= 0)
    memcpy(give_matrix(&b, 9, KP_TYPE_REAL, N, C), forward->expected[0], (size_t)(N * C) * sizeof(double));
  else
    b.input[9] = b.input[0];
  const bool y = s->norm != KP_NORM_NONE && choose(8) > 0,
             absent = s->hostility == ORDINARY && choose(8) == 0;
  /* Without g x', that of a reference which update and tangent both read would cancel to second order. */
  const bool stream = s->update >= 0 && (!y || !absent || (reads_reference(s->update) && s->tangent >= 0));
  if (stream) fill_rows(give_matrix(&b, 10, KP_TYPE_REAL, N, C), N, C, 10, 0);
  if (y) fill_rows(give_matrix(&b, 11, KP_TYPE_REAL, N, C), N, C, 1, 0);
  if (y) give_statistics(&b, forward, s);
  want(&b, 0, KP_TYPE_REAL, N, C);
  const bool one_gradient = s->update == KP_PROGRAM_FLAT_ADD && !arguments.stream_reference;
  if (s->update >= 0 && !one_gradient) want(&b, 1, KP_TYPE_REAL, N, C);
  const bool reads = s->given && (reads_reference(s->update) || (s->tangent >= 0 && !s->own));
  if (reads && !arguments.stream_reference) want(&b, 2, KP_TYPE_REAL, N, C);
  for (int i = 3; i < 7; i++)
    if (b.input[i] != NULL) want_sum(&b, i, b.input[i]);
  round_inputs(&b);
  kp_graph_node(b.graph, KP_OP_RESIDUAL_NORM_BACKWARD, &arguments, sizeof arguments, 13, b.input, 7,
                b.output);
  /* A hostile reference that update and tangent both read: its gradient is what two large parts leave. */
  const bool noise = s->hostility == HOSTILE && reads_reference(s->update) && s->tangent >= 0 && !s->own;
  check_node(&b, gradient_tolerance, 0, noise ? 1u << 2 : 0, what);
  bench_destroy(&b);
}

static void check_seam(const seam_case *s) {
  char what[256], backward[300];
  describe(s, what);
  bench b = bench_create();
  kp_residual_norm_arguments arguments = arguments_of(s);
  give_seam(&b, s, false);
  want_seam(&b, s);
  round_inputs(&b);
  kp_graph_node(b.graph, KP_OP_RESIDUAL_NORM, &arguments, sizeof arguments, 9, b.input, 4, b.output);
  /* Where hostile rows nearly meet, the norm of their difference shows the rounding of x' to float. */
  const bool noise = s->hostility == HOSTILE && s->update >= 0 && s->tangent >= 0;
  check_node(&b, result_tolerance, 1u << 3, noise ? 14 : 0, what);
  snprintf(backward, sizeof backward, "backward of %s", what);
  check_seam_backward(&b, s, backward);
  bench_destroy(&b);
}

static const int updates[] = {-1,
                              KP_PROGRAM_FLAT_ADD,
                              KP_PROGRAM_UPDATE_E1,
                              KP_PROGRAM_UPDATE_E2,
                              KP_PROGRAM_UPDATE_E3,
                              KP_PROGRAM_UPSTREAM_UPDATE};
static const int tangents[] = {-1,
                               KP_PROGRAM_FLAT_DIFFERENCE,
                               KP_PROGRAM_TANGENT_LOG,
                               KP_PROGRAM_TANGENT_TRANSPORTED,
                               KP_PROGRAM_UPSTREAM_LOG_SCALAR,
                               KP_PROGRAM_UPSTREAM_LOG_PER_HEAD};

static seam_case random_case(int update, int tangent, hostility kind) {
  static const int64_t sizes[] = {1, 3, 5, 16, 21, 32}, lengths[] = {1, 2, 7, 16, 33};
  seam_case s = {.update = update, .tangent = tangent, .hostility = kind};
  s.B = 1 + choose(3), s.T = lengths[choose(5)], s.D = sizes[kind == ORDINARY ? choose(6) : 2 + choose(4)];
  s.update_groups = 1 + choose(3), s.tangent_groups = 1 + choose(3);
  const int64_t entries[] = {1, s.B, s.B * s.T};
  s.update_rows = entries[choose(3)], s.tangent_rows = entries[choose(3)];
  s.own = tangent >= 0 && choose(2) == 0;
  s.given = reads_reference(update) || (tangent >= 0 && !s.own);
  s.shift = choose(3) > 0;
  s.stream_reference = s.given && s.shift && choose(2) == 0;
  s.curvature = choose(8) > 0, s.affine = choose(4) > 0, s.carry = choose(3) == 0;
  s.norm = choose(6) == 0 ? KP_NORM_NONE : choose(3) > 0 ? KP_NORM_LAYER : KP_NORM_RMS;
  if (s.norm == KP_NORM_LAYER && channels(&s) < 16) s.norm = KP_NORM_RMS; /* few channels may nearly agree */
  return s;
}

static void every_pair(int cases, hostility kind) {
  for (size_t i = 0; i < sizeof updates / sizeof *updates; i++)
    for (size_t j = 0; j < sizeof tangents / sizeof *tangents; j++)
      for (int k = 0; k < cases; k++) {
        const seam_case s = random_case(updates[i], tangents[j], kind);
        check_seam(&s);
      }
}

static void seams_of_random_shapes_agree(void **state) {
  (void)state;
  every_pair(6, ORDINARY);
}

static void seams_near_the_boundary_agree(void **state) {
  (void)state;
  every_pair(3, BOUNDARY);
}

static void hostile_seams_agree(void **state) {
  (void)state;
  every_pair(4, HOSTILE);
}

/* Large enough for two threads, with sequences that cross from one thread's rows to the other's. */
static void shared_seams_agree(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof updates / sizeof *updates; i++)
    for (size_t j = 0; j < sizeof tangents / sizeof *tangents; j++) {
      seam_case s = random_case(updates[i], tangents[j], ORDINARY);
      s.B = 3, s.T = 67, s.D = 96 / (s.update_groups * s.tangent_groups);
      s.update_rows = s.B, s.tangent_rows = 1;
      check_seam(&s);
    }
}

/* ---- row programs ---- */

/* A parameter that each program with one can use. */
static double some_parameter(int program) {
  if (program == KP_PROGRAM_PROJECT) return 1e-3;
  return program == KP_PROGRAM_GEODESIC ? 0.3 : 1.7;
}

static void check_row_program(int program, int64_t N, int64_t D, int64_t G, int64_t K, bool backward) {
  const kp_row_program *row = &kp_row_programs[program];
  const int64_t C = D * G, width = row->scalar ? G : C;
  char what[128];
  snprintf(what, sizeof what, "%s%s, N %d D %d G %d K %d", row->name, backward ? " backward" : "", (int)N,
           (int)D, (int)G, (int)K);
  bench b = bench_create();
  for (int i = 0; i < row->inputs; i++) fill_rows(give_matrix(&b, i, KP_TYPE_REAL, N, C), N, C, 0.6, 0);
  double *kappa = give_matrix(&b, 3, KP_TYPE_STATISTIC, K, G);
  for (int64_t i = 0; i < K * G; i++) kappa[i] = some_curvature(&(seam_case){.hostility = ORDINARY});
  kp_row_program_arguments arguments = {program, some_parameter(program)};
  if (backward) {
    fill_rows(give_matrix(&b, 4, KP_TYPE_REAL, N, width), N, width, 1, 0);
    for (int i = 0; i < row->inputs; i++)
      if (row->inputs == 1 || choose(4) > 0) want(&b, i, KP_TYPE_REAL, N, C);
    want_sum(&b, 3, b.input[3]);
  } else {
    want(&b, 0, KP_TYPE_REAL, N, width);
  }
  round_inputs(&b);
  kp_graph_node(b.graph, backward ? KP_OP_ROW_PROGRAM_BACKWARD : KP_OP_ROW_PROGRAM, &arguments,
                sizeof arguments, backward ? 5 : 4, b.input, backward ? 4 : 1, b.output);
  check_node(&b, backward ? gradient_tolerance : result_tolerance, 0, 0, what);
  bench_destroy(&b);
}

static void row_programs_agree(void **state) {
  (void)state;
  static const int64_t sizes[] = {3, 8, 21};
  for (int program = 0; program < KP_PROGRAM_COUNT; program++)
    for (int k = 0; k < 6; k++) {
      const int64_t N = 1 + choose(40), D = sizes[choose(3)], G = 1 + choose(3);
      const int64_t K = choose(2) == 0 ? 1 : N;
      check_row_program(program, N, D, G, K, false);
      check_row_program(program, N, D, G, K, true);
    }
  check_row_program(KP_PROGRAM_TRANSPORT, 200, 32, 4, 1, false);
  check_row_program(KP_PROGRAM_TRANSPORT, 200, 32, 4, 1, true);
}

/* ---- midpoints ---- */

static void check_midpoint(int64_t N, int64_t M, int64_t D, int64_t G, int64_t K, bool backward) {
  const int64_t C = D * G;
  char what[128];
  snprintf(what, sizeof what, "midpoint%s, N %d M %d D %d G %d K %d", backward ? " backward" : "", (int)N,
           (int)M, (int)D, (int)G, (int)K);
  bench b = bench_create();
  fill_rows(give(&b, 0, KP_TYPE_REAL, 3, (int64_t[]){N, M, C}), N * M, C, 0.6, 0);
  double *weights = give_matrix(&b, 1, KP_TYPE_REAL, N, M);
  for (int64_t i = 0; i < N * M; i++) weights[i] = between(0.1, 1);
  double *kappa = give_matrix(&b, 2, KP_TYPE_STATISTIC, K, G);
  for (int64_t i = 0; i < K * G; i++) kappa[i] = some_curvature(&(seam_case){.hostility = ORDINARY});
  if (backward) {
    fill_rows(give_matrix(&b, 3, KP_TYPE_REAL, N, C), N, C, 1, 0);
    want(&b, 0, KP_TYPE_REAL, N * M, C);
    want(&b, 1, KP_TYPE_REAL, N, M);
    want_sum(&b, 2, b.input[2]);
  } else {
    want(&b, 0, KP_TYPE_REAL, N, C);
  }
  round_inputs(&b);
  kp_graph_node(b.graph, backward ? KP_OP_MIDPOINT_BACKWARD : KP_OP_MIDPOINT, NULL, 0, backward ? 4 : 3,
                b.input, backward ? 3 : 1, b.output);
  check_node(&b, backward ? gradient_tolerance : result_tolerance, 0, 0, what);
  bench_destroy(&b);
}

static void midpoints_agree(void **state) {
  (void)state;
  static const int64_t sizes[] = {1, 5, 16, 21};
  for (int k = 0; k < 30; k++) {
    const int64_t N = 1 + choose(20), M = 2 + choose(8), D = sizes[choose(4)], G = 1 + choose(3);
    const int64_t K = choose(2) == 0 ? 1 : N;
    check_midpoint(N, M, D, G, K, false);
    check_midpoint(N, M, D, G, K, true);
  }
  check_midpoint(60, 8, 48, 1, 1, false);
  check_midpoint(60, 8, 48, 1, 1, true);
}

/* ---- reference points ---- */

typedef struct reference_case {
  kp_reference_kind kind;
  int64_t B, T, D, G, K;
  int window;
  int32_t seen; /* in decoding; -1: no history */
  bool documents;
} reference_case;

static void check_reference(const reference_case *r, bool backward) {
  const int64_t N = r->B * r->T, C = r->D * r->G;
  char what[160];
  snprintf(what, sizeof what, "reference %d%s, B %d T %d D %d G %d K %d, window %d, seen %d", (int)r->kind,
           backward ? " backward" : "", (int)r->B, (int)r->T, (int)r->D, (int)r->G, (int)r->K, r->window,
           (int)r->seen);
  bench b = bench_create();
  int32_t seen = r->seen, numbers[256] = {0};
  assert_true(N <= 256);
  fill_rows(give_matrix(&b, 0, KP_TYPE_REAL, N, C), N, C, 1.2, 0);
  double *kappa = give_matrix(&b, 1, KP_TYPE_STATISTIC, r->K, r->G);
  for (int64_t i = 0; i < r->K * r->G; i++) kappa[i] = some_curvature(&(seam_case){.hostility = ORDINARY});
  if (backward) {
    fill_rows(give_matrix(&b, 2, KP_TYPE_REAL, N, C), N, C, 1, 0);
    want_sum(&b, 1, b.input[1]);
  } else if (r->seen >= 0) {
    const int64_t held = r->kind == KP_REFERENCE_MIDPOINT ? r->window : 1;
    fill_rows(give(&b, 2, KP_TYPE_REAL, 3, (int64_t[]){r->B, held, C}), r->B * held, C, 1.2, 0);
    b.input[3] = kp_graph_input(b.graph, "seen", KP_TYPE_INT32, 1, (int64_t[]){1});
    b.tokens = &seen;
  }
  if (r->documents) {
    for (int64_t i = 1; i < N; i++) numbers[i] = numbers[i - 1] + (choose(4) == 0);
    b.input[backward ? 3 : 4] = kp_graph_input(b.graph, "documents", KP_TYPE_INT32, 1, &N);
    b.tokens = numbers;
  }
  want(&b, 0, KP_TYPE_REAL, N, C);
  round_inputs(&b);
  const kp_reference_arguments arguments = {r->kind, r->T, r->window};
  kp_graph_node(b.graph, backward ? KP_OP_REFERENCE_BACKWARD : KP_OP_REFERENCE, &arguments, sizeof arguments,
                backward ? 4 : 5, b.input, backward ? 2 : 1, b.output);
  check_node(&b, backward ? gradient_tolerance : result_tolerance, 0, 0, what);
  bench_destroy(&b);
}

static void references_agree(void **state) {
  (void)state;
  static const int64_t lengths[] = {1, 2, 9, 20}, sizes[] = {1, 5, 16, 70};
  for (int k = 0; k < 60; k++) {
    reference_case r = {(kp_reference_kind)(k % 3),
                        1 + choose(3),
                        lengths[choose(4)],
                        sizes[choose(4)],
                        1 + choose(2),
                        1,
                        1 + choose(6),
                        -1,
                        choose(2) == 0};
    if (choose(2) == 0) r.K = r.B * r.T;
    check_reference(&r, false);
    check_reference(&r, true);
    r.documents = false;
    r.seen = choose(12);
    check_reference(&r, false);
  }
  for (int kind = 0; kind < 3; kind++) {
    for (int documents = 0; documents < 2; documents++) {
      const reference_case large = {(kp_reference_kind)kind, 3, 70, 48, 2, 1, 4, -1, documents == 1};
      check_reference(&large, false);
      check_reference(&large, true);
    }
  }
}

/* ---- whole graphs ---- */

/* Two seams in a row, differentiated and planned as in training: g x' is overwritten by g x. */
static void gradients_through_two_seams_agree(void **state) {
  (void)state;
  const int64_t B = 2, T = 48, C = 192;
  bench b = bench_create();
  kp_tensor *tensor[6];
  for (int i = 0; i < 6; i++) {
    fill_rows(give_matrix(&b, i, KP_TYPE_REAL, B * T, C), B * T, C, i == 0 ? 1.2 : 0.4, 0);
    tensor[i] = b.input[i];
    tensor[i]->needs_gradient = i < 3;
  }
  give_matrix(&b, 6, KP_TYPE_STATISTIC, 1, 3);
  for (int i = 0; i < 3; i++) b.value[6][i] = -0.5 - 0.3 * i;
  b.input[6]->needs_gradient = true;
  give_matrix(&b, 7, KP_TYPE_STATISTIC, 1, 1)[0] = 1;
  round_inputs(&b);
  kp_residual_norm_arguments arguments = {.update = KP_PROGRAM_UPDATE_E3,
                                          .tangent = KP_PROGRAM_TANGENT_TRANSPORTED,
                                          .own = true,
                                          .length = T,
                                          .norm = KP_NORM_LAYER,
                                          .epsilon = 1e-5};
  kp_seam seam = {.stream = tensor[0],
                  .branch = tensor[1],
                  .update_curvature = b.input[6],
                  .tangent_curvature = b.input[6]};
  const kp_seam_result first = kp_residual_norm(b.graph, seam, arguments);
  seam.stream = first.stream, seam.branch = tensor[2];
  const kp_seam_result second = kp_residual_norm(b.graph, seam, arguments);
  kp_tensor *loss = NULL, *part[3] = {first.normalised, second.normalised, second.stream};
  for (int i = 0; i < 3; i++) { /* a random weight for each element */
    kp_tensor *sum = kp_sum(b.graph, kp_gated_activation(b.graph, part[i], tensor[3 + i], KP_SILU), 1);
    loss = loss == NULL ? sum : kp_add(b.graph, loss, sum);
  }
  kp_error error = {0};
  kp_tensor *seed = kp_graph_constant(b.graph, "seed", 1, (int64_t[]){1}, (double[]){1});
  check_ok(kp_graph_backward(b.graph, loss, seed, &error), &error);
  for (int i = 0; i < 4; i++) {
    b.output[i] = b.input[i < 3 ? i : 6]->gradient;
    assert_non_null(b.output[i]);
    kp_graph_keep(b.output[i]);
  }
  check_node(&b, gradient_tolerance, 0, 0, "two seams");
  bench_destroy(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(seams_of_random_shapes_agree),
      cmocka_unit_test(seams_near_the_boundary_agree),
      cmocka_unit_test(hostile_seams_agree),
      cmocka_unit_test(shared_seams_agree),
      cmocka_unit_test(row_programs_agree),
      cmocka_unit_test(midpoints_agree),
      cmocka_unit_test(references_agree),
      cmocka_unit_test(gradients_through_two_seams_agree),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
