#include "study/run_plot.h"

#include <math.h>
#include <stdio.h>

#include "core/arena.h"
#include "study/plot.h"

/* ---- columns of numbers ---- */

/* Columns live in the figure's neighbour, an arena of the drawing function. */
static double *column(kp_arena *arena, int64_t count) {
  return kp_arena_take(arena, (size_t)(count + 1) * sizeof(double));
}

/* An exponential mean whose memory is about a fiftieth of the curve, each value corrected for the mean's
 * short past (as Adam's moments are), NaN left out. */
static void smooth(int64_t count, double *values) {
  const double keep = 1 - 1 / fmax(10, (double)count / 30);
  double sum = 0, weight = 0;
  for (int64_t i = 0; i < count; i++) {
    if (!isfinite(values[i])) continue;
    sum = keep * sum + (1 - keep) * values[i];
    weight = keep * weight + (1 - keep);
    values[i] = sum / weight;
  }
}

typedef enum run_axis { OVER_STEPS, OVER_TOKENS, OVER_SECONDS } run_axis;

static double place(const kp_run_record *run, run_axis axis, double step, double seconds, double unit) {
  switch (axis) {
  case OVER_TOKENS: return step * (double)run->tokens_per_step / unit;
  case OVER_SECONDS: return seconds / unit;
  case OVER_STEPS: break;
  }
  return step / unit;
}

static void add_training_loss(kp_panel *panel, const kp_run_record *run, run_axis axis, double unit,
                              const char *label, uint32_t colour, kp_arena *arena) {
  double *x = column(arena, run->step_count), *y = column(arena, run->step_count);
  for (int64_t i = 0; i < run->step_count; i++) {
    x[i] = place(run, axis, run->steps[i].step, run->steps[i].seconds, unit);
    y[i] = run->steps[i].loss;
  }
  smooth(run->step_count, y);
  kp_panel_series(panel, KP_LINE_THIN, label, colour, (size_t)run->step_count, x, y);
}

static void add_validation_loss(kp_panel *panel, const kp_run_record *run, run_axis axis, double unit,
                                const char *label, uint32_t colour, kp_arena *arena) {
  double *x = column(arena, run->evaluation_count), *y = column(arena, run->evaluation_count);
  for (int64_t i = 0; i < run->evaluation_count; i++) {
    x[i] = place(run, axis, run->evaluations[i].step, run->evaluations[i].seconds, unit);
    y[i] = run->evaluations[i].validation_loss;
  }
  kp_panel_series(panel, run->evaluation_count > 40 ? KP_LINE : KP_LINE_POINTS, label, colour,
                  (size_t)run->evaluation_count, x, y);
}

/* ---- comparison ---- */

/* The loss of an untrained model would squeeze all that matters into the lowest part of the panel: the range
 * ends where the slowest run stands after the first tenth of its evaluations. */
static double useful_maximum(const kp_comparison *c) {
  double top = -HUGE_VAL, bottom = HUGE_VAL;
  for (int i = 0; i < c->run_count; i++) {
    const kp_run_record *run = &c->runs[i];
    const int64_t first = run->evaluation_count / 10 > 0 ? run->evaluation_count / 10 : 1;
    for (int64_t e = 0; e < run->evaluation_count; e++) {
      const double loss = run->evaluations[e].validation_loss;
      if (isfinite(loss)) bottom = fmin(bottom, loss);
      if (isfinite(loss) && e >= first) top = fmax(top, loss);
    }
  }
  return top > bottom ? top + 0.08 * (top - bottom) : (double)NAN;
}

typedef struct axis_unit {
  double size;
  const char *name;
} axis_unit;

static axis_unit unit_of_tokens(const kp_comparison *c) {
  double most = 0;
  for (int i = 0; i < c->row_count; i++) most = fmax(most, c->rows[i].measures[KP_TOKENS].mean);
  if (most >= 2e9) return (axis_unit){1e9, "tokens (billions)"};
  if (most >= 2e6) return (axis_unit){1e6, "tokens (millions)"};
  return most >= 2e4 ? (axis_unit){1e3, "tokens (thousands)"} : (axis_unit){1, "tokens"};
}

static axis_unit unit_of_time(double seconds) {
  if (seconds >= 3 * 3600) return (axis_unit){3600, "training time (hours)"};
  return seconds >= 180 ? (axis_unit){60, "training time (minutes)"}
                        : (axis_unit){1, "training time (seconds)"};
}

static double longest(const kp_comparison *c) {
  double most = 0;
  for (int i = 0; i < c->row_count; i++) most = fmax(most, c->rows[i].measures[KP_SECONDS].mean);
  return most;
}

static void add_losses(const kp_comparison *c, kp_figure *figure, run_axis axis, axis_unit unit,
                       kp_arena *arena) {
  kp_panel *panel = kp_figure_panel(figure, unit.name, "loss (nats per token)");
  panel->y.maximum = useful_maximum(c);
  for (int pass = 0; pass < 2; pass++) /* thin lines first, so that they lie behind */
    for (int r = 0; r < c->row_count; r++)
      for (int i = 0; i < c->rows[r].count; i++) {
        const kp_run_record *run = c->rows[r].runs[i];
        char label[512];
        snprintf(label, sizeof label, "%s: %s", c->rows[r].name, c->rows[r].model);
        if (pass == 0 && i == 0) /* of one seed: more would be a thicket */
          add_training_loss(panel, run, axis, unit.size, NULL, kp_plot_colour(r), arena);
        if (pass == 1)
          add_validation_loss(panel, run, axis, unit.size, i == 0 ? label : NULL, kp_plot_colour(r), arena);
      }
}

kp_status kp_plot_comparison(const kp_comparison *c, const char *folder, kp_error *error) {
  kp_arena *arena = kp_arena_create();
  kp_figure *figure = kp_figure_create("Validation loss (thin: training loss, smoothed)", 2);
  kp_figure_share_legend(figure);
  add_losses(c, figure, OVER_TOKENS, unit_of_tokens(c), arena);
  add_losses(c, figure, OVER_SECONDS, unit_of_time(longest(c)), arena);
  kp_status status = kp_figure_write(figure, folder, "loss", error);
  kp_figure_destroy(figure);
  kp_arena_destroy(arena);
  return status;
}

/* ---- one run ---- */

static void add_losses_of_run(kp_figure *figure, const kp_run_record *run, kp_arena *arena) {
  kp_panel *panel = kp_figure_panel(figure, "step", "loss (nats per token)");
  add_training_loss(panel, run, OVER_STEPS, 1, "training, smoothed", kp_plot_colour(0), arena);
  add_validation_loss(panel, run, OVER_STEPS, 1, "validation", kp_plot_colour(1), arena);
}

typedef double (*step_value)(const kp_step_line *line);

static double gradient_norm(const kp_step_line *line) {
  return line->gradient_norm;
}
static double learning_rate(const kp_step_line *line) {
  return line->learning_rate;
}
static double step_ms(const kp_step_line *line) {
  return line->step_ms;
}
static double boundary_percent(const kp_step_line *line) {
  return 100 * line->boundary_share;
}

/* A panel of one value of the step lines, unless no line has it. */
static void add_steps(kp_figure *figure, const kp_run_record *run, const char *label, step_value value,
                      kp_arena *arena) {
  double *x = column(arena, run->step_count), *y = column(arena, run->step_count);
  double low = HUGE_VAL, high = -HUGE_VAL;
  for (int64_t i = 0; i < run->step_count; i++) {
    x[i] = run->steps[i].step;
    y[i] = value(&run->steps[i]);
    low = fmin(low, y[i]); /* which pass over NaN */
    high = fmax(high, y[i]);
  }
  if (low > high) return;
  kp_panel *panel = kp_figure_panel(figure, "step", label);
  panel->y.logarithmic = value == gradient_norm && low > 0 && high > 20 * low;
  if (!panel->y.logarithmic) panel->y.minimum = 0;
  kp_panel_series(panel, KP_LINE, NULL, kp_plot_colour(0), (size_t)run->step_count, x, y);
}

bool kp_plot_curvature(const kp_run_record *run, kp_place place, kp_panel *panel) {
  kp_arena *arena = kp_arena_create();
  double *x = column(arena, run->evaluation_count), *y = column(arena, run->evaluation_count);
  const int groups = run->groups[place];
  for (int layer = 0; layer < run->layers; layer++)
    for (int group = 0; group < groups; group++) {
      char label[32];
      int64_t count = 0;
      snprintf(label, sizeof label, "block %d", layer);
      for (int64_t e = 0; e < run->evaluation_count; e++) {
        if (run->evaluations[e].curvature[place] == NULL) continue;
        x[count] = run->evaluations[e].step;
        y[count++] = run->evaluations[e].curvature[place][layer * groups + group];
      }
      const double share = run->layers > 1 ? layer / (double)(run->layers - 1) : 0;
      /* Legends of deep models name every few blocks. */
      const bool named = group == 0 && layer % (1 + (run->layers - 1) / 12) == 0;
      kp_panel_series(panel, KP_LINE, named ? label : NULL, kp_plot_ramp(share), (size_t)count, x, y);
    }
  panel->legend = KP_LEGEND_RIGHT;
  kp_arena_destroy(arena);
  return groups > 0;
}

kp_status kp_plot_run(const kp_run_record *run, const char *folder, kp_error *error) {
  kp_arena *arena = kp_arena_create();
  char title[512], model[160];
  kp_run_record_describe(run, model, sizeof model);
  snprintf(title, sizeof title, "%.300s: %s", run->name, model);
  kp_figure *figure = kp_figure_create(title, 2);
  add_losses_of_run(figure, run, arena);
  add_steps(figure, run, "norm of the gradient", gradient_norm, arena);
  add_steps(figure, run, "learning rate", learning_rate, arena);
  add_steps(figure, run, "step time (ms)", step_ms, arena);
  static const char *const labels[KP_PLACES] = {"curvature κ by block", "curvature κ of heads, by block",
                                                "curvature κ of experts, by block"};
  for (kp_place place = 0; place < KP_PLACES; place++)
    if (run->groups[place] > 0) kp_plot_curvature(run, place, kp_figure_panel(figure, "step", labels[place]));
  add_steps(figure, run, "rows at the boundary (%)", boundary_percent, arena);
  kp_status status = kp_figure_write(figure, folder, "run", error);
  kp_figure_destroy(figure);
  kp_arena_destroy(arena);
  return status;
}
