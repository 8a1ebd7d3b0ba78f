/* The mean over the rows of a sequence, padding left out. */
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"

/* 1 over the rows of the sequence that begin at `documents` and count; 0 when none does. */
static float share(const int32_t *documents, int64_t length) {
  int64_t count = 0;
  for (int64_t t = 0; t < length; t++) count += documents == NULL || documents[t] >= 0;
  return count == 0 ? 0 : (float)(1 / (double)count);
}

kp_status KP_KERNEL(mean_rows)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_mean_rows_arguments *arguments = call->node->arguments;
  const int64_t batch = kp_tensor_rows(call->node->output[0]), length = arguments->length;
  const int64_t channels = kp_tensor_columns(call->node->output[0]);
  const float *x = call->input[0];
  const int32_t *documents = call->input[1];
  float *out = call->output[0];
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, batch *length *channels))
  for (int64_t b = 0; b < batch; b++) {
    const int32_t *own = documents == NULL ? NULL : documents + b * length;
    const float weight = share(own, length);
    float *y = out + b * channels;
    memset(y, 0, (size_t)channels * sizeof *y);
    for (int64_t t = 0; t < length; t++) {
      if (own != NULL && own[t] < 0) continue;
      const float *row = x + (b * length + t) * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; c++) y[c] += weight * row[c];
    }
  }
  return KP_OK;
}

kp_status KP_KERNEL(mean_rows_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_mean_rows_arguments *arguments = call->node->arguments;
  const int64_t batch = kp_tensor_rows(call->node->input[0]), length = arguments->length;
  const int64_t channels = kp_tensor_columns(call->node->input[0]);
  const float *g = call->input[0];
  const int32_t *documents = call->input[1];
  float *gx = call->output[0];
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, batch *length *channels))
  for (int64_t b = 0; b < batch; b++) {
    const int32_t *own = documents == NULL ? NULL : documents + b * length;
    const float share_of_row = share(own, length);
    const float *from = g + b * channels;
    for (int64_t t = 0; t < length; t++) {
      const float weight = own != NULL && own[t] < 0 ? 0 : share_of_row;
      float *row = gx + (b * length + t) * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; c++) row[c] = weight * from[c];
    }
  }
  return KP_OK;
}
