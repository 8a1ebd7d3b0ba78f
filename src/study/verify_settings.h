/* A case's configuration, in the original project's option names, as kappa's. */
#ifndef KAPPA_STUDY_VERIFY_SETTINGS_H
#define KAPPA_STUDY_VERIFY_SETTINGS_H

#include "models/model.h"
#include "study/verify_private.h"

/* Destroy the options with kp_model_options_destroy. */
kp_status kp_case_options(const kp_case *c, kp_model_options *options, kp_error *error);

#endif
