/* The table of chosen algorithms and its file. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/cuda/products_choice.h"

enum { NUMBERS = sizeof(kp_product_key) / sizeof(int64_t), WORDS = sizeof(cublasLtMatmulAlgo_t) / 8 };

static const char heading[] = "kappa matrix products 3";

/* ---- in memory ---- */

kp_product_choice *kp_product_choices_find(kp_products *products, const kp_product_key *key) {
  for (int i = 0; i < products->count; i++)
    if (memcmp(&products->choices[i].key, key, sizeof *key) == 0) return &products->choices[i];
  return NULL;
}

kp_status kp_product_choices_add(kp_products *products, const kp_product_choice *choice, kp_error *error) {
  kp_product_choice *known = kp_product_choices_find(products, &choice->key);
  if (known != NULL) {
    *known = *choice;
    return KP_OK;
  }
  if (products->count == products->capacity) {
    const int capacity = products->capacity == 0 ? 64 : 2 * products->capacity;
    void *more = realloc(products->choices, (size_t)capacity * sizeof *products->choices);
    if (more == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for matrix products");
    products->choices = (kp_product_choice *)more;
    products->capacity = capacity;
  }
  products->choices[products->count++] = *choice;
  return KP_OK;
}

/* ---- the file ---- */

/* "NVIDIA H200" as part of a file's name. */
static void plain_name(const char *name, char *to, size_t size) {
  size_t i = 0;
  for (; name[i] != '\0' && i + 1 < size; i++) to[i] = isalnum((unsigned char)name[i]) ? name[i] : '-';
  to[i] = '\0';
}

/* Makes the folder; false where there is no place for it. */
static bool folder_of(char *folder, size_t size) {
  const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  char base[768];
  if (cache != NULL && cache[0] == '/')
    snprintf(base, sizeof base, "%s", cache);
  else if (home != NULL && home[0] == '/')
    snprintf(base, sizeof base, "%s/.cache", home);
  else
    return false;
  mkdir(base, 0777);
  if (snprintf(folder, size, "%s/kappa", base) >= (int)size) return false;
  mkdir(folder, 0777);
  return access(folder, W_OK) == 0;
}

static bool read_line(const char *line, kp_product_choice *choice) {
  int64_t *number = (int64_t *)&choice->key;
  char *end;
  for (int i = 0; i < NUMBERS; i++) {
    number[i] = strtoll(line, &end, 10);
    if (end == line) return false;
    line = end;
  }
  choice->maker = strtoll(line, &end, 10);
  if (end == line || choice->maker < KP_MAKER_LIBRARY || choice->maker > KP_MAKER_TILES) return false;
  line = end;
  for (int i = 0; i < WORDS; i++) {
    choice->algorithm.data[i] = strtoull(line, &end, 16);
    if (end == line) return false;
    line = end;
  }
  return *line == '\n';
}

void kp_product_choices_load(kp_products *products, const kp_cuda *cuda) {
  cudaDeviceProp properties;
  char folder[800], name[128], line[1024];
  if (cudaGetDeviceProperties(&properties, cuda->index) != cudaSuccess) return;
  if (!folder_of(folder, sizeof folder)) return;
  plain_name(properties.name, name, sizeof name);
  snprintf(products->path, sizeof products->path, "%s/products-%s-%zu.txt", folder, name,
           cublasLtGetVersion());
  FILE *file = fopen(products->path, "r");
  if (file == NULL) return;
  const bool known =
      fgets(line, sizeof line, file) != NULL && strncmp(line, heading, sizeof heading - 1) == 0;
  while (known && fgets(line, sizeof line, file) != NULL) {
    kp_product_choice choice = {};
    if (read_line(line, &choice) && kp_product_choices_add(products, &choice, NULL) != KP_OK) break;
  }
  fclose(file);
}

static void write_line(FILE *file, const kp_product_choice *choice) {
  const int64_t *number = (const int64_t *)&choice->key;
  for (int i = 0; i < NUMBERS; i++) fprintf(file, "%lld ", (long long)number[i]);
  fprintf(file, "%lld ", (long long)choice->maker);
  for (int i = 0; i < WORDS; i++)
    fprintf(file, "%016llx%c", (unsigned long long)choice->algorithm.data[i], i + 1 < WORDS ? ' ' : '\n');
}

/* A new file takes the old one's place at once: readers never see half of one.  Failures cost a measurement
 * next time and nothing else. */
void kp_product_choices_save(const kp_products *products) {
  char temporary[1100];
  if (products->path[0] == '\0') return;
  snprintf(temporary, sizeof temporary, "%s.%ld", products->path, (long)getpid());
  FILE *file = fopen(temporary, "w");
  if (file == NULL) return;
  fprintf(file, "%s\n", heading);
  for (int i = 0; i < products->count; i++)
    if (products->choices[i].maker != KP_MAKER_PLAIN) write_line(file, &products->choices[i]);
  const bool written = !ferror(file);
  if (fclose(file) != 0 || !written || rename(temporary, products->path) != 0) remove(temporary);
}
