/* Where a run's first parameters come from when they are not drawn: another run's (train.init).
 *
 * Parameters of the same name and shape are copied.  Of a table of tokens or positions that is longer or
 * shorter the rows that both have are copied.  All others are drawn as in a run from scratch, a classifier's
 * head for other labels too.  Moments and the step count start afresh, and the new run's first checkpoint is
 * written at once, so that it never needs the other run again. */
#ifndef KAPPA_TRAIN_INITIAL_H
#define KAPPA_TRAIN_INITIAL_H

#include "train/data_source.h"
#include "train/run.h"

/* What became of a parameter. */
typedef enum kp_transfer_kind {
  KP_TRANSFER_COPIED,
  KP_TRANSFER_ROWS,  /* copied in part: a table of another length */
  KP_TRANSFER_NEW,   /* the source has none of that name */
  KP_TRANSFER_OTHER, /* the source's has another shape, or is for other labels: drawn */
  KP_TRANSFER_LEFT,  /* the source's alone: not used */
} kp_transfer_kind;
enum { KP_TRANSFER_KINDS = KP_TRANSFER_LEFT + 1 };

typedef struct kp_transfer {
  kp_transfer_kind kind;
  char name[128];
  int64_t numbers;    /* that were copied */
  int64_t rows, from; /* of KP_TRANSFER_ROWS: in the new table, and in the source's */
} kp_transfer;

typedef struct kp_transfers {
  char run[KP_PATH_SIZE]; /* the source */
  int64_t step;
  const char *family;     /* of the source */
  const char *note;       /* on the outputs of a curved model from a flat one (train/curving.h), or NULL */
  bool tokenizer_unknown; /* the source does not say what its tokens are */
  kp_transfer *list;
  int count;
} kp_transfers;

void kp_transfers_clear(kp_transfers *transfers);

/* The run and the checkpoint of a value of train.init, "RUN[@best|last|STEP]"; best unless said.  `which` is
 * part of `text`, or a constant. */
kp_status kp_initial_name(const char *text, char run[KP_PATH_SIZE], const char **which, kp_error *error);

/* Whether the configuration leaves model keys to the run that train.init names: a resolved one does not. */
bool kp_initial_completes(const kp_config *config);

/* Gives the model keys that `config` leaves out the values of the run that train.init names, before what a
 * family that differs from that run's presets for itself.  Does nothing unless kp_initial_completes. */
kp_status kp_initial_complete(kp_config *config, kp_error *error);

/* Opens the source that train.init names, and checks that the data has its tokens.  Gives config what hangs
 * on both: the task, and the larger vocabulary.  Close with kp_trained_close. */
kp_status kp_initial_open(kp_config *config, const kp_data_source *data, const kp_backend *backend,
                          kp_trained *source, kp_error *error);

/* Copies into the initialised parameters of `model`, which is for `data`.  Clear `transfers`, also after a
 * failure. */
kp_status kp_initial_copy(const kp_trained *source, const kp_data_source *data, const kp_model_options *model,
                          kp_parameters *parameters, kp_transfers *transfers, kp_error *error);

#endif
