/* What a run writes down while it trains: metrics.jsonl and TensorBoard events. */
#ifndef KAPPA_TRAIN_METRICS_H
#define KAPPA_TRAIN_METRICS_H

#include "core/executor.h"
#include "core/tensorboard.h"
#include "train/trainer.h"

typedef struct kp_metrics {
  char path[KP_PATH_SIZE];
  kp_tensorboard *board;
} kp_metrics;

/* Opens the files of a run at `step`: what an interrupted process wrote after it is removed. */
kp_status kp_metrics_open(const char *run, int64_t step, kp_metrics *metrics, kp_error *error);
void kp_metrics_close(kp_metrics *metrics);

kp_status kp_metrics_step(kp_metrics *metrics, const kp_progress *progress, kp_error *error);
/* Also the curvature of every block and head, as the last pass left it (means over rows where it differs by
 * row). */
kp_status kp_metrics_evaluation(kp_metrics *metrics, const kp_progress *progress, int64_t tokens,
                                const kp_network *network, const kp_executor *executor, kp_error *error);

/* Share of rows · groups whose last pass met the boundary; NaN for flat models. */
double kp_boundary_share(const kp_network *network, const kp_executor *executor);

#endif
