/* The optimizer of a model: one front for all of its parameters.
 *
 * What a parameter's step is hangs on its group and on its manifold:
 *
 *   hidden matrices     AdamW, or Muon; with a "hyperball" kind each keeps the Frobenius norm that it has: it
 *                       does not decay, and is brought back to that norm after the step
 *   all others          AdamW; a curvature at its own multiple of the learning rate
 *   points              Riemannian Adam (Lorentz and stereographic tables, whatever their group)
 *   unit rows, columns  as above, and then back to unit length, in the same pass over memory
 *
 * Frozen parameters and those that no operator reads stay as they are.  Gradients may be overwritten by a
 * step.
 *
 * All of it runs in double on double buffers and in float on float ones.  The result of everything but Muon's
 * matrix products does not depend on the number of threads. */
#ifndef KAPPA_OPTIM_OPTIMIZER_H
#define KAPPA_OPTIM_OPTIMIZER_H

#include "optim/adamw.h"
#include "optim/gradients.h"
#include "optim/manifold.h"
#include "optim/muon.h"

typedef enum kp_optimizer_kind {
  KP_OPTIMIZER_ADAMW,
  KP_OPTIMIZER_MUON,
  KP_OPTIMIZER_HYPERBALL_ADAMW,
  KP_OPTIMIZER_HYPERBALL_MUON,
} kp_optimizer_kind;

typedef struct kp_optimizer_options {
  kp_optimizer_kind kind;
  kp_adamw_options adamw;
  kp_muon_options muon;
  bool tangent;             /* of unit rows' and columns' gradients only the tangent part counts */
  bool stochastic_rounding; /* of the narrow copies that a device's kernels read; else to nearest */
} kp_optimizer_options;

/* What a step does with one parameter. */
typedef enum kp_update_rule {
  KP_UPDATE_NONE,
  KP_UPDATE_ADAMW,
  KP_UPDATE_MUON,
  KP_UPDATE_RIEMANNIAN_ADAM,
} kp_update_rule;

typedef struct kp_update {
  kp_update_rule rule;
  bool keeps_norm; /* the Frobenius norm */
} kp_update;

kp_update kp_optimizer_update(const kp_optimizer_options *options, const kp_parameter *parameter);

/* "adamw", "muon, norm kept", "none": the update in words. */
const char *kp_update_text(kp_update update);

typedef struct kp_optimizer kp_optimizer;

/* Says in the parameters' table how many moments each has. */
void kp_optimizer_name_moments(kp_parameters *parameters, const kp_optimizer_options *options);

/* Of `parameters`, which must outlive it and be allocated for training in the host's memory.  0 threads are
 * all processors. */
kp_status kp_optimizer_create(kp_parameters *parameters, const kp_optimizer_options *options, int threads,
                              kp_optimizer **optimizer, kp_error *error);
void kp_optimizer_destroy(kp_optimizer *optimizer);

/* Bytes of scratch memory that kp_optimizer_create takes on a backend. */
size_t kp_optimizer_scratch_bytes(const kp_parameters *parameters, const kp_optimizer_options *options,
                                  const kp_backend *backend, int threads);

/* Step `t` (the first is 1) of all parameters: every learning rate times `rate_factor` (the schedule's),
 * every gradient times `gradient_scale` (a clipping factor). */
void kp_optimizer_step(kp_optimizer *optimizer, int64_t t, double rate_factor, double gradient_scale);

#endif
