/* How the work of a step is cut: which parameter's elements go into which table, as optim/optimizer.c cuts
 * them for threads. */
#include "backend/cuda/optimizer.cuh"

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static int64_t columns_of(const kp_parameter *p) {
  return p->dimensions == 0 ? 1 : p->shape[p->dimensions - 1];
}

/* ---- runs of elements ---- */

static void cut_chunks(kp_cuda_optimizer *o, int64_t first, int64_t last, int numbers) {
  for (int64_t at = first; at < last; at += KP_CHUNK)
    o->chunks.host.push_back(kp_chunk{at, (int)smaller(last - at, KP_CHUNK), numbers});
}

/* A run of parameters of one group that stand one behind the other. */
struct run {
  int last_parameter, group;
  int64_t first, last;
};

static void end_run(kp_cuda_optimizer *o, run *r) {
  if (r->last > r->first) cut_chunks(o, r->first, r->last, r->group);
  r->first = r->last = 0;
}

/* The gaps between a run's parameters are zero in all buffers, as pads are. */
static void add_to_run(kp_cuda_optimizer *o, run *r, int index) {
  const kp_parameter *p = &o->parameters->list[index];
  if (r->last > r->first && (r->group != (int)p->group || r->last_parameter != index - 1)) end_run(o, r);
  if (r->last == r->first) r->first = p->offset;
  r->group = (int)p->group;
  r->last = p->offset + (p->rows * p->pitch + 3) / 4 * 4;
  r->last_parameter = index;
}

/* ---- slices ---- */

/* Whether `index` is the first parameter with its counter: the one by whose gradients it counts. */
static bool counts(const kp_parameters *parameters, int index) {
  const int counter = parameters->list[index].counter;
  for (int p = 0; p < index; p++)
    if (parameters->list[p].counter == counter) return false;
  return counter > 0;
}

static void cut_slices(kp_cuda_optimizer *o, int index, bool step) {
  const kp_parameter *p = &o->parameters->list[index];
  const int64_t size = kp_flat_count(p) / p->shape[0];
  const int64_t counter = o->parameters->list[p->counter - 1].offset;
  for (int64_t i = 0; i < p->shape[0]; i++) {
    const int64_t at = p->offset + i * size;
    if (step) cut_chunks(o, at, at + size, KP_GROUP_COUNT + o->slices.count());
    o->slices.host.push_back(kp_slice{at, size, counter + i, (int)p->group, counts(o->parameters, index)});
  }
}

/* ---- unit vectors ---- */

static void cut_rows(kp_unit_vectors *units, const kp_parameter *p) {
  const int64_t columns = columns_of(p), rows = p->count / columns;
  const int64_t most = columns > KP_LONG_ROW ? 4 : 32;
  for (int64_t row = 0; row < rows; row += most) {
    const int some = (int)smaller(rows - row, most);
    units->rows.host.push_back(
        kp_row_block{p->offset + row * p->pitch, some, (int)columns, (int)p->pitch, (int)p->group});
  }
}

/* All tiles of columns [column, ...) of one matrix. */
static void cut_tiles(kp_unit_vectors *units, const kp_parameter *p, const kp_matrices &m, int64_t at,
                      int64_t column) {
  const int64_t left = m.columns - column;
  kp_column_group group = {units->tiles.count(), 0};
  for (int64_t row = 0; row < m.rows; row += KP_TILE_ROWS, group.tiles++)
    units->tiles.host.push_back(kp_column_tile{
        at + row * p->pitch + column, (int)smaller(m.rows - row, KP_TILE_ROWS),
        (int)smaller(left, KP_TILE_COLUMNS), (int)p->pitch, (int)p->group, units->groups.count()});
  units->groups.host.push_back(group);
}

static void cut_columns(kp_unit_vectors *units, const kp_parameter *p) {
  const kp_matrices m = kp_matrices_of(p);
  for (int64_t i = 0; i < m.count; i++)
    for (int64_t column = 0; column < m.columns; column += KP_TILE_COLUMNS)
      cut_tiles(units, p, m, p->offset + i * m.rows * p->pitch, column);
}

static void cut_held_columns(kp_unit_vectors *units, const kp_parameter *p) {
  const kp_matrices m = kp_matrices_of(p);
  for (int64_t i = 0; i < m.count; i++)
    for (int64_t column = 0; column < m.columns; column += KP_HELD_COLUMNS)
      units->held.host.push_back(kp_column_tile{p->offset + i * m.rows * p->pitch + column, (int)m.rows,
                                                (int)smaller(m.columns - column, KP_HELD_COLUMNS),
                                                (int)p->pitch, (int)p->group, 0});
}

static void cut_unit_vectors(kp_cuda_optimizer *o, kp_unit_vectors *units, const kp_parameter *p) {
  if (p->manifold == KP_MANIFOLD_UNIT_ROWS)
    cut_rows(units, p);
  else if (p->manifold == KP_MANIFOLD_NONE)
    return;
  else if (units == &o->adamw_units && kp_optimizer_holds_columns(o->cuda, kp_matrices_of(p).rows, p->pitch))
    cut_held_columns(units, p);
  else
    cut_columns(units, p);
}

/* ---- matrices ---- */

static kp_matrices matrices_of(const kp_cuda_optimizer *o, const kp_parameter *p, bool muon) {
  kp_matrices m = kp_matrices_of(p);
  if (muon && o->options.muon.split && m.count == 1 && p->manifold != KP_MANIFOLD_UNIT_COLUMNS) {
    m.count = p->blocks;
    m.rows /= p->blocks;
  }
  return m;
}

static bool same_class(const kp_matrix_class &a, const kp_matrix_class &b) {
  return a.rows == b.rows && a.columns == b.columns && a.pitch == b.pitch && a.muon == b.muon &&
         a.keeps_norm == b.keeps_norm;
}

static kp_matrix_class class_of(const kp_cuda_optimizer *o, const kp_parameter *p, kp_update update) {
  const bool muon = update.rule == KP_UPDATE_MUON;
  const kp_matrices m = matrices_of(o, p, muon);
  kp_matrix_class c = {};
  c.rows = m.rows;
  c.columns = m.columns;
  c.pitch = p->pitch;
  c.muon = muon;
  c.keeps_norm = update.keeps_norm;
  return c;
}

/* Finds the classes first, then each one's matrices, which stand in the list one behind the other. */
static void add_class(kp_cuda_optimizer *o, const kp_parameter *p, kp_update update) {
  const kp_matrix_class c = class_of(o, p, update);
  for (const kp_matrix_class &other : o->classes)
    if (same_class(c, other)) return;
  o->classes.push_back(c);
}

/* Enough at once to fill a GPU, and no more than some hundred megabytes of products. */
static void size_class(kp_matrix_class *c, bool half) {
  const int64_t least_part = 8192;
  const size_t most_bytes = (size_t)256 << 20;
  const int64_t size = c->rows * c->pitch;
  int64_t part = (size + KP_MATRIX_PARTS - 1) / KP_MATRIX_PARTS;
  part = (part < least_part ? least_part : part + 1023) / 1024 * 1024;
  c->part = part;
  c->parts = (int)((size + part - 1) / part);
  c->together = c->muon ? 1 : c->count;
  while (c->together < c->count) {
    c->together++;
    if (kp_muon_bytes(c, half) <= most_bytes) continue;
    c->together--;
    break;
  }
}

static void fill_classes(kp_cuda_optimizer *o) {
  for (kp_matrix_class &c : o->classes) {
    c.first = o->matrices.count();
    for (int index = 0; index < o->parameters->count; index++) {
      const kp_parameter *p = &o->parameters->list[index];
      const kp_update update = kp_optimizer_update(&o->options, p);
      if (p->count == 0 || !(update.rule == KP_UPDATE_MUON || update.keeps_norm)) continue;
      if (!same_class(c, class_of(o, p, update))) continue;
      const kp_matrices m = matrices_of(o, p, c.muon);
      for (int64_t i = 0; i < m.count; i++) o->matrices.host.push_back(p->offset + i * m.rows * p->pitch);
    }
    c.count = o->matrices.count() - c.first;
    size_class(&c, o->half);
  }
}

/* ---- parameters ---- */

/* Rows of zeros behind a matrix stay zero by a step of AdamW, which clears what a step that is not taken may
 * have left among their gradients. */
static void cut_padding(kp_cuda_optimizer *o, const kp_parameter *p) {
  cut_chunks(o, p->offset + kp_flat_count(p), p->offset + p->rows * p->pitch, (int)p->group);
}

static void cut_parameter(kp_cuda_optimizer *o, run *r, int index) {
  const kp_parameter *p = &o->parameters->list[index];
  const kp_update update = kp_optimizer_update(&o->options, p);
  const bool plain = update.rule == KP_UPDATE_ADAMW && !update.keeps_norm &&
                     p->manifold != KP_MANIFOLD_UNIT_ROWS && p->manifold != KP_MANIFOLD_UNIT_COLUMNS;
  if (p->count == 0) return;
  if (p->counter > 0 && (plain || counts(o->parameters, index))) cut_slices(o, index, plain);
  if (update.rule == KP_UPDATE_NONE) return;
  if (!plain || p->counter > 0) cut_padding(o, p);
  if (update.rule == KP_UPDATE_MUON || update.keeps_norm) {
    add_class(o, p, update);
    cut_unit_vectors(o, &o->muon_units, p);
  } else if (update.rule == KP_UPDATE_RIEMANNIAN_ADAM) {
    const int64_t columns = columns_of(p);
    o->points.push_back(kp_points{p->offset, p->count / columns, (int)columns, (int)p->pitch, (int)p->group,
                                  p->manifold == KP_MANIFOLD_LORENTZ, p->curvature});
  } else if (!plain) {
    cut_unit_vectors(o, &o->adamw_units, p);
  } else if (p->counter == 0) {
    add_to_run(o, r, index);
  }
}

void kp_optimizer_cut(kp_cuda_optimizer *o) {
  run r = {};
  for (int index = 0; index < o->parameters->count; index++) cut_parameter(o, &r, index);
  end_run(o, &r);
  fill_classes(o);
}
