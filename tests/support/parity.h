/* Reference cases on one backend. */
#ifndef KAPPA_TESTS_SUPPORT_PARITY_H
#define KAPPA_TESTS_SUPPORT_PARITY_H

#include "core/backend.h"

/* Runs every case of every folder of tests/goldens; a check that exceeds its tolerance fails the running
 * cmocka test. */
void check_goldens(const kp_backend *backend);

#endif
