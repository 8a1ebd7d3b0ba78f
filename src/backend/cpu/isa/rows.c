/* Whole rows picked, spread and kept from run to run: copies, no arithmetic but the running mean's. */
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"

/* The selected row of a sequence of `length`; negative rows count from the end. */
static int64_t selected(const kp_select_arguments *arguments) {
  return arguments->row < 0 ? arguments->length + arguments->row : arguments->row;
}

kp_status KP_KERNEL(select_row)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_select_arguments *arguments = call->node->arguments;
  const int64_t channels = kp_tensor_columns(call->node->output[0]);
  const int64_t batch = kp_tensor_rows(call->node->output[0]), row = selected(arguments);
  const float *x = call->input[0];
  float *y = call->output[0];
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, batch *channels))
  for (int64_t b = 0; b < batch; b++)
    memcpy(y + b * channels, x + (b * arguments->length + row) * channels, (size_t)channels * sizeof *y);
  return KP_OK;
}

kp_status KP_KERNEL(select_row_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_select_arguments *arguments = call->node->arguments;
  const int64_t channels = kp_tensor_columns(call->node->output[0]), length = arguments->length;
  const int64_t rows = kp_tensor_rows(call->node->output[0]), row = selected(arguments);
  const size_t bytes = (size_t)channels * sizeof(float);
  const float *g = call->input[0];
  float *gx = call->output[0];
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, rows *channels))
  for (int64_t n = 0; n < rows; n++) {
    if (n % length == row)
      memcpy(gx + n * channels, g + n / length * channels, bytes);
    else
      memset(gx + n * channels, 0, bytes);
  }
  return KP_OK;
}

/* The last `window` of the rows in `state` followed by the `length` rows of `x`. */
static void keep_last(float *state, int64_t window, const float *x, int64_t length, int64_t channels) {
  const int64_t fresh = length < window ? length : window, old = window - fresh;
  const size_t row_bytes = (size_t)channels * sizeof(float);
  memmove(state, state + fresh * channels, (size_t)old * row_bytes);
  memcpy(state + old * channels, x + (length - fresh) * channels, (size_t)fresh * row_bytes);
}

/* The mean of `seen` earlier rows, whose mean is in `state`, and of the `length` rows of `x`. */
static void keep_mean(float *state, int64_t seen, const float *x, int64_t length, int64_t channels) {
  for (int64_t c = 0; c < channels; c++) {
    double sum = seen > 0 ? (double)seen * (double)state[c] : 0;
    for (int64_t t = 0; t < length; t++) sum += (double)x[t * channels + c];
    state[c] = (float)(sum / (double)(seen + length));
  }
}

kp_status KP_KERNEL(store_rows)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_store_arguments *arguments = call->node->arguments;
  const kp_tensor *kept = call->node->input[1];
  const int64_t batch = kept->shape[0], window = kept->shape[1], channels = kept->shape[2];
  const int64_t length = arguments->length;
  const int64_t seen = arguments->mean ? *(const int32_t *)call->input[2] : 0;
  const float *x = call->input[0];
  float *state = call->input[1];
#pragma omp parallel for schedule(static)                                                                    \
    num_threads(kp_threads_for(call, batch *channels *(window + length)))
  for (int64_t b = 0; b < batch; b++) {
    float *own = state + b * window * channels;
    const float *rows = x + b * length * channels;
    if (arguments->mean)
      keep_mean(own, seen, rows, length, channels);
    else
      keep_last(own, window, rows, length, channels);
  }
  return KP_OK;
}
