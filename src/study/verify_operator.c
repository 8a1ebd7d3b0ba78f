/* Cases of single operations: geometry against 60-digit arithmetic, the published code's own maps, attention.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "ops/ops.h"
#include "study/verify_graph.h"

/* ---- stereographic operations: ops_interior, ops_boundary ---- */

typedef struct stereographic_case {
  const char *name; /* in the file */
  int program;
  const char *inputs[3];
  double parameter;
} stereographic_case;

static const stereographic_case stereographic_cases[] = {
    {"add", KP_PROGRAM_ADD, {"x", "y"}, 0},
    {"exp0", KP_PROGRAM_EXP0, {"u"}, 0},
    {"log0", KP_PROGRAM_LOG0, {"x"}, 0},
    {"exp", KP_PROGRAM_EXP, {"x", "u"}, 0},
    {"log", KP_PROGRAM_LOG, {"x", "y"}, 0},
    {"dist", KP_PROGRAM_DISTANCE, {"x", "y"}, 0},
    {"geodesic03", KP_PROGRAM_GEODESIC, {"x", "y"}, 0.3},
    {"gyr", KP_PROGRAM_GYRATION, {"x", "y", "v"}, 0},
    {"transport", KP_PROGRAM_TRANSPORT, {"x", "y", "v"}, 0},
    {"add_exp", KP_PROGRAM_ADD_EXP, {"y", "x", "u"}, 0},
};
enum { STEREOGRAPHIC_CASES = sizeof stereographic_cases / sizeof *stereographic_cases };

static kp_status verify_stereographic(const kp_case *c, int curvature, double kappa,
                                      const stereographic_case *op, int64_t rows, int64_t columns,
                                      kp_error *error) {
  kp_case_graph b = kp_case_graph_create(c);
  char names[8][64], input[64];
  kp_tensor *v[3] = {NULL, NULL, NULL}, *k;
  double *gout = NULL, *kappas = malloc((size_t)rows * sizeof *kappas);
  const bool exact = kp_case_is_double(c);
  kp_expectation expected[5];
  int count = 0;
  kp_assert(kappas != NULL, "out of memory");
  kp_status status = KP_OK;
  for (int i = 0; i < 3 && op->inputs[i] != NULL && status == KP_OK; i++) {
    snprintf(input, sizeof input, "k%d/%s", curvature, op->inputs[i]);
    status = kp_case_graph_read(&b, input, 2, (int64_t[]){rows, columns}, &v[i], error);
    snprintf(names[count], sizeof *names, "k%d/%s/g_%s", curvature, op->name, op->inputs[i]);
    expected[count] = (kp_expectation){names[count], v[i], exact ? 1e-9 : 1e-5, 1};
    count++;
  }
  for (int64_t i = 0; i < rows; i++) kappas[i] = kappa;
  k = kp_case_graph_operand(&b, "curvature", kappas, 2, (int64_t[]){rows, 1});
  snprintf(names[count], sizeof *names, "k%d/%s/g_k", curvature, op->name);
  expected[count] = (kp_expectation){names[count], k, exact ? 1e-9 : 2e-5, 1};
  count++;
  snprintf(names[count], sizeof *names, "k%d/%s/out", curvature, op->name);
  expected[count] = (kp_expectation){names[count], NULL, exact ? 1e-9 : 2e-6, 1};
  count++;
  snprintf(input, sizeof input, "k%d/gout", curvature);
  if (status == KP_OK) status = kp_case_values(c, input, false, &gout, NULL, error);
  if (status == KP_OK) {
    kp_tensor *out = kp_curved_map(b.graph, op->program, op->parameter, v, k);
    if (kp_tensor_columns(out) == 1) /* the loss of a distance reads the first column of gout */
      for (int64_t i = 0; i < rows; i++) gout[i] = gout[i * columns];
    status = kp_case_graph_run(&b, out, gout, expected, count, error);
  }
  free(gout);
  kp_case_graph_destroy(&b);
  return status;
}

static kp_status verify_stereographic_all(const kp_case *c, kp_error *error) {
  double *kappas;
  int64_t count;
  KP_TRY(kp_case_values(c, "k", false, &kappas, &count, error));
  kp_status status = KP_OK;
  for (int i = 0; i < count && status == KP_OK; i++) {
    const kp_safetensors_entry *x;
    char name[64];
    snprintf(name, sizeof name, "k%d/x", i);
    status = kp_safetensors_require(c->file, name, &x, error);
    if (status == KP_OK && x->rank != 2)
      status = kp_fail(error, KP_ERR_INPUT, "%s must be (rows, columns)", name);
    for (int op = 0; op < STEREOGRAPHIC_CASES && status == KP_OK; op++)
      status =
          verify_stereographic(c, i, kappas[i], &stereographic_cases[op], x->shape[0], x->shape[1], error);
  }
  free(kappas);
  return status;
}

/* ---- midpoint ---- */

static kp_status verify_midpoint(const kp_case *c, int number, const kp_safetensors_entry *x,
                                 kp_error *error) {
  kp_case_graph b = kp_case_graph_create(c);
  char name[6][64];
  static const char *const parts[] = {"x", "weights", "k", "gout"};
  kp_tensor *operand[3] = {NULL, NULL, NULL};
  double *gout = NULL;
  const int64_t shapes[3][3] = {{x->shape[0], x->shape[1], x->shape[2]}, {x->shape[0], x->shape[1]}, {1, 1}};
  const int ranks[] = {3, 2, 2};
  const bool exact = kp_case_is_double(c);
  kp_status status = KP_OK;
  kp_expectation expected[4];
  char gradients[4][64];
  for (int i = 0; i < 3 && status == KP_OK; i++) {
    snprintf(name[i], sizeof *name, "k%d/%s", number, parts[i]);
    status = kp_case_graph_read(&b, name[i], ranks[i], shapes[i], &operand[i], error);
    snprintf(gradients[i], sizeof *gradients, "k%d/g_%s", number, parts[i]);
    expected[i] = (kp_expectation){gradients[i], operand[i], exact ? 1e-8 : i == 2 ? 2e-5 : 1e-5, 1};
  }
  snprintf(gradients[3], sizeof *gradients, "k%d/out", number);
  expected[3] = (kp_expectation){gradients[3], NULL, exact ? 1e-9 : 5e-6, 1};
  snprintf(name[3], sizeof *name, "k%d/gout", number);
  if (status == KP_OK) status = kp_case_values(c, name[3], false, &gout, NULL, error);
  if (status == KP_OK)
    status = kp_case_graph_run(&b, kp_midpoint(b.graph, operand[0], operand[1], operand[2]), gout, expected,
                               4, error);
  free(gout);
  kp_case_graph_destroy(&b);
  return status;
}

static kp_status verify_midpoints(const kp_case *c, kp_error *error) {
  for (int i = 0;; i++) {
    char name[64];
    snprintf(name, sizeof name, "k%d/x", i);
    const kp_safetensors_entry *x = kp_safetensors_find(c->file, name);
    if (x == NULL) return KP_OK;
    if (x->rank != 3) return kp_fail(error, KP_ERR_INPUT, "%s must be (rows, points, columns)", name);
    KP_TRY(verify_midpoint(c, i, x, error));
  }
}

/* ---- the published code's maps: ops_* ---- */

static kp_status verify_published(const kp_case *c, const char *op, int program, const char *second,
                                  double tolerance, const kp_safetensors_entry *x, int64_t groups,
                                  int64_t entries, kp_error *error) {
  kp_case_graph b = kp_case_graph_create(c);
  char names[4][32];
  const int64_t shape[] = {x->shape[0], x->shape[1], x->shape[2]}, table[] = {entries, groups};
  kp_tensor *v[3] = {NULL, NULL, NULL}, *k = NULL;
  double *gout = NULL;
  snprintf(names[0], sizeof *names, "%s/g_first", op);
  snprintf(names[1], sizeof *names, "%s/g_second", op);
  snprintf(names[2], sizeof *names, "%s/g_c", op);
  snprintf(names[3], sizeof *names, "%s/out", op);
  kp_status status = kp_case_graph_read(&b, "x", 3, shape, &v[0], error);
  if (status == KP_OK) status = kp_case_graph_read(&b, second, 3, shape, &v[1], error);
  if (status == KP_OK) status = kp_case_graph_read(&b, "c", 2, table, &k, error);
  if (status == KP_OK) status = kp_case_values(c, "gout", false, &gout, NULL, error);
  if (status == KP_OK) {
    const kp_expectation expected[] = {{names[0], v[0], tolerance, 1},
                                       {names[1], v[1], tolerance, 1},
                                       {names[2], k, tolerance, 1},
                                       {names[3], NULL, tolerance, 1}};
    kp_tensor *kappa = kp_curvature(b.graph, k, KP_CURVATURE_NEGATE);
    status = kp_case_graph_run(&b, kp_curved_map(b.graph, program, 0, v, kappa), gout, expected, 4, error);
  }
  free(gout);
  kp_case_graph_destroy(&b);
  return status;
}

static kp_status verify_published_all(const kp_case *c, kp_error *error) {
  const kp_safetensors_entry *x, *curvature;
  double *heads;
  KP_TRY(kp_safetensors_require(c->file, "x", &x, error));
  KP_TRY(kp_safetensors_require(c->file, "c", &curvature, error));
  KP_TRY(kp_case_values(c, "n_head", false, &heads, NULL, error));
  const int64_t groups = *heads > 0 ? (int64_t)*heads : 1;
  const bool eps_case =
      strstr(c->report->name, "tiny_v") != NULL || strstr(c->report->name, "zero_eps") != NULL;
  const double tolerance = kp_case_is_double(c) ? 1e-9 : eps_case ? 1e-4 : 1e-5;
  const int log = *heads > 0 ? KP_PROGRAM_UPSTREAM_LOG_PER_HEAD : KP_PROGRAM_UPSTREAM_LOG_SCALAR;
  free(heads);
  if (x->rank != 3 || curvature->elements % groups != 0)
    return kp_fail(error, KP_ERR_INPUT, "x or c has a wrong shape");
  const int64_t entries = curvature->elements / groups;
  KP_TRY(verify_published(c, "add", KP_PROGRAM_UPSTREAM_ADD, "y", tolerance, x, groups, entries, error));
  if (kp_safetensors_find(c->file, "v") != NULL)
    KP_TRY(verify_published(c, "exp", KP_PROGRAM_UPSTREAM_EXP, "v", tolerance, x, groups, entries, error));
  return verify_published(c, "log", log, "y", tolerance, x, groups, entries, error);
}

/* ---- geodesic attention ---- */

/* (B, H, T, D) <-> (B, T, H, D) */
static void swap_heads(const double *in, const int64_t shape[4], double *out) {
  const int64_t H = shape[1], T = shape[2], D = shape[3];
  for (int64_t b = 0; b < shape[0]; b++)
    for (int64_t h = 0; h < H; h++)
      for (int64_t t = 0; t < T; t++)
        memcpy(out + ((b * T + t) * H + h) * D, in + ((b * H + h) * T + t) * D, (size_t)D * sizeof *out);
}

static kp_status read_heads(const kp_case *c, const char *prefix, const char *name, const int64_t shape[4],
                            double **out, kp_error *error) {
  char full[64];
  double *values;
  int64_t count;
  snprintf(full, sizeof full, "%s/%s", prefix, name);
  KP_TRY(kp_case_values(c, full, false, &values, &count, error));
  *out = malloc((size_t)(count + 1) * sizeof **out);
  kp_assert(*out != NULL, "out of memory");
  const bool fits = count == shape[0] * shape[1] * shape[2] * shape[3];
  if (fits) swap_heads(values, shape, *out);
  free(values);
  if (fits) return KP_OK;
  free(*out);
  return kp_fail(error, KP_ERR_INPUT, "tensor %s has another size than q", full);
}

static kp_status verify_attention(const kp_case *c, const char *prefix, kp_score score, kp_error *error) {
  static const char *const parts[] = {"q", "k", "v"};
  char name[64];
  const kp_safetensors_entry *q;
  snprintf(name, sizeof name, "%s/q", prefix);
  KP_TRY(kp_safetensors_require(c->file, name, &q, error));
  if (q->rank != 4) return kp_fail(error, KP_ERR_INPUT, "%s must be (B, H, T, D)", name);
  const int64_t *shape = q->shape, B = shape[0], H = shape[1], T = shape[2], D = shape[3];
  const bool exact = kp_case_is_double(c);
  kp_case_graph b = kp_case_graph_create(c);
  kp_tensor *operand[5] = {NULL}, *out;
  double *gout = NULL, *want[4] = {NULL}, *got = malloc((size_t)(B * H * T * D) * sizeof *got);
  kp_assert(got != NULL, "out of memory");
  kp_status status = KP_OK;
  for (int i = 0; i < 3 && status == KP_OK; i++) {
    double *values;
    status = read_heads(c, prefix, parts[i], shape, &values, error);
    if (status == KP_OK)
      operand[i] = kp_case_graph_operand(&b, parts[i], values, 3, (int64_t[]){B, T, H * D});
  }
  char theta[64], beta[64], gtheta[64], gbeta[64];
  snprintf(theta, sizeof theta, "%s/theta", prefix);
  snprintf(beta, sizeof beta, "%s/beta", prefix);
  snprintf(gtheta, sizeof gtheta, "%s/grad_theta", prefix);
  snprintf(gbeta, sizeof gbeta, "%s/grad_beta", prefix);
  if (status == KP_OK) status = kp_case_graph_read(&b, theta, 1, &H, &operand[3], error);
  if (status == KP_OK) status = kp_case_graph_read(&b, beta, 1, &H, &operand[4], error);
  if (status == KP_OK) status = read_heads(c, prefix, "gout", shape, &gout, error);
  if (status == KP_OK) {
    kp_attention_arguments arguments = {.batch = B,
                                        .length = T,
                                        .heads = (int)H,
                                        .kv_heads = (int)H,
                                        .head_size = (int)D,
                                        .causal = true,
                                        .score = score};
    kp_tensor *kappa = kp_curvature(b.graph, operand[3], KP_CURVATURE_TANH);
    const kp_attention_operands heads = {
        .q = operand[0], .k = operand[1], .v = operand[2], .curvature = kappa, .temperature = operand[4]};
    out = kp_attend(b.graph, heads, arguments).space;
    const kp_expectation expected[] = {{gtheta, operand[3], exact ? 1e-7 : 5e-5, 1},
                                       {gbeta, operand[4], exact ? 1e-7 : 5e-5, 1}};
    status = kp_case_graph_run(&b, out, gout, expected, 2, error);
  }
  for (int i = 0; i < 3 && status == KP_OK; i++) {
    snprintf(name, sizeof name, "grad_%s", parts[i]);
    status = read_heads(c, prefix, name, shape, &want[i], error);
    if (status != KP_OK) break;
    kp_parameters_read(b.parameters, b.parameters->gradients, operand[i]->parameter, got);
    kp_case_check(c, kp_case_worst(got, want[i], B * H * T * D) / kp_case_largest(want[i], B * H * T * D),
                  exact ? 1e-7 : 1e-5, "%s/%s", prefix, name);
  }
  for (int i = 0; i < 4; i++) free(want[i]);
  free(got);
  free(gout);
  kp_case_graph_destroy(&b);
  return status;
}

kp_status kp_verify_operator(const kp_case *c, kp_error *error) {
  if (kp_verify_is_lorentz(c)) return kp_verify_lorentz(c, error);
  if (kp_verify_is_experts(c)) return kp_verify_experts(c, error);
  if (strcmp(c->report->family, "mixed") == 0) return verify_published_all(c, error);
  if (strcmp(c->report->name, "midpoint") == 0) return verify_midpoints(c, error);
  if (strcmp(c->report->name, "geoattn") == 0) {
    KP_TRY(verify_attention(c, "p1", KP_SCORE_DISTANCE, error));
    return verify_attention(c, "p2", KP_SCORE_DISTANCE_SQUARED, error);
  }
  if (strcmp(c->report->name, "rope_probe") == 0) return kp_verify_rope_probe(c, error);
  if (strcmp(c->report->name, "blk_hope") == 0) return kp_verify_hope(c, error);
  if (strcmp(c->report->family, "stereographic") == 0) return verify_stereographic_all(c, error);
  return kp_fail(error, KP_ERR_UNSUPPORTED, "operator case %s of family %s is not known", c->report->name,
                 c->report->family);
}
