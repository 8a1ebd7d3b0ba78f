/* Cases of mixtures of experts and of latent attention on the hyperboloid (HELM-MiCE, He et al. 2025): the
 * gate, a whole layer, and HMLA.  Sizes follow from the file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "study/verify_points.h"

static const double UPSTREAM_FLOOR = 1e-4, NORM_EPSILON = 1e-8;

/* ---- the gate ---- */

static kp_status read_columns(const kp_point_case *p, const char *name, int64_t *columns, kp_error *error) {
  const kp_safetensors_entry *entry;
  KP_TRY(kp_safetensors_require(p->c->file, name, &entry, error));
  if (entry->rank != 2) return kp_fail(error, KP_ERR_INPUT, "tensor %s is not a table", name);
  *columns = entry->shape[1];
  return KP_OK;
}

static kp_status route(kp_point_case *p, kp_point x, const char *weight_name, const char *bias_name,
                       kp_route_arguments arguments, kp_routing *routing, kp_error *error) {
  kp_point weight;
  kp_tensor *bias;
  int64_t choices = 0;
  KP_TRY(kp_point_case_read(p, "param", "grad", weight_name, 0, false, &weight, error));
  arguments.experts = (int)kp_tensor_rows(weight.space);
  KP_TRY(kp_point_case_parameter(p, bias_name, arguments.experts, false, &bias, error));
  KP_TRY(read_columns(p, "out/indices", &choices, error));
  arguments.choices = (int)choices;
  if (kp_tensor_columns(weight.space) != kp_tensor_columns(x.space) || choices > arguments.experts)
    return kp_fail(error, KP_ERR_INPUT, "%s does not fit in/x", weight_name);
  kp_tensor *logits = kp_linear(p->graph, x.space, weight.space, NULL);
  *routing = kp_route_tokens(p->graph, logits, bias, NULL, arguments);
  return KP_OK;
}

static kp_status verify_gate(kp_point_case *p, kp_error *error) {
  const bool sigmoid = strstr(p->c->report->name, "sigmoid") != NULL;
  const int groups = strstr(p->c->report->name, "groups") != NULL ? 2 : 1;
  const kp_route_arguments arguments = {.score = sigmoid ? KP_GATE_SIGMOID : KP_GATE_SOFTMAX,
                                        .renormalise = sigmoid,
                                        .scale = sigmoid && groups == 1 ? 1.5 : 1,
                                        .groups = groups,
                                        .limited_groups = 1};
  kp_routing r;
  kp_point x;
  KP_TRY(kp_point_case_read(p, "in", "grad_in", "x", 1, false, &x, error));
  KP_TRY(route(p, x, "weight", "bias", arguments, &r, error));
  KP_TRY(kp_point_case_result(p, "out/indices", r.indices, NULL, error));
  KP_TRY(kp_point_case_result(p, "out/weights", r.weights, "in/cot_weights", error));
  KP_TRY(kp_point_case_result(p, "out/scores", r.scores, "in/cot_scores", error));
  return kp_point_case_run(p, (kp_point){NULL, NULL}, error);
}

/* ---- the layer ---- */

/* Parameters NAME.weight (M, 1 + C), first column for the time, and NAME.bias; with `heads` a column for the
 * time of each. */
typedef struct linear {
  kp_point weight;
  kp_tensor *bias;
} linear;

static kp_status read_linear(kp_point_case *p, const char *name, int heads, linear *out, kp_error *error) {
  char full[64];
  snprintf(full, sizeof full, "%s.weight", name);
  KP_TRY(kp_point_case_read(p, "param", "grad", full, heads, false, &out->weight, error));
  snprintf(full, sizeof full, "%s.bias", name);
  return kp_point_case_parameter(p, full, kp_tensor_rows(out->weight.space), false, &out->bias, error);
}

static kp_status apply(kp_point_case *p, kp_point x, const linear *l, kp_tensor **out, kp_error *error) {
  if (kp_tensor_columns(l->weight.space) != kp_tensor_columns(x.space))
    return kp_fail(error, KP_ERR_INPUT, "a matrix for %lld space coordinates meets a point with %lld",
                   (long long)kp_tensor_columns(l->weight.space), (long long)kp_tensor_columns(x.space));
  *out = kp_linear_lorentz(p->graph, x, l->weight.space, l->weight.time, l->bias);
  return KP_OK;
}

static kp_status shared_expert(kp_point_case *p, kp_point x, kp_point *out, kp_error *error) {
  linear gate, up, down;
  kp_gate inner = {.c = NULL};
  KP_TRY(read_linear(p, "shared_experts.w1.linear", 1, &gate, error));
  KP_TRY(read_linear(p, "shared_experts.w2.linear", 1, &down, error));
  KP_TRY(read_linear(p, "shared_experts.w3.linear", 1, &up, error));
  KP_TRY(apply(p, x, &up, &inner.x, error));
  KP_TRY(apply(p, x, &gate, &inner.gate, error));
  const kp_point h = kp_gated_point(p->graph, inner, (kp_gated_arguments){.kind = KP_SILU, .lift = true});
  KP_TRY(apply(p, h, &down, &out->space, error));
  out->time = kp_lift(p->graph, out->space, 1, NULL);
  return KP_OK;
}

static kp_status read_stacked(kp_point_case *p, const char *name, kp_grouped_weights *out, kp_error *error) {
  char suffix[64];
  kp_point weight, bias;
  snprintf(suffix, sizeof suffix, ".%s.linear.weight", name);
  KP_TRY(kp_point_case_stack(p, "experts.", suffix, 1, false, &weight, error));
  snprintf(suffix, sizeof suffix, ".%s.linear.bias", name);
  KP_TRY(kp_point_case_stack(p, "experts.", suffix, 0, false, &bias, error));
  *out = (kp_grouped_weights){.weight = weight.space, .time = weight.time, .bias = bias.space};
  return KP_OK;
}

static kp_status routed_experts(kp_point_case *p, kp_point x, const kp_routing *r, kp_tensor **rows,
                                kp_error *error) {
  kp_grouped_weights gate, up, down;
  kp_point c;
  KP_TRY(read_stacked(p, "w1", &gate, error));
  KP_TRY(read_stacked(p, "w2", &down, error));
  KP_TRY(read_stacked(p, "w3", &up, error));
  KP_TRY(kp_point_case_stack(p, "experts.", ".expert_manifold.k", 0, true, &c, error));
  const int64_t inner = gate.weight->shape[1], E = kp_tensor_count(r->counts);
  if (gate.weight->shape[0] != E || (c.space != NULL && kp_tensor_count(c.space) != E) ||
      up.weight->shape[1] != inner || down.weight->shape[2] != inner ||
      gate.weight->shape[2] != kp_tensor_columns(x.space))
    return kp_fail(error, KP_ERR_INPUT, "the experts' matrices do not fit together");
  if (c.space != NULL) {
    gate.input_scale = up.input_scale = kp_expert_scale(p->graph, c.space, NULL, false);
    down.output_scale = kp_expert_scale(p->graph, c.space, NULL, true);
  }
  const kp_point sorted = kp_gather_rows(p->graph, x, r);
  kp_point h = {kp_gated_activation(p->graph, kp_grouped_linear(p->graph, sorted, r->offsets, up),
                                    kp_grouped_linear(p->graph, sorted, r->offsets, gate), KP_SILU),
                NULL};
  h.time = c.space == NULL ? kp_lift(p->graph, h.space, 1, NULL)
                           : kp_expert_lift(p->graph, h.space, r->offsets, c.space);
  *rows = kp_grouped_linear(p->graph, h, r->offsets, down);
  return KP_OK;
}

static kp_status verify_layer(kp_point_case *p, kp_error *error) {
  kp_point x, shared;
  kp_routing r;
  kp_tensor *rows = NULL, *sigma;
  kp_lorentz_seam seam = {.c = NULL};
  KP_TRY(kp_point_case_read(p, "in", "grad_in", "x", 1, false, &x, error));
  KP_TRY(route(p, x, "gate.weight", "gate.bias", (kp_route_arguments){.scale = 1}, &r, error));
  KP_TRY(shared_expert(p, x, &shared, error));
  KP_TRY(routed_experts(p, x, &r, &rows, error));
  KP_TRY(kp_point_case_parameter(p, "add_experts.w_y", 1, false, &seam.branch_weight, error));
  KP_TRY(kp_point_case_parameter(p, "add_experts.scale", 1, false, &sigma, error));
  const kp_combine_arguments fold = {.kind = KP_COMBINE_FOLD, .scale = 2, .floor = UPSTREAM_FLOOR};
  seam.stream = shared;
  seam.branch = kp_expert_combine(p->graph, rows, &r, NULL, NULL, 0, fold);
  seam.scale = kp_curvature(p->graph, sigma, KP_MAP_EXP);
  KP_TRY(kp_point_case_result(p, "out/indices", r.indices, NULL, error));
  KP_TRY(kp_point_case_result(p, "out/weights", r.weights, NULL, error));
  KP_TRY(kp_point_case_result(p, "out/counts", r.counts, NULL, error));
  const kp_lorentz_residual_arguments arguments = {.floor = UPSTREAM_FLOOR};
  return kp_point_case_run(p, kp_lorentz_residual(p->graph, seam, arguments).stream, error);
}

/* ---- latent attention ---- */

/* Sizes of the maps; v is the space size of a value. */
typedef struct latent_sizes {
  int64_t batch, length;
  int heads, rank, plain, rope, value;
} latent_sizes;

/* The numbers of heads and channels that the maps' shapes have in common. */
static kp_status sizes_of(const kp_point_case *p, const kp_safetensors_entry *documents, const linear *query,
                          const linear *down, const linear *up, int64_t rank, int64_t out_columns,
                          latent_sizes *s, kp_error *error) {
  const int64_t q = kp_tensor_rows(query->weight.space), kv = kp_tensor_rows(up->weight.space);
  const int64_t rope = kp_tensor_rows(down->weight.space) - rank, heads = (q + out_columns - kv) / (rope + 1);
  if (documents->rank != 2 || rope < 2 || heads < 1 || q % heads != 0 || out_columns % heads != 0 ||
      q / heads <= rope || kv != q + out_columns - heads * (rope + 1))
    return kp_fail(error, KP_ERR_INPUT, "%s: the maps' shapes fit no number of heads", p->c->report->name);
  *s = (latent_sizes){.batch = documents->shape[0],
                      .length = documents->shape[1],
                      .heads = (int)heads,
                      .rank = (int)rank,
                      .plain = (int)(q / heads - rope),
                      .rope = (int)rope,
                      .value = (int)(out_columns / heads - 1)};
  return KP_OK;
}

static kp_status positions_of(kp_point_case *p, const latent_sizes *s, kp_tensor **positions,
                              kp_error *error) {
  double *values = malloc((size_t)(s->batch * s->length) * sizeof *values);
  kp_assert(values != NULL, "out of memory");
  for (int64_t i = 0; i < s->batch * s->length; i++) values[i] = (double)(i % s->length);
  return kp_point_case_integers(p, "positions", values, s->batch * s->length, positions, error);
}

static kp_tensor *rotate(kp_point_case *p, kp_tensor *x, kp_tensor *positions, int heads, int plain,
                         int rope) {
  return kp_rotary(
      p->graph, x, positions,
      (kp_rotary_arguments){
          .heads = heads, .head_size = rope, .base = 10000, .offset = plain, .stride = plain + rope});
}

static kp_status verify_latent(kp_point_case *p, kp_error *error) {
  linear query, down, up, out;
  kp_point x;
  kp_tensor *tau, *norm, *documents, *positions, *z, *kv;
  kp_attention_operands in = {.k = NULL};
  const kp_safetensors_entry *table, *norm_entry, *out_entry;
  latent_sizes s = {0};
  KP_TRY(kp_safetensors_require(p->c->file, "in/documents", &table, error));
  KP_TRY(kp_safetensors_require(p->c->file, "param/kv_norm.weight", &norm_entry, error));
  KP_TRY(kp_safetensors_require(p->c->file, "param/wo.linear.weight", &out_entry, error));
  KP_TRY(kp_point_case_read(p, "in", "grad_in", "x", 1, false, &x, error));
  KP_TRY(read_linear(p, "wq.linear", 1, &query, error));
  KP_TRY(read_linear(p, "wkv_a.linear", 1, &down, error));
  KP_TRY(read_linear(p, "wkv_b.linear", 1, &up, error));
  KP_TRY(sizes_of(p, table, &query, &down, &up, norm_entry->elements,
                  out_entry->rank == 2 ? out_entry->shape[1] : 0, &s, error));
  KP_TRY(read_linear(p, "wo.linear", s.heads, &out, error));
  KP_TRY(kp_point_case_parameter(p, "softmax_scale", 1, false, &tau, error));
  KP_TRY(kp_point_case_parameter(p, "kv_norm.weight", s.rank, false, &norm, error));
  KP_TRY(kp_point_case_integers(p, "in/documents", NULL, s.batch * s.length, &documents, error));
  KP_TRY(positions_of(p, &s, &positions, error));
  KP_TRY(apply(p, x, &query, &in.q, error));
  KP_TRY(apply(p, x, &down, &kv, error));
  in.q = rotate(p, in.q, positions, s.heads, s.plain, s.rope);
  const kp_columns parts = kp_split_columns(p->graph, kv, s.rank);
  const kp_lorentz_seam seam = {.stream = {parts.left, NULL}, .norm_weight = norm};
  const kp_lorentz_residual_arguments normed = {.norm = true, .epsilon = NORM_EPSILON};
  KP_TRY(apply(p, kp_lorentz_residual(p->graph, seam, normed).normalised, &up, &z, error));
  const kp_latent latent = kp_latent_keys(p->graph, z, rotate(p, parts.right, positions, 1, 0, s.rope),
                                          (kp_latent_keys_arguments){s.heads, s.plain, s.rope, s.value});
  in.k = latent.keys;
  in.v = latent.values;
  in.temperature = kp_curvature(p->graph, tau, KP_MAP_RECIPROCAL);
  in.documents = documents;
  const kp_attention_arguments arguments = {.batch = s.batch,
                                            .length = s.length,
                                            .heads = s.heads,
                                            .kv_heads = s.heads,
                                            .head_size = s.plain + s.rope,
                                            .value_size = s.value,
                                            .causal = true,
                                            .score = KP_SCORE_LORENTZ,
                                            .values = KP_VALUES_LORENTZ};
  kp_point y;
  KP_TRY(apply(p, kp_attend(p->graph, in, arguments), &out, &y.space, error));
  y.time = kp_lift(p->graph, y.space, 1, NULL);
  return kp_point_case_run(p, y, error);
}

/* ---- attention with heads ---- */

/* The sizes follow from the maps: H·m rows of the queries', H·(m + 1) columns of the output's. */
static kp_status verify_heads(kp_point_case *p, kp_error *error) {
  static const char *const names[] = {"Wq", "Wk", "Wv"};
  const kp_safetensors_entry *documents, *out_entry;
  kp_point x, y;
  linear maps[3], out;
  kp_tensor *tau, *positions;
  kp_attention_operands in = {.k = NULL};
  kp_tensor **parts[] = {&in.q, &in.k, &in.v};
  KP_TRY(kp_safetensors_require(p->c->file, "in/documents", &documents, error));
  KP_TRY(kp_safetensors_require(p->c->file, "param/final_linear.weight", &out_entry, error));
  KP_TRY(kp_point_case_read(p, "in", "grad_in", "x", 1, false, &x, error));
  for (int i = 0; i < 3; i++) {
    KP_TRY(read_linear(p, names[i], 1, &maps[i], error));
    KP_TRY(apply(p, x, &maps[i], parts[i], error));
  }
  const int64_t channels = kp_tensor_columns(in.q);
  const int64_t heads = out_entry->rank == 2 ? out_entry->shape[1] - channels : 0;
  if (documents->rank != 2 || heads < 1 || channels % heads != 0 || channels / heads % 2 != 0)
    return kp_fail(error, KP_ERR_INPUT, "the maps make no heads of an even size");
  const latent_sizes s = {.batch = documents->shape[0], .length = documents->shape[1], .heads = (int)heads};
  const int size = (int)(channels / heads);
  KP_TRY(read_linear(p, "final_linear", s.heads, &out, error));
  KP_TRY(kp_point_case_parameter(p, "scale", 1, false, &tau, error));
  KP_TRY(kp_point_case_integers(p, "in/documents", NULL, s.batch * s.length, &in.documents, error));
  KP_TRY(positions_of(p, &s, &positions, error));
  in.q = rotate(p, in.q, positions, s.heads, 0, size);
  in.k = rotate(p, in.k, positions, s.heads, 0, size);
  in.temperature = kp_curvature(p->graph, tau, KP_MAP_RECIPROCAL);
  const kp_attention_arguments arguments = {.batch = s.batch,
                                            .length = s.length,
                                            .heads = s.heads,
                                            .kv_heads = s.heads,
                                            .head_size = size,
                                            .causal = true,
                                            .score = KP_SCORE_LORENTZ,
                                            .values = KP_VALUES_LORENTZ};
  KP_TRY(apply(p, kp_attend(p->graph, in, arguments), &out, &y.space, error));
  y.time = kp_lift(p->graph, y.space, 1, NULL);
  return kp_point_case_run(p, y, error);
}

/* ---- all ---- */

typedef kp_status verify_block(kp_point_case *p, kp_error *error);

static const struct {
  const char *name;
  verify_block *verify;
} blocks[] = {{"blk_gate", verify_gate},
              {"blk_mice", verify_layer},
              {"blk_hmla", verify_latent},
              {"blk_attention", verify_heads}};
enum { BLOCKS = sizeof blocks / sizeof *blocks };

static verify_block *block_of(const kp_case *c) {
  for (int i = 0; i < BLOCKS; i++)
    if (strncmp(c->report->name, blocks[i].name, strlen(blocks[i].name)) == 0) return blocks[i].verify;
  return NULL;
}

bool kp_verify_is_experts(const kp_case *c) {
  return strcmp(c->report->family, "helm") == 0 && block_of(c) != NULL;
}

kp_status kp_verify_experts(const kp_case *c, kp_error *error) {
  kp_point_case p = kp_point_case_create(c);
  kp_status status = block_of(c)(&p, error);
  kp_point_case_destroy(&p);
  return status;
}
