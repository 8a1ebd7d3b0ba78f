#include "core/assert.h"
#include "models/parts/parts.h"
kp_tensor *kp_part_experts(kp_builder *b, int64_t layer, kp_point y) {
  (void)b;
  (void)layer;
  (void)y;
  kp_assert(false, "pending");
  return NULL;
}
kp_tensor *kp_part_attention_latent(kp_builder *b, int64_t layer, kp_point y) {
  (void)b;
  (void)layer;
  (void)y;
  kp_assert(false, "pending");
  return NULL;
}
