/* Entries of tensors in the order of their names. */
#ifndef KAPPA_INTERCHANGE_TENSORS_ORDER_H
#define KAPPA_INTERCHANGE_TENSORS_ORDER_H

#include "interchange/tensors.h"

/* Sorts by name, ascending.  An entry that has the name of another, or NULL: all names differ. */
const kp_tensors_entry *kp_tensors_sort(kp_tensors_entry *entries, size_t count);

/* The entry of that name among sorted ones, or NULL. */
const kp_tensors_entry *kp_tensors_search(const kp_tensors_entry *entries, size_t count, const char *name);

#endif
