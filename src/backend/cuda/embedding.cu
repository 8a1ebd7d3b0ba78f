/* Token and position embeddings.
 *
 * Backward the rows are sorted by index, stably, and cut into pieces of equal length.  A piece sums each of
 * its runs of one index in ascending order of rows; runs that lie within a piece go straight to the table,
 * the others meet in `ends`, where the piece in which a run begins sums it up.  So a table's row is always
 * the same sum, and a frequent token's rows are shared by many blocks.  Scratch, all 64-byte aligned:
 *
 *   two of keys (N) int32 | rows (N) int32;  counts (bins, tiles) int32;  totals (bins) int32
 *   ends (pieces, 2, C) float: of each piece what its first and its last run are worth, where they go on */
#include "backend/cuda/chunks.cuh"
#include "backend/cuda/sort.cuh"

/* ---- forward ---- */

enum { EMBEDDING_ROWS = 4 }; /* of a thread */

/* A table, its indices, and what to say of one out of range. */
struct kp_lookup {
  const int32_t *index;
  const void *table;
  int64_t limit, pitch;
  int kind;
};

__device__ static inline int64_t looked_up(const kp_lookup &l, int64_t row, kp_device_step *step, int node,
                                           bool report) {
  const int32_t index = l.index[row];
  if (index >= 0 && index < l.limit) return index;
  if (report) kp_report(step, l.kind, node, row, index, l.limit);
  return 0;
}

/* Bytes: a row of each table a token, and the result; that bounds it. */
template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    embed(kp_lookup token, kp_lookup position, T *out, int64_t rows, int64_t pitch, int64_t chunks,
          kp_device_step *step, int node) {
  const kp_place place = kp_place_of(EMBEDDING_ROWS);
  if (place.chunk >= chunks) return;
  const int64_t column = place.chunk * W;
  const bool report = place.chunk == 0;
  kp_chunk<W> sum[EMBEDDING_ROWS];
#pragma unroll
  for (int i = 0; i < EMBEDDING_ROWS; i++) {
    const int64_t row = place.row + i * place.step;
    if (row >= rows) break;
    sum[i] =
        kp_read<W>((const T *)token.table + looked_up(token, row, step, node, report) * token.pitch + column);
  }
#pragma unroll
  for (int i = 0; i < EMBEDDING_ROWS; i++) {
    const int64_t row = place.row + i * place.step;
    if (row >= rows) break;
    if (position.index != NULL) {
      const int64_t at = looked_up(position, row, step, node, report);
      const kp_chunk<W> other = kp_read<W>((const T *)position.table + at * position.pitch + column);
#pragma unroll
      for (int j = 0; j < W; j++) sum[i].value[j] += other.value[j];
    }
    kp_write<W>(out + row * pitch + column, sum[i]);
  }
}

static kp_lookup lookup_of(const kp_call *call, int index, int kind) {
  if (call->node->inputs <= index || call->input[index] == NULL) return kp_lookup{};
  const kp_tensor *table = call->node->input[index + 1];
  return kp_lookup{(const int32_t *)call->input[index], call->input[index + 1], kp_tensor_rows(table),
                   kp_pitch(table), kind};
}

extern "C" kp_status kp_cuda_embedding(const kp_call *call, kp_error *error) {
  const kp_tensor *out = call->node->output[0];
  const int64_t rows = kp_tensor_rows(out), pitch = kp_pitch(out);
  if (rows == 0) return KP_OK;
  const kp_lookup token = lookup_of(call, 0, KP_FAULT_TOKEN),
                  position = lookup_of(call, 2, KP_FAULT_POSITION);
  const bool wide = kp_output_is_wide(call, 0) && kp_is_wide(token.table, token.pitch) &&
                    kp_is_wide(position.table, position.pitch);
  kp_by_chunk(kp_tensor_is_half(call, out), wide, [&](auto real, auto width) {
    using T = decltype(real);
    constexpr int W = decltype(width)::value;
    const kp_tile tile = kp_tile_of(rows, pitch / W, EMBEDDING_ROWS);
    const kp_cuda *cuda = kp_cuda_of(call);
    embed<T, W><<<tile.grid, tile.block, 0, cuda->stream>>>(
        token, position, (T *)call->output[0], rows, pitch, tile.chunks, cuda->step, call->node->index);
  });
  return kp_launched(call, error);
}

/* ---- backward ---- */

/* A piece is a whole number of groups: rows whose loads are under way together. */
enum { SORT_TILE = 128, SORT_TILES = 1024, DIGIT_BITS = 11, PIECES = 2048, GROUP = 8 };

/* Sizes and places of the scratch memory for N indices and C columns. */
struct kp_embedding_plan {
  int64_t rows, columns; /* N; columns of `ends`, a multiple of a chunk */
  int64_t piece, pieces; /* rows of a piece */
  int tile, tiles;       /* of the sort */
  size_t keys[2], numbers[2], counts, totals, ends, bytes;
};

static size_t take(size_t *bytes, size_t count, size_t size) {
  const size_t at = *bytes;
  *bytes += (count * size + 63) / 64 * 64;
  return at;
}

static kp_embedding_plan plan_of(const kp_tensor *g) {
  kp_embedding_plan p = {};
  p.rows = kp_tensor_rows(g);
  p.columns = (kp_tensor_columns(g) + KP_CHUNK - 1) / KP_CHUNK * KP_CHUNK;
  p.piece = (p.rows + PIECES * GROUP - 1) / (PIECES * GROUP) * GROUP;
  if (p.piece < GROUP) p.piece = GROUP;
  p.pieces = (p.rows + p.piece - 1) / p.piece;
  p.tile = (int)((p.rows + SORT_TILES * 32 - 1) / (SORT_TILES * 32) * 32);
  if (p.tile < SORT_TILE) p.tile = SORT_TILE;
  p.tiles = (int)((p.rows + p.tile - 1) / p.tile);
  const size_t N = (size_t)p.rows;
  for (int i = 0; i < 2; i++) {
    p.keys[i] = take(&p.bytes, N + GROUP, sizeof(int32_t)); /* a group may be read behind the last */
    p.numbers[i] = take(&p.bytes, N + GROUP, sizeof(int32_t));
  }
  p.counts = take(&p.bytes, (size_t)p.tiles << DIGIT_BITS, sizeof(int32_t));
  p.totals = take(&p.bytes, (size_t)1 << DIGIT_BITS, sizeof(int32_t));
  p.ends = take(&p.bytes, 2 * (size_t)p.pieces * (size_t)p.columns, sizeof(float));
  return p;
}

extern "C" size_t kp_cuda_scratch_embedding_backward(const kp_node *node, int threads) {
  (void)threads;
  return plan_of(node->input[1]).bytes;
}

/* Copies the indices; those out of range become 0. */
static __global__ void check_indices(kp_lookup l, int32_t *keys, int64_t rows, kp_device_step *step,
                                     int node) {
  const int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (row < rows) keys[row] = (int32_t)looked_up(l, row, step, node, true);
}

/* Sorts what is in the first keys; returns which of the two has the result.  Nothing is sorted for one row
 * of a table. */
static kp_status sort_indices(const kp_call *call, const kp_embedding_plan *p, int64_t limit, int *result,
                              kp_error *error) {
  int bits = 1;
  while (bits < 31 && ((int64_t)1 << bits) < limit) bits++;
  const int passes = (bits + DIGIT_BITS - 1) / DIGIT_BITS, digit = (bits + passes - 1) / passes;
  char *scratch = (char *)call->scratch;
  for (int pass = 0; pass < passes; pass++) {
    const int from = pass % 2, to = 1 - from;
    kp_sort sort = {};
    sort.count = p->rows;
    sort.tile = p->tile;
    sort.tiles = p->tiles;
    sort.bins = 1 << digit;
    sort.shift = pass * digit;
    sort.mask = (unsigned)sort.bins - 1;
    sort.choices = 1;
    sort.keys = (const int32_t *)(scratch + p->keys[from]);
    sort.rows = pass == 0 ? NULL : (const int32_t *)(scratch + p->numbers[from]);
    sort.counts = (int32_t *)(scratch + p->counts);
    sort.totals = (int32_t *)(scratch + p->totals);
    sort.sorted_keys = (int32_t *)(scratch + p->keys[to]);
    sort.sorted_rows = (int32_t *)(scratch + p->numbers[to]);
    KP_TRY(kp_sort_count(call, &sort, error));
    KP_TRY(kp_sort_finish(call, &sort, error));
  }
  *result = passes % 2;
  return KP_OK;
}

/* What the two kernels of the sums read: sorted indices, the rows they are of, and where sums go. */
struct kp_runs {
  const int32_t *key, *row;
  int64_t rows, piece, pieces;
  int64_t g_pitch, table_pitch, ends_pitch, chunks, columns;
  float *table, *ends;
  bool table_wide;
};

template <int W>
__device__ static inline void add_to_table(const kp_runs &r, int32_t key, int64_t column,
                                           const kp_chunk<W> &sum) {
  float *at = r.table + key * r.table_pitch + column;
  if (W == 1 || r.table_wide) {
    kp_chunk<W> x = kp_read<W>(at);
#pragma unroll
    for (int j = 0; j < W; j++) x.value[j] += sum.value[j];
    kp_write<W>(at, x);
  } else {
#pragma unroll
    for (int j = 0; j < W; j++)
      if (column + j < r.columns) at[j] += sum.value[j];
  }
}

/* GROUP numbers from a place that is aligned to 16 bytes. */
struct kp_indices {
  int4 part[GROUP / 4];
  __device__ int operator[](int i) const {
    const int4 &p = part[i / 4];
    return i % 4 == 0 ? p.x : i % 4 == 1 ? p.y : i % 4 == 2 ? p.z : p.w;
  }
};

__device__ static inline kp_indices indices_at(const int32_t *at) {
  kp_indices indices;
#pragma unroll
  for (int i = 0; i < GROUP / 4; i++) indices.part[i] = ((const int4 *)at)[i];
  return indices;
}

/* Thread (x, y): chunk x of piece y of the block.  Bytes: g once, each touched row of the table read and
 * written.  The rows of a group are under way together, and what the table's rows hold comes to the cache in
 * the meantime. */
template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    sum_runs(const T *g, const __grid_constant__ kp_runs r) {
  const int64_t chunk = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  const int64_t piece = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  if (chunk >= r.chunks || piece >= r.pieces) return;
  const int64_t first = piece * r.piece, last = first + r.piece < r.rows ? first + r.piece : r.rows;
  const int64_t column = chunk * W;
  float *ends = r.ends + 2 * piece * r.ends_pitch + column;
  /* Whether the first run began before this piece. */
  bool open = first > 0 && r.key[first - 1] == r.key[first];
  kp_chunk<W> sum = {};
  for (int64_t i = first; i < last; i += GROUP) {
    const kp_indices row = indices_at(r.row + i), key = indices_at(r.key + i);
    const int next = i + GROUP < r.rows ? r.key[i + GROUP] : -1;
    kp_chunk<W> x[GROUP];
#pragma unroll
    for (int k = 0; k < GROUP; k++) {
      x[k] = kp_chunk<W>{};
      if (i + k < last) x[k] = kp_read<W>(g + row[k] * r.g_pitch + column);
    }
#pragma unroll
    for (int k = 0; k < GROUP; k++)
      if (i + k < last && key[k] != (k + 1 < GROUP ? key[k + 1] : next))
        asm volatile("prefetch.global.L2 [%0];" ::"l"(r.table + key[k] * r.table_pitch + column));
#pragma unroll
    for (int k = 0; k < GROUP; k++) {
      if (i + k >= last) break;
#pragma unroll
      for (int j = 0; j < W; j++) sum.value[j] += x[k].value[j];
      const bool at_end = i + k + 1 == last;
      const bool goes_on = i + k + 1 < r.rows && (k + 1 < GROUP ? key[k + 1] : next) == key[k];
      if (goes_on && !at_end) continue;
      if (open)
        kp_write<W>(ends, sum);
      else if (goes_on)
        kp_write<W>(ends + r.ends_pitch, sum);
      else
        add_to_table<W>(r, key[k], column, sum);
      open = false;
      sum = kp_chunk<W>{};
    }
  }
}

/* The last piece that begins with `key`, as piece `low` does. */
__device__ static inline int64_t last_piece_of(const kp_runs &r, int64_t low, int32_t key) {
  int64_t step = 1;
  for (; low + step < r.pieces && r.key[(low + step) * r.piece] == key; step *= 2) low += step;
  for (; step > 0; step /= 2)
    if (low + step < r.pieces && r.key[(low + step) * r.piece] == key) low += step;
  return low;
}

/* Sums up the run that begins in a piece and goes on behind it. */
template <int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS) sum_ends(const __grid_constant__ kp_runs r) {
  const int64_t chunk = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  const int64_t piece = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  if (chunk >= r.chunks || piece + 1 >= r.pieces) return;
  const int64_t first = piece * r.piece, next = first + r.piece;
  const int32_t key = r.key[next - 1];
  if (r.key[next] != key) return;
  if (first > 0 && r.key[first] == key && r.key[first - 1] == key) return; /* it began before */
  const int64_t column = chunk * W, last = last_piece_of(r, piece + 1, key);
  kp_chunk<W> sum = kp_read<W>(r.ends + (2 * piece + 1) * r.ends_pitch + column);
#pragma unroll 8
  for (int64_t other = piece + 1; other <= last; other++) {
    const kp_chunk<W> x = kp_read<W>(r.ends + 2 * other * r.ends_pitch + column);
#pragma unroll
    for (int j = 0; j < W; j++) sum.value[j] += x.value[j];
  }
  add_to_table<W>(r, key, column, sum);
}

/* table[index[n]] += g[n] for all rows n. */
static kp_status add_rows(const kp_call *call, int index, int output, int kind, kp_error *error) {
  const kp_tensor *g = call->node->input[1], *table = call->node->output[output];
  const kp_embedding_plan p = plan_of(g);
  const kp_cuda *cuda = kp_cuda_of(call);
  char *scratch = (char *)call->scratch;
  const kp_lookup lookup = {(const int32_t *)call->input[index], NULL, kp_tensor_rows(table), 0, kind};
  check_indices<<<kp_blocks(p.rows, 256), 256, 0, cuda->stream>>>(lookup, (int32_t *)(scratch + p.keys[0]),
                                                                  p.rows, cuda->step, call->node->index);
  int result;
  KP_TRY(sort_indices(call, &p, lookup.limit, &result, error));
  kp_runs r = {};
  r.key = (const int32_t *)(scratch + p.keys[result]);
  r.row = (const int32_t *)(scratch + p.numbers[result]);
  r.rows = p.rows, r.piece = p.piece, r.pieces = p.pieces;
  r.g_pitch = kp_pitch(g), r.table_pitch = kp_pitch(table), r.ends_pitch = p.columns;
  r.columns = kp_tensor_columns(g);
  r.table = (float *)call->output[output];
  r.ends = (float *)(scratch + p.ends);
  r.table_wide = kp_output_is_wide(call, output);
  kp_by_chunk(kp_tensor_is_half(call, g), kp_input_is_wide(call, 1), [&](auto real, auto width) {
    using T = decltype(real);
    constexpr int W = decltype(width)::value;
    kp_tile tile = kp_tile_of(p.pieces, (r.columns + W - 1) / W, 1);
    r.chunks = tile.chunks;
    sum_runs<T, W><<<tile.grid, tile.block, 0, cuda->stream>>>((const T *)call->input[1], r);
    sum_ends<W><<<tile.grid, tile.block, 0, cuda->stream>>>(r);
  });
  return kp_launched(call, error);
}

extern "C" kp_status kp_cuda_embedding_backward(const kp_call *call, kp_error *error) {
  if (kp_tensor_rows(call->node->input[1]) == 0) return KP_OK;
  if (call->output[0] != NULL) KP_TRY(add_rows(call, 0, 0, KP_FAULT_TOKEN, error));
  if (call->node->outputs > 1 && call->output[1] != NULL)
    KP_TRY(add_rows(call, 2, 1, KP_FAULT_POSITION, error));
  return KP_OK;
}
