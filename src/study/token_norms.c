#include "study/token_norms.h"

#include <math.h>
#include <stdlib.h>

#include "core/assert.h"

typedef struct token {
  double count, norm;
  int64_t id;
} token;

/* By falling frequency; equally frequent ones by their numbers, so that the order is one. */
static int falling(const void *a, const void *b) {
  const token *x = a, *y = b;
  if (x->count != y->count) return x->count < y->count ? 1 : -1;
  return (x->id > y->id) - (x->id < y->id);
}

static void fill_groups(kp_token_norms *r, const token *tokens, double all) {
  r->groups = r->seen < KP_FREQUENCY_GROUPS ? (int)r->seen : KP_FREQUENCY_GROUPS;
  for (int g = 0; g < r->groups; g++) {
    const int64_t first = g * r->seen / r->groups, end = (g + 1) * r->seen / r->groups;
    for (int64_t i = first; i < end; i++) {
      r->norm[g] += tokens[i].norm / (double)(end - first);
      r->share[g] += tokens[i].count / all;
    }
  }
}

static kp_correlation correlate(const token *tokens, int64_t count) {
  double *columns = malloc(2 * (size_t)(count + 1) * sizeof *columns);
  kp_assert(columns != NULL, "out of memory");
  for (int64_t i = 0; i < count; i++) {
    columns[i] = tokens[i].count;
    columns[count + i] = tokens[i].norm;
  }
  const kp_correlation result = kp_spearman(columns, columns + count, count);
  free(columns);
  return result;
}

kp_token_norms kp_token_norms_of(int64_t vocabulary, const int64_t *counts, const double *norms) {
  kp_token_norms r = {0};
  double all = 0, unseen = 0;
  token *tokens = malloc((size_t)(vocabulary + 1) * sizeof *tokens);
  kp_assert(tokens != NULL, "out of memory");
  for (int64_t i = 0; i < vocabulary; i++) {
    if (counts[i] > 0) {
      tokens[r.seen++] = (token){(double)counts[i], norms[i], i};
      all += (double)counts[i];
    } else {
      r.unseen++;
      unseen += norms[i];
    }
  }
  r.unseen_norm = r.unseen > 0 ? unseen / (double)r.unseen : (double)NAN;
  qsort(tokens, (size_t)r.seen, sizeof *tokens, falling);
  fill_groups(&r, tokens, all);
  r.spearman = correlate(tokens, r.seen);
  free(tokens);
  return r;
}
