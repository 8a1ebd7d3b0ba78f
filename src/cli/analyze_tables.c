#include "cli/analyze_tables.h"

#include <math.h>
#include <stdio.h>

#include "cli/table.h"

static void stream_cell(kp_table *table, const kp_analysis *a, int stream) {
  if (stream < a->layers)
    kp_table_cell(table, "before block %d", stream);
  else
    kp_table_cell(table, "at the end");
}

static void print_streams(const kp_analysis *a) {
  static const char *const titles[] = {"<stream",        "mean cosine", "participation ratio",
                                       "effective rank", "mean |h|",    NULL};
  kp_table table;
  kp_table_begin(&table, titles);
  for (int i = 0; i <= a->layers; i++) {
    const kp_stream_analysis *s = &a->streams[i];
    stream_cell(&table, a, i);
    kp_table_cell(&table, "%.4f", s->isotropy.mean_cosine);
    kp_table_cell(&table, "%.1f", s->isotropy.participation_ratio);
    kp_table_cell(&table, "%.1f of %lld", s->isotropy.effective_rank, (long long)a->width);
    kp_table_cell(&table, "%.3g", s->isotropy.mean_norm);
  }
  kp_table_print(&table, stdout);
}

static void print_radii(const kp_analysis *a) {
  static const char *const titles[] = {
      "<distance from the origin √|κ| d", "mean",         "median", "nine tenths", "largest", "at the edge",
      "mean distance to the boundary",    "boundary met", NULL};
  kp_table table;
  if (isnan(a->streams[a->layers].radius.mean)) return;
  putchar('\n');
  kp_table_begin(&table, titles);
  for (int i = 0; i <= a->layers; i++) {
    const kp_radius_summary *r = &a->streams[i].radius;
    stream_cell(&table, a, i);
    kp_table_cell(&table, "%.3f", r->mean);
    kp_table_cell(&table, "%.3f", r->median);
    kp_table_cell(&table, "%.3f", r->ninth);
    kp_table_cell(&table, "%.3f", r->largest);
    kp_table_cell(&table, "%.1f%%", 100 * r->edge_share);
    if (isnan(r->boundary_mean))
      kp_table_cell(&table, "–");
    else
      kp_table_cell(&table, "%.3g", r->boundary_mean);
    /* A block has the same number of seams as any other. */
    const int seams = a->layers > 0 ? a->seam_count / a->layers : 0;
    double met = 0;
    for (int s = 0; s < seams && i < a->layers; s++) met += a->seams[i * seams + s] / seams;
    if (i < a->layers && seams > 0)
      kp_table_cell(&table, "%.2f%%", 100 * met);
    else
      kp_table_cell(&table, "–");
  }
  kp_table_print(&table, stdout);
}

static void delta_cell(kp_table *table, const kp_hyperbolicity *h, bool known) {
  if (!known)
    kp_table_cell(table, "–");
  else if (isnan(h->low))
    kp_table_cell(table, "%.3f", h->relative);
  else
    kp_table_cell(table, "%.3f ± %.3f", h->relative, h->high - h->relative);
}

static void delta_cells(kp_table *table, const kp_tree_likeness *t) {
  delta_cell(table, &t->rows, true);
  delta_cell(table, &t->like, true);
  delta_cell(table, &t->gaussian, true);
  delta_cell(table, &t->geodesic, t->curved);
  delta_cell(table, &t->geodesic_like, t->curved);
}

static void print_trees(const kp_analysis *a) {
  static const char *const titles[] = {
      "<relative δ (0: a tree)", "states", "Gaussian, equal moments", "standard Gaussian", "geodesic",
      "Gaussian, geodesic",      NULL};
  kp_table table;
  putchar('\n');
  kp_table_begin(&table, titles);
  if (a->embedding.known) {
    kp_table_cell(&table, "embeddings");
    delta_cells(&table, &a->embedding.trees);
  }
  for (int i = 0; i <= a->layers; i++) {
    stream_cell(&table, a, i);
    delta_cells(&table, &a->streams[i].trees);
  }
  kp_table_print(&table, stdout);
}

/* Values of one block, those of many heads as their range. */
static void range_cell(kp_table *table, const double *values, int count) {
  double low = HUGE_VAL, high = -HUGE_VAL;
  for (int i = 0; i < count; i++) {
    low = fmin(low, values[i]);
    high = fmax(high, values[i]);
  }
  if (count == 1)
    kp_table_cell(table, "%.4f", values[0]);
  else
    kp_table_cell(table, "%.4f … %.4f", low, high);
}

/* All values of a block, as many as fit. */
static void list_cell(kp_table *table, const double *values, int count) {
  char text[KP_TABLE_CELL] = "";
  for (int g = 0, length = 0; g < count && length < KP_TABLE_CELL - 16; g++)
    length += snprintf(text + length, sizeof text - (size_t)length, "%s%.3f", g == 0 ? "" : " ", values[g]);
  kp_table_cell(table, "%s", text);
}

static void shares_cell(kp_table *table, const double *values, int count) {
  double shares[3];
  kp_curvature_shares(values, count, shares);
  if (isnan(shares[0]))
    kp_table_cell(table, "–");
  else
    kp_table_cell(table, "%.0f / %.0f / %.0f %%", 100 * shares[0], 100 * shares[1], 100 * shares[2]);
}

static void print_place(const kp_analysis *a, kp_place place) {
  static const char *const words[KP_PLACES] = {"<curvature κ of the stream",
                                               "<curvature κ of attention heads", "<curvature κ of experts"};
  const kp_curvature_analysis *c = &a->curvature[place];
  const char *titles[] = {words[place], "start", "trained", "κ < -0.1 / flat / κ > 0.1", "<each", NULL};
  char sentence[1024];
  kp_table table;
  if (c->groups == 0) return;
  putchar('\n');
  kp_table_begin(&table, titles);
  for (int layer = 0; layer < a->layers; layer++) {
    const double *now = c->end + layer * c->groups;
    kp_table_cell(&table, "block %d", layer);
    range_cell(&table, c->start + layer * c->groups, c->groups);
    range_cell(&table, now, c->groups);
    shares_cell(&table, now, c->groups);
    list_cell(&table, now, c->groups > 1 ? c->groups : 0);
  }
  kp_table_print(&table, stdout);
  kp_curvature_sentence(&c->table, sentence, sizeof sentence);
  printf("%s\n", sentence);
}

static void print_curvature(const kp_analysis *a) {
  for (kp_place place = 0; place < KP_PLACES; place++) print_place(a, place);
  if (!isnan(a->embedding_curvature))
    printf("\ncurvature κ of the embedding: %.4f at the start, %.4f trained\n", a->embedding_start,
           a->embedding_curvature);
}

static void print_experts(const kp_analysis *a) {
  static const char *const titles[] = {"<experts",
                                       "load entropy",
                                       "busiest",
                                       "idlest",
                                       "unused",
                                       "entropy of scores",
                                       "<curvature and load (Spearman)",
                                       NULL};
  kp_table table;
  if (!a->has_experts) return;
  putchar('\n');
  kp_table_begin(&table, titles);
  for (int layer = 0; layer < a->layers; layer++) {
    const kp_expert_analysis *e = &a->experts[layer];
    if (e->load.experts == 0) continue;
    kp_table_cell(&table, "block %d", layer);
    kp_table_cell(&table, "%.4f", e->load.entropy);
    kp_table_cell(&table, "×%.2f", e->load.largest);
    kp_table_cell(&table, "×%.2f", e->load.smallest);
    kp_table_cell(&table, "%d of %d", e->load.unused, e->load.experts);
    kp_table_cell(&table, "%.4f", e->routing_entropy);
    if (e->curvature == NULL || isnan(e->curvature_load.value))
      kp_table_cell(&table, "–");
    else
      kp_table_cell(&table, "%.2f (p = %.2g)", e->curvature_load.value, e->curvature_load.p);
  }
  kp_table_print(&table, stdout);
}

static void print_embedding(const kp_analysis *a) {
  const kp_token_norms *n = &a->embedding.norms;
  static const char *const titles[] = {"<tokens by frequency", "share of the text", "mean |embedding|", NULL};
  kp_table table;
  if (!a->embedding.known) return;
  putchar('\n');
  kp_table_begin(&table, titles);
  for (int g = 0; g < n->groups; g++) {
    kp_table_cell(&table, "group %d of %d", g + 1, n->groups);
    kp_table_cell(&table, "%.2f%%", 100 * n->share[g]);
    kp_table_cell(&table, "%.3f", n->norm[g]);
  }
  if (n->unseen > 0) {
    kp_table_cell(&table, "%lld that never occur", (long long)n->unseen);
    kp_table_cell(&table, "0");
    kp_table_cell(&table, "%.3f", n->unseen_norm);
  }
  kp_table_print(&table, stdout);
  if (!isnan(n->spearman.value))
    printf("Spearman's correlation of frequency and length over %lld tokens: %.2f (p = %.2g)\n",
           (long long)n->seen, n->spearman.value, n->spearman.p);
}

static void print_matrices(const kp_analysis *a) {
  static const char *const titles[] = {"<matrix", "shape", "SVD entropy", "of at most", NULL};
  kp_table table;
  putchar('\n');
  kp_table_begin(&table, titles);
  for (int i = 0; i < a->matrix_count; i++) {
    const kp_matrix_analysis *m = &a->matrices[i];
    kp_table_cell(&table, "%s", m->name);
    kp_table_cell(&table, "%lld × %lld", (long long)m->rows, (long long)m->columns);
    kp_table_cell(&table, "%.4f", m->entropy);
    kp_table_cell(&table, "%.4f", log((double)(m->rows < m->columns ? m->rows : m->columns)));
  }
  kp_table_print(&table, stdout);
}

static void number_cell(kp_table *table, double value) {
  if (isnan(value))
    kp_table_cell(table, "–");
  else
    kp_table_cell(table, "%.4g", value);
}

static void print_conditions(const kp_analysis *a) {
  static const char *const titles[] = {"<condition number, median of matrices",
                                       "attention",
                                       "with unit vectors",
                                       "feed-forward",
                                       "with unit vectors",
                                       NULL};
  static const char *const table_titles[] = {"<table", "condition number", "|row|", "least", "most", NULL};
  kp_table table;
  putchar('\n');
  kp_table_begin(&table, titles);
  for (int layer = 0; layer < a->layers; layer++) {
    const kp_block_condition *b = &a->conditions.blocks[layer];
    const double values[] = {b->attention.raw, b->attention.normalised, b->feed_forward.raw,
                             b->feed_forward.normalised};
    kp_table_cell(&table, "block %d", layer);
    for (int i = 0; i < 4; i++) number_cell(&table, values[i]);
  }
  kp_table_print(&table, stdout);
  putchar('\n');
  kp_table_begin(&table, table_titles);
  for (int i = 0; i < a->conditions.table_count; i++) {
    const kp_table_condition *t = &a->conditions.tables[i];
    kp_table_cell(&table, "%s", t->name);
    kp_table_cell(&table, "%.4g", t->condition);
    kp_table_cell(&table, "%.4f ± %.4f", t->mean, t->deviation);
    kp_table_cell(&table, "%.4f", t->least);
    kp_table_cell(&table, "%.4f", t->most);
  }
  kp_table_print(&table, stdout);
}

static void print_rates(const kp_analysis *a) {
  static const char *const titles[] = {"<eigen learning rates and scales, mean over channels",
                                       "attention",
                                       "feed-forward",
                                       "s_qk",
                                       "s_u",
                                       "s_v",
                                       NULL};
  kp_table table;
  if (!kp_learning_rates_present(&a->rates)) return;
  putchar('\n');
  kp_table_begin(&table, titles);
  for (int layer = 0; layer < a->layers; layer++) {
    const kp_block_rates *b = &a->rates.blocks[layer];
    kp_table_cell(&table, "block %d", layer);
    number_cell(&table, b->attention);
    number_cell(&table, b->feed_forward);
    number_cell(&table, b->query_gain);
    number_cell(&table, b->up_scale);
    number_cell(&table, b->gate_scale);
  }
  kp_table_print(&table, stdout);
  if (!isnan(a->rates.logit_scale)) printf("scale of the logits s_z: %.4f\n", a->rates.logit_scale);
}

void kp_print_analysis(const kp_analysis *a) {
  char model[160];
  kp_run_record_describe(&a->record, model, sizeof model);
  printf("%s: %s, step %lld; loss %.4f on %lld validation tokens\n\n", a->record.name, model,
         (long long)a->step, a->loss, (long long)a->tokens);
  print_streams(a);
  print_radii(a);
  print_trees(a);
  print_curvature(a);
  print_experts(a);
  print_embedding(a);
  print_matrices(a);
  print_conditions(a);
  print_rates(a);
}
