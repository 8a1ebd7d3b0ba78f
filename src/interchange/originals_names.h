/* Between the tensors of the original projects, as they name them and lay them out, and kappa's parameters.
 *
 * A parameter is put together from one or several of their tensors: queries, keys and values stand in one
 * matrix here, the time column of a Lorentz map in a vector of its own.  A rule says where one of their
 * tensors goes.  A parameter without a rule has the same name and layout in both. */
#ifndef KAPPA_INTERCHANGE_ORIGINALS_NAMES_H
#define KAPPA_INTERCHANGE_ORIGINALS_NAMES_H

#include "core/error.h"
#include "core/parameters.h"
#include "models/model.h"

typedef enum kp_original_columns {
  KP_COLUMNS_ALL,
  KP_COLUMNS_TIME,       /* column 0 */
  KP_COLUMNS_SPACE,      /* the other columns */
  KP_COLUMNS_TIME_HEADS, /* column 0 of each head's */
  KP_COLUMNS_SPACE_HEADS,
} kp_original_columns;

typedef struct kp_original_rule {
  const char *ours, *theirs; /* %d stands for the block; in `theirs` a second %d for the expert */
  int part, parts;           /* of `parts` equal ranges of rows, this one; parts 0: one a expert */
  kp_original_columns columns;
} kp_original_rule;

/* The rules of a family by its name there ("ngpt", "gpt-rope", "helm-d", "helm-mice"); *count may be 0. */
const kp_original_rule *kp_original_rules(const char *family, int *count);

/* Whether `name` is `pattern` with a number for its %d; the number is left in *block. */
bool kp_original_matches(const char *pattern, const char *name, int *block);

/* Where their tensors are: gives the values of one for the caller to free, NULL when it is not there. */
typedef struct kp_original_source {
  kp_status (*read)(void *context, const char *name, double **values, int64_t *count, kp_error *error);
  void *context;
} kp_original_source;

/* A parameter of kappa. */
typedef struct kp_original_shape {
  const char *name;
  int dimensions;
  const int64_t *shape;
} kp_original_shape;

typedef struct kp_original_found {
  bool any;          /* one of its tensors was there */
  char missing[256]; /* the first that was not; empty: none */
} kp_original_found;

/* Puts a parameter together in `values`; elements whose tensors are missing stay. */
kp_status kp_original_parameter(const char *family, const kp_original_source *source, int64_t heads,
                                const kp_original_shape *p, double *values, kp_original_found *found,
                                kp_error *error);

/* The other way: their tensor `name` from kappa's parameters.  Elements that no rule speaks of stay. */
kp_status kp_original_theirs(const char *family, int64_t heads, const kp_parameters *parameters,
                             const char *name, double *theirs, int64_t their_count, kp_error *error);

#endif
