/* One number a run of each measure. */
#include <math.h>

#include "study/analyze_private.h"

/* Adds what is known. */
typedef struct mean {
  double sum;
  int count;
} mean;

static void add(mean *m, double value) {
  if (!isfinite(value)) return;
  m->sum += value;
  m->count++;
}

static double value_of(mean m) {
  return m.count > 0 ? m.sum / m.count : (double)NAN;
}

static void add_streams(const kp_analysis *a, kp_analysis_means *r) {
  mean cosine = {0}, ratio = {0}, rank = {0}, delta = {0}, gaussian = {0}, edge = {0};
  for (int i = 0; i <= a->layers; i++) {
    const kp_stream_analysis *s = &a->streams[i];
    add(&cosine, s->isotropy.mean_cosine);
    add(&ratio, s->isotropy.participation_ratio);
    add(&rank, s->isotropy.effective_rank);
    add(&delta, s->trees.rows.relative);
    add(&gaussian, s->trees.like.relative);
    add(&edge, s->radius.edge_share);
  }
  r->mean_cosine = value_of(cosine);
  r->participation_ratio = value_of(ratio);
  r->effective_rank = value_of(rank);
  r->relative_delta = value_of(delta);
  r->relative_delta_gaussian = value_of(gaussian);
  r->edge_share = value_of(edge);
}

static void add_kinds(const kp_analysis *a, kp_analysis_means *r) {
  double counts[3] = {0}, all = 0;
  for (int place = 0; place < KP_PLACES; place++) {
    const kp_curvature_table *table = &a->curvature[place].table;
    for (int from = 0; from < 3; from++)
      for (int to = 0; to < 3; to++) counts[to] += table->kinds[from][to];
    all += table->heads;
  }
  r->hyperbolic = all > 0 ? counts[KP_KIND_HYPERBOLIC] / all : (double)NAN;
  r->euclidean = all > 0 ? counts[KP_KIND_EUCLIDEAN] / all : (double)NAN;
  r->spherical = all > 0 ? counts[KP_KIND_SPHERICAL] / all : (double)NAN;
}

kp_analysis_means kp_analysis_mean(const kp_analysis *a) {
  kp_analysis_means r = {0};
  mean entropy = {0}, load = {0};
  add_streams(a, &r);
  add_kinds(a, &r);
  for (int i = 0; i < a->matrix_count; i++) {
    const kp_matrix_analysis *m = &a->matrices[i];
    const double most = log((double)(m->rows < m->columns ? m->rows : m->columns));
    if (most > 0) add(&entropy, m->entropy / most);
  }
  for (int layer = 0; layer < a->layers && a->has_experts; layer++)
    if (a->experts[layer].load.experts > 0) add(&load, a->experts[layer].load.entropy);
  r.svd_entropy_share = value_of(entropy);
  r.load_entropy = value_of(load);
  r.frequency_correlation = a->embedding.known ? a->embedding.norms.spearman.value : (double)NAN;
  return r;
}
