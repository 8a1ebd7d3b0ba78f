/* Any bytes, as token ids in text: refused with a message, or read, and then every id is one. */
#include <stddef.h>
#include <stdint.h>

#include "core/assert.h"
#include "data/id_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  kp_error error = {0};
  kp_ids ids = {0};
  if (kp_ids_read_text((const char *)data, size, &ids, &error) == KP_OK)
    kp_assert(2 * ids.count <= size + 1, "%zu ids from %zu bytes", ids.count, size);
  else
    kp_assert(error.message[0] != 0, "a refusal has a message");
  for (size_t i = 0; i < ids.count; i++) kp_assert(ids.list[i] >= 0, "id %d", ids.list[i]);
  kp_ids_clear(&ids);
  return 0;
}
