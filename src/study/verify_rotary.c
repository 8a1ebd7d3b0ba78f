/* Cases of rotary positions.
 *
 * A table of cosines and sines is read off a rotation: pairs (1, 0) become (cos, sin). */
#include <math.h>
#include <stdlib.h>

#include "core/assert.h"
#include "study/verify_graph.h"

static const double BASE = 10000;

static double tolerance_of(const kp_case *c) {
  return kp_case_is_double(c) ? 1e-12 : 2e-6;
}

static double *numbers(int64_t count) {
  double *values = calloc((size_t)count + 1, sizeof *values);
  kp_assert(values != NULL, "out of memory");
  return values;
}

/* n mod period for n of `count` rows. */
static double *positions_of(int64_t count, int64_t period) {
  double *positions = numbers(count);
  for (int64_t n = 0; n < count; n++) positions[n] = (double)(n % period);
  return positions;
}

/* Every row of `pairs` pairs set to (first, second), at positions 0, 1, …, rotated into `out`. */
static kp_status rotate_constant(const kp_case *c, kp_rotary_arguments arguments, int64_t rows, double first,
                                 double second, double *out, kp_error *error) {
  const int64_t width = arguments.head_size;
  kp_case_graph b = kp_case_graph_create(c);
  double *x = numbers(rows * width);
  for (int64_t i = 0; i < rows * width; i++) x[i] = i % 2 == 0 ? first : second;
  kp_tensor *operand = kp_case_graph_operand(&b, "x", x, 2, (int64_t[]){rows, width});
  kp_tensor *positions = kp_case_graph_index(&b, "positions", positions_of(rows, rows), rows);
  kp_status status =
      kp_case_graph_evaluate(&b, kp_rotary(b.graph, operand, positions, arguments), out, error);
  kp_case_graph_destroy(&b);
  return status;
}

/* ---- nGPT: what the published code does to queries and keys, and what was meant ---- */

static kp_status verify_probe(const kp_case *c, const char *input, const char *output, bool upstream,
                              kp_error *error) {
  const kp_safetensors_entry *x;
  KP_TRY(kp_safetensors_require(c->file, input, &x, error));
  if (x->rank != 4 || x->shape[0] != 1 || x->shape[1] != 1)
    return kp_fail(error, KP_ERR_INPUT, "%s must be (1, 1, T, D)", input);
  const int64_t T = x->shape[2], D = x->shape[3];
  kp_case_graph b = kp_case_graph_create(c);
  double *gout = numbers(T * D);
  kp_tensor *operand;
  kp_status status = kp_case_graph_read(&b, input, 2, (int64_t[]){T, D}, &operand, error);
  if (status == KP_OK) {
    const kp_rotary_arguments arguments = {
        .heads = 1, .head_size = (int)D, .base = BASE, .upstream = upstream};
    kp_tensor *positions = kp_case_graph_index(&b, "positions", positions_of(T, T), T);
    kp_tensor *out = kp_rotary(b.graph, operand, positions, arguments);
    status = kp_case_graph_run(&b, out, gout, &(kp_expectation){output, NULL, tolerance_of(c), 1}, 1, error);
  }
  free(gout);
  kp_case_graph_destroy(&b);
  return status;
}

/* Pairs (1, 1) become (-E[t, D/2 + p], E[t, p]) of the published table E. */
static kp_status verify_table(const kp_case *c, kp_error *error) {
  const kp_safetensors_entry *entry;
  double *table;
  KP_TRY(kp_safetensors_require(c->file, "table_upstream", &entry, error));
  if (entry->rank != 2) return kp_fail(error, KP_ERR_INPUT, "table_upstream must be (T, D)");
  KP_TRY(kp_case_values(c, "table_upstream", false, &table, NULL, error));
  const int64_t T = entry->shape[0], D = entry->shape[1];
  double *got = numbers(T * D), *want = numbers(T * D);
  for (int64_t t = 0; t < T; t++)
    for (int64_t p = 0; p < D / 2; p++) {
      want[t * D + 2 * p] = -table[t * D + D / 2 + p];
      want[t * D + 2 * p + 1] = table[t * D + p];
    }
  const kp_rotary_arguments arguments = {.heads = 1, .head_size = (int)D, .base = BASE, .upstream = true};
  kp_status status = rotate_constant(c, arguments, T, 1, 1, got, error);
  if (status == KP_OK) kp_case_check(c, kp_case_worst(got, want, T * D), tolerance_of(c), "table_upstream");
  free(got);
  free(want);
  free(table);
  return status;
}

kp_status kp_verify_rope_probe(const kp_case *c, kp_error *error) {
  KP_TRY(verify_probe(c, "q", "q_upstream", true, error));
  KP_TRY(verify_probe(c, "k", "k_upstream", true, error));
  KP_TRY(verify_probe(c, "q", "q_true", false, error));
  KP_TRY(verify_probe(c, "k", "k_true", false, error));
  return verify_table(c, error);
}

/* ---- HELM: tables, a rotation with its gradient, YaRN's angles ---- */

/* The tables out/NAME_cos and out/NAME_sin (T, pairs). */
static kp_status verify_angles(const kp_case *c, const char *name, kp_error *error) {
  char full[2][64];
  const kp_safetensors_entry *entry;
  double *want[2] = {NULL, NULL};
  for (int i = 0; i < 2; i++) snprintf(full[i], sizeof *full, "out/%s_%s", name, i == 0 ? "cos" : "sin");
  KP_TRY(kp_safetensors_require(c->file, full[0], &entry, error));
  if (entry->rank != 2) return kp_fail(error, KP_ERR_INPUT, "%s must be (T, pairs)", full[0]);
  const int64_t T = entry->shape[0], pairs = entry->shape[1];
  double *out = numbers(T * 2 * pairs), *got = numbers(T * pairs);
  const kp_rotary_arguments arguments = {.heads = 1, .head_size = (int)(2 * pairs), .base = BASE};
  kp_status status = rotate_constant(c, arguments, T, 1, 0, out, error);
  for (int i = 0; i < 2 && status == KP_OK; i++) {
    int64_t count;
    status = kp_case_values(c, full[i], false, &want[i], &count, error);
    if (status == KP_OK && count != T * pairs)
      status = kp_fail(error, KP_ERR_INPUT, "%s has another size than %s", full[i], full[0]);
    if (status != KP_OK) break;
    for (int64_t j = 0; j < T * pairs; j++) got[j] = out[2 * j + i];
    kp_case_check(c, kp_case_worst(got, want[i], T * pairs), tolerance_of(c), "%s", full[i]);
  }
  for (int i = 0; i < 2; i++) free(want[i]);
  free(out);
  free(got);
  return status;
}

/* in/x (B, T, heads, D) -> out/y, and the gradient of x. */
static kp_status verify_rotation(const kp_case *c, kp_error *error) {
  const kp_safetensors_entry *x;
  KP_TRY(kp_safetensors_require(c->file, "in/x", &x, error));
  if (x->rank != 4) return kp_fail(error, KP_ERR_INPUT, "in/x must be (B, T, heads, D)");
  const int64_t rows = x->shape[0] * x->shape[1], heads = x->shape[2], D = x->shape[3];
  kp_case_graph b = kp_case_graph_create(c);
  kp_tensor *operand;
  double *cotangent = NULL;
  int64_t count = 0;
  kp_status status = kp_case_graph_read(&b, "in/x", 2, (int64_t[]){rows, heads * D}, &operand, error);
  if (status == KP_OK) status = kp_case_values(c, "in/cotangent", false, &cotangent, &count, error);
  if (status == KP_OK && count != rows * heads * D)
    status = kp_fail(error, KP_ERR_INPUT, "in/cotangent has another size than in/x");
  if (status == KP_OK) {
    const kp_rotary_arguments arguments = {.heads = (int)heads, .head_size = (int)D, .base = BASE};
    kp_tensor *positions = kp_case_graph_index(&b, "positions", positions_of(rows, x->shape[1]), rows);
    const kp_expectation expected[] = {{"out/y", NULL, tolerance_of(c), 1},
                                       {"grad_in/x", operand, tolerance_of(c), 1}};
    status = kp_case_graph_run(&b, kp_rotary(b.graph, operand, positions, arguments), cotangent, expected, 2,
                               error);
  }
  free(cotangent);
  kp_case_graph_destroy(&b);
  return status;
}

/* The stretched angles of position 1 in a context that was `original` tokens long. */
static kp_status verify_yarn(const kp_case *c, const char *name, double original, kp_error *error) {
  double *want;
  int64_t pairs;
  KP_TRY(kp_case_values(c, name, false, &want, &pairs, error));
  double *out = numbers(2 * 2 * pairs), *got = numbers(pairs);
  const kp_rotary_arguments arguments = {.heads = 1,
                                         .head_size = (int)(2 * pairs),
                                         .base = BASE,
                                         .factor = 40,
                                         .original = original,
                                         .beta_fast = 32,
                                         .beta_slow = 1};
  kp_status status = rotate_constant(c, arguments, 2, 1, 0, out, error);
  if (status == KP_OK) {
    const double *row = out + 2 * pairs;
    for (int64_t i = 0; i < pairs; i++) got[i] = atan2(row[2 * i + 1], row[2 * i]);
    kp_case_check(c, kp_case_worst(got, want, pairs), tolerance_of(c), "%s", name);
  }
  free(out);
  free(got);
  free(want);
  return status;
}

kp_status kp_verify_hope(const kp_case *c, kp_error *error) {
  KP_TRY(verify_angles(c, "d17", error));
  KP_TRY(verify_angles(c, "m9", error));
  KP_TRY(verify_rotation(c, error));
  KP_TRY(verify_yarn(c, "out/yarn65_L64_o32_angle_t1", 32, error));
  return verify_yarn(c, "out/yarn65_L4096_o2048_angle_t1", 2048, error);
}
