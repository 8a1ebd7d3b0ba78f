/* Between a case's tensors, named and laid out by the original project, and kappa's parameters.
 *
 * A parameter is put together from one or several of their tensors: queries, keys and values stand in one
 * matrix here, the time column of a Lorentz map in a vector of its own.  A rule says where one of their
 * tensors goes.  A parameter without a rule has the same name and layout in both. */
#ifndef KAPPA_STUDY_VERIFY_NAMES_H
#define KAPPA_STUDY_VERIFY_NAMES_H

#include "core/parameters.h"
#include "models/model.h"
#include "study/verify_private.h"

typedef enum kp_name_columns {
  KP_COLUMNS_ALL,
  KP_COLUMNS_TIME,       /* column 0 */
  KP_COLUMNS_SPACE,      /* the other columns */
  KP_COLUMNS_TIME_HEADS, /* column 0 of each head's */
  KP_COLUMNS_SPACE_HEADS,
} kp_name_columns;

typedef struct kp_name_rule {
  const char *ours, *theirs; /* %d stands for the block; in `theirs` a second %d for the expert */
  int part, parts;           /* of `parts` equal ranges of rows, this one; parts 0: one a expert */
  kp_name_columns columns;
} kp_name_rule;

/* The rules of a case's family; *count may be 0. */
const kp_name_rule *kp_name_rules(const char *family, int *count);

/* The case's values of one parameter under `prefix` ("param/", "grad/", …), put together; NULL in *values
 * when it has none.  For the caller to free. */
kp_status kp_case_parameter(const kp_case *c, const char *prefix, const kp_model_options *options,
                            const kp_parameter *parameter, double **values, kp_error *error);

/* The other way: their tensor `name` from kappa's parameters.  Elements that no rule speaks of stay. */
kp_status kp_case_theirs(const kp_case *c, const kp_model_options *options, const kp_parameters *parameters,
                         const char *name, double *theirs, int64_t their_count, kp_error *error);

#endif
