/* The public interface of kappa: everything that a program may rely on.
 *
 *   kappa/version.h    which version this is
 *   kappa/error.h      how functions report what went wrong
 *   kappa/geometry.h   points, distances and maps in spaces of constant curvature
 *
 * Names begin with kp_ or KP_.  Functions keep no state; they may be called from any thread.
 * Link with CMake's kappa::kappa or with `pkg-config --libs kappa`. */
#ifndef KAPPA_KAPPA_H
#define KAPPA_KAPPA_H

#include "kappa/error.h"
#include "kappa/geometry.h"
#include "kappa/version.h"

#endif
