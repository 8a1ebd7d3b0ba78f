/* Cases of the operators that make one row of a sequence. */
#include <stdlib.h>

#include "support/check.h"
#include "support/operator_cases.h"

/* Sequence b has b · 2 + 1 rows of its own, the rest is padding; `option`: sequence 0 is all padding. */
static kp_tensor *documents(bench *b, const operator_case *c) {
  const int64_t shape[] = {c->batch, c->length};
  int32_t *values = malloc((size_t)(c->batch * c->length) * sizeof *values);
  assert_non_null(values);
  for (int64_t n = 0; n < c->batch * c->length; n++) {
    const int64_t sequence = n / c->length, row = n % c->length;
    const bool empty = c->option && sequence == 0;
    values[n] = !empty && row < 2 * sequence + 1 ? (int32_t)sequence : -1;
  }
  kp_tensor *tensor = bench_index(b, "documents", 2, shape, values);
  free(values);
  return tensor;
}

static void build_mean_rows(bench *b, const operator_case *c) {
  kp_tensor *x = bench_operand(b, "x", 0, c->deviation, 3, (int64_t[]){c->batch, c->length, c->columns});
  bench_output(b, kp_mean_rows(b->graph, x, c->packed ? documents(b, c) : NULL));
}

void operator_cases_pooling(operator_cases *cases) {
  static const int64_t shapes[][3] = {{1, 1, 1}, {3, 4, 17}, {4, 9, 130}};
  for (int s = 0; s < 3; s++)
    for (int flags = 0; flags < 3; flags++) {
      const operator_case c = {.operation = KP_OP_MEAN_ROWS,
                               .build = build_mean_rows,
                               .batch = shapes[s][0],
                               .length = shapes[s][1],
                               .columns = shapes[s][2],
                               .deviation = 1,
                               .packed = flags > 0,
                               .option = flags > 1};
      operator_cases_add(cases, c, "(%d, %d, %d)%s%s", (int)c.batch, (int)c.length, (int)c.columns,
                         c.packed ? " documents" : "", c.option ? ", one empty" : "");
    }
}
