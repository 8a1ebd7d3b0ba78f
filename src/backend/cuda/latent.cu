/* Columns taken apart and put together: latent_keys, split_columns and their gradients.
 *
 * All are copies, so bytes bound them: each output is written once and its source read once.  A thread moves
 * one unit of an output row: 16 bytes where every part of a row starts and ends at such a boundary, else one
 * element.  Outputs' padding is written as zero. */
#include "backend/cuda/kernel.cuh"

enum { THREADS = 128, BLOCKS_A_PROCESSOR = 16 };

static int row_blocks(const kp_call *call, int64_t rows) {
  return kp_blocks(rows, 1, (int64_t)BLOCKS_A_PROCESSOR * kp_cuda_of(call)->processors);
}

static int64_t pitch_of(const kp_tensor *tensor) {
  return tensor == NULL ? 0 : kp_pitch(tensor);
}

/* Whether all of these counts of elements are whole units of 16 bytes. */
static bool whole_packs(const kp_call *call, const int64_t *sizes, int count) {
  const int64_t size = kp_is_half(call) ? 8 : 4;
  for (int i = 0; i < count; i++)
    if (sizes[i] % size != 0) return false;
  return true;
}

/* ---- latent_keys ---- */

/* Sizes of a row's parts and pitches, in units. */
struct latent_rows {
  int64_t rows;
  int heads, plain, rope, value; /* H, p, ρ, Dv */
  int64_t z_pitch, rope_pitch, keys_pitch, values_pitch;
};

template <typename Unit>
static __global__ void latent_keys_kernel(Unit *keys, Unit *values, const Unit *z, const Unit *rope,
                                          latent_rows s) {
  const int key = s.plain + s.rope, own = s.plain + s.value;
  for (int64_t n = blockIdx.x; n < s.rows; n += gridDim.x)
    for (int i = threadIdx.x; i < s.keys_pitch + s.values_pitch; i += blockDim.x) {
      Unit unit = {};
      if (i < s.keys_pitch) {
        const int h = i / key, d = i - h * key;
        if (h < s.heads)
          unit = d < s.plain ? z[n * s.z_pitch + h * own + d] : rope[n * s.rope_pitch + d - s.plain];
        keys[n * s.keys_pitch + i] = unit;
      } else {
        const int column = i - (int)s.keys_pitch, h = column / s.value;
        if (h < s.heads) unit = z[n * s.z_pitch + h * own + s.plain + column - h * s.value];
        values[n * s.values_pitch + column] = unit;
      }
    }
}

/* gkeys and gvalues may be NULL: zero. */
template <typename Unit>
static __global__ void latent_gradient_kernel(Unit *gz, const Unit *gkeys, const Unit *gvalues,
                                              latent_rows s) {
  const int key = s.plain + s.rope, own = s.plain + s.value;
  for (int64_t n = blockIdx.x; n < s.rows; n += gridDim.x)
    for (int i = threadIdx.x; i < s.z_pitch; i += blockDim.x) {
      const int h = i / own, d = i - h * own;
      Unit unit = {};
      if (h < s.heads && d < s.plain && gkeys != NULL) unit = gkeys[n * s.keys_pitch + h * key + d];
      if (h < s.heads && d >= s.plain && gvalues != NULL)
        unit = gvalues[n * s.values_pitch + h * s.value + d - s.plain];
      gz[n * s.z_pitch + i] = unit;
    }
}

/* The rotated channels are shared: their gradient is the sum over the heads.  s is in elements. */
template <typename T> static __global__ void latent_rope_kernel(T *grope, const T *gkeys, latent_rows s) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, n = i / s.rope_pitch;
  const int column = (int)(i - n * s.rope_pitch), key = s.plain + s.rope;
  if (n >= s.rows) return;
  float sum = 0;
  if (column < s.rope)
#pragma unroll 8
    for (int h = 0; h < s.heads; h++)
      sum += kp_to_float(gkeys[n * s.keys_pitch + h * key + s.plain + column]);
  grope[i] = kp_from_float<T>(sum);
}

static latent_rows in_units(latent_rows s, int size) {
  return {s.rows,
          s.heads,
          s.plain / size,
          s.rope / size,
          s.value / size,
          s.z_pitch / size,
          s.rope_pitch / size,
          s.keys_pitch / size,
          s.values_pitch / size};
}

static latent_rows latent_rows_of(const kp_call *call, const kp_tensor *z, const kp_tensor *rope,
                                  const kp_tensor *keys, const kp_tensor *values) {
  const kp_latent_keys_arguments *a = (const kp_latent_keys_arguments *)call->node->arguments;
  return {kp_tensor_rows(z), a->heads,       a->plain_size,  a->rope_size,    a->value_size,
          kp_pitch(z),       pitch_of(rope), pitch_of(keys), pitch_of(values)};
}

static bool latent_packs(const kp_call *call, const latent_rows *s) {
  const int64_t sizes[] = {s->plain,      s->rope,       s->value,       s->z_pitch,
                           s->rope_pitch, s->keys_pitch, s->values_pitch};
  return whole_packs(call, sizes, 7);
}

template <typename Unit> static void latent_keys(const kp_call *call, const latent_rows &s) {
  latent_keys_kernel<<<row_blocks(call, s.rows), THREADS, 0, kp_cuda_of(call)->stream>>>(
      (Unit *)call->output[0], (Unit *)call->output[1], (const Unit *)call->input[0],
      (const Unit *)call->input[1], s);
}

extern "C" kp_status kp_cuda_latent_keys(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const latent_rows s =
      latent_rows_of(call, node->input[0], node->input[1], node->output[0], node->output[1]);
  if (s.rows == 0) return KP_OK;
  if (latent_packs(call, &s))
    latent_keys<uint4>(call, in_units(s, kp_is_half(call) ? 8 : 4));
  else if (kp_is_half(call))
    latent_keys<kp_half>(call, s);
  else
    latent_keys<float>(call, s);
  return kp_launched(call, error);
}

template <typename Unit> static void latent_gradient(const kp_call *call, const latent_rows &s) {
  latent_gradient_kernel<<<row_blocks(call, s.rows), THREADS, 0, kp_cuda_of(call)->stream>>>(
      (Unit *)call->output[0], (const Unit *)call->input[0], (const Unit *)call->input[1], s);
}

template <typename T> static void rope_gradient(const kp_call *call, const latent_rows &s) {
  latent_rope_kernel<<<kp_blocks(s.rows * s.rope_pitch, THREADS), THREADS, 0, kp_cuda_of(call)->stream>>>(
      (T *)call->output[1], (const T *)call->input[0], s);
}

extern "C" kp_status kp_cuda_latent_keys_backward(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const latent_rows s =
      latent_rows_of(call, node->output[0], node->output[1], node->input[0], node->input[1]);
  if (s.rows == 0) return KP_OK;
  if (latent_packs(call, &s))
    latent_gradient<uint4>(call, in_units(s, kp_is_half(call) ? 8 : 4));
  else if (kp_is_half(call))
    latent_gradient<kp_half>(call, s);
  else
    latent_gradient<float>(call, s);
  if (call->output[1] != NULL && call->input[0] != NULL) {
    if (kp_is_half(call))
      rope_gradient<kp_half>(call, s);
    else
      rope_gradient<float>(call, s);
  }
  return kp_launched(call, error);
}

/* ---- split_columns ---- */

/* In units; `left` columns of the whole row go left. */
struct split_rows {
  int64_t rows;
  int left, columns;
  int64_t pitch, left_pitch, right_pitch;
};

template <typename Unit>
static __global__ void split_kernel(Unit *left, Unit *right, const Unit *x, split_rows s) {
  for (int64_t n = blockIdx.x; n < s.rows; n += gridDim.x)
    for (int i = threadIdx.x; i < s.left_pitch + s.right_pitch; i += blockDim.x) {
      Unit unit = {};
      if (i < s.left_pitch) {
        if (i < s.left) unit = x[n * s.pitch + i];
        left[n * s.left_pitch + i] = unit;
      } else {
        const int column = i - (int)s.left_pitch;
        if (column < s.columns - s.left) unit = x[n * s.pitch + s.left + column];
        right[n * s.right_pitch + column] = unit;
      }
    }
}

/* left and right may be NULL: zero. */
template <typename Unit>
static __global__ void join_kernel(Unit *x, const Unit *left, const Unit *right, split_rows s) {
  for (int64_t n = blockIdx.x; n < s.rows; n += gridDim.x)
    for (int i = threadIdx.x; i < s.pitch; i += blockDim.x) {
      Unit unit = {};
      if (i < s.left && left != NULL) unit = left[n * s.left_pitch + i];
      if (i >= s.left && i < s.columns && right != NULL) unit = right[n * s.right_pitch + i - s.left];
      x[n * s.pitch + i] = unit;
    }
}

static split_rows split_rows_of(const kp_call *call, const kp_tensor *x, const kp_tensor *left,
                                const kp_tensor *right) {
  const kp_split_arguments *a = (const kp_split_arguments *)call->node->arguments;
  return {kp_tensor_rows(x), (int)a->left,   (int)kp_tensor_columns(x),
          kp_pitch(x),       pitch_of(left), pitch_of(right)};
}

static bool split_packs(const kp_call *call, const split_rows *s) {
  const int64_t sizes[] = {s->left, s->columns, s->pitch, s->left_pitch, s->right_pitch};
  return whole_packs(call, sizes, 5);
}

static split_rows in_units(split_rows s, int size) {
  return {s.rows, s.left / size, s.columns / size, s.pitch / size, s.left_pitch / size, s.right_pitch / size};
}

template <typename Unit> static void split(const kp_call *call, const split_rows &s) {
  split_kernel<<<row_blocks(call, s.rows), THREADS, 0, kp_cuda_of(call)->stream>>>(
      (Unit *)call->output[0], (Unit *)call->output[1], (const Unit *)call->input[0], s);
}

extern "C" kp_status kp_cuda_split_columns(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const split_rows s = split_rows_of(call, node->input[0], node->output[0], node->output[1]);
  if (s.rows == 0) return KP_OK;
  if (split_packs(call, &s))
    split<uint4>(call, in_units(s, kp_is_half(call) ? 8 : 4));
  else if (kp_is_half(call))
    split<kp_half>(call, s);
  else
    split<float>(call, s);
  return kp_launched(call, error);
}

template <typename Unit> static void join(const kp_call *call, const split_rows &s) {
  join_kernel<<<row_blocks(call, s.rows), THREADS, 0, kp_cuda_of(call)->stream>>>(
      (Unit *)call->output[0], (const Unit *)call->input[0], (const Unit *)call->input[1], s);
}

extern "C" kp_status kp_cuda_split_columns_backward(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const split_rows s = split_rows_of(call, node->output[0], node->input[0], node->input[1]);
  if (s.rows == 0) return KP_OK;
  if (split_packs(call, &s))
    join<uint4>(call, in_units(s, kp_is_half(call) ? 8 : 4));
  else if (kp_is_half(call))
    join<kp_half>(call, s);
  else
    join<float>(call, s);
  return kp_launched(call, error);
}
