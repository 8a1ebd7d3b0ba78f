/* Cases of attention: every score, packed or not, grouped, causal or full, and over a cache. */
#include <math.h>

#include "support/operator_cases.h"

static kp_attention_arguments arguments_of(const operator_case *c) {
  return (kp_attention_arguments){.batch = c->batch,
                                  .length = c->length,
                                  .heads = c->heads,
                                  .kv_heads = c->kv_heads,
                                  .head_size = c->head_size,
                                  .packed = c->packed,
                                  .causal = c->causal,
                                  .score = c->score,
                                  .scale = 1 / sqrt(c->head_size)};
}

static kp_tensor *rows(bench *b, const operator_case *c, const char *name, int heads) {
  return bench_operand(b, name, 0, c->deviation, 3,
                       (int64_t[]){c->batch, c->length, (int64_t)heads * c->head_size});
}

/* κ and β, one a head; none for the dot product. */
static void scalars(bench *b, const operator_case *c, kp_tensor *scalar[2]) {
  const int64_t heads = c->heads;
  scalar[0] = scalar[1] = NULL;
  if (c->score == KP_SCORE_DOT) return;
  scalar[0] = bench_operand(b, "curvature", c->kappa, 0.1 * c->kappa, 1, &heads);
  scalar[1] = bench_operand(b, "temperature", 1.5, 0.3, 1, &heads);
}

static void build_attention(bench *b, const operator_case *c) {
  kp_tensor *scalar[2], *k = NULL, *v = NULL;
  kp_tensor *q = rows(b, c, "q", c->heads + (c->packed ? 2 * c->kv_heads : 0));
  if (!c->packed) {
    k = rows(b, c, "k", c->kv_heads);
    v = rows(b, c, "v", c->kv_heads);
  }
  scalars(b, c, scalar);
  bench_output(b, kp_attention(b->graph, q, k, v, scalar[0], scalar[1], arguments_of(c)));
}

/* `inner` is the room of the cache, `kind` the position of the first new token. */
static void build_cached(bench *b, const operator_case *c) {
  const int64_t cache[] = {c->batch, c->kv_heads, c->inner, c->head_size};
  kp_tensor *scalar[2], *qkv = rows(b, c, "qkv", c->heads + 2 * c->kv_heads);
  kp_tensor *keys = bench_state(b, "keys", c->deviation, 4, cache);
  kp_tensor *values = bench_state(b, "values", c->deviation, 4, cache);
  kp_tensor *start = bench_index(b, "start", 1, (int64_t[]){1}, (int32_t[]){c->kind});
  scalars(b, c, scalar);
  bench_output(
      b, kp_attention_cached(b->graph, qkv, keys, values, start, scalar[0], scalar[1], arguments_of(c)));
}

static const char *const scores[] = {"dot", "distance", "distance squared"};

static void add_shape(operator_cases *cases, const int64_t shape[5], int flags) {
  operator_case c = {.operation = KP_OP_ATTENTION,
                     .build = build_attention,
                     .batch = shape[0],
                     .length = shape[1],
                     .heads = (int)shape[2],
                     .kv_heads = (int)shape[3],
                     .head_size = (int)shape[4],
                     .packed = flags & 1,
                     .causal = flags & 2,
                     .deviation = shape[4] > 10 ? 0.2 : 0.4};
  for (int score = KP_SCORE_DOT; score <= KP_SCORE_DISTANCE_SQUARED; score++)
    for (int k = 0; k < (score == KP_SCORE_DOT ? 1 : CASE_KAPPAS); k++) {
      c.score = (kp_score)score;
      c.kappa = case_kappas[k];
      operator_cases_add(cases, c, "%s%s%s %lldx%d/%dx%d kappa %g", scores[score], c.packed ? " packed" : "",
                         c.causal ? " causal" : "", (long long)c.length, c.heads, c.kv_heads, c.head_size,
                         c.kappa);
    }
}

static void add_cached(operator_cases *cases, int64_t length, int start, int head_size, double kappa,
                       kp_score score) {
  operator_case c = {.operation = KP_OP_ATTENTION_CACHED,
                     .build = build_cached,
                     .batch = 2,
                     .length = length,
                     .heads = 3,
                     .kv_heads = 3,
                     .head_size = head_size,
                     .packed = true,
                     .causal = true,
                     .inner = 24,
                     .kind = start,
                     .kappa = kappa,
                     .score = score,
                     .deviation = 0.4,
                     .decoding = true};
  operator_cases_add(cases, c, "%s %lld from %d x%d kappa %g", scores[score], (long long)length, start,
                     head_size, kappa);
}

void operator_cases_attention(operator_cases *cases) {
  static const int64_t shapes[][5] = {{1, 1, 1, 1, 3}, {2, 5, 2, 2, 4}, {2, 6, 4, 2, 5}};
  static const int64_t large[] = {1, 37, 2, 1, 17};
  for (int s = 0; s < 3; s++)
    for (int flags = 0; flags < 4; flags++) add_shape(cases, shapes[s], flags);
  add_shape(cases, large, 2);
  add_shape(cases, large, 3);
  for (int64_t length = 1; length <= 11; length += 5)
    for (int start = 0; start <= 13; start += 13)
      for (int head_size = 5; head_size <= 16; head_size += 11) {
        add_cached(cases, length, start, head_size, 0, KP_SCORE_DOT);
        for (int k = 0; k < CASE_KAPPAS; k++)
          add_cached(cases, length, start, head_size, case_kappas[k],
                     k % 2 == 0 ? KP_SCORE_DISTANCE : KP_SCORE_DISTANCE_SQUARED);
      }
}
