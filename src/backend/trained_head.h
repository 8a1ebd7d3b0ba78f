/* A call of LINEAR_CROSS_ENTROPY_TRAINED as calls of the two operators that it joins.
 *
 * What LINEAR_CROSS_ENTROPY reads and writes stands where it looks for it: it takes the call as it is.  The
 * backward operator needs one of its own. */
#ifndef KAPPA_BACKEND_TRAINED_HEAD_H
#define KAPPA_BACKEND_TRAINED_HEAD_H

#include "backend/operators.h"

typedef struct kp_trained_head {
  kp_node node;
  kp_call call; /* of `node` */
} kp_trained_head;

/* The call of LINEAR_CROSS_ENTROPY_BACKWARD; `backward` must stay where it is. */
static inline void kp_trained_head_backward(const kp_call *call, kp_trained_head *backward) {
  enum { OPERANDS = 6, GRADIENTS = 5, FIRST_GRADIENT = 2 };
  const kp_node *node = call->node;
  backward->node = *node;
  backward->node.operation = KP_OP_LINEAR_CROSS_ENTROPY_BACKWARD;
  backward->node.inputs = OPERANDS + 2;
  backward->node.outputs = GRADIENTS;
  backward->node.input[OPERANDS] = node->output[1];
  backward->node.input[OPERANDS + 1] = node->input[OPERANDS];
  backward->call = *call;
  backward->call.node = &backward->node;
  backward->call.input[OPERANDS] = call->output[1];
  backward->call.input[OPERANDS + 1] = call->input[OPERANDS];
  for (int i = 0; i < GRADIENTS; i++) {
    backward->node.output[i] = node->output[FIRST_GRADIENT + i];
    backward->call.output[i] = call->output[FIRST_GRADIENT + i];
  }
}

#endif
