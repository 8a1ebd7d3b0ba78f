/* Cross-entropy over the vocabulary.
 *
 * Forward each row is read from memory once.  The rows' losses go to scratch (N doubles) and are added in row
 * order, so the mean does not depend on the number of threads. */
#include <string.h>

#include "backend/cpu/isa/cross_entropy_rows.h"
#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"

size_t KP_SCRATCH(cross_entropy)(const kp_node *node, int threads) {
  (void)threads;
  return (size_t)kp_tensor_rows(node->input[0]) * sizeof(double);
}

kp_status KP_KERNEL(cross_entropy)(const kp_call *call, kp_error *error) {
  const kp_cross_entropy_arguments *arguments = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  const int64_t vocabulary = kp_tensor_columns(call->node->input[0]);
  const float *logits = call->input[0];
  const int32_t *target = call->input[1];
  float *loss = call->output[0], *statistic = call->output[1];
  double *row_loss = call->scratch, total = 0;
  KP_TRY(kp_check_targets(target, rows, vocabulary, arguments->ignore, error));
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, 10 * rows * vocabulary))
  for (int64_t n = 0; n < rows; n++) {
    const float *row = logits + n * vocabulary;
    kp_logsumexp sum = kp_logsumexp_start();
    kp_logsumexp_add(&sum, row, vocabulary);
    const double value = kp_logsumexp_value(&sum);
    statistic[n] = (float)value;
    row_loss[n] = target[n] == arguments->ignore ? 0 : value - (double)row[target[n]];
  }
  for (int64_t n = 0; n < rows; n++) total += row_loss[n];
  const int64_t count = kp_count_targets(target, rows, arguments->ignore);
  loss[0] = count == 0 ? 0.0f : (float)(total / (double)count);
  return KP_OK;
}

kp_status KP_KERNEL(cross_entropy_backward)(const kp_call *call, kp_error *error) {
  const kp_cross_entropy_arguments *arguments = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  const int64_t vocabulary = kp_tensor_columns(call->node->input[0]);
  const float *logits = call->input[0], *statistic = call->input[2], *g = call->input[3];
  const int32_t *target = call->input[1];
  float *g_logits = call->output[0];
  KP_TRY(kp_check_targets(target, rows, vocabulary, arguments->ignore, error));
  const int64_t count = kp_count_targets(target, rows, arguments->ignore);
  const float scale = count == 0 ? 0.0f : (float)((double)g[0] / (double)count);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, 10 * rows * vocabulary))
  for (int64_t n = 0; n < rows; n++) {
    float *row = g_logits + n * vocabulary;
    if (target[n] == arguments->ignore) {
      memset(row, 0, (size_t)vocabulary * sizeof *row);
      continue;
    }
    kp_softmax_row(logits + n * vocabulary, row, vocabulary, statistic[n], scale);
    row[target[n]] -= scale;
  }
  return KP_OK;
}
