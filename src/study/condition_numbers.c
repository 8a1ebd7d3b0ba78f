#include "study/condition_numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/json_text.h"
#include "study/spectrum.h"

/* ---- one matrix ---- */

kp_status kp_condition_number(int64_t rows, int64_t columns, double *matrix, double *condition,
                              kp_error *error) {
  const int64_t rank = rows < columns ? rows : columns;
  double *singular = calloc((size_t)rank + 1, sizeof *singular);
  if (singular == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %lld singular values", (long long)rank);
  kp_status status = kp_singular_values(rows, columns, matrix, singular, error);
  if (status == KP_OK)
    *condition = rank > 0 && singular[rank - 1] > 0 ? singular[0] / singular[rank - 1] : (double)INFINITY;
  free(singular);
  return status;
}

void kp_normalise_vectors(int64_t rows, int64_t columns, bool by_column, double *matrix) {
  const int64_t vectors = by_column ? columns : rows, length = by_column ? rows : columns;
  const int64_t step = by_column ? columns : 1, stride = by_column ? 1 : columns;
  for (int64_t v = 0; v < vectors; v++) {
    double *first = matrix + v * stride, square = 0;
    for (int64_t i = 0; i < length; i++) square += first[i * step] * first[i * step];
    if (square == 0) continue;
    for (int64_t i = 0; i < length; i++) first[i * step] /= sqrt(square);
  }
}

/* Both condition numbers; `copy` has room for the matrix. */
static kp_status condition_of(int64_t rows, int64_t columns, bool by_column, const double *values,
                              double *copy, kp_condition *condition, kp_error *error) {
  const size_t bytes = (size_t)(rows * columns) * sizeof *copy;
  memcpy(copy, values, bytes);
  KP_TRY(kp_condition_number(rows, columns, copy, &condition->raw, error));
  memcpy(copy, values, bytes);
  kp_normalise_vectors(rows, columns, by_column, copy);
  return kp_condition_number(rows, columns, copy, &condition->normalised, error);
}

/* ---- the matrices of the blocks ---- */

/* Rows [first, first + rows) of a parameter, and what they are called. */
typedef struct part {
  const char *name;
  int64_t first, rows;
} part;

enum { PARTS = 3 };

/* Queries, keys and values stand in one parameter. */
static int parts_of(const kp_parameter *p, const kp_model_options *o, part parts[PARTS]) {
  const int64_t queries = o->heads * o->attention.head_size;
  const int64_t keys = o->attention.kv_heads * o->attention.head_size;
  parts[0] = (part){"", 0, p->shape[0]};
  if (strstr(p->name, ".attn.c_attn.") == NULL || p->shape[0] != queries + 2 * keys) return 1;
  parts[0] = (part){"query", 0, queries};
  parts[1] = (part){"key", queries, keys};
  parts[2] = (part){"value", queries + keys, keys};
  return 3;
}

/* The block of a matrix, or -1. */
static int layer_of(const kp_parameter *p, const kp_model_options *o) {
  static const char block[] = "transformer.h.", ending[] = ".weight";
  const size_t length = strlen(p->name);
  if (p->dimensions != 2 || !p->used || strncmp(p->name, block, strlen(block)) != 0) return -1;
  if (length < strlen(ending) || strcmp(p->name + length - strlen(ending), ending) != 0) return -1;
  if (strstr(p->name, ".attn.") == NULL && strstr(p->name, ".mlp.") == NULL) return -1;
  const long layer = strtol(p->name + strlen(block), NULL, 10);
  return layer < o->layers ? (int)layer : -1;
}

static kp_status read_matrix(const kp_parameters *parameters, int index, const kp_model_options *o,
                             kp_arena *arena, kp_condition_numbers *numbers, kp_error *error) {
  const kp_parameter *p = &parameters->list[index];
  part parts[PARTS];
  const int count = parts_of(p, o, parts), layer = layer_of(p, o);
  void *values;
  KP_TRY(kp_buffer_create(2 * (size_t)p->count * sizeof(double), p->name, &values, error));
  double *all = values, *copy = all + p->count;
  kp_parameters_read(parameters, parameters->values, index, all);
  kp_status status = KP_OK;
  for (int i = 0; i < count && status == KP_OK; i++) {
    kp_matrix_condition *matrix = &numbers->matrices[numbers->matrix_count++];
    *matrix = (kp_matrix_condition){.name = kp_arena_text(arena, p->name),
                                    .part = parts[i].name,
                                    .layer = layer,
                                    .attention = strstr(p->name, ".attn.") != NULL};
    status = condition_of(parts[i].rows, p->shape[1], strstr(p->name, ".c_proj.") != NULL,
                          all + parts[i].first * p->shape[1], copy, &matrix->condition, error);
  }
  kp_buffer_destroy(values);
  if (status != KP_OK) kp_context(error, "%s", p->name);
  return status;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int count) {
  if (count == 0) return (double)NAN;
  qsort(values, (size_t)count, sizeof *values, ascending);
  return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* Over one block's matrices of attention, or of the feed-forward. */
static kp_condition block_median(const kp_condition_numbers *numbers, int layer, bool attention,
                                 double *room) {
  kp_condition result;
  for (int normalised = 0; normalised < 2; normalised++) {
    int count = 0;
    for (int i = 0; i < numbers->matrix_count; i++) {
      const kp_matrix_condition *m = &numbers->matrices[i];
      if (m->layer == layer && m->attention == attention)
        room[count++] = normalised ? m->condition.normalised : m->condition.raw;
    }
    *(normalised ? &result.normalised : &result.raw) = median(room, count);
  }
  return result;
}

/* ---- tables ---- */

static bool is_table(const kp_parameter *p) {
  return p->group == KP_GROUP_TABLE && p->dimensions == 2 && p->used && p->shape[1] > 1;
}

static void read_lengths(int64_t rows, int64_t columns, const double *values, kp_table_condition *table) {
  double sum = 0, squares = 0;
  table->least = (double)INFINITY;
  for (int64_t r = 0; r < rows; r++) {
    double square = 0;
    for (int64_t c = 0; c < columns; c++) square += values[r * columns + c] * values[r * columns + c];
    const double length = sqrt(square);
    sum += length;
    squares += square;
    table->least = fmin(table->least, length);
    table->most = fmax(table->most, length);
  }
  table->mean = sum / (double)rows;
  table->deviation = sqrt(fmax(squares / (double)rows - table->mean * table->mean, 0));
}

static kp_status read_table(const kp_parameters *parameters, int index, kp_arena *arena,
                            kp_condition_numbers *numbers, kp_error *error) {
  const kp_parameter *p = &parameters->list[index];
  kp_table_condition *table = &numbers->tables[numbers->table_count++];
  void *values;
  KP_TRY(kp_buffer_create((size_t)p->count * sizeof(double), p->name, &values, error));
  kp_parameters_read(parameters, parameters->values, index, values);
  *table = (kp_table_condition){.name = kp_arena_text(arena, p->name)};
  read_lengths(p->shape[0], p->shape[1], values, table);
  kp_status status = kp_condition_number(p->shape[0], p->shape[1], values, &table->condition, error);
  kp_buffer_destroy(values);
  if (status != KP_OK) kp_context(error, "%s", p->name);
  return status;
}

/* ---- all of them ---- */

kp_status kp_condition_numbers_read(const kp_parameters *parameters, const kp_model_options *options,
                                    kp_arena *arena, kp_condition_numbers *numbers, kp_error *error) {
  const size_t room = (size_t)parameters->count + 1;
  *numbers = (kp_condition_numbers){
      .layers = (int)options->layers,
      .matrices = kp_arena_take(arena, PARTS * room * sizeof *numbers->matrices),
      .tables = kp_arena_take(arena, room * sizeof *numbers->tables),
      .blocks = kp_arena_take(arena, ((size_t)options->layers + 1) * sizeof *numbers->blocks)};
  for (int i = 0; i < parameters->count; i++) {
    if (layer_of(&parameters->list[i], options) >= 0)
      KP_TRY(read_matrix(parameters, i, options, arena, numbers, error));
    else if (is_table(&parameters->list[i]))
      KP_TRY(read_table(parameters, i, arena, numbers, error));
  }
  double *values = kp_arena_take(arena, PARTS * room * sizeof *values);
  for (int layer = 0; layer < numbers->layers; layer++)
    numbers->blocks[layer] = (kp_block_condition){block_median(numbers, layer, true, values),
                                                  block_median(numbers, layer, false, values)};
  return KP_OK;
}

/* ---- JSON ---- */

static json_t *condition_json(const kp_condition *condition) {
  return json_pack("{s:o, s:o}", "raw", kp_json_number(condition->raw), "normalised",
                   kp_json_number(condition->normalised));
}

json_t *kp_condition_numbers_json(const kp_condition_numbers *numbers) {
  json_t *matrices = json_array(), *blocks = json_array(), *tables = json_array();
  for (int i = 0; i < numbers->matrix_count; i++) {
    const kp_matrix_condition *m = &numbers->matrices[i];
    json_array_append_new(matrices, json_pack("{s:s, s:s, s:i, s:o}", "name", m->name, "part", m->part,
                                              "layer", m->layer, "condition", condition_json(&m->condition)));
  }
  for (int layer = 0; layer < numbers->layers; layer++)
    json_array_append_new(blocks, json_pack("{s:o, s:o}", "attention",
                                            condition_json(&numbers->blocks[layer].attention), "feed_forward",
                                            condition_json(&numbers->blocks[layer].feed_forward)));
  for (int i = 0; i < numbers->table_count; i++) {
    const kp_table_condition *t = &numbers->tables[i];
    json_array_append_new(tables,
                          json_pack("{s:s, s:o, s:{s:o, s:o, s:o, s:o}}", "name", t->name, "condition",
                                    kp_json_number(t->condition), "row_lengths", "least",
                                    kp_json_number(t->least), "mean", kp_json_number(t->mean), "deviation",
                                    kp_json_number(t->deviation), "most", kp_json_number(t->most)));
  }
  return json_pack("{s:o, s:o, s:o}", "matrices", matrices, "blocks", blocks, "tables", tables);
}
