/* The work of a step is cut into pieces that threads take one by one: runs of elements, of rows, stripes of
 * columns.  A hidden matrix that Muon steps, or whose norm is kept, is a piece of its own; those come first,
 * the largest ahead.  Where there are fewer matrices than threads, they are done one after the other, with
 * all threads in the library's products. */
#include "optim/optimizer.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "core/assert.h"
#include "optim/element.h"
#include "optim/passes.h"
#include "optim/riemannian_adam.h"

/* Elements of a piece: much more than a thread's start, much less than a share of a large model. */
enum { PIECE_ELEMENTS = 1 << 15 };

typedef enum piece_kind { ELEMENTS, SLICE, ROWS, COLUMNS, MATRIX } piece_kind;

/* SLICE: elements of a stack that takes part in a step only where it has a gradient (kp_parameter.counter).
 * Elements, rows or columns [first, last) of a parameter (columns: of matrix number `matrix`); of a MATRIX
 * the elements. */
typedef struct piece {
  int parameter;
  piece_kind kind;
  kp_update update;
  int64_t first, last, matrix, rows, columns;
} piece;

typedef struct pieces {
  piece *list;
  int64_t count, capacity;
} pieces;

struct kp_optimizer {
  kp_parameters *parameters;
  kp_optimizer_options options;
  int threads;
  pieces matrices, rest;
  bool one_by_one; /* fewer matrices than threads */
  char *scratch;   /* a share for each thread */
  size_t scratch_share;
};

/* ---- which update ---- */

static bool is_hidden_matrix(const kp_parameter *p) {
  return p->group == KP_GROUP_DECAY && p->dimensions >= 2;
}

kp_update kp_optimizer_update(const kp_optimizer_options *options, const kp_parameter *p) {
  const bool points = p->manifold == KP_MANIFOLD_LORENTZ || p->manifold == KP_MANIFOLD_STEREOGRAPHIC;
  const bool muon = options->kind == KP_OPTIMIZER_MUON || options->kind == KP_OPTIMIZER_HYPERBALL_MUON;
  const bool hyperball = options->kind >= KP_OPTIMIZER_HYPERBALL_ADAMW;
  if (!p->trainable || !p->used) return (kp_update){.rule = KP_UPDATE_NONE};
  if (points) return (kp_update){.rule = KP_UPDATE_RIEMANNIAN_ADAM};
  if (!is_hidden_matrix(p)) return (kp_update){.rule = KP_UPDATE_ADAMW};
  return (kp_update){.rule = muon ? KP_UPDATE_MUON : KP_UPDATE_ADAMW,
                     .keeps_norm = hyperball && p->manifold == KP_MANIFOLD_NONE};
}

const char *kp_update_text(kp_update update) {
  switch (update.rule) {
  case KP_UPDATE_ADAMW: return update.keeps_norm ? "adamw, norm kept" : "adamw";
  case KP_UPDATE_MUON: return update.keeps_norm ? "muon, norm kept" : "muon";
  case KP_UPDATE_RIEMANNIAN_ADAM: return "riemannian adam";
  case KP_UPDATE_NONE: break;
  }
  return "none";
}

static int moments_of(kp_update update) {
  return update.rule == KP_UPDATE_NONE ? 0 : update.rule == KP_UPDATE_MUON ? 1 : 2;
}

/* ---- cutting ---- */

static void add_piece(pieces *p, piece new) {
  if (p->count == p->capacity) {
    p->capacity = p->capacity == 0 ? 256 : 2 * p->capacity;
    p->list = realloc(p->list, (size_t)p->capacity * sizeof *p->list);
    kp_assert(p->list != NULL, "out of memory for an optimizer's work");
  }
  p->list[p->count++] = new;
}

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* `count` elements, rows or columns, `most` in a piece. */
static void cut(pieces *p, piece like, int64_t count, int64_t most) {
  for (int64_t first = 0; first < count; first += most) {
    like.first = first;
    like.last = smaller(first + most, count);
    add_piece(p, like);
  }
}

static void cut_into_matrices(pieces *p, piece like, const kp_parameter *parameter, bool split) {
  kp_matrices m = kp_matrices_of(parameter);
  if (split && m.count == 1 && parameter->manifold != KP_MANIFOLD_UNIT_COLUMNS) {
    m.count = parameter->blocks;
    m.rows /= parameter->blocks;
  }
  like.kind = MATRIX;
  like.rows = m.rows;
  like.columns = m.columns;
  cut(p, like, m.count * m.rows * m.columns, m.rows * m.columns);
}

static void cut_parameter(kp_optimizer *o, int index) {
  const kp_parameter *parameter = &o->parameters->list[index];
  const kp_update update = kp_optimizer_update(&o->options, parameter);
  const kp_matrices m = kp_matrices_of(parameter);
  piece like = {.parameter = index, .update = update};
  if (parameter->count == 0 || update.rule == KP_UPDATE_NONE) return;
  if (update.rule == KP_UPDATE_MUON || update.keeps_norm) {
    cut_into_matrices(&o->matrices, like, parameter, update.rule == KP_UPDATE_MUON && o->options.muon.split);
  } else if (update.rule == KP_UPDATE_RIEMANNIAN_ADAM || parameter->manifold == KP_MANIFOLD_UNIT_ROWS) {
    like.kind = ROWS;
    cut(&o->rest, like, m.count * m.rows, PIECE_ELEMENTS / m.columns + 1);
  } else if (parameter->manifold == KP_MANIFOLD_UNIT_COLUMNS) {
    like.kind = COLUMNS;
    for (; like.matrix < m.count; like.matrix++) cut(&o->rest, like, m.columns, KP_COLUMN_STRIPE);
  } else if (parameter->counter > 0) {
    like.kind = SLICE;
    cut(&o->rest, like, parameter->count, parameter->count / parameter->shape[0]);
  } else {
    like.kind = ELEMENTS;
    cut(&o->rest, like, parameter->count, PIECE_ELEMENTS);
  }
}

/* The largest first; equal ones in their order, so that the work is always the same. */
static int larger_first(const void *a, const void *b) {
  const piece *x = a, *y = b;
  const int64_t x_size = x->last - x->first, y_size = y->last - y->first;
  if (x_size != y_size) return x_size < y_size ? 1 : -1;
  if (x->parameter != y->parameter) return x->parameter < y->parameter ? -1 : 1;
  return x->first < y->first ? -1 : x->first > y->first;
}

/* ---- creating ---- */

/* Bytes that one thread needs for one parameter. */
static size_t scratch_of(const kp_parameter *parameter, const kp_optimizer_options *options,
                         size_t real_size) {
  const kp_matrices m = kp_matrices_of(parameter);
  switch (kp_optimizer_update(options, parameter).rule) {
  case KP_UPDATE_MUON: return (size_t)kp_muon_scratch(m.rows, m.columns) * real_size;
  case KP_UPDATE_RIEMANNIAN_ADAM: return (size_t)kp_riemannian_adam_scratch(m.columns) * sizeof(double);
  default: return 0;
  }
}

static size_t scratch_share(const kp_parameters *parameters, const kp_optimizer_options *options,
                            const kp_backend *backend) {
  enum { LINE = 64 };
  size_t most = 0;
  for (int p = 0; p < parameters->count; p++) {
    const size_t bytes = scratch_of(&parameters->list[p], options, backend->real_size);
    if (bytes > most) most = bytes;
  }
  return (most + LINE - 1) / LINE * LINE;
}

size_t kp_optimizer_scratch_bytes(const kp_parameters *parameters, const kp_optimizer_options *options,
                                  const kp_backend *backend, int threads) {
  return scratch_share(parameters, options, backend) * (size_t)kp_thread_count(threads);
}

void kp_optimizer_name_moments(kp_parameters *parameters, const kp_optimizer_options *options) {
  for (int p = 0; p < parameters->count; p++)
    parameters->list[p].moments = moments_of(kp_optimizer_update(options, &parameters->list[p]));
  for (int p = 0; p < parameters->count; p++)
    if (parameters->list[p].counter > 0) parameters->list[parameters->list[p].counter - 1].moments = 1;
}

kp_status kp_optimizer_create(kp_parameters *parameters, const kp_optimizer_options *options, int threads,
                              kp_optimizer **result, kp_error *error) {
  kp_assert(parameters->moment2 != NULL, "an optimizer of parameters that were not allocated for training");
  kp_optimizer *o = calloc(1, sizeof *o);
  void *scratch = NULL;
  *result = NULL;
  kp_assert(o != NULL, "out of memory");
  o->parameters = parameters;
  o->options = *options;
  o->threads = kp_thread_count(threads);
  o->scratch_share = scratch_share(parameters, options, parameters->backend);
  kp_status status =
      kp_buffer_create(kp_optimizer_scratch_bytes(parameters, options, parameters->backend, threads),
                       "the optimizer", &scratch, error);
  if (status != KP_OK) {
    free(o);
    return status;
  }
  o->scratch = scratch;
  kp_optimizer_name_moments(parameters, options);
  for (int p = 0; p < parameters->count; p++) cut_parameter(o, p);
  if (o->matrices.count > 0)
    qsort(o->matrices.list, (size_t)o->matrices.count, sizeof *o->matrices.list, larger_first);
  o->one_by_one = o->matrices.count < o->threads;
  *result = o;
  return KP_OK;
}

void kp_optimizer_destroy(kp_optimizer *o) {
  if (o == NULL) return;
  kp_buffer_destroy(o->scratch);
  free(o->matrices.list);
  free(o->rest.list);
  free(o);
}

/* ---- a step ---- */

/* What all pieces of a step share. */
typedef struct kp_step {
  kp_optimizer *optimizer;
  kp_adamw_step adamw[KP_GROUP_COUNT];
  double rate_factor, gradient_scale;
} kp_step;

static double frobenius_norm(const kp_parameters *parameters, int64_t first, int64_t count) {
  return sqrt(kp_pass_dot(parameters->values, parameters->values, kp_is_wide(parameters), first, count));
}

/* Back to the norm `norm`, unless nothing is left that could have one. */
static void rescale(const kp_parameters *parameters, int64_t first, int64_t count, double norm) {
  const double now = frobenius_norm(parameters, first, count);
  if (now > 0) kp_pass_scale(parameters->values, kp_is_wide(parameters), first, count, norm / now);
}

typedef void on_rows(const kp_parameters *parameters, const kp_parameter *parameter, int64_t first,
                     int64_t last);
typedef void on_columns(const kp_parameters *parameters, const kp_parameter *parameter, int64_t matrix,
                        int64_t first, int64_t last);

/* All unit vectors of a matrix at once: a matrix of unit columns is never split along its rows. */
static void for_unit_vectors(const kp_step *step, const piece *p, on_rows *rows, on_columns *columns) {
  const kp_parameters *parameters = step->optimizer->parameters;
  const kp_parameter *parameter = &parameters->list[p->parameter];
  if (parameter->manifold == KP_MANIFOLD_UNIT_ROWS)
    rows(parameters, parameter, p->first / p->columns, p->last / p->columns);
  if (parameter->manifold != KP_MANIFOLD_UNIT_COLUMNS) return;
  for (int64_t first = 0; first < p->columns; first += KP_COLUMN_STRIPE)
    columns(parameters, parameter, p->first / (p->rows * p->columns), first,
            smaller(first + KP_COLUMN_STRIPE, p->columns));
}

static void step_matrix(const kp_step *step, const piece *p, void *scratch) {
  const kp_optimizer *o = step->optimizer;
  const kp_parameter *parameter = &o->parameters->list[p->parameter];
  const int64_t first = parameter->offset + p->first, count = p->last - p->first;
  const double norm = p->update.keeps_norm ? frobenius_norm(o->parameters, first, count) : 0;
  if (o->options.tangent) for_unit_vectors(step, p, kp_tangent_rows, kp_tangent_columns);
  if (p->update.rule == KP_UPDATE_MUON) {
    kp_muon_options muon = o->options.muon;
    if (p->update.keeps_norm) muon.weight_decay = 0;
    kp_muon_apply(o->parameters, &muon, step->rate_factor, step->gradient_scale, first, p->rows, p->columns,
                  scratch);
  } else {
    kp_adamw_step adamw = step->adamw[parameter->group];
    adamw.keep = 1;
    kp_adamw_apply(o->parameters, &adamw, first, count);
  }
  if (p->update.keeps_norm) rescale(o->parameters, first, count, norm);
  for_unit_vectors(step, p, kp_retract_rows, kp_retract_columns);
}

/* Each row while it is in the cache. */
static void step_unit_rows(const kp_step *step, const kp_parameter *parameter, const piece *p) {
  const kp_optimizer *o = step->optimizer;
  const int64_t columns = kp_matrices_of(parameter).columns;
  for (int64_t row = p->first; row < p->last; row++) {
    if (o->options.tangent) kp_tangent_rows(o->parameters, parameter, row, row + 1);
    kp_adamw_apply(o->parameters, &step->adamw[parameter->group], parameter->offset + row * columns, columns);
    kp_retract_rows(o->parameters, parameter, row, row + 1);
  }
}

static void step_unit_columns(const kp_step *step, const kp_parameter *parameter, const piece *p) {
  const kp_optimizer *o = step->optimizer;
  const kp_matrices m = kp_matrices_of(parameter);
  const int64_t at = parameter->offset + p->matrix * m.rows * m.columns + p->first;
  if (o->options.tangent) kp_tangent_columns(o->parameters, parameter, p->matrix, p->first, p->last);
  for (int64_t row = 0; row < m.rows; row++)
    kp_adamw_apply(o->parameters, &step->adamw[parameter->group], at + row * m.columns, p->last - p->first);
  kp_retract_columns(o->parameters, parameter, p->matrix, p->first, p->last);
}

/* ---- slices that may be idle ---- */

static bool has_gradient(const kp_parameters *parameters, int64_t first, int64_t count) {
  const bool wide = kp_is_wide(parameters);
  for (int64_t i = first; i < first + count; i++)
    if (kp_element(parameters->gradients, wide, i) != 0) return true;
  return false;
}

/* Whether `index` is the first parameter with its counter: the one by whose gradients it counts. */
static bool counts(const kp_parameters *parameters, int index) {
  const int counter = parameters->list[index].counter;
  for (int p = 0; p < index; p++)
    if (parameters->list[p].counter == counter) return false;
  return counter > 0;
}

static void count_slices(const kp_parameters *parameters) {
  const bool wide = kp_is_wide(parameters);
  for (int index = 0; index < parameters->count; index++) {
    const kp_parameter *p = &parameters->list[index];
    if (!counts(parameters, index)) continue;
    const int64_t at = parameters->list[p->counter - 1].offset, size = p->count / p->shape[0];
    for (int64_t slice = 0; slice < p->shape[0]; slice++)
      if (has_gradient(parameters, p->offset + slice * size, size))
        kp_element_set(parameters->moment1, wide, at + slice,
                       kp_element(parameters->moment1, wide, at + slice) + 1);
  }
}

/* Each slice is at a step of its own. */
static void step_slice(const kp_step *step, const kp_parameter *parameter, const piece *p) {
  const kp_optimizer *o = step->optimizer;
  const int64_t first = parameter->offset + p->first, count = p->last - p->first;
  const int64_t at = o->parameters->list[parameter->counter - 1].offset + p->first / count;
  if (!has_gradient(o->parameters, first, count)) return;
  const int64_t t = (int64_t)kp_element(o->parameters->moment1, kp_is_wide(o->parameters), at);
  const kp_adamw_step adamw = kp_adamw_step_of(&o->options.adamw, parameter->group, t > 0 ? t : 1,
                                               step->rate_factor, step->gradient_scale);
  kp_adamw_apply(o->parameters, &adamw, first, count);
}

static void step_piece(const kp_step *step, const piece *p, void *scratch) {
  const kp_optimizer *o = step->optimizer;
  const kp_parameter *parameter = &o->parameters->list[p->parameter];
  const kp_adamw_step *adamw = &step->adamw[parameter->group];
  if (p->kind == ELEMENTS)
    kp_adamw_apply(o->parameters, adamw, parameter->offset + p->first, p->last - p->first);
  else if (p->kind == SLICE)
    step_slice(step, parameter, p);
  else if (p->kind == COLUMNS)
    step_unit_columns(step, parameter, p);
  else if (p->update.rule == KP_UPDATE_RIEMANNIAN_ADAM)
    kp_riemannian_adam_apply(o->parameters, parameter, adamw, p->first, p->last, scratch);
  else
    step_unit_rows(step, parameter, p);
}

void kp_optimizer_step(kp_optimizer *o, int64_t t, double rate_factor, double gradient_scale) {
  kp_step step = {.optimizer = o, .rate_factor = rate_factor, .gradient_scale = gradient_scale};
  for (int g = 0; g < KP_GROUP_COUNT; g++)
    step.adamw[g] = kp_adamw_step_of(&o->options.adamw, (kp_group)g, t, rate_factor, gradient_scale);
  count_slices(o->parameters);
#pragma omp parallel for schedule(dynamic) num_threads(o->threads) if (!o->one_by_one)
  for (int64_t i = 0; i < o->matrices.count; i++)
    step_matrix(&step, &o->matrices.list[i], o->scratch + (size_t)omp_get_thread_num() * o->scratch_share);
#pragma omp parallel for schedule(dynamic) num_threads(o->threads)
  for (int64_t i = 0; i < o->rest.count; i++)
    step_piece(&step, &o->rest.list[i], o->scratch + (size_t)omp_get_thread_num() * o->scratch_share);
}
