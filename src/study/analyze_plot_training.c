/* Pictures of an analysis: the same measures at every checkpoint of the run. */
#include <math.h>
#include <stdio.h>

#include "core/arena.h"
#include "study/analyze_private.h"
#include "study/plot.h"

typedef double (*stream_value)(const kp_stream_analysis *stream);

static double cosine(const kp_stream_analysis *s) {
  return s->isotropy.mean_cosine;
}
static double rank(const kp_stream_analysis *s) {
  return s->isotropy.effective_rank;
}
static double delta(const kp_stream_analysis *s) {
  return s->trees.rows.relative;
}
static double excess(const kp_stream_analysis *s) {
  return s->trees.rows.relative - s->trees.like.relative;
}
static double radius(const kp_stream_analysis *s) {
  return s->radius.mean;
}

/* A line a stream over the steps of the checkpoints. */
static void add_streams(kp_figure *figure, const kp_analysis *a, stream_value value, const char *label,
                        kp_arena *arena) {
  const size_t count = (size_t)a->history_count;
  double *x = kp_arena_take(arena, (count + 1) * sizeof *x),
         *y = kp_arena_take(arena, (count + 1) * sizeof *y);
  if (isnan(value(&a->streams[a->layers]))) return;
  kp_panel *panel = kp_figure_panel(figure, "step", label);
  panel->legend = KP_LEGEND_RIGHT;
  for (int i = 0; i <= a->layers; i++) {
    char name[32];
    snprintf(name, sizeof name, i < a->layers ? "block %d" : "end", i);
    for (size_t h = 0; h < count; h++) {
      x[h] = (double)a->history[h]->step;
      y[h] = value(&a->history[h]->streams[i]);
    }
    const bool named = i == a->layers || i % (1 + a->layers / 12) == 0;
    kp_panel_series(panel, KP_LINE_POINTS, named ? name : NULL, kp_plot_ramp(i / (double)a->layers), count, x,
                    y);
  }
}

kp_status kp_analysis_plot_training(const kp_analysis *a, const char *title, const char *folder,
                                    kp_error *error) {
  kp_arena *arena = kp_arena_create();
  kp_figure *figure = kp_figure_create(title, 2);
  add_streams(figure, a, cosine, "mean cosine of pairs", arena);
  add_streams(figure, a, rank, "effective rank", arena);
  add_streams(figure, a, delta, "relative δ", arena);
  add_streams(figure, a, excess, "relative δ less that of a Gaussian cloud", arena);
  add_streams(figure, a, radius, "√|κ| d(0, x)", arena);
  kp_status status = kp_figure_write(figure, folder, "training", error);
  kp_figure_destroy(figure);
  kp_arena_destroy(arena);
  return status;
}
