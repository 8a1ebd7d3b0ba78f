#include <math.h>
#include <stdio.h>

#include "models/parts/parts.h"

bool kp_builder_decodes(const kp_builder *b) {
  return b->network->build.mode == KP_BUILD_DECODE;
}

kp_tensor *kp_part_parameter(kp_builder *b, const char *name, kp_group group, kp_initial initial,
                             int dimensions, const int64_t *shape) {
  int index = kp_parameters_add(b->parameters, name, dimensions, shape, initial, group, true);
  const bool trainable = b->parameters->list[index].trainable && b->network->build.mode == KP_BUILD_TRAIN;
  const bool matrix = dimensions >= 2 && (group == KP_GROUP_DECAY || group == KP_GROUP_TABLE);
  return kp_graph_parameter(b->graph, b->parameters->list[index].name, index,
                            matrix ? KP_TYPE_REAL : KP_TYPE_STATISTIC, trainable, dimensions, shape);
}

kp_tensor *kp_part_manifold_parameter(kp_builder *b, const char *name, kp_group group, kp_initial initial,
                                      int dimensions, const int64_t *shape, kp_manifold manifold,
                                      double curvature) {
  kp_tensor *tensor = kp_part_parameter(b, name, group, initial, dimensions, shape);
  kp_parameters_set_manifold(b->parameters, tensor->parameter, manifold, curvature);
  return tensor;
}

void kp_part_unused_parameter(kp_builder *b, const char *name, kp_group group, kp_initial initial,
                              int dimensions, const int64_t *shape) {
  int index = kp_parameters_add(b->parameters, name, dimensions, shape, initial, group, true);
  b->parameters->list[index].used = false;
}

/* The matrices of a spherical stream are normalised along the stream's axis. */
bool kp_is_spherical(const kp_model_options *o) {
  return o->residual == KP_RESIDUAL_LERP || o->residual == KP_RESIDUAL_SLERP;
}

kp_initial kp_initial_weight(const kp_model_options *o) {
  return (kp_initial){.kind = KP_INITIAL_NORMAL, .b = kp_is_spherical(o) ? o->sphere_scale : 0.02};
}

kp_initial kp_initial_projection(const kp_model_options *o) {
  kp_initial initial = kp_initial_weight(o);
  initial.b /= sqrt(2.0 * (double)o->layers);
  return initial;
}

kp_initial kp_initial_of(double value) {
  return (kp_initial){.kind = KP_INITIAL_CONSTANT, .a = value};
}

kp_initial kp_initial_uniform(int64_t in) {
  const double bound = 1 / sqrt((double)in);
  return (kp_initial){.kind = KP_INITIAL_UNIFORM, .a = -bound, .b = bound};
}

kp_initial kp_initial_lorentz(int64_t out, int64_t in) {
  const double bound = sqrt(12.0 / (double)(out + in));
  return (kp_initial){.kind = KP_INITIAL_UNIFORM, .a = -bound, .b = bound};
}

kp_tensor *kp_part_matrix(kp_builder *b, const char *name, kp_group group, kp_initial initial, int64_t out,
                          int64_t in, bool columns) {
  const kp_manifold sphere = columns ? KP_MANIFOLD_UNIT_COLUMNS : KP_MANIFOLD_UNIT_ROWS;
  return kp_part_manifold_parameter(b, name, group, initial, 2, (int64_t[]){out, in},
                                    kp_is_spherical(b->options) ? sphere : KP_MANIFOLD_NONE, 0);
}

static kp_tensor *linear(kp_builder *b, kp_tensor *x, const char *name, int64_t out, bool bias,
                         kp_initial initial, bool columns) {
  char full[160];
  snprintf(full, sizeof full, "%s.weight", name);
  kp_tensor *weight = kp_part_matrix(b, full, KP_GROUP_DECAY, initial, out, kp_tensor_columns(x), columns);
  kp_tensor *offset = NULL;
  if (bias) {
    snprintf(full, sizeof full, "%s.bias", name);
    offset = kp_part_parameter(b, full, KP_GROUP_NO_DECAY, kp_initial_of(0), 1, &out);
  }
  return kp_part_adapted(b, kp_linear(b->graph, x, weight, offset), (kp_point){.space = x}, name);
}

void kp_part_stacked(kp_builder *b, const char *name, int blocks) {
  char full[160];
  snprintf(full, sizeof full, "%s.weight", name);
  kp_parameters_set_blocks(b->parameters, kp_parameters_find(b->parameters, full), blocks);
}

kp_tensor *kp_part_linear(kp_builder *b, kp_tensor *x, const char *name, int64_t out, bool bias,
                          kp_initial initial) {
  return linear(b, x, name, out, bias, initial, false);
}

kp_tensor *kp_part_point_linear(kp_builder *b, kp_point x, const char *name, int64_t out,
                                kp_initial initial) {
  const int64_t times = kp_tensor_columns(x.time);
  char full[160];
  snprintf(full, sizeof full, "%s.weight", name);
  kp_tensor *weight =
      kp_part_matrix(b, full, KP_GROUP_DECAY, initial, out, kp_tensor_columns(x.space), false);
  snprintf(full, sizeof full, "%s.time", name);
  kp_tensor *time =
      kp_part_parameter(b, full, KP_GROUP_DECAY, initial, times == 1 ? 1 : 2, (int64_t[]){out, times});
  kp_tensor *offset = NULL;
  if (b->options->bias) {
    snprintf(full, sizeof full, "%s.bias", name);
    offset = kp_part_parameter(b, full, KP_GROUP_NO_DECAY, kp_initial_of(0), 1, &out);
  }
  return kp_part_adapted(b, kp_linear_lorentz(b->graph, x, weight, time, offset), x, name);
}

kp_tensor *kp_part_radius(kp_builder *b) {
  const kp_curvature_options *c = &b->options->curvature;
  if (b->options->residual != KP_RESIDUAL_LORENTZ || c->values[0] == -1) return NULL;
  return kp_graph_constant(b->graph, "c", 1, (int64_t[]){1}, (double[]){-1 / c->values[0]});
}

kp_tensor *kp_part_projection(kp_builder *b, kp_tensor *x, const char *name, bool bias) {
  return linear(b, x, name, b->options->width, bias, kp_initial_projection(b->options), true);
}

void kp_part_norm_parameters(kp_builder *b, const char *name, kp_tensor **weight, kp_tensor **bias) {
  const kp_model_options *o = b->options;
  char full[160];
  *weight = *bias = NULL;
  if (o->norm == KP_NORM_NONE) return;
  snprintf(full, sizeof full, "%s.weight", name);
  /* The published HELM-D decays its norms, by their names. */
  const bool decayed = o->variant == KP_VARIANT_UPSTREAM && o->residual == KP_RESIDUAL_LORENTZ &&
                       o->attention.kind == KP_ATTENTION_HEADS;
  *weight = kp_part_parameter(b, full, decayed ? KP_GROUP_DECAY : KP_GROUP_NO_DECAY, kp_initial_of(1), 1,
                              &o->width);
  if (!o->bias || o->norm == KP_NORM_RMS) return;
  snprintf(full, sizeof full, "%s.bias", name);
  *bias = kp_part_parameter(b, full, KP_GROUP_NO_DECAY, kp_initial_of(0), 1, &o->width);
}
