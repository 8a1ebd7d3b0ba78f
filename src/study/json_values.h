/* Lists and tables of numbers as JSON; what is not finite becomes null. */
#ifndef KAPPA_STUDY_JSON_VALUES_H
#define KAPPA_STUDY_JSON_VALUES_H

#include <jansson.h>
#include <stdint.h>

json_t *kp_json_list(const double *values, int64_t count);

/* A list of lists (rows, columns). */
json_t *kp_json_table(const double *values, int64_t rows, int64_t columns);

#endif
