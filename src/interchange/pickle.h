/* Python pickles read as data: nothing in one is ever executed.
 *
 * A pickle is a program for a small stack machine (Python's pickletools describes it); unpickling it the
 * usual way may call any function.  Here a call is a value like any other, which says what would have been
 * called with which arguments; whoever reads the values decides what it means.  The names that may occur at
 * all are listed by the reader (kp_pickle_names): any other is refused, and so is an opcode that plain data
 * does not need.
 *
 * Memory is bounded by the size of the pickle, which is bounded itself.  The same value may stand in several
 * places, even in itself: who walks values bounds depth and count. */
#ifndef KAPPA_INTERCHANGE_PICKLE_H
#define KAPPA_INTERCHANGE_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

enum { KP_PICKLE_MAX_SIZE = 32 << 20, KP_PICKLE_MAX_VALUES = 8 << 20 };

typedef enum kp_pickle_kind {
  KP_PICKLE_NONE,
  KP_PICKLE_BOOLEAN,
  KP_PICKLE_INTEGER,
  KP_PICKLE_WIDE, /* an integer of more than 64 bits, whose value is not kept */
  KP_PICKLE_REAL,
  KP_PICKLE_TEXT, /* UTF-8 if its writer was honest */
  KP_PICKLE_BYTES,
  KP_PICKLE_TUPLE,
  KP_PICKLE_LIST, /* and sets */
  KP_PICKLE_DICT,
  KP_PICKLE_GLOBAL,    /* a name of a module */
  KP_PICKLE_CALL,      /* what a call of a global would give */
  KP_PICKLE_REFERENCE, /* something outside of the pickle, by a persistent id */
} kp_pickle_kind;

typedef struct kp_pickle_text {
  const char *data; /* inside the pickle, without a final zero */
  size_t size;
} kp_pickle_text;

typedef struct kp_pickle_value kp_pickle_value;

struct kp_pickle_value {
  kp_pickle_kind kind;
  bool object; /* a dict that stands for the attributes of an object */
  union {
    int64_t integer; /* also 0 or 1 of a boolean */
    double real;
    kp_pickle_text text;
    struct {
      kp_pickle_value **items; /* of a dict: key, value, key, value … as they were set */
      size_t count, capacity;
    } list;
    struct {
      kp_pickle_text module, name;
    } global;
    struct {
      kp_pickle_value *callee, *arguments; /* a global and a tuple */
    } call;
    kp_pickle_value *reference; /* the persistent id */
  };
};

/* What may be done with a name. */
typedef enum kp_pickle_use {
  KP_PICKLE_REFUSED,
  KP_PICKLE_MENTIONED, /* stand there, and not be called */
  KP_PICKLE_MAPPING,   /* be called without arguments for an empty dict */
  KP_PICKLE_OBJECT,    /* the same, for an object whose attributes are set afterwards */
  KP_PICKLE_CALLED,    /* be called: a KP_PICKLE_CALL */
} kp_pickle_use;

typedef kp_pickle_use (*kp_pickle_names)(kp_pickle_text module, kp_pickle_text name);

typedef struct kp_pickle kp_pickle;

/* Reads a pickle of protocol 2 to 5 whose bytes outlive the result; `label` names it in messages.  *pickle is
 * NULL on failure. */
kp_status kp_pickle_parse(const void *data, size_t size, const char *label, kp_pickle_names names,
                          kp_pickle **pickle, kp_error *error);

/* Frees all values; NULL is allowed. */
void kp_pickle_destroy(kp_pickle *pickle);

/* The one value that the pickle holds. */
const kp_pickle_value *kp_pickle_root(const kp_pickle *pickle);

bool kp_pickle_text_is(kp_pickle_text text, const char *word);
/* Whether the value is the text; or the global. */
bool kp_pickle_is_text(const kp_pickle_value *value, const char *word);
bool kp_pickle_is_global(const kp_pickle_value *value, const char *module, const char *name);

/* "a dict", "a call of torch.foo": for messages. */
void kp_pickle_describe(const kp_pickle_value *value, char *out, size_t size);

#endif
