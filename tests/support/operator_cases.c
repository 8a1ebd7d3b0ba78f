#include "support/operator_cases.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "support/check.h"

const double case_kappas[CASE_KAPPAS] = {0, 1e-6, -1e-6, 1e-3, -1e-3, 0.5, -0.5, 1, -1, -3.7};

operator_cases operator_cases_create(void) {
  operator_cases cases = {0};
  operator_cases_plain(&cases);
  operator_cases_attention(&cases);
  operator_cases_geometry(&cases);
  operator_cases_seams(&cases);
  operator_cases_head(&cases);
  operator_cases_sphere(&cases);
  operator_cases_lorentz(&cases);
  operator_cases_experts(&cases);
  operator_cases_pooling(&cases);
  return cases;
}

void operator_cases_destroy(operator_cases *cases) {
  free(cases->list);
}

operator_case *operator_cases_add(operator_cases *cases, operator_case c, const char *format, ...) {
  va_list arguments;
  if (cases->count == cases->capacity) {
    cases->capacity = cases->capacity == 0 ? 256 : 2 * cases->capacity;
    cases->list = realloc(cases->list, (size_t)cases->capacity * sizeof *cases->list);
    assert_non_null(cases->list);
  }
  char detail[80];
  va_start(arguments, format);
  vsnprintf(detail, sizeof detail, format, arguments);
  va_end(arguments);
  snprintf(c.name, sizeof c.name, "%s %s", kp_operator_table[c.operation].name, detail);
  cases->list[cases->count] = c;
  return &cases->list[cases->count++];
}

kp_tensor *operator_case_curvature(bench *b, const operator_case *c, const char *name) {
  const int64_t rows = c->curvatures == CASE_K_ONE     ? 1
                       : c->curvatures == CASE_K_BATCH ? c->batch
                                                       : c->batch * c->length;
  return bench_operand(b, name, c->kappa, 0.1 * c->kappa, 2, (int64_t[]){rows, c->groups});
}

bench *operator_case_build(const operator_case *c, bool wrap) {
  bench *b = bench_create(wrap);
  bool found = false;
  c->build(b, c);
  for (int i = 0; i < b->graph->node_count; i++) found |= b->graph->nodes[i]->operation == (int)c->operation;
  if (!found) fail_msg("case %s has no such operator", c->name);
  if (!c->decoding) bench_differentiate(b);
  return b;
}

int operator_cases_run(const char *group, void (*function)(void **state),
                       bool (*wanted)(const operator_case *c)) {
  operator_cases cases = operator_cases_create();
  struct CMUnitTest *tests = calloc((size_t)cases.count, sizeof *tests);
  size_t count = 0;
  if (tests == NULL) return 1;
  for (int i = 0; i < cases.count; i++) {
    operator_case *c = &cases.list[i];
    if (wanted != NULL && !wanted(c)) continue;
    tests[count++] = (struct CMUnitTest){.name = c->name, .test_func = function, .initial_state = c};
  }
  const int failures = _cmocka_run_group_tests(group, tests, count, NULL, NULL);
  free(tests);
  operator_cases_destroy(&cases);
  return failures;
}
