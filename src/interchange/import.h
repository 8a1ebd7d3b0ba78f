/* Models of other programs become runs (train/run.h): to evaluate, sample, export and train further.
 *
 * An importer reads one format.  It says which kappa configuration the model is, and gives each of its
 * parameters by kappa's name; what is common (building the model, checking that everything was found and
 * everything was used, writing the run) is done once, in import.c. */
#ifndef KAPPA_INTERCHANGE_IMPORT_H
#define KAPPA_INTERCHANGE_IMPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "core/path.h"
#include "data/tokenizer.h"

typedef struct kp_import_options {
  const char *format; /* an importer's name; NULL: found by looking */
  const char *config; /* a configuration file, where the source does not say what the model is; or NULL */
  const char *const *sets; /* KEY=VALUE over the configuration */
  size_t set_count;
  const char *tokenizer; /* file or folder; NULL: the source's own, if it has one */
} kp_import_options;

enum { KP_IMPORT_NOTES = 2048 };

/* An opened source. */
typedef struct kp_imported {
  kp_config *config;            /* of the model; owned by whoever opened it */
  char tokenizer[KP_PATH_SIZE]; /* of the source; empty: none */
  char source[256];             /* "GPT-2 of transformers 4.57": for run.json */
  int64_t step;                 /* that it was trained for; 0: unknown */
  char notes[KP_IMPORT_NOTES];  /* what its user should know, lines (kp_import_note) */
  void *weights;                /* the importer's own */
} kp_imported;

typedef struct kp_importer {
  const char *name, *what; /* "gpt2", "GPT-2 of transformers: config.json and safetensors" */
  /* Whether the path looks like this format; looks at names and first bytes only. */
  bool (*recognises)(const char *path);
  kp_status (*open)(const char *path, const kp_import_options *options, kp_imported *imported,
                    kp_error *error);
  /* Writes the parameter of that name and shape; one that the source lacks is an error that names it. */
  kp_status (*read)(kp_imported *imported, const char *name, int dimensions, const int64_t *shape,
                    double *values, kp_error *error);
  /* A tensor of the source that no read has used and that means something; NULL: all were used. */
  const char *(*unused)(const kp_imported *imported);
  void (*close)(kp_imported *imported); /* not the config; also after `open` failed */
} kp_importer;

/* All importers, constant; each has a file of its own. */
const kp_importer *const *kp_importers(size_t *count);

/* ---- for importers ---- */

/* Settings of a model as an importer finds them, "key=value" each. */
typedef struct kp_import_settings {
  char list[48][160];
  size_t count;
} kp_import_settings;
void kp_import_set(kp_import_settings *settings, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The configuration that they make: the options' file (or nothing), these, then the options' own.  Owned by
 * the caller. */
kp_status kp_import_configure(const kp_import_settings *settings, const kp_import_options *options,
                              kp_config **config, kp_error *error);

/* Adds a line to the notes; what does not fit is left out. */
void kp_import_note(kp_imported *imported, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- */

/* What was imported. */
typedef struct kp_import_report {
  const char *format; /* the importer's name */
  char source[256];   /* kp_imported.source */
  char family[32];    /* of kappa */
  int64_t parameters; /* numbers */
  int64_t step;       /* of the checkpoint */
  int32_t vocabulary; /* of the tokenizer; 0: the run has none */
  char notes[KP_IMPORT_NOTES];
} kp_import_report;

/* Reads the model at `path` and writes it as a run in the folder `run`, which must not be there: its
 * configuration, tokenizer and a checkpoint at its step.  A failure leaves no run behind. */
kp_status kp_import(const char *path, const kp_import_options *options, const char *run,
                    kp_import_report *report, kp_error *error);

#endif
