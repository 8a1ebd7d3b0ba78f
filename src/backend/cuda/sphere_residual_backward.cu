/* The residual step on the unit sphere, backward.
 *
 * The scalars that go back through a row are sums of products of A, B (or w), λ and g.  They are all taken in
 * one pass, before any of them is needed, so that the last pass writes both gradients: the lines of
 * ops/sphere_residual.c with their inner products expanded. */
#include "backend/cuda/columns.cuh"
#include "backend/cuda/sphere_residual.cuh"

struct kp_sphere_gradients {
  const void *g;
  void *gh, *gu; /* gh may be g */
  float *parts;  /* (blocks, C) of the rate's gradient, or NULL */
};

template <typename T, int W, int CHUNKS> struct kp_sphere_back_row {
  kp_row<T, W, CHUNKS> h, u, g;
  kp_row_shape<W, CHUNKS> shape;
  kp_sphere_units units;
  T *gh, *gu;
  int thread;

  __device__ void keep() {
    h.keep(), u.keep(), g.keep();
  }
};

/* The gradient of α has the sign of α · factor, and the factor. */
__device__ static float rate_slope(float rate, float factor) {
  return rate * factor < 0 ? -factor : factor;
}

/* ---- lerp: r = A + λ (B - A), r̄ = (g - k r)/|r| with k = <r,g>/|r|²; Ā = (1 - λ) r̄, B̄ = λ r̄ ---- */

/* 1/|r|, k, <A,Ā> and <B,B̄> of a row. */
struct kp_lerp_scalars {
  float inverse, along, a, b;
};

template <typename T, int W, int CHUNKS>
__device__ static kp_lerp_scalars lerp_scalars_of(const kp_sphere_operands &k,
                                                  const kp_sphere_back_row<T, W, CHUNKS> &row) {
  enum { RR, RG, AG, AR, BG, BR, LERP_SUMS }; /* with A as (1 - λ) A and B as λ B */
  double sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll
  for (int j = 0; j < row.shape.steps(); j++) {
    float h[W], u[W], g[W], rate[W], part[LERP_SUMS] = {0, 0, 0, 0, 0, 0};
    row.h.get(j, h), row.u.get(j, u), row.g.get(j, g);
    kp_get_rates<W>(k, (int64_t)row.shape.chunk(j, row.thread) * W, rate);
#pragma unroll
    for (int e = 0; e < W; e++) {
      const float a = row.units.inverse_h * h[e], b = row.units.inverse_u * u[e];
      const float share_b = rate[e] * b, share_a = a - rate[e] * a, r = a + rate[e] * (b - a);
      part[RR] += r * r, part[RG] += r * g[e];
      part[AG] += share_a * g[e], part[AR] += share_a * r;
      part[BG] += share_b * g[e], part[BR] += share_b * r;
    }
#pragma unroll
    for (int i = 0; i < LERP_SUMS; i++) sum[i] += (double)part[i];
  }
  kp_team_sums<CHUNKS>(sum);
  const double inverse = kp_sphere_inverse_length(sum[RR]), along = sum[RG] * inverse * inverse;
  return kp_lerp_scalars{(float)inverse, (float)along, (float)(inverse * (sum[AG] - along * sum[AR])),
                         (float)(inverse * (sum[BG] - along * sum[BR]))};
}

template <typename T, int W, int CHUNKS>
__device__ static void lerp_row(const kp_sphere_operands &k, kp_sphere_back_row<T, W, CHUNKS> &row,
                                kp_column_accumulator<W, CHUNKS> &rate_bar) {
  const kp_lerp_scalars s = lerp_scalars_of(k, row);
  const kp_vector again = kp_again(k.rate);
  row.keep();
#pragma unroll
  for (int j = 0; j < row.shape.steps(); j++) {
    float h[W], u[W], g[W], rate[W];
    row.h.get(j, h), row.u.get(j, u), row.g.get(j, g);
    kp_get_columns<W>(again, (int64_t)row.shape.chunk(j, row.thread) * W, k.C, rate);
#pragma unroll
    for (int e = 0; e < W; e++) {
      const float a = row.units.inverse_h * h[e], b = row.units.inverse_u * u[e];
      const float l = fabsf(rate[e] * k.factor), difference = b - a;
      const float r_bar = s.inverse * (g[e] - s.along * (a + l * difference)), b_bar = l * r_bar;
      rate[e] = rate_slope(rate[e], k.factor) * (difference * r_bar);
      h[e] = row.units.inverse_h * (r_bar - b_bar - s.a * a);
      u[e] = row.units.inverse_u * (b_bar - s.b * b);
    }
    kp_put(row.gh, row.shape, j, row.thread, h);
    kp_put(row.gu, row.shape, j, row.thread, u);
    rate_bar.add(j, row.thread, rate);
  }
}

/* ---- slerp: m = λ w, w = B - c A, s = ρ m, p = s - n A, h' = cos|p| A + S p ---- */

enum { WW, MA, MM, AG, MG, LMA, LAA, LAG, SLERP_SUMS };

/* s̄ = of_g g + of_m m + of_a A;  B̄ = ρ λ s̄ + of_w w + c̄ A;  Ā = a_of_g g + a_of_m m + a_of_a A - c (B̄ - c̄ A)
 * + c̄ B. */
struct kp_slerp_scalars {
  float ratio, cosine;
  float of_g, of_m, of_a;
  float of_w, cosine_bar;
  float a_of_g, a_of_m, a_of_a;
  float a, b; /* <A,Ā>, <B,B̄> */
};

__device__ static kp_slerp_scalars slerp_scalars_of(const double (&sum)[SLERP_SUMS], double cosine) {
  const kp_sphere_log log = kp_sphere_log_of(sum[WW], cosine);
  const double ratio = log.ratio, normal = ratio * sum[MA];
  const kp_sine_cosine exp = kp_sine_cosine_of(kp_max(ratio * ratio * sum[MM] - normal * normal, 0));
  const double of_g = exp.sine_ratio.value, normal_bar = -of_g * sum[AG];
  const double twice = 2 * (sum[AG] * exp.cosine.derivative +
                            (ratio * sum[MG] - normal * sum[AG]) * exp.sine_ratio.derivative);
  const double of_m = twice * ratio, of_a = normal_bar - twice * normal;
  const double ratio_bar = of_g * sum[MG] + of_m * sum[MM] + of_a * sum[MA];
  const double w_bar_a = ratio * (of_g * sum[LAG] + of_m * sum[LMA] + of_a * sum[LAA]);
  const double of_w = 2 * ratio_bar * log.by_square, cosine_bar = ratio_bar * log.by_cosine - w_bar_a;
  const double a =
      exp.cosine.value * sum[AG] + 2 * normal * normal_bar - cosine * w_bar_a + cosine_bar * cosine;
  const double b = ratio * ratio_bar + of_w * sum[WW] + cosine * w_bar_a + cosine_bar * cosine;
  return kp_slerp_scalars{(float)ratio,
                          (float)cosine,
                          (float)of_g,
                          (float)of_m,
                          (float)of_a,
                          (float)of_w,
                          (float)cosine_bar,
                          (float)(exp.cosine.value - normal * of_g),
                          (float)(ratio * (normal_bar - normal * twice)),
                          (float)(normal * normal * twice),
                          (float)a,
                          (float)b};
}

template <typename T, int W, int CHUNKS>
__device__ static kp_slerp_scalars slerp_products(const kp_sphere_operands &k,
                                                  const kp_sphere_back_row<T, W, CHUNKS> &row) {
  const float cosine = (float)row.units.cosine;
  double sum[SLERP_SUMS] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll
  for (int j = 0; j < row.shape.steps(); j++) {
    float h[W], u[W], g[W], rate[W], part[SLERP_SUMS] = {0, 0, 0, 0, 0, 0, 0, 0};
    row.h.get(j, h), row.u.get(j, u), row.g.get(j, g);
    kp_get_rates<W>(k, (int64_t)row.shape.chunk(j, row.thread) * W, rate);
#pragma unroll
    for (int e = 0; e < W; e++) {
      const float a = row.units.inverse_h * h[e], w = row.units.inverse_u * u[e] - cosine * a;
      const float m = rate[e] * w, la = rate[e] * a;
      part[WW] += w * w, part[MA] += m * a, part[MM] += m * m, part[AG] += a * g[e], part[MG] += m * g[e];
      part[LMA] += la * m, part[LAA] += la * a, part[LAG] += la * g[e];
    }
#pragma unroll
    for (int i = 0; i < SLERP_SUMS; i++) sum[i] += (double)part[i];
  }
  kp_team_sums<CHUNKS>(sum);
  return slerp_scalars_of(sum, row.units.cosine);
}

template <typename T, int W, int CHUNKS>
__device__ static void slerp_row(const kp_sphere_operands &k, kp_sphere_back_row<T, W, CHUNKS> &row,
                                 kp_column_accumulator<W, CHUNKS> &rate_bar) {
  const kp_slerp_scalars s = slerp_products(k, row);
  const kp_vector again = kp_again(k.rate);
  row.keep();
#pragma unroll
  for (int j = 0; j < row.shape.steps(); j++) {
    float h[W], u[W], g[W], rate[W];
    row.h.get(j, h), row.u.get(j, u), row.g.get(j, g);
    kp_get_columns<W>(again, (int64_t)row.shape.chunk(j, row.thread) * W, k.C, rate);
#pragma unroll
    for (int e = 0; e < W; e++) {
      const float a = row.units.inverse_h * h[e], b = row.units.inverse_u * u[e], w = b - s.cosine * a;
      const float l = fabsf(rate[e] * k.factor), m = l * w;
      const float s_bar = s.ratio * (s.of_g * g[e] + s.of_m * m + s.of_a * a), w_bar = l * s_bar + s.of_w * w;
      const float a_bar = s.a_of_g * g[e] + s.a_of_m * m + s.a_of_a * a - s.cosine * w_bar + s.cosine_bar * b;
      rate[e] = rate_slope(rate[e], k.factor) * (s_bar * w);
      h[e] = row.units.inverse_h * (a_bar - s.a * a);
      u[e] = row.units.inverse_u * (w_bar + s.cosine_bar * a - s.b * b);
    }
    kp_put(row.gh, row.shape, j, row.thread, h);
    kp_put(row.gu, row.shape, j, row.thread, u);
    rate_bar.add(j, row.thread, rate);
  }
}

/* Bytes: h, u, g read, g h and g u written, once each: 5 · N · C · size; about 40 FLOPs a channel: bound by
 * memory. */
template <typename T, int W, int CHUNKS, bool SLERP>
__global__ void __launch_bounds__(KP_ROW_THREADS)
    kp_sphere_backward_kernel(const kp_sphere_operands k, const kp_sphere_gradients to) {
  const kp_team<CHUNKS> team;
  const kp_row_shape<W, CHUNKS> shape = {k.C, k.chunks};
  kp_column_accumulator<W, CHUNKS> rate_bar(to.parts == NULL ? NULL : to.parts + blockIdx.x * k.C, shape);
  for (int64_t n = team.index; n < k.rows; n += team.count) {
    const int64_t at = n * k.pitch;
    kp_sphere_back_row<T, W, CHUNKS> row = {{(const T *)k.h + at, shape, team.thread},
                                            {(const T *)k.u + at, shape, team.thread},
                                            {(const T *)to.g + at, shape, team.thread},
                                            shape,
                                            {},
                                            (T *)to.gh + at,
                                            (T *)to.gu + at,
                                            team.thread};
    row.units = kp_sphere_units_of(row.h, row.u, shape);
    row.keep();
    if (SLERP)
      slerp_row(k, row, rate_bar);
    else
      lerp_row(k, row, rate_bar);
  }
  rate_bar.finish();
}

template <typename T, int W, int CHUNKS> struct kp_sphere_backward {
  static kp_status run(const kp_row_plan &plan, const kp_call *call, const kp_sphere_operands &k,
                       const kp_sphere_gradients &to, bool is_slerp, int *blocks, kp_error *error) {
    const auto kernel = is_slerp ? kp_sphere_backward_kernel<T, W, CHUNKS, true>
                                 : kp_sphere_backward_kernel<T, W, CHUNKS, false>;
    const int64_t wanted = (plan.rows + kp_team<CHUNKS>::per_block - 1) / kp_team<CHUNKS>::per_block;
    *blocks = kp_resident_blocks(call, (const void *)kernel, KP_ROW_THREADS, wanted, kp_column_parts(plan.C));
    kernel<<<*blocks, KP_ROW_THREADS, 0, kp_cuda_of(call)->stream>>>(k, to);
    return kp_launched(call, error);
  }
};

extern "C" size_t kp_cuda_scratch_sphere_residual_backward(const kp_node *node, int threads) {
  (void)threads;
  const int64_t columns = kp_tensor_columns(node->input[0]);
  return (size_t)(kp_column_parts(columns) * columns) * sizeof(float);
}

extern "C" kp_status kp_cuda_sphere_residual_backward(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const kp_sphere_arguments *arguments = (const kp_sphere_arguments *)node->arguments;
  const kp_row_plan plan = kp_row_plan_of(call, node->input[0]);
  if (!kp_row_fits(call, plan, node->input[1]) || !kp_row_fits(call, plan, node->input[3]) ||
      !kp_row_fits(call, plan, node->output[0]) || !kp_row_fits(call, plan, node->output[1]) ||
      kp_tensor_is_half(call, node->input[2]))
    return kp_row_misfit(call, error);
  float *const rate_bar = (float *)call->output[2];
  const kp_sphere_gradients to = {call->input[3], call->output[0], call->output[1],
                                  rate_bar == NULL ? NULL : (float *)call->scratch};
  int blocks = 0;
  KP_TRY(kp_with_rows<kp_sphere_backward>(plan, call, kp_sphere_operands_of(call, plan), to,
                                          arguments->step == KP_SPHERE_SLERP, &blocks, error));
  const kp_column_sums sums = {to.parts, blocks, plan.C, {{0, plan.C, rate_bar}}};
  return kp_add_columns(call, &sums, plan.C, error);
}
