/* Pictures of runs. */
#ifndef KAPPA_STUDY_RUN_PLOT_H
#define KAPPA_STUDY_RUN_PLOT_H

#include "study/compare.h"
#include "study/run_record.h"

/* Writes folder/run.png and .svg: losses, learning rate, norm of the gradient, step time, and where the run
 * has them curvature by block and the share of rows at the boundary. */
kp_status kp_plot_run(const kp_run_record *run, const char *folder, kp_error *error);

/* Writes folder/loss.png and .svg: validation losses (and training losses, smoothed) of all runs over tokens
 * and over seconds of training. */
kp_status kp_plot_comparison(const kp_comparison *comparison, const char *folder, kp_error *error);

/* Writes folder/twins.png and .svg: final losses less those of twins, with 95 % intervals; nothing when no
 * row has a twin. */
kp_status kp_plot_twins(const kp_comparison *comparison, const char *folder, kp_error *error);

/* Adds curvature of a place by block over training, one colour a block, dark for the first; false when the
 * run has none. */
struct kp_panel;
bool kp_plot_curvature(const kp_run_record *run, kp_place place, struct kp_panel *panel);

#endif
