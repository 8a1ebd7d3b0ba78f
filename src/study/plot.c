#include "study/plot.h"

#include <fcntl.h>
#include <errno.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/assert.h"
#include "core/atomic_file.h"
#include "core/directory.h"
#include "core/file.h"
#include "core/path.h"
#include "study/plot_private.h"

/* ---- the figure ---- */

kp_figure *kp_figure_create(const char *title, int columns) {
  kp_arena *arena = kp_arena_create();
  kp_figure *figure = kp_arena_take(arena, sizeof *figure);
  kp_assert(columns > 0, "a figure has at least one column, not %d", columns);
  *figure = (kp_figure){.title = kp_arena_text(arena, title), .columns = columns, .arena = arena};
  return figure;
}

void kp_figure_destroy(kp_figure *figure) {
  if (figure != NULL) kp_arena_destroy(figure->arena);
}

void kp_figure_share_legend(kp_figure *figure) {
  figure->shared_legend = true;
}

kp_panel *kp_figure_panel(kp_figure *figure, const char *x_label, const char *y_label) {
  kp_assert(figure->count < KP_FIGURE_PANELS, "a figure has at most %d panels", KP_FIGURE_PANELS);
  kp_panel *panel = kp_arena_take(figure->arena, sizeof *panel);
  *panel = (kp_panel){
      .figure = figure,
      .x = {.label = kp_arena_text(figure->arena, x_label), .minimum = NAN, .maximum = NAN},
      .y = {.label = kp_arena_text(figure->arena, y_label), .minimum = NAN, .maximum = NAN},
  };
  figure->panels[figure->count++] = panel;
  return panel;
}

void kp_panel_title(kp_panel *panel, const char *title) {
  panel->title = kp_arena_text(panel->figure->arena, title);
}

static const double *copy_of(kp_arena *arena, const double *values, size_t count) {
  double *copy = kp_arena_take(arena, (count + 1) * sizeof *copy);
  if (count > 0) memcpy(copy, values, count * sizeof *copy);
  return copy;
}

void kp_panel_series(kp_panel *panel, kp_series_style style, const char *label, uint32_t colour, size_t count,
                     const double *x, const double *y) {
  kp_arena *arena = panel->figure->arena;
  if (panel->count == panel->capacity) {
    const int capacity = panel->capacity == 0 ? 8 : 2 * panel->capacity;
    kp_series *grown = kp_arena_take(arena, (size_t)capacity * sizeof *grown);
    if (panel->count > 0) memcpy(grown, panel->series, (size_t)panel->count * sizeof *grown);
    panel->series = grown;
    panel->capacity = capacity;
  }
  panel->series[panel->count++] = (kp_series){.label = kp_arena_text(arena, label),
                                              .style = style,
                                              .colour = colour,
                                              .count = count,
                                              .x = copy_of(arena, x, count),
                                              .y = copy_of(arena, y, count)};
}

uint32_t kp_plot_colour(int index) {
  static const uint32_t colours[] = {0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x444444};
  return colours[index % (int)(sizeof colours / sizeof *colours)];
}

uint32_t kp_plot_ramp(double place) {
  /* Nine stops of matplotlib's viridis, without its palest end, which white paper swallows. */
  static const unsigned char stops[][3] = {{68, 1, 84},    {71, 44, 122},  {59, 81, 139},
                                           {44, 113, 142}, {33, 144, 141}, {39, 173, 129},
                                           {92, 200, 99},  {150, 208, 60}, {205, 205, 30}};
  const int last = (int)(sizeof stops / sizeof *stops) - 1;
  const double at = fmin(fmax(place, 0), 1) * last;
  const int low = at >= last ? last - 1 : (int)at;
  uint32_t colour = 0;
  for (int i = 0; i < 3; i++) {
    const double value = stops[low][i] + (at - low) * (stops[low + 1][i] - stops[low][i]);
    colour = colour << 8 | (uint32_t)lround(value);
  }
  return colour;
}

/* ---- the child process ---- */

/* The first line of what gnuplot complained about, for the message. */
static kp_status failed(FILE *complaint, int result, kp_error *error) {
  char text[600] = "";
  rewind(complaint);
  size_t size = fread(text, 1, sizeof text - 1, complaint);
  text[size] = 0;
  for (size_t i = 0; i < size; i++)
    if ((unsigned char)text[i] < ' ') text[i] = ' ';
  if (WIFSIGNALED(result))
    return kp_fail(error, KP_ERR_IO, "gnuplot was ended by signal %d", WTERMSIG(result));
  return kp_fail(error, KP_ERR_IO, "gnuplot failed: %s", size > 0 ? text : "it does not say why");
}

static kp_status start(FILE *script, FILE *picture, FILE *complaint, pid_t *process, kp_error *error) {
  static char program[] = "gnuplot", defaults[] = "--default-settings", input[] = "-";
  char *const arguments[] = {program, defaults, input, NULL};
  extern char **environ;
  posix_spawn_file_actions_t actions;
  if (posix_spawn_file_actions_init(&actions) != 0)
    return kp_fail(error, KP_ERR_MEMORY, "no memory to start gnuplot");
  int code = posix_spawn_file_actions_adddup2(&actions, fileno(script), STDIN_FILENO);
  if (code == 0) code = posix_spawn_file_actions_adddup2(&actions, fileno(picture), STDOUT_FILENO);
  if (code == 0) code = posix_spawn_file_actions_adddup2(&actions, fileno(complaint), STDERR_FILENO);
  if (code == 0) code = posix_spawnp(process, arguments[0], &actions, NULL, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (code == 0) return KP_OK;
  if (code == ENOENT)
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "plots need the program gnuplot, which is not installed: apt-get install gnuplot-nox");
  errno = code;
  return kp_fail_errno(error, KP_ERR_IO, "cannot start gnuplot");
}

static kp_status run_gnuplot(FILE *script, FILE *picture, FILE *complaint, kp_error *error) {
  pid_t process = -1;
  int result;
  rewind(script); /* flushes, and puts the shared place of the descriptor to the front */
  KP_TRY(start(script, picture, complaint, &process, error));
  while (waitpid(process, &result, 0) < 0)
    if (errno != EINTR) return kp_fail_errno(error, KP_ERR_IO, "cannot wait for gnuplot");
  return WIFEXITED(result) && WEXITSTATUS(result) == 0 ? KP_OK : failed(complaint, result, error);
}

/* What stands in `picture`, under its name. */
static kp_status save(FILE *picture, const char *path, kp_error *error) {
  kp_status status = KP_OK;
  fseek(picture, 0, SEEK_END);
  const long size = ftell(picture);
  rewind(picture);
  if (size <= 0) return kp_fail(error, KP_ERR_IO, "gnuplot drew nothing for %s", path);
  char *data = malloc((size_t)size);
  if (data == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %ld bytes of %s", size, path);
  if (fread(data, 1, (size_t)size, picture) != (size_t)size)
    status = kp_fail_errno(error, KP_ERR_IO, "cannot read what gnuplot drew for %s", path);
  if (status == KP_OK) status = kp_file_write_atomic(path, data, (size_t)size, error);
  free(data);
  return status;
}

static kp_status write_picture(const kp_figure *figure, kp_picture kind, const char *path, kp_error *error) {
  FILE *script = tmpfile(), *picture = tmpfile(), *complaint = tmpfile();
  kp_status status = KP_OK;
  if (script == NULL || picture == NULL || complaint == NULL)
    status = kp_fail_errno(error, KP_ERR_IO, "cannot make a temporary file for %s", path);
  if (status == KP_OK) {
    kp_figure_script(figure, kind, script);
    if (fflush(script) != 0 || ferror(script))
      status = kp_fail_errno(error, KP_ERR_IO, "cannot write a temporary file for %s", path);
  }
  if (status == KP_OK) status = run_gnuplot(script, picture, complaint, error);
  if (status == KP_OK) status = save(picture, path, error);
  if (script != NULL) fclose(script);
  if (picture != NULL) fclose(picture);
  if (complaint != NULL) fclose(complaint);
  return status;
}

kp_status kp_figure_write(const kp_figure *figure, const char *folder, const char *name, kp_error *error) {
  static const char *const endings[] = {[KP_PICTURE_PNG] = "png", [KP_PICTURE_SVG] = "svg"};
  KP_TRY(kp_directory_create(folder, error));
  for (int kind = KP_PICTURE_PNG; kind <= KP_PICTURE_SVG; kind++) {
    char path[KP_PATH_SIZE], file[256];
    snprintf(file, sizeof file, "%s.%s", name, endings[kind]);
    KP_TRY(kp_path_join(path, folder, file, error));
    KP_TRY(write_picture(figure, (kp_picture)kind, path, error));
  }
  return KP_OK;
}
