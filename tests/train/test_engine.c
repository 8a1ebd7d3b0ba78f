/* Training and evaluation by two graphs that share their memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "support/check.h"
#include "train/settings.h"
#include "train/trainer.h"

/* So many logits that they are never held whole. */
enum { B = 16, T = 64, V = 17000 };

typedef struct subject {
  kp_model_options options;
  kp_engine *engine;
  kp_batch batch;
  int32_t inputs[B * T], targets[B * T], documents[B * T];
} subject;

static subject *subject_create(const char *settings) {
  char text[512];
  kp_error error = {0};
  kp_config *config;
  subject *s = calloc(1, sizeof *s);
  assert_non_null(s);
  const int size =
      snprintf(text, sizeof text, "model: {vocabulary: %d, layers: 2, heads: 2, width: 8, context: %d, %s}\n",
               V, T, settings);
  check_ok(kp_config_parse(text, (size_t)size, "test", kp_training_schema(), NULL, 0, &config, &error),
           &error);
  check_ok(kp_model_options_read(config, NULL, &s->options, &error), &error);
  check_ok(kp_engine_create(&s->options, B, 3, kp_backend_cpu(), 2, &s->engine, &error), &error);
  kp_config_destroy(config);
  s->batch = (kp_batch){.inputs = s->inputs, .targets = s->targets, .documents = s->documents};
  for (int i = 0; i < B * T; i++) {
    s->inputs[i] = i * 31 % V;
    s->targets[i] = i * 57 % V;
  }
  return s;
}

static void subject_destroy(subject *s) {
  kp_engine_destroy(s->engine);
  kp_model_options_destroy(&s->options);
  free(s);
}

static double evaluate(subject *s) {
  kp_error error = {0};
  double loss;
  check_ok(kp_engine_evaluate(s->engine, &s->batch, &loss, &error), &error);
  return loss;
}

/* Always the same step: with dropout too it has the same loss. */
static double train(subject *s) {
  kp_error error = {0};
  double loss;
  check_ok(kp_engine_accumulate(s->engine, &s->batch, 1, 0, &error), &error);
  kp_executor_read(kp_engine_executor(s->engine), kp_engine_network(s->engine)->loss, &loss);
  return loss;
}

static void check_turns(const char *settings, bool dropout) {
  const kp_optimizer_options optimizer = {0};
  subject *s = subject_create(settings);
  kp_parameters *parameters = kp_engine_parameters(s->engine);
  const size_t bytes = (size_t)parameters->total * sizeof(float);
  float *before = malloc(bytes);
  assert_non_null(before);
  assert_true(kp_engine_network(s->engine)->trains_in_head);
  assert_false(kp_engine_evaluation_network(s->engine)->trains_in_head);
  assert_ptr_equal(kp_executor_arena(kp_engine_evaluator(s->engine)),
                   kp_executor_arena(kp_engine_executor(s->engine)));
  assert_int_equal(kp_engine_memory(s->engine, &optimizer).activations,
                   kp_executor_plan(kp_engine_executor(s->engine))->arena_bytes);

  const double trained = train(s);
  memcpy(before, parameters->gradients, bytes);
  const double evaluated = evaluate(s);
  assert_true(dropout ? trained != evaluated : trained == evaluated);
  for (int i = 0; i < 2; i++) assert_true(evaluate(s) == evaluated);
  assert_memory_equal(before, parameters->gradients, bytes);
  for (int i = 0; i < 2; i++) {
    assert_true(train(s) == trained);
    assert_true(evaluate(s) == evaluated);
  }
  assert_true(memcmp(before, parameters->gradients, bytes) != 0);
  free(before);
  subject_destroy(s);
}

static void test_turns(void **state) {
  (void)state;
  check_turns("family: gpt", false);
  check_turns("family: gpt, dropout: 0.2", true);
  check_turns("family: gpt, positions: rotary, head: untied", false);
  check_turns("family: mixed", false);
  check_turns("family: ngpt", false);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_turns)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
