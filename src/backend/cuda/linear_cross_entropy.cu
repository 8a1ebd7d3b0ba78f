/* Head and loss in one: of the logits of a batch only those of a chunk of rows exist, in scratch memory.
 *
 * Forward, a chunk: a matrix product, and one pass over the logits for their logsumexp.
 * Backward, a chunk: the product again; one pass that turns it in place into its own gradient; and the
 * products of that with the matrix and with x.  6NVC operations bound it.
 * Trained, a chunk: both, with one product for the two, since a chunk has whole rows; in bfloat16 on Hopper
 * with one pass for the two as well (linear_cross_entropy_cluster.cu), which moves 2 · 2 bytes a logit where
 * the others move 3 · 2.
 *
 * Chunks span the vocabulary, whatever the arguments say, and are as large as LOGIT_BYTES allows: about 10000
 * rows at V = 50304 in bfloat16.  The gradient of the matrix is read and written once a chunk, which wants
 * few of them. */
#include "backend/cuda/linear_cross_entropy.cuh"
#include "backend/cuda/products.h"
#include "backend/trained_head.h"

enum { ROW_UNIT = 128, PART_ALIGNMENT = 64 };
static const int64_t LOGIT_BYTES = (int64_t)1 << 30;

/* What a kernel does with its chunks. */
enum chunk_pass { FORWARD = 1, BACKWARD = 2, TRAINED = FORWARD | BACKWARD };

/* A node's chunks for logits of `size` bytes, and where scratch memory has what. */
struct chunk_plan {
  int64_t rows, vocabulary, pitch; /* of a chunk's logits */
  int64_t groups, strips;          /* of rows and columns, of the pass backward */
  size_t loss, share, logits, by_column, by_row, bytes;
};

static size_t place(size_t *used, size_t bytes) {
  const size_t at = *used;
  *used += (bytes + PART_ALIGNMENT - 1) / PART_ALIGNMENT * PART_ALIGNMENT;
  return at;
}

/* Even chunks of whole tiles of a matrix product. */
static int64_t chunk_rows(const kp_node *node, int64_t pitch, int size) {
  const kp_linear_cross_entropy_arguments *a = (const kp_linear_cross_entropy_arguments *)node->arguments;
  const int64_t rows = kp_tensor_rows(node->input[0]);
  int64_t most = LOGIT_BYTES / (pitch * size) / ROW_UNIT * ROW_UNIT;
  if (most < ROW_UNIT) most = ROW_UNIT;
  if (a->chunk_rows > 0) return a->chunk_rows < rows ? a->chunk_rows : rows;
  if (rows <= most) return rows;
  const int64_t chunks = (rows + most - 1) / most, even = (rows + chunks - 1) / chunks;
  return (even + ROW_UNIT - 1) / ROW_UNIT * ROW_UNIT;
}

/* Forward one number a row; backward the sums of groups of rows for the time weight and the scale, and of
 * strips of columns for the time. */
static chunk_plan plan_of(const kp_node *node, chunk_pass pass, int size) {
  chunk_plan p = {};
  size_t used = 0;
  p.vocabulary = node->input[1]->shape[0];
  p.pitch = (p.vocabulary + KP_CUDA_ROW_MULTIPLE - 1) / KP_CUDA_ROW_MULTIPLE * KP_CUDA_ROW_MULTIPLE;
  p.rows = chunk_rows(node, p.pitch, size);
  p.groups = (p.rows + GROUP_ROWS - 1) / GROUP_ROWS;
  p.strips = (p.pitch * size + STRIP_THREADS * 16 - 1) / (STRIP_THREADS * 16);
  if (pass & FORWARD) p.loss = place(&used, (size_t)kp_tensor_rows(node->input[0]) * sizeof(float));
  if (pass & BACKWARD) p.share = place(&used, sizeof(float));
  p.logits = place(&used, (size_t)(p.rows * p.pitch * size));
  if (pass & BACKWARD && (node->input[3] != NULL || node->input[5] != NULL)) {
    p.by_column = place(&used, (size_t)(2 * p.groups * p.pitch) * sizeof(float));
    const int64_t least = KP_CLUSTER_LOSS_STRIPS, parts = p.strips > least ? p.strips : least;
    p.by_row = place(&used, (size_t)(p.rows * parts) * sizeof(float));
  }
  p.bytes = used;
  return p;
}

static size_t scratch_of(const kp_node *node, chunk_pass pass) {
  const size_t wide = plan_of(node, pass, sizeof(float)).bytes;
  const size_t half = plan_of(node, pass, sizeof(kp_half)).bytes;
  return wide > half ? wide : half;
}

extern "C" size_t kp_cuda_scratch_linear_cross_entropy(const kp_node *node, int threads) {
  (void)threads;
  return scratch_of(node, FORWARD);
}

extern "C" size_t kp_cuda_scratch_linear_cross_entropy_backward(const kp_node *node, int threads) {
  (void)threads;
  return scratch_of(node, BACKWARD);
}

extern "C" size_t kp_cuda_scratch_linear_cross_entropy_trained(const kp_node *node, int threads) {
  (void)threads;
  return scratch_of(node, TRAINED);
}

/* ---- what all passes need ---- */

static int real_size(const kp_call *call) {
  return kp_is_half(call) ? sizeof(kp_half) : sizeof(float);
}

static cudaDataType_t real_type(const kp_call *call) {
  return kp_is_half(call) ? CUDA_R_16BF : CUDA_R_32F;
}

static kp_scaled_head head_of(const kp_call *call) {
  const kp_linear_cross_entropy_arguments *a =
      (const kp_linear_cross_entropy_arguments *)call->node->arguments;
  return {kp_input_numbers(call, 3), kp_input_numbers(call, 4), kp_input_numbers(call, 5),
          a->factor == 0 ? 1.0f : (float)a->factor};
}

static bool is_plain(const kp_scaled_head &head) {
  return head.time.at == NULL && head.scale.at == NULL && head.factor == 1;
}

/* Rows `first` on, of a chunk. */
static kp_loss_rows rows_of(const kp_call *call, const chunk_plan &p, int64_t first) {
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  kp_loss_rows r = {};
  r.rows = rows - first < p.rows ? rows - first : p.rows;
  r.columns = p.vocabulary;
  r.pitch = p.pitch;
  r.first = first;
  r.targets = (const int32_t *)call->input[2];
  r.ignore = ((const kp_linear_cross_entropy_arguments *)call->node->arguments)->ignore;
  r.step = kp_cuda_of(call)->step;
  r.node = call->node->index;
  return r;
}

static char *scratch_at(const kp_call *call, size_t place) {
  return (char *)call->scratch + place;
}

/* Row `first` of input or output `at`, whose tensor is `tensor`. */
static void *row_at(const kp_call *call, const kp_tensor *tensor, void *at, int64_t first) {
  return (char *)at + first * kp_pitch(tensor) * real_size(call);
}

/* Entries of the vocabulary that a product takes at once.  One that is no multiple of 8 makes products
 * several times slower.  In bfloat16 the zeros behind the matrix, or behind its gradient, complete it; where
 * there are none what is left, up to 7 entries, gets products of its own. */
struct entry_range {
  int64_t first, count;
};

static int ranges_of(const kp_call *call, const kp_tensor *matrix, const chunk_plan &p,
                     entry_range ranges[2]) {
  enum { SMALL = 1024 };
  const int64_t vocabulary = kp_is_half(call) && kp_stored_rows(matrix) >= p.pitch ? p.pitch : p.vocabulary;
  const int64_t whole = vocabulary / KP_CUDA_ROW_MULTIPLE * KP_CUDA_ROW_MULTIPLE;
  ranges[0] = {0, vocabulary};
  if (vocabulary < SMALL || whole == vocabulary) return 1;
  ranges[0].count = whole;
  ranges[1] = {whole, vocabulary - whole};
  return 2;
}

/* Column `v` of the chunk's logits. */
static char *logits_at(const kp_call *call, const chunk_plan &p, int64_t v) {
  return scratch_at(call, p.logits) + v * real_size(call);
}

/* The chunk's products x Wᵀ.  The padding of both is zero: products over it are aligned and add nothing. */
static kp_status multiply_chunk(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                                kp_error *error) {
  const kp_tensor *x = call->node->input[0], *weight = call->node->input[1];
  entry_range range[2];
  const int ranges = ranges_of(call, weight, p, range);
  for (int i = 0; i < ranges; i++) {
    kp_product product = {};
    product.m = r.rows, product.n = range[i].count;
    product.k = kp_pitch(x) == kp_pitch(weight) ? kp_pitch(x) : kp_tensor_columns(x);
    product.a = row_at(call, x, call->input[0], r.first), product.lda = kp_pitch(x);
    product.b = row_at(call, weight, call->input[1], range[i].first), product.ldb = kp_pitch(weight);
    product.b_transposed = true;
    product.c = logits_at(call, p, range[i].first), product.ldc = p.pitch;
    product.type = product.result = real_type(call);
    product.alpha = 1;
    KP_TRY(kp_multiply(kp_cuda_of(call), &product, error));
  }
  return KP_OK;
}

/* ---- forward ---- */

template <typename T>
static void losses_of_rows(const kp_call *call, const void *logits, const kp_loss_rows &r,
                           const kp_scaled_head &head) {
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (is_plain(head))
    kp_row_losses<T>(stream, logits, r, kp_plain_head{});
  else
    scaled_loss_kernel<T>
        <<<kp_blocks(r.rows, LOSS_ROWS), LOSS_THREADS, 0, stream>>>((const T *)logits, r, head);
}

/* Losses and logsumexp of a chunk whose products are made. */
static void losses_of_chunk(const kp_call *call, const chunk_plan &p, kp_loss_rows r,
                            const kp_scaled_head &head) {
  r.loss = (float *)scratch_at(call, p.loss);
  r.logsumexp = (float *)call->output[1];
  if (kp_is_half(call))
    losses_of_rows<kp_half>(call, scratch_at(call, p.logits), r, head);
  else
    losses_of_rows<float>(call, scratch_at(call, p.logits), r, head);
}

/* From the losses of all rows. */
static void mean_loss(const kp_call *call, const chunk_plan &p) {
  const kp_loss_rows r = rows_of(call, p, 0);
  kp_mean_loss_kernel<<<1, KP_MEAN_THREADS, 0, kp_cuda_of(call)->stream>>>(
      (float *)call->output[0], (const float *)scratch_at(call, p.loss), r.targets,
      kp_tensor_rows(call->node->input[0]), r.ignore);
}

extern "C" kp_status kp_cuda_linear_cross_entropy(const kp_call *call, kp_error *error) {
  const chunk_plan p = plan_of(call->node, FORWARD, real_size(call));
  const kp_scaled_head head = head_of(call);
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  for (int64_t first = 0; first < rows; first += p.rows) {
    const kp_loss_rows r = rows_of(call, p, first);
    KP_TRY(multiply_chunk(call, p, r, error));
    losses_of_chunk(call, p, r, head);
  }
  mean_loss(call, p);
  return kp_launched(call, error);
}

/* ---- backward ---- */

template <typename T>
static void gradients_of_rows(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                              const kp_scaled_head &head, const gradient_parts &to) {
  const dim3 grid((unsigned)to.strips, (unsigned)to.groups);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  T *products = (T *)scratch_at(call, p.logits);
  if (is_plain(head))
    gradient_kernel<T, false><<<grid, STRIP_THREADS, 0, stream>>>(products, r, head, to);
  else
    gradient_kernel<T, true><<<grid, STRIP_THREADS, 0, stream>>>(products, r, head, to);
}

/* The small gradients: of time, its weight and the scale. */
static void add_small_gradients(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                                const gradient_parts &to) {
  const int blocks = kp_blocks(p.vocabulary, STRIP_THREADS);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (to.by_time == NULL) return;
  if (call->output[1] != NULL)
    sum_strips_kernel<<<kp_blocks(r.rows, STRIP_THREADS / 32), STRIP_THREADS, 0, stream>>>(
        kp_output_numbers(call, 1), to.by_time, r.first, r.rows, to.strips);
  if (call->output[3] != NULL)
    add_groups_kernel<<<blocks, STRIP_THREADS, 0, stream>>>(kp_output_numbers(call, 3), to.by_weight,
                                                            to.groups, p.pitch, p.vocabulary);
  if (call->output[4] != NULL)
    add_groups_kernel<<<blocks, STRIP_THREADS, 0, stream>>>(kp_output_numbers(call, 4), to.by_scale,
                                                            to.groups, p.pitch, p.vocabulary);
}

/* gx = G W for the chunk's rows; the matrix's padding makes that of gx zero. */
static kp_status multiply_to_x(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                               kp_error *error) {
  const kp_tensor *weight = call->node->input[1], *gx = call->node->output[0];
  entry_range range[2];
  const int ranges = call->output[0] == NULL ? 0 : ranges_of(call, weight, p, range);
  for (int i = 0; i < ranges; i++) {
    kp_product product = {};
    product.m = r.rows, product.n = kp_pitch(gx), product.k = range[i].count;
    product.a = logits_at(call, p, range[i].first), product.lda = p.pitch;
    product.b = row_at(call, weight, call->input[1], range[i].first), product.ldb = kp_pitch(weight);
    product.c = row_at(call, gx, call->output[0], r.first), product.ldc = kp_pitch(gx);
    product.type = product.result = real_type(call);
    product.alpha = 1, product.beta = (float)i;
    KP_TRY(kp_multiply(kp_cuda_of(call), &product, error));
  }
  return KP_OK;
}

/* gW += Gᵀ x of the chunk's rows. */
static kp_status multiply_to_weight(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                                    kp_error *error) {
  const kp_tensor *x = call->node->input[0], *g = call->node->output[2];
  const bool half = kp_tensor_is_half(call, g);
  entry_range range[2];
  const int ranges = call->output[2] == NULL ? 0 : ranges_of(call, g, p, range);
  for (int i = 0; i < ranges; i++) {
    kp_product product = {};
    product.m = range[i].count, product.k = r.rows;
    product.n = kp_pitch(x) == kp_pitch(g) ? kp_pitch(g) : kp_tensor_columns(g);
    product.a = logits_at(call, p, range[i].first), product.lda = p.pitch, product.a_transposed = true;
    product.b = row_at(call, x, call->input[0], r.first), product.ldb = kp_pitch(x);
    product.c =
        (char *)call->output[2] + range[i].first * kp_pitch(g) * (half ? sizeof(kp_half) : sizeof(float));
    product.ldc = kp_pitch(g);
    product.type = real_type(call);
    product.result = half ? CUDA_R_16BF : CUDA_R_32F;
    product.alpha = product.beta = 1;
    KP_TRY(kp_multiply(kp_cuda_of(call), &product, error));
  }
  return KP_OK;
}

static gradient_parts parts_of(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r) {
  gradient_parts to = {};
  to.groups = (r.rows + GROUP_ROWS - 1) / GROUP_ROWS;
  to.strips = p.strips;
  to.logsumexp = (const float *)call->input[6];
  to.share = (const float *)scratch_at(call, p.share);
  if (p.by_row == 0) return to;
  to.by_weight = (float *)scratch_at(call, p.by_column);
  to.by_scale = to.by_weight + p.groups * p.pitch;
  to.by_time = (float *)scratch_at(call, p.by_row);
  return to;
}

/* What each row that counts gets of the loss's gradient: known from the targets alone. */
static void find_share(const kp_call *call, const chunk_plan &p) {
  const kp_loss_rows r = rows_of(call, p, 0);
  kp_share_kernel<<<1, KP_MEAN_THREADS, 0, kp_cuda_of(call)->stream>>>(
      (float *)scratch_at(call, p.share), kp_input_numbers(call, 7), r.targets,
      kp_tensor_rows(call->node->input[0]), r.ignore);
}

/* What comes of the gradients of a chunk's products. */
static kp_status pass_on(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                         const gradient_parts &to, kp_error *error) {
  add_small_gradients(call, p, r, to);
  KP_TRY(multiply_to_x(call, p, r, error));
  return multiply_to_weight(call, p, r, error);
}

/* All gradients that come through a chunk whose products are made. */
static kp_status gradients_of_chunk(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                                    const kp_scaled_head &head, kp_error *error) {
  const gradient_parts to = parts_of(call, p, r);
  if (kp_is_half(call))
    gradients_of_rows<kp_half>(call, p, r, head, to);
  else
    gradients_of_rows<float>(call, p, r, head, to);
  return pass_on(call, p, r, to, error);
}

extern "C" kp_status kp_cuda_linear_cross_entropy_backward(const kp_call *call, kp_error *error) {
  const chunk_plan p = plan_of(call->node, BACKWARD, real_size(call));
  const kp_scaled_head head = head_of(call);
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  find_share(call, p);
  for (int64_t first = 0; first < rows; first += p.rows) {
    const kp_loss_rows r = rows_of(call, p, first);
    KP_TRY(multiply_chunk(call, p, r, error));
    KP_TRY(gradients_of_chunk(call, p, r, head, error));
  }
  return kp_launched(call, error);
}

/* ---- both at once ---- */

/* Losses and gradients in one pass over the products. */
static kp_status train_in_one(const kp_call *call, const kp_call *backward, const chunk_plan &p,
                              kp_loss_rows r, const kp_scaled_head &head, kp_error *error) {
  gradient_parts to = parts_of(backward, p, r);
  r.loss = (float *)scratch_at(call, p.loss);
  r.logsumexp = (float *)call->output[1];
  KP_TRY(kp_cluster_loss(call, (kp_half *)scratch_at(call, p.logits), &r, &head, &to, error));
  return pass_on(backward, p, r, to, error);
}

static kp_status train_chunk(const kp_call *call, const kp_call *backward, const chunk_plan &p,
                             const kp_loss_rows &r, const kp_scaled_head &head, kp_error *error) {
  KP_TRY(multiply_chunk(call, p, r, error));
  if (kp_cluster_loss_fits(call, &r, &head)) return train_in_one(call, backward, p, r, head, error);
  losses_of_chunk(call, p, r, head);
  return gradients_of_chunk(backward, p, r, head, error);
}

extern "C" kp_status kp_cuda_linear_cross_entropy_trained(const kp_call *call, kp_error *error) {
  const chunk_plan p = plan_of(call->node, TRAINED, real_size(call));
  const kp_scaled_head head = head_of(call);
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  kp_trained_head backward;
  kp_trained_head_backward(call, &backward);
  find_share(&backward.call, p);
  for (int64_t first = 0; first < rows; first += p.rows)
    KP_TRY(train_chunk(call, &backward.call, p, rows_of(call, p, first), head, error));
  mean_loss(call, p);
  return kp_launched(call, error);
}
