/* kappa info: what a configuration will cost, before anything runs. */
#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "cli/command.h"
#include "core/path.h"
#include "train/plan_report.h"

typedef struct arguments {
  const char *config;
  kp_texts sets;
  const kp_backend *backend;
  int threads;
  bool json, brief, measure;
} arguments;

static const struct argp_option options[] = {
    {"set", 's', "KEY=VALUE", 0, "override a key of the configuration; may be repeated", 0},
    {"brief", 'q', 0, 0, "totals only", 0},
    {"measure", 'm', 0, 0, "measure matrix products, and estimate the time of a step", 0},
    {"device", 'b', "NAME", 0, KP_DEVICE_HELP, 0},
    {"backend", 0, 0, OPTION_ALIAS, 0, 0},
    {"threads", 't', "N", 0, "threads (default: all cores)", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 's': kp_texts_add(&a->sets, value); return 0;
  case 'q': a->brief = true; return 0;
  case 'm': a->measure = true; return 0;
  case 'b': a->backend = kp_parse_backend(value, state); return 0;
  case 't': a->threads = kp_parse_threads(value, state); return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->config, value, "configuration", state);
  case ARGP_KEY_NO_ARGS: argp_error(state, "which configuration?"); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {options,
                                 parse,
                                 "CONFIG|RUN",
                                 "Say what training a configuration will cost, before anything runs.\v"
                                 "Example:\n  kappa info configs/mixed.yaml --set train.batch=32 --brief",
                                 0,
                                 0,
                                 0};

enum { LIVE_SHOWN = 8 };
static const char *const group_names[KP_GROUP_COUNT] = {"decay", "table", "no decay", "curvature"};

static const char *const manifold_names[] = {[KP_MANIFOLD_NONE] = "flat",
                                             [KP_MANIFOLD_UNIT_ROWS] = "unit rows",
                                             [KP_MANIFOLD_UNIT_COLUMNS] = "unit columns",
                                             [KP_MANIFOLD_LORENTZ] = "lorentz",
                                             [KP_MANIFOLD_STEREOGRAPHIC] = "stereographic"};

typedef struct estimate {
  double gigaflops, seconds; /* of products; of a step */
} estimate;

static void shape_text(const kp_parameter *p, char text[64]) {
  size_t used = (size_t)snprintf(text, 64, "(");
  for (int i = 0; i < p->dimensions; i++)
    used += (size_t)snprintf(text + used, 64 - used, "%s%lld", i == 0 ? "" : ", ", (long long)p->shape[i]);
  snprintf(text + used, 64 - used, ")");
}

static void initial_text(const kp_initial *initial, char text[64]) {
  switch (initial->kind) {
  case KP_INITIAL_NORMAL: snprintf(text, 64, "normal %.4g, deviation %.4g", initial->a, initial->b); break;
  case KP_INITIAL_UNIFORM: snprintf(text, 64, "uniform %.4g to %.4g", initial->a, initial->b); break;
  case KP_INITIAL_LIST:
    snprintf(text, 64, initial->count > 1 ? "%.4g, ... (%d values)" : "%.4g", initial->values[0],
             initial->count);
    break;
  default: snprintf(text, 64, "%.4g", initial->a); break;
  }
}

static bool has_curvature(const kp_parameter *p) {
  return p->manifold == KP_MANIFOLD_LORENTZ || p->manifold == KP_MANIFOLD_STEREOGRAPHIC;
}

static void manifold_text(const kp_parameter *p, char text[64]) {
  if (has_curvature(p))
    snprintf(text, 64, "%s %.4g", manifold_names[p->manifold], p->curvature);
  else
    snprintf(text, 64, "%s", manifold_names[p->manifold]);
}

static const char *update_text(const kp_plan_report *r, const kp_parameter *p) {
  if (p->frozen) return "frozen";
  return kp_update_text(kp_optimizer_update(&r->settings.optimizer, p));
}

static int64_t group_count(const kp_parameters *p, kp_group group) {
  int64_t count = 0;
  for (int i = 0; i < p->count; i++)
    if (p->list[i].group == group) count += p->list[i].count;
  return count;
}

static int64_t frozen_count(const kp_parameters *p) {
  int64_t count = 0;
  for (int i = 0; i < p->count; i++)
    if (p->list[i].frozen) count += p->list[i].count;
  return count;
}

static void print_parameters(const kp_plan_report *r, bool brief) {
  const kp_parameters *p = r->parameters;
  if (!brief)
    printf("\n%-40s %-16s %12s  %-9s  %-12s  %-15s  %s\n", "parameter", "shape", "count", "group", "manifold",
           "optimizer", "starts as");
  for (int i = 0; i < p->count && !brief; i++) {
    char shape[64], initial[64], manifold[64];
    shape_text(&p->list[i], shape);
    initial_text(&p->list[i].initial, initial);
    manifold_text(&p->list[i], manifold);
    printf("%-40s %-16s %12lld  %-9s  %-12s  %-15s  %s%s\n", p->list[i].name, shape,
           (long long)p->list[i].count, group_names[p->list[i].group], manifold, update_text(r, &p->list[i]),
           initial, p->list[i].used ? "" : "  (no operator reads it)");
  }
  printf("\nparameters     %lld", (long long)kp_parameters_elements(p));
  for (int g = 0; g < KP_GROUP_COUNT; g++)
    if (group_count(p, (kp_group)g) > 0)
      printf("%s %lld %s", g == 0 ? ":" : ",", (long long)group_count(p, (kp_group)g), group_names[g]);
  if (frozen_count(p) > 0) printf("; %lld of them frozen", (long long)frozen_count(p));
  putchar('\n');
}

static void print_bytes(const char *name, size_t bytes, const char *remark) {
  char text[32];
  printf("  %-12s %10s%s\n", name, kp_bytes_text((double)bytes, text), remark);
}

static void print_memory(const kp_plan_report *r, bool brief) {
  const kp_memory_plan *m = &r->memory;
  char text[128], size[32];
  printf("\nmemory of training on backend %s with %d threads\n", r->backend->name, r->threads);
  print_bytes("parameters", m->parameters, "");
  print_bytes("gradients", m->gradients, "");
  print_bytes("moments", m->moments, "");
  if (m->optimizer > 0)
    print_bytes("optimizer", m->optimizer, "  (Muon's products, rows of Riemannian Adam)");
  snprintf(text, sizeof text, "  (at least %s are alive at once)",
           kp_bytes_text((double)r->live_peak_bytes, size));
  print_bytes("activations", m->activations, text);
  print_bytes("process", m->process, "  (program, libraries, threads; measured)");
  snprintf(text, sizeof text, "  and up to %s of mapped token files, which the system can take back",
           kp_bytes_text((double)r->data_bytes, size));
  print_bytes("total", m->total, text);
  if (brief) return;
  printf("\nlargest of the %d tensors alive at the peak, in %s\n", r->live_count, r->peak_scope);
  for (int i = 0; i < r->live_count && i < LIVE_SHOWN; i++) {
    const kp_live_tensor *live = &r->live[i];
    printf("  %10s  %-22s %-18s %s\n", kp_bytes_text((double)live->bytes, size), live->name,
           live->shape[0] ? live->shape : "scratch memory", live->scope);
  }
}

static void print_step(const kp_plan_report *r, const estimate *e) {
  const double steps = (double)r->settings.steps;
  char step[32], run[32];
  printf("\na step         %lld tokens; %.4g GFLOP (%.4g forward, %.4g backward)\n",
         (long long)r->tokens_per_step, (r->forward_flops + r->backward_flops) * 1e-9,
         r->forward_flops * 1e-9, r->backward_flops * 1e-9);
  printf("the run        %lld steps; %.3g tokens", (long long)r->settings.steps,
         steps * (double)r->tokens_per_step);
  if (r->training_tokens > 0)
    printf(", %.3g epochs of the data", steps * (double)r->tokens_per_step / (double)r->training_tokens);
  printf("\n");
  if (e->seconds == 0) return;
  snprintf(step, sizeof step, e->seconds < 1 ? "%.0f ms" : "%.1f s",
           e->seconds < 1 ? e->seconds * 1e3 : e->seconds);
  printf("estimate       at least %s a step, %s for the run: %.0f GF/s measured for this shape\n", step,
         kp_duration_text(e->seconds * steps, run), e->gigaflops);
}

/* How to train the fair twin, for a model that is curved. */
static void print_twin(const kp_config *config, const arguments *a) {
  char twin[512];
  kp_model_twin_words(config, twin, sizeof twin);
  if (*twin == 0) return;
  printf("\nfair twin      %s\n  kappa train %s", twin, a->config);
  for (size_t i = 0; i < a->sets.count; i++) printf(" --set %s", a->sets.list[i]);
  for (char *rest = NULL, *word = strtok_r(twin, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
    printf(" --set %s", word);
  printf(" --out runs/twin\n");
}

static void print_report(const kp_plan_report *r, const kp_config *config, const arguments *a,
                         const estimate *e) {
  const kp_model_options *o = &r->model;
  const kp_family *family = o->family;
  printf("%s: %s\n", family->name, family->help);
  printf("layers %lld, heads %lld, width %lld, context %lld, vocabulary %lld; batch %lld x %lld\n",
         (long long)o->layers, (long long)o->heads, (long long)o->width, (long long)o->context,
         (long long)o->vocabulary, (long long)r->settings.batch, (long long)r->settings.accumulate);
  print_parameters(r, a->brief);
  print_memory(r, a->brief);
  print_step(r, e);
  print_twin(config, a);
}

/* ---- JSON ---- */

static json_t *parameters_json(const kp_plan_report *r, bool brief) {
  const kp_parameters *p = r->parameters;
  json_t *list = json_array(), *groups = json_object();
  for (int i = 0; i < p->count && !brief; i++) {
    json_t *shape = json_array();
    char initial[64];
    for (int d = 0; d < p->list[i].dimensions; d++)
      json_array_append_new(shape, json_integer(p->list[i].shape[d]));
    initial_text(&p->list[i].initial, initial);
    json_t *entry =
        json_pack("{s:s, s:o, s:I, s:s, s:s, s:s, s:s, s:b}", "name", p->list[i].name, "shape", shape,
                  "count", (json_int_t)p->list[i].count, "group", group_names[p->list[i].group], "manifold",
                  manifold_names[p->list[i].manifold], "optimizer", update_text(r, &p->list[i]), "initial",
                  initial, "used", p->list[i].used);
    if (has_curvature(&p->list[i])) json_object_set_new(entry, "curvature", json_real(p->list[i].curvature));
    json_array_append_new(list, entry);
  }
  for (int g = 0; g < KP_GROUP_COUNT; g++)
    json_object_set_new(groups, group_names[g], json_integer(group_count(p, (kp_group)g)));
  return json_pack("{s:I, s:I, s:o, s:o}", "count", (json_int_t)kp_parameters_elements(p), "frozen",
                   (json_int_t)frozen_count(p), "groups", groups, "list", list);
}

static json_t *memory_json(const kp_plan_report *r) {
  const kp_memory_plan *m = &r->memory;
  json_t *live = json_array();
  for (int i = 0; i < r->live_count && i < LIVE_SHOWN; i++)
    json_array_append_new(live, json_pack("{s:s, s:s, s:s, s:I}", "name", r->live[i].name, "scope",
                                          r->live[i].scope, "shape", r->live[i].shape, "bytes",
                                          (json_int_t)r->live[i].bytes));
  return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o}", "parameters",
                   (json_int_t)m->parameters, "gradients", (json_int_t)m->gradients, "moments",
                   (json_int_t)m->moments, "optimizer", (json_int_t)m->optimizer, "activations",
                   (json_int_t)m->activations, "process", (json_int_t)m->process, "total",
                   (json_int_t)m->total, "data", (json_int_t)r->data_bytes, "live_peak",
                   (json_int_t)r->live_peak_bytes, "peak_scope", r->peak_scope, "peak", live);
}

static json_t *report_json(const kp_plan_report *r, const kp_config *config, const arguments *a,
                           const estimate *e) {
  const char *keys[32];
  char twin[512];
  json_t *unused = json_array();
  kp_model_twin_words(config, twin, sizeof twin);
  const size_t count = kp_training_unused_keys(config, keys, 32);
  for (size_t i = 0; i < count; i++) json_array_append_new(unused, json_string(keys[i]));
  json_t *json =
      json_pack("{s:s, s:s?, s:s, s:i, s:o, s:o, s:f, s:f, s:I, s:I, s:I, s:o}", "family",
                r->model.family->name, "twin", *twin == 0 ? NULL : twin, "backend", r->backend->name,
                "threads", r->threads, "parameters", parameters_json(r, a->brief), "memory", memory_json(r),
                "forward_flops", r->forward_flops, "backward_flops", r->backward_flops, "tokens_per_step",
                (json_int_t)r->tokens_per_step, "steps", (json_int_t)r->settings.steps, "training_tokens",
                (json_int_t)r->training_tokens, "unused_keys", unused);
  if (e->seconds > 0)
    json_object_set_new(json, "estimate",
                        json_pack("{s:f, s:f}", "gflops", e->gigaflops, "step_seconds", e->seconds));
  return json;
}

static kp_status report(const arguments *a, kp_error *error) {
  kp_config *config = NULL;
  kp_plan_report *r = NULL;
  estimate e = {0};
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, "", a->config, error));
  if (kp_path_kind_of(path) == KP_PATH_FOLDER) KP_TRY(kp_path_join(path, path, "config.yaml", error));
  KP_TRY(kp_config_load(path, kp_training_schema(), a->sets.list, a->sets.count, &config, error));
  kp_status status = kp_plan_report_create(config, a->backend, a->threads, &r, error);
  if (status == KP_OK && a->measure) status = kp_plan_report_measure(r, &e.gigaflops, &e.seconds, error);
  if (status == KP_OK && a->json) kp_print_json(report_json(r, config, a, &e));
  if (status == KP_OK && !a->json) {
    print_report(r, config, a, &e);
    kp_print_unused_keys(config);
  }
  kp_plan_report_destroy(r);
  kp_config_destroy(config);
  return status;
}

int kp_command_info(int argc, char **argv) {
  arguments a = {.backend = kp_backend_cpu()};
  kp_error error = {0};
  kp_parse(&argp, argc, argv, &a);
  const kp_status status = report(&a, &error);
  kp_texts_clear(&a.sets);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
