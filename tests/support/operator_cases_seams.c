/* Cases of the seam between two sub-layers: every update with every tangent map and every kind of reference
 * point, the Euclidean, the exact and the published ones. */
#include "support/operator_cases.h"

static const char *const reference_names[] = {"origin", "given", "shifted", "stream", "own", "frozen"};

static bool takes_reference(int program) {
  return program == KP_PROGRAM_UPDATE_E1 || program == KP_PROGRAM_UPDATE_E2 ||
         program == KP_PROGRAM_UPSTREAM_UPDATE;
}

static kp_tensor *reference_of(bench *b, const operator_case *c, kp_tensor *stream, const int64_t *shape) {
  switch (c->reference) {
  case CASE_REFERENCE_NONE: return NULL;
  case CASE_REFERENCE_STREAM: return stream;
  case CASE_REFERENCE_OWN:
    return takes_reference(c->update) ? bench_operand(b, "reference", 0, c->deviation, 3, shape) : NULL;
  case CASE_REFERENCE_FROZEN: return bench_frozen(b, "reference", 0, c->deviation, 3, shape);
  default: return bench_operand(b, "reference", 0, c->deviation, 3, shape);
  }
}

static bool needs_curvature(int program) {
  return program >= 0 && program != KP_PROGRAM_FLAT_ADD && program != KP_PROGRAM_FLAT_DIFFERENCE;
}

/* `option`: without the norm's weight and bias; `kind`: which outputs count (1 stream, 2 norm, 3 both). */
static void build_seam(bench *b, const operator_case *c) {
  const int64_t shape[] = {c->batch, c->length, c->columns};
  const kp_residual_norm_arguments arguments = {.update = c->update,
                                                .tangent = c->tangent,
                                                .own = c->reference == CASE_REFERENCE_OWN,
                                                .shift = c->reference >= CASE_REFERENCE_SHIFTED &&
                                                         c->reference <= CASE_REFERENCE_OWN,
                                                .length = c->length,
                                                .norm = c->norm,
                                                .epsilon = 1e-5};
  kp_seam seam = {.stream = bench_operand(b, "stream", 0, c->deviation, 3, shape)};
  if (c->update >= 0) seam.branch = bench_operand(b, "branch", 0, c->deviation, 3, shape);
  seam.reference = reference_of(b, c, seam.stream, shape);
  if (needs_curvature(c->update)) seam.update_curvature = operator_case_curvature(b, c, "update curvature");
  if (needs_curvature(c->tangent))
    seam.tangent_curvature = c->same_curvature && seam.update_curvature != NULL
                                 ? seam.update_curvature
                                 : operator_case_curvature(b, c, "tangent curvature");
  if (c->norm != KP_NORM_NONE && !c->option) seam.weight = bench_operand(b, "weight", 1, 0.2, 1, &c->columns);
  if (c->norm == KP_NORM_LAYER && !c->option) seam.bias = bench_operand(b, "bias", 0, 0.2, 1, &c->columns);
  if (c->decoding && seam.reference != NULL && arguments.shift)
    seam.carry = bench_state(b, "carry", c->deviation, 3, (int64_t[]){c->batch, 1, c->columns});
  if (c->decoding && arguments.own)
    seam.own_carry = bench_state(b, "own carry", c->deviation, 3, (int64_t[]){c->batch, 1, c->columns});
  const kp_seam_result result = kp_residual_norm(b->graph, seam, arguments);
  if (c->update >= 0 && c->kind != 2) bench_output(b, result.stream);
  if (c->update < 0 || c->kind != 1) bench_output(b, result.normalised);
}

/* What turns from case to case, so that every value meets every combination over the table. */
static void turn(operator_case *c, int number, bool upstream) {
  static const double upstream_kappas[] = {-0.02, -0.3, -0.9};
  static const int64_t shapes[][3] = {{3, 6, 1},  {4, 6, 2},   {1, 5, 1},  {5, 33, 3},
                                      {9, 48, 3}, {3, 130, 1}, {11, 40, 5}}; /* T, C, G */
  const int64_t *shape = shapes[(number + number / CASE_KAPPAS) % 7];
  c->batch = 2;
  c->length = shape[0], c->columns = shape[1], c->groups = shape[2];
  c->curvatures = (case_curvatures)(number / 2 % CASE_K_COUNT);
  c->kappa = upstream ? upstream_kappas[number % 3] : case_kappas[number % CASE_KAPPAS];
  c->deviation = c->columns > 100 ? 0.05 : c->columns > 10 ? 0.1 : 0.2;
  c->kind = 1 + (number + 2) % 3;
  c->option = number % 4 == 3;
  c->same_curvature = number % 2 == 0;
}

static const char *program_name(int program) {
  return program < 0 ? "none" : kp_row_programs[program].name;
}

static void add_combination(operator_cases *cases, int update, int tangent, bool upstream, bool decoding) {
  for (int reference = 0; reference < CASE_REFERENCE_COUNT; reference++)
    for (int norm = KP_NORM_NONE; norm <= KP_NORM_RMS; norm++)
      for (int i = 0; i < (upstream || norm != KP_NORM_LAYER || decoding ? 3 : CASE_KAPPAS); i++) {
        operator_case c = {.operation = KP_OP_RESIDUAL_NORM,
                           .build = build_seam,
                           .update = update,
                           .tangent = tangent,
                           .reference = (case_reference)reference,
                           .norm = (kp_norm)norm,
                           .decoding = decoding};
        if (norm == KP_NORM_NONE && (tangent >= 0 || update < 0)) continue;
        if (decoding && (reference < CASE_REFERENCE_SHIFTED || reference > CASE_REFERENCE_OWN)) continue;
        if (reference == CASE_REFERENCE_OWN && tangent < 0) continue;
        if (reference > 0 && tangent < 0 && !takes_reference(update)) continue;
        turn(&c, cases->count, upstream);
        if (norm == KP_NORM_NONE) c.kind = 1;
        operator_cases_add(cases, c, "%s %s %s norm %d kappa %g C %lld K %d%s", program_name(update),
                           program_name(tangent), reference_names[reference], norm, c.kappa,
                           (long long)c.columns, c.curvatures, decoding ? " carried" : "");
      }
}

static void add_all(operator_cases *cases, bool decoding) {
  static const int flat_updates[] = {-1, KP_PROGRAM_FLAT_ADD};
  static const int flat_tangents[] = {-1, KP_PROGRAM_FLAT_DIFFERENCE};
  static const int updates[] = {-1, KP_PROGRAM_UPDATE_E1, KP_PROGRAM_UPDATE_E2, KP_PROGRAM_UPDATE_E3};
  static const int tangents[] = {-1, KP_PROGRAM_TANGENT_LOG, KP_PROGRAM_TANGENT_TRANSPORTED};
  static const int published_updates[] = {-1, KP_PROGRAM_UPSTREAM_UPDATE};
  static const int published_tangents[] = {KP_PROGRAM_UPSTREAM_LOG_SCALAR, KP_PROGRAM_UPSTREAM_LOG_PER_HEAD,
                                           -1};
  for (int u = 0; u < 2; u++)
    for (int t = 0; t < 2; t++) add_combination(cases, flat_updates[u], flat_tangents[t], false, decoding);
  for (int u = 0; u < 4; u++)
    for (int t = u == 0; t < 3; t++) add_combination(cases, updates[u], tangents[t], false, decoding);
  for (int u = 0; u < 2; u++)
    for (int t = 0; t < (u == 0 ? 2 : 3); t++)
      add_combination(cases, published_updates[u], published_tangents[t], true, decoding);
  for (int t = 0; t < 2; t++)
    add_combination(cases, KP_PROGRAM_FLAT_BOUNDED, flat_tangents[t], false, decoding);
}

void operator_cases_seams(operator_cases *cases) {
  add_all(cases, false);
  add_all(cases, true);
}
