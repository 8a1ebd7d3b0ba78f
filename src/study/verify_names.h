/* Between a case's tensors, which are the original project's, and kappa's parameters
 * (interchange/originals_names.h). */
#ifndef KAPPA_STUDY_VERIFY_NAMES_H
#define KAPPA_STUDY_VERIFY_NAMES_H

#include "core/parameters.h"
#include "models/model.h"
#include "study/verify_private.h"

/* The case's values of one parameter under `prefix` ("param/", "grad/", …), put together; NULL in *values
 * when it has none.  For the caller to free. */
kp_status kp_case_parameter(const kp_case *c, const char *prefix, const kp_model_options *options,
                            const kp_parameter *parameter, double **values, kp_error *error);

/* The other way: their tensor `name` from kappa's parameters.  Elements that no rule speaks of stay. */
kp_status kp_case_theirs(const kp_case *c, const kp_model_options *options, const kp_parameters *parameters,
                         const char *name, double *theirs, int64_t their_count, kp_error *error);

#endif
