/* What the parts of study/plot share: the figure, and its text for gnuplot. */
#ifndef KAPPA_STUDY_PLOT_PRIVATE_H
#define KAPPA_STUDY_PLOT_PRIVATE_H

#include <stdio.h>

#include "core/arena.h"
#include "study/plot.h"

struct kp_series {
  const char *label;
  kp_series_style style;
  uint32_t colour;
  size_t count;
  const double *x, *y;
};

enum { KP_FIGURE_PANELS = 16 };

struct kp_figure {
  const char *title;
  int columns;
  bool shared_legend;
  kp_panel *panels[KP_FIGURE_PANELS];
  int count;
  kp_arena *arena; /* owns everything */
};

typedef enum kp_picture { KP_PICTURE_PNG, KP_PICTURE_SVG } kp_picture;

/* Writes gnuplot's commands, data included, for one picture on its standard output. */
void kp_figure_script(const kp_figure *figure, kp_picture picture, FILE *out);

#endif
