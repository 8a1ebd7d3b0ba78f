/* Products of cuBLASLt's kind by the kernel that multiplies experts' rows: all rows are one expert's.  Widths
 * that are no multiples of 8 cost it nothing. */
#include "backend/cuda/grouped_linear.cuh"
#include "backend/cuda/products_choice.h"

static int64_t to_8(int64_t count) {
  return (count + 7) / 8 * 8;
}

static kp_grouped_kind kind_of(const kp_product *p) {
  return p->a_transposed ? KP_GROUPED_WEIGHT : p->b_transposed ? KP_GROUPED_FORWARD : KP_GROUPED_INPUT;
}

static kp_grouped grouped_of(const kp_product *p) {
  const kp_grouped_kind kind = kind_of(p);
  kp_grouped g = {};
  g.kind = kind;
  g.experts = 1;
  g.rows = kind == KP_GROUPED_WEIGHT ? p->k : p->m;
  g.M = kind == KP_GROUPED_WEIGHT ? p->m : kind == KP_GROUPED_INPUT ? p->k : p->n;
  g.K = kind == KP_GROUPED_FORWARD ? p->k : p->n;
  g.a = p->a, g.b = p->b, g.c = p->c;
  g.a_pitch = p->lda, g.b_pitch = p->ldb, g.c_pitch = p->ldc;
  g.c_columns = p->n;
  g.factor = p->alpha;
  g.bias = {p->bias, p->bias_half};
  return g;
}

bool kp_tiles_fit(const kp_product *p) {
  const kp_grouped g = grouped_of(p);
  if (p->type != CUDA_R_16BF || p->batch > 1 || !kp_grouped_half_fits(&g)) return false;
  if (g.kind == KP_GROUPED_WEIGHT)
    return !p->b_transposed && p->result == CUDA_R_32F && p->beta == 1 && p->bias == NULL &&
           p->lda >= to_8(p->m) && p->ldb >= to_8(p->n);
  if (p->result != CUDA_R_16BF || p->beta != 0) return false;
  const bool forward = g.kind == KP_GROUPED_FORWARD;
  if (p->k % 8 != 0 && (forward || p->pads_undefined)) return false;
  return forward || (p->bias == NULL && p->lda >= to_8(p->k) && p->ldb >= to_8(p->n));
}

kp_status kp_multiply_tiles(kp_cuda *cuda, const kp_product *p, kp_error *error) {
  kp_grouped g = grouped_of(p);
  if (kp_grouped_turns(g.experts, g.M, g.K) * (int64_t)sizeof(int) <= KP_PRODUCTS_WORKSPACE_BYTES)
    g.turns = (int *)cuda->products->workspace;
  return kp_grouped_half(cuda, &g, error);
}
