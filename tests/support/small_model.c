#include "support/small_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"

static void scale_weights(kp_parameters *parameters, double factor) {
  for (int p = 0; p < parameters->count; p++) {
    const kp_parameter *one = &parameters->list[p];
    if (one->group > KP_GROUP_TABLE) continue;
    double *values = malloc((size_t)one->count * sizeof *values);
    assert_non_null(values);
    kp_parameters_read(parameters, parameters->values, p, values);
    for (int64_t i = 0; i < one->count; i++) values[i] *= factor;
    kp_parameters_write(parameters, parameters->values, p, values);
    free(values);
  }
}

void small_model_open(const kp_backend *backend, const char *shape, const char *words, double factor,
                      small_model *m) {
  const char *sets[8];
  size_t count = 0;
  char copy[512];
  kp_error error = {0};
  kp_network *network;
  snprintf(copy, sizeof copy, "%s", words);
  for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) sets[count++] = word;
  check_ok(kp_config_parse(shape, strlen(shape), "shape", kp_model_schema(), sets, count, &m->config, &error),
           &error);
  check_ok(kp_model_options_read(m->config, NULL, &m->options, &error), &error);
  m->parameters = kp_parameters_create();
  check_ok(kp_network_create(&m->options, m->parameters,
                             (kp_build){.mode = KP_BUILD_LOGITS, .batch = 1, .length = 1}, &network, &error),
           &error);
  kp_network_destroy(network);
  check_ok(kp_parameters_allocate(m->parameters, backend, false, &error), &error);
  kp_parameters_initialise(m->parameters, 5);
  scale_weights(m->parameters, factor);
}

void small_model_close(small_model *m) {
  kp_parameters_destroy(m->parameters);
  kp_model_options_destroy(&m->options);
  kp_config_destroy(m->config);
}
