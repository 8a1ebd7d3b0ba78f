/* The schema that the tests of the configuration share: two tables with a
 * section in common, every type, every form of interval. */
#ifndef KAPPA_TESTS_CORE_CONFIG_EXAMPLE_H
#define KAPPA_TESTS_CORE_CONFIG_EXAMPLE_H

#include "core/config.h"

static const kp_config_row example_model_rows[] = {
    {"seed", KP_CONFIG_INTEGER, "1", NULL, "seed of all random numbers"},
    {"model.layers", KP_CONFIG_INTEGER, "12", "[1, 512]", "number of blocks"},
    {"model.heads", KP_CONFIG_INTEGER, "6", "[1, 64]", "attention heads"},
    {"model.curvature.kind", KP_CONFIG_CHOICE, "fixed", "fixed|parametric|tied|random", "how it is learned"},
    {"model.curvature.values", KP_CONFIG_REALS, "[-1, 0, 1]", "[-10, 10]", "curvature of each head"},
    {"model.tie", KP_CONFIG_BOOLEAN, "true", NULL, "the head shares the embedding"},
};
static const kp_config_row example_train_rows[] = {
    {"train.rate", KP_CONFIG_REAL, "6e-4", "(0, 1]", "learning rate"},
    {"train.betas", KP_CONFIG_REALS, "[0.9, 0.95]", "[0, 1)", "decay of the moments"},
    {"train.clip", KP_CONFIG_REAL, "1", "(0, inf)", "norm of the gradient"},
    {"train.milestones", KP_CONFIG_INTEGERS, "[]", "[0, inf)", "steps at which the rate drops"},
    {"train.offset", KP_CONFIG_REAL, "0", NULL, "any number"},
    {"model.width", KP_CONFIG_INTEGER, "384", "[1, 65536]", "width of the residual stream"},
    {"data.path", KP_CONFIG_STRING, NULL, NULL, "token file"},
    {"data.note", KP_CONFIG_STRING, "", NULL, "any text"},
};
static const kp_config_table example_model = {example_model_rows,
                                              sizeof example_model_rows / sizeof *example_model_rows};
static const kp_config_table example_train = {example_train_rows,
                                              sizeof example_train_rows / sizeof *example_train_rows};
static const kp_config_table *const example_tables[] = {&example_model, &example_train};
static const kp_schema example_schema = {.tables = example_tables, .count = 2};

#endif
