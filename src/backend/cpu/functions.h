/* What the fast backend offers beside its kernels: passes over flat float
 * buffers, for the optimizer and the benchmarks, one table per instruction set.
 * All run on the calling thread. */
#ifndef KAPPA_BACKEND_CPU_FUNCTIONS_H
#define KAPPA_BACKEND_CPU_FUNCTIONS_H

#include <stdint.h>

/* One AdamW step in the form the pass needs it; optim/adamw.h has the mathematics. */
typedef struct kp_adamw_factors {
  float gradient_scale;
  float keep;                    /* 1 - learning rate · weight decay */
  float new_mean, new_square;    /* 1 - β₁, 1 - β₂ */
  float old_square;              /* β₂ */
  float step;                    /* learning rate / (1 - β₁ᵗ) */
  float inverse_root_correction; /* 1 / √(1 - β₂ᵗ) */
  float epsilon;
} kp_adamw_factors;

typedef struct kp_cpu_functions {
  /* One step on `count` parameters. */
  void (*adamw)(float *value, const float *gradient, float *mean, float *square, int64_t count,
                const kp_adamw_factors *factors);
  /* Σ x², in double. */
  double (*square_sum)(const float *x, int64_t count);
  /* y = x. */
  void (*copy)(const float *x, float *y, int64_t count);
  /* Σ x in float: nothing but reading. */
  float (*read)(const float *x, int64_t count);
} kp_cpu_functions;

#endif
