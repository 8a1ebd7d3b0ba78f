/* Cases of the blocks of a Lorentz network: linear map, RMSNorm, residual, feed-forward, expert (HELM, He et
 * al. 2025).  The kind of block is the beginning of the case's name; sizes, curvatures and which parameters
 * there are follow from the file. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "study/verify_points.h"

/* Parameters NAME.weight (M, 1 + C), first column for the time, and NAME.bias. */
typedef struct linear {
  kp_point weight;
  kp_tensor *bias;
} linear;

static kp_status read_linear(kp_point_case *p, const char *name, linear *out, kp_error *error) {
  char full[64];
  snprintf(full, sizeof full, "%s.weight", name);
  KP_TRY(kp_point_case_read(p, "param", "grad", full, true, false, &out->weight, error));
  snprintf(full, sizeof full, "%s.bias", name);
  return kp_point_case_parameter(p, full, kp_tensor_rows(out->weight.space), true, &out->bias, error);
}

static kp_status check_columns(const linear *l, kp_point x, kp_error *error) {
  const int64_t takes = kp_tensor_columns(l->weight.space), has = kp_tensor_columns(x.space);
  if (takes == has) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "a matrix for %lld space coordinates meets a point with %lld",
                 (long long)takes, (long long)has);
}

static kp_tensor *apply(kp_point_case *p, kp_point x, const linear *l) {
  return kp_linear_lorentz(p->graph, x, l->weight.space, l->weight.time, l->bias);
}

static kp_point lifted(kp_point_case *p, kp_tensor *space, kp_tensor *c) {
  return (kp_point){space, kp_lift(p->graph, space, 1, c)};
}

/* y = W x + b, as a vector; or lifted, and moved to another hyperboloid where the file has one. */
static kp_status verify_linear(kp_point_case *p, kp_error *error) {
  linear l;
  kp_point x;
  kp_tensor *c = NULL, *to = NULL;
  bool ambient;
  KP_TRY(kp_point_case_read(p, "in", "grad_in", "x", true, false, &x, error));
  KP_TRY(read_linear(p, "linear", &l, error));
  KP_TRY(check_columns(&l, x, error));
  KP_TRY(kp_point_case_is_ambient(p, kp_tensor_rows(l.weight.space), &ambient, error));
  if (!ambient) return kp_point_case_run(p, (kp_point){apply(p, x, &l), NULL}, error);
  KP_TRY(kp_point_case_parameter(p, "c", 1, true, &c, error));
  KP_TRY(kp_point_case_parameter(p, "manifold_out.k", 1, true, &to, error));
  kp_point y = lifted(p, apply(p, x, &l), c);
  if (to != NULL) y = kp_homothety(p->graph, y, c, to);
  return kp_point_case_run(p, y, error);
}

static kp_status verify_norm(kp_point_case *p, kp_error *error) {
  kp_lorentz_seam seam = {.c = NULL};
  kp_lorentz_residual_arguments arguments = {.norm = true};
  const kp_safetensors_entry *x, *weight;
  KP_TRY(kp_safetensors_require(p->c->file, "in/x", &x, error));
  KP_TRY(kp_safetensors_require(p->c->file, "param/weight", &weight, error));
  const bool ambient = x->rank > 0 && x->shape[x->rank - 1] == weight->elements + 1;
  KP_TRY(kp_point_case_read(p, "in", "grad_in", "x", ambient, false, &seam.stream, error));
  KP_TRY(kp_point_case_parameter(p, "weight", weight->elements, false, &seam.norm_weight, error));
  KP_TRY(kp_point_case_parameter(p, "c", 1, true, &seam.c, error));
  KP_TRY(kp_point_case_number(p, "cfg/epsilon", 1e-8, &arguments.epsilon, error));
  if (kp_tensor_columns(seam.stream.space) != weight->elements)
    return kp_fail(error, KP_ERR_INPUT, "in/x and param/weight do not fit");
  return kp_point_case_run(p, kp_lorentz_residual(p->graph, seam, arguments).normalised, error);
}

/* The weight of the branch is one number, param/w_y, or one a row, in/w; the scale is cfg/scale, or the
 * exponential of param/scale. */
static kp_status verify_residual(kp_point_case *p, kp_error *error) {
  kp_lorentz_seam seam = {.c = NULL};
  kp_lorentz_residual_arguments arguments = {.norm = false};
  kp_tensor *sigma;
  kp_point weights;
  KP_TRY(kp_point_case_read(p, "in", "grad_in", "x", true, false, &seam.stream, error));
  KP_TRY(kp_point_case_read(p, "in", "grad_in", "y", true, false, &seam.branch, error));
  KP_TRY(kp_point_case_read(p, "in", "grad_in", "w", false, true, &weights, error));
  KP_TRY(kp_point_case_parameter(p, "w_y", 1, true, &seam.branch_weight, error));
  KP_TRY(kp_point_case_parameter(p, "scale", 1, true, &sigma, error));
  KP_TRY(kp_point_case_parameter(p, "c", 1, true, &seam.c, error));
  KP_TRY(kp_point_case_number(p, "cfg/scale", 1, &arguments.scale, error));
  KP_TRY(kp_point_case_number(p, "cfg/floor", 1e-4, &arguments.floor, error));
  if (!kp_tensor_same_shape(seam.stream.space, seam.branch.space) ||
      (weights.space != NULL && kp_tensor_count(weights.space) != kp_tensor_rows(seam.stream.space)))
    return kp_fail(error, KP_ERR_INPUT, "in/x, in/y and in/w do not fit");
  if (weights.space != NULL) seam.branch_weight = weights.space;
  if (sigma != NULL) seam.scale = kp_curvature(p->graph, sigma, KP_MAP_EXP);
  return kp_point_case_run(p, kp_lorentz_residual(p->graph, seam, arguments).stream, error);
}

/* w2 lift(silu(w1 x) · w3 x), lifted to c. */
static kp_status feed_forward(kp_point_case *p, kp_point x, kp_tensor *c, kp_point *y, kp_error *error) {
  linear gate, up, down;
  KP_TRY(read_linear(p, "w1.linear", &gate, error));
  KP_TRY(read_linear(p, "w2.linear", &down, error));
  KP_TRY(read_linear(p, "w3.linear", &up, error));
  KP_TRY(check_columns(&gate, x, error));
  KP_TRY(check_columns(&up, x, error));
  if (kp_tensor_rows(gate.weight.space) != kp_tensor_rows(up.weight.space))
    return kp_fail(error, KP_ERR_INPUT, "w1 and w3 have different numbers of rows");
  const kp_gate inner = {.x = apply(p, x, &up), .gate = apply(p, x, &gate), .c = c};
  const kp_point h = kp_gated_point(p->graph, inner, (kp_gated_arguments){.kind = KP_SILU, .lift = true});
  KP_TRY(check_columns(&down, h, error));
  *y = lifted(p, apply(p, h, &down), c);
  return KP_OK;
}

static kp_status verify_feed_forward(kp_point_case *p, kp_error *error) {
  kp_point x, y;
  kp_tensor *c;
  KP_TRY(kp_point_case_read(p, "in", "grad_in", "x", true, false, &x, error));
  KP_TRY(kp_point_case_parameter(p, "c", 1, true, &c, error));
  KP_TRY(feed_forward(p, x, c, &y, error));
  return kp_point_case_run(p, y, error);
}

/* A feed-forward on a hyperboloid of its own: there and back by homotheties. */
static kp_status verify_expert(kp_point_case *p, kp_error *error) {
  kp_point x, y;
  kp_tensor *outside, *own;
  KP_TRY(kp_point_case_read(p, "in", "grad_in", "x", true, false, &x, error));
  KP_TRY(kp_point_case_parameter(p, "c", 1, true, &outside, error));
  KP_TRY(kp_point_case_parameter(p, "expert_manifold.k", 1, false, &own, error));
  KP_TRY(feed_forward(p, kp_homothety(p->graph, x, outside, own), own, &y, error));
  return kp_point_case_run(p, kp_homothety(p->graph, y, own, outside), error);
}

typedef kp_status verify_block(kp_point_case *p, kp_error *error);

static const struct {
  const char *name;
  verify_block *verify;
} blocks[] = {{"blk_linear", verify_linear},
              {"blk_rmsnorm", verify_norm},
              {"blk_residual", verify_residual},
              {"blk_ffn", verify_feed_forward},
              {"blk_expert", verify_expert}};
enum { BLOCKS = sizeof blocks / sizeof *blocks };

static verify_block *block_of(const kp_case *c) {
  for (int i = 0; i < BLOCKS; i++)
    if (strncmp(c->report->name, blocks[i].name, strlen(blocks[i].name)) == 0) return blocks[i].verify;
  return NULL;
}

bool kp_verify_is_lorentz(const kp_case *c) {
  return strcmp(c->report->family, "helm") == 0 && block_of(c) != NULL;
}

kp_status kp_verify_lorentz(const kp_case *c, kp_error *error) {
  kp_point_case p = kp_point_case_create(c);
  const kp_status status = block_of(c)(&p, error);
  kp_point_case_destroy(&p);
  return status;
}
