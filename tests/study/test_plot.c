/* Figures: files that are pictures, whatever the texts and numbers. */
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "core/path.h"
#include "picture.h"
#include "study/plot.h"
#include "support/check_fails.h"
#include "support/temporary.h"

static kp_figure *simple_figure(const char *title, const char *label) {
  const double x[] = {1, 2, 3, 4}, y[] = {4, 2, 1.5, 1.25};
  kp_figure *figure = kp_figure_create(title, 2);
  kp_panel *panel = kp_figure_panel(figure, "step", "loss");
  kp_panel_series(panel, KP_LINE_THIN, NULL, kp_plot_colour(0), 4, x, y);
  kp_panel_series(panel, KP_LINE_POINTS, label, kp_plot_colour(0), 4, x, y);
  return figure;
}

static void a_figure_becomes_png_and_svg(void **state) {
  kp_error error = {0};
  kp_figure *figure = simple_figure("a title", "validation");
  check_ok(kp_figure_write(figure, temporary_path(state, "new/folder"), "loss", &error), &error);
  check_png(temporary_path(state, "new/folder/loss.png"));
  check_svg(temporary_path(state, "new/folder/loss.svg"), "a title");
  check_svg(temporary_path(state, "new/folder/loss.svg"), "validation");
  assert_int_equal(temporary_count(temporary_path(state, "new/folder")), 2);
  kp_figure_destroy(figure);
}

/* None of it may be taken for a command, a macro or mark-up. */
static void texts_are_shown_as_they_are(void **state) {
  kp_error error = {0};
  const char *mark = temporary_path(state, "mark");
  char text[256];
  snprintf(text, sizeof text, "run_a^2 {/Bold x} 'q' \"d\" `touch %s` @m \\n %%d κ±\n$d0", mark);
  kp_figure *figure = simple_figure(text, text);
  kp_panel_title(kp_figure_panel(figure, text, text), text);
  kp_figure_share_legend(figure);
  check_ok(kp_figure_write(figure, temporary_path(state, ""), "odd", &error), &error);
  check_png(temporary_path(state, "odd.png"));
  check_svg(temporary_path(state, "odd.svg"), "run_a^2 {/Bold x} ");
  check_svg(temporary_path(state, "odd.svg"), "κ±");
  assert_int_equal(kp_path_kind_of(mark), KP_PATH_MISSING);
  kp_figure_destroy(figure);
}

static void gaps_constants_and_empty_panels_are_drawn(void **state) {
  kp_error error = {0};
  const double x[] = {0, 1, 2, 3}, holes[] = {NAN, 1, INFINITY, 0}, same[] = {5, 5, 5, 5};
  kp_figure *figure = kp_figure_create(NULL, 3);
  kp_panel *panel = kp_figure_panel(figure, "x", "holes");
  panel->y.logarithmic = true;
  kp_panel_series(panel, KP_LINE, "holes", kp_plot_ramp(0.5), 4, x, holes);
  panel->legend = KP_LEGEND_RIGHT;
  kp_panel_series(kp_figure_panel(figure, "x", "constant"), KP_LINE_DASHED, "same", 0, 4, x, same);
  kp_panel_series(kp_figure_panel(figure, "x", "one point"), KP_LINE_POINTS, NULL, 0, 1, x, same);
  kp_panel_series(kp_figure_panel(figure, "x", "no number"), KP_LINE, "none", 0, 1, x, holes);
  kp_panel *empty = kp_figure_panel(figure, "x", "empty");
  empty->y.minimum = 0;
  empty->x.whole = true;
  check_ok(kp_figure_write(figure, temporary_path(state, ""), "gaps", &error), &error);
  check_png(temporary_path(state, "gaps.png"));
  check_svg(temporary_path(state, "gaps.svg"), "one point");
  kp_figure_destroy(figure);
}

static void a_missing_gnuplot_is_named(void **state) {
  kp_error error = {0};
  kp_figure *figure = simple_figure(NULL, "validation");
  char *path = strdup(getenv("PATH"));
  setenv("PATH", temporary_path(state, ""), 1);
  kp_status status = kp_figure_write(figure, temporary_path(state, ""), "loss", &error);
  setenv("PATH", path, 1);
  free(path);
  kp_figure_destroy(figure);
  assert_int_equal(status, KP_ERR_UNSUPPORTED);
  assert_non_null(strstr(error.message, "apt-get install gnuplot-nox"));
  assert_int_equal(kp_path_kind_of(temporary_path(state, "loss.png")), KP_PATH_MISSING);
}

/* A gnuplot that fails: its own words are passed on. */
static void a_failing_gnuplot_is_quoted(void **state) {
  kp_error error = {0};
  static const char program[] = "#!/bin/sh\necho no cairo here >&2\nexit 3\n";
  const char *fake = temporary_path(state, "gnuplot");
  kp_figure *figure = simple_figure(NULL, "validation");
  char *path = strdup(getenv("PATH"));
  temporary_write(fake, program, sizeof program - 1);
  assert_int_equal(chmod(fake, 0700), 0);
  setenv("PATH", temporary_path(state, ""), 1);
  kp_status status = kp_figure_write(figure, temporary_path(state, ""), "loss", &error);
  setenv("PATH", path, 1);
  free(path);
  kp_figure_destroy(figure);
  assert_int_equal(status, KP_ERR_IO);
  assert_non_null(strstr(error.message, "no cairo here"));
}

static void colours(void **state) {
  (void)state;
  assert_int_equal(kp_plot_ramp(0), 68 << 16 | 1 << 8 | 84);
  assert_int_equal(kp_plot_ramp(-1), kp_plot_ramp(0));
  assert_int_equal(kp_plot_ramp(1), 205 << 16 | 205 << 8 | 30);
  assert_int_equal(kp_plot_ramp(0.125), 71 << 16 | 44 << 8 | 122);
  assert_int_equal(kp_plot_colour(7), kp_plot_colour(0));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_figure_becomes_png_and_svg, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(texts_are_shown_as_they_are, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(gaps_constants_and_empty_panels_are_drawn, temporary_create,
                                      temporary_remove),
      cmocka_unit_test_setup_teardown(a_missing_gnuplot_is_named, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(a_failing_gnuplot_is_quoted, temporary_create, temporary_remove),
      cmocka_unit_test(colours),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
