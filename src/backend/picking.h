/* Choosing the next tokens on a device, so that passes of generation queue behind one another: what a sampler
 * (infer/sampler.h) would choose from the same logits, where its options allow.
 *
 * The choice goes to the host, and to the inputs of the next pass, whose positions move on with it. */
#ifndef KAPPA_BACKEND_PICKING_H
#define KAPPA_BACKEND_PICKING_H

#include "core/device.h"

enum {
  KP_PICK_MOST = 1024,   /* candidates: the largest top-k */
  KP_PICK_NONE = -1,     /* not chosen yet: what the host writes before */
  KP_PICK_BAD_LOGIT = -2 /* and less: -2 - t where the logit of token t is not finite */
};

typedef struct kp_picking {
  const void *logits; /* (B, V) with that pitch, of `size` bytes each: float or bfloat16 */
  int64_t batch, vocabulary, pitch;
  size_t size;
  double temperature, top_p, min_p; /* temperature 0: the largest logit */
  int64_t top_k;                    /* 1 to KP_PICK_MOST, where there is a temperature */
  /* In the device's memory: inputs of the next pass, and how many choices were made for each sequence. */
  int32_t *tokens, *positions, *start, *count; /* (B), (B), (1), (B) */
  const double *uniforms;                      /* (choices, B), each in [0, 1) */
  int32_t *picked;                             /* (choices, B) in page-locked memory of the host */
} kp_picking;

typedef struct kp_picking_driver {
  /* Submits one choice for every sequence; it can be recorded. */
  kp_status (*pick)(kp_device *device, const kp_picking *picking, kp_error *error);
  /* Waits until the device has written to a place in page-locked memory. */
  kp_status (*await)(kp_device *device, const int32_t *place, kp_error *error);
} kp_picking_driver;

#endif
