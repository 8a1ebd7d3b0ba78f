/* The residual step on the unit sphere, backward.
 *
 * The scalars that go back through a row are sums of products of A, B (or w), λ and g.  They are all taken in
 * one pass, before any of them is needed, so that the last pass writes both gradients: the lines of
 * ops/sphere_residual.c with their inner products expanded. */
#include "backend/cuda/columns.cuh"
#include "backend/cuda/sphere_residual.cuh"

enum { G = KP_SPHERE_U + 1, TENSORS };

struct kp_sphere_gradients {
  const void *g;
  void *gh, *gu; /* gh may be g */
  float *parts;  /* (blocks, C) of the rate's gradient, or NULL */
};

/* A chunk of a row: A, B, g and λ. */
template <class K> struct kp_sphere_chunk {
  float a[K::W], b[K::W], g[K::W], rate[K::W];

  __device__ kp_sphere_chunk(const kp_sphere_operands &k, const kp_ring<K, TENSORS> &ring, int stage, int j,
                             int chunk, const kp_sphere_units &units) {
    ring.get(stage, KP_SPHERE_H, j, a), ring.get(stage, KP_SPHERE_U, j, b), ring.get(stage, G, j, g);
    kp_get_rates<K::W>(k, (int64_t)chunk * K::W, ring.shape.C, rate);
#pragma unroll
    for (int e = 0; e < K::W; e++) a[e] *= units.inverse_h, b[e] *= units.inverse_u;
  }
};

/* ---- lerp: r = A + λ (B - A), r̄ = (g - k r)/|r| with k = <r,g>/|r|²; Ā = (1 - λ) r̄, B̄ = λ r̄ ---- */

template <class K> struct kp_lerp_back {
  float inverse, along, of_a, of_b; /* 1/|r|, k, <A,Ā> and <B,B̄> */

  __device__ kp_lerp_back(const kp_sphere_operands &k, const kp_ring<K, TENSORS> &ring, int stage,
                          const kp_sphere_units &units) {
    enum { RR, RG, AG, AR, BG, BR }; /* with A as (1 - λ) A and B as λ B */
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll 1
    for (int j = 0, chunk = ring.thread; chunk < ring.shape.chunks; j++, chunk += K::TEAM) {
      const kp_sphere_chunk<K> c(k, ring, stage, j, chunk, units);
#pragma unroll
      for (int e = 0; e < K::W; e++) {
        const float share_b = c.rate[e] * c.b[e], share_a = c.a[e] - c.rate[e] * c.a[e];
        const float r = c.a[e] + c.rate[e] * (c.b[e] - c.a[e]);
        sum[RR] += r * r, sum[RG] += r * c.g[e];
        sum[AG] += share_a * c.g[e], sum[AR] += share_a * r;
        sum[BG] += share_b * c.g[e], sum[BR] += share_b * r;
      }
    }
    kp_team_sums<K>(sum);
    inverse = kp_sphere_inverse_length(sum[RR]), along = sum[RG] * inverse * inverse;
    of_a = inverse * (sum[AG] - along * sum[AR]), of_b = inverse * (sum[BG] - along * sum[BR]);
  }
  /* Leaves |h| g h in a, |u| g u in b and the gradient of λ in rate. */
  __device__ void operator()(kp_sphere_chunk<K> &c) const {
#pragma unroll
    for (int e = 0; e < K::W; e++) {
      const float l = c.rate[e], difference = c.b[e] - c.a[e];
      const float r_bar = inverse * (c.g[e] - along * (c.a[e] + l * difference)), b_bar = l * r_bar;
      c.rate[e] = difference * r_bar;
      c.a[e] = r_bar - b_bar - of_a * c.a[e];
      c.b[e] = b_bar - of_b * c.b[e];
    }
  }
};

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

__device__ static kp_slerp_scalars slerp_scalars_of(const float (&sum)[SLERP_SUMS], float cosine) {
  const kp_sphere_log log = kp_sphere_log_of(sum[WW], cosine);
  const float ratio = log.ratio, normal = ratio * sum[MA];
  const kp_sine_cosine exp = kp_sine_cosine_of(kp_max(ratio * ratio * sum[MM] - normal * normal, 0));
  const float sine = exp.sine_ratio.value, normal_bar = -sine * sum[AG];
  const float twice = 2 * (sum[AG] * exp.cosine.derivative +
                           (ratio * sum[MG] - normal * sum[AG]) * exp.sine_ratio.derivative);
  kp_slerp_scalars s;
  s.ratio = ratio, s.cosine = cosine;
  s.of_g = sine, s.of_m = twice * ratio, s.of_a = normal_bar - twice * normal;
  const float ratio_bar = s.of_g * sum[MG] + s.of_m * sum[MM] + s.of_a * sum[MA];
  const float w_bar_a = ratio * (s.of_g * sum[LAG] + s.of_m * sum[LMA] + s.of_a * sum[LAA]);
  s.of_w = 2 * ratio_bar * log.by_square, s.cosine_bar = ratio_bar * log.by_cosine - w_bar_a;
  s.a_of_g = exp.cosine.value - normal * sine;
  s.a_of_m = ratio * (normal_bar - normal * twice);
  s.a_of_a = normal * normal * twice;
  s.a = exp.cosine.value * sum[AG] + 2 * normal * normal_bar - cosine * w_bar_a + s.cosine_bar * cosine;
  s.b = ratio * ratio_bar + s.of_w * sum[WW] + cosine * w_bar_a + s.cosine_bar * cosine;
  return s;
}

template <class K> struct kp_slerp_back {
  kp_slerp_scalars s;

  __device__ kp_slerp_back(const kp_sphere_operands &k, const kp_ring<K, TENSORS> &ring, int stage,
                           const kp_sphere_units &units) {
    float sum[SLERP_SUMS] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll 1
    for (int j = 0, chunk = ring.thread; chunk < ring.shape.chunks; j++, chunk += K::TEAM) {
      const kp_sphere_chunk<K> c(k, ring, stage, j, chunk, units);
#pragma unroll
      for (int e = 0; e < K::W; e++) {
        const float a = c.a[e], w = c.b[e] - units.cosine * a, m = c.rate[e] * w, la = c.rate[e] * a;
        sum[WW] += w * w, sum[MA] += m * a, sum[MM] += m * m, sum[AG] += a * c.g[e], sum[MG] += m * c.g[e];
        sum[LMA] += la * m, sum[LAA] += la * a, sum[LAG] += la * c.g[e];
      }
    }
    kp_team_sums<K>(sum);
    s = slerp_scalars_of(sum, units.cosine);
  }
  /* Leaves |h| g h in a, |u| g u in b and the gradient of λ in rate. */
  __device__ void operator()(kp_sphere_chunk<K> &c) const {
#pragma unroll
    for (int e = 0; e < K::W; e++) {
      const float a = c.a[e], b = c.b[e], w = b - s.cosine * a, l = c.rate[e], m = l * w;
      const float s_bar = s.ratio * (s.of_g * c.g[e] + s.of_m * m + s.of_a * a);
      const float w_bar = l * s_bar + s.of_w * w;
      const float a_bar =
          s.a_of_g * c.g[e] + s.a_of_m * m + s.a_of_a * a - s.cosine * w_bar + s.cosine_bar * b;
      c.rate[e] = s_bar * w;
      c.a[e] = a_bar - s.a * a;
      c.b[e] = w_bar + s.cosine_bar * a - s.b * b;
    }
  }
};

/* Bytes: h, u, g read, g h and g u written, once each: 5 · N · C · size; about 40 FLOPs a channel: bound by
 * memory. */
template <class K, class Step>
__global__ void __launch_bounds__(K::THREADS, K::TEAM == 32 ? 4 : 1)
    kp_sphere_backward_kernel(const kp_ring_shape shape, const kp_sphere_operands k,
                              const kp_sphere_gradients to) {
  extern __shared__ __align__(16) unsigned char shared[];
  using T = typename K::T;
  kp_ring<K, TENSORS> ring(shape, shared);
  ring.tensor[KP_SPHERE_H] = (const T *)k.h, ring.tensor[KP_SPHERE_U] = (const T *)k.u;
  ring.tensor[G] = (const T *)to.g;
  kp_row_accumulator<K> rate_bar;
  int stage = 0;
  ring.fetch(ring.row, stage);
  for (int64_t n = ring.row; n < shape.rows; n += ring.stride) {
    ring.advance(n, stage);
    const kp_sphere_units units = kp_sphere_units_of(ring, stage);
    const Step step(k, ring, stage, units);
#pragma unroll
    for (int j = 0; j < K::MOST; j++) {
      const int chunk = j * K::TEAM + ring.thread;
      if (chunk >= shape.chunks) break;
      kp_sphere_chunk<K> c(k, ring, stage, j, chunk, units);
      step(c);
      rate_bar.add(j, c.rate);
#pragma unroll
      for (int e = 0; e < K::W; e++) c.a[e] *= units.inverse_h, c.b[e] *= units.inverse_u;
      ring.put((T *)to.gh, n, chunk, c.a);
      ring.put((T *)to.gu, n, chunk, c.b);
    }
    if (shape.stages == 2) stage = 1 - stage;
  }
  if (to.parts == NULL) return;
  rate_bar.finish(shape, shared, to.parts + blockIdx.x * shape.C, [&](int64_t i) {
    return k.rate.at[i] * k.factor < 0 ? -k.factor : k.factor; /* of λ with respect to α */
  });
}

template <class K> struct kp_sphere_backward {
  static constexpr int TENSORS = ::TENSORS;
  static kp_status run(const kp_call *call, const kp_ring_shape &shape, size_t bytes, kp_error *error,
                       const kp_sphere_operands &k, const kp_sphere_gradients &to, const bool &slerp,
                       int *const &blocks) {
    const auto kernel = slerp ? kp_sphere_backward_kernel<K, kp_slerp_back<K>>
                              : kp_sphere_backward_kernel<K, kp_lerp_back<K>>;
    *blocks = kp_ring_blocks<K>(call, (const void *)kernel, shape, bytes, kp_column_parts(shape.C));
    kernel<<<*blocks, K::THREADS, bytes, kp_cuda_of(call)->stream>>>(shape, k, to);
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
  KP_TRY(
      kp_with_ring<kp_sphere_backward>(call, plan, error, kp_sphere_operands_of(call), to, slerp, &blocks));
  const kp_column_sums sums = {to.parts, blocks, plan.C, {{0, plan.C, rate_bar}}};
  return kp_add_columns(call, &sums, plan.C, error);
}
