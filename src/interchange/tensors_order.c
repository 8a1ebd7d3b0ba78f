#include "interchange/tensors_order.h"

#include <stdlib.h>
#include <string.h>

static int compare_names(const void *left, const void *right) {
  return strcmp(((const kp_tensors_entry *)left)->name, ((const kp_tensors_entry *)right)->name);
}

const kp_tensors_entry *kp_tensors_sort(kp_tensors_entry *entries, size_t count) {
  qsort(entries, count, sizeof *entries, compare_names);
  for (size_t i = 1; i < count; i++)
    if (strcmp(entries[i - 1].name, entries[i].name) == 0) return &entries[i];
  return NULL;
}

const kp_tensors_entry *kp_tensors_search(const kp_tensors_entry *entries, size_t count, const char *name) {
  const kp_tensors_entry key = {.name = name};
  return bsearch(&key, entries, count, sizeof *entries, compare_names);
}
