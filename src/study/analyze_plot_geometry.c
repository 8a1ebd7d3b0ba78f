/* Pictures of an analysis: curvature, tree-likeness, distance from the boundary, experts, embeddings. */
#include <math.h>
#include <stdio.h>

#include "core/arena.h"
#include "study/analyze_private.h"
#include "study/plot.h"
#include "study/run_plot.h"

static const char stream_label[] = "stream before block (last: at the end)";

/* 0, 1, … count - 1. */
static double *places(kp_arena *arena, int count) {
  double *x = kp_arena_take(arena, (size_t)(count + 1) * sizeof *x);
  for (int i = 0; i < count; i++) x[i] = i;
  return x;
}

/* ---- curvature ---- */

/* κ by block before and after. */
static void add_ends(kp_panel *panel, const kp_analysis *a, const kp_curvature_analysis *c, kp_arena *arena) {
  const double *x = places(arena, a->layers);
  double *y = kp_arena_take(arena, (size_t)a->layers * sizeof *y);
  panel->legend = KP_LEGEND_RIGHT;
  panel->x.whole = true;
  for (int now = 0; now < 2; now++)
    for (int group = 0; group < c->groups; group++) {
      for (int layer = 0; layer < a->layers; layer++)
        y[layer] = (now ? c->end : c->start)[layer * c->groups + group];
      kp_panel_series(panel, now ? KP_LINE_POINTS : KP_LINE_DASHED,
                      group > 0 ? NULL
                      : now     ? "trained"
                                : "start",
                      kp_plot_colour(now ? 0 : 6), (size_t)a->layers, x, y);
    }
}

/* Each curvature as a point (start, end), and the diagonal of those that stay. */
static void add_pairs(kp_panel *panel, const kp_analysis *a, const kp_curvature_analysis *c) {
  double low = 0, high = 0;
  const int count = a->layers * c->groups;
  for (int i = 0; i < count; i++) {
    low = fmin(low, c->start[i]);
    high = fmax(high, c->start[i]);
  }
  const double ends[] = {low, high};
  panel->legend = KP_LEGEND_NONE;
  kp_panel_series(panel, KP_LINE_DASHED, NULL, kp_plot_colour(6), 2, ends, ends);
  for (int layer = 0; layer < a->layers; layer++)
    kp_panel_series(panel, KP_POINTS, NULL, kp_plot_ramp(a->layers > 1 ? layer / (double)(a->layers - 1) : 0),
                    (size_t)c->groups, c->start + layer * c->groups, c->end + layer * c->groups);
}

/* Shares of the three kinds at the evaluations. */
static void add_shares(kp_panel *panel, const kp_run_record *run, kp_place place, kp_arena *arena) {
  static const char *const labels[] = {"κ < -0.1", "|κ| <= 0.1", "κ > 0.1"};
  const size_t size = (size_t)(run->evaluation_count + 1) * sizeof(double);
  double *x = kp_arena_take(arena, size), *y[3];
  size_t count = 0;
  for (int kind = 0; kind < 3; kind++) y[kind] = kp_arena_take(arena, size);
  for (int64_t e = 0; e < run->evaluation_count; e++) {
    double shares[3];
    if (run->evaluations[e].curvature[place] == NULL) continue;
    kp_curvature_shares(run->evaluations[e].curvature[place], (int64_t)run->layers * run->groups[place],
                        shares);
    for (int kind = 0; kind < 3; kind++) y[kind][count] = shares[kind];
    x[count++] = run->evaluations[e].step;
  }
  panel->legend = KP_LEGEND_RIGHT;
  panel->y.minimum = 0;
  panel->y.maximum = 1;
  for (int kind = 0; kind < 3; kind++)
    kp_panel_series(panel, KP_LINE_POINTS, labels[kind], kp_plot_colour(kind), count, x, y[kind]);
}

static kp_status plot_curvature(const kp_analysis *a, kp_place place, const char *title, const char *folder,
                                kp_error *error) {
  static const char *const names[KP_PLACES] = {"curvature", "head_curvature", "expert_curvature"};
  const kp_curvature_analysis *c = &a->curvature[place];
  if (c->groups == 0) return KP_OK;
  kp_arena *arena = kp_arena_create();
  kp_figure *figure = kp_figure_create(title, 2);
  add_ends(kp_figure_panel(figure, "block", "curvature κ"), a, c, arena);
  kp_plot_curvature(&a->record, place, kp_figure_panel(figure, "step", "curvature κ by block"));
  add_pairs(kp_figure_panel(figure, "κ at the start", "κ now (dark: first block)"), a, c);
  add_shares(kp_figure_panel(figure, "step", "share of curvatures"), &a->record, place, arena);
  kp_status status = kp_figure_write(figure, folder, names[place], error);
  kp_figure_destroy(figure);
  kp_arena_destroy(arena);
  return status;
}

/* ---- tree-likeness ---- */

typedef double (*tree_value)(const kp_tree_likeness *trees);
static double rows(const kp_tree_likeness *t) {
  return t->rows.relative;
}
static double gaussian(const kp_tree_likeness *t) {
  return t->gaussian.relative;
}
static double like(const kp_tree_likeness *t) {
  return t->like.relative;
}
static double geodesic(const kp_tree_likeness *t) {
  return t->curved ? t->geodesic.relative : (double)NAN;
}
static double geodesic_like(const kp_tree_likeness *t) {
  return t->curved ? t->geodesic_like.relative : (double)NAN;
}

static kp_status plot_trees(const kp_analysis *a, const char *title, const char *folder, kp_error *error) {
  static const struct {
    const char *label;
    tree_value value;
    kp_series_style style;
    int colour;
  } lines[] = {{"states", rows, KP_LINE_POINTS, 0},
               {"Gaussian cloud, moments of the states", like, KP_LINE_DASHED, 0},
               {"standard Gaussian cloud", gaussian, KP_LINE_DASHED, 6},
               {"states, geodesic distances", geodesic, KP_LINE_POINTS, 1},
               {"Gaussian cloud, geodesic distances", geodesic_like, KP_LINE_DASHED, 1}};
  kp_arena *arena = kp_arena_create();
  kp_figure *figure = kp_figure_create(title, 1);
  kp_panel *panel = kp_figure_panel(figure, stream_label, "relative δ (0: a tree)");
  const double *x = places(arena, a->layers + 1);
  panel->x.whole = true;
  panel->y.minimum = 0;
  kp_figure_share_legend(figure);
  for (size_t l = 0; l < sizeof lines / sizeof *lines; l++) {
    double *y = kp_arena_take(arena, (size_t)(a->layers + 1) * sizeof *y);
    for (int i = 0; i <= a->layers; i++) y[i] = lines[l].value(&a->streams[i].trees);
    if (isnan(y[0]) && isnan(y[a->layers])) continue;
    kp_panel_series(panel, lines[l].style, lines[l].label, kp_plot_colour(lines[l].colour),
                    (size_t)a->layers + 1, x, y);
  }
  kp_status status = kp_figure_write(figure, folder, "trees", error);
  kp_figure_destroy(figure);
  kp_arena_destroy(arena);
  return status;
}

/* ---- radii and boundary ---- */

static kp_status plot_radii(const kp_analysis *a, const char *title, const char *folder, kp_error *error) {
  if (isnan(a->streams[a->layers].radius.mean)) return KP_OK;
  kp_arena *arena = kp_arena_create();
  kp_figure *figure = kp_figure_create(title, 2);
  const int count = a->layers + 1;
  const double *x = places(arena, count > a->seam_count ? count : a->seam_count);
  double *y[5];
  for (int l = 0; l < 5; l++) y[l] = kp_arena_take(arena, (size_t)count * sizeof(double));
  for (int i = 0; i < count; i++) {
    const kp_radius_summary *r = &a->streams[i].radius;
    const double values[5] = {r->median, r->ninth, r->largest, r->boundary_mean, r->boundary_least};
    for (int l = 0; l < 5; l++) y[l][i] = values[l];
  }
  static const char *const labels[5] = {"median", "nine tenths", "largest", "mean", "least"};
  kp_panel *radius = kp_figure_panel(figure, stream_label, "√|κ| d(0, x)");
  kp_panel *boundary = kp_figure_panel(figure, stream_label, "1 - √-κ |x|: distance to the boundary");
  boundary->y.logarithmic = true;
  for (int l = 0; l < 5; l++)
    kp_panel_series(l < 3 ? radius : boundary, KP_LINE_POINTS, labels[l], kp_plot_colour(l % 3),
                    (size_t)count, x, y[l]);
  radius->x.whole = boundary->x.whole = true;
  radius->y.minimum = 0;
  radius->legend = boundary->legend = KP_LEGEND_RIGHT;
  kp_panel *seams = kp_figure_panel(figure, "seam (sub-layer)", "share of rows that met the boundary");
  seams->x.whole = true;
  seams->y.minimum = 0;
  kp_panel_series(seams, KP_LINE_POINTS, NULL, kp_plot_colour(0), (size_t)a->seam_count, x, a->seams);
  kp_status status = kp_figure_write(figure, folder, "radii", error);
  kp_figure_destroy(figure);
  kp_arena_destroy(arena);
  return status;
}

/* ---- experts ---- */

static kp_status plot_experts(const kp_analysis *a, const char *title, const char *folder, kp_error *error) {
  if (!a->has_experts) return KP_OK;
  kp_arena *arena = kp_arena_create();
  kp_figure *figure = kp_figure_create(title, 2);
  kp_panel *load = kp_figure_panel(figure, "expert", "share of choices, over an even share");
  kp_panel *entropy = kp_figure_panel(figure, "block", "entropy, over its maximum");
  kp_panel *pairs = NULL;
  double *x = places(arena, a->layers), *y = kp_arena_take(arena, (size_t)(2 * a->layers) * sizeof *y);
  for (int layer = 0; layer < a->layers; layer++) {
    const kp_expert_analysis *e = &a->experts[layer];
    const int count = e->load.experts;
    const uint32_t colour = kp_plot_ramp(a->layers > 1 ? layer / (double)(a->layers - 1) : 0);
    double sum = 0, *shares = kp_arena_take(arena, (size_t)(count + 1) * sizeof *shares);
    char label[32];
    y[layer] = y[a->layers + layer] = (double)NAN;
    if (count == 0) continue;
    snprintf(label, sizeof label, "block %d", layer);
    for (int i = 0; i < count; i++) sum += e->counts[i];
    for (int i = 0; i < count; i++) shares[i] = e->counts[i] / sum * count;
    kp_panel_series(load, KP_LINE_POINTS, label, colour, (size_t)count, places(arena, count), shares);
    y[layer] = e->load.entropy;
    y[a->layers + layer] = e->routing_entropy;
    if (e->curvature == NULL) continue;
    if (pairs == NULL)
      pairs = kp_figure_panel(figure, "κ of the expert", "share of choices, over an even share");
    kp_panel_series(pairs, KP_POINTS, NULL, colour, (size_t)count, e->curvature, shares);
  }
  load->legend = entropy->legend = KP_LEGEND_RIGHT;
  load->x.whole = entropy->x.whole = true;
  load->y.minimum = entropy->y.minimum = 0;
  kp_panel_series(entropy, KP_LINE_POINTS, "of the load", kp_plot_colour(0), (size_t)a->layers, x, y);
  kp_panel_series(entropy, KP_LINE_POINTS, "of a token's scores", kp_plot_colour(1), (size_t)a->layers, x,
                  y + a->layers);
  kp_status status = kp_figure_write(figure, folder, "experts", error);
  kp_figure_destroy(figure);
  kp_arena_destroy(arena);
  return status;
}

/* ---- embeddings ---- */

static kp_status plot_embedding(const kp_analysis *a, const char *title, const char *folder,
                                kp_error *error) {
  const kp_token_norms *n = &a->embedding.norms;
  if (!a->embedding.known) return KP_OK;
  kp_arena *arena = kp_arena_create();
  kp_figure *figure = kp_figure_create(title, 1);
  kp_panel *panel = kp_figure_panel(figure, "group of tokens by frequency (0: the most frequent)",
                                    "mean length of embeddings");
  panel->x.whole = true;
  panel->y.minimum = 0;
  kp_panel_series(panel, KP_LINE_POINTS, NULL, kp_plot_colour(0), (size_t)n->groups, places(arena, n->groups),
                  n->norm);
  kp_status status = kp_figure_write(figure, folder, "embedding", error);
  kp_figure_destroy(figure);
  kp_arena_destroy(arena);
  return status;
}

kp_status kp_analysis_plot_geometry(const kp_analysis *a, const char *title, const char *folder,
                                    kp_error *error) {
  for (kp_place place = 0; place < KP_PLACES; place++) KP_TRY(plot_curvature(a, place, title, folder, error));
  KP_TRY(plot_trees(a, title, folder, error));
  KP_TRY(plot_radii(a, title, folder, error));
  KP_TRY(plot_experts(a, title, folder, error));
  return plot_embedding(a, title, folder, error);
}
