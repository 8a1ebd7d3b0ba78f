#include "support/model_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "optim/gradients.h"
#include "support/check.h"

static const char *const base =
    "model: {vocabulary: 11, layers: 2, heads: 2, width: 16, context: 9, window: 3}\n";

enum { MAX_SETTINGS = 16, SETTINGS = 384 };

bool model_options_of(const char *settings, kp_model_options *options) {
  char text[SETTINGS], *words[MAX_SETTINGS], *rest = NULL;
  size_t count = 0;
  kp_config *config = NULL;
  snprintf(text, sizeof text, "%s", settings);
  for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
    assert_true(count < MAX_SETTINGS);
    words[count++] = word;
  }
  kp_error error = {0};
  check_ok(kp_config_parse(base, strlen(base), "base", kp_model_schema(), (const char *const *)words, count,
                           &config, &error),
           &error);
  const kp_status status = kp_model_options_read(config, NULL, options, &error);
  kp_config_destroy(config);
  return status == KP_OK;
}

static void add(model_cases *cases, const char *settings) {
  kp_model_options options;
  if (!model_options_of(settings, &options)) return;
  if (cases->count == cases->capacity) {
    cases->capacity = cases->capacity == 0 ? 256 : 2 * cases->capacity;
    cases->list = realloc(cases->list, (size_t)cases->capacity * sizeof *cases->list);
    assert_non_null(cases->list);
  }
  model_case *c = &cases->list[cases->count++];
  snprintf(c->name, sizeof c->name, "%s", settings);
  c->options = options;
}

/* Every value of one key for one family. */
static void add_values(model_cases *cases, const kp_family *family, const kp_config_row *row) {
  char settings[SETTINGS];
  if (row->type == KP_CONFIG_BOOLEAN) {
    for (int on = 0; on < 2; on++) {
      snprintf(settings, sizeof settings, "model.family=%s %s=%s", family->name, row->key,
               on ? "true" : "false");
      add(cases, settings);
    }
    return;
  }
  size_t length;
  const char *word;
  for (size_t i = 0; (word = kp_config_choice_word(row, i, &length)) != NULL; i++) {
    snprintf(settings, sizeof settings, "model.family=%s %s=%.*s", family->name, row->key, (int)length, word);
    add(cases, settings);
  }
}

static void add_registered(model_cases *cases) {
  const kp_family *family;
  for (int f = 0; (family = kp_family_at(f)) != NULL; f++)
    for (size_t i = 0; i < kp_schema_size(kp_model_schema()); i++) {
      const kp_config_row *row = kp_schema_row(kp_model_schema(), i);
      if (strcmp(row->key, "model.family") == 0) continue;
      if (row->type == KP_CONFIG_BOOLEAN || row->type == KP_CONFIG_CHOICE) add_values(cases, family, row);
    }
}

static void add_flat(model_cases *cases) {
  static const char *const differences[] = {"false", "true"};
  static const char *const positions[] = {"learned", "rotary"};
  static const char *const rest[] = {"model.bias=true", "model.bias=false model.activation=silu",
                                     "model.dropout=0.3",
                                     "model.layers=1 model.attention.output_projection=false"};
  char settings[SETTINGS];
  for (int d = 0; d < 2; d++)
    for (int p = 0; p < 2; p++)
      for (int r = 0; r < 4; r++) {
        snprintf(settings, sizeof settings,
                 "model.family=gpt model.token_difference=%s model.positions=%s %s", differences[d],
                 positions[p], rest[r]);
        add(cases, settings);
      }
}

/* Wirings × references × signs × switches; modes, maps and the rest turn with the case. */
static void add_mixed(model_cases *cases) {
  static const char *const wirings[] = {"e1", "e2", "e3"};
  static const char *const references[] = {"previous", "origin", "mean", "midpoint"};
  static const char *const values[] = {"[-0.4]", "[0.3]", "[-0.5,0.2]"};
  static const char *const modes[] = {"fixed", "parametric", "tied", "random"};
  static const char *const maps[] = {"tanh", "identity", "negate"};
  static const char *const rest[] = {"", " model.positions=rotary", " model.layers=1", " model.bias=false",
                                     " model.attention.output_projection=false"};
  char settings[SETTINGS];
  int number = 0;
  for (int w = 0; w < 3; w++)
    for (int r = 0; r < 4; r++)
      for (int v = 0; v < 3; v++)
        for (int switches = 0; switches < 8; switches++, number++) {
          snprintf(settings, sizeof settings,
                   "model.family=mixed model.wiring=%s model.reference=%s model.curvature.value=%s "
                   "model.curvature.per_head=%s model.curvature.dynamic=%s model.curvature.embedding=%s "
                   "model.curvature.mode=%s",
                   wirings[w], references[r], values[v], switches & 1 ? "true" : "false",
                   switches & 2 ? "true" : "false", switches & 4 ? "true" : "false",
                   modes[(number + number / 8) % 4]);
          snprintf(settings + strlen(settings), sizeof settings - strlen(settings), " model.curvature.map=%s",
                   maps[number % 3]);
          const size_t used = strlen(settings);
          snprintf(settings + used, sizeof settings - used, "%s", rest[number % 5]);
          add(cases, settings);
        }
  add(cases, "model.family=mixed model.curvature.per_head=true model.curvature.value=[-0.4,0.3,-0.1,0.2]");
  add(cases, "model.family=mixed model.dropout=0.3");
}

static void add_published(model_cases *cases) {
  static const char *const modes[] = {"fixed", "parametric", "tied", "random"};
  char settings[SETTINGS];
  for (int m = 0; m < 4; m++)
    for (int switches = 0; switches < 8; switches++) {
      snprintf(settings, sizeof settings,
               "model.family=mixed model.variant=upstream model.curvature.value=[-0.4] "
               "model.curvature.per_head=%s model.curvature.dynamic=%s model.curvature.embedding=%s "
               "model.curvature.mode=%s",
               switches & 1 ? "true" : "false", switches & 2 ? "true" : "false",
               switches & 4 ? "true" : "false", modes[m]);
      add(cases, settings);
    }
}

/* Streams × scores × feed-forwards; values, heads, positions, embeddings and kinds of keys turn with the
 * case. */
static void add_products(model_cases *cases) {
  static const char *const residuals[] = {"add", "bounded", "stereographic", "lerp", "slerp", "lorentz"};
  static const char *const scores[] = {"dot", "distance", "distance_squared", "lorentz"};
  static const char *const forwards[] = {"mlp", "gated", "lorentz", "moe", "mice"};
  static const char *const heads[] = {"tied", "untied", "scaled", "lorentz", "lorentz_mlr"};
  static const char *const values[] = {"mean", "lorentz", "midpoint"};
  char settings[SETTINGS];
  int number = 0;
  for (int r = 0; r < 6; r++)
    for (int c = 0; c < 4; c++)
      for (int f = 0; f < 5; f++, number++) {
        const bool lorentz = r == 5, sphere = r == 3 || r == 4;
        snprintf(settings, sizeof settings,
                 "model.residual=%s model.attention.score=%s model.feed_forward=%s model.head=%s "
                 "model.attention.values=%s model.attention.curvature.value=[-0.7] model.positions=%s "
                 "model.norm=%s model.embedding=%s model.attention.kind=%s",
                 residuals[r], scores[c], forwards[f],
                 heads[lorentz && number % 2 == 0 ? 1 + number % 4 : number % 5], values[number % 3],
                 sphere || number % 2 == 0 ? "rotary" : "learned",
                 lorentz || number % 3 == 0 ? "rms" : "layer",
                 lorentz && number % 2 == 0 ? "manifold" : "table", number % 6 == 4 ? "latent" : "heads");
        add(cases, settings);
      }
}

/* Sizes and numbers, which no table of choices lists. */
static void add_sizes(model_cases *cases) {
  static const char *const settings[] = {
      "model.family=gpt model.attention.kv_heads=1",
      "model.family=llama model.heads=4 model.attention.kv_heads=2 model.attention.head_size=6",
      "model.family=gpt model.attention.head_size=5",
      "model.family=llama model.hidden=21",
      "model.family=llama model.rotary.original_context=4 model.rotary.factor=3 model.rotary.base=100",
      "model.family=helm_d model.rotary.original_context=4 model.rotary.factor=3",
      "model.family=llama model.rotary.original_context=64 model.rotary.stretching=llama3 "
      "model.rotary.beta_fast=4 model.rotary.base=100",
      "model.family=helm_d model.attention.head_size=4 model.curvature.value=[-0.3]",
      "model.family=helm_d model.attention.curvature.value=[-2,-0.4]",
      "model.family=helm_d model.attention.curvature.mode=parametric model.attention.curvature.map=softplus",
      "model.family=mixed model.curvature.per_head=true model.curvature.groups=4",
      "model.family=mixed model.curvature.per_head=true model.curvature.groups=4 "
      "model.curvature.value=[-0.5,0.3,0,-0.1]",
      "model.family=geometric model.attention.curvature.mode=fixed "
      "model.attention.curvature.value=[-0.8,0.6]",
      "model.family=ngpt model.sphere_scale=0.5 model.sphere_rate=0.2",
      "model.family=deepseek model.latent.query_rank=5 model.latent.rank=7 model.latent.plain=3 "
      "model.latent.rotary=4 model.latent.value=5",
      "model.family=helm_mice model.latent.query_rank=6 model.latent.rank=9 model.latent.rotary=4",
      "model.family=deepseek model.experts.routed=6 model.experts.active=3 model.experts.score=sigmoid "
      "model.experts.route_scale=1.5",
      "model.family=deepseek model.experts.routed=6 model.experts.groups=3 model.experts.limited_groups=2",
      "model.family=deepseek model.experts.active=1 model.experts.shared=0 model.experts.dense_layers=0",
      "model.family=helm_mice model.experts.shared=2 model.experts.active=3 "
      "model.experts.curvature.value=[-3,-1,-0.5,-0.2]",
      "model.family=helm_mice model.experts.shared=0 model.experts.curvature.mode=fixed",
      "model.family=helm_mice model.variant=upstream model.experts.active=3 model.experts.balance_loss=0.1",
  };
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
    kp_model_options options;
    if (!model_options_of(settings[i], &options)) fail_msg("refused: %s", settings[i]);
    kp_model_options_destroy(&options);
    add(cases, settings[i]);
  }
}

model_cases model_cases_create(void) {
  model_cases cases = {0};
  add_registered(&cases);
  add_flat(&cases);
  add_mixed(&cases);
  add_published(&cases);
  add_products(&cases);
  add_sizes(&cases);
  return cases;
}

void model_cases_destroy(model_cases *cases) {
  for (int i = 0; i < cases->count; i++) kp_model_options_destroy(&cases->list[i].options);
  free(cases->list);
}

int model_cases_run(const char *group, void (*function)(void **state)) {
  model_cases cases = model_cases_create();
  struct CMUnitTest *tests = calloc((size_t)cases.count, sizeof *tests);
  if (tests == NULL) return 1;
  for (int i = 0; i < cases.count; i++)
    tests[i] = (struct CMUnitTest){
        .name = cases.list[i].name, .test_func = function, .initial_state = &cases.list[i]};
  const int failures = _cmocka_run_group_tests(group, tests, (size_t)cases.count, NULL, NULL);
  free(tests);
  model_cases_destroy(&cases);
  return failures;
}

/* ---- a model ---- */

/* Matrices of deviation 0.06, vectors with noise; curvatures start where the options say. */
void model_fill_parameters(kp_parameters *parameters) {
  for (int i = 0; i < parameters->count; i++) {
    kp_parameter *p = &parameters->list[i];
    if (p->group <= KP_GROUP_TABLE && p->initial.kind != KP_INITIAL_LIST) {
      const double middle = p->initial.kind == KP_INITIAL_CONSTANT ? p->initial.a : 0;
      p->initial = (kp_initial){.kind = KP_INITIAL_NORMAL, .a = middle, .b = 0.06};
    }
    if (p->group == KP_GROUP_NO_DECAY)
      p->initial = (kp_initial){.kind = KP_INITIAL_NORMAL, .a = p->initial.a, .b = 0.1};
  }
  kp_parameters_initialise(parameters, 12);
}

model_run model_run_create(const kp_model_options *options, const kp_backend *backend, kp_build_mode mode) {
  kp_error error = {0};
  const kp_executor_options how = {.threads = 1, .seed = 5, .poison = true};
  const kp_build build = {.mode = mode, .batch = MODEL_BATCH, .length = MODEL_LENGTH};
  model_run run = {.parameters = kp_parameters_create()};
  check_ok(kp_network_create(options, run.parameters, build, &run.network, &error), &error);
  check_ok(kp_parameters_allocate(run.parameters, backend, true, &error), &error);
  model_fill_parameters(run.parameters);
  check_ok(kp_executor_create(run.network->graph, backend, run.parameters, how, &run.executor, &error),
           &error);
  model_run_write(&run, -1);
  return run;
}

void model_run_destroy(model_run *run) {
  kp_executor_destroy(run->executor);
  kp_network_destroy(run->network);
  kp_parameters_destroy(run->parameters);
}

int32_t model_token(int64_t sequence, int64_t position) {
  return (int32_t)((sequence * 5 + position * position * 3 + position) % MODEL_VOCABULARY);
}

void model_run_write(model_run *run, int64_t changed) {
  enum { COUNT = MODEL_BATCH * MODEL_LENGTH };
  int32_t tokens[COUNT], positions[COUNT], targets[COUNT];
  for (int64_t i = 0; i < COUNT; i++) {
    const int64_t b = i / MODEL_LENGTH, t = i % MODEL_LENGTH;
    tokens[i] = (model_token(b, t) + (t == changed ? 4 : 0)) % MODEL_VOCABULARY;
    positions[i] = (int32_t)t;
    targets[i] = model_token(b, t + 1);
  }
  kp_executor_write_int32(run->executor, run->network->tokens, tokens);
  kp_executor_write_int32(run->executor, run->network->positions, positions);
  if (run->network->targets != NULL) kp_executor_write_int32(run->executor, run->network->targets, targets);
  if (run->network->seed != NULL) kp_executor_write(run->executor, run->network->seed, (double[]){1});
}

void model_run_all(model_run *run) {
  kp_error error = {0};
  kp_gradient_zero(run->parameters, 1);
  check_ok(kp_executor_run(run->executor, 0, run->network->graph->node_count, &error), &error);
  check_ok(kp_executor_wait(run->executor, &error), &error);
}

double *model_run_logits(model_run *run) {
  double *logits = malloc((size_t)kp_tensor_count(run->network->logits) * sizeof *logits);
  assert_non_null(logits);
  model_run_all(run);
  kp_executor_read(run->executor, run->network->logits, logits);
  return logits;
}

static double loss_at(model_run *run, const double *start, const double *direction, double h) {
  kp_error error = {0};
  double loss, *values = run->parameters->values;
  for (int64_t i = 0; i < run->parameters->learned; i++) values[i] = start[i] + h * direction[i];
  check_ok(kp_executor_run(run->executor, 0, run->network->graph->forward_count, &error), &error);
  kp_executor_read(run->executor, run->network->objective, &loss);
  return loss;
}

double model_run_derivative(model_run *run, const double *start, const double *direction, double h) {
  const double near = loss_at(run, start, direction, h) - loss_at(run, start, direction, -h);
  const double far = loss_at(run, start, direction, 2 * h) - loss_at(run, start, direction, -2 * h);
  return (8 * near - far) / (12 * h);
}
