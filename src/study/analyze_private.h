/* What the parts of study/analyze share. */
#ifndef KAPPA_STUDY_ANALYZE_PRIVATE_H
#define KAPPA_STUDY_ANALYZE_PRIVATE_H

#include "study/analyze.h"
#include "train/data_source.h"
#include "train/run.h"

/* Runs the model over the tokens: fills loss, tokens, streams, curvatures, experts and seams
 * (study/hidden_states.c). */
kp_status kp_analysis_read_states(kp_analysis *analysis, kp_trained *trained, const kp_data_source *data,
                                  const kp_analysis_options *options, kp_error *error);

/* Embeddings against the frequencies of the training text (study/embedding_study.c). */
kp_status kp_analysis_read_embedding(kp_analysis *analysis, const kp_trained *trained,
                                     const kp_data_source *data, kp_error *error);

/* Fills the matrices (study/weight_spectra.c). */
kp_status kp_analysis_read_weights(kp_analysis *analysis, const kp_parameters *parameters, kp_error *error);

/* δ of rows (count, columns) and of the clouds beside it.  `space` NULL: flat; otherwise rows are tangent
 * vectors of it (study/tree_likeness.c). */
kp_status kp_tree_likeness_measure(int64_t count, int64_t columns, const double *rows,
                                   const kp_product_space *space, kp_tree_likeness *result, kp_error *error);
json_t *kp_tree_likeness_json(const kp_tree_likeness *trees);

/* The part of the object that is about curvature (study/analyze_curvature.c). */
json_t *kp_analysis_curvature_json(const kp_analysis *analysis);

/* Writes the figures (study/analyze_plot.c), and those of curved space (study/analyze_plot_geometry.c). */
kp_status kp_analysis_plot(const kp_analysis *analysis, const char *folder, kp_error *error);
kp_status kp_analysis_plot_geometry(const kp_analysis *analysis, const char *title, const char *folder,
                                    kp_error *error);
kp_status kp_analysis_plot_training(const kp_analysis *analysis, const char *title, const char *folder,
                                    kp_error *error);

#endif
