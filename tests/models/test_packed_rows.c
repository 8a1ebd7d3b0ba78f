/* A row of several documents is those documents alone: for all families and option sets of
 * support/model_cases.c, two documents in one row, beside a row of padding, give the loss and the gradients
 * that they give in a row each. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "data/packed_stream.h"
#include "support/check.h"
#include "support/model_cases.h"

enum { COUNT = MODEL_BATCH * MODEL_LENGTH, FIRST = 3, SECOND = MODEL_LENGTH - FIRST };

typedef struct batch {
  int32_t tokens[COUNT], targets[COUNT], documents[COUNT], positions[COUNT];
} batch;

/* Writes a document of `size` tokens into the row, from slot `at` on; its last token predicts nothing. */
static void put(batch *b, int row, int at, int size, int document) {
  for (int t = 0; t < size; t++) {
    const int i = row * MODEL_LENGTH + at + t;
    b->tokens[i] = model_token(size, t);
    b->targets[i] = t == size - 1 ? KP_IGNORE : model_token(size, t + 1);
    b->documents[i] = document;
  }
}

static batch make_batch(bool packed) {
  batch b;
  for (int i = 0; i < COUNT; i++) {
    b.tokens[i] = 0;
    b.targets[i] = KP_IGNORE;
    b.documents[i] = -1;
  }
  put(&b, 0, 0, FIRST, 0);
  put(&b, packed ? 0 : 1, packed ? FIRST : 0, SECOND, packed ? 1 : 0);
  kp_document_positions(b.documents, MODEL_BATCH, MODEL_LENGTH, b.positions);
  return b;
}

typedef struct outcome {
  double objective, *gradients;
} outcome;

static outcome run_batch(model_run *run, const batch *b) {
  outcome result;
  const size_t bytes = (size_t)run->parameters->total * sizeof *result.gradients;
  kp_executor_write_int32(run->executor, run->network->tokens, b->tokens);
  kp_executor_write_int32(run->executor, run->network->targets, b->targets);
  kp_executor_write_int32(run->executor, run->network->documents, b->documents);
  kp_executor_write_int32(run->executor, run->network->positions, b->positions);
  kp_executor_write(run->executor, run->network->seed, (double[]){1});
  model_run_all(run);
  kp_executor_read(run->executor, run->network->objective, &result.objective);
  result.gradients = malloc(bytes);
  assert_non_null(result.gradients);
  const bool wide = run->parameters->backend->real_size == sizeof(double);
  for (int64_t i = 0; i < run->parameters->total; i++)
    result.gradients[i] = wide ? ((const double *)run->parameters->gradients)[i]
                               : (double)((const float *)run->parameters->gradients)[i];
  return result;
}

static model_run create(const kp_model_options *options, const kp_backend *backend) {
  kp_error error = {0};
  const kp_executor_options how = {.threads = 1, .seed = 5, .poison = true};
  const kp_build build = {
      .mode = KP_BUILD_TRAIN, .batch = MODEL_BATCH, .length = MODEL_LENGTH, .documents = true};
  model_run run = {.parameters = kp_parameters_create()};
  check_ok(kp_network_create(options, run.parameters, build, &run.network, &error), &error);
  check_ok(kp_parameters_allocate(run.parameters, backend, true, &error), &error);
  model_fill_parameters(run.parameters);
  check_ok(kp_executor_create(run.network->graph, backend, run.parameters, how, &run.executor, &error),
           &error);
  return run;
}

static void check_backend(const model_case *c, const kp_backend *backend, double tolerance) {
  kp_model_options options = c->options;
  options.packed = true;
  options.experts.balance_loss = 0; /* is of rows, not of documents */
  model_run run = create(&options, backend);
  const batch packed = make_batch(true), apart = make_batch(false);
  const outcome a = run_batch(&run, &packed), b = run_batch(&run, &apart);
  double largest = 0, worst = 0;
  for (int64_t i = 0; i < run.parameters->total; i++) {
    largest = fmax(largest, fabs(b.gradients[i]));
    worst = fmax(worst, fabs(a.gradients[i] - b.gradients[i]));
  }
  if (!(fabs(a.objective - b.objective) <= tolerance * fabs(b.objective)))
    fail_msg("%s on %s: a loss of %.12g in one row, %.12g apart", c->name, backend->name, a.objective,
             b.objective);
  if (!(largest > 0 && worst <= tolerance * largest))
    fail_msg("%s on %s: gradients differ by %.2e of %.2e", c->name, backend->name, worst, largest);
  free(a.gradients);
  free(b.gradients);
  model_run_destroy(&run);
}

static void test_packed_is_apart(void **state) {
  const model_case *c = *state;
  const bool drops = c->options.dropout > 0; /* other slots are dropped in another row */
  /* The published dynamic curvature is predicted from the last token of the row. */
  const bool leaks = c->options.residual == KP_RESIDUAL_STEREOGRAPHIC &&
                     c->options.variant == KP_VARIANT_UPSTREAM && c->options.curvature.dynamic;
  if (drops || leaks || c->options.task != KP_TASK_LANGUAGE) return;
  check_backend(c, kp_backend_ref(), 1e-11);
  check_backend(c, kp_backend_cpu(), 2e-4);
}

int main(void) {
  return model_cases_run("packed rows", test_packed_is_apart);
}
