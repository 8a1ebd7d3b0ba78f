/* Option sets of all model families, and a small model built from one.
 *
 * The sets are generated: for every family, every value of every choice and switch of the model section of a
 * configuration by itself, then the products of the options that act on each other.  What a family refuses is
 * left out.  A family, a choice or a switch that is added later is in the list without a word here. */
#ifndef KAPPA_TESTS_MODEL_CASES_H
#define KAPPA_TESTS_MODEL_CASES_H

#include "core/executor.h"
#include "models/model.h"

enum {
  MODEL_BATCH = 2,
  MODEL_LENGTH = 7,
  MODEL_VOCABULARY = 11,
  MODEL_CONTEXT = 9,
};

typedef struct model_case {
  char name[384]; /* the settings that make it */
  kp_model_options options;
} model_case;

typedef struct model_cases {
  model_case *list;
  int count, capacity;
} model_cases;

model_cases model_cases_create(void);
void model_cases_destroy(model_cases *cases);

/* The options that the small base with these settings ("model.bias=false model.dropout=0.1") gives; destroy
 * with kp_model_options_destroy.  False when they are refused. */
bool model_options_of(const char *settings, kp_model_options *options);

/* Runs `function` as one cmocka test a case, with the case as its state. */
int model_cases_run(const char *group, void (*function)(void **state));

/* A model on a backend: parameters larger than training starts with, so that every nonlinearity shows, keyed
 * by their names; tokens and targets keyed by their places. */
typedef struct model_run {
  kp_parameters *parameters;
  kp_network *network;
  kp_executor *executor;
} model_run;

model_run model_run_create(const kp_model_options *options, const kp_backend *backend, kp_build_mode mode);
void model_run_destroy(model_run *run);

/* Values of all parameters of a table that has been allocated. */
void model_fill_parameters(kp_parameters *parameters);
/* The token at a place of the sequences. */
int32_t model_token(int64_t sequence, int64_t position);
/* Writes tokens (`changed` ≥ 0: another one there), positions, and targets and loss scale where there are. */
void model_run_write(model_run *run, int64_t changed);
/* Runs everything from zeroed gradients; fails the test on an error. */
void model_run_all(model_run *run);
/* The logits of a LOGITS network as double, (B, T, V); for the caller to free. */
double *model_run_logits(model_run *run);

/* The objective's derivative at the values `start` along `direction`, which holds zeros where nothing is
 * learned, from five points h apart: its error is of order h⁴.  Leaves other values behind. */
double model_run_derivative(model_run *run, const double *start, const double *direction, double h);

#endif
