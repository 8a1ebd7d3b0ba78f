/* From flat to curved: a model with curvature that starts from the parameters of a flat one.
 *
 * At κ = 0 Möbius addition is addition, the gyromidpoint is the mean, and the logarithm at the origin is the
 * vector itself.  So a stereographic stream or curved values begin with the very outputs of the flat model,
 * and leave them as κ learns.  A geodesic score does so only among keys of one length: -β d² at κ = 0 is
 * 8β s² q·k less 4β s² |k|². */
#ifndef KAPPA_TRAIN_CURVING_H
#define KAPPA_TRAIN_CURVING_H

#include "models/model.h"

/* Where `config` curves what is flat in `source`, and does not say how: learned curvatures that start at 0,
 * and the reference point at which the stream is the flat one. */
kp_status kp_curving_complete(kp_config *config, const kp_config *source, kp_error *error);

/* The first sharpness b, β = exp b, of squared distances whose products of queries and keys weigh as in the
 * source's dot products; false when there is none. */
bool kp_curving_sharpness(const kp_model_options *source, const kp_model_options *model, double *sharpness);

/* What becomes of the outputs, one sentence; NULL when nothing is curved that was flat. */
const char *kp_curving_note(const kp_model_options *source, const kp_model_options *model);

#endif
