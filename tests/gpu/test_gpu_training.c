/* Training on a GPU: the same bits twice, runs that move between devices, and what is refused. */
#include <math.h>
#include <stdio.h>

#include "gpu/gpu.h"
#include "ops/ops.h"
#include "support/small_run.h"
#include "train/settings.h"
#include "train/trainer.h"

typedef struct watch {
  volatile sig_atomic_t stop;
  int64_t after; /* stop then; 0: do not */
  double loss;   /* the last validation loss */
} watch;

static void look(void *context, const kp_progress *progress) {
  watch *w = context;
  if (w->after > 0 && progress->step >= w->after) w->stop = 1;
  if (progress->evaluated) w->loss = progress->validation_loss;
}

static kp_status train(fixture *files, const kp_backend *backend, const char *family, const char *run,
                       watch *w, kp_error *error) {
  char assignment[64];
  snprintf(assignment, sizeof assignment, "model.family=%s", family);
  const char *const sets[] = {assignment, "train.steps=6", "train.evaluate_every=3"};
  const kp_train_options options = {
      .backend = backend, .threads = 1, .progress = look, .context = w, .stop = &w->stop};
  kp_config *config;
  check_ok(kp_config_load(small_config(files), kp_training_schema(), sets, 3, &config, error), error);
  const kp_status status = kp_train(config, run, &options, error);
  kp_config_destroy(config);
  return status;
}

static kp_status resume(const kp_backend *backend, const char *run, watch *w, kp_error *error) {
  const kp_train_options options = {
      .backend = backend, .threads = 1, .resume = true, .progress = look, .context = w};
  return kp_train(NULL, run, &options, error);
}

static const char *const families[] = {"gpt", "llama", "mixed", "geometric", "ngpt", "helm_d", "helm_mice"};
enum { FAMILIES = sizeof families / sizeof *families };

static void test_same_bits(void **state) {
  fixture *files = *state;
  const kp_backend *backend = gpu_open(KP_CUDA_BFLOAT16);
  for (int f = 0; f < FAMILIES; f++) {
    kp_error error = {0};
    char run[2][KP_PATH_SIZE], file[2][KP_PATH_SIZE + 64];
    for (int i = 0; i < 2; i++) {
      watch w = {0};
      snprintf(run[i], sizeof run[i], "%s-%d", fixture_path(files, families[f]), i);
      check_ok(train(files, backend, families[f], run[i], &w, &error), &error);
      assert_true(isfinite(w.loss));
      snprintf(file[i], sizeof file[i], "%s/checkpoints/step-6/model.safetensors", run[i]);
    }
    small_check_same(file[0], file[1]);
  }
  kp_backend_cuda_close(backend);
}

/* Begun on one backend, stopped after three steps, ended on another. */
static double train_on_two(fixture *files, const kp_backend *first, const kp_backend *second,
                           const char *family, const char *name) {
  kp_error error = {0};
  char run[KP_PATH_SIZE];
  watch w = {.after = 3};
  snprintf(run, sizeof run, "%s-%s", fixture_path(files, family), name);
  assert_int_equal(train(files, first, family, run, &w, &error), KP_ERR_INTERRUPTED);
  check_ok(resume(second, run, &w, &error), &error);
  return w.loss;
}

static void test_devices_alternate(void **state) {
  fixture *files = *state;
  const kp_backend *gpu = gpu_open(KP_CUDA_FLOAT32), *cpu = kp_backend_ref();
  for (int f = 0; f < FAMILIES; f++) {
    kp_error error = {0};
    char run[KP_PATH_SIZE];
    watch alone = {0};
    snprintf(run, sizeof run, "%s-alone", fixture_path(files, families[f]));
    check_ok(train(files, cpu, families[f], run, &alone, &error), &error);
    const double there = train_on_two(files, cpu, gpu, families[f], "there");
    const double back = train_on_two(files, gpu, cpu, families[f], "back");
    if (!(fabs(there - alone.loss) < 1e-3 && fabs(back - alone.loss) < 1e-3))
      fail_msg("%s: a loss of %.6f on the host, %.6f ended on the GPU, %.6f begun there", families[f],
               alone.loss, there, back);
  }
  kp_backend_cuda_close(gpu);
}

static void test_too_large_is_refused(void **state) {
  fixture *files = *state;
  const kp_backend *backend = gpu_open(KP_CUDA_FLOAT32);
  const char *const sets[] = {"train.batch=65536", "model.width=2048", "model.layers=64"};
  const kp_train_options options = {.backend = backend, .threads = 1};
  kp_config *config;
  kp_error error = {0};
  check_ok(kp_config_load(small_config(files), kp_training_schema(), sets, 3, &config, &error), &error);
  assert_int_equal(kp_train(config, fixture_path(files, "large"), &options, &error), KP_ERR_MEMORY);
  check_words(&error, "a step needs");
  check_words(&error, "train.accumulate");
  kp_config_destroy(config);
  kp_backend_cuda_close(backend);
}

static void test_bad_token_is_reported(void **state) {
  (void)state;
  const kp_backend *backend = gpu_open(KP_CUDA_FLOAT32);
  const int64_t shape[] = {5, 4}, rows = 3;
  kp_error error = {0};
  kp_graph *graph = kp_graph_create(kp_operator_table);
  kp_parameters *parameters = kp_parameters_create();
  kp_executor *executor;
  const int table = kp_parameters_add(parameters, "table", 2, shape, (kp_initial){0}, KP_GROUP_TABLE, true);
  kp_tensor *tokens = kp_graph_input(graph, "tokens", KP_TYPE_INT32, 1, &rows);
  kp_embedding(graph, tokens, kp_graph_parameter(graph, "table", table, KP_TYPE_REAL, false, 2, shape), NULL,
               NULL);
  check_ok(kp_parameters_allocate(parameters, backend, false, &error), &error);
  check_ok(kp_executor_create(graph, backend, parameters, (kp_executor_options){0}, &executor, &error),
           &error);
  kp_executor_write_int32(executor, tokens, (int32_t[]){0, 4, 7});
  check_ok(kp_executor_run(executor, 0, graph->node_count, &error), &error);
  assert_int_equal(kp_executor_wait(executor, &error), KP_ERR_INPUT);
  check_words(&error, "token 7 of row 2");
  kp_executor_write_int32(executor, tokens, (int32_t[]){0, 4, 3});
  check_ok(kp_executor_run(executor, 0, graph->node_count, &error), &error);
  check_ok(kp_executor_wait(executor, &error), &error);
  kp_executor_destroy(executor);
  kp_parameters_destroy(parameters);
  kp_graph_destroy(graph);
  kp_backend_cuda_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_same_bits),
      with_fixture(test_devices_alternate),
      with_fixture(test_too_large_is_refused),
      cmocka_unit_test(test_bad_token_is_reported),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
