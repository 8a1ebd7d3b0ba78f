/* The seam of a Lorentz network, backward, in one pass.
 *
 * With a = x + w u, z = x' = κ a, r = 1 / root mean square of z, and the gradients of the two lifted times
 * folded in (y_along = g y_time / y_time, z_along = g z_time / z_time):
 *
 *     Gy = g y + y_along r κ weight a                                  the whole gradient of y
 *     g a = κ r weight Gy + κ² (z_along - r³ P/C) a + κ g z + along a,  P = <weight Gy, a>
 *     along = κ <g z, a> / q, q = a_time² - |a|²,  g a_time = -along a_time
 *
 * A first pass over a row takes the inner products, a second one writes the gradients in float.  In <g z, a>
 * the norm's part is P r³ ε: the rest cancels, and is left out.  Where a time was derived, its gradient goes
 * to the space part, and the terms along x and u are combined before they are rounded. */
#include "backend/cuda/columns.cuh"
#include "backend/cuda/lorentz_residual.cuh"

struct kp_lorentz_gradients {
  const void *gz, *gy; /* incoming (N, C), or NULL */
  kp_numbers gz_time, gy_time;
  const float *statistics;
  void *gx, *gu; /* gx may be gz; gu may be NULL */
  kp_results gx_time, gu_time;
  float *gw;    /* one a row, or NULL */
  float *parts; /* of every block: C of the weight, then w, s, c; NULL: none is wanted */
};

/* h = weight · g y, g the incoming gradient of z; weighted: of weight · a. */
enum { HA, AA, GA, AU, WEIGHTED_AA, PRODUCTS = 8 };
/* Columns of a part behind those of the weight. */
enum { BAR_W, BAR_S, BAR_C, BARS };

/* Factors of a row's gradients:
 *     G = gy + y_part (weight a),  q = y_factor weight G + z_factor gz
 *     gx = q + xx x + xu u,  gu = w q + ux x + uu u,  g w = <q + of_a a, u - share a> + w_bar
 * The last one without the part of u along a, along which q + of_a a all but vanishes. */
struct kp_lorentz_factors {
  float w, y_part, y_factor, z_factor, xx, xu, ux, uu, of_a, share, w_bar;
};

/* What a row needs beside its channels. */
struct kp_lorentz_row {
  float w, unit, inverse_square, tx, tu, gz_time, gy_time;
  __device__ kp_lorentz_row(const kp_lorentz_operands &k, const kp_lorentz_gradients &g,
                            const kp_lorentz_constants &all, int64_t n) {
    const float *const statistics = g.statistics + n * KP_LORENTZ_STATISTICS;
    w = all.branch_weight(k, n);
    unit = statistics[KP_LORENTZ_FACTOR], inverse_square = statistics[KP_LORENTZ_INVERSE_SQUARE];
    tx = statistics[KP_LORENTZ_STREAM_TIME], tu = statistics[KP_LORENTZ_BRANCH_TIME];
    gz_time = g.gz_time.at == NULL ? 0 : g.gz_time[n], gy_time = g.gy_time.at == NULL ? 0 : g.gy_time[n];
  }
};

/* A time that was given has a gradient of its own; a derived one adds to that of c. */
__device__ static void time_gradient(const kp_numbers &given, const kp_results &to, int64_t n, float bar,
                                     float inverse_time, bool writes, float &bar_c) {
  if (given.at == NULL)
    bar_c += 0.5f * bar * inverse_time;
  else if (to.at != NULL && writes)
    to.set(n, bar);
}

__device__ static kp_lorentz_factors row_factors(const kp_lorentz_operands &k, const kp_lorentz_gradients &g,
                                                 const kp_lorentz_constants &all, const kp_lorentz_row &row,
                                                 int64_t n, float inverse_C, const float (&p)[PRODUCTS],
                                                 bool writes, float (&bars)[BARS]) {
  const float kappa = k.u == NULL ? 1 : all.s * row.unit, squares = kappa * kappa * p[AA];
  const float r = k.norm ? rsqrtf(squares * inverse_C + k.epsilon) : 0;
  const float z_along = row.gz_time * rsqrtf(squares + all.c);
  const float y_along = row.gy_time * rsqrtf(kappa * r * (kappa * r) * p[WEIGHTED_AA] + all.c);
  const float part = y_along * r * kappa, P = p[HA] + part * p[WEIGHTED_AA]; /* <weight G, a> */
  const float of_a = kappa * kappa * (z_along - r * r * (r * kappa * P) * inverse_C);
  bars[BAR_W] = bars[BAR_S] = 0, bars[BAR_C] = 0.5f * (z_along + y_along);
  if (k.u == NULL) return kp_lorentz_factors{0, part, kappa * r, kappa, of_a, 0, 0, 0, 0, 0, 0};
  const float w = row.w, tx = row.tx, tu = row.tu, inverse_tx = 1 / tx, inverse_tu = 1 / tu;
  const float z_a = r * r * (r * P * k.epsilon) + p[GA] + z_along * kappa * p[AA]; /* <g z, a> */
  const float along = kappa * z_a * row.inverse_square, time_bar = -along * (tx + w * tu);
  const float share = p[AA] > 0 ? p[AU] / p[AA] : 0;
  bars[BAR_S] = row.unit * z_a;
  bars[BAR_C] += kappa * z_a * (0.5f / all.c);
  bars[BAR_W] = share * kappa * z_a + along * p[AU] + time_bar * tu;
  time_gradient(k.x_time, g.gx_time, n, time_bar, inverse_tx, writes, bars[BAR_C]);
  time_gradient(k.u_time, g.gu_time, n, w * time_bar, inverse_tu, writes, bars[BAR_C]);
  return kp_lorentz_factors{w,
                            part,
                            kappa * r,
                            kappa,
                            of_a + (k.x_time.at == NULL ? -along * w * tu * inverse_tx : along),
                            w * (of_a + along),
                            w * (of_a + along),
                            w * w * of_a +
                                (k.u_time.at == NULL ? -along * w * tx * inverse_tu : w * w * along),
                            of_a,
                            share,
                            bars[BAR_W]};
}

/* A row of the four tensors. */
template <class K> struct kp_lorentz_rows {
  kp_held_row<K> x, u, gz, gy;
  __device__ void fetch(const kp_row_team<K> &team, const kp_lorentz_operands &k,
                        const kp_lorentz_gradients &g, int64_t n) {
    x.fetch(team, k.x, n), u.fetch(team, k.u, n);
    gz.fetch(team, g.gz, n), gy.fetch(team, g.gy, n);
    const int64_t next = n + team.stride;
    x.expect(team, k.x, next), u.expect(team, k.u, next);
    gz.expect(team, g.gz, next), gy.expect(team, g.gy, next);
  }
};

template <class K>
__device__ static void row_products(const kp_lorentz_rows<K> &held, const kp_shared_vector<K> &weights,
                                    float w, float (&sum)[PRODUCTS]) {
#pragma unroll
  for (int i = 0; i < PRODUCTS; i++) sum[i] = 0;
#pragma unroll
  for (int j = 0; j < K::STEPS; j++) {
    float x[K::W], u[K::W], gz[K::W], gy[K::W], weight[K::W];
    held.x.get(j, x), held.u.get(j, u), held.gz.get(j, gz), held.gy.get(j, gy);
    weights.get(j, weight);
#pragma unroll
    for (int e = 0; e < K::W; e++) {
      const float a = x[e] + w * u[e], weighted = weight[e] * a;
      sum[HA] += gy[e] * weighted, sum[AA] += a * a;
      sum[GA] += gz[e] * a, sum[AU] += a * u[e], sum[WEIGHTED_AA] += weighted * weighted;
    }
  }
  kp_team_sums<K>(sum);
}

/* Writes the gradients of row n; gives this thread's share of <q + of_a a, u - share a>. */
template <class K>
__device__ static float row_gradients(const kp_lorentz_gradients &g, const kp_row_team<K> &team, int64_t n,
                                      const kp_lorentz_rows<K> &held, const kp_shared_vector<K> &weights,
                                      const kp_lorentz_factors &f, kp_row_accumulator<K> &weight_bar) {
  float w_bar = 0;
#pragma unroll
  for (int j = 0; j < K::STEPS; j++) {
    float x[K::W], u[K::W], gz[K::W], gy[K::W], weight[K::W];
    held.x.get(j, x), held.u.get(j, u), held.gz.get(j, gz), held.gy.get(j, gy);
    weights.get(j, weight);
#pragma unroll
    for (int e = 0; e < K::W; e++) {
      const float a = x[e] + f.w * u[e];
      const float G = f.y_factor * (gy[e] + f.y_part * (weight[e] * a));
      const float q = weight[e] * G + f.z_factor * gz[e];
      gz[e] = q + f.xx * x[e] + f.xu * u[e];
      gy[e] = f.w * q + f.ux * x[e] + f.uu * u[e];
      weight_bar.held[j][e] += a * G;
      w_bar += (q + f.of_a * a) * (u[e] - f.share * a);
    }
    team.put(g.gx, n, j, gz);
    team.put(g.gu, n, j, gy);
  }
  return w_bar;
}

/* Bytes: x, u, g x', g y read, g x and g u written, once each: 6 · N · C · size.  About 40 FLOPs a channel
 * and half as many instructions: bound by memory, in bfloat16 about as much by their number. */
template <class K>
__global__ void __launch_bounds__(K::THREADS, K::TEAM == 32 ? (K::STEPS < 3 ? 4 : 3) : 1)
    kp_lorentz_backward_kernel(const kp_row_shape shape, const kp_lorentz_operands k,
                               const kp_lorentz_gradients g) {
  extern __shared__ __align__(16) float shared[];
  const kp_row_team<K> team(shape);
  kp_lorentz_rows<K> held;
  held.fetch(team, k, g, team.row);
  const kp_shared_vector<K> weights(shape, shared, k.weight, [](float number) { return number; });
  const kp_lorentz_constants all(k);
  const float inverse_C = 1 / (float)shape.C;
  kp_row_accumulator<K> weight_bar;
  float total[BARS] = {0, 0, 0}, w_share = 0; /* w_share: not yet summed over the team */
  for (int64_t n = team.row; n < shape.rows; n += team.stride) {
    const kp_lorentz_row row(k, g, all, n); /* on its way while the products are taken */
    float products[PRODUCTS], bars[BARS];
    row_products(held, weights, row.w, products);
    const kp_lorentz_factors f = row_factors(k, g, all, row, n, inverse_C, products, team.thread == 0, bars);
    float share[1] = {row_gradients(g, team, n, held, weights, f, weight_bar)};
    held.fetch(team, k, g, n + team.stride);
    w_share += share[0];
    if (g.gw != NULL) { /* w is one a row */
      kp_team_sums<K>(share);
      if (team.thread == 0) g.gw[n] += f.w_bar + share[0];
    }
#pragma unroll
    for (int i = 0; i < BARS; i++) total[i] += bars[i];
  }
  if (g.parts == NULL) return;
  float *const part = g.parts + blockIdx.x * (shape.C + BARS);
  float share[1] = {w_share};
  kp_team_sums<K>(share);
  total[BAR_W] += share[0];
  weight_bar.finish(shape, shared, part, [](int64_t) { return 1.0f; });
#pragma unroll
  for (int i = 0; i < BARS; i++) {
    const float sum = kp_sum_of_teams<K>(total[i]);
    if (threadIdx.x == 0) part[shape.C + i] = sum;
  }
}

template <class K> struct kp_lorentz_backward {
  static kp_status run(const kp_call *call, const kp_row_shape &shape, kp_error *error,
                       const kp_lorentz_operands &k, const kp_lorentz_gradients &g, int *const &blocks) {
    *blocks = kp_row_blocks<K>(call, (const void *)kp_lorentz_backward_kernel<K>, shape,
                               kp_column_parts(shape.C + BARS));
    kp_lorentz_backward_kernel<K><<<*blocks, K::THREADS, K::BYTES, kp_cuda_of(call)->stream>>>(shape, k, g);
    return kp_launched(call, error);
  }
};

extern "C" size_t kp_cuda_scratch_lorentz_residual_backward(const kp_node *node, int threads) {
  (void)threads;
  const int64_t columns = kp_tensor_columns(node->input[0]) + BARS;
  return (size_t)(kp_column_parts(columns) * columns) * sizeof(float);
}

static kp_lorentz_gradients gradients_of(const kp_call *call, bool one_w) {
  kp_lorentz_gradients g = {};
  void *const *in = call->input + 8, *const *out = call->output;
  g.statistics = (const float *)in[0];
  g.gz = in[1], g.gz_time = kp_input_numbers(call, 10);
  g.gy = in[3], g.gy_time = kp_input_numbers(call, 12);
  g.gx = out[0], g.gx_time = kp_output_numbers(call, 1);
  g.gu = out[2], g.gu_time = kp_output_numbers(call, 3);
  g.gw = one_w ? NULL : (float *)out[4];
  const bool wanted = (one_w && out[4] != NULL) || out[5] != NULL || out[6] != NULL || out[7] != NULL;
  g.parts = wanted ? (float *)call->scratch : NULL;
  return g;
}

extern "C" kp_status kp_cuda_lorentz_residual_backward(const kp_call *call, kp_error *error) {
  const kp_row_plan plan = kp_row_plan_of(call, call->node->input[0]);
  static const int inputs[] = {2, 9, 11}, outputs[] = {0, 2};
  if (!kp_lorentz_fits(call, plan, inputs, 3, outputs, 2)) return kp_row_misfit(call, error);
  const kp_lorentz_operands k = kp_lorentz_operands_of(call);
  const kp_lorentz_gradients g = gradients_of(call, k.one_w);
  int blocks = 0;
  KP_TRY(kp_with_row_kind<kp_lorentz_backward>(call, plan, error, k, g, &blocks));
  float *const *out = (float *const *)call->output;
  const kp_column_sums sums = {g.parts,
                               blocks,
                               plan.C + BARS,
                               {{0, plan.C, out[6]},
                                {plan.C + BAR_W, 1, k.one_w ? out[4] : NULL},
                                {plan.C + BAR_S, 1, out[5]},
                                {plan.C + BAR_C, 1, out[7]}}};
  return kp_add_columns(call, &sums, plan.C + BARS, error);
}
