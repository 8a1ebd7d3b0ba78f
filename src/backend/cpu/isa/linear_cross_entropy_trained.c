/* Loss and gradients of the head, one after the other: a chunk that a shared cache holds has not all entries
 * of its rows, so that its gradient must wait for the sums over the others, and its products are made twice.
 */
#include "backend/cpu/isa/isa.h"
#include "backend/trained_head.h"

size_t KP_SCRATCH(linear_cross_entropy_trained)(const kp_node *node, int threads) {
  const size_t forward = KP_SCRATCH(linear_cross_entropy)(node, threads);
  const size_t backward = KP_SCRATCH(linear_cross_entropy_backward)(node, threads);
  return forward > backward ? forward : backward;
}

kp_status KP_KERNEL(linear_cross_entropy_trained)(const kp_call *call, kp_error *error) {
  kp_trained_head backward;
  kp_trained_head_backward(call, &backward);
  KP_TRY(KP_KERNEL(linear_cross_entropy)(call, error));
  return KP_KERNEL(linear_cross_entropy_backward)(&backward.call, error);
}
