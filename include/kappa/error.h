/* Errors are values.
 *
 * Every function that can fail because of a user, a file, a network or the
 * machine returns a kp_status and takes a kp_error, which may be NULL, as its
 * last argument.  The library never prints and never exits.
 *
 *   kp_error error = {0};
 *   if (some_function(..., &error) != KP_OK) fprintf(stderr, "%s\n", error.message);
 */
#ifndef KAPPA_ERROR_H
#define KAPPA_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kp_status {
  KP_OK = 0,
  KP_ERR_INPUT,       /* what the user gave is wrong: a key, a value, a shape, a file's content */
  KP_ERR_IO,          /* the file system or the network refused */
  KP_ERR_MEMORY,      /* not enough memory */
  KP_ERR_NUMERIC,     /* a value that must be finite is not */
  KP_ERR_UNSUPPORTED, /* understood, but this build or backend cannot do it */
  KP_ERR_INTERRUPTED, /* the user asked to stop */
} kp_status;

/* One error: its status and one sentence that says what is wrong, where, and
 * what to do.  Zero-initialise before first use: kp_error error = {0}. */
typedef struct kp_error {
  kp_status status;
  char message[1024];
} kp_error;

#ifdef __cplusplus
}
#endif

#endif
