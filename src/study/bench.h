/* Benchmarks: training steps side by side, and operators beside the machine's limits.
 *
 * Machines are shared and noisy, so everything that is compared is timed in
 * turn in one process (A B A B …), and reported as medians and ratios. */
#ifndef KAPPA_STUDY_BENCH_H
#define KAPPA_STUDY_BENCH_H

#include "core/config.h"
#include "train/trainer.h"

typedef struct kp_bench_options {
  const kp_backend *backend;
  int threads;
  int steps;  /* timed steps of each configuration */
  int warmup; /* untimed steps before */
} kp_bench_options;

typedef struct kp_bench_step {
  double step_ms, step_ms_best; /* median and least */
  double tokens_per_s;          /* at the median */
  double flops;                 /* of a step: matrix products and attention */
  int64_t parameters;
  kp_memory_plan plan;
  size_t resident_bytes; /* of the process when all steps are done */
  size_t device_bytes;   /* taken of a device's memory; 0 on the host */
} kp_bench_step;

/* Times `count` configurations in turn on random tokens: a whole step each time, of forward and backward
 * pass, norm of the gradient, and optimizer.  Every configuration must say model.vocabulary. */
kp_status kp_bench_steps(kp_config *const *configs, int count, const kp_bench_options *options,
                         kp_bench_step *results, kp_error *error);

/* One operator of a configuration's training step, summed over its nodes. */
typedef struct kp_bench_operator {
  const char *name;
  int nodes;
  double ms;           /* of a step */
  double bytes, flops; /* of a step: every input read once and every output written once */
} kp_bench_operator;

enum { KP_BENCH_OPERATORS = 64 };

/* Profiles the training step of one configuration.  `results` has room for KP_BENCH_OPERATORS; slowest first.
 */
kp_status kp_bench_operators(const kp_config *config, const kp_bench_options *options,
                             kp_bench_operator *results, int *count, kp_error *error);

#endif
