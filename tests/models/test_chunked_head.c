/* Models whose logits are never held whole give the loss and the gradients of those that hold them: in
 * training both from one operator, in evaluation the loss alone. */
#include <math.h>
#include <stdlib.h>

#include "backend/cpu/cpu.h"
#include "support/check.h"
#include "support/model_cases.h"

/* HELM-D but for its attention, which has nothing to do with the head. */
#define HYPERBOLOID                                                                                          \
  "model.family=helm_d model.attention.score=dot model.attention.values=mean model.positions=rotary"

static const char *const models[] = {
    "model.family=gpt",
    "model.family=gpt model.head=untied",
    "model.family=helm_mice model.experts.balance_loss=0.1",
    "model.family=mixed",
    "model.family=ngpt",
    HYPERBOLOID,
    HYPERBOLOID " model.head=untied",
    HYPERBOLOID " model.head=lorentz_mlr",
};
enum { MODELS = sizeof models / sizeof *models };

/* A run whose logits may take `bytes`. */
static model_run run_with(const kp_model_options *options, const kp_backend *backend, kp_build_mode mode,
                          int64_t bytes) {
  kp_error error = {0};
  const kp_executor_options how = {.threads = 2, .seed = 5, .poison = true};
  const kp_build build = {.mode = mode, .batch = MODEL_BATCH, .length = MODEL_LENGTH, .logit_bytes = bytes};
  model_run run = {.parameters = kp_parameters_create()};
  check_ok(kp_network_create(options, run.parameters, build, &run.network, &error), &error);
  check_ok(kp_parameters_allocate(run.parameters, backend, true, &error), &error);
  model_fill_parameters(run.parameters);
  check_ok(kp_executor_create(run.network->graph, backend, run.parameters, how, &run.executor, &error),
           &error);
  model_run_write(&run, -1);
  model_run_all(&run);
  return run;
}

static double gradient(const model_run *run, int64_t i) {
  return run->parameters->backend->real_size == sizeof(double)
             ? ((const double *)run->parameters->gradients)[i]
             : (double)((const float *)run->parameters->gradients)[i];
}

static void compare_losses(const char *name, const model_run *chunked, const model_run *whole,
                           double tolerance) {
  double loss, expected;
  kp_executor_read(chunked->executor, chunked->network->loss, &loss);
  kp_executor_read(whole->executor, whole->network->loss, &expected);
  if (!(fabs(loss - expected) <= tolerance * expected)) fail_msg("%s: loss %g, not %g", name, loss, expected);
}

static void compare_gradients(const char *name, const model_run *chunked, const model_run *whole,
                              double tolerance) {
  double largest = 0, worst = 0;
  for (int64_t i = 0; i < whole->parameters->total; i++) {
    largest = fmax(largest, fabs(gradient(whole, i)));
    const double error = fabs(gradient(chunked, i) - gradient(whole, i));
    if (!(error <= worst)) worst = error;
  }
  if (!(worst <= tolerance * largest)) fail_msg("%s: a gradient is off by %g", name, worst / largest);
}

static void check_backend(const kp_backend *backend, double tolerance) {
  for (int m = 0; m < MODELS; m++) {
    kp_model_options options;
    if (!model_options_of(models[m], &options)) fail_msg("%s is refused", models[m]);
    const bool fused = options.head != KP_HEAD_LORENTZ_MLR;
    for (kp_build_mode mode = KP_BUILD_TRAIN; mode <= KP_BUILD_EVALUATE; mode++) {
      model_run chunked = run_with(&options, backend, mode, 1),
                whole = run_with(&options, backend, mode, INT64_MAX);
      assert_int_equal(chunked.network->logits == NULL, fused);
      assert_int_equal(chunked.network->trains_in_head, fused && mode == KP_BUILD_TRAIN);
      assert_non_null(whole.network->logits);
      assert_false(whole.network->trains_in_head);
      compare_losses(models[m], &chunked, &whole, tolerance);
      if (mode == KP_BUILD_TRAIN) compare_gradients(models[m], &chunked, &whole, tolerance);
      model_run_destroy(&chunked);
      model_run_destroy(&whole);
    }
    kp_model_options_destroy(&options);
  }
}

static void test_ref(void **state) {
  (void)state;
  check_backend(kp_backend_ref(), 1e-13);
}

static void test_cpu(void **state) {
  (void)state;
  check_backend(kp_backend_cpu(), 2e-6);
}

/* Whoever asks for the logits gets them. */
static void test_logits_on_request(void **state) {
  (void)state;
  kp_error error = {0};
  kp_model_options options;
  kp_network *network;
  assert_true(model_options_of("model.family=gpt", &options));
  kp_parameters *parameters = kp_parameters_create();
  const kp_build build = {.mode = KP_BUILD_TRAIN,
                          .batch = MODEL_BATCH,
                          .length = MODEL_LENGTH,
                          .keep_logits = true,
                          .logit_bytes = 1};
  check_ok(kp_network_create(&options, parameters, build, &network, &error), &error);
  assert_non_null(network->logits);
  kp_network_destroy(network);
  kp_parameters_destroy(parameters);
  kp_model_options_destroy(&options);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_ref),
      cmocka_unit_test(test_cpu),
      cmocka_unit_test(test_logits_on_request),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
