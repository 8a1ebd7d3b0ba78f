/* kappa verify: runs other implementations' reference cases. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/cpu.h"
#include "cli/command.h"
#include "core/assert.h"
#include "core/json_text.h"
#include "study/verify.h"

typedef struct arguments {
  kp_texts cases;
  const kp_backend *backend;
  int threads;
  bool json, all;
} arguments;

static const struct argp_option options[] = {
    {"device", 'b', "NAME", 0, KP_DEVICE_HELP, 0},
    {"backend", 0, 0, OPTION_ALIAS, 0, 0},
    {"threads", 't', "N", 0, "threads (default: all cores)", 0},
    {"all", 'a', 0, 0, "print every comparison, not only the worst of each case", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'b': a->backend = kp_parse_backend(value, state); return 0;
  case 't': a->threads = kp_parse_threads(value, state); return 0;
  case 'a': a->all = true; return 0;
  case 'j': a->json = true; return 0;
  case ARGP_KEY_ARG: kp_texts_add(&a->cases, value); return 0;
  case ARGP_KEY_END:
    if (a->cases.count == 0) argp_error(state, "which cases?");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "CASE...",
    "Compare kappa with the numbers of other implementations.\v"
    "A case is a folder with case.json and tensors.safetensors (docs/formats.md).\n"
    "Exits with 1 when a number is off by more than its tolerance.\n\n"
    "Example:\n  kappa verify tests/goldens/mixed/* --backend ref",
    0,
    0,
    0};

/* The check that is nearest to its tolerance, or furthest beyond it. */
static const kp_verify_check *worst_check(const kp_verify_report *report) {
  const kp_verify_check *worst = &report->checks[0];
  for (int i = 1; i < report->count; i++)
    if (report->checks[i].error / report->checks[i].tolerance > worst->error / worst->tolerance)
      worst = &report->checks[i];
  return worst;
}

static void print_report(const kp_verify_report *report, bool all) {
  const kp_verify_check *worst = worst_check(report);
  printf("%-4s %-40s %4d numbers compared, worst %.2e of %.0e (%s)\n", report->passed ? "ok" : "FAIL",
         report->name, report->count, worst->error, worst->tolerance, worst->name);
  for (int i = 0; i < report->count; i++) {
    const kp_verify_check *check = &report->checks[i];
    const bool failed = !(check->error <= check->tolerance);
    if (all || failed)
      printf("     %s %-60s %.3e  tolerance %.0e\n", failed ? "x" : " ", check->name, check->error,
             check->tolerance);
  }
}

static json_t *report_json(const kp_verify_report *report) {
  json_t *checks = json_array();
  for (int i = 0; i < report->count; i++)
    json_array_append_new(checks, json_pack("{s:s, s:o, s:f}", "name", report->checks[i].name, "error",
                                            kp_json_number(report->checks[i].error), "tolerance",
                                            report->checks[i].tolerance));
  return json_pack("{s:s, s:s, s:s, s:b, s:o}", "case", report->name, "family", report->family, "variant",
                   report->variant, "passed", report->passed, "checks", checks);
}

int kp_command_verify(int argc, char **argv) {
  arguments a = {.backend = kp_backend_cpu()};
  kp_error error = {0};
  int failed = 0;
  kp_parse(&argp, argc, argv, &a);
  kp_verify_report *report = malloc(sizeof *report);
  kp_assert(report != NULL, "out of memory");
  json_t *cases = json_array();
  for (size_t i = 0; i < a.cases.count; i++) {
    if (kp_verify_case(a.cases.list[i], a.backend, a.threads, report, &error) != KP_OK) {
      kp_print_error(&error);
      failed++;
      continue;
    }
    failed += !report->passed;
    if (a.json)
      json_array_append_new(cases, report_json(report));
    else
      print_report(report, a.all);
  }
  if (a.json) {
    json_t *json = json_pack("{s:s, s:I, s:i, s:O}", "backend", a.backend->name, "cases",
                             (json_int_t)a.cases.count, "failed", failed, "reports", cases);
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(json);
  } else {
    printf("%zu cases on backend %s: %zu passed, %d failed\n", a.cases.count, a.backend->name,
           a.cases.count - (size_t)failed, failed);
  }
  json_decref(cases);
  free(report);
  kp_texts_clear(&a.cases);
  return failed == 0 ? KP_EXIT_OK : KP_EXIT_FAILED;
}
