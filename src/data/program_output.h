/* What a program of the system prints, without a shell in between. */
#ifndef KAPPA_DATA_PROGRAM_OUTPUT_H
#define KAPPA_DATA_PROGRAM_OUTPUT_H

#include <stddef.h>

#include "core/error.h"

/* Runs `arguments` (closed by NULL; the first is looked up in PATH) with empty standard input and takes its
 * standard output, at most `maximum` bytes.  Its error messages are dropped.  The caller frees *output, which
 * has a zero behind its *size bytes.  KP_ERR_UNSUPPORTED means that there is no such program. */
kp_status kp_program_output(const char *const *arguments, size_t maximum, char **output, size_t *size,
                            kp_error *error);

#endif
