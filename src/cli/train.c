/* kappa train: trains a model and says how it goes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "cli/command.h"
#include "cli/train_start.h"
#include "train/settings.h"
#include "train/trainer.h"

typedef struct arguments {
  const char *config, *out, *init;
  kp_texts sets;
  kp_train_options options;
  bool quiet, keys;
  bool imported; /* the folder has the model of another program */
} arguments;

static const struct argp_option options[] = {
    {"out", 'o', "DIR", 0, "folder of the run (default: runs/ and the configuration's name)", 0},
    {"set", 's', "KEY=VALUE", 0, "override a key of the configuration; may be repeated", 0},
    {"init", 'i', "RUN[@WHICH]", 0,
     "start from the parameters of another run: its best ones, or WHICH: last, or a step. The model section "
     "is "
     "that run's where CONFIG, which may be left out, says nothing",
     0},
    {"resume", 'r', 0, 0, "go on with the run that CONFIG or --out names", 0},
    {"threads", 't', "N", 0, "threads (default: all cores)", 0},
    {"device", 'b', "NAME", 0, KP_DEVICE_HELP, 0},
    {"backend", 0, 0, OPTION_ALIAS, 0, 0},
    {"quiet", 'q', 0, 0, "print evaluations only", 0},
    {"keys", 'k', 0, 0, "list all keys of a configuration and stop", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'o': a->out = value; return 0;
  case 's': kp_texts_add(&a->sets, value); return 0;
  case 'i': a->init = value; return 0;
  case 'r': a->options.resume = true; return 0;
  case 't': a->options.threads = kp_parse_threads(value, state); return 0;
  case 'b': a->options.backend = kp_parse_backend(value, state); return 0;
  case 'q': a->quiet = true; return 0;
  case 'k': a->keys = true; return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->config, value, "configuration", state);
  case ARGP_KEY_END:
    if (a->config == NULL && !a->keys && a->init != NULL && a->out == NULL)
      argp_error(state, "which folder? Without a configuration --init needs --out");
    if (a->config == NULL && !a->keys && a->init == NULL && !(a->options.resume && a->out != NULL))
      argp_error(state, "which configuration?");
    return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {options,
                                 parse,
                                 "CONFIG\n--init RUN --out RUN2\n--resume RUN",
                                 "Train a model from a configuration file.\v"
                                 "Example:\n"
                                 "  kappa data get shakespeare_char\n"
                                 "  kappa train configs/mixed.yaml --set train.steps=500 --out runs/first\n"
                                 "  kappa train --resume runs/first\n"
                                 "  kappa train --init runs/first --set data.path=sst2 --out runs/second\n\n"
                                 "Ctrl-C finishes the step, saves, and says how to go on.",
                                 0,
                                 0,
                                 0};

static void print_step(const kp_progress *p) {
  char left[32], memory[32];
  printf("step %6lld/%lld  loss %.4f  |g| %.3f  lr %.2e  %.0f tok/s  %.0f ms  %s left  %s",
         (long long)p->step, (long long)p->steps, p->loss, p->gradient_norm, p->learning_rate,
         p->tokens_per_s, p->step_ms, kp_duration_text(p->seconds_left, left),
         kp_bytes_text((double)p->resident_bytes, memory));
  if (p->boundary_share > 0) printf("  boundary %.2g%%", 100 * p->boundary_share);
  if (p->skipped > 0) printf("  skipped %lld", (long long)p->skipped);
  putchar('\n');
}

static void print_progress(void *context, const kp_progress *p) {
  const arguments *a = context;
  if (p->reason != NULL) fprintf(stderr, "kappa train: skipped %s\n", p->reason);
  if (!a->quiet && !isnan(p->loss)) print_step(p);
  if (p->evaluated) {
    printf("step %6lld/%lld  validation loss %.4f", (long long)p->step, (long long)p->steps,
           p->validation_loss);
    if (!isnan(p->bits_per_byte)) printf("  %.4f bits per byte", p->bits_per_byte);
    if (p->step == 0 && !isnan(p->packed_share)) printf("  rows %.1f%% full", 100 * p->packed_share);
    if (!isnan(p->accuracy))
      printf("  accuracy %.4f  macro-F1 %.4f  MCC %.4f", p->accuracy, p->macro_f1, p->mcc);
    if (!isnan(p->entity_f1)) printf("  entity F1 %.4f", p->entity_f1);
    puts(p->best ? "  (best)" : "");
  }
  fflush(stdout);
}

/* runs/NAME for path/NAME.yaml */
static void default_folder(const char *config, char out[KP_PATH_SIZE]) {
  const char *name = kp_path_last_name(config), *dot = strrchr(name, '.');
  snprintf(out, KP_PATH_SIZE, "runs/%.*s", (int)(dot == NULL ? strlen(name) : (size_t)(dot - name)), name);
}

static int print_keys(void) {
  kp_error error = {0};
  char *text;
  size_t size;
  if (kp_config_describe(kp_training_schema(), &text, &size, &error) != KP_OK) return kp_print_error(&error);
  fputs(text, stdout);
  free(text);
  return KP_EXIT_OK;
}

/* The configuration of a new run; without a file it is what --init and --set say. */
static kp_status load_config(arguments *a, const char *folder, kp_config **config, kp_error *error) {
  char init[KP_PATH_SIZE + 16];
  KP_TRY(a->config != NULL
             ? kp_config_load(a->config, kp_training_schema(), a->sets.list, a->sets.count, config, error)
             : kp_config_parse("{}", 2, "--init", kp_training_schema(), a->sets.list, a->sets.count, config,
                               error));
  if (a->init != NULL) {
    KP_TRY(kp_path_check(a->init, error));
    snprintf(init, sizeof init, "train.init=\"%s\"", a->init);
    KP_TRY(kp_config_set(*config, init, error));
  }
  KP_TRY(kp_train_import(*config, folder, &a->imported, error));
  KP_TRY(kp_initial_complete(*config, error));
  kp_print_unused_keys(*config);
  return KP_OK;
}

int kp_command_train(int argc, char **argv) {
  arguments a = {.options = {.backend = kp_backend_cpu(),
                             .progress = print_progress,
                             .initialised = kp_print_transfers,
                             .stop = &kp_stop_requested}};
  kp_error error = {0};
  kp_config *config = NULL;
  char folder[KP_PATH_SIZE];
  kp_status status = KP_OK;
  kp_parse(&argp, argc, argv, &a);
  if (a.keys) return print_keys();
  a.options.context = &a;
  if (a.out != NULL)
    snprintf(folder, sizeof folder, "%s", a.out);
  else if (a.options.resume)
    snprintf(folder, sizeof folder, "%s", a.config);
  else
    default_folder(a.config, folder);
  if (a.options.resume && (a.sets.count > 0 || a.init != NULL))
    status = kp_fail(&error, KP_ERR_INPUT,
                     "a resumed run keeps its configuration: --set cannot change it, --init neither");
  if (status == KP_OK && !a.options.resume) status = load_config(&a, folder, &config, &error);
  if (status == KP_OK) {
    kp_catch_stop();
    status = kp_train(config, folder, &a.options, &error);
  }
  if (a.imported) kp_train_import_end(folder);
  kp_config_destroy(config);
  kp_texts_clear(&a.sets);
  if (status != KP_OK) return kp_print_error(&error);
  printf("done: %s\n", folder);
  return KP_EXIT_OK;
}
