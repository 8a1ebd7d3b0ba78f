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

/* A row of the three tensors. */
template <class K> struct kp_sphere_rows {
  kp_held_row<K> h, u, g;
  __device__ void fetch(const kp_row_team<K> &team, const kp_sphere_operands &k,
                        const kp_sphere_gradients &to, int64_t n) {
    h.fetch(team, k.h, n), u.fetch(team, k.u, n), g.fetch(team, to.g, n);
    h.expect(team, k.h, n + team.stride), u.expect(team, k.u, n + team.stride);
    g.expect(team, to.g, n + team.stride);
  }
};

/* A chunk of a row: h, u, g and λ. */
template <class K> struct kp_sphere_chunk {
  float h[K::W], u[K::W], g[K::W], rate[K::W];

  __device__ kp_sphere_chunk(const kp_sphere_rows<K> &held, const kp_shared_vector<K> &rates, int j) {
    held.h.get(j, h), held.u.get(j, u), held.g.get(j, g);
    rates.get(j, rate);
  }
};

/* ---- lerp: r = A + λ (B - A), r̄ = (g - k r)/|r| with k = <r,g>/|r|²; Ā = (1 - λ) r̄, B̄ = λ r̄ ----
 * With t = (1 - λ) h and s = λ u: r = a t + b s, a = 1/|h|, b = 1/|u|; all sums are taken in one pass. */

template <class K> struct kp_lerp_back {
  float a, b;
  float of_g, of_t, of_s; /* r̄ of them */
  float of_h, of_u;       /* g h = a (1 - λ) r̄ - of_h h, g u = b λ r̄ - of_u u */

  __device__ kp_lerp_back(const kp_sphere_rows<K> &held, const kp_shared_vector<K> &rates) {
    enum { HH, UU, TT, TS, SS, TG, SG };
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll
    for (int j = 0; j < K::STEPS; j++) {
      const kp_sphere_chunk<K> c(held, rates, j);
#pragma unroll
      for (int e = 0; e < K::W; e++) {
        const float t = c.h[e] - c.rate[e] * c.h[e], s = c.rate[e] * c.u[e];
        sum[HH] += c.h[e] * c.h[e], sum[UU] += c.u[e] * c.u[e];
        sum[TT] += t * t, sum[TS] += t * s, sum[SS] += s * s;
        sum[TG] += t * c.g[e], sum[SG] += s * c.g[e];
      }
    }
    kp_team_sums<K>(sum);
    a = kp_inverse_length(sum[HH]), b = kp_inverse_length(sum[UU]);
    const float tr = a * sum[TT] + b * sum[TS], sr = a * sum[TS] + b * sum[SS]; /* <t,r>, <s,r> */
    of_g = kp_inverse_length(a * tr + b * sr);
    const float along = (a * sum[TG] + b * sum[SG]) * of_g * of_g;
    of_t = -of_g * along * a, of_s = -of_g * along * b;
    of_h = a * (a * (a * (of_g * (sum[TG] - along * tr)))),
    of_u = b * (b * (b * (of_g * (sum[SG] - along * sr))));
  }
  /* Leaves g h, g u and the gradient of λ in h, u and rate. */
  __device__ void operator()(kp_sphere_chunk<K> &c) const {
#pragma unroll
    for (int e = 0; e < K::W; e++) {
      const float h = c.h[e], u = c.u[e], l = c.rate[e];
      const float r_bar = of_g * c.g[e] + of_t * (h - l * h) + of_s * (l * u), b_bar = l * r_bar;
      c.rate[e] = (b * u - a * h) * r_bar;
      c.h[e] = a * (r_bar - b_bar) - of_h * h;
      c.u[e] = b * b_bar - of_u * u;
    }
  }
};

/* ---- slerp: m = λ w, w = B - c A, s = ρ m, p = s - n A, h' = cos|p| A + S p ---- */

enum { WW, MA, MM, AG, MG, LMA, LAA, LAG, SLERP_SUMS };

/* s̄ = of_g g + of_m m + of_a A;  B̄ = ρ λ s̄ + of_w w + c̄ A;  Ā = a_of_g g + a_of_m m + a_of_a A - c (B̄ - c̄ A)
 * + c̄ B. */
struct kp_slerp_scalars {
  double ratio, cosine;
  double of_g, of_m, of_a;
  double of_w, cosine_bar;
  double a_of_g, a_of_m, a_of_a;
  double a, b; /* <A,Ā>, <B,B̄> */
};

__device__ static kp_slerp_scalars slerp_scalars_of(const double (&sum)[SLERP_SUMS], double cosine) {
  const kp_sphere_log log = kp_sphere_log_of(sum[WW], cosine);
  const double ratio = log.ratio, normal = ratio * sum[MA];
  const kp_sine_cosine exp = kp_sine_cosine_of(kp_max(ratio * ratio * sum[MM] - normal * normal, 0));
  const double sine = exp.sine_ratio.value, normal_bar = -sine * sum[AG];
  const double twice = 2 * (sum[AG] * exp.cosine.derivative +
                            (ratio * sum[MG] - normal * sum[AG]) * exp.sine_ratio.derivative);
  kp_slerp_scalars s;
  s.ratio = ratio, s.cosine = cosine;
  s.of_g = sine, s.of_m = twice * ratio, s.of_a = normal_bar - twice * normal;
  const double ratio_bar = s.of_g * sum[MG] + s.of_m * sum[MM] + s.of_a * sum[MA];
  const double w_bar_a = ratio * (s.of_g * sum[LAG] + s.of_m * sum[LMA] + s.of_a * sum[LAA]);
  s.of_w = 2 * ratio_bar * log.by_square, s.cosine_bar = ratio_bar * log.by_cosine - w_bar_a;
  s.a_of_g = exp.cosine.value - normal * sine;
  s.a_of_m = ratio * (normal_bar - normal * twice);
  s.a_of_a = normal * normal * twice;
  s.a = exp.cosine.value * sum[AG] + 2 * normal * normal_bar - cosine * w_bar_a + s.cosine_bar * cosine;
  s.b = ratio * ratio_bar + s.of_w * sum[WW] + cosine * w_bar_a + s.cosine_bar * cosine;
  return s;
}

template <class K> struct kp_slerp_back {
  kp_sphere_tangent tangent;
  kp_slerp_scalars s;

  __device__ kp_slerp_back(const kp_sphere_rows<K> &held, const kp_shared_vector<K> &rates)
      : tangent(kp_sphere_tangent_of(held.h, held.u)) {
    double sum[SLERP_SUMS] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (tangent.delicate())
      take_sums<double>(held, rates, sum);
    else
      take_sums<float>(held, rates, sum);
    kp_team_sums<K>(sum);
    s = slerp_scalars_of(sum, tangent.cosine);
  }
  template <typename R>
  __device__ void take_sums(const kp_sphere_rows<K> &held, const kp_shared_vector<K> &rates,
                            double (&total)[SLERP_SUMS]) const {
    R sum[SLERP_SUMS] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll
    for (int j = 0; j < K::STEPS; j++) {
      const kp_sphere_chunk<K> c(held, rates, j);
#pragma unroll
      for (int e = 0; e < K::W; e++) {
        R a, b, w;
        tangent.get(c.h[e], c.u[e], a, b, w);
        const R l = c.rate[e], g = c.g[e], m = l * w, la = l * a;
        sum[WW] += w * w, sum[MA] += m * a, sum[MM] += m * m, sum[AG] += a * g, sum[MG] += m * g;
        sum[LMA] += la * m, sum[LAA] += la * a, sum[LAG] += la * g;
      }
    }
#pragma unroll
    for (int i = 0; i < SLERP_SUMS; i++) total[i] = (double)sum[i];
  }
  /* Leaves g h, g u and the gradient of λ in h, u and rate. */
  __device__ void operator()(kp_sphere_chunk<K> &c) const {
    if (tangent.delicate())
      go_back<double>(c);
    else
      go_back<float>(c);
  }
  template <typename R> __device__ void go_back(kp_sphere_chunk<K> &c) const {
#pragma unroll
    for (int e = 0; e < K::W; e++) {
      R a, b, w;
      tangent.get(c.h[e], c.u[e], a, b, w);
      const R l = c.rate[e], g = c.g[e], m = l * w;
      const R s_bar = (R)s.ratio * ((R)s.of_g * g + (R)s.of_m * m + (R)s.of_a * a);
      const R w_bar = l * s_bar + (R)s.of_w * w;
      const R a_bar =
          (R)s.a_of_g * g + (R)s.a_of_m * m + (R)s.a_of_a * a - (R)s.cosine * w_bar + (R)s.cosine_bar * b;
      c.rate[e] = (float)(s_bar * w);
      c.h[e] = (float)((R)tangent.inverse_h * (a_bar - (R)s.a * a));
      c.u[e] = (float)((R)tangent.inverse_u * (w_bar + (R)s.cosine_bar * a - (R)s.b * b));
    }
  }
};

/* Bytes: h, u, g read, g h and g u written, once each: 5 · N · C · size; about 40 FLOPs a channel: bound by
 * memory. */
template <class K, class Step>
__global__ void __launch_bounds__(K::THREADS, K::TEAM == 32 ? (K::STEPS < 4 ? 4 : 3) : 1)
    kp_sphere_backward_kernel(const kp_row_shape shape, const kp_sphere_operands k,
                              const kp_sphere_gradients to) {
  extern __shared__ __align__(16) float shared[];
  const kp_row_team<K> team(shape);
  kp_sphere_rows<K> held;
  held.fetch(team, k, to, team.row);
  const kp_shared_vector<K> rates(shape, shared, k.rate, [&](float x) { return fabsf(x * k.factor); });
  kp_row_accumulator<K> rate_bar;
  for (int64_t n = team.row; n < shape.rows; n += team.stride) {
    const Step step(held, rates);
#pragma unroll
    for (int j = 0; j < K::STEPS; j++) {
      kp_sphere_chunk<K> c(held, rates, j);
      step(c);
#pragma unroll
      for (int e = 0; e < K::W; e++) rate_bar.held[j][e] += c.rate[e];
      team.put(to.gh, n, j, c.h);
      team.put(to.gu, n, j, c.u);
    }
    held.fetch(team, k, to, n + team.stride);
  }
  if (to.parts == NULL) return;
  rate_bar.finish(shape, shared, to.parts + blockIdx.x * (int64_t)shape.C, [&](int64_t i) {
    return k.rate.at[i] * k.factor < 0 ? -k.factor : k.factor; /* of λ with respect to α */
  });
}

template <class K> struct kp_sphere_backward {
  static kp_status run(const kp_call *call, const kp_row_shape &shape, kp_error *error,
                       const kp_sphere_operands &k, const kp_sphere_gradients &to, const bool &slerp,
                       int *const &blocks) {
    const auto kernel = slerp ? kp_sphere_backward_kernel<K, kp_slerp_back<K>>
                              : kp_sphere_backward_kernel<K, kp_lerp_back<K>>;
    *blocks = kp_row_blocks<K>(call, (const void *)kernel, shape, kp_column_parts(shape.C));
    kernel<<<*blocks, K::THREADS, K::BYTES, kp_cuda_of(call)->stream>>>(shape, k, to);
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
  const bool slerp = arguments->step == KP_SPHERE_SLERP;
  int blocks = 0;
  KP_TRY(kp_with_row_kind<kp_sphere_backward>(call, plan, error, kp_sphere_operands_of(call), to, slerp,
                                              &blocks));
  const kp_column_sums sums = {to.parts, blocks, plan.C, {{0, plan.C, rate_bar}}};
  return kp_add_columns(call, &sums, plan.C, error);
}
