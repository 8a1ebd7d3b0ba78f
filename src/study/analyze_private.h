/* What the parts of study/analyze share. */
#ifndef KAPPA_STUDY_ANALYZE_PRIVATE_H
#define KAPPA_STUDY_ANALYZE_PRIVATE_H

#include "study/analyze.h"
#include "train/run.h"

/* Runs the model over the tokens: fills loss, tokens, streams and curvatures (study/hidden_states.c). */
kp_status kp_analysis_read_states(kp_analysis *analysis, kp_trained *trained,
                                  const kp_analysis_options *options, kp_error *error);

/* Fills the matrices (study/weight_spectra.c). */
kp_status kp_analysis_read_weights(kp_analysis *analysis, const kp_parameters *parameters, kp_error *error);

/* Writes the figures (study/analyze_plot.c). */
kp_status kp_analysis_plot(const kp_analysis *analysis, const char *folder, kp_error *error);

#endif
