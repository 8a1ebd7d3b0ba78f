/* Operators of decoding that follow one another, in fewer kernels.
 *
 * A token of GPT-2 is 150 operators' launches of a few microseconds, while its matrices are read in 58.  Here
 * a block of the model is five kernels: norm and first linear map; attention; linear map and sum; norm,
 * linear map and activation; linear map and sum.  Each begins before the one in front has ended, and has its
 * matrix under way by then (early.cuh).
 *
 * All outputs of all operators are written, so that it does not matter who reads them.  A plan may have given
 * an operator's output the place of what an earlier one of the group was the last to read; such a group is
 * not fused, and neither is what has more rows than a few. */
#include "backend/cuda/attention_cached_one.cuh"
#include "backend/cuda/linear_few.cuh"
#include "backend/cuda/seam.cuh"

extern "C" {
#include "backend/cuda/table.h"
}

/* ---- memory ---- */

/* What a kernel reads and writes. */
struct places {
  enum { MOST = 10 };
  const char *from[MOST], *to[MOST];
  int count = 0;

  void add(const kp_call *call, const kp_tensor *tensor, const void *memory) {
    if (tensor == NULL || memory == NULL) return;
    from[count] = (const char *)memory;
    to[count] = from[count] + kp_padded_count(tensor) * (kp_tensor_is_half(call, tensor) ? 2 : 4);
    count++;
  }
  void add_input(const kp_call *call, int i) { add(call, call->node->input[i], call->input[i]); }
  void add_output(const kp_call *call, int i) { add(call, call->node->output[i], call->output[i]); }

  bool are_apart() const {
    for (int i = 0; i < count; i++)
      for (int j = 0; j < i; j++)
        if (from[i] < to[j] && from[j] < to[i]) return false;
    return true;
  }
};

/* ---- groups ---- */

/* The calls that are left. */
struct calls_left {
  const kp_call *calls;
  int count;
  bool is(int i, kp_operation operation) const { return i < count && calls[i].node->operation == operation; }
};

/* Whether call i reads output `output` of call j as its input `input`. */
static bool reads(const calls_left &c, int i, int input, int j, int output) {
  return c.calls[i].node->input[input] == c.calls[j].node->output[output];
}

/* A map that has a kernel here. */
static bool is_map(const calls_left &c, int i) {
  if (!c.is(i, KP_OP_LINEAR)) return false;
  const kp_few_rows map = kp_few_rows_of(&c.calls[i]);
  return map.rows > 0 && map.columns > 0 && (kp_few_rows_fit(&map) || kp_some_rows_fit(&c.calls[i], &map));
}

/* A norm of rows that a warp holds, behind a flat sum or none. */
static bool is_norm(const calls_left &c, int i, kp_seam_map update) {
  if (!c.is(i, KP_OP_RESIDUAL_NORM) || c.calls[i].output[1] == NULL) return false;
  const kp_seam s = kp_seam_of(&c.calls[i]);
  return s.update == update && kp_seam_is_plain(&c.calls[i], s) && s.pitch <= KP_FEW_CHANNELS;
}

/* A selection of the only row that there is. */
static bool is_copy(const calls_left &c, int i) {
  return c.is(i, KP_OP_SELECT_ROW) &&
         kp_tensor_rows(c.calls[i].node->input[0]) == kp_tensor_rows(c.calls[i].node->output[0]);
}

/* One kernel, and how many calls it stands for. */
struct group {
  kp_few_linear few;
  int done;
};

static kp_few_norm norm_of(const kp_call *call) {
  const kp_seam s = kp_seam_of(call);
  kp_few_norm n = {};
  n.h = (const kp_half *)(s.update == KP_SEAM_NONE ? call->input[0] : call->output[0]);
  n.weight = s.weight, n.bias = s.bias;
  n.channels = s.C;
  n.layer = s.layer;
  n.epsilon = (float)s.epsilon;
  n.y = (kp_half *)call->output[1];
  n.statistics = (float2 *)call->output[2];
  n.events = (float *)call->output[3];
  return n;
}

/* Adds the map at call `at`, and its activation if it has one and that has a place of its own or the map's.
 */
static bool add_map(const calls_left &c, int at, places used, group *g) {
  const kp_call *map = &c.calls[at], *next = map + 1;
  g->few.map = kp_few_rows_of(map);
  g->done = at + 1;
  places with = used;
  used.add_output(map, 0);
  if (c.is(at + 1, KP_OP_ACTIVATION) && reads(c, at + 1, 0, at, 0)) {
    if (next->output[0] != map->output[0]) with.add_output(map, 0);
    with.add_output(next, 0);
    if (with.are_apart()) {
      g->few.end.activated = (kp_half *)next->output[0];
      g->few.end.kind = ((const kp_activation_arguments *)next->node->arguments)->kind;
      g->done++;
    }
  }
  return used.are_apart();
}

/* norm, [selection,] map [, activation], with the norm at call `at`. */
static bool find_normed(const calls_left &c, int at, group *g) {
  const kp_call *seam = &c.calls[at];
  const int map = at + (is_copy(c, at + 1) ? 2 : 1);
  places used;
  *g = {};
  if (!is_map(c, map) || !reads(c, map, 0, map - 1, map == at + 1 ? 1 : 0)) return false;
  if (map == at + 2 && !reads(c, at + 1, 0, at, 1)) return false;
  g->few.norm = norm_of(seam);
  if (seam->output[0] == NULL)
    used.add_input(seam, 0);
  else
    used.add_output(seam, 0);
  for (int i = 1; i < 4; i++) used.add_output(seam, i);
  if (map == at + 2) {
    g->few.norm.y_again = (kp_half *)c.calls[at + 1].output[0];
    used.add_output(&c.calls[at + 1], 0);
  }
  return add_map(c, map, used, g);
}

/* map, sum, as the first of two kernels whose second begins with the norm of the sum. */
static bool find_summed(const calls_left &c, group *first, group *second) {
  const kp_call *map = &c.calls[0], *seam = map + 1;
  places used;
  *first = {};
  if (!is_map(c, 0) || !is_norm(c, 1, KP_SEAM_FLAT) || !reads(c, 1, 1, 0, 0)) return false;
  if (!find_normed(c, 1, second)) return false;
  first->few.map = kp_few_rows_of(map);
  first->few.end.stream = (const kp_half *)seam->input[0];
  first->few.end.residual = (kp_half *)seam->output[0];
  used.add_input(map, 0), used.add_input(seam, 0);
  if (map->node->inputs > 3) used.add_input(map, 3);
  used.add_output(map, 0), used.add_output(seam, 0);
  return seam->output[0] != NULL && used.are_apart();
}

static bool find_map(const calls_left &c, group *g) {
  places used;
  *g = {};
  if (!is_map(c, 0)) return false;
  used.add_input(&c.calls[0], 0);
  if (c.calls[0].node->inputs > 3) used.add_input(&c.calls[0], 3);
  return add_map(c, 0, used, g);
}

/* ---- running ---- */

static kp_status run(const kp_call *call, group *g, bool early, kp_error *error) {
  g->few.early = early;
  if (g->few.map.rows > KP_FEW_ROWS) return kp_linear_some(call, &g->few, error);
  return kp_linear_few_half(call, &g->few, error);
}

static kp_status run_group(const calls_left &c, bool early, int *done, kp_error *error) {
  group one, two;
  if (is_norm(c, 0, KP_SEAM_NONE) && find_normed(c, 0, &one)) {
    *done = one.done;
    return run(c.calls, &one, early, error);
  }
  if (find_summed(c, &one, &two)) {
    *done = two.done;
    KP_TRY(run(c.calls, &one, early, error));
    return run(c.calls, &two, true, error);
  }
  if (find_map(c, &one)) {
    *done = one.done;
    return run(c.calls, &one, early, error);
  }
  if (!c.is(0, KP_OP_ATTENTION_CACHED) || !kp_cached_one_can(c.calls)) return KP_OK;
  *done = 1;
  return kp_cached_one(c.calls, early, error);
}

extern "C" kp_status kp_cuda_several(const kp_call *calls, int count, int *done, kp_error *error) {
  kp_cuda *cuda = kp_cuda_of(calls);
  /* In the middle of a graph nothing in front writes parameters. */
  const bool early = cuda->next == calls;
  *done = 0;
  if (cuda->half) KP_TRY(run_group({calls, count}, early, done, error));
  cuda->next = calls + (*done > 0 ? *done : 1);
  return KP_OK;
}
