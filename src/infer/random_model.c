#include "infer/random_model.h"

#include <stdio.h>

#include "optim/manifold.h"
#include "train/settings.h"

static kp_status fill(kp_trained *model, uint64_t seed, kp_error *error) {
  const kp_build build = {.mode = KP_BUILD_LOGITS, .batch = 1, .length = 1};
  kp_network *network; /* building any graph fills the table of parameters */
  model->parameters = kp_parameters_create();
  KP_TRY(kp_network_create(&model->options, model->parameters, build, &network, error));
  kp_network_destroy(network);
  KP_TRY(kp_parameters_allocate(model->parameters, model->backend, false, error));
  kp_parameters_initialise(model->parameters, seed);
  kp_parameters_retract(model->parameters, 0);
  return KP_OK;
}

kp_status kp_random_model_open(const char *config, const char *const *overrides, size_t count, uint64_t seed,
                               const kp_backend *backend, kp_trained *model, kp_error *error) {
  *model = (kp_trained){.backend = backend};
  KP_TRY(kp_path_check(config, error));
  snprintf(model->run, sizeof model->run, "%s", config);
  kp_status status = kp_config_load(config, kp_training_schema(), overrides, count, &model->config, error);
  if (status == KP_OK) status = kp_model_options_read(model->config, NULL, &model->options, error);
  if (status == KP_OK) status = fill(model, seed, error);
  if (status != KP_OK) kp_trained_close(model);
  return status;
}
