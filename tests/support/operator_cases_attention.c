/* Cases of attention: every score and kind of values, packed or not, grouped, causal or full, within
 * documents, over a cache and over a cache of latents. */
#include <math.h>

#include "support/operator_cases.h"

static int value_size(const operator_case *c) {
  return c->value_size == 0 ? c->head_size : c->value_size;
}

static kp_attention_arguments arguments_of(const operator_case *c) {
  return (kp_attention_arguments){.batch = c->batch,
                                  .length = c->length,
                                  .heads = c->heads,
                                  .kv_heads = c->kv_heads,
                                  .head_size = c->head_size,
                                  .packed = c->packed,
                                  .causal = c->causal,
                                  .score = c->score,
                                  .scale = c->score == KP_SCORE_DOT ? 1 / sqrt(c->head_size) : 0.8,
                                  .value_size = c->value_size,
                                  .values = c->values};
}

static kp_tensor *rows(bench *b, const operator_case *c, const char *name, int64_t columns) {
  return bench_operand(b, name, 0, c->deviation, 3, (int64_t[]){c->batch, c->length, columns});
}

/* κ and β, one a head or, with `option`, one for all; none where nothing asks for them. */
static void scalars(bench *b, const operator_case *c, kp_attention_operands *in) {
  const int64_t count = c->option ? 1 : c->heads;
  if (c->score != KP_SCORE_DOT || c->values != KP_VALUES_MEAN)
    in->curvature = bench_operand(b, "curvature", c->kappa, 0.1 * c->kappa, 1, &count);
  if (c->score != KP_SCORE_DOT || c->option)
    in->temperature = bench_operand(b, "temperature", 1.5, 0.3, 1, &count);
}

/* Three documents a sequence, the last of them like the first; the sequences differ. */
static kp_tensor *documents(bench *b, const operator_case *c) {
  int32_t number[512];
  for (int64_t i = 0; i < c->batch * c->length; i++) {
    const int64_t third = (i % c->length + i / c->length) * 3 / (c->length + c->batch);
    number[i] = third == 1 ? -1 : 7;
  }
  return bench_index(b, "documents", 2, (int64_t[]){c->batch, c->length}, number);
}

static kp_attention_operands operands_of(bench *b, const operator_case *c) {
  kp_attention_operands in = {0};
  in.q = rows(b, c, "q", (int64_t)(c->heads + (c->packed ? 2 * c->kv_heads : 0)) * c->head_size);
  if (!c->packed) {
    in.k = rows(b, c, "k", (int64_t)c->kv_heads * c->head_size);
    in.v = rows(b, c, "v", (int64_t)c->kv_heads * value_size(c));
  }
  scalars(b, c, &in);
  return in;
}

static void output(bench *b, kp_point out) {
  bench_output(b, out.space);
  bench_output(b, out.time);
}

static void build_attention(bench *b, const operator_case *c) {
  kp_attention_operands in = operands_of(b, c);
  if (c->option2) in.documents = documents(b, c);
  output(b, kp_attend(b->graph, in, arguments_of(c)));
}

/* The time alone has a gradient. */
static void build_time(bench *b, const operator_case *c) {
  bench_output(b, kp_attend(b->graph, operands_of(b, c), arguments_of(c)).time);
}

/* `inner` is the room of the cache, `kind` the position of the first new token. */
static void build_cached(bench *b, const operator_case *c) {
  const int64_t room[] = {c->batch, c->kv_heads, c->inner, c->head_size};
  const int64_t value_room[] = {c->batch, c->kv_heads, c->inner, value_size(c)};
  kp_attention_operands in = operands_of(b, c);
  kp_tensor *keys = bench_state(b, "keys", c->deviation, 4, room);
  kp_tensor *values = bench_state(b, "values", c->deviation, 4, value_room);
  kp_tensor *start = bench_index(b, "start", 1, (int64_t[]){1}, (int32_t[]){c->kind});
  output(b, kp_attend_cached(b->graph, in, keys, values, start, arguments_of(c)));
}

/* `columns` latent channels; a quarter of the key is shared. `option2`: no norm, time and bias. */
static void build_latent(bench *b, const operator_case *c) {
  const int64_t r = c->columns, shared = c->head_size / 4, width = r + shared;
  const int64_t expanded = (int64_t)c->heads * (c->head_size - shared + value_size(c));
  const kp_attention_latent_arguments arguments = {
      .attention = arguments_of(c), .latent_size = (int)r, .shared_size = (int)shared, .epsilon = 1e-5};
  kp_attention_operands in = {.q = rows(b, c, "q", (int64_t)c->heads * c->head_size)};
  kp_latent_operands latent = {.rows = rows(b, c, "latents", width)};
  latent.weight = bench_operand(b, "up weight", 0, 1 / sqrt((double)r), 2, (int64_t[]){expanded, r});
  if (!c->option2) {
    latent.norm_weight = bench_operand(b, "norm weight", 1, 0.2, 1, &r);
    latent.time_weight = bench_operand(b, "up time", 0, 0.2, 1, &expanded);
    latent.bias = bench_operand(b, "up bias", 0, 0.2, 1, &expanded);
  }
  scalars(b, c, &in);
  latent.state = bench_state(b, "latent cache", 1, 3, (int64_t[]){c->batch, c->inner, width});
  latent.start = bench_index(b, "start", 1, (int64_t[]){1}, (int32_t[]){c->kind});
  output(b, kp_attend_latent_cached(b->graph, in, latent, arguments));
}

static const char *const scores[] = {"dot", "distance", "distance squared", "Lorentz"};
static const char *const values[] = {"", " Lorentz values", " midpoints"};

static void add(operator_cases *cases, operator_case c, double kappa) {
  c.kappa = kappa;
  operator_cases_add(cases, c, "%s%s%s%s%s%s %lldx%d/%dx%d/%d κ %g", scores[c.score], values[c.values],
                     c.packed ? " packed" : "", c.causal ? " causal" : "", c.option ? " shared" : "",
                     c.option2 ? " apart" : "", (long long)c.length, c.heads, c.kv_heads, c.head_size,
                     value_size(&c), kappa);
}

static operator_case shape_case(const int64_t shape[5], int flags) {
  return (operator_case){.operation = KP_OP_ATTENTION,
                         .build = build_attention,
                         .batch = shape[0],
                         .length = shape[1],
                         .heads = (int)shape[2],
                         .kv_heads = (int)shape[3],
                         .head_size = (int)shape[4],
                         .packed = flags & 1,
                         .causal = flags & 2,
                         .deviation = shape[4] > 10 ? 0.2 : 0.4};
}

/* Dot products and distances, plain means. */
static void add_shape(operator_cases *cases, const int64_t shape[5], int flags) {
  operator_case c = shape_case(shape, flags);
  for (int score = KP_SCORE_DOT; score <= KP_SCORE_DISTANCE_SQUARED; score++) {
    c.score = (kp_score)score;
    for (int k = 0; k < (score == KP_SCORE_DOT ? 1 : CASE_KAPPAS); k++) add(cases, c, case_kappas[k]);
  }
}

static const double negative_kappas[] = {-0.05, -0.5, -1, -3.7};
enum { NEGATIVE_KAPPAS = 4 };

/* Lorentz scores and every kind of values, with other sizes of values, one scalar for all heads, documents.
 */
static void add_curved(operator_cases *cases, const int64_t shape[5], int value_channels, int flags) {
  operator_case c = shape_case(shape, flags);
  c.value_size = c.packed ? 0 : value_channels;
  c.option = flags & 4;
  c.option2 = flags & 8;
  c.deviation = shape[4] > 10 ? 0.3 : 0.6;
  for (int k = 0; k < NEGATIVE_KAPPAS; k++) {
    c.score = KP_SCORE_LORENTZ, c.values = KP_VALUES_MEAN;
    add(cases, c, negative_kappas[k]);
    c.values = KP_VALUES_LORENTZ;
    add(cases, c, negative_kappas[k]);
    c.score = KP_SCORE_DOT;
    add(cases, c, negative_kappas[k]);
  }
  c.values = KP_VALUES_MIDPOINT;
  c.deviation = shape[4] > 10 ? 0.2 : 0.4;
  for (int k = 0; k < CASE_KAPPAS; k++) {
    c.score = k % 2 == 0 ? KP_SCORE_DISTANCE_SQUARED : KP_SCORE_DOT;
    add(cases, c, case_kappas[k]);
  }
  c.score = KP_SCORE_DISTANCE_SQUARED, c.values = KP_VALUES_LORENTZ;
  add(cases, c, -1);
  c.values = KP_VALUES_MEAN;
  add(cases, c, 0.5);
  c.score = KP_SCORE_DOT;
  add(cases, c, 0);
}

static void add_cached(operator_cases *cases, int64_t length, int start, int head_size, kp_score score,
                       kp_values kind, double kappa) {
  operator_case c = {.operation = KP_OP_ATTENTION_CACHED,
                     .build = build_cached,
                     .batch = 2,
                     .length = length,
                     .heads = 3,
                     .kv_heads = 3,
                     .head_size = head_size,
                     .packed = kind == KP_VALUES_MEAN && score != KP_SCORE_LORENTZ,
                     .causal = true,
                     .inner = 24,
                     .kind = start,
                     .kappa = kappa,
                     .score = score,
                     .values = kind,
                     .deviation = 0.4,
                     .decoding = true};
  if (!c.packed) c.value_size = head_size - 2, c.heads = 6;
  operator_cases_add(cases, c, "%s%s %lld from %d x%d κ %g", scores[score], values[kind], (long long)length,
                     start, head_size, kappa);
}

static void add_caches(operator_cases *cases, int64_t length, int start, int head_size) {
  add_cached(cases, length, start, head_size, KP_SCORE_DOT, KP_VALUES_MEAN, 0);
  for (int k = 0; k < CASE_KAPPAS; k++) {
    const kp_score score = k % 2 == 0 ? KP_SCORE_DISTANCE : KP_SCORE_DISTANCE_SQUARED;
    add_cached(cases, length, start, head_size, score, KP_VALUES_MEAN, case_kappas[k]);
    add_cached(cases, length, start, head_size, KP_SCORE_DISTANCE_SQUARED, KP_VALUES_MIDPOINT,
               case_kappas[k]);
  }
  for (int k = 0; k < NEGATIVE_KAPPAS; k++)
    for (int kind = KP_VALUES_MEAN; kind <= KP_VALUES_LORENTZ; kind++)
      add_cached(cases, length, start, head_size, KP_SCORE_LORENTZ, (kp_values)kind, negative_kappas[k]);
}

static void add_latent(operator_cases *cases, int64_t length, int start, kp_score score, kp_values kind,
                       bool bare) {
  operator_case c = {.operation = KP_OP_ATTENTION_LATENT_CACHED,
                     .build = build_latent,
                     .batch = 2,
                     .length = length,
                     .columns = 9,
                     .heads = 3,
                     .kv_heads = 3,
                     .head_size = 8,
                     .value_size = 5,
                     .causal = true,
                     .inner = 300,
                     .kind = start,
                     .kappa = -0.8,
                     .score = score,
                     .values = kind,
                     .deviation = 0.6,
                     .option = !bare,
                     .option2 = bare,
                     .decoding = true};
  operator_cases_add(cases, c, "%s%s %lld from %d%s", scores[score], values[kind], (long long)length, start,
                     bare ? " bare" : "");
}

/* Sequences of more than one tile of the GPU's kernels, with heads as wide as a tile and narrower ones. */
static void add_tiles(operator_cases *cases) {
  static const int64_t narrow[] = {1, 133, 2, 2, 49}, whole[] = {1, 130, 2, 2, 64},
                       grouped[] = {1, 133, 2, 1, 64}, wide[] = {1, 129, 1, 1, 70};
  operator_case c = shape_case(narrow, 2);
  c.value_size = 32;
  c.score = KP_SCORE_DOT;
  add(cases, c, 0);
  c.score = KP_SCORE_LORENTZ, c.values = KP_VALUES_LORENTZ;
  add(cases, c, -1);
  c.option2 = true, c.values = KP_VALUES_MEAN;
  add(cases, c, -0.5);
  c = shape_case(grouped, 1 | 2);
  add(cases, c, 0);
  c = shape_case(whole, 1);
  c.score = KP_SCORE_DISTANCE;
  add(cases, c, 0.5);
  c = shape_case(whole, 2);
  c.score = KP_SCORE_DISTANCE_SQUARED;
  add(cases, c, -0.6);
  c = shape_case(wide, 1 | 2);
  c.score = KP_SCORE_LORENTZ, c.values = KP_VALUES_LORENTZ;
  add(cases, c, -0.7);
}

void operator_cases_attention(operator_cases *cases) {
  static const int64_t shapes[][5] = {{1, 1, 1, 1, 3}, {2, 5, 2, 2, 4}, {2, 6, 4, 2, 5}};
  static const int64_t large[] = {1, 37, 2, 1, 17}, documents_shape[] = {2, 70, 2, 1, 6};
  for (int s = 0; s < 3; s++)
    for (int flags = 0; flags < 4; flags++) add_shape(cases, shapes[s], flags);
  add_shape(cases, large, 2);
  add_shape(cases, large, 3);
  add_curved(cases, shapes[0], 2, 2);
  add_curved(cases, shapes[1], 7, 4);
  add_curved(cases, shapes[2], 3, 2);
  add_curved(cases, shapes[1], 0, 1 | 2 | 4);
  add_curved(cases, shapes[2], 4, 8);
  add_curved(cases, large, 9, 2 | 8);
  add_curved(cases, documents_shape, 3, 2 | 4 | 8);
  operator_case time = shape_case(shapes[2], 2);
  time.score = KP_SCORE_LORENTZ, time.values = KP_VALUES_LORENTZ, time.build = build_time;
  add(cases, time, -0.7);
  add_tiles(cases);
  for (int64_t length = 1; length <= 11; length += 5)
    for (int start = 0; start <= 13; start += 13)
      for (int head_size = 5; head_size <= 16; head_size += 11) add_caches(cases, length, start, head_size);
  for (int64_t length = 1; length <= 70; length += 69)
    for (int start = 0; start <= 229; start += 229)
      for (int bare = 0; bare <= 1; bare++) {
        add_latent(cases, length, start, KP_SCORE_DOT, KP_VALUES_MEAN, bare);
        add_latent(cases, length, start, KP_SCORE_LORENTZ, KP_VALUES_LORENTZ, bare);
        add_latent(cases, length, start, KP_SCORE_DISTANCE, KP_VALUES_MIDPOINT, bare);
      }
}
