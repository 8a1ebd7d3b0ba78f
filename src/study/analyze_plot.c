/* Pictures of an analysis. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/arena.h"
#include "study/analyze_private.h"
#include "study/plot.h"

typedef double (*stream_value)(const kp_stream_analysis *stream);

static double cosine(const kp_stream_analysis *s) {
  return s->isotropy.mean_cosine;
}
static double participation(const kp_stream_analysis *s) {
  return s->isotropy.participation_ratio;
}
static double rank(const kp_stream_analysis *s) {
  return s->isotropy.effective_rank;
}
static double norm(const kp_stream_analysis *s) {
  return s->isotropy.mean_norm;
}
static double radius(const kp_stream_analysis *s) {
  return s->radius.mean;
}

static void add_streams(kp_panel *panel, const kp_analysis *a, stream_value value, const char *label,
                        int colour) {
  kp_arena *arena = kp_arena_create();
  panel->x.whole = true;
  double *x = kp_arena_take(arena, (size_t)(a->layers + 1) * sizeof *x);
  double *y = kp_arena_take(arena, (size_t)(a->layers + 1) * sizeof *y);
  for (int i = 0; i <= a->layers; i++) {
    x[i] = i;
    y[i] = value(&a->streams[i]);
  }
  kp_panel_series(panel, KP_LINE_POINTS, label, kp_plot_colour(colour), (size_t)a->layers + 1, x, y);
  kp_arena_destroy(arena);
}

/* Shares of the variance by rank, a line a layer. */
static void add_spectra(kp_panel *panel, const kp_analysis *a) {
  kp_arena *arena = kp_arena_create();
  double *x = kp_arena_take(arena, (size_t)a->width * sizeof *x);
  double *y = kp_arena_take(arena, (size_t)a->width * sizeof *y);
  panel->x.logarithmic = panel->y.logarithmic = true;
  panel->legend = KP_LEGEND_RIGHT;
  for (int i = 0; i <= a->layers; i++) {
    char label[32];
    double sum = 0;
    for (int64_t j = 0; j < a->width; j++) sum += a->streams[i].eigenvalues[j];
    for (int64_t j = 0; j < a->width; j++) {
      x[j] = (double)(j + 1);
      const double share = a->streams[i].eigenvalues[j] / sum;
      y[j] = share > 1e-9 ? share : (double)NAN; /* below, the precision of float32 states ends */
    }
    snprintf(label, sizeof label, i < a->layers ? "block %d" : "end", i);
    const bool named = i == a->layers || i % (1 + a->layers / 12) == 0;
    kp_panel_series(panel, KP_LINE, named ? label : NULL, kp_plot_ramp(i / (double)a->layers),
                    (size_t)a->width, x, y);
  }
  kp_arena_destroy(arena);
}

static kp_status plot_isotropy(const kp_analysis *a, const char *title, const char *folder, kp_error *error) {
  static const char where[] = "stream before block (last: at the end)";
  const bool is_curved = !isnan(a->streams[a->layers].radius.mean);
  kp_figure *figure = kp_figure_create(title, 2);
  add_streams(kp_figure_panel(figure, where, "mean cosine of pairs"), a, cosine, NULL, 0);
  kp_panel *panel = kp_figure_panel(figure, where, "dimensions in use");
  panel->y.minimum = 0;
  add_streams(panel, a, rank, "effective rank", 0);
  add_streams(panel, a, participation, "participation ratio", 1);
  panel->legend = KP_LEGEND_RIGHT;
  panel = kp_figure_panel(figure, where, is_curved ? "mean length" : "mean length |h|");
  panel->y.minimum = 0;
  add_streams(panel, a, norm, "|h|", 0);
  if (is_curved) {
    add_streams(panel, a, radius, "√|κ| d(0, x)", 1);
    panel->legend = KP_LEGEND_RIGHT;
  } else {
    panel->legend = KP_LEGEND_NONE;
  }
  add_spectra(kp_figure_panel(figure, "rank of the eigenvalue", "share of the variance"), a);
  kp_status status = kp_figure_write(figure, folder, "isotropy", error);
  kp_figure_destroy(figure);
  return status;
}

/* Whether an earlier matrix has this kind. */
static bool is_known_kind(const kp_analysis *a, int matrix) {
  for (int i = 0; i < matrix; i++)
    if (strcmp(a->matrices[i].kind, a->matrices[matrix].kind) == 0) return true;
  return false;
}

/* SVD entropy by block, a line a kind of matrix, as a share of the largest possible. */
static kp_status plot_weights(const kp_analysis *a, const char *title, const char *folder, kp_error *error) {
  kp_figure *figure = kp_figure_create(title, 1);
  kp_panel *panel = kp_figure_panel(figure, "block", "SVD entropy / ln(full rank)");
  kp_arena *arena = kp_arena_create();
  double *x = kp_arena_take(arena, (size_t)(a->matrix_count + 1) * sizeof *x);
  double *y = kp_arena_take(arena, (size_t)(a->matrix_count + 1) * sizeof *y);
  int colour = 0;
  panel->legend = KP_LEGEND_RIGHT;
  panel->x.whole = true;
  for (int i = 0; i < a->matrix_count; i++) {
    size_t count = 0;
    if (a->matrices[i].layer < 0 || is_known_kind(a, i)) continue;
    for (int j = i; j < a->matrix_count; j++) {
      const kp_matrix_analysis *m = &a->matrices[j];
      if (m->layer < 0 || strcmp(m->kind, a->matrices[i].kind) != 0) continue;
      x[count] = m->layer;
      y[count++] = m->entropy / log((double)(m->rows < m->columns ? m->rows : m->columns));
    }
    kp_panel_series(panel, KP_LINE_POINTS, a->matrices[i].kind, kp_plot_colour(colour++), count, x, y);
  }
  kp_status status = kp_figure_write(figure, folder, "weights", error);
  kp_figure_destroy(figure);
  kp_arena_destroy(arena);
  return status;
}

kp_status kp_analysis_plot(const kp_analysis *a, const char *folder, kp_error *error) {
  char title[512], model[160];
  kp_run_record_describe(&a->record, model, sizeof model);
  snprintf(title, sizeof title, "%.250s: %s, step %lld", a->record.name, model, (long long)a->step);
  KP_TRY(plot_isotropy(a, title, folder, error));
  KP_TRY(plot_weights(a, title, folder, error));
  KP_TRY(kp_analysis_plot_geometry(a, title, folder, error));
  return a->history_count > 1 ? kp_analysis_plot_training(a, title, folder, error) : KP_OK;
}
