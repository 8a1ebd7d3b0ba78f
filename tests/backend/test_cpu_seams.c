/* The fast kernels of seams (update, tangent and norm in one) against the reference backend, on every
 * instruction set: random shapes, and every pair of programs that the models combine. */
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "geometry/row_program.h"
#include "ops/ops.h"
#include "support/node_bench.h"
#include "support/random_rows.h"

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

static double some_curvature(const seam_case *s) {
  return s->hostility != ORDINARY ? -1 : random_curvature();
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

static void give_curvature(node_bench *b, const seam_case *s, int slot, int64_t rows, int64_t groups) {
  double *kappa = node_bench_give_matrix(b, slot, KP_TYPE_STATISTIC, rows, groups);
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
static void give_seam(node_bench *b, const seam_case *s, bool backward) {
  const int64_t N = s->B * s->T, C = channels(s);
  const double size = some_size(s), far = some_distance(s);
  random_rows(node_bench_give_matrix(b, 0, KP_TYPE_REAL, N, C), N, C, size, far);
  if (s->update >= 0 && !(backward && s->update == KP_PROGRAM_FLAT_ADD))
    random_rows(node_bench_give_matrix(b, 1, KP_TYPE_REAL, N, C), N, C, size / 3, far);
  if (s->given && s->stream_reference)
    b->input[2] = b->input[0];
  else if (s->given)
    random_rows(node_bench_give_matrix(b, 2, KP_TYPE_REAL, N, C), N, C, size, far);
  if (s->curvature && s->update >= 0) give_curvature(b, s, 3, s->update_rows, s->update_groups);
  if (s->curvature && s->tangent >= 0) give_curvature(b, s, 4, s->tangent_rows, s->tangent_groups);
  if (s->affine) {
    double *weight = node_bench_give(b, 5, KP_TYPE_REAL, 1, &C),
           *bias = node_bench_give(b, 6, KP_TYPE_REAL, 1, &C);
    for (int64_t c = 0; c < C; c++) weight[c] = random_between(0.5, 1.5), bias[c] = random_between(-0.5, 0.5);
  }
  if (s->carry && s->given)
    random_rows(node_bench_give_matrix(b, 7, KP_TYPE_REAL, s->B, C), s->B, C, size, 0);
  if (s->carry && s->own) random_rows(node_bench_give_matrix(b, 8, KP_TYPE_REAL, s->B, C), s->B, C, size, 0);
}

static void want_seam(node_bench *b, const seam_case *s) {
  const int64_t N = s->B * s->T, C = channels(s);
  if (s->update >= 0) node_bench_want(b, 0, KP_TYPE_REAL, N, C);
  if (s->norm != KP_NORM_NONE) {
    node_bench_want(b, 1, KP_TYPE_REAL, N, C);
    node_bench_want(b, 2, KP_TYPE_STATISTIC, N, 2);
  }
  node_bench_want(b, 3, KP_TYPE_STATISTIC, 1, 1);
}

static void describe(const seam_case *s, char text[256]) {
  snprintf(text, 256, "%s + %s%s%s%s%s, B %d T %d C %d, G %d %d, K %d %d, norm %d, kind %d",
           s->update < 0 ? "none" : kp_row_programs[s->update].name,
           s->tangent < 0 ? "none" : kp_row_programs[s->tangent].name, s->own ? ", own" : "",
           s->given ? ", given" : "", s->shift ? " shifted" : "", s->stream_reference ? " stream" : "",
           (int)s->B, (int)s->T, (int)channels(s), (int)s->update_groups, (int)s->tangent_groups,
           (int)s->update_rows, (int)s->tangent_rows, (int)s->norm, (int)s->hostility);
}

static void copy_input(node_bench *to, int slot, const node_bench *from, int from_slot) {
  const kp_tensor *tensor = from->input[from_slot];
  if (tensor == NULL) return;
  const double *values = from->value[from_slot];
  if (values == NULL) values = from->value[0]; /* a reference that is the stream */
  memcpy(node_bench_give(to, slot, tensor->type, tensor->dimensions, tensor->shape), values,
         (size_t)kp_tensor_count(tensor) * sizeof *values);
}

/* The statistics that belong to x' as rounded to float: those of a seam that has x' for its stream. */
static void give_statistics(node_bench *b, const node_bench *forward, const seam_case *s) {
  const int64_t N = s->B * s->T, C = channels(s);
  node_bench plain = node_bench_create();
  kp_residual_norm_arguments arguments = arguments_of(s);
  arguments.update = -1;
  memcpy(node_bench_give_matrix(&plain, 0, KP_TYPE_REAL, N, C),
         s->update >= 0 ? forward->expected[0] : forward->value[0], (size_t)(N * C) * sizeof(double));
  for (int i = 2; i < 9; i++)
    if (i != 3) copy_input(&plain, i, forward, i);
  for (int i = 1; i < 3; i++) node_bench_want(&plain, i, KP_TYPE_REAL, N, i == 1 ? C : 2);
  node_bench_want(&plain, 3, KP_TYPE_STATISTIC, 1, 1);
  node_bench_round(&plain);
  kp_graph_node(plain.graph, KP_OP_RESIDUAL_NORM, &arguments, sizeof arguments, 9, plain.input, 4,
                plain.output);
  node_bench_run(&plain, kp_backend_ref(), 1, plain.expected);
  memcpy(node_bench_give_matrix(b, 12, KP_TYPE_STATISTIC, N, 2), plain.expected[2],
         (size_t)(2 * N) * sizeof(double));
  node_bench_destroy(&plain);
}

/* The backward node on values that the forward gave; x' and the statistics rounded to float. */
static void check_seam_backward(const node_bench *forward, const seam_case *s, const char *what) {
  const int64_t N = s->B * s->T, C = channels(s);
  node_bench b = node_bench_create();
  kp_residual_norm_arguments arguments = arguments_of(s);
  arguments.stream_reference = s->stream_reference && !s->own && !reads_reference(s->update);
  give_seam(&b, s, true);
  for (int i = 0; i < 9; i++)
    if (b.value[i] != NULL)
      memcpy(b.value[i], forward->value[i], (size_t)kp_tensor_count(b.input[i]) * sizeof(double));
  if (s->update >= 0)
    memcpy(node_bench_give_matrix(&b, 9, KP_TYPE_REAL, N, C), forward->expected[0],
           (size_t)(N * C) * sizeof(double));
  else
    b.input[9] = b.input[0];
  const bool y = s->norm != KP_NORM_NONE && random_choose(8) > 0,
             absent = s->hostility == ORDINARY && random_choose(8) == 0;
  /* Without g x', that of a reference which update and tangent both read would cancel to second order. */
  const bool stream = s->update >= 0 && (!y || !absent || (reads_reference(s->update) && s->tangent >= 0));
  if (stream) random_rows(node_bench_give_matrix(&b, 10, KP_TYPE_REAL, N, C), N, C, 10, 0);
  if (y) random_rows(node_bench_give_matrix(&b, 11, KP_TYPE_REAL, N, C), N, C, 1, 0);
  if (y) give_statistics(&b, forward, s);
  node_bench_want(&b, 0, KP_TYPE_REAL, N, C);
  const bool one_gradient = s->update == KP_PROGRAM_FLAT_ADD && !arguments.stream_reference;
  if (s->update >= 0 && !one_gradient) node_bench_want(&b, 1, KP_TYPE_REAL, N, C);
  const bool reads = s->given && (reads_reference(s->update) || (s->tangent >= 0 && !s->own));
  if (reads && !arguments.stream_reference) node_bench_want(&b, 2, KP_TYPE_REAL, N, C);
  for (int i = 3; i < 7; i++)
    if (b.input[i] != NULL) node_bench_want_sum(&b, i, b.input[i]);
  node_bench_round(&b);
  kp_graph_node(b.graph, KP_OP_RESIDUAL_NORM_BACKWARD, &arguments, sizeof arguments, 13, b.input, 7,
                b.output);
  /* A hostile reference that update and tangent both read: its gradient is what two large parts leave. */
  const bool noise = s->hostility == HOSTILE && reads_reference(s->update) && s->tangent >= 0 && !s->own;
  node_bench_check(&b, NODE_GRADIENTS, 0, noise ? 1u << 2 : 0, what);
  node_bench_destroy(&b);
}

static void check_seam(const seam_case *s) {
  char what[256], backward[300];
  describe(s, what);
  node_bench b = node_bench_create();
  kp_residual_norm_arguments arguments = arguments_of(s);
  give_seam(&b, s, false);
  want_seam(&b, s);
  node_bench_round(&b);
  kp_graph_node(b.graph, KP_OP_RESIDUAL_NORM, &arguments, sizeof arguments, 9, b.input, 4, b.output);
  /* Where hostile rows nearly meet, the norm of their difference shows the rounding of x' to float. */
  const bool noise = s->hostility == HOSTILE && s->update >= 0 && s->tangent >= 0;
  node_bench_check(&b, NODE_RESULTS, 1u << 3, noise ? 14 : 0, what);
  snprintf(backward, sizeof backward, "backward of %s", what);
  check_seam_backward(&b, s, backward);
  node_bench_destroy(&b);
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
  s.B = 1 + random_choose(3), s.T = lengths[random_choose(5)],
  s.D = sizes[kind == ORDINARY ? random_choose(6) : 2 + random_choose(4)];
  s.update_groups = 1 + random_choose(3), s.tangent_groups = 1 + random_choose(3);
  const int64_t entries[] = {1, s.B, s.B * s.T};
  s.update_rows = entries[random_choose(3)], s.tangent_rows = entries[random_choose(3)];
  s.own = tangent >= 0 && random_choose(2) == 0;
  s.given = reads_reference(update) || (tangent >= 0 && !s.own);
  s.shift = random_choose(3) > 0;
  s.stream_reference = s.given && s.shift && random_choose(2) == 0;
  s.curvature = random_choose(8) > 0, s.affine = random_choose(4) > 0, s.carry = random_choose(3) == 0;
  s.norm = random_choose(6) == 0 ? KP_NORM_NONE : random_choose(3) > 0 ? KP_NORM_LAYER : KP_NORM_RMS;
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

/* Two seams in a row, differentiated and planned as in training: g x' is overwritten by g x. */
static void gradients_through_two_seams_agree(void **state) {
  (void)state;
  const int64_t B = 2, T = 48, C = 192;
  node_bench b = node_bench_create();
  kp_tensor *tensor[6];
  for (int i = 0; i < 6; i++) {
    random_rows(node_bench_give_matrix(&b, i, KP_TYPE_REAL, B * T, C), B * T, C, i == 0 ? 1.2 : 0.4, 0);
    tensor[i] = b.input[i];
    tensor[i]->needs_gradient = i < 3;
  }
  node_bench_give_matrix(&b, 6, KP_TYPE_STATISTIC, 1, 3);
  for (int i = 0; i < 3; i++) b.value[6][i] = -0.5 - 0.3 * i;
  b.input[6]->needs_gradient = true;
  node_bench_give_matrix(&b, 7, KP_TYPE_STATISTIC, 1, 1)[0] = 1;
  node_bench_round(&b);
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
  node_bench_check(&b, NODE_GRADIENTS, 0, 0, "two seams");
  node_bench_destroy(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(seams_of_random_shapes_agree),
      cmocka_unit_test(seams_near_the_boundary_agree),
      cmocka_unit_test(hostile_seams_agree),
      cmocka_unit_test(shared_seams_agree),
      cmocka_unit_test(gradients_through_two_seams_agree),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
