/* A figure as gnuplot's commands.
 *
 * Every text stands in single quotes, where gnuplot expands nothing: neither
 * backquoted commands nor macros nor its own mark-up (the terminal is
 * "noenhanced").  Data stand inline, one block a series, numbers in the
 * spelling of core/number.h, which no locale changes. */
#include <math.h>
#include <string.h>

#include "core/number.h"
#include "study/plot_private.h"

enum { PANEL_WIDTH = 620, PANEL_HEIGHT = 430, RIGHT_LEGEND = 110, TITLE_HEIGHT = 34, LEGEND_LINE = 24 };

static void put_text(FILE *out, const char *text) {
  fputc('\'', out);
  for (; *text != 0; text++) {
    if (*text == '\'') fputc('\'', out);
    fputc((unsigned char)*text < ' ' ? ' ' : *text, out);
  }
  fputc('\'', out);
}

static void put_number(FILE *out, double value) {
  char text[KP_NUMBER_SIZE];
  if (isfinite(value)) kp_number_format(value, text);
  fputs(isfinite(value) ? text : "NaN", out);
}

static void put_data(const kp_series *series, const kp_panel *panel, int number, FILE *out) {
  fprintf(out, "$d%d << EOD\n", number);
  for (size_t i = 0; i < series->count; i++) {
    const bool shown =
        (!panel->x.logarithmic || series->x[i] > 0) && (!panel->y.logarithmic || series->y[i] > 0);
    put_number(out, series->x[i]);
    fputc(' ', out);
    put_number(out, shown ? series->y[i] : (double)NAN);
    fputc('\n', out);
  }
  fputs("EOD\n", out);
}

/* A colour as light as thin lines are drawn: two fifths of it over white. */
static uint32_t pale(uint32_t colour) {
  uint32_t result = 0;
  for (int shift = 16; shift >= 0; shift -= 8)
    result = result << 8 | (255 - (255 - (colour >> shift & 255)) * 2 / 5);
  return result;
}

static void put_style(const kp_series *s, FILE *out) {
  switch (s->style) {
  case KP_LINE: fprintf(out, "with lines lw 2.2 lc rgb '#%06x'", s->colour); return;
  case KP_LINE_THIN: fprintf(out, "with lines lw 1 lc rgb '#%06x'", pale(s->colour)); return;
  case KP_LINE_DASHED: fprintf(out, "with lines lw 1.6 dt (7,5) lc rgb '#%06x'", s->colour); return;
  case KP_POINTS: fprintf(out, "with points pt 7 ps 0.7 lc rgb '#%06x'", s->colour); return;
  case KP_LINE_POINTS: fprintf(out, "with linespoints lw 1.8 pt 7 ps 0.6 lc rgb '#%06x'", s->colour); return;
  }
}

static bool has_points(const kp_series *s) {
  for (size_t i = 0; i < s->count; i++)
    if (isfinite(s->x[i]) && isfinite(s->y[i])) return true;
  return false;
}

static void put_limit(double limit, FILE *out) {
  if (isfinite(limit))
    put_number(out, limit);
  else
    fputc('*', out);
}

/* The largest value that the panel shows on its x axis. */
static double largest_x(const kp_panel *panel) {
  double largest = 0;
  for (int s = 0; s < panel->count; s++)
    for (size_t i = 0; i < panel->series[s].count; i++) largest = fmax(largest, panel->series[s].x[i]);
  return largest;
}

static void put_whole_ticks(const kp_panel *panel, FILE *out) {
  if (panel->x.whole)
    fprintf(out, "set xtics 0,%.0f\n", fmax(1, ceil(largest_x(panel) / 12)));
  else
    fputs("set xtics autofreq\n", out);
}

static void put_axis(const kp_axis *axis, char name, FILE *out) {
  fprintf(out, "set %clabel ", name);
  put_text(out, axis->label);
  fputc('\n', out);
  fprintf(out,
          axis->logarithmic ? "set logscale %c\nset format %c '%%.3g'\n"
                            : "unset logscale %c\nset format %c '%%.10g'\n",
          name, name);
  fprintf(out, "set %crange [", name);
  put_limit(axis->minimum, out);
  fputc(':', out);
  put_limit(axis->maximum, out);
  fputs("]\n", out);
}

static int legend_entries(const kp_panel *panel) {
  int entries = 0;
  for (int s = 0; s < panel->count; s++) entries += panel->series[s].label != NULL;
  return entries;
}

static void put_legend(const kp_panel *panel, FILE *out) {
  if (panel->figure->shared_legend || panel->legend == KP_LEGEND_NONE || legend_entries(panel) == 0)
    fputs("unset key\n", out);
  else if (panel->legend == KP_LEGEND_RIGHT)
    fputs("set key outside right center vertical Left reverse noopaque samplen 1.5 spacing 1.1\n", out);
  else
    fputs("set key inside top right vertical noreverse Right opaque samplen 2 spacing 1.15\n", out);
}

/* Draws the panel, whose first series has data block `first`. */
static void put_panel(const kp_panel *panel, int first, FILE *out) {
  put_axis(&panel->x, 'x', out);
  put_axis(&panel->y, 'y', out);
  put_whole_ticks(panel, out);
  put_legend(panel, out);
  fputs("set title ", out);
  put_text(out, panel->title == NULL ? "" : panel->title);
  fputs("\nplot ", out);
  int drawn = 0;
  for (int s = 0; s < panel->count; s++) {
    const kp_series *series = &panel->series[s];
    if (!has_points(series)) continue;
    fprintf(out, "%s$d%d using 1:2 ", drawn++ == 0 ? "" : ", ", first + s);
    put_style(series, out);
    if (series->label == NULL || panel->figure->shared_legend) {
      fputs(" notitle", out);
    } else {
      fputs(" title ", out);
      put_text(out, series->label);
    }
  }
  /* Without a point there are no ranges: an empty pair of axes is drawn. */
  if (drawn == 0) fputs("[0:1] [0:1] NaN notitle", out);
  fputc('\n', out);
}

/* Whether no earlier series of the figure has this label. */
static bool is_first_with_label(const kp_figure *figure, int panel, int series) {
  const char *label = figure->panels[panel]->series[series].label;
  for (int p = 0; p <= panel; p++) {
    const int end = p == panel ? series : figure->panels[p]->count;
    for (int s = 0; s < end; s++) {
      const char *other = figure->panels[p]->series[s].label;
      if (other != NULL && strcmp(other, label) == 0) return false;
    }
  }
  return true;
}

static int shared_entries(const kp_figure *figure) {
  int entries = 0;
  if (!figure->shared_legend) return 0;
  for (int p = 0; p < figure->count; p++)
    for (int s = 0; s < figure->panels[p]->count; s++)
      entries += figure->panels[p]->series[s].label != NULL && is_first_with_label(figure, p, s);
  return entries;
}

enum { SHARED_COLUMNS = 3, CHARACTER_WIDTH = 9, SAMPLE_WIDTH = 70 };

/* Columns of the shared legend that its longest label leaves room for. */
static int shared_columns(const kp_figure *figure, int width) {
  int longest = 0;
  for (int p = 0; p < figure->count; p++)
    for (int s = 0; s < figure->panels[p]->count; s++) {
      const char *label = figure->panels[p]->series[s].label;
      int characters = 0;
      for (; label != NULL && *label != '\0'; label++) characters += (*label & 0xc0) != 0x80; /* UTF-8 */
      longest = characters > longest ? characters : longest;
    }
  const int columns = width / (CHARACTER_WIDTH * longest + SAMPLE_WIDTH);
  return columns < 1 ? 1 : columns < SHARED_COLUMNS ? columns : SHARED_COLUMNS;
}

static bool has_right_legend(const kp_figure *figure) {
  for (int p = 0; p < figure->count; p++)
    if (figure->panels[p]->legend == KP_LEGEND_RIGHT && legend_entries(figure->panels[p]) > 0) return true;
  return false;
}

static void put_terminal(kp_picture picture, int width, int height, FILE *out) {
  /* The PNG has twice the SVG's pixels, for dense screens and paper. */
  if (picture == KP_PICTURE_PNG)
    fprintf(out,
            "set terminal pngcairo noenhanced size %d,%d fontscale 2 linewidth 2 pointscale 2 font "
            "'sans,10.5' background rgb 'white'\n",
            2 * width, 2 * height);
  else
    fprintf(out, "set terminal svg noenhanced size %d,%d font 'sans-serif,14' background rgb 'white'\n",
            width, height);
}

/* Sizes in pixels of the SVG. */
typedef struct layout {
  int columns, width, height, title, legend;
  int legend_columns;
} layout;

static layout layout_of(const kp_figure *figure) {
  const int entries = shared_entries(figure);
  layout l = {.columns = figure->count < figure->columns ? figure->count : figure->columns};
  l.title = figure->title == NULL ? 0 : TITLE_HEIGHT;
  l.width = l.columns * (PANEL_WIDTH + (has_right_legend(figure) ? RIGHT_LEGEND : 0));
  l.legend_columns = shared_columns(figure, l.width);
  l.legend = entries == 0 ? 0 : 24 + LEGEND_LINE * ((entries + l.legend_columns - 1) / l.legend_columns);
  l.height = (figure->count + l.columns - 1) / l.columns * PANEL_HEIGHT + l.legend + l.title;
  return l;
}

/* The title is a label of the first panel. */
static void put_title(const kp_figure *figure, const layout *l, kp_picture picture, FILE *out) {
  if (l->title == 0) return;
  fputs("set label 1 ", out);
  put_text(out, figure->title);
  fprintf(out, " at screen 0.5,%d/%d.0 center font ',%d'\n", l->height - 6 * l->title / 10, l->height,
          picture == KP_PICTURE_PNG ? 12 : 16);
}

/* A strip without axes that holds only a legend. */
static void put_shared_legend(const kp_figure *figure, const layout *l, FILE *out) {
  int drawn = 0;
  fprintf(
      out,
      "set origin 0,0\nset size 1,%d/%d.0\nset lmargin 0\nset rmargin 0\nset tmargin 0\nset bmargin 0\n"
      "unset title\nunset xlabel\nunset ylabel\nunset tics\nunset border\nunset grid\n"
      "unset logscale\nset xrange [0:1]\nset yrange [0:1]\n"
      "set key inside center center horizontal Left reverse noopaque maxcols %d samplen 2.5 spacing 1.15\n"
      "plot ",
      l->legend, l->height, l->legend_columns);
  for (int p = 0; p < figure->count; p++)
    for (int s = 0; s < figure->panels[p]->count; s++) {
      const kp_series *series = &figure->panels[p]->series[s];
      if (series->label == NULL || !is_first_with_label(figure, p, s)) continue;
      fputs(drawn++ == 0 ? "NaN " : ", NaN ", out);
      put_style(series, out);
      fputs(" title ", out);
      put_text(out, series->label);
    }
  fputc('\n', out);
}

static void put_settings(FILE *out) {
  fputs("set encoding utf8\nset datafile missing 'NaN'\nset border 3 lw 0.8 lc rgb '#555555'\n"
        "set tics nomirror out scale 0.6 textcolor rgb '#333333'\n"
        "set grid lt 1 lw 0.8 lc rgb '#d8d8d8'\nset lmargin 10\n",
        out);
}

void kp_figure_script(const kp_figure *figure, kp_picture picture, FILE *out) {
  const layout l = layout_of(figure);
  int block = 0;
  put_terminal(picture, l.width, l.height, out);
  put_settings(out);
  for (int p = 0; p < figure->count; p++)
    for (int s = 0; s < figure->panels[p]->count; s++)
      put_data(&figure->panels[p]->series[s], figure->panels[p], block++, out);
  fputs("set multiplot\n", out);
  put_title(figure, &l, picture, out);
  block = 0;
  for (int p = 0; p < figure->count; p++) {
    const int bottom = l.height - l.title - (p / l.columns + 1) * PANEL_HEIGHT;
    /* Fractions are left to gnuplot, so that no locale's comma stands in them. */
    fprintf(out, "set origin %d/%d.0,%d/%d.0\nset size 1/%d.0,%d/%d.0\n", p % l.columns, l.columns, bottom,
            l.height, l.columns, PANEL_HEIGHT, l.height);
    put_panel(figure->panels[p], block, out);
    fputs("unset label 1\n", out);
    block += figure->panels[p]->count;
  }
  if (l.legend > 0) put_shared_legend(figure, &l, out);
  fputs("unset multiplot\n", out);
}
