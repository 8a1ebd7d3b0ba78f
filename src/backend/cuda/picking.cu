/* Choosing tokens: temperature, top-k, top-p and min-p as infer/sampler.h has them, a block a sequence.
 *
 * Each thread looks at a run of neighbouring logits.  The k-th largest of the threads' largest bounds the
 * k-th largest of all from below, and little more than k logits reach it; these candidates go to shared
 * memory in the order of their tokens, where the exact bound is found bit by bit.  Should too many reach it,
 * the exact bound is found over all logits first.  2 V bytes are read two or three times, from the second
 * time on from the cache: it is latency that counts.  Probabilities are in double, as on the host. */
#include <limits.h>

#include "backend/cuda/early.cuh"

extern "C" {
#include "backend/cuda/table.h"
#include "backend/picking.h"
}

enum { THREADS = 1024, ROOM = 2 * KP_PICK_MOST, PACK = 8 };

/* The candidates, in ascending order of tokens, and sums of a block. */
struct pick_memory {
  unsigned key[ROOM];
  int token[ROOM];
  double weight[KP_PICK_MOST];
  int sums[32];
  double parts[32];
  unsigned top;   /* the largest key of all */
  int first, bad; /* the first token that has it; the first whose logit is not finite */
};

/* Numbers that grow with the logit, of as many bits as it has; equal logits have equal ones. */
template <typename T> struct keys {
  static constexpr int BITS = 8 * sizeof(T), SHIFT = 32 - BITS;
  static constexpr unsigned SIGN = 1u << (BITS - 1), ALL = SIGN | (SIGN - 1);

  __device__ static unsigned of(float x) {
    const unsigned bits = __float_as_uint(x == 0 ? 0.0f : x) >> SHIFT;
    return bits & SIGN ? ~bits & ALL : bits | SIGN;
  }
  __device__ static float logit(unsigned key) {
    return __uint_as_float((key & SIGN ? key & ~SIGN : ~key & ALL) << SHIFT);
  }
  /* What logits of at least that key are not below: keys under those of all numbers are reached by all. */
  __device__ static float least(unsigned key) {
    const float x = logit(key);
    return x == x ? x : -INFINITY;
  }
};

/* A thread's run of logits. */
template <typename T> struct own_logits {
  const T *row;
  int first, last;

  template <typename Use> __device__ void each(Use use) const {
    constexpr int SIZE = kp_pack<T>::size;
#pragma unroll 4
    for (int i = first; i < last; i += SIZE) {
      const kp_pack<T> pack = kp_load(row + i);
#pragma unroll
      for (int j = 0; j < SIZE; j++)
        if (i + j < last) use(i + j, kp_to_float(pack.value[j]));
    }
  }
};

/* The sum of x over the threads before this one; `total` gets that of all. */
__device__ static int sum_before(int x, int *sums, int *total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int sum = x;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, sum, offset);
    if (lane >= offset) sum += other;
  }
  __syncthreads();
  if (lane == 31) sums[warp] = sum;
  __syncthreads();
  int before = 0, all = 0;
  for (int w = 0; w < THREADS / 32; w++) {
    const int part = sums[w];
    before += w < warp ? part : 0;
    all += part;
  }
  *total = all;
  return before + sum - x;
}

/* The largest key that at least k of the things that `count` counts reach, knowing that it is from `low` to
 * `high`.  count(x): of those that are at least x, by all threads; all get the same. */
template <typename T, typename Count>
__device__ static unsigned bound_of(int k, unsigned low, unsigned high, Count count) {
  unsigned bound = 0;
  for (unsigned bit = keys<T>::SIGN; bit != 0; bit >>= 1) {
    const unsigned next = bound | bit;
    if (next > high) continue;
    if (next <= low || count(next) >= k) bound = next;
  }
  return bound;
}

/* Candidates: logits above that of key `bound`, and of those at it the first `at_bound`, to shared memory in
 * order. */
template <typename T>
__device__ static int gather(const own_logits<T> &own, unsigned bound, int at_bound, pick_memory *m) {
  const float least = keys<T>::least(bound);
  int above = 0, equal = 0, all, total;
  own.each([&](int, float x) { above += x > least, equal += x == least; });
  const int equal_before = sum_before(equal, m->sums, &all);
  const int room = at_bound - equal_before, taken = room <= 0 ? 0 : room < equal ? room : equal;
  int at = sum_before(above + taken, m->sums, &total), left = taken;
  if (above + taken > 0)
    own.each([&](int token, float x) {
      if (!(x >= least) || (x == least && left-- <= 0)) return;
      m->key[at] = keys<T>::of(x), m->token[at] = token;
      at++;
    });
  __syncthreads();
  return total;
}

template <typename T> __device__ static int count_all(const own_logits<T> &own, unsigned bound, int *sums) {
  const float least = keys<T>::least(bound);
  int count = 0, total;
  own.each([&](int, float x) { count += x >= least; });
  sum_before(count, sums, &total);
  return total;
}

/* Leaves the k likeliest in shared memory, in ascending order of tokens; `largest` is of the thread's own. */
template <typename T>
__device__ static void gather_likeliest(const own_logits<T> &own, int k, unsigned largest, pick_memory *m) {
  const unsigned top = m->top;
  const unsigned low = bound_of<T>(k, 0, top, [&](unsigned x) { return __syncthreads_count(largest >= x); });
  int count = count_all(own, low, m->sums);
  if (count > ROOM) {
    const unsigned bound = bound_of<T>(k, low, top, [&](unsigned x) { return count_all(own, x, m->sums); });
    gather(own, bound, k - count_all(own, bound + 1, m->sums), m);
    return;
  }
  count = gather(own, low, count, m);
  /* Of little more than k candidates, two a thread, those that belong. */
  const int i = threadIdx.x * 2;
  const unsigned a = i < count ? m->key[i] : 0, b = i + 1 < count ? m->key[i + 1] : 0;
  const int token_a = i < count ? m->token[i] : 0, token_b = i + 1 < count ? m->token[i + 1] : 0;
  const auto at_least = [&](unsigned x) {
    return __syncthreads_count(i < count && a >= x) + __syncthreads_count(i + 1 < count && b >= x);
  };
  const unsigned bound = bound_of<T>(k, low, top, at_least);
  const int above = at_least(bound + 1);
  const bool equal_a = i < count && a == bound, equal_b = i + 1 < count && b == bound;
  int all;
  const int before = sum_before(equal_a + equal_b, m->sums, &all), room = k - above;
  const bool take_a = i < count && (a > bound || (equal_a && before < room));
  const bool take_b = i + 1 < count && (b > bound || (equal_b && before + equal_a < room));
  int at = sum_before(take_a + take_b, m->sums, &all);
  if (take_a) m->key[at] = a, m->token[at++] = token_a;
  if (take_b) m->key[at] = b, m->token[at] = token_b;
  __syncthreads();
}

/* Weights relative to the likeliest; 0 of what top-p and min-p leave out.  Returns their sum. */
template <typename T> __device__ static double weigh(const kp_picking &p, int k, pick_memory *m) {
  const int i = threadIdx.x;
  const bool mine = i < k;
  const double top = (double)keys<T>::logit(m->top);
  const double weight = mine ? exp(((double)keys<T>::logit(m->key[i]) - top) / p.temperature) : 0;
  if (mine) m->weight[i] = weight;
  bool kept = mine && !(weight < p.min_p);
  if (p.top_p < 1) {
    const double total = kp_block_sum(weight, m->parts);
    double before = 0;
    __syncthreads();
    for (int j = 0; mine && j < k; j++)
      if (m->key[j] > m->key[i] || (m->key[j] == m->key[i] && j < i)) before += m->weight[j];
    kept = kept && before < p.top_p * total;
  }
  __syncthreads();
  if (mine && !kept) m->weight[i] = 0;
  const double sum = kp_block_sum(kept ? weight : 0.0, m->parts);
  __syncthreads();
  return sum;
}

/* One warp: the candidate where `left` falls when they stand side by side; the last one that has a weight,
 * should they fall short. */
__device__ static int place_of(const double *weight, int k, double left) {
  const int lane = threadIdx.x % 32, share = (k + 31) / 32;
  const int first = lane * share, last = first + share < k ? first + share : k;
  double own = 0, before;
  for (int i = first; i < last; i++) own += weight[i];
  double sum = own;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const double other = __shfl_up_sync(0xffffffffu, sum, offset);
    if (lane >= offset) sum += other;
  }
  before = sum - own;
  int found = -1, any = -1;
  for (int i = first; i < last && found < 0; i++) {
    if (weight[i] == 0) continue;
    any = i;
    before += weight[i];
    if (left < before) found = i;
  }
  const unsigned finders = __ballot_sync(0xffffffffu, found >= 0),
                 holders = __ballot_sync(0xffffffffu, any >= 0);
  if (finders != 0) return __shfl_sync(0xffffffffu, found, __ffs(finders) - 1);
  return __shfl_sync(0xffffffffu, any, 31 - __clz(holders));
}

/* Of all logits: the largest, the first token that has it where that is the choice, and the first that is not
 * finite.  Returns the key of the largest of the thread's own. */
template <typename T> __device__ static unsigned look(const own_logits<T> &own, bool greedy, pick_memory *m) {
  float largest = -INFINITY, nothing = 0; /* not a number, where a logit is not finite */
  own.each([&](int, float x) { largest = fmaxf(largest, x), nothing += 0.0f * x; });
  const unsigned key = own.first < own.last ? keys<T>::of(largest) : 0;
  if (threadIdx.x == 0) m->top = 0, m->first = m->bad = INT_MAX;
  __syncthreads();
  const unsigned warps = __reduce_max_sync(0xffffffffu, key);
  if (threadIdx.x % 32 == 0) atomicMax(&m->top, warps);
  if (!(nothing == 0))
    own.each([&](int token, float x) {
      if (!(x - x == 0)) atomicMin(&m->bad, token);
    });
  __syncthreads();
  if (greedy && key == m->top)
    own.each([&](int token, float x) {
      if (x == largest) atomicMin(&m->first, token);
    });
  __syncthreads();
  return key;
}

/* The choice, or what says that a logit is not finite; thread 0 has it. */
template <typename T>
__device__ static int choose(const kp_picking &p, const own_logits<T> &own, double uniform, pick_memory *m) {
  const unsigned largest = look(own, p.temperature == 0, m);
  if (m->bad != INT_MAX) return KP_PICK_BAD_LOGIT - m->bad;
  if (p.temperature == 0) return m->first;
  const int k = (int)(p.top_k < p.vocabulary ? p.top_k : p.vocabulary);
  gather_likeliest(own, k, largest, m);
  const double sum = weigh<T>(p, k, m);
  return threadIdx.x < 32 ? m->token[place_of(m->weight, k, uniform * sum)] : 0;
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) pick_kernel(const __grid_constant__ kp_picking p) {
  __shared__ pick_memory memory;
  const int64_t b = blockIdx.x;
  const int V = (int)p.vocabulary, share = ((V + THREADS - 1) / THREADS + PACK - 1) / PACK * PACK;
  own_logits<T> own;
  own.row = (const T *)p.logits + b * p.pitch;
  own.first = (int)threadIdx.x * share < V ? (int)threadIdx.x * share : V;
  own.last = own.first + share < V ? own.first + share : V;
  kp_let_next_begin();
  kp_wait_for_previous();
  const int count = p.count[b];
  const int choice = choose(p, own, p.uniforms[count * p.batch + b], &memory);
  if (threadIdx.x > 0) return;
  p.tokens[b] = choice < 0 ? 0 : choice;
  p.positions[b]++;
  p.count[b] = count + 1;
  if (b == 0) (*p.start)++;
  __threadfence_system();
  *(volatile int32_t *)&p.picked[count * p.batch + b] = choice;
}

static kp_status pick(kp_device *device, const kp_picking *p, kp_error *error) {
  kp_early_launch l = {};
  l.grid = dim3((unsigned)p->batch);
  l.block = dim3(THREADS);
  l.early = true;
  const char *name = "choosing tokens";
  if (p->size == sizeof(float))
    return kp_launch_early((kp_cuda *)device, name, l, pick_kernel<float>, error, *p);
  return kp_launch_early((kp_cuda *)device, name, l, pick_kernel<kp_half>, error, *p);
}

static kp_status await(kp_device *device, const int32_t *place, kp_error *error) {
  enum { LOOKS = 4096 }; /* between questions whether the device still works */
  const cudaStream_t stream = ((kp_cuda *)device)->stream;
  for (;;) {
    for (int i = 0; i < LOOKS; i++)
      if (*(const volatile int32_t *)place != KP_PICK_NONE) return KP_OK;
    const cudaError_t state = cudaStreamQuery(stream);
    if (state == cudaErrorNotReady) continue;
    KP_TRY(kp_cuda_check(state, "choosing tokens", error));
    if (*(const volatile int32_t *)place != KP_PICK_NONE) return KP_OK;
    return kp_fail(error, KP_ERR_IO, "the GPU is done and has chosen no token");
  }
}

extern "C" const kp_picking_driver kp_cuda_picking_driver = {pick, await};
