#include "interchange/pickle_values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

kp_pickle_value *kp_pickle_new(kp_pickle *pickle, kp_pickle_kind kind) {
  kp_pickle_block *block = pickle->blocks;
  if (pickle->count == KP_PICKLE_MAX_VALUES) return NULL;
  if (block == NULL || block->count == KP_PICKLE_BLOCK) {
    block = malloc(sizeof *block);
    if (block == NULL) return NULL;
    block->next = pickle->blocks;
    block->count = 0;
    pickle->blocks = block;
  }
  kp_pickle_value *value = &block->values[block->count++];
  *value = (kp_pickle_value){.kind = kind};
  pickle->count++;
  return value;
}

bool kp_pickle_room(void **array, size_t *capacity, size_t count, size_t element_size) {
  if (count < *capacity) return true;
  const size_t larger = *capacity == 0 ? 16 : *capacity * 2;
  void *grown = realloc(*array, larger * element_size);
  if (grown == NULL) return false;
  *array = grown;
  *capacity = larger;
  return true;
}

bool kp_pickle_append(kp_pickle_value *list, kp_pickle_value *const *items, size_t count) {
  const size_t needed = list->list.count + count;
  if (needed > list->list.capacity) {
    /* Exactly at first: most lists never grow. */
    const size_t doubled = list->list.capacity * 2, capacity = needed > doubled ? needed : doubled;
    kp_pickle_value **grown = realloc(list->list.items, capacity * sizeof *grown);
    if (grown == NULL) return false;
    list->list.items = grown;
    list->list.capacity = capacity;
  }
  if (count > 0) memcpy(list->list.items + list->list.count, items, count * sizeof *items);
  list->list.count = needed;
  return true;
}

void kp_pickle_destroy(kp_pickle *pickle) {
  if (pickle == NULL) return;
  for (kp_pickle_block *block = pickle->blocks, *next; block != NULL; block = next) {
    next = block->next;
    for (size_t i = 0; i < block->count; i++) {
      const kp_pickle_kind kind = block->values[i].kind;
      if (kind == KP_PICKLE_TUPLE || kind == KP_PICKLE_LIST || kind == KP_PICKLE_DICT)
        free(block->values[i].list.items);
    }
    free(block);
  }
  free(pickle);
}

const kp_pickle_value *kp_pickle_root(const kp_pickle *pickle) {
  return pickle->root;
}

bool kp_pickle_text_is(kp_pickle_text text, const char *word) {
  return text.size == strlen(word) && memcmp(text.data, word, text.size) == 0;
}

bool kp_pickle_is_text(const kp_pickle_value *value, const char *word) {
  return value->kind == KP_PICKLE_TEXT && kp_pickle_text_is(value->text, word);
}

bool kp_pickle_is_global(const kp_pickle_value *value, const char *module, const char *name) {
  return value->kind == KP_PICKLE_GLOBAL && kp_pickle_text_is(value->global.module, module) &&
         kp_pickle_text_is(value->global.name, name);
}

/* Names are cut: a hostile one may have megabytes. */
static int cut(kp_pickle_text text) {
  return text.size < 60 ? (int)text.size : 60;
}

void kp_pickle_describe(const kp_pickle_value *value, char *out, size_t size) {
  static const char *const words[] = {"None",     "a boolean", "a whole number", "a whole number",
                                      "a number", "text",      "bytes",          "a tuple",
                                      "a list",   "a dict",    "a name"};
  if (value->kind == KP_PICKLE_GLOBAL || value->kind == KP_PICKLE_CALL) {
    const kp_pickle_value *global = value->kind == KP_PICKLE_CALL ? value->call.callee : value;
    snprintf(out, size, "%s %.*s.%.*s", value->kind == KP_PICKLE_CALL ? "a call of" : "the name",
             cut(global->global.module), global->global.module.data, cut(global->global.name),
             global->global.name.data);
  } else {
    snprintf(out, size, "%s", value->kind == KP_PICKLE_REFERENCE ? "a storage" : words[value->kind]);
  }
}
