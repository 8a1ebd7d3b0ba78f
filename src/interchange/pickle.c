/* The machine that reads a pickle: a stack of values, marks into it, and a memo of values by number. */
#include "interchange/pickle.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "interchange/pickle_values.h"

typedef struct machine {
  const unsigned char *data;
  size_t size, at; /* `at`: the next byte; `opcode_at`: of the opcode that runs */
  size_t opcode_at;
  const char *label;
  kp_pickle_names names;
  kp_pickle *pickle;
  kp_pickle_value **stack;
  size_t depth, stack_capacity;
  size_t *marks; /* depths of the stack */
  size_t mark_count, mark_capacity;
  kp_pickle_value **memo;
  size_t memo_count, memo_capacity;
  size_t items; /* put into lists and dicts so far */
  kp_error *error;
} machine;

/* The status is returned here, so that the compiler sees that it is no success. */
static kp_status damaged(const machine *m, const char *what) {
  kp_fail(m->error, KP_ERR_INPUT,
          "the pickle of '%s' is damaged at byte %zu: %s; copy or save the file again", m->label,
          m->opcode_at, what);
  return KP_ERR_INPUT;
}

static kp_status out_of_memory(const machine *m) {
  kp_fail(m->error, KP_ERR_MEMORY, "not enough memory for the pickle of '%s', or above %d values", m->label,
          KP_PICKLE_MAX_VALUES);
  return KP_ERR_MEMORY;
}

/* ---- bytes behind an opcode ---- */

static kp_status take(machine *m, size_t count, const unsigned char **bytes) {
  *bytes = m->data + m->at;
  if (count > m->size - m->at) return damaged(m, "it ends early");
  m->at += count;
  return KP_OK;
}

/* A little-endian number of `width` bytes. */
static kp_status take_number(machine *m, size_t width, uint64_t *number) {
  const unsigned char *bytes;
  *number = 0;
  KP_TRY(take(m, width, &bytes));
  memcpy(number, bytes, width);
  return KP_OK;
}

/* Bytes after their count, which is a number of `width` bytes. */
static kp_status take_counted(machine *m, size_t width, kp_pickle_text *text) {
  uint64_t count;
  const unsigned char *bytes;
  KP_TRY(take_number(m, width, &count));
  if (count > m->size) return damaged(m, "a text is longer than the file");
  KP_TRY(take(m, (size_t)count, &bytes));
  *text = (kp_pickle_text){(const char *)bytes, (size_t)count};
  return KP_OK;
}

static kp_status take_line(machine *m, kp_pickle_text *text) {
  const unsigned char *start = m->data + m->at, *end = memchr(start, '\n', m->size - m->at);
  if (end == NULL) return damaged(m, "a name has no end");
  *text = (kp_pickle_text){(const char *)start, (size_t)(end - start)};
  m->at += text->size + 1;
  return KP_OK;
}

/* ---- the stack ---- */

static kp_status push(machine *m, kp_pickle_value *value) {
  if (!kp_pickle_room((void **)&m->stack, &m->stack_capacity, m->depth, sizeof *m->stack))
    return out_of_memory(m);
  m->stack[m->depth++] = value;
  return KP_OK;
}

static kp_status push_new(machine *m, kp_pickle_kind kind, kp_pickle_value **value) {
  *value = kp_pickle_new(m->pickle, kind);
  return *value == NULL ? out_of_memory(m) : push(m, *value);
}

/* Values above the last mark may not be reached past it. */
static size_t floor_of(const machine *m) {
  return m->mark_count == 0 ? 0 : m->marks[m->mark_count - 1];
}

static kp_status pop(machine *m, kp_pickle_value **value) {
  if (m->depth == floor_of(m)) return damaged(m, "a value is missing");
  *value = m->stack[--m->depth];
  return KP_OK;
}

static kp_status top(const machine *m, kp_pickle_value **value) {
  if (m->depth == floor_of(m)) return damaged(m, "a value is missing");
  *value = m->stack[m->depth - 1];
  return KP_OK;
}

static kp_status push_mark(machine *m) {
  if (!kp_pickle_room((void **)&m->marks, &m->mark_capacity, m->mark_count, sizeof *m->marks))
    return out_of_memory(m);
  m->marks[m->mark_count++] = m->depth;
  return KP_OK;
}

/* Takes all values above the last mark, and the mark; they stay readable until the next push. */
static kp_status pop_marked(machine *m, kp_pickle_value ***items, size_t *count) {
  if (m->mark_count == 0) return damaged(m, "a mark is missing");
  const size_t first = m->marks[--m->mark_count];
  *items = m->stack + first;
  *count = m->depth - first;
  m->depth = first;
  return KP_OK;
}

/* ---- values ---- */

static kp_status push_integer(machine *m, kp_pickle_kind kind, int64_t integer) {
  kp_pickle_value *value;
  KP_TRY(push_new(m, kind, &value));
  value->integer = integer;
  return KP_OK;
}

static kp_status push_real(machine *m) {
  kp_pickle_value *value;
  const unsigned char *bytes;
  uint64_t bits = 0;
  KP_TRY(take(m, sizeof bits, &bytes));
  for (size_t i = 0; i < sizeof bits; i++) bits = bits << 8 | bytes[i]; /* big endian, unlike all else */
  KP_TRY(push_new(m, KP_PICKLE_REAL, &value));
  memcpy(&value->real, &bits, sizeof bits);
  return KP_OK;
}

/* An integer of any width, in two's complement. */
static kp_status push_long(machine *m, size_t width) {
  kp_pickle_text bytes;
  KP_TRY(take_counted(m, width, &bytes));
  if (bytes.size > sizeof(uint64_t)) return push_integer(m, KP_PICKLE_WIDE, 0);
  uint64_t bits = bytes.size > 0 && (bytes.data[bytes.size - 1] & 0x80) != 0 ? UINT64_MAX : 0;
  memcpy(&bits, bytes.data, bytes.size);
  return push_integer(m, KP_PICKLE_INTEGER, (int64_t)bits);
}

static kp_status push_text(machine *m, kp_pickle_kind kind, size_t width) {
  kp_pickle_value *value;
  kp_pickle_text text;
  KP_TRY(take_counted(m, width, &text));
  KP_TRY(push_new(m, kind, &value));
  value->text = text;
  return KP_OK;
}

static kp_status push_tuple(machine *m, kp_pickle_value *const *items, size_t count) {
  kp_pickle_value *value = kp_pickle_new(m->pickle, KP_PICKLE_TUPLE);
  if (value == NULL || !kp_pickle_append(value, items, count)) return out_of_memory(m);
  return push(m, value);
}

static kp_status push_short_tuple(machine *m, size_t count) {
  if (m->depth - floor_of(m) < count) return damaged(m, "a value is missing");
  m->depth -= count;
  return push_tuple(m, m->stack + m->depth, count);
}

static kp_status push_marked_tuple(machine *m) {
  kp_pickle_value **items;
  size_t count;
  KP_TRY(pop_marked(m, &items, &count));
  return push_tuple(m, items, count);
}

static kp_status extend(machine *m, kp_pickle_kind kind, kp_pickle_value *const *items, size_t count) {
  kp_pickle_value *target;
  KP_TRY(top(m, &target));
  if (target->kind != kind) return damaged(m, "items are put into what is no list or dict");
  if (kind == KP_PICKLE_DICT && count % 2 != 0) return damaged(m, "a key has no value");
  /* An item costs a byte to put down, and may be copied once from an object's attributes. */
  m->items += count;
  if (m->items > 2 * m->size) return damaged(m, "it has more items than bytes");
  return kp_pickle_append(target, items, count) ? KP_OK : out_of_memory(m);
}

static kp_status extend_marked(machine *m, kp_pickle_kind kind) {
  kp_pickle_value **items;
  size_t count;
  KP_TRY(pop_marked(m, &items, &count));
  return extend(m, kind, items, count);
}

static kp_status extend_few(machine *m, kp_pickle_kind kind, size_t count) {
  if (m->depth - floor_of(m) < count) return damaged(m, "a value is missing");
  m->depth -= count;
  return extend(m, kind, m->stack + m->depth, count);
}

/* ---- the memo ---- */

/* Python numbers values in order; a number far ahead would only waste memory. */
static kp_status remember(machine *m, uint64_t number) {
  kp_pickle_value *value;
  KP_TRY(top(m, &value));
  if (number > m->memo_count) return damaged(m, "the memo has a gap");
  if (number == m->memo_count) {
    if (!kp_pickle_room((void **)&m->memo, &m->memo_capacity, m->memo_count, sizeof *m->memo))
      return out_of_memory(m);
    m->memo_count++;
  }
  m->memo[number] = value;
  return KP_OK;
}

static kp_status recall(machine *m, uint64_t number) {
  if (number >= m->memo_count) return damaged(m, "the memo has no such value");
  return push(m, m->memo[number]);
}

static kp_status with_number(machine *m, size_t width, kp_status (*act)(machine *m, uint64_t number)) {
  uint64_t number;
  KP_TRY(take_number(m, width, &number));
  return act(m, number);
}

/* ---- names and calls ---- */

static kp_status refuse_name(const machine *m, const kp_pickle_value *value, const char *why) {
  char words[160];
  kp_pickle_describe(value, words, sizeof words);
  return kp_fail(m->error, KP_ERR_UNSUPPORTED,
                 "'%s' needs %s, %s; kappa runs no code of a file: save the weights alone, with "
                 "torch.save(model.state_dict(), PATH)",
                 m->label, words, why);
}

static kp_status push_global(machine *m, kp_pickle_text module, kp_pickle_text name) {
  kp_pickle_value *value;
  KP_TRY(push_new(m, KP_PICKLE_GLOBAL, &value));
  value->global.module = module;
  value->global.name = name;
  if (m->names(module, name) != KP_PICKLE_REFUSED) return KP_OK;
  return refuse_name(m, value, "which is none that files of plain tensors have");
}

static kp_status read_global(machine *m) {
  kp_pickle_text module, name;
  KP_TRY(take_line(m, &module));
  KP_TRY(take_line(m, &name));
  return push_global(m, module, name);
}

static kp_status stack_global(machine *m) {
  kp_pickle_value *module, *name;
  KP_TRY(pop(m, &name));
  KP_TRY(pop(m, &module));
  if (module->kind != KP_PICKLE_TEXT || name->kind != KP_PICKLE_TEXT) return damaged(m, "a name is no text");
  return push_global(m, module->text, name->text);
}

/* Puts down what a call would give, without calling. */
static kp_status call(machine *m) {
  kp_pickle_value *arguments, *callee, *value;
  KP_TRY(pop(m, &arguments));
  KP_TRY(pop(m, &callee));
  if (arguments->kind != KP_PICKLE_TUPLE) return damaged(m, "the arguments of a call are no tuple");
  if (callee->kind != KP_PICKLE_GLOBAL) return refuse_name(m, callee, "called like a function");
  const kp_pickle_use use = m->names(callee->global.module, callee->global.name);
  if (use == KP_PICKLE_MAPPING || use == KP_PICKLE_OBJECT) {
    if (arguments->list.count > 0) return refuse_name(m, callee, "called with arguments");
    KP_TRY(push_new(m, KP_PICKLE_DICT, &value));
    value->object = use == KP_PICKLE_OBJECT;
    return KP_OK;
  }
  if (use != KP_PICKLE_CALLED) return refuse_name(m, callee, "called like a function");
  KP_TRY(push_new(m, KP_PICKLE_CALL, &value));
  value->call.callee = callee;
  value->call.arguments = arguments;
  return KP_OK;
}

/* An object gets its attributes; what other values get (hooks of a dict, the inside of an array) means
 * nothing here. */
static kp_status build(machine *m) {
  kp_pickle_value *state, *target;
  KP_TRY(pop(m, &state));
  KP_TRY(top(m, &target));
  if (target->kind == KP_PICKLE_DICT && target->object && state->kind == KP_PICKLE_DICT)
    return extend(m, KP_PICKLE_DICT, state->list.items, state == target ? 0 : state->list.count);
  if (target->kind == KP_PICKLE_DICT || target->kind == KP_PICKLE_CALL) return KP_OK;
  return damaged(m, "attributes are given to what is no object");
}

static kp_status push_reference(machine *m) {
  kp_pickle_value *id, *value;
  KP_TRY(pop(m, &id));
  KP_TRY(push_new(m, KP_PICKLE_REFERENCE, &value));
  value->reference = id;
  return KP_OK;
}

/* ---- opcodes ---- */

static kp_status push_four_bytes(machine *m) {
  uint64_t number;
  KP_TRY(take_number(m, 4, &number));
  return push_integer(m, KP_PICKLE_INTEGER, (int32_t)(uint32_t)number);
}

static kp_status push_bytes(machine *m, size_t width) {
  uint64_t number;
  KP_TRY(take_number(m, width, &number));
  return push_integer(m, KP_PICKLE_INTEGER, (int64_t)number);
}

static kp_status drop(machine *m) {
  kp_pickle_value *value;
  return pop(m, &value);
}

static kp_status drop_marked(machine *m) {
  kp_pickle_value **items;
  size_t count;
  return pop_marked(m, &items, &count);
}

static kp_status check_protocol(machine *m) {
  uint64_t protocol;
  KP_TRY(take_number(m, 1, &protocol));
  if (protocol >= 2 && protocol <= 5) return KP_OK;
  return kp_fail(m->error, KP_ERR_UNSUPPORTED,
                 "the pickle of '%s' has protocol %" PRIu64 ", and kappa reads 2 to 5; save the file again",
                 m->label, protocol);
}

static kp_status skip_frame(machine *m) {
  uint64_t size;
  return take_number(m, 8, &size);
}

/* Opcodes that put a value down. */
static kp_status run_value(machine *m, unsigned char opcode, bool *known) {
  kp_pickle_value *value;
  switch (opcode) {
  case 'N': return push_new(m, KP_PICKLE_NONE, &value);
  case 0x88: return push_integer(m, KP_PICKLE_BOOLEAN, 1);
  case 0x89: return push_integer(m, KP_PICKLE_BOOLEAN, 0);
  case 'J': return push_four_bytes(m);
  case 'K': return push_bytes(m, 1);
  case 'M': return push_bytes(m, 2);
  case 0x8a: return push_long(m, 1);
  case 0x8b: return push_long(m, 4);
  case 'G': return push_real(m);
  case 'X': return push_text(m, KP_PICKLE_TEXT, 4);
  case 0x8c: return push_text(m, KP_PICKLE_TEXT, 1);
  case 0x8d: return push_text(m, KP_PICKLE_TEXT, 8);
  case 'T': return push_text(m, KP_PICKLE_TEXT, 4); /* texts of Python 2 */
  case 'U': return push_text(m, KP_PICKLE_TEXT, 1);
  case 'B': return push_text(m, KP_PICKLE_BYTES, 4);
  case 'C': return push_text(m, KP_PICKLE_BYTES, 1);
  case 0x8e: return push_text(m, KP_PICKLE_BYTES, 8);
  case '}': return push_new(m, KP_PICKLE_DICT, &value);
  case ']':
  case 0x8f: return push_new(m, KP_PICKLE_LIST, &value);
  case ')': return push_tuple(m, NULL, 0);
  case 't': return push_marked_tuple(m);
  case 0x85: return push_short_tuple(m, 1);
  case 0x86: return push_short_tuple(m, 2);
  case 0x87: return push_short_tuple(m, 3);
  default: *known = false; return KP_OK;
  }
}

/* Opcodes that do something to what lies there. */
static kp_status run_action(machine *m, unsigned char opcode, bool *known) {
  switch (opcode) {
  case 0x80: return check_protocol(m);
  case 0x95: return skip_frame(m);
  case '(': return push_mark(m);
  case '0': return drop(m);
  case '1': return drop_marked(m);
  case 'a': return extend_few(m, KP_PICKLE_LIST, 1);
  case 'e':
  case 0x90: return extend_marked(m, KP_PICKLE_LIST);
  case 's': return extend_few(m, KP_PICKLE_DICT, 2);
  case 'u': return extend_marked(m, KP_PICKLE_DICT);
  case 'q': return with_number(m, 1, remember);
  case 'r': return with_number(m, 4, remember);
  case 0x94: return remember(m, m->memo_count);
  case 'h': return with_number(m, 1, recall);
  case 'j': return with_number(m, 4, recall);
  case 'c': return read_global(m);
  case 0x93: return stack_global(m);
  case 'R':
  case 0x81: return call(m);
  case 'b': return build(m);
  case 'Q': return push_reference(m);
  default: *known = false; return KP_OK;
  }
}

static kp_status step(machine *m, unsigned char opcode) {
  bool value = true, action = true;
  KP_TRY(run_value(m, opcode, &value));
  if (value) return KP_OK;
  KP_TRY(run_action(m, opcode, &action));
  if (action) return KP_OK;
  return kp_fail(m->error, KP_ERR_UNSUPPORTED,
                 "the pickle of '%s' has the opcode 0x%02x at byte %zu, which plain tensors do not need; "
                 "save the weights alone, with torch.save(model.state_dict(), PATH)",
                 m->label, opcode, m->opcode_at);
}

static kp_status run(machine *m) {
  for (;;) {
    const unsigned char *opcode;
    m->opcode_at = m->at;
    KP_TRY(take(m, 1, &opcode));
    if (m->opcode_at == 0 && *opcode != 0x80) return damaged(m, "it does not begin like a pickle");
    if (*opcode == '.') break;
    KP_TRY(step(m, *opcode));
  }
  if (m->depth != 1 || m->mark_count != 0) return damaged(m, "it does not end with one value");
  m->pickle->root = m->stack[0];
  return KP_OK;
}

kp_status kp_pickle_parse(const void *data, size_t size, const char *label, kp_pickle_names names,
                          kp_pickle **pickle, kp_error *error) {
  *pickle = NULL;
  if (size > KP_PICKLE_MAX_SIZE)
    return kp_fail(error, KP_ERR_INPUT, "the pickle of '%s' has %zu bytes, above the limit of %d", label,
                   size, KP_PICKLE_MAX_SIZE);
  machine m = {.data = data, .size = size, .label = label, .names = names, .error = error};
  m.pickle = calloc(1, sizeof *m.pickle);
  /* The stack is there from the first, so that its places are never counted from NULL. */
  const bool ready =
      m.pickle != NULL && kp_pickle_room((void **)&m.stack, &m.stack_capacity, m.depth, sizeof *m.stack);
  kp_status status = ready ? run(&m) : out_of_memory(&m);
  free(m.stack);
  free(m.marks);
  free(m.memo);
  if (status == KP_OK)
    *pickle = m.pickle;
  else
    kp_pickle_destroy(m.pickle);
  return status;
}
