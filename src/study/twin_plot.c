/* The picture of differences from twins. */
#include <math.h>
#include <stdio.h>

#include "study/plot.h"
#include "study/run_plot.h"

/* A point with its interval as a vertical bar at `place`; the interval of one seed a side is not known. */
static void add_difference(kp_panel *panel, const kp_difference *d, int place, const char *label,
                           uint32_t colour) {
  const double x[] = {place, place}, interval[] = {d->low, d->high};
  if (isnan(d->value)) return;
  kp_panel_series(panel, KP_POINTS, label, colour, 1, x, &d->value);
  kp_panel_series(panel, KP_LINE, NULL, colour, 2, x, interval);
}

static int twins_of(const kp_comparison *c) {
  int count = 0;
  for (int i = 0; i < c->row_count; i++) count += c->rows[i].twins[KP_TWIN_FLAT] >= 0;
  return count;
}

kp_status kp_plot_twins(const kp_comparison *c, const char *folder, kp_error *error) {
  static const struct {
    kp_measure measure;
    const char *label;
  } panels[] = {{KP_FINAL_LOSS, "final loss less the twin's"},
                {KP_QUARTER_LOSS, "loss at a quarter less the twin's"}};
  const int count = twins_of(c);
  const double ends[] = {0.5, count + 0.5}, zero[] = {0, 0};
  if (count == 0) return KP_OK;
  kp_figure *figure = kp_figure_create("Curved models less their flat twins (bars: 95 % intervals)", 2);
  kp_figure_share_legend(figure);
  for (size_t p = 0; p < sizeof panels / sizeof *panels; p++) {
    kp_panel *panel = kp_figure_panel(figure, "model", panels[p].label);
    int place = 0;
    panel->x.whole = true;
    kp_panel_series(panel, KP_LINE_DASHED, NULL, kp_plot_colour(6), 2, ends, zero);
    for (int i = 0; i < c->row_count; i++) {
      char label[512];
      if (c->rows[i].twins[KP_TWIN_FLAT] < 0) continue;
      snprintf(label, sizeof label, "%d: %s", ++place, c->rows[i].name);
      add_difference(panel, &c->rows[i].differences[KP_TWIN_FLAT][panels[p].measure], place, label,
                     kp_plot_colour(i));
    }
  }
  kp_status status = kp_figure_write(figure, folder, "twins", error);
  kp_figure_destroy(figure);
  return status;
}
