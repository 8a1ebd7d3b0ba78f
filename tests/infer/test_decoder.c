/* Cached decoding against the full forward pass: the same logits after every token, however the tokens are
 * fed, for every family of models. */
#include "infer/decoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/executor.h"
#include "support/check.h"
#include "support/check_fails.h"
#include "support/small_model.h"

enum { V = 11, CONTEXT = 12, BATCH = 2 };

static const char shape[] = "model: {vocabulary: 11, layers: 3, heads: 2, width: 8, context: 12}\n";

/* Weights much larger than usual, so that every token weighs in the logits. */
static void open_model_on(const kp_backend *backend, const char *words, small_model *m) {
  small_model_open(backend, shape, words, 15, m);
}

static void open_model(const char *words, small_model *m) {
  open_model_on(kp_backend_ref(), words, m);
}

/* Token `t` of sequence `b`. */
static int32_t token_at(int64_t b, int64_t t) {
  return (int32_t)((7 * t * t + 3 * t + 5 * b) % V);
}

/* Tokens [first, first + count) of all sequences, (B, count). */
static void fill_tokens(int64_t first, int64_t count, int32_t *tokens) {
  for (int64_t b = 0; b < BATCH; b++)
    for (int64_t t = 0; t < count; t++) tokens[b * count + t] = token_at(b, first + t);
}

/* Logits (B, V) after tokens [first, first + length) by a pass of its own over all of them. */
static void full_forward(const small_model *m, int64_t first, int64_t length, double *logits) {
  kp_error error = {0};
  kp_network *network;
  kp_executor *executor;
  const kp_build build = {.mode = KP_BUILD_LOGITS, .batch = BATCH, .length = length};
  check_ok(kp_network_create(&m->options, m->parameters, build, &network, &error), &error);
  check_ok(kp_executor_create(network->graph, m->parameters->backend, m->parameters,
                              (kp_executor_options){.threads = 1, .poison = true}, &executor, &error),
           &error);
  fill_tokens(first, length, kp_executor_memory(executor, network->tokens));
  int32_t *positions = kp_executor_memory(executor, network->positions);
  for (int64_t i = 0; i < BATCH * length; i++) positions[i] = (int32_t)(i % length);
  check_ok(kp_executor_run(executor, 0, network->graph->node_count, &error), &error);
  double *all = malloc((size_t)(BATCH * length * V) * sizeof *all);
  assert_non_null(all);
  kp_executor_read(executor, network->logits, all);
  for (int64_t b = 0; b < BATCH; b++)
    memcpy(logits + b * V, all + ((b + 1) * length - 1) * V, V * sizeof *logits);
  free(all);
  kp_executor_destroy(executor);
  kp_network_destroy(network);
}

static kp_decoder *open_decoder(const small_model *m, int64_t chunk) {
  kp_error error = {0};
  kp_decoder *decoder;
  const kp_decoder_options options = {.batch = BATCH, .chunk = chunk, .threads = 1};
  check_ok(kp_decoder_create(&m->options, m->parameters, &options, &decoder, &error), &error);
  return decoder;
}

static void feed(kp_decoder *decoder, int64_t first, int64_t count) {
  int32_t tokens[BATCH * 4 * CONTEXT];
  kp_error error = {0};
  fill_tokens(first, count, tokens);
  check_ok(kp_decoder_feed(decoder, tokens, count, &error), &error);
}

/* The decoder has read tokens up to `end`; its context must be the last `length` of them. */
static void check_logits(const small_model *m, const kp_decoder *decoder, int64_t end, int64_t length,
                         const char *what) {
  const double tolerance = m->parameters->backend == kp_backend_ref() ? 1e-11 : 3e-5;
  double expected[BATCH * V];
  assert_int_equal(kp_decoder_position(decoder), length);
  full_forward(m, end - length, length, expected);
  for (int64_t b = 0; b < BATCH; b++)
    for (int64_t v = 0; v < V; v++) {
      const double off = fabs(kp_decoder_logits(decoder, b)[v] - expected[b * V + v]);
      if (!(off < tolerance))
        fail_msg("%s: after token %lld, sequence %lld, token %lld is off by %g (%g)", what, (long long)end,
                 (long long)b, (long long)v, off, expected[b * V + v]);
    }
}

/* A whole context, fed `step` tokens at a time, twice to see that a reset forgets everything. */
static void check_split(const small_model *m, int64_t step, int64_t chunk, const char *what) {
  kp_decoder *decoder = open_decoder(m, chunk);
  for (int round = 0; round < 2; round++) {
    kp_decoder_reset(decoder);
    for (int64_t t = 0; t < CONTEXT; t += step) {
      const int64_t count = CONTEXT - t < step ? CONTEXT - t : step;
      feed(decoder, t, count);
      check_logits(m, decoder, t + count, t + count, what);
    }
  }
  kp_decoder_destroy(decoder);
}

/* Prompts of any length, then tokens one by one, as generation does. */
static void check_prompt_then_tokens(const small_model *m, const char *what) {
  kp_decoder *decoder = open_decoder(m, 4);
  for (int64_t prompt = 1; prompt < CONTEXT; prompt += 3) {
    kp_decoder_reset(decoder);
    feed(decoder, 0, prompt);
    for (int64_t t = prompt; t < CONTEXT; t++) {
      feed(decoder, t, 1);
      check_logits(m, decoder, t + 1, t + 1, what);
    }
  }
  kp_decoder_destroy(decoder);
}

static const char *const models[] = {
    "model.family=gpt",
    "model.family=gpt model.positions=rotary model.bias=false",
    "model.family=gpt model.token_difference=true",
    "model.family=mixed model.wiring=e1",
    "model.family=mixed model.wiring=e2 model.curvature.value=[0.3]",
    ("model.family=mixed model.wiring=e3 model.curvature.per_head=true "
     "model.curvature.value=[-0.5,0.2,-1,0.7,0.1,-0.2]"),
    "model.family=mixed model.reference=origin",
    "model.family=mixed model.reference=mean",
    "model.family=mixed model.reference=midpoint model.window=3",
    "model.family=mixed model.curvature.dynamic=true model.curvature.mode=parametric",
    "model.family=mixed model.curvature.embedding=true model.curvature.mode=tied",
    "model.family=mixed model.variant=upstream model.attention.output_projection=false",
    "model.family=mixed model.variant=upstream model.curvature.embedding=true",
    "model.family=mixed model.variant=upstream model.curvature.dynamic=true",
};
enum { MODEL_COUNT = sizeof models / sizeof *models };

static void test_decoding_is_the_full_forward_pass(void **state) {
  (void)state;
  for (int i = 0; i < MODEL_COUNT; i++) {
    small_model m;
    open_model(models[i], &m);
    check_split(&m, 1, 0, models[i]);
    check_split(&m, 3, 0, models[i]);
    check_split(&m, 5, 2, models[i]);
    check_split(&m, CONTEXT, 0, models[i]);
    check_split(&m, CONTEXT, 5, models[i]);
    check_prompt_then_tokens(&m, models[i]);
    small_model_close(&m);
  }
}

/* The fast kernels: one token, few and many take different paths through them. */
static void test_decoding_on_the_fast_backend(void **state) {
  (void)state;
  for (int i = 0; i < MODEL_COUNT; i++) {
    small_model m;
    open_model_on(kp_backend_cpu(), models[i], &m);
    check_split(&m, 1, 0, models[i]);
    check_split(&m, 5, 2, models[i]);
    check_split(&m, CONTEXT, 0, models[i]);
    check_prompt_then_tokens(&m, models[i]);
    small_model_close(&m);
  }
}

/* What the tests above stand on: logits that depend on the past. */
static void test_the_past_matters(void **state) {
  (void)state;
  double whole[BATCH * V], part[BATCH * V], largest = 0;
  small_model m;
  open_model(models[0], &m);
  full_forward(&m, 0, 6, whole);
  full_forward(&m, 3, 3, part);
  for (int i = 0; i < BATCH * V; i++) largest = fmax(largest, fabs(whole[i] - part[i]));
  assert_true(largest > 1e-2);
  small_model_close(&m);
}

/* Beyond the context the newest half of it is read anew, and the text goes on. */
static void test_a_full_context_goes_on(void **state) {
  (void)state;
  for (int i = 0; i < MODEL_COUNT - 1; i++) {
    small_model m;
    open_model(models[i], &m);
    kp_decoder *decoder = open_decoder(&m, 0);
    int64_t position = 0;
    for (int64_t t = 0; t < 3 * CONTEXT; t++) {
      feed(decoder, t, 1);
      position = position == CONTEXT ? CONTEXT / 2 : position + 1;
      check_logits(&m, decoder, t + 1, position, models[i]);
    }
    feed(decoder, 3 * CONTEXT, 2 * CONTEXT + 1); /* more at once than fits */
    check_logits(&m, decoder, 5 * CONTEXT + 1, CONTEXT / 2, models[i]);
    kp_decoder_destroy(decoder);
    small_model_close(&m);
  }
}

/* Without a cache the newest tokens are read at every step, a full context of them. */
static void test_a_full_context_without_a_cache(void **state) {
  (void)state;
  small_model m;
  open_model(models[MODEL_COUNT - 1], &m);
  assert_non_null(kp_model_uncacheable(&m.options));
  kp_decoder *decoder = open_decoder(&m, 0);
  for (int64_t t = 0; t < 2 * CONTEXT; t++) {
    feed(decoder, t, 1);
    check_logits(&m, decoder, t + 1, t + 1 < CONTEXT ? t + 1 : CONTEXT, models[MODEL_COUNT - 1]);
  }
  feed(decoder, 2 * CONTEXT, 2 * CONTEXT + 1);
  check_logits(&m, decoder, 4 * CONTEXT + 1, CONTEXT, models[MODEL_COUNT - 1]);
  kp_decoder_destroy(decoder);
  small_model_close(&m);
}

static void test_a_context_of_one(void **state) {
  (void)state;
  small_model m;
  open_model("model.context=1", &m);
  kp_decoder *decoder = open_decoder(&m, 0);
  for (int64_t t = 0; t < 3; t++) {
    feed(decoder, t, 1);
    check_logits(&m, decoder, t + 1, 1, "context 1");
  }
  kp_decoder_destroy(decoder);
  small_model_close(&m);
}

static void test_a_token_outside_the_vocabulary(void **state) {
  (void)state;
  small_model m;
  kp_error error = {0};
  open_model(models[0], &m);
  kp_decoder *decoder = open_decoder(&m, 0);
  feed(decoder, 0, 3);
  const int32_t tokens[BATCH] = {0, V};
  check_fails(kp_decoder_feed(decoder, tokens, 1, &error), &error, KP_ERR_INPUT, "token 11");
  feed(decoder, 3, 1); /* as if nothing had happened */
  check_logits(&m, decoder, 4, 4, "after an error");
  kp_decoder_destroy(decoder);
  small_model_close(&m);
}

static void test_bytes_of_a_token(void **state) {
  (void)state;
  small_model m;
  open_model("model.family=gpt", &m);
  kp_decoder *decoder = open_decoder(&m, 0);
  /* All but the two lookup tables, the token table once for the head, and two rows looked up a sequence. */
  const int64_t read = kp_parameters_elements(m.parameters) - CONTEXT * 8 + 2 * BATCH * 8;
  assert_int_equal((int64_t)kp_decoder_parameter_bytes(decoder), read * 8);
  feed(decoder, 0, 5);
  /* keys and values, layers, tokens, width, bytes of a double */
  assert_int_equal((int64_t)kp_decoder_cache_bytes(decoder), BATCH * 2 * 3 * 5 * 8 * 8);
  kp_decoder_destroy(decoder);
  small_model_close(&m);
}

/* Of latent attention the latent and the shared key alone are kept. */
static void test_bytes_of_a_latent(void **state) {
  (void)state;
  static const char *const families[] = {"deepseek", "helm_mice"};
  for (int f = 0; f < 2; f++) {
    char words[128];
    small_model m;
    snprintf(words, sizeof words, "model.family=%s model.latent.rank=7 model.latent.rotary=4", families[f]);
    open_model(words, &m);
    kp_decoder *decoder = open_decoder(&m, 0);
    assert_int_equal((int64_t)kp_decoder_token_bytes(decoder), m.options.layers * (7 + 4) * 8);
    feed(decoder, 0, 5);
    assert_int_equal((int64_t)kp_decoder_cache_bytes(decoder), BATCH * 5 * m.options.layers * (7 + 4) * 8);
    kp_decoder_destroy(decoder);
    small_model_close(&m);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_decoding_is_the_full_forward_pass),
      cmocka_unit_test(test_decoding_on_the_fast_backend),
      cmocka_unit_test(test_the_past_matters),
      cmocka_unit_test(test_a_full_context_goes_on),
      cmocka_unit_test(test_a_full_context_without_a_cache),
      cmocka_unit_test(test_a_context_of_one),
      cmocka_unit_test(test_a_token_outside_the_vocabulary),
      cmocka_unit_test(test_bytes_of_a_token),
      cmocka_unit_test(test_bytes_of_a_latent),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
