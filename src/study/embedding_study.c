/* The table of embeddings against the frequencies of tokens. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "study/analyze_private.h"

/* Frequencies do not need more text than this; rows of the sample that δ is measured on. */
enum { TEXT_LIMIT = 20000000, CHUNK = 1 << 16, SAMPLE = 512 };

/* A table of coordinates, or of points of the hyperboloid. */
static const kp_parameter *find_table(const kp_parameters *parameters, int *index) {
  static const char *const names[] = {"transformer.wte.weight", "transformer.wte.points"};
  for (*index = 0; *index < parameters->count; ++*index)
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
      if (strcmp(parameters->list[*index].name, names[i]) == 0) return &parameters->list[*index];
  return NULL;
}

/* Tokens beyond the model's vocabulary are not counted. */
static int64_t count_tokens(const kp_tokens *tokens, int64_t vocabulary, int64_t *counts) {
  const int64_t all = kp_tokens_count(tokens), end = all < TEXT_LIMIT ? all : TEXT_LIMIT;
  int32_t *chunk = malloc(CHUNK * sizeof *chunk);
  kp_assert(chunk != NULL, "out of memory");
  for (int64_t at = 0; at < end; at += CHUNK) {
    const int64_t size = end - at < CHUNK ? end - at : CHUNK;
    kp_tokens_copy(tokens, at, size, chunk);
    for (int64_t i = 0; i < size; i++)
      if (chunk[i] >= 0 && chunk[i] < vocabulary) counts[chunk[i]]++;
  }
  free(chunk);
  return end;
}

/* The first columns of the row that are coordinates: rows of points on the hyperboloid begin with time. */
static int64_t first_column(const kp_parameter *table) {
  return table->manifold == KP_MANIFOLD_LORENTZ ? 1 : 0;
}

static void lengths(const double *rows, int64_t count, int64_t columns, int64_t first, double *norms) {
  for (int64_t r = 0; r < count; r++) {
    double square = 0;
    for (int64_t i = first; i < columns; i++) square += rows[r * columns + i] * rows[r * columns + i];
    norms[r] = sqrt(square);
  }
}

/* Rows of tokens that occur, moved to the front, every some so that SAMPLE at most are left; their number. */
static int64_t gather(double *rows, int64_t count, int64_t columns, const int64_t *counts, int64_t seen) {
  const int64_t stride = seen > SAMPLE ? (seen + SAMPLE - 1) / SAMPLE : 1;
  int64_t kept = 0, number = 0;
  for (int64_t r = 0; r < count; r++) {
    if (counts[r] == 0 || number++ % stride != 0) continue;
    memmove(rows + kept++ * columns, rows + r * columns, (size_t)columns * sizeof *rows);
  }
  return kept;
}

kp_status kp_analysis_read_embedding(kp_analysis *a, const kp_trained *trained, const kp_data_source *data,
                                     kp_error *error) {
  int index;
  void *rows;
  const kp_parameter *table = find_table(trained->parameters, &index);
  if (table == NULL || table->dimensions != 2) return KP_OK;
  const int64_t count = table->shape[0], columns = table->shape[1];
  KP_TRY(kp_buffer_create((size_t)table->count * sizeof(double), table->name, &rows, error));
  kp_parameters_read(trained->parameters, trained->parameters->values, index, rows);
  double *norms = malloc((size_t)(count + 1) * sizeof *norms);
  int64_t *counts = calloc((size_t)count + 1, sizeof *counts);
  kp_assert(norms != NULL && counts != NULL, "out of memory");
  lengths(rows, count, columns, first_column(table), norms);
  a->embedding.tokens = count_tokens(data->train, count, counts);
  a->embedding.norms = kp_token_norms_of(count, counts, norms);
  a->embedding.known = a->embedding.norms.seen > 0;
  const int64_t kept = gather(rows, count, columns, counts, a->embedding.norms.seen);
  kp_status status = KP_OK;
  if (kept > 0) status = kp_tree_likeness_measure(kept, columns, rows, NULL, &a->embedding.trees, error);
  if (status != KP_OK) kp_context(error, "%s", table->name);
  free(norms);
  free(counts);
  kp_buffer_destroy(rows);
  return status;
}
