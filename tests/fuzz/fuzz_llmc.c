/* Feeds hostile bytes to the reader of llm.c's checkpoints.  Of what is accepted every tensor must lie
 * inside. */
#include "interchange/llmc.h"

#include <stdint.h>
#include <stdlib.h>

static void check_tensor(const kp_llmc_shape *shape, const char *name) {
  int64_t first, count;
  if (!kp_llmc_find(shape, name, &first, &count)) abort();
  if (first < 0 || count < 1 || first + count > kp_llmc_count(shape)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  kp_llmc_shape shape;
  kp_error error = {0};
  if (kp_llmc_read_header(data, size, "fuzz", &shape, &error) != KP_OK) {
    if (error.message[0] == 0) abort();
    return 0;
  }
  check_tensor(&shape, "transformer.wte.weight");
  check_tensor(&shape, "transformer.h.0.attn.c_attn.weight");
  check_tensor(&shape, "transformer.ln_f.bias");
  return 0;
}
