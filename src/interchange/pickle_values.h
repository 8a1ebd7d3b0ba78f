/* Memory of a pickle's values. */
#ifndef KAPPA_INTERCHANGE_PICKLE_VALUES_H
#define KAPPA_INTERCHANGE_PICKLE_VALUES_H

#include "interchange/pickle.h"

enum { KP_PICKLE_BLOCK = 1024 };

/* A block of values; they never move. */
typedef struct kp_pickle_block {
  struct kp_pickle_block *next;
  size_t count;
  kp_pickle_value values[KP_PICKLE_BLOCK];
} kp_pickle_block;

struct kp_pickle {
  kp_pickle_block *blocks; /* the newest first */
  size_t count;            /* of all values */
  kp_pickle_value *root;
};

/* A zeroed value of that kind; NULL when memory or KP_PICKLE_MAX_VALUES is spent. */
kp_pickle_value *kp_pickle_new(kp_pickle *pickle, kp_pickle_kind kind);

/* Puts the items behind those of a tuple, list or dict; false without memory. */
bool kp_pickle_append(kp_pickle_value *list, kp_pickle_value *const *items, size_t count);

/* Makes room for one more element in an array; false without memory. */
bool kp_pickle_room(void **array, size_t *capacity, size_t count, size_t element_size);

#endif
