/* What `kappa info` announces is what training then takes. */
#include "support/program.h"
#include "support/small_run.h"

#include <math.h>

#include "backend/cpu/cpu.h"
#include "ops/ops.h"
#include "train/plan_report.h"
#include "train/trainer.h"

static kp_config *configure(fixture *files, const char *const *sets, size_t count) {
  kp_error error = {0};
  kp_config *config;
  check_ok(kp_config_load(small_config(files), kp_training_schema(), sets, count, &config, &error), &error);
  return config;
}

#define COUNT(list) (sizeof(list) / sizeof *(list))

/* The plan is made without the buffers, and is the plan that the engine then has. */
static void check_like_engine(fixture *files, const char *const *sets, size_t count,
                              const kp_backend *backend) {
  kp_error error = {0};
  kp_plan_report *report;
  kp_engine *engine;
  kp_config *config = configure(files, sets, count);
  check_ok(kp_plan_report_create(config, backend, 2, &report, &error), &error);
  assert_null(report->parameters->values);
  check_ok(kp_engine_create(&report->model, report->settings.batch, 1, backend, 2, &engine, &error), &error);
  const kp_memory_plan plan = kp_engine_memory(engine, &report->settings.optimizer),
                       announced = report->memory;
  assert_int_equal(announced.parameters, plan.parameters);
  assert_int_equal(announced.gradients, plan.gradients);
  assert_int_equal(announced.moments, plan.moments);
  assert_int_equal(announced.optimizer, plan.optimizer);
  assert_int_equal(announced.activations, plan.activations);
  assert_int_equal(announced.total, announced.parameters + announced.gradients + announced.moments +
                                        announced.optimizer + announced.activations + announced.process);
  kp_engine_destroy(engine);
  kp_plan_report_destroy(report);
  kp_config_destroy(config);
}

static void test_plan_is_the_engines(void **state) {
  static const char *const mixed[] = {"model.family=mixed", "model.layers=3", "model.curvature.mode=random",
                                      "model.curvature.per_head=true"};
  static const char *const dropout[] = {"model.dropout=0.1", "train.recompute=linears"};
  static const char *const muon[] = {"train.optimizer=muon"};
  check_like_engine(*state, mixed, COUNT(mixed), kp_backend_ref());
  check_like_engine(*state, muon, COUNT(muon), kp_backend_cpu());
  check_like_engine(*state, mixed, COUNT(mixed), kp_backend_cpu());
  check_like_engine(*state, dropout, COUNT(dropout), kp_backend_cpu());
}

/* The tensors that are listed are all that is alive at the peak, aligned each to a cache line. */
static void test_live_tensors(void **state) {
  static const char *const families[] = {"model.family=gpt", "model.family=mixed"};
  static const char *const recompute[] = {"train.recompute=none", "train.recompute=linears"};
  kp_error error = {0};
  for (int i = 0; i < 4; i++) {
    const char *const sets[] = {families[i / 2], recompute[i % 2], "model.layers=3"};
    kp_config *config = configure(*state, sets, COUNT(sets));
    kp_plan_report *report;
    check_ok(kp_plan_report_create(config, kp_backend_cpu(), 2, &report, &error), &error);
    size_t sum = 0;
    for (int t = 0; t < report->live_count; t++) {
      sum += (report->live[t].bytes + 63) / 64 * 64;
      assert_true(t == 0 || report->live[t].bytes <= report->live[t - 1].bytes);
    }
    assert_int_equal(sum, report->live_peak_bytes);
    assert_true(report->live_peak_bytes <= report->memory.activations);
    kp_plan_report_destroy(report);
    kp_config_destroy(config);
  }
}

/* What steps each parameter, where it lives, and the scratch memory of Muon. */
static void test_info_tells_the_optimizer(void **state) {
  static const struct {
    const char *parameter, *optimizer;
  } expected[] = {{"transformer.wte.weight", "adamw"},
                  {"transformer.h.0.attn.c_attn.weight", "muon, norm kept"},
                  {"transformer.h.0.attn.c_attn.bias", "adamw"}};
  static program_result info;
  program_run((const char *const[]){"info", small_config(*state), "--json", "--set",
                                    "optimizer=hyperball_muon", NULL},
              &info);
  program_check_ok(&info);
  json_t *json = json_loads(info.output, 0, NULL), *entry;
  assert_true(json_integer_value(json_object_get(json_object_get(json, "memory"), "optimizer")) > 0);
  const json_t *list = json_object_get(json_object_get(json, "parameters"), "list");
  size_t i, found = 0;
  json_array_foreach(list, i, entry) for (size_t e = 0; e < COUNT(expected); e++) {
    if (strcmp(json_string_value(json_object_get(entry, "name")), expected[e].parameter) != 0) continue;
    assert_string_equal(json_string_value(json_object_get(entry, "optimizer")), expected[e].optimizer);
    assert_string_equal(json_string_value(json_object_get(entry, "manifold")), "flat");
    found++;
  }
  assert_int_equal(found, COUNT(expected));
  json_decref(json);
}

/* One block of width C, context T, batch B: 12 C² of weights and the V C head, 2 operations each, twice more
 * in the backward pass; attention 4 C (T + 1) / 2 a token and 5/2 of that backward. */
static void test_operations(void **state) {
  static const char *const sets[] = {"train.accumulate=3"};
  kp_error error = {0};
  kp_plan_report *report;
  kp_config *config = configure(*state, sets, COUNT(sets));
  check_ok(kp_plan_report_create(config, kp_backend_ref(), 1, &report, &error), &error);
  const double width = 8, length = 8, batch = 4, vocabulary = (double)report->model.vocabulary;
  const double tokens = 3 * batch * length;
  const double products = tokens * 2 * (12 * width * width + vocabulary * width);
  const double attention = tokens * 4 * width * (length + 1) / 2;
  assert_int_equal(report->tokens_per_step, (int64_t)tokens);
  assert_true(fabs(report->forward_flops - (products + attention)) < 1e-6 * products);
  assert_true(fabs(report->backward_flops - (2 * products + 2.5 * attention)) < 1e-6 * products);
  kp_plan_report_destroy(report);
  kp_config_destroy(config);
}

#ifndef KP_SANITIZE
/* Announced against the peak of a real run, which touches the mapped token files as well. */
static void check_announcement(fixture *files, const char *const *sets, size_t count) {
  const char *arguments[32] = {"info", small_config(files), "--json", "--brief"};
  size_t used = 4;
  static program_result info, train;
  for (size_t i = 0; i < count; i++) {
    arguments[used++] = "--set";
    arguments[used++] = sets[i];
  }
  program_run(arguments, &info);
  program_check_ok(&info);
  json_t *json = json_loads(info.output, 0, NULL);
  const json_t *memory = json_object_get(json, "memory");
  const double total = json_number_value(json_object_get(memory, "total"));
  const double data = json_number_value(json_object_get(memory, "data"));
  arguments[0] = "train";
  arguments[2] = "--out";
  arguments[3] = fixture_path(files, "run");
  program_run(arguments, &train);
  program_check_ok(&train);
  const double peak = (double)train.peak_bytes;
  if (total > 1.05 * peak || total + data < 0.95 * peak)
    fail_msg("announced %.1f MiB and %.1f of data; the peak is %.1f MiB", total / 1048576, data / 1048576,
             peak / 1048576);
  /* Announcing allocates none of it. */
  assert_true((double)info.peak_bytes < 0.5 * total);
  json_decref(json);
}

static void test_announced_memory(void **state) {
  static const char *const sets[] = {
      "model.layers=4",           "model.heads=4",       "model.width=256",         "model.context=64",
      "train.batch=96",           "train.steps=2",       "train.warmup=0",          "train.evaluate_every=2",
      "train.checkpoint_every=2", "train.skip_limit=10", "train.evaluate_batches=1"};
  check_announcement(*state, sets, COUNT(sets));
}
#endif

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_plan_is_the_engines), with_fixture(test_live_tensors),
      with_fixture(test_operations),          with_fixture(test_info_tells_the_optimizer),
#ifndef KP_SANITIZE
      with_fixture(test_announced_memory),
#endif
  };
  setenv("OMP_WAIT_POLICY", "passive", 1);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
