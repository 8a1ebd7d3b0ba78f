/* The engine of a training step: one model, one graph, its buffers. */
#include <stdlib.h>

#include "core/assert.h"
#include "optim/stepper.h"
#include "train/expert_load.h"
#include "train/trainer.h"

struct kp_engine {
  kp_parameters *parameters;
  kp_network *network; /* of a training step */
  kp_executor *executor;
  kp_network *evaluation;     /* NULL where the forward part of the training graph is as good */
  kp_executor *evaluator;     /* in the arena of the other, where it fits into that */
  const kp_executor *written; /* whose constants and positions are in place; NULL: neither's */
  kp_expert_load load;
  int threads;
  size_t process_bytes; /* resident before the large buffers were made */
};

/* A GPU's memory is all there is: a step that does not fit is refused before anything is made. */
static kp_status refuse_too_large(const kp_engine *engine, const kp_backend *backend, int threads,
                                  kp_error *error) {
  const double mib = 1024.0 * 1024.0;
  if (backend->device == NULL) return KP_OK;
  kp_plan *plan = kp_plan_create(engine->network->graph, backend, kp_thread_count(threads));
  kp_parameters_lay_out(engine->parameters, backend);
  const kp_memory_plan memory = kp_memory_plan_of(engine->parameters, backend, plan->arena_bytes, 0, 0);
  const size_t available = backend->device->free_bytes(backend->device);
  kp_plan_destroy(plan);
  if (memory.total <= available) return KP_OK;
  return kp_fail(error, KP_ERR_MEMORY,
                 "a step needs %.0f MiB on %s (%.0f MiB for parameters, gradients and moments, %.0f MiB for "
                 "activations) and %.0f MiB are free: use a smaller train.batch with a larger "
                 "train.accumulate, train.recompute=true, or --device cuda in bfloat16",
                 (double)memory.total / mib, backend->name,
                 (double)(memory.parameters + memory.gradients + memory.moments) / mib,
                 (double)memory.activations / mib, (double)available / mib);
}

/* For evaluation, without dropout and without gradients. */
static kp_status build_evaluation(kp_engine *engine, const kp_model_options *options, kp_build shape,
                                  kp_executor_options executor, const kp_backend *backend, kp_error *error) {
  shape.mode = KP_BUILD_EVALUATE;
  executor.arena = kp_executor_arena(engine->executor);
  executor.arena_bytes = kp_executor_plan(engine->executor)->arena_bytes;
  KP_TRY(kp_network_create(options, engine->parameters, shape, &engine->evaluation, error));
  return kp_executor_create(engine->evaluation->graph, backend, engine->parameters, executor,
                            &engine->evaluator, error);
}

static kp_status build(kp_engine *engine, const kp_model_options *options, const kp_learned *learned,
                       int64_t batch, uint64_t seed, const kp_backend *backend, int threads,
                       kp_error *error) {
  kp_build shape = {.mode = KP_BUILD_TRAIN,
                    .batch = batch,
                    .length = options->context,
                    .documents = kp_model_reads_documents(options)};
  kp_executor_options executor = {.threads = threads, .seed = seed};
  KP_TRY(kp_learned_apply(learned, options, engine->parameters, error));
  KP_TRY(kp_network_create(options, engine->parameters, shape, &engine->network, error));
  KP_TRY(kp_process_bytes(engine->network, backend, kp_thread_count(threads), &engine->process_bytes, error));
  KP_TRY(refuse_too_large(engine, backend, threads, error));
  KP_TRY(kp_parameters_allocate(engine->parameters, backend, true, error));
  kp_parameters_initialise(engine->parameters, seed);
  kp_parameters_retract(engine->parameters, threads);
  KP_TRY(kp_executor_create(engine->network->graph, backend, engine->parameters, executor, &engine->executor,
                            error));
  KP_TRY(kp_expert_load_init(&engine->load, options, engine->network, backend, error));
  if (!kp_network_evaluates_apart(engine->network, options)) return KP_OK;
  return build_evaluation(engine, options, shape, executor, backend, error);
}

kp_status kp_engine_create_for(const kp_model_options *options, const kp_learned *learned, int64_t batch,
                               uint64_t seed, const kp_backend *backend, int threads, kp_engine **result,
                               kp_error *error) {
  kp_engine *engine = calloc(1, sizeof *engine);
  kp_assert(engine != NULL, "out of memory");
  engine->parameters = kp_parameters_create();
  engine->threads = threads;
  kp_status status = build(engine, options, learned, batch, seed, backend, threads, error);
  *result = engine;
  if (status != KP_OK) {
    kp_engine_destroy(engine);
    *result = NULL;
  }
  return status;
}

kp_status kp_engine_create(const kp_model_options *options, int64_t batch, uint64_t seed,
                           const kp_backend *backend, int threads, kp_engine **engine, kp_error *error) {
  return kp_engine_create_for(options, NULL, batch, seed, backend, threads, engine, error);
}

void kp_engine_destroy(kp_engine *engine) {
  if (engine == NULL) return;
  kp_expert_load_destroy(&engine->load);
  kp_executor_destroy(engine->evaluator);
  kp_executor_destroy(engine->executor);
  kp_network_destroy(engine->network);
  kp_network_destroy(engine->evaluation);
  kp_parameters_destroy(engine->parameters);
  free(engine);
}

kp_parameters *kp_engine_parameters(kp_engine *engine) {
  return engine->parameters;
}

const kp_network *kp_engine_network(const kp_engine *engine) {
  return engine->network;
}

kp_executor *kp_engine_executor(kp_engine *engine) {
  return engine->executor;
}

const kp_network *kp_engine_evaluation_network(const kp_engine *engine) {
  return engine->evaluation != NULL ? engine->evaluation : engine->network;
}

kp_executor *kp_engine_evaluator(kp_engine *engine) {
  return engine->evaluation != NULL ? engine->evaluator : engine->executor;
}

void kp_network_write_batch(const kp_network *network, kp_executor *executor, const kp_batch *batch) {
  kp_executor_write_int32(executor, network->tokens, batch->inputs);
  kp_executor_write_int32(executor, network->targets, batch->targets);
  if (network->documents != NULL) kp_executor_write_int32(executor, network->documents, batch->documents);
  if (batch->positions != NULL) kp_executor_write_int32(executor, network->positions, batch->positions);
}

/* Before a batch: what a run of the other graph may have overwritten. */
static void take_arena(kp_engine *engine, const kp_network *network, kp_executor *executor) {
  if (engine->written == executor) return;
  kp_executor_write_constants(executor);
  kp_network_write_positions(network, executor);
  engine->written = executor;
}

kp_status kp_engine_accumulate(kp_engine *engine, const kp_batch *batch, double scale, uint64_t micro_step,
                               kp_error *error) {
  const kp_network *network = engine->network;
  take_arena(engine, network, engine->executor);
  kp_network_write_batch(network, engine->executor, batch);
  kp_executor_write(engine->executor, network->seed, &scale);
  kp_executor_set_step(engine->executor, micro_step);
  KP_TRY(kp_executor_run(engine->executor, 0, network->graph->node_count, error));
  return kp_expert_load_add(&engine->load, engine->executor, error);
}

const void *kp_engine_loss(const kp_engine *engine) {
  return kp_executor_memory(engine->executor, engine->network->loss);
}

kp_status kp_engine_end_step(kp_engine *engine, bool taken, kp_error *error) {
  return taken ? kp_expert_load_balance(&engine->load, engine->parameters, error)
               : kp_expert_load_forget(&engine->load, error);
}

kp_status kp_engine_evaluate(kp_engine *engine, const kp_batch *batch, double *loss, kp_error *error) {
  const kp_network *network = kp_engine_evaluation_network(engine);
  kp_executor *executor = kp_engine_evaluator(engine);
  take_arena(engine, network, executor);
  kp_network_write_batch(network, executor, batch);
  KP_TRY(kp_executor_run(executor, 0, network->graph->forward_count, error));
  kp_executor_read(executor, network->loss, loss);
  return KP_OK;
}

kp_memory_plan kp_engine_memory(const kp_engine *engine, const kp_optimizer_options *optimizer) {
  size_t arenas = kp_executor_plan(engine->executor)->arena_bytes;
  if (engine->evaluator != NULL &&
      kp_executor_arena(engine->evaluator) != kp_executor_arena(engine->executor))
    arenas += kp_executor_plan(engine->evaluator)->arena_bytes;
  const kp_backend *backend = engine->parameters->backend;
  const size_t scratch = kp_stepper_scratch_bytes(engine->parameters, optimizer, backend, engine->threads);
  return kp_memory_plan_of(engine->parameters, backend, arenas, scratch, engine->process_bytes);
}
