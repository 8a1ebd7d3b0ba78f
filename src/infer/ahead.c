#include "infer/ahead.h"

#include <stdlib.h>
#include <string.h>

#include "backend/picking.h"
#include "core/assert.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/recorder.h"

enum { PITCH_MULTIPLE = 8 }; /* of rows that a device reads 16 bytes at a time */

struct kp_ahead {
  kp_ahead_pass pass;
  kp_recorder recorder; /* of a pass and a choice */
  kp_picking picking;
  int64_t room;     /* choices that there is room for */
  int32_t *count;   /* (B) in the backend's memory */
  double *uniforms; /* (room, B) in the backend's memory */
  int32_t *picked;  /* (room, B) in page-locked memory */
  int64_t most, submitted, seen;
};

bool kp_ahead_can(const kp_backend *backend, const kp_token_sampler_options *o, int64_t pitch) {
  if (backend->picking == NULL || pitch % PITCH_MULTIPLE != 0 || o->repetition_penalty != 1) return false;
  return o->temperature == 0 || (o->top_k > 0 && o->top_k <= KP_PICK_MOST);
}

kp_status kp_ahead_create(const kp_ahead_pass *pass, kp_ahead **ahead, kp_error *error) {
  kp_ahead *a = calloc(1, sizeof *a);
  void *count;
  *ahead = NULL;
  if (a == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for choices");
  a->pass = *pass;
  const size_t bytes = (size_t)pass->batch * sizeof *a->count;
  const kp_status status = kp_memory_create(pass->backend, bytes, "counts of choices", &count, error);
  if (status != KP_OK) {
    free(a);
    return status;
  }
  a->count = count;
  *ahead = a;
  return KP_OK;
}

/* The device may still write what it has been told to choose. */
static kp_status settle(kp_ahead *a, kp_error *error) {
  const int64_t B = a->pass.batch;
  if (a->submitted == 0) return KP_OK;
  for (int64_t b = 0; b < B; b++)
    KP_TRY(a->pass.backend->picking->await(a->pass.backend->device, &a->picked[(a->submitted - 1) * B + b],
                                           error));
  a->submitted = a->seen = 0;
  return KP_OK;
}

static void clear_room(kp_ahead *a) {
  kp_recorder_clear(&a->recorder, a->pass.backend);
  kp_memory_destroy(a->pass.backend, a->uniforms);
  kp_host_memory_destroy(a->pass.backend, a->picked);
  a->uniforms = NULL;
  a->picked = NULL;
  a->room = 0;
}

void kp_ahead_destroy(kp_ahead *a) {
  if (a == NULL) return;
  settle(a, NULL);
  clear_room(a);
  kp_memory_destroy(a->pass.backend, a->count);
  free(a);
}

static kp_status make_room(kp_ahead *a, int64_t choices, kp_error *error) {
  const size_t numbers = (size_t)(choices * a->pass.batch);
  void *uniforms, *picked;
  if (choices <= a->room) return KP_OK;
  clear_room(a);
  KP_TRY(kp_memory_create(a->pass.backend, numbers * sizeof(double), "random numbers", &uniforms, error));
  a->uniforms = uniforms;
  KP_TRY(kp_host_memory_create(a->pass.backend, numbers * sizeof(int32_t), "tokens", &picked, error));
  a->picked = picked;
  a->room = choices;
  return KP_OK;
}

/* The numbers that the host's sampler would draw. */
static kp_status write_uniforms(const kp_ahead *a, const kp_choices *c, kp_error *error) {
  const int64_t B = a->pass.batch;
  const size_t bytes = (size_t)(c->most * B) * sizeof(double);
  double *uniforms = malloc(bytes);
  if (uniforms == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for random numbers");
  for (int64_t i = 0; i < c->most; i++)
    for (int64_t b = 0; b < B; b++)
      uniforms[i * B + b] = kp_random_uniform(c->options.seed, KP_RANDOM_SAMPLING, (uint32_t)(c->length + i),
                                              c->sample + (uint64_t)b);
  const kp_status status = kp_memory_write(a->pass.backend, a->uniforms, uniforms, bytes, error);
  free(uniforms);
  return status;
}

/* What does not change from choice to choice; a recording of other choices is forgotten. */
static void set_picking(kp_ahead *a, const kp_choices *c) {
  const kp_ahead_pass *pass = &a->pass;
  const kp_picking old = a->picking;
  kp_picking *p = &a->picking;
  memset(p, 0, sizeof *p);
  p->logits = kp_executor_memory(pass->executor, pass->logits);
  p->batch = pass->batch;
  p->vocabulary = c->vocabulary;
  p->pitch = kp_tensor_pitch(pass->logits, pass->backend->row_multiple);
  p->size = kp_type_size(pass->backend, pass->logits->type);
  p->temperature = c->options.temperature;
  p->top_p = c->options.top_p;
  p->min_p = c->options.min_p;
  p->top_k = c->options.top_k;
  p->tokens = pass->tokens;
  p->positions = pass->positions;
  p->start = pass->start;
  p->count = a->count;
  p->uniforms = a->uniforms;
  p->picked = a->picked;
  if (memcmp(&old, p, sizeof old) != 0) kp_recorder_clear(&a->recorder, pass->backend);
}

kp_status kp_ahead_prepare(kp_ahead *a, const kp_choices *c, kp_error *error) {
  const size_t count_bytes = (size_t)a->pass.batch * sizeof *a->count;
  kp_assert(c->most > 0, "%lld choices", (long long)c->most);
  KP_TRY(settle(a, error));
  KP_TRY(make_room(a, c->most, error));
  KP_TRY(write_uniforms(a, c, error));
  KP_TRY(kp_memory_fill(a->pass.backend, a->count, 0, count_bytes, error));
  for (int64_t i = 0; i < c->most * a->pass.batch; i++) a->picked[i] = KP_PICK_NONE;
  set_picking(a, c);
  a->most = c->most;
  return KP_OK;
}

kp_status kp_ahead_first(kp_ahead *a, const void *logits, int64_t position, kp_error *error) {
  const kp_ahead_pass *pass = &a->pass;
  kp_picking first = a->picking;
  const int32_t before = (int32_t)position - 1; /* a choice moves on by one */
  int32_t *positions = malloc((size_t)pass->batch * sizeof *positions);
  if (positions == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for positions");
  for (int64_t b = 0; b < pass->batch; b++) positions[b] = before;
  kp_status status = kp_memory_write(pass->backend, pass->positions, positions,
                                     (size_t)pass->batch * sizeof *positions, error);
  free(positions);
  KP_TRY(status);
  KP_TRY(kp_memory_write(pass->backend, pass->start, &before, sizeof before, error));
  first.logits = logits;
  a->submitted++;
  return pass->backend->picking->pick(pass->backend->device, &first, error);
}

static kp_status run_and_pick(void *context, kp_error *error) {
  const kp_ahead *a = context;
  KP_TRY(kp_executor_submit(a->pass.executor, 0, a->pass.graph->node_count, error));
  return a->pass.backend->picking->pick(a->pass.backend->device, &a->picking, error);
}

kp_status kp_ahead_submit(kp_ahead *a, kp_error *error) {
  kp_assert(kp_ahead_left(a) > 0, "%lld choices", (long long)a->most);
  a->submitted++;
  return kp_recorder_run(&a->recorder, a->pass.backend, run_and_pick, a, error);
}

int64_t kp_ahead_left(const kp_ahead *a) {
  return a->most - a->submitted;
}

int64_t kp_ahead_waiting(const kp_ahead *a) {
  return a->submitted - a->seen;
}

kp_status kp_ahead_read(kp_ahead *a, int32_t *tokens, kp_error *error) {
  const int64_t B = a->pass.batch;
  const int32_t *picked = a->picked + a->seen * B;
  kp_assert(kp_ahead_waiting(a) > 0, "nothing was chosen");
  for (int64_t b = 0; b < B; b++) {
    KP_TRY(a->pass.backend->picking->await(a->pass.backend->device, &picked[b], error));
    tokens[b] = *(const volatile int32_t *)&picked[b];
    if (tokens[b] <= KP_PICK_BAD_LOGIT)
      return kp_fail(error, KP_ERR_NUMERIC,
                     "the logit of token %d is not finite: the model's numbers have left their range; try an "
                     "earlier checkpoint, or backend ref to see whether precision is the cause",
                     KP_PICK_BAD_LOGIT - tokens[b]);
  }
  a->seen++;
  return KP_OK;
}
