/* The version of the library: MAJOR.MINOR.PATCH.  While MAJOR is 0, programs must be compiled anew for a new
 * MINOR. */
#ifndef KAPPA_VERSION_H
#define KAPPA_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif

/* The version of these headers. */
#define KP_VERSION "0.1.0"

/* The version of the library that the program is linked with, in the same form. */
const char *kp_version(void);

#ifdef __cplusplus
}
#endif

#endif
