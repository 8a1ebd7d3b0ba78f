/* Generation that runs ahead of the host gives the tokens that the host would choose, also where the context
 * fills up: on the host's own memory, with a stand-in for the device that does what one must do. */
#include <stdlib.h>
#include <string.h>

#include "backend/operators.h"
#include "backend/picking.h"
#include "infer/generate.h"
#include "ops/ops.h"
#include "support/check.h"
#include "support/check_fails.h"
#include "support/small_model.h"

enum { V = 16, CONTEXT = 10, TOKENS = 35, PROMPT = 4, MOST_BATCH = 3 };

static const char shape[] =
    "model: {family: gpt, vocabulary: 16, layers: 2, heads: 2, width: 8, context: 10}\n";

/* The stand-in's sampler, and which of its logits it finds not to be finite: -1 none. */
static kp_token_sampler *stand_in;
static int bad_choice = -1;

static int32_t choose(const kp_picking *p, int64_t b, double left) {
  const double *probabilities;
  kp_error error = {0};
  check_ok(kp_token_sampler_distribution(stand_in, (const double *)p->logits + b * p->pitch, NULL, 0,
                                         &probabilities, &error),
           &error);
  int32_t token = 0;
  for (int32_t i = 0; i < V; i++) {
    if (probabilities[i] == 0) continue;
    token = i;
    left -= probabilities[i];
    if (left < 0) break;
  }
  return token;
}

static kp_status pick(kp_device *device, const kp_picking *p, kp_error *error) {
  (void)device, (void)error;
  for (int64_t b = 0; b < p->batch; b++) {
    const int64_t at = p->count[b]++ * p->batch + b;
    const int32_t token = choose(p, b, p->uniforms[at]);
    p->tokens[b] = token;
    p->positions[b]++;
    p->picked[at] = p->count[b] == bad_choice ? KP_PICK_BAD_LOGIT - token : token;
  }
  (*p->start)++;
  return KP_OK;
}

static kp_status await(kp_device *device, const int32_t *place, kp_error *error) {
  (void)device, (void)error;
  assert_true(*place != KP_PICK_NONE);
  return KP_OK;
}

static const kp_picking_driver driver = {pick, await};

static kp_status generate(kp_decoder *decoder, int64_t batch, int64_t tokens, int32_t *written,
                          kp_error *error) {
  static const int32_t prompt[PROMPT] = {3, 1, 4, 1};
  kp_generation_report report;
  const kp_generation g = {.prompt = prompt,
                           .prompt_length = PROMPT,
                           .tokens = tokens,
                           .stop_token = -1,
                           .sample = 2,
                           .sequences = batch,
                           .written = written};
  KP_TRY(kp_generate(decoder, stand_in, &g, &report, error));
  assert_int_equal(report.tokens, tokens);
  return KP_OK;
}

static kp_decoder *open_decoder(const small_model *m, int64_t batch) {
  kp_error error = {0};
  kp_decoder *decoder;
  const kp_decoder_options options = {.batch = batch, .threads = 1};
  check_ok(kp_decoder_create(&m->options, m->parameters, &options, &decoder, &error), &error);
  return decoder;
}

static void set_up(double temperature, int64_t top_k) {
  const kp_token_sampler_options options = {
      .temperature = temperature, .top_k = top_k, .top_p = 1, .repetition_penalty = 1, .seed = 7};
  kp_error error = {0};
  check_ok(kp_token_sampler_create(&options, V, &stand_in, &error), &error);
}

static void test_tokens_are_those_of_the_host(void **state) {
  (void)state;
  kp_backend device = *kp_backend_ref();
  device.picking = &driver;
  small_model here, there;
  small_model_open(kp_backend_ref(), shape, "", 1, &here);
  small_model_open(&device, shape, "", 1, &there);
  set_up(1.3, 9);
  for (int64_t batch = 1; batch <= MOST_BATCH; batch += 2) {
    kp_decoder *host = open_decoder(&here, batch), *ahead = open_decoder(&there, batch);
    kp_error error = {0};
    assert_false(kp_decoder_chooses(host, kp_token_sampler_options_of(stand_in)));
    assert_true(kp_decoder_chooses(ahead, kp_token_sampler_options_of(stand_in)));
    for (int64_t tokens = 1; tokens <= TOKENS; tokens++) { /* each with the decoders of the last */
      int32_t want[MOST_BATCH * TOKENS], got[MOST_BATCH * TOKENS];
      check_ok(generate(host, batch, tokens, want, &error), &error);
      check_ok(generate(ahead, batch, tokens, got, &error), &error);
      assert_memory_equal(got, want, (size_t)(batch * tokens) * sizeof *got);
    }
    kp_decoder_destroy(ahead);
    kp_decoder_destroy(host);
  }
  kp_token_sampler_destroy(stand_in);
  small_model_close(&here);
  small_model_close(&there);
}

static void test_what_only_the_host_can_choose(void **state) {
  (void)state;
  kp_backend device = *kp_backend_ref();
  device.picking = &driver;
  kp_token_sampler_options o = kp_token_sampler_defaults();
  assert_true(kp_ahead_can(&device, &o, V));
  assert_false(kp_ahead_can(kp_backend_ref(), &o, V));
  assert_false(kp_ahead_can(&device, &o, V + 1));
  o.top_k = 0;
  assert_false(kp_ahead_can(&device, &o, V));
  o.temperature = 0;
  assert_true(kp_ahead_can(&device, &o, V));
  o.repetition_penalty = 1.1;
  assert_false(kp_ahead_can(&device, &o, V));
}

static void test_a_logit_that_is_not_finite(void **state) {
  (void)state;
  kp_backend device = *kp_backend_ref();
  device.picking = &driver;
  small_model m;
  int32_t written[TOKENS];
  kp_error error = {0};
  small_model_open(&device, shape, "", 1, &m);
  set_up(0, 0);
  kp_decoder *decoder = open_decoder(&m, 1);
  bad_choice = 3;
  check_fails(generate(decoder, 1, TOKENS, written, &error), &error, KP_ERR_NUMERIC, "not finite");
  bad_choice = -1;
  error = (kp_error){0};
  check_ok(generate(decoder, 1, TOKENS, written, &error), &error);
  kp_decoder_destroy(decoder);
  kp_token_sampler_destroy(stand_in);
  small_model_close(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_tokens_are_those_of_the_host),
      cmocka_unit_test(test_what_only_the_host_can_choose),
      cmocka_unit_test(test_a_logit_that_is_not_finite),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
