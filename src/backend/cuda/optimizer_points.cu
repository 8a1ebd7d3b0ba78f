/* Riemannian Adam on tables of points (optim/riemannian_adam.h has the mathematics).
 *
 * A step's results, the next point and the carried moment, are combinations of the row's three vectors: point
 * x, gradient e and moment m.  Their coefficients hang on the inner products of the three alone.  So a row is
 * read once, its six inner products are summed in double, the coefficients are found in double, and it is
 * written once: 26 bytes an element (there is one second moment a row), and bound by them.
 *
 * A warp has a row, or the block where it is long; it waits in shared memory. */
#include <cuda_pipeline.h>

#include "backend/cuda/optimizer.cuh"
#include "geometry/programs_point.h"

enum { THREADS = 256, LONG_ROW = 512 };

/* The inner products of x, e and m. */
struct point_products {
  double xx, xe, xm, ee, em, mm;
};

/* a x + b e + c m. */
struct combination {
  double x, e, m;
};

static __device__ double product(const point_products &p, const combination &a, const combination &b) {
  return a.x * (b.x * p.xx + b.e * p.xe + b.m * p.xm) + a.e * (b.x * p.xe + b.e * p.ee + b.m * p.em) +
         a.m * (b.x * p.xm + b.e * p.em + b.m * p.mm);
}

/* a + factor · b. */
static __device__ combination add(const combination &a, double factor, const combination &b) {
  return combination{a.x + factor * b.x, a.e + factor * b.e, a.m + factor * b.m};
}

static __device__ combination times(double factor, const combination &a) {
  return combination{factor * a.x, factor * a.e, factor * a.m};
}

/* What a step makes of a row. */
struct point_step {
  combination point, moment;
  double time, moment_time; /* the first elements, on a hyperboloid */
  double square;            /* the second moment */
};

/* The second moment of a Riemannian gradient of squared length `length`; the step's factor of the moment. */
static __device__ double second_moment(const kp_adamw_step &s, double length, double *square) {
  *square = s.beta2 * *square + (1 - s.beta2) * length;
  return -s.rate / s.mean_correction / (sqrt(*square) / s.root_correction + s.epsilon);
}

/* ---- Lorentz: products of space, and the three times ---- */

struct lorentz_row {
  point_products space;
  double x, e, m; /* times; e's with its sign turned */
};

static __device__ double time_of(const lorentz_row &r, const combination &a) {
  return a.x * r.x + a.e * r.e + a.m * r.m;
}

static __device__ double minkowski(const lorentz_row &r, const combination &a, const combination &b) {
  return product(r.space, a, b) - time_of(r, a) * time_of(r, b);
}

/* A vector whose time is not that of its space's combination. */
struct lifted {
  combination space;
  double time;
};

static __device__ double minkowski(const lorentz_row &r, const lifted &a, const lifted &b) {
  return product(r.space, a.space, b.space) - a.time * b.time;
}

static __device__ lifted add(const lifted &a, double factor, const lifted &b) {
  return lifted{add(a.space, factor, b.space), a.time + factor * b.time};
}

static __device__ point_step lorentz_step(const lorentz_row &r, double curvature, const kp_adamw_step &s,
                                          double square) {
  const double c = -1 / curvature;
  const combination x = {1, 0, 0}, e = {0, 1, 0};
  const combination g = add(e, minkowski(r, x, e) / c, x);
  const combination m = add(combination{0, 0, s.beta1}, 1 - s.beta1, g);
  point_step step;
  step.square = square;
  const double factor = second_moment(s, kp_max(minkowski(r, g, g), 0), &step.square);
  const combination u = times(factor, add(m, minkowski(r, x, m) / c, x));
  const double radius = sqrt(kp_max(minkowski(r, u, u), 0) / c);
  const double along = radius > 1e-4 ? sinh(radius) / radius : 1 + radius * radius / 6;
  const combination y = add(times(cosh(radius), x), along, u);
  const lifted from = {x, r.x}, to = {y, sqrt(product(r.space, y, y) + c)};
  lifted moment = {m, time_of(r, m)};
  const double carry = minkowski(r, to, moment) / (c - minkowski(r, from, to));
  moment = add(add(moment, carry, from), carry, to);
  moment = add(moment, minkowski(r, to, moment) / c, to);
  step.point = y;
  step.time = to.time;
  step.moment = moment.space;
  step.moment_time = moment.time;
  return step;
}

/* ---- stereographic ---- */

static __device__ point_step stereographic_step(const point_products &p, double kappa, const kp_adamw_step &s,
                                                double square) {
  const double conformal = 2 / (1 + kappa * p.xx), shrink = 1 / (conformal * conformal);
  const combination x = {1, 0, 0}, m = {0, (1 - s.beta1) * shrink, s.beta1};
  double inside, c[3];
  point_step step;
  step.square = square;
  const double factor = second_moment(s, shrink * p.ee, &step.square);
  const combination u = times(factor, m);
  const double exp_gram[3] = {p.xx, product(p, x, u), product(p, u, u)};
  kp_exp_forward(exp_gram, kappa, 0, c);
  combination y = add(times(c[0], x), c[1], u);
  const double y_square = product(p, y, y);
  kp_project_forward(&y_square, kappa, KP_BALL_MARGIN, &inside);
  y = times(inside, y);
  const double gram[6] = {
      p.xx, product(p, x, y), product(p, x, m), product(p, y, y), product(p, y, m), product(p, m, m)};
  kp_transport_forward(gram, kappa, 0, c);
  step.point = y;
  step.moment = add(add(times(c[0], x), c[1], y), c[2], m);
  step.time = step.moment_time = 0;
  return step;
}

/* ---- rows ---- */

/* A row in shared memory, each element where only its own thread looks. */
struct held_row {
  float *x, *e, *m;
};

/* Copies a row, all of it at once without a detour over registers, and sums its products from column `first`
 * on.
 */
template <int W>
static __device__ point_products read_row(const kp_flat &flat, int64_t at, const held_row &row,
                                          const kp_team &team, int columns, int first) {
  const int stride = team.size * W;
  for (int c = team.lane * W; c < columns; c += stride) {
    __pipeline_memcpy_async(row.x + c, flat.values + at + c, W * sizeof(float));
    __pipeline_memcpy_async(row.e + c, flat.gradients + at + c, W * sizeof(float));
    __pipeline_memcpy_async(row.m + c, flat.moment1 + at + c, W * sizeof(float));
  }
  __pipeline_commit();
  __pipeline_wait_prior(0);
  point_products p = {0, 0, 0, 0, 0, 0};
  for (int c = team.lane * W; c < columns; c += stride) {
    const kp_span<W> xs = kp_take<W>(row.x + c), es = kp_take<W>(row.e + c), ms = kp_take<W>(row.m + c);
#pragma unroll
    for (int i = 0; i < W; i++) {
      if (c + i < first) continue;
      const double x = xs.at[i], e = es.at[i], m = ms.at[i];
      p.xx += x * x;
      p.xe += x * e;
      p.xm += x * m;
      p.ee += e * e;
      p.em += e * m;
      p.mm += m * m;
    }
  }
  return p;
}

static __device__ point_products all_of(const point_products &part, const kp_team &team,
                                        double gradient_scale, double *shared) {
  point_products p;
  p.xx = kp_team_sum(team, part.xx, shared);
  p.xe = kp_team_sum(team, part.xe, shared) * gradient_scale;
  p.xm = kp_team_sum(team, part.xm, shared);
  p.ee = kp_team_sum(team, part.ee, shared) * gradient_scale * gradient_scale;
  p.em = kp_team_sum(team, part.em, shared) * gradient_scale;
  p.mm = kp_team_sum(team, part.mm, shared);
  return p;
}

template <int W>
static __device__ void write_row(const kp_flat &flat, int64_t at, const held_row &row, const kp_team &team,
                                 int columns, const point_step &step, double gradient_scale, bool lorentz) {
  const combination point = {step.point.x, step.point.e * gradient_scale, step.point.m};
  const combination moment = {step.moment.x, step.moment.e * gradient_scale, step.moment.m};
#pragma unroll 1
  for (int c = team.lane * W; c < columns; c += team.size * W) {
    const kp_span<W> xs = kp_take<W>(row.x + c), es = kp_take<W>(row.e + c), ms = kp_take<W>(row.m + c);
    kp_span<W> value, mean;
#pragma unroll
    for (int i = 0; i < W; i++) {
      const double x = xs.at[i], e = es.at[i], m = ms.at[i];
      value.at[i] = (float)(point.x * x + point.e * e + point.m * m);
      mean.at[i] = (float)(moment.x * x + moment.e * e + moment.m * m);
    }
    if (lorentz && c == 0) {
      value.at[0] = (float)step.time;
      mean.at[0] = (float)step.moment_time;
    }
    kp_put_values<W>(flat, at + c, value);
    kp_put<W>(flat.moment1 + at + c, mean);
    kp_clear<W>(flat.gradients + at + c);
  }
  if (team.lane == 0) flat.moment2[at] = (float)step.square;
}

static __host__ __device__ int room_of(int columns) {
  return (columns + 3) / 4 * 4;
}

/* What the teams of a block hand to the thread that finds their rows' coefficients, and get from it: where
 * every thread of a warp finds the same ones, the units of double precision become the limit. */
struct point_exchange {
  lorentz_row row[THREADS / 32];
  double square[THREADS / 32];
  point_step step[THREADS / 32];
};

template <bool LORENTZ, int W>
static __device__ void step_rows(const kp_flat &flat, const kp_points &points, int64_t at, bool is_row,
                                 const held_row &row, const kp_team &team, const kp_adamw_step &s) {
  __shared__ double shared[32];
  __shared__ point_exchange exchange;
  const int columns = is_row ? points.columns : 0;
  const point_products part = read_row<W>(flat, at, row, team, columns, LORENTZ ? 1 : 0);
  const point_products all = all_of(part, team, s.gradient_scale, shared);
  if (team.lane == 0 && is_row) {
    exchange.row[team.index] = lorentz_row{all, row.x[0], -s.gradient_scale * row.e[0], row.m[0]};
    exchange.square[team.index] = flat.moment2[at];
  }
  __syncthreads();
  if ((int)threadIdx.x < team.count) {
    const lorentz_row &r = exchange.row[threadIdx.x];
    const double square = exchange.square[threadIdx.x];
    exchange.step[threadIdx.x] = LORENTZ ? lorentz_step(r, points.curvature, s, square)
                                         : stereographic_step(r.space, points.curvature, s, square);
  }
  __syncthreads();
  if (is_row)
    write_row<W>(flat, at, row, team, columns, exchange.step[team.index], s.gradient_scale, LORENTZ);
}

template <bool LORENTZ>
static __global__ void __launch_bounds__(THREADS, 4)
    points_kernel(kp_flat flat, kp_points points, const kp_optimizer_state *state) {
  extern __shared__ __align__(16) float held[];
  const kp_team team = kp_team_of(points.columns > LONG_ROW);
  const int64_t index = (int64_t)blockIdx.x * team.count + team.index;
  const int64_t at = points.at + index * points.pitch;
  const int room = room_of(points.columns);
  const bool is_row = index < points.rows;
  float *first = held + team.index * 3 * room;
  const held_row row = {first, first + room, first + 2 * room};
  if (!state->take)
    for (int c = team.lane; is_row && c < points.columns; c += team.size) flat.gradients[at + c] = 0;
  else if (points.pitch % 4 == 0)
    step_rows<LORENTZ, 4>(flat, points, at, is_row, row, team, state->group[points.group]);
  else
    step_rows<LORENTZ, 1>(flat, points, at, is_row, row, team, state->group[points.group]);
}

template <bool LORENTZ> static kp_status launch(kp_cuda_optimizer *o, const kp_points &p, kp_error *error) {
  const int teams = p.columns > LONG_ROW ? 1 : THREADS / 32;
  const size_t bytes = (size_t)(3 * teams * room_of(p.columns)) * sizeof(float);
  KP_TRY(kp_cuda_check(
      cudaFuncSetAttribute(points_kernel<LORENTZ>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
      "the optimizer's shared memory", error));
  points_kernel<LORENTZ><<<kp_blocks(p.rows, teams), THREADS, bytes, o->cuda->stream>>>(o->flat, p, o->state);
  return kp_optimizer_launched(error);
}

int kp_optimizer_most_coordinates(const kp_cuda *cuda) {
  enum { RESERVED = 4096 };
  return (int)((cuda->shared_bytes - RESERVED) / (3 * sizeof(float))) / 4 * 4;
}

kp_status kp_optimizer_submit_points(kp_cuda_optimizer *o, const kp_points *points, kp_error *error) {
  return points->lorentz ? launch<true>(o, *points, error) : launch<false>(o, *points, error);
}
