#include "train/memory.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "backend/cpu/limits.h"
#include "ops/ops.h"

size_t kp_resident_bytes(void) {
  long pages = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL) return 0;
  if (fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
  fclose(file);
  return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

size_t kp_peak_resident_bytes(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (size_t)usage.ru_maxrss * 1024;
}

kp_memory_plan kp_memory_plan_of(const kp_parameters *parameters, const kp_backend *backend,
                                 size_t arena_bytes, size_t optimizer_bytes, size_t process_bytes) {
  const size_t flat = (size_t)parameters->total * backend->wide_size;
  const size_t learned = (size_t)parameters->learned * backend->wide_size;
  const bool narrower = backend->real_size < backend->wide_size;
  const size_t working = narrower ? (size_t)parameters->total * backend->real_size : 0;
  kp_memory_plan plan = {.parameters = flat + working,
                         .gradients = learned,
                         .moments = 2 * learned,
                         .optimizer = optimizer_bytes,
                         .activations = arena_bytes,
                         .process = process_bytes};
  plan.total =
      plan.parameters + plan.gradients + plan.moments + plan.optimizer + plan.activations + plan.process;
  return plan;
}

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static bool is_product(const kp_node *node) {
  return node->operation == KP_OP_LINEAR || node->operation == KP_OP_LINEAR_CROSS_ENTROPY ||
         node->operation == KP_OP_LINEAR_CROSS_ENTROPY_TRAINED;
}

/* The linear map with the largest weight, or NULL. */
static const kp_node *largest_product(const kp_network *network) {
  const kp_node *largest = NULL;
  for (int n = 0; n < network->graph->forward_count; n++) {
    const kp_node *node = network->graph->nodes[n];
    if (!is_product(node)) continue;
    if (largest == NULL || kp_tensor_count(node->input[1]) > kp_tensor_count(largest->input[1]))
      largest = node;
  }
  return largest;
}

kp_status kp_process_bytes(const kp_network *network, const kp_backend *backend, int threads, size_t *bytes,
                           kp_error *error) {
  /* The libraries cut what they pack: beyond these sizes their buffers do not grow. */
  enum { ENOUGH_ROWS = 1024, ENOUGH_COLUMNS = 16384 };
  const kp_node *node = largest_product(network);
  *bytes = backend->device != NULL ? 0 : kp_resident_bytes();
  if (node == NULL || backend->device != NULL || backend->real_size != sizeof(float)) return KP_OK;
  const size_t peak_before = kp_peak_resident_bytes();
  const int64_t rows = smaller(kp_tensor_rows(node->input[0]), ENOUGH_ROWS * threads);
  const int64_t columns = smaller(node->input[1]->shape[0], ENOUGH_COLUMNS);
  const int64_t depth = kp_tensor_columns(node->input[0]);
  KP_TRY(kp_limits_warm_up(rows, columns, depth, threads, error));
  *bytes = kp_resident_bytes();
  /* What a library takes and gives back in each product counts as well: it shows in the peak, if that is new.
   */
  const size_t own = (size_t)(rows * depth + columns * depth + rows * columns) * sizeof(float);
  const size_t peak = kp_peak_resident_bytes();
  if (peak > peak_before && peak > own + *bytes) *bytes = peak - own;
  return KP_OK;
}
