/* The driver of a step on the device: its memory, and the order of its work. */
#include <new>

#include "backend/cuda/optimizer_matrices.cuh"

extern "C" {
#include "backend/cuda/optimizer.h"
}

/* ---- memory: one block, laid out twice, first to learn its size ---- */

struct layout {
  char *base; /* NULL: only the size is asked */
  size_t bytes;
};

template <typename T> static T *take(layout *l, size_t count) {
  enum { ALIGNMENT = 256 };
  T *at = l->base == NULL ? NULL : (T *)(l->base + l->bytes);
  l->bytes += (count * sizeof(T) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  return at;
}

template <typename T> static void take_list(layout *l, kp_list<T> *list) {
  list->at = take<T>(l, list->host.size());
}

static void take_units(layout *l, kp_unit_vectors *units) {
  take_list(l, &units->rows);
  take_list(l, &units->tiles);
  take_list(l, &units->groups);
  take_list(l, &units->held);
}

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

static size_t lay_out(kp_cuda_optimizer *o, char *base) {
  layout l = {base, 0};
  size_t matrix_parts = 0, product_bytes = 0;
  for (const kp_matrix_class &c : o->classes) {
    matrix_parts = larger(matrix_parts, (size_t)c.parts * (size_t)c.together);
    product_bytes = larger(product_bytes, kp_muon_bytes(&c, o->half));
  }
  take_list(&l, &o->chunks);
  take_list(&l, &o->slices);
  take_units(&l, &o->adamw_units);
  take_units(&l, &o->muon_units);
  take_list(&l, &o->matrices);
  o->state = take<kp_optimizer_state>(&l, 1);
  o->norm_parts = take<double>(&l, KP_NORM_PARTS);
  o->numbers = take<kp_adamw_numbers>(&l, KP_GROUP_COUNT + o->slices.host.size());
  o->has_gradient = take<int>(&l, o->slices.host.size());
  const size_t tiles = larger(o->adamw_units.tiles.host.size(), o->muon_units.tiles.host.size());
  const size_t groups = larger(o->adamw_units.groups.host.size(), o->muon_units.groups.host.size());
  o->column_sums = take<double>(&l, tiles * KP_TILE_COLUMNS);
  o->column_factors = take<double>(&l, groups * KP_TILE_COLUMNS);
  o->matrix_sums = take<double>(&l, KP_MATRIX_SUMS * matrix_parts);
  o->products = take<char>(&l, product_bytes);
  return l.bytes;
}

template <typename T> static kp_status upload(kp_cuda_optimizer *o, const kp_list<T> &list, kp_error *error) {
  if (list.host.empty()) return KP_OK;
  return o->cuda->base.write(&o->cuda->base, list.at, list.host.data(), list.host.size() * sizeof(T), error);
}

static kp_status upload_units(kp_cuda_optimizer *o, const kp_unit_vectors &units, kp_error *error) {
  KP_TRY(upload(o, units.rows, error));
  KP_TRY(upload(o, units.tiles, error));
  KP_TRY(upload(o, units.groups, error));
  return upload(o, units.held, error);
}

static kp_status upload_all(kp_cuda_optimizer *o, kp_error *error) {
  KP_TRY(upload(o, o->chunks, error));
  KP_TRY(upload(o, o->slices, error));
  KP_TRY(upload_units(o, o->adamw_units, error));
  KP_TRY(upload_units(o, o->muon_units, error));
  return upload(o, o->matrices, error);
}

/* ---- creating ---- */

static void describe(kp_cuda_optimizer *o, kp_parameters *parameters, const kp_optimizer_options *options) {
  const kp_backend *backend = parameters->backend;
  o->parameters = parameters;
  o->options = *options;
  o->cuda = backend != NULL ? (kp_cuda *)backend->device : NULL;
  o->half = backend != NULL && backend->real_size < backend->wide_size;
  kp_optimizer_cut(o);
}

static size_t scratch_bytes(const kp_parameters *parameters, const kp_optimizer_options *options) {
  kp_cuda_optimizer o = {};
  describe(&o, (kp_parameters *)parameters, options);
  return lay_out(&o, NULL);
}

static void destroy(void *driver) {
  kp_cuda_optimizer *o = (kp_cuda_optimizer *)driver;
  if (o == NULL) return;
  if (o->memory != NULL) o->cuda->base.release(&o->cuda->base, o->memory);
  delete o;
}

static kp_status check_points(const kp_cuda_optimizer *o, kp_error *error) {
  const int most = kp_optimizer_most_coordinates(o->cuda);
  for (const kp_points &p : o->points)
    if (p.columns > most)
      return kp_fail(error, KP_ERR_UNSUPPORTED,
                     "points of %d coordinates: a step on this GPU takes at most %d", p.columns, most);
  return KP_OK;
}

static kp_status prepare_memory(kp_cuda_optimizer *o, kp_error *error) {
  void *memory = NULL;
  KP_TRY(check_points(o, error));
  KP_TRY(o->cuda->base.allocate(&o->cuda->base, lay_out(o, NULL), "the optimizer", &memory, error));
  o->memory = (char *)memory;
  lay_out(o, o->memory);
  return upload_all(o, error);
}

static kp_status create(kp_parameters *parameters, const kp_optimizer_options *options, void **driver,
                        kp_error *error) {
  kp_cuda_optimizer *o = new (std::nothrow) kp_cuda_optimizer();
  *driver = NULL;
  if (o == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for an optimizer");
  o->flat =
      kp_flat{(float *)parameters->values,  (float *)parameters->gradients, (float *)parameters->moment1,
              (float *)parameters->moment2, (kp_half *)parameters->working, options->stochastic_rounding};
  describe(o, parameters, options);
  const kp_status status = prepare_memory(o, error);
  if (status != KP_OK) {
    destroy(o);
    return status;
  }
  *driver = o;
  return KP_OK;
}

/* ---- a step ---- */

static __global__ void prepare_kernel(kp_optimizer_state *state, double rate_factor, double clip) {
  state->rate_factor = rate_factor;
  state->clip = clip;
  state->loss = 0;
}

static __global__ void round_kernel(kp_flat flat, int64_t count) {
  const int64_t stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride)
    kp_put_working<1>(flat, i, kp_take<1>(flat.values + i));
}

/* Initial values, and those of a checkpoint, were rounded to nearest when they were written. */
static kp_status round_once(kp_cuda_optimizer *o, kp_error *error) {
  if (o->rounded || !o->flat.stochastic || o->flat.working == NULL) return KP_OK;
  const int64_t count = o->parameters->total;
  round_kernel<<<kp_blocks(count, 256, 8 * o->cuda->processors), 256, 0, o->cuda->stream>>>(o->flat, count);
  o->rounded = true;
  return kp_optimizer_launched(error);
}

/* A launch carries its numbers with it: nothing on the host has to stay. */
static kp_status prepare(void *driver, double rate_factor, double clip, kp_error *error) {
  kp_cuda_optimizer *o = (kp_cuda_optimizer *)driver;
  KP_TRY(round_once(o, error));
  prepare_kernel<<<1, 1, 0, o->cuda->stream>>>(o->state, rate_factor, clip);
  return kp_optimizer_launched(error);
}

static __global__ void add_loss_kernel(kp_optimizer_state *state, const float *loss, double weight) {
  state->loss += weight * *loss;
}

static kp_status add_loss(void *driver, const void *loss, double weight, kp_error *error) {
  kp_cuda_optimizer *o = (kp_cuda_optimizer *)driver;
  add_loss_kernel<<<1, 1, 0, o->cuda->stream>>>(o->state, (const float *)loss, weight);
  return kp_optimizer_launched(error);
}

static kp_status submit(void *driver, kp_error *error) {
  kp_cuda_optimizer *o = (kp_cuda_optimizer *)driver;
  KP_TRY(kp_optimizer_submit_decision(o, error));
  KP_TRY(kp_optimizer_submit_slices(o, error));
  KP_TRY(kp_optimizer_submit_chunks(o, error));
  KP_TRY(kp_optimizer_submit_unit_rows(o, &o->adamw_units, error));
  KP_TRY(kp_optimizer_submit_held_columns(o, &o->adamw_units, error));
  KP_TRY(kp_optimizer_submit_unit_columns(o, &o->adamw_units, error));
  for (const kp_points &points : o->points) KP_TRY(kp_optimizer_submit_points(o, &points, error));
  if (o->options.tangent) KP_TRY(kp_optimizer_submit_tangents(o, &o->muon_units, error));
  for (const kp_matrix_class &c : o->classes) KP_TRY(kp_optimizer_submit_class(o, &c, error));
  return kp_optimizer_submit_retraction(o, &o->muon_units, error);
}

/* ---- the counts ---- */

static kp_status resume(void *driver, const kp_step_outcome *outcome, kp_error *error) {
  kp_cuda_optimizer *o = (kp_cuda_optimizer *)driver;
  return o->cuda->base.write(&o->cuda->base, &o->state->outcome, outcome, sizeof *outcome, error);
}

static kp_status outcome(void *driver, kp_step_outcome *outcome, kp_error *error) {
  kp_cuda_optimizer *o = (kp_cuda_optimizer *)driver;
  return o->cuda->base.read(&o->cuda->base, outcome, &o->state->outcome, sizeof *outcome, error);
}

extern "C" const kp_optimizer_driver kp_cuda_optimizer_driver = {create,   destroy, scratch_bytes, prepare,
                                                                 add_loss, submit,  resume,        outcome};
