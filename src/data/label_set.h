/* The names of the labels of a set: classes of sentences, or tags of words.
 *
 * While texts are read, a label gets the next free number at its first sight; kp_label_set_sort then numbers
 * the labels by the order of their bytes, so that numbers do not depend on the order of the examples. */
#ifndef KAPPA_DATA_LABEL_SET_H
#define KAPPA_DATA_LABEL_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

enum { KP_LABELS_MOST = 4096, KP_LABEL_LONGEST = 255 };

/* Zero-initialise; kp_label_set_clear frees what it holds. */
typedef struct kp_label_set {
  char **names;     /* (count), sorted by their bytes; owned */
  int32_t *numbers; /* (count), of the name at the same place */
  int32_t count, capacity;
  bool closed; /* a new name is an error */
} kp_label_set;

void kp_label_set_clear(kp_label_set *set);

/* The number of a name, which is added when it is new.  Empty and overlong names, one name too many, and a
 * new name in a closed set are errors. */
kp_status kp_label_set_add(kp_label_set *set, const char *name, size_t size, int32_t *number,
                           kp_error *error);

/* Numbers the names by their order, and writes what each old number became to `renumbered` (count). */
void kp_label_set_sort(kp_label_set *set, int32_t *renumbered);

/* Whether two sorted sets have the same names. */
bool kp_label_set_equal(const kp_label_set *a, const kp_label_set *b);

#endif
