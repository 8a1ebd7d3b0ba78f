/* Figures: panels of lines and points, drawn by gnuplot as PNG or SVG.
 *
 *   kp_figure *figure = kp_figure_create("a title", 2);
 *   kp_panel *panel = kp_figure_panel(figure, "step", "loss");
 *   kp_panel_series(panel, KP_LINE, "validation", kp_plot_colour(0), count, x, y);
 *   kp_figure_write(figure, folder, "loss", error);      folder/loss.png and folder/loss.svg
 *   kp_figure_destroy(figure);
 *
 * Everything that is given is copied; texts are shown as they are, whatever
 * characters they hold.  A value that is not finite, or not positive on a
 * logarithmic axis, leaves a gap.
 *
 * gnuplot is a child process without a shell.  It reads a file of commands and
 * data that has no name, and writes the picture into another; files appear
 * under their names when they are complete. */
#ifndef KAPPA_STUDY_PLOT_H
#define KAPPA_STUDY_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

typedef enum kp_series_style {
  KP_LINE,
  KP_LINE_THIN,   /* thin and pale: what is noisy, behind the lines that count */
  KP_LINE_DASHED, /* a reference */
  KP_LINE_POINTS,
  KP_POINTS, /* alone: pairs of numbers without an order */
} kp_series_style;

typedef enum kp_legend {
  KP_LEGEND_INSIDE, /* in the upper right corner: for curves that fall */
  KP_LEGEND_RIGHT,  /* beside the panel: for many entries */
  KP_LEGEND_NONE,
} kp_legend;

typedef struct kp_axis {
  const char *label;
  bool logarithmic;
  bool whole;              /* ticks at whole numbers only: blocks, layers */
  double minimum, maximum; /* NaN: from the data */
} kp_axis;

typedef struct kp_series kp_series;

/* One pair of axes; set `title`, ranges, scales and legend after creating it. */
typedef struct kp_panel {
  const char *title; /* copied when set with kp_panel_title; NULL: none */
  kp_axis x, y;
  kp_legend legend;
  kp_series *series;
  int count, capacity;
  struct kp_figure *figure;
} kp_panel;

typedef struct kp_figure kp_figure;

/* A figure whose panels stand in rows of `columns`.  `title` may be NULL. */
kp_figure *kp_figure_create(const char *title, int columns);
void kp_figure_destroy(kp_figure *figure);

/* One legend for all panels, below them, with each label once. */
void kp_figure_share_legend(kp_figure *figure);

/* A new panel, owned by the figure; the pointer stays valid. */
kp_panel *kp_figure_panel(kp_figure *figure, const char *x_label, const char *y_label);
void kp_panel_title(kp_panel *panel, const char *title);

/* Adds `count` points.  `label` NULL: not in the legend.  `colour` is 0xRRGGBB. */
void kp_panel_series(kp_panel *panel, kp_series_style style, const char *label, uint32_t colour, size_t count,
                     const double *x, const double *y);

/* Colours that readers with any common colour blindness tell apart (Okabe and Ito 2008); repeats after 7. */
uint32_t kp_plot_colour(int index);
/* A colour of an ordered scale from dark blue (0) to yellow (1), as light as its place (viridis). */
uint32_t kp_plot_ramp(double place);

/* Writes folder/name.png and folder/name.svg; the folder is created.  Fails with KP_ERR_UNSUPPORTED when
 * gnuplot is not installed. */
kp_status kp_figure_write(const kp_figure *figure, const char *folder, const char *name, kp_error *error);

#endif
