/* Fast attention, forward: one work item a block of 64 queries of one head of one sequence.
 *
 * Items are dealt out in contiguous ranges, so a thread stays in a head and meets its keys in cache.
 * Within a head the blocks come in the order first, last, second, last but one, …: with a causal mask
 * later blocks see more keys, and this order makes every range cost nearly the same.  Each output row is
 * computed by one item in a fixed order of keys: results do not depend on the number of threads. */
#include <omp.h>

#include "backend/cpu/isa/attention_forward.h"

size_t KP_SCRATCH(attention)(const kp_node *node, int threads) {
  const kp_attention_arguments *a = node->arguments;
  kp_forward_space space;
  return (size_t)threads * kp_forward_space_lay(&space, NULL, a, a->length);
}

/* Where head h of sequence b writes. */
static kp_block_output output_of(const kp_call *call, int64_t b, int h) {
  const kp_attention_arguments *a = call->node->arguments;
  kp_block_output output = kp_block_output_of(call, a, b, h, 2);
  output.logsumexp = (float *)call->output[1] + (b * a->heads + h) * a->length;
  if (call->output[3] != NULL) output.norms = (float *)call->output[3] + b * a->length * a->heads + h;
  return output;
}

kp_status KP_KERNEL(attention)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_attention_arguments *a = call->node->arguments;
  const int blocks = kp_query_blocks(a->length);
  const int64_t items = a->batch * a->heads * blocks;
#pragma omp parallel num_threads(call->run->threads)
  {
    kp_forward_space space;
    const size_t bytes = kp_forward_space_lay(&space, NULL, a, a->length);
    kp_forward_space_lay(&space, (char *)call->scratch + (size_t)omp_get_thread_num() * bytes, a, a->length);
    int64_t current = -1;
#pragma omp for schedule(static)
    for (int64_t item = 0; item < items; item++) {
      const int64_t sequence_head = item / blocks, b = sequence_head / a->heads;
      const int h = (int)(sequence_head % a->heads), turn = (int)(item % blocks);
      const kp_attention_head head = kp_whole_head_of(call, b, h);
      const kp_query_block block = kp_query_block_of(&head, turn % 2 == 0 ? turn / 2 : blocks - 1 - turn / 2);
      if (sequence_head != current) space.key_count = 0;
      current = sequence_head;
      kp_attend_block(&head, block, &space, kp_block_output_at(output_of(call, b, h), block.begin));
    }
  }
  return KP_OK;
}
