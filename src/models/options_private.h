/* Readers of the parts of the model section.  Internal to src/models/options*.c. */
#ifndef KAPPA_MODELS_OPTIONS_PRIVATE_H
#define KAPPA_MODELS_OPTIONS_PRIVATE_H

#include "models/model.h"

/* Read the keys under "model.curvature", "model.attention", "model.feed_forward" and "model.experts" into
 * `options`, whose sizes and residual are read. */
kp_status kp_read_stream_curvature(const kp_config *config, kp_model_options *options, kp_error *error);
kp_status kp_read_attention(const kp_config *config, kp_model_options *options, kp_error *error);
kp_status kp_read_feed_forward(const kp_config *config, kp_model_options *options, kp_error *error);

/* The keys `prefix`.mode and .value.  The list has one value, one a layer, one a group, or one a layer and
 * group. */
kp_status kp_read_curvature_values(const kp_config *config, const char *prefix,
                                   const kp_model_options *options, int64_t groups,
                                   kp_curvature_options *curvature, kp_error *error);
/* And .map: what it cannot reach is refused. */
kp_status kp_read_curvature(const kp_config *config, const char *prefix, const kp_model_options *options,
                            int64_t groups, kp_curvature_options *curvature, kp_error *error);

/* Refuses what does not fit together, with a sentence that says why and what does. */
kp_status kp_check_combination(const kp_config *config, const kp_model_options *options, kp_error *error);

#endif
