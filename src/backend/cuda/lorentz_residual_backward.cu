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
  kp_numbers gz_time, gy_time, statistics;
  void *gx, *gu; /* gx may be gz; gu may be NULL */
  kp_results gx_time, gu_time;
  float *gw;    /* one a row, or NULL */
  float *parts; /* of every block: C of the weight, then w, s, c; NULL: none is wanted */
  int64_t part_pitch;
  bool weight_wanted;
};

/* g: the incoming gradient of z, h = weight · g y; weighted: of weight · a and weight · u. */
enum { HA, AA, GA, HU, AU, GU, WEIGHTED_AA, WEIGHTED_AU, PRODUCTS };
/* Columns of a part behind those of the weight. */
enum { BAR_W, BAR_S, BAR_C, BARS };

/* Factors of a row's gradients:
 *     G = gy + y_part (weight a),  h = y_factor weight G + a_factor a + z_factor gz
 *     gx = h + xx x + xu u,  gu = w h + xu x + uu u */
struct kp_lorentz_factors {
  float w, y_part, y_factor, a_factor, z_factor, xx, xu, uu;
};

__device__ static double gradient_along(const kp_numbers &g_time, int64_t n, double time) {
  return g_time.at == NULL ? 0 : (double)g_time[n] / time;
}

/* A time that was given has a gradient of its own; a derived one adds to that of c. */
__device__ static void time_gradient(const kp_numbers &given, const kp_results &to, int64_t n, double bar,
                                     double time, bool writes, double &bar_c) {
  if (given.at == NULL)
    bar_c += 0.5 * bar / time;
  else if (to.at != NULL && writes)
    to.set(n, (float)bar);
}

__device__ static kp_lorentz_factors row_factors(const kp_lorentz_operands &k, const kp_lorentz_gradients &g,
                                                 int64_t n, const double (&p)[PRODUCTS], bool writes,
                                                 double (&bars)[BARS]) {
  const double c = k.radius(), channels = (double)k.C;
  const int64_t at = n * KP_LORENTZ_STATISTICS;
  const double unit = k.u == NULL ? 1 : (double)g.statistics[at + KP_LORENTZ_FACTOR];
  const double kappa = k.u == NULL ? 1 : k.factor() * unit;
  const double squares = kappa * kappa * p[AA];
  const double r = k.norm ? 1 / sqrt(squares / channels + k.epsilon) : 0;
  const double y_squares = kappa * kappa * r * r * p[WEIGHTED_AA];
  const double z_along = gradient_along(g.gz_time, n, sqrt(squares + c));
  const double y_along = gradient_along(g.gy_time, n, sqrt(y_squares + c));
  const double part = y_along * r * kappa, P = p[HA] + part * p[WEIGHTED_AA]; /* <weight G, a> */
  const double common = r * r * r * kappa * P / channels;
  kp_lorentz_factors f = {
      1, (float)part, (float)(kappa * r), (float)(kappa * kappa * (z_along - common)), (float)kappa, 0, 0, 0};
  bars[BAR_W] = bars[BAR_S] = 0, bars[BAR_C] = 0.5 * (z_along + y_along);
  if (k.u == NULL) return f;
  const double w = (double)k.branch_weight(n), inverse_square = g.statistics[at + KP_LORENTZ_INVERSE_SQUARE];
  const double tx = (double)g.statistics[at + KP_LORENTZ_STREAM_TIME];
  const double tu = (double)g.statistics[at + KP_LORENTZ_BRANCH_TIME];
  const double z_a = P * r * r * r * k.epsilon + p[GA] + z_along * kappa * p[AA];
  const double z_u = r * (p[HU] + part * p[WEIGHTED_AU]) + p[GU] + (z_along - common) * kappa * p[AU];
  const double along = kappa * z_a * inverse_square, time_bar = -along * (tx + w * tu);
  bars[BAR_W] = kappa * z_u + along * p[AU] + time_bar * tu;
  bars[BAR_S] = unit * z_a;
  bars[BAR_C] += kappa * z_a / (2 * c);
  f.w = (float)w;
  f.xx = (float)(k.x_time.at == NULL ? -along * w * tu / tx : along);
  f.xu = (float)(w * along);
  f.uu = (float)(k.u_time.at == NULL ? -along * w * tx / tu : w * w * along);
  time_gradient(k.x_time, g.gx_time, n, time_bar, tx, writes, bars[BAR_C]);
  time_gradient(k.u_time, g.gu_time, n, w * time_bar, tu, writes, bars[BAR_C]);
  return f;
}

/* A row's vectors in registers. */
template <typename T, int W, int CHUNKS> struct kp_lorentz_rows {
  kp_row<T, W, CHUNKS> x, u, gz, gy;
  __device__ static const T *row(const void *at, int64_t offset) {
    return at == NULL ? NULL : (const T *)at + offset;
  }
  __device__ kp_lorentz_rows(const kp_lorentz_operands &k, const kp_lorentz_gradients &g, int64_t n,
                             const kp_row_shape<W, CHUNKS> &shape, int thread)
      : x(row(k.x, n * k.pitch), shape, thread), u(row(k.u, n * k.pitch), shape, thread),
        gz(row(g.gz, n * k.pitch), shape, thread), gy(row(g.gy, n * k.pitch), shape, thread) {}
  __device__ void keep() {
    x.keep(), u.keep(), gz.keep(), gy.keep();
  }
};

template <typename T, int W, int CHUNKS>
__device__ static void row_products(const kp_lorentz_operands &k, const kp_lorentz_rows<T, W, CHUNKS> &rows,
                                    const kp_row_shape<W, CHUNKS> &shape, int thread, float w,
                                    double (&sum)[PRODUCTS]) {
#pragma unroll
  for (int i = 0; i < PRODUCTS; i++) sum[i] = 0;
#pragma unroll
  for (int j = 0; j < shape.steps(); j++) {
    float x[W], u[W], gz[W], gy[W], weight[W], part[PRODUCTS];
    rows.x.get(j, x), rows.u.get(j, u), rows.gz.get(j, gz), rows.gy.get(j, gy);
    kp_get_columns<W>(k.weight, (int64_t)shape.chunk(j, thread) * W, k.C, weight);
#pragma unroll
    for (int i = 0; i < PRODUCTS; i++) part[i] = 0;
#pragma unroll
    for (int e = 0; e < W; e++) {
      const float a = x[e] + w * u[e], h = weight[e] * gy[e];
      const float weighted_a = weight[e] * a, weighted_u = weight[e] * u[e];
      part[HA] += h * a, part[AA] += a * a, part[GA] += gz[e] * a;
      part[HU] += h * u[e], part[AU] += a * u[e], part[GU] += gz[e] * u[e];
      part[WEIGHTED_AA] += weighted_a * weighted_a, part[WEIGHTED_AU] += weighted_a * weighted_u;
    }
#pragma unroll
    for (int i = 0; i < PRODUCTS; i++) sum[i] += (double)part[i];
  }
}

template <typename T, int W, int CHUNKS>
__device__ static void
row_gradients(const kp_lorentz_operands &k, const kp_lorentz_gradients &g, int64_t n,
              const kp_lorentz_rows<T, W, CHUNKS> &rows, const kp_row_shape<W, CHUNKS> &shape, int thread,
              const kp_lorentz_factors &f, kp_column_accumulator<W, CHUNKS> &weight_bar) {
  const kp_vector again = kp_again(k.weight);
  T *const gx = (T *)g.gx + n * k.pitch, *const gu = g.gu == NULL ? NULL : (T *)g.gu + n * k.pitch;
#pragma unroll
  for (int j = 0; j < shape.steps(); j++) {
    float x[W], u[W], gz[W], gy[W], weight[W];
    rows.x.get(j, x), rows.u.get(j, u), rows.gz.get(j, gz), rows.gy.get(j, gy);
    kp_get_columns<W>(again, (int64_t)shape.chunk(j, thread) * W, k.C, weight);
#pragma unroll
    for (int e = 0; e < W; e++) {
      const float a = x[e] + f.w * u[e], G = gy[e] + f.y_part * (weight[e] * a);
      const float h = f.y_factor * (weight[e] * G) + f.a_factor * a + f.z_factor * gz[e];
      gz[e] = h + f.xx * x[e] + f.xu * u[e];
      gy[e] = f.w * h + f.xu * x[e] + f.uu * u[e];
      weight[e] = f.y_factor * (a * G);
    }
    kp_put(gx, shape, j, thread, gz);
    kp_put(gu, shape, j, thread, gy);
    weight_bar.add(j, thread, weight);
  }
}

/* Bytes: x, u, g x', g y read, g x and g u written, once each: 6 · N · C · size.  About 40 FLOPs a channel:
 * bound by memory, if enough rows are under way beside those whose scalars are being computed. */
template <typename T, int W, int CHUNKS>
__global__ void __launch_bounds__(KP_ROW_THREADS)
    kp_lorentz_backward_kernel(const kp_lorentz_operands k, const kp_lorentz_gradients g) {
  const kp_team<CHUNKS> team;
  const kp_row_shape<W, CHUNKS> shape = {k.C, k.chunks};
  float *const part = g.parts == NULL ? NULL : g.parts + blockIdx.x * g.part_pitch;
  kp_column_accumulator<W, CHUNKS> weight_bar(g.weight_wanted ? part : NULL, shape);
  double total[BARS] = {0, 0, 0};
  for (int64_t n = team.index; n < k.rows; n += team.count) {
    kp_lorentz_rows<T, W, CHUNKS> rows(k, g, n, shape, team.thread);
    double products[PRODUCTS], bars[BARS];
    row_products(k, rows, shape, team.thread, k.u == NULL ? 0 : k.branch_weight(n), products);
    kp_team_sums<CHUNKS>(products);
    const kp_lorentz_factors f = row_factors(k, g, n, products, team.thread == 0, bars);
    rows.keep();
    row_gradients(k, g, n, rows, shape, team.thread, f, weight_bar);
    if (g.gw != NULL && team.thread == 0) g.gw[n] += (float)bars[BAR_W];
#pragma unroll
    for (int i = 0; i < BARS; i++) total[i] += bars[i];
  }
  if (part == NULL) return;
  weight_bar.finish();
#pragma unroll
  for (int i = 0; i < BARS; i++) {
    const double sum = kp_sum_of_teams<CHUNKS>(total[i]);
    if (threadIdx.x == 0) part[k.C + i] = (float)sum;
  }
}

template <typename T, int W, int CHUNKS> struct kp_lorentz_backward {
  static kp_status run(const kp_row_plan &plan, const kp_call *call, const kp_lorentz_operands &k,
                       const kp_lorentz_gradients &g, int *blocks, kp_error *error) {
    const int64_t wanted = (plan.rows + kp_team<CHUNKS>::per_block - 1) / kp_team<CHUNKS>::per_block;
    *blocks = kp_resident_blocks(call, (const void *)kp_lorentz_backward_kernel<T, W, CHUNKS>, KP_ROW_THREADS,
                                 wanted, kp_column_parts(plan.C + BARS));
    kp_lorentz_backward_kernel<T, W, CHUNKS><<<*blocks, KP_ROW_THREADS, 0, kp_cuda_of(call)->stream>>>(k, g);
    return kp_launched(call, error);
  }
};

extern "C" size_t kp_cuda_scratch_lorentz_residual_backward(const kp_node *node, int threads) {
  (void)threads;
  const int64_t columns = kp_tensor_columns(node->input[0]) + BARS;
  return (size_t)(kp_column_parts(columns) * columns) * sizeof(float);
}

static kp_lorentz_gradients gradients_of(const kp_call *call, const kp_row_plan &plan, bool one_w) {
  kp_lorentz_gradients g = {};
  void *const *in = call->input + 8, *const *out = call->output;
  g.statistics = kp_input_numbers(call, 8);
  g.gz = in[1], g.gz_time = kp_input_numbers(call, 10);
  g.gy = in[3], g.gy_time = kp_input_numbers(call, 12);
  g.gx = out[0], g.gx_time = kp_output_numbers(call, 1);
  g.gu = out[2], g.gu_time = kp_output_numbers(call, 3);
  g.gw = one_w ? NULL : (float *)out[4];
  g.weight_wanted = out[6] != NULL;
  const bool wanted = (one_w && out[4] != NULL) || out[5] != NULL || out[6] != NULL || out[7] != NULL;
  g.parts = wanted ? (float *)call->scratch : NULL;
  g.part_pitch = plan.C + BARS;
  return g;
}

extern "C" kp_status kp_cuda_lorentz_residual_backward(const kp_call *call, kp_error *error) {
  const kp_row_plan plan = kp_row_plan_of(call, call->node->input[0]);
  static const int inputs[] = {2, 9, 11}, outputs[] = {0, 2};
  if (!kp_lorentz_fits(call, plan, inputs, 3, outputs, 2)) return kp_row_misfit(call, error);
  const kp_lorentz_operands k = kp_lorentz_operands_of(call, plan);
  const kp_lorentz_gradients g = gradients_of(call, plan, k.one_w);
  int blocks = 0;
  KP_TRY(kp_with_rows<kp_lorentz_backward>(plan, call, k, g, &blocks, error));
  float *const *out = (float *const *)call->output;
  const kp_column_sums sums = {g.parts,
                               blocks,
                               g.part_pitch,
                               {{0, plan.C, out[6]},
                                {plan.C + BAR_W, 1, k.one_w ? out[4] : NULL},
                                {plan.C + BAR_S, 1, out[5]},
                                {plan.C + BAR_C, 1, out[7]}}};
  return kp_add_columns(call, &sums, g.part_pitch, error);
}
