/* Attention with Lorentz scores and values, midpoints and latents, by other means than the kernels' own:
 * numbers of the official HELM attention (whole block but its output projection), the gyromidpoint operator
 * on points, latents expanded by the ordinary operators; and the memory of long sequences. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/plan.h"
#include "support/bench.h"
#include "support/check.h"
#include "support/golden.h"
#include "support/isa.h"

/* `backends` has room for one more than KP_TEST_ISAS. */
static int all_backends(const kp_backend *backends[KP_TEST_ISAS + 1]) {
  kp_test_isa isas[KP_TEST_ISAS];
  const int count = kp_test_isas(isas);
  backends[0] = kp_backend_ref();
  for (int i = 0; i < count; i++) backends[1 + i] = isas[i].backend;
  return count + 1;
}

static double tolerance(const kp_backend *backend, double exact, double fast) {
  return backend == kp_backend_ref() ? exact : fast;
}

static void check_near(const double *got, const double *want, int64_t count, double allowed,
                       const kp_backend *backend, const char *what) {
  const double scale = bench_largest(want, count);
  for (int64_t i = 0; i < count; i++)
    if (!(fabs(got[i] - want[i]) <= allowed * scale))
      fail_msg("%s: %s is %.9g, not %.9g", backend->name, what, got[i], want[i]);
}

/* ---- HELM ---- */

enum { B = 2, T = 8, W = 36, H = 4, M = 8, N = B * T };

static kp_tensor *golden_operand(bench *b, const golden *file, const char *name, int dimensions,
                                 const int64_t *shape) {
  const golden_array *array = golden_find(file, "%s", name);
  kp_tensor *tensor = bench_operand(b, name, 0, 0, dimensions, shape);
  memcpy(b->value[b->operands - 1], array->data, array->count * sizeof(double));
  return tensor;
}

/* One of the three maps to heads, rotated if it is not the values'. */
static kp_tensor *map_to_heads(bench *b, const golden *file, kp_tensor *x, kp_tensor *positions,
                               const char *name) {
  char weight[32], bias[32];
  const int64_t shape[] = {H * M, W};
  snprintf(weight, sizeof weight, "param/%s.weight", name);
  snprintf(bias, sizeof bias, "param/%s.bias", name);
  kp_tensor *w = golden_operand(b, file, weight, 2, shape);
  kp_tensor *rows = kp_linear(b->graph, x, w, golden_operand(b, file, bias, 1, shape));
  const kp_rotary_arguments rotary = {.heads = H, .head_size = M, .base = 10000};
  return positions == NULL ? rows : kp_rotary(b->graph, rows, positions, rotary);
}

static int32_t *golden_integers(const golden *file, const char *name) {
  static int32_t values[N];
  const golden_array *array = golden_find(file, "%s", name);
  for (int i = 0; i < N; i++) values[i] = (int32_t)array->data[i];
  return values;
}

/* The gradient of the heads' points (time first), from that of the lifted output of the projection. */
static void set_seeds(bench *b, const golden *file) {
  const double *y = golden_find(file, "out/y")->data, *cotangent = golden_find(file, "in/cotangent")->data;
  const double *A = golden_find(file, "param/final_linear.weight")->data;
  for (int n = 0; n < N; n++)
    for (int column = 0; column < W; column++) {
      double sum = 0;
      for (int i = 1; i < W; i++) {
        const double s = y[n * W + i], t = y[n * W];
        sum += A[(i - 1) * W + column] * (cotangent[n * W + i] + cotangent[n * W] * s / t);
      }
      const int h = column / (M + 1), d = column % (M + 1) - 1;
      if (d < 0)
        b->seed_value[1][n * H + h] = sum;
      else
        b->seed_value[0][(n * H + h) * M + d] = sum;
    }
}

static bench *build_helm(const golden *file) {
  bench *b = bench_create(false);
  int32_t position[N];
  for (int n = 0; n < N; n++) position[n] = n % T;
  kp_tensor *x = golden_operand(b, file, "in/x", 3, (int64_t[]){B, T, W});
  kp_tensor *positions = bench_index(b, "positions", 2, (int64_t[]){B, T}, position);
  kp_attention_operands in = {.q = map_to_heads(b, file, x, positions, "Wq")};
  in.k = map_to_heads(b, file, x, positions, "Wk");
  in.v = map_to_heads(b, file, x, NULL, "Wv");
  const int64_t one = 1;
  in.temperature = golden_operand(b, file, "param/scale", 1, &one);
  b->value[b->operands - 1][0] = 1 / b->value[b->operands - 1][0];
  in.documents = bench_index(b, "documents", 2, (int64_t[]){B, T}, golden_integers(file, "in/documents"));
  const kp_attention_arguments arguments = {.batch = B,
                                            .length = T,
                                            .heads = H,
                                            .kv_heads = H,
                                            .head_size = M,
                                            .causal = true,
                                            .score = KP_SCORE_LORENTZ,
                                            .values = KP_VALUES_LORENTZ};
  const kp_point out = kp_attend(b->graph, in, arguments);
  bench_output(b, out.space);
  bench_output(b, out.time);
  set_seeds(b, file);
  bench_differentiate(b);
  return b;
}

/* The space of the projected output, against the golden's. */
static void check_projection(const bench *b, const golden *file, const kp_backend *backend) {
  double *space = bench_read_output(b, 0), *time = bench_read_output(b, 1), got[N * (W - 1)],
         want[N * (W - 1)];
  const double *A = golden_find(file, "param/final_linear.weight")->data,
               *bias = golden_find(file, "param/final_linear.bias")->data,
               *y = golden_find(file, "out/y")->data;
  for (int n = 0; n < N; n++)
    for (int i = 0; i < W - 1; i++) {
      double sum = bias[i];
      for (int h = 0; h < H; h++) {
        const double *a = A + i * W + h * (M + 1);
        sum += a[0] * time[n * H + h];
        for (int d = 0; d < M; d++) sum += a[1 + d] * space[(n * H + h) * M + d];
      }
      got[n * (W - 1) + i] = sum;
      want[n * (W - 1) + i] = y[n * W + 1 + i];
    }
  check_near(got, want, N * (W - 1), tolerance(backend, 1e-12, 2e-6), backend, "the output");
  free(space);
  free(time);
}

static void test_helm(void **state) {
  (void)state;
  static const char *const gradients[] = {"grad_in/x",    "grad/Wq.weight", "grad/Wq.bias", "grad/Wk.weight",
                                          "grad/Wk.bias", "grad/Wv.weight", "grad/Wv.bias", "grad/scale"};
  golden *file = golden_open("helm/blk_attention");
  const kp_backend *backends[KP_TEST_ISAS + 1];
  const int count = all_backends(backends);
  for (int i = 0; i < count; i++) {
    kp_error error = {0};
    bench *b = build_helm(file);
    check_ok(bench_start(b, backends[i], 1, &error), &error);
    check_ok(bench_run(b, &error), &error);
    check_projection(b, file, backends[i]);
    for (int g = 0; g < 8; g++) {
      const golden_array *want = golden_find(file, "%s", gradients[g]);
      double *got = bench_read_gradient(b, g);
      if (g == 7) got[0] *= -b->value[7][0] * b->value[7][0]; /* of τ = 1/β */
      check_near(got, want->data, (int64_t)want->count, tolerance(backends[i], 1e-6, 2e-5), backends[i],
                 gradients[g]);
      free(got);
    }
    bench_destroy(b);
  }
  golden_close(file);
}

/* ---- Midpoints ---- */

/* With equal scores the output is the midpoint of all values with equal weights: exp_0, MIDPOINT, log_0. */
static void test_midpoints(void **state) {
  (void)state;
  enum { KEYS = 6, SIZE = 5 };
  const double kappas[] = {-2, -0.3, -1e-7, 0, 1e-3, 0.6};
  const kp_backend *backends[KP_TEST_ISAS + 1];
  const int count = all_backends(backends);
  for (int k = 0; k < 6; k++)
    for (int i = 0; i < count; i++) {
      kp_error error = {0};
      bench *b = bench_create(false);
      const int64_t one = 1, pair[] = {1, 1}, weights_shape[] = {1, KEYS};
      kp_tensor *q = bench_operand(b, "q", 0, 0, 3, (int64_t[]){1, KEYS, 2});
      kp_tensor *keys = bench_operand(b, "k", 0, 1, 3, (int64_t[]){1, KEYS, 2});
      kp_tensor *v = bench_operand(b, "v", 0, 0.4, 3, (int64_t[]){1, KEYS, SIZE});
      kp_tensor *kappa = bench_operand(b, "curvature", kappas[k], 0, 1, &one);
      kp_tensor *table = bench_operand(b, "curvatures", kappas[k], 0, 2, pair);
      kp_tensor *weights = bench_operand(b, "weights", 1.0 / KEYS, 0, 2, weights_shape);
      kp_tensor *tangents = bench_operand(b, "tangents", 0, 0, 2, (int64_t[]){KEYS, SIZE});
      memcpy(b->value[6], b->value[2], KEYS * SIZE * sizeof(double));
      const kp_attention_operands in = {.q = q, .k = keys, .v = v, .curvature = kappa};
      const kp_attention_arguments arguments = {.batch = 1,
                                                .length = KEYS,
                                                .heads = 1,
                                                .kv_heads = 1,
                                                .head_size = 2,
                                                .value_size = SIZE,
                                                .values = KP_VALUES_MIDPOINT};
      bench_output(b, kp_attend(b->graph, in, arguments).space);
      kp_tensor *points = kp_curved_map(b->graph, KP_PROGRAM_EXP0, 0, (kp_tensor *[3]){tangents}, table);
      points->dimensions = 3;
      memcpy(points->shape, (int64_t[]){1, KEYS, SIZE}, 3 * sizeof(int64_t));
      kp_tensor *middle = kp_midpoint(b->graph, points, weights, table);
      bench_output(b, kp_curved_map(b->graph, KP_PROGRAM_LOG0, 0, (kp_tensor *[3]){middle}, table));
      check_ok(bench_start(b, backends[i], 1, &error), &error);
      check_ok(bench_forward(b, &error), &error);
      double *got = bench_read_output(b, 0), *want = bench_read_output(b, 1);
      check_near(got, want, SIZE, tolerance(backends[i], 1e-13, 3e-6), backends[i], "the midpoint");
      free(got);
      free(want);
      bench_destroy(b);
    }
}

/* ---- Latents ---- */

enum {
  LATENT = 6,
  SHARED = 2,
  OWN = 3,
  VALUE = 4,
  POSITIONS = 9,
  HEADS = 2,
  EXPANDED = HEADS * (OWN + VALUE)
};

/* Keys and values of one position by the definition (c = 2), from operands 1 latents, 2 weight, 3 norm
 * weight, 4 time weight, 5 bias; to operands 6 k and 7 v. */
static void expand_position(bench *b, int t) {
  const double *row = b->value[1] + t * (LATENT + SHARED);
  double L[LATENT], mean = 0, square = 0;
  for (int i = 0; i < LATENT; i++) mean += row[i] * row[i] / LATENT;
  for (int i = 0; i < LATENT; i++) {
    L[i] = row[i] / sqrt(mean + 1e-3) * b->value[3][i];
    square += L[i] * L[i];
  }
  for (int z = 0; z < EXPANDED; z++) {
    const int h = z / (OWN + VALUE), d = z % (OWN + VALUE);
    double sum = b->value[5][z] + b->value[4][z] * sqrt(square + 2);
    for (int i = 0; i < LATENT; i++) sum += b->value[2][z * LATENT + i] * L[i];
    if (d < OWN)
      b->value[6][(t * HEADS + h) * (OWN + SHARED) + d] = sum;
    else
      b->value[7][(t * HEADS + h) * VALUE + d - OWN] = sum;
  }
  for (int h = 0; h < HEADS; h++)
    memcpy(b->value[6] + (t * HEADS + h) * (OWN + SHARED) + OWN, row + LATENT, SHARED * sizeof(double));
}

static bench *build_latent(void) {
  bench *b = bench_create(false);
  const int64_t r = LATENT, expanded = EXPANDED, one = 1;
  const int size = OWN + SHARED;
  const kp_attention_latent_arguments arguments = {.attention = {.batch = 1,
                                                                 .length = POSITIONS,
                                                                 .heads = HEADS,
                                                                 .kv_heads = HEADS,
                                                                 .head_size = size,
                                                                 .value_size = VALUE,
                                                                 .causal = true,
                                                                 .score = KP_SCORE_LORENTZ,
                                                                 .values = KP_VALUES_LORENTZ},
                                                   .latent_size = LATENT,
                                                   .shared_size = SHARED,
                                                   .epsilon = 1e-3};
  kp_attention_operands in = {.q = bench_operand(b, "q", 0, 0.7, 3, (int64_t[]){1, POSITIONS, HEADS * size})};
  kp_latent_operands latent = {
      .rows = bench_operand(b, "rows", 0, 1, 3, (int64_t[]){1, POSITIONS, LATENT + SHARED})};
  latent.weight = bench_operand(b, "weight", 0, 0.4, 2, (int64_t[]){EXPANDED, LATENT});
  latent.norm_weight = bench_operand(b, "norm", 1, 0.3, 1, &r);
  latent.time_weight = bench_operand(b, "time", 0, 0.3, 1, &expanded);
  latent.bias = bench_operand(b, "bias", 0, 0.3, 1, &expanded);
  latent.state = bench_state(b, "state", 1, 3, (int64_t[]){1, POSITIONS + 2, LATENT + SHARED});
  latent.start = bench_index(b, "start", 1, &one, (int32_t[]){0});
  kp_tensor *k = bench_operand(b, "k", 0, 0, 3, (int64_t[]){1, POSITIONS, HEADS * size});
  kp_tensor *v = bench_operand(b, "v", 0, 0, 3, (int64_t[]){1, POSITIONS, HEADS * VALUE});
  in.curvature = bench_operand(b, "curvature", -0.5, 0, 1, &one);
  for (int t = 0; t < POSITIONS; t++) expand_position(b, t);
  const kp_point cached = kp_attend_latent_cached(b->graph, in, latent, arguments);
  in.k = k, in.v = v;
  const kp_point whole = kp_attend(b->graph, in, arguments.attention);
  bench_output(b, cached.space);
  bench_output(b, cached.time);
  bench_output(b, whole.space);
  bench_output(b, whole.time);
  return b;
}

static void test_latents(void **state) {
  (void)state;
  const kp_backend *backends[KP_TEST_ISAS + 1];
  const int count = all_backends(backends);
  for (int i = 0; i < count; i++) {
    kp_error error = {0};
    bench *b = build_latent();
    check_ok(bench_start(b, backends[i], 1, &error), &error);
    check_ok(bench_forward(b, &error), &error);
    for (int output = 0; output < 2; output++) {
      double *got = bench_read_output(b, output), *want = bench_read_output(b, 2 + output);
      check_near(got, want, kp_tensor_count(b->output[output]), tolerance(backends[i], 1e-13, 2e-6),
                 backends[i], "attention over latents");
      free(got);
      free(want);
    }
    bench_destroy(b);
  }
}

/* ---- Memory ---- */

/* Bytes of the arena for attention forward and backward over T tokens, less what does not grow. */
static double arena_bytes(const kp_backend *backend, kp_score score, kp_values values, int64_t length) {
  bench *b = bench_create(true);
  const int64_t qkv[] = {1, length, 3 * 2 * 16}, one = 1;
  kp_attention_operands in = {.q = bench_operand(b, "q", 0, 0, 3, qkv)};
  in.curvature = bench_operand(b, "curvature", -1, 0, 1, &one);
  const kp_attention_arguments arguments = {.batch = 1,
                                            .length = length,
                                            .heads = 2,
                                            .kv_heads = 2,
                                            .head_size = 16,
                                            .packed = true,
                                            .causal = true,
                                            .score = score,
                                            .values = values};
  bench_output(b, kp_attend(b->graph, in, arguments).space);
  bench_differentiate(b);
  kp_plan *plan = kp_plan_create(b->graph, backend, 2);
  const double bytes = (double)plan->arena_bytes;
  kp_plan_destroy(plan);
  bench_destroy(b);
  return bytes;
}

/* Doubling T from 256 to 8192 never more than doubles the memory. */
static void test_linear_memory(void **state) {
  (void)state;
  kp_test_isa isas[KP_TEST_ISAS];
  kp_test_isas(isas);
  for (int score = KP_SCORE_DOT; score <= KP_SCORE_LORENTZ; score++)
    for (int values = KP_VALUES_MEAN; values <= KP_VALUES_MIDPOINT; values++) {
      double before = 0;
      for (int64_t length = 256; length <= 8192; length *= 2) {
        const double bytes = arena_bytes(isas[0].backend, (kp_score)score, (kp_values)values, length);
        if (before > 0 && !(bytes <= 2 * before))
          fail_msg("score %d, values %d: %.0f bytes at T = %lld after %.0f", score, values, bytes,
                   (long long)length, before);
        before = bytes;
      }
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_helm),
      cmocka_unit_test(test_midpoints),
      cmocka_unit_test(test_latents),
      cmocka_unit_test(test_linear_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
