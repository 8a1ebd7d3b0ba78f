/* kappa bench: times training steps and operators. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cuda/cuda.h"
#include "backend/cpu/limits.h"
#include "cli/command.h"
#include "study/bench.h"
#include "train/settings.h"

typedef struct arguments {
  const char *what;
  kp_texts configs;
  kp_texts sets;
  kp_bench_options options;
  bool json;
} arguments;

static const struct argp_option options[] = {
    {"against", 'a', "CONFIG", 0, "step: another configuration to time in turn; may be repeated", 0},
    {"steps", 'n', "N", 0, "timed steps of each (default 20)", 0},
    {"warmup", 'w', "N", 0, "untimed steps before (default 3)", 0},
    {"threads", 't', "N", 0, "threads (default: all cores)", 0},
    {"set", 's', "KEY=VALUE", 0, "override a key in every configuration; may be repeated", 0},
    {"device", 'b', "NAME", 0, KP_DEVICE_HELP, 0},
    {"backend", 0, 0, OPTION_ALIAS, 0, 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'a': kp_texts_add(&a->configs, value); return 0;
  case 'n': a->options.steps = (int)kp_parse_integer(value, "--steps", 1, state); return 0;
  case 'w': a->options.warmup = (int)kp_parse_integer(value, "--warmup", 0, state); return 0;
  case 't': a->options.threads = (int)kp_parse_integer(value, "--threads", 1, state); return 0;
  case 's': kp_texts_add(&a->sets, value); return 0;
  case 'b': a->options.backend = kp_parse_backend(value, state); return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG:
    if (state->arg_num == 0)
      a->what = value;
    else if (state->arg_num == 1 &&
             a->configs.count > 0) { /* --against stood in front: the argument comes first */
      kp_texts_add(&a->configs, a->configs.list[0]);
      a->configs.list[0] = value;
    } else if (state->arg_num == 1)
      kp_texts_add(&a->configs, value);
    else
      argp_error(state, "one configuration, and --against for others");
    return 0;
  case ARGP_KEY_END:
    if (a->what == NULL || (strcmp(a->what, "step") != 0 && strcmp(a->what, "ops") != 0))
      argp_error(state, "step or ops?");
    if (state->arg_num < 2) argp_error(state, "which configuration?");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "step CONFIG\nops CONFIG",
    "Time training steps of configurations in turn, or the operators of one beside the machine's limits.\v"
    "A configuration must say model.vocabulary; tokens are random.\n\n"
    "Examples:\n"
    "  kappa bench step bench/configs/mixed_medium.yaml --against bench/configs/gpt_medium.yaml\n"
    "  kappa bench ops bench/configs/mixed_medium.yaml",
    0,
    0,
    0};

static json_t *machine_json(const arguments *a) {
  return json_pack("{s:s, s:s, s:i}", "backend", a->options.backend->name, "instructions", kp_cpu_isa_name(),
                   "threads", kp_thread_count(a->options.threads));
}

/* ---- step ---- */

static json_t *step_json(const char *config, const kp_bench_step *s) {
  return json_pack("{s:s, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I}", "config", config, "step_ms", s->step_ms,
                   "step_ms_best", s->step_ms_best, "tokens_per_s", s->tokens_per_s, "gflops_per_s",
                   s->flops / s->step_ms * 1e-6, "parameters", (json_int_t)s->parameters, "planned_bytes",
                   (json_int_t)s->plan.total, "resident_bytes", (json_int_t)s->resident_bytes, "device_bytes",
                   (json_int_t)s->device_bytes);
}

static void print_steps_json(const arguments *a, const kp_bench_step *results) {
  json_t *json = step_json(a->configs.list[0], &results[0]), *others = json_array();
  for (size_t i = 1; i < a->configs.count; i++) {
    json_t *other = step_json(a->configs.list[i], &results[i]);
    json_object_set_new(other, "ratio", json_real(results[0].step_ms / results[i].step_ms));
    json_array_append_new(others, other);
  }
  if (a->configs.count > 1)
    json_object_set_new(json, "ratio", json_real(results[0].step_ms / results[1].step_ms));
  json_object_set_new(json, "against", others);
  json_object_set_new(json, "peak_resident_bytes", json_integer((json_int_t)kp_peak_resident_bytes()));
  json_object_set_new(json, "machine", machine_json(a));
  json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(json);
}

static void print_steps(const arguments *a, const kp_bench_step *results) {
  printf("%-40s %10s %10s %12s %9s %12s %7s\n", "configuration", "median ms", "best ms", "tokens/s",
         "GFLOP/s", "planned", "ratio");
  for (size_t i = 0; i < a->configs.count; i++) {
    char planned[32];
    const kp_bench_step *s = &results[i];
    printf("%-40s %10.2f %10.2f %12.0f %9.1f %12s", a->configs.list[i], s->step_ms, s->step_ms_best,
           s->tokens_per_s, s->flops / s->step_ms * 1e-6, kp_bytes_text((double)s->plan.total, planned));
    if (i > 0) printf(" %7.3f", results[0].step_ms / s->step_ms);
    putchar('\n');
  }
  char resident[32];
  printf("%d threads, %s; peak resident memory of all together %s\n", kp_thread_count(a->options.threads),
         kp_cpu_isa_name(), kp_bytes_text((double)kp_peak_resident_bytes(), resident));
}

static kp_status bench_steps(const arguments *a, kp_config *const *configs, kp_error *error) {
  kp_bench_step *results = calloc(a->configs.count, sizeof *results);
  if (results == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for results");
  kp_status status = kp_bench_steps(configs, (int)a->configs.count, &a->options, results, error);
  if (status == KP_OK) a->json ? print_steps_json(a, results) : print_steps(a, results);
  free(results);
  return status;
}

/* ---- ops ---- */

typedef struct limits {
  double copy_memory, copy_cache, product; /* 10⁹ bytes and operations a second */
} limits;

static kp_status measure_limits(const kp_backend *backend, int threads, limits *l, kp_error *error) {
  if (backend->device != NULL) {
    KP_TRY(kp_cuda_measure_limits(backend, &l->copy_memory, &l->product, error));
    l->copy_memory *= 1e-9;
    l->copy_cache = l->copy_memory;
    l->product *= 1e-9;
    return KP_OK;
  }
  KP_TRY(kp_limits_copy((size_t)256 << 20, threads, &l->copy_memory, error));
  KP_TRY(kp_limits_copy((size_t)(256 << 10) * (size_t)threads, threads, &l->copy_cache, error));
  return kp_limits_product(4096, 1536, 384, threads, &l->product, error);
}

/* The share of the limit that binds: arithmetic for products, else the copy rate of memory or of the cache.
 */
static double share_of_limit(const kp_bench_operator *o, const limits *l) {
  const bool fits_cache = o->bytes / o->nodes < 2e6;
  const double copy = fits_cache ? l->copy_cache : l->copy_memory;
  const double ideal = o->flops / (l->product * 1e6) > o->bytes / (copy * 1e6) ? o->flops / (l->product * 1e6)
                                                                               : o->bytes / (copy * 1e6);
  return o->ms > 0 ? ideal / o->ms : 0;
}

static void print_operators_json(const arguments *a, const kp_bench_operator *o, int count, const limits *l) {
  json_t *list = json_array();
  for (int i = 0; i < count; i++)
    json_array_append_new(list, json_pack("{s:s, s:i, s:f, s:f, s:f, s:f}", "operator", o[i].name, "nodes",
                                          o[i].nodes, "ms", o[i].ms, "bytes", o[i].bytes, "flops", o[i].flops,
                                          "share_of_limit", share_of_limit(&o[i], l)));
  json_t *json =
      json_pack("{s:s, s:o, s:{s:f, s:f, s:f}, s:o}", "config", a->configs.list[0], "machine",
                machine_json(a), "limits", "copy_memory_gb_per_s", l->copy_memory, "copy_cache_gb_per_s",
                l->copy_cache, "product_gflop_per_s", l->product, "operators", list);
  json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(json);
}

static void print_operators(const kp_bench_operator *o, int count, const limits *l) {
  double total = 0;
  for (int i = 0; i < count; i++) total += o[i].ms;
  printf("limits: copy %.1f GB/s in memory, %.1f GB/s in cache; products %.1f GFLOP/s\n", l->copy_memory,
         l->copy_cache, l->product);
  printf("%-28s %6s %10s %7s %10s %9s %9s %10s\n", "operator", "nodes", "ms", "share", "MB", "GB/s",
         "GFLOP/s", "of limit");
  for (int i = 0; i < count; i++)
    printf("%-28s %6d %10.3f %6.1f%% %10.2f %9.1f %9.1f %9.0f%%\n", o[i].name, o[i].nodes, o[i].ms,
           100 * o[i].ms / total, o[i].bytes * 1e-6, o[i].bytes / o[i].ms * 1e-6, o[i].flops / o[i].ms * 1e-6,
           100 * share_of_limit(&o[i], l));
  printf("%-28s %6s %10.3f\n", "all", "", total);
}

static kp_status bench_operators(const arguments *a, const kp_config *config, kp_error *error) {
  kp_bench_operator results[KP_BENCH_OPERATORS];
  limits l;
  int count;
  KP_TRY(measure_limits(a->options.backend, kp_thread_count(a->options.threads), &l, error));
  KP_TRY(kp_bench_operators(config, &a->options, results, &count, error));
  a->json ? print_operators_json(a, results, count, &l) : print_operators(results, count, &l);
  return KP_OK;
}

int kp_command_bench(int argc, char **argv) {
  arguments a = {.options = {.backend = kp_backend_cpu(), .steps = 20, .warmup = 3}};
  kp_error error = {0};
  kp_parse(&argp, argc, argv, &a);
  kp_config **configs = calloc(a.configs.count, sizeof *configs);
  kp_status status = configs == NULL ? kp_fail(&error, KP_ERR_MEMORY, "no memory") : KP_OK;
  for (size_t i = 0; i < a.configs.count && status == KP_OK; i++)
    status = kp_config_load(a.configs.list[i], kp_training_schema(), a.sets.list, a.sets.count, &configs[i],
                            &error);
  if (status == KP_OK)
    status = strcmp(a.what, "step") == 0 ? bench_steps(&a, configs, &error)
                                         : bench_operators(&a, configs[0], &error);
  for (size_t i = 0; i < a.configs.count; i++) kp_config_destroy(configs[i]);
  free(configs);
  kp_texts_clear(&a.configs);
  kp_texts_clear(&a.sets);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
