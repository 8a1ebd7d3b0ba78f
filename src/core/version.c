/* The library's own version, compiled in. */
#include "kappa/version.h"

const char *kp_version(void) {
  return KP_VERSION;
}
