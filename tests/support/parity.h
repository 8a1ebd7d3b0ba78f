/* Runs every case under tests/goldens on one backend. */
#ifndef KAPPA_TESTS_SUPPORT_PARITY_H
#define KAPPA_TESTS_SUPPORT_PARITY_H

#include "core/backend.h"

/* Fails the running cmocka test when a check of any case in the folder exceeds its tolerance. */
void check_cases(const char *folder, const kp_backend *backend);

/* The case in the folder `path` alone. */
void check_case(const char *path, const kp_backend *backend);

#endif
