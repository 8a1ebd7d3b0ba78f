#include "infer/logits.h"

#include <stdlib.h>

static kp_status check(const kp_trained *t, const int32_t *tokens, int64_t count, kp_error *error) {
  if (t->options.task != KP_TASK_LANGUAGE)
    return kp_fail(error, KP_ERR_INPUT, "%s gives labels, not logits of tokens", t->run);
  if (count < 1) return kp_fail(error, KP_ERR_INPUT, "no tokens");
  if (count > t->options.context)
    return kp_fail(error, KP_ERR_INPUT, "%lld tokens, but the model's context is %lld", (long long)count,
                   (long long)t->options.context);
  for (int64_t i = 0; i < count; i++)
    if (tokens[i] < 0 || tokens[i] >= t->options.vocabulary)
      return kp_fail(error, KP_ERR_INPUT, "token %lld is %d; the model has tokens 0 to %lld", (long long)i,
                     tokens[i], (long long)t->options.vocabulary - 1);
  return KP_OK;
}

static kp_status run(const kp_network *network, kp_executor *executor, const int32_t *tokens, double **logits,
                     kp_error *error) {
  kp_executor_write_int32(executor, network->tokens, tokens);
  kp_network_write_positions(network, executor);
  KP_TRY(kp_executor_run(executor, 0, network->graph->forward_count, error));
  *logits = malloc((size_t)kp_tensor_count(network->logits) * sizeof **logits);
  if (*logits == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the logits");
  kp_executor_read(executor, network->logits, *logits);
  return KP_OK;
}

kp_status kp_logits(const kp_trained *t, const int32_t *tokens, int64_t count, int threads, double **logits,
                    kp_error *error) {
  const kp_build build = {.mode = KP_BUILD_LOGITS, .batch = 1, .length = count};
  kp_network *network;
  kp_executor *executor = NULL;
  *logits = NULL;
  KP_TRY(check(t, tokens, count, error));
  KP_TRY(kp_network_create(&t->options, t->parameters, build, &network, error));
  kp_status status = kp_executor_create(network->graph, t->backend, t->parameters,
                                        (kp_executor_options){.threads = threads}, &executor, error);
  if (status == KP_OK) status = run(network, executor, tokens, logits, error);
  kp_executor_destroy(executor);
  kp_network_destroy(network);
  return status;
}
