/* The fair flat twin of a curved run: the run that differs from it in curvature alone.
 *
 * A family of curved models names its twin (kp_family.twin): for the
 * mixed-curvature transformer, whose sub-layers read the change from the
 * previous token, gpt with token_difference.  Its gain over a plain gpt says
 * nothing of curvature, since the token difference alone explains much of it. */
#ifndef KAPPA_STUDY_TWIN_H
#define KAPPA_STUDY_TWIN_H

#include "study/run_record.h"

enum { KP_TWIN_KEYS = 8 };

typedef struct kp_twin_difference {
  int count;                      /* keys that differ from those of a fair twin; 0: it is one */
  const char *keys[KP_TWIN_KEYS]; /* the first of them; they belong to the schema */
} kp_twin_difference;

/* How `flat` differs from a fair twin of `curved`.  Keys of curvature, the seed, and those that decide only
 * what is written or how fast (train.recompute, train.keep, …) do not count. */
kp_status kp_twin_compare(const kp_run_record *curved, const kp_run_record *flat,
                          kp_twin_difference *difference, kp_error *error);

/* Writes what makes a flat twin of `curved`, as one types it: "--set model.family=gpt …". */
void kp_twin_words(const kp_run_record *curved, char *text, size_t size);

/* The kinds of run that a curved run is held against. */
typedef enum kp_twin_kind {
  KP_TWIN_FLAT,    /* differs in curvature alone */
  KP_TWIN_BOUNDED, /* the flat twin, its stream drawn back into a ball as large as that of the curved stream
                    */
  KP_TWIN_FROZEN,  /* the same curved model, whose curvatures stay where they start */
  KP_TWINS,
} kp_twin_kind;

/* Whether a curved stream has a boundary, so that a bounded flat one can stand beside it. */
bool kp_twin_wants_bounded(const kp_run_record *curved);

/* Whether `other` is the bounded twin of `curved`. */
kp_status kp_twin_is_bounded(const kp_run_record *curved, const kp_run_record *other, bool *bounded,
                             kp_error *error);

/* Whether `other` is the same model as `learned`, whose curvatures are trained, but for these: they stay
 * where they start, by train.curvature_rate 0 or by fixed modes with the same values. */
bool kp_twin_is_frozen(const kp_run_record *learned, const kp_run_record *other);

/* Whether a key has no influence on what a run learns. */
bool kp_key_is_bookkeeping(const char *key);

#endif
