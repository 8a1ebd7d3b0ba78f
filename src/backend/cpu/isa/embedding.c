/* Token and position embeddings.
 *
 * Forward the rows are shared among threads.  Backward the channels are: each
 * thread walks all rows in order and adds its own slice of channels, so a
 * table row is summed in row order whatever the number of threads, without
 * locks and with the same work for every thread. */
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"

/* Fails when an index lies outside [0, limit). */
static kp_status check_indices(const int32_t *index, int64_t rows, int64_t limit, const char *what,
                               kp_error *error) {
  int wrong = 0;
#pragma omp simd reduction(| : wrong)
  for (int64_t n = 0; n < rows; n++) wrong |= (index[n] < 0) | (index[n] >= limit);
  if (!wrong) return KP_OK;
  int64_t n = 0;
  while (index[n] >= 0 && index[n] < limit) n++;
  return kp_fail(error, KP_ERR_INPUT, "row %lld has %s %d, which is not in the table of %lld rows",
                 (long long)n, what, (int)index[n], (long long)limit);
}

static void add_row(float *restrict y, const float *restrict x, int64_t first, int64_t last) {
#pragma omp simd
  for (int64_t c = first; c < last; c++) y[c] += x[c];
}

kp_status KP_KERNEL(embedding)(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const int64_t rows = kp_tensor_rows(node->output[0]), channels = kp_tensor_columns(node->output[0]);
  const int32_t *tokens = call->input[0], *positions = node->inputs > 2 ? call->input[2] : NULL;
  const float *table = call->input[1], *position_table = positions != NULL ? call->input[3] : NULL;
  float *y = call->output[0];
  KP_TRY(check_indices(tokens, rows, node->input[1]->shape[0], "token", error));
  if (positions != NULL) KP_TRY(check_indices(positions, rows, node->input[3]->shape[0], "position", error));
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, rows *channels))
  for (int64_t n = 0; n < rows; n++) {
    float *row = y + n * channels;
    memcpy(row, table + tokens[n] * channels, (size_t)channels * sizeof *row);
    if (positions != NULL) add_row(row, position_table + positions[n] * channels, 0, channels);
  }
  return KP_OK;
}

static void add_rows(float *table, const int32_t *index, const float *g, int64_t rows, int64_t channels,
                     kp_range slice) {
  for (int64_t n = 0; n < rows; n++)
    add_row(table + index[n] * channels, g + n * channels, slice.first, slice.last);
}

kp_status KP_KERNEL(embedding_backward)(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const int64_t rows = kp_tensor_rows(node->input[1]), channels = kp_tensor_columns(node->input[1]);
  const int32_t *tokens = call->input[0], *positions = node->inputs > 2 ? call->input[2] : NULL;
  const float *g = call->input[1];
  float *g_table = call->output[0], *g_positions = node->outputs > 1 ? call->output[1] : NULL;
  if (g_table != NULL) KP_TRY(check_indices(tokens, rows, node->output[0]->shape[0], "token", error));
  if (g_positions != NULL)
    KP_TRY(check_indices(positions, rows, node->output[1]->shape[0], "position", error));
  const int threads = kp_threads_for(call, rows * channels);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    const kp_range slice = kp_split(channels, 16, part, threads);
    if (g_table != NULL) add_rows(g_table, tokens, g, rows, channels, slice);
    if (g_positions != NULL) add_rows(g_positions, positions, g, rows, channels, slice);
  }
  return KP_OK;
}
