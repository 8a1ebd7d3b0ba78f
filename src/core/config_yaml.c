/* Turns libyaml's events into entries.  The functions read_* below follow the
 * grammar; each takes the events that belong to its node.  An event is freed
 * by the function that asked for it. */
#include "core/config_yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef struct yaml_reader {
  yaml_parser_t parser;
  const char *text;
  size_t size;
  const char *name; /* NULL when the text is a single value */
  kp_yaml_document *document;
  char key[KP_YAML_KEY_LIMIT + 1]; /* the dotted key of the node that is read */
  kp_error *error;
} yaml_reader;

static kp_status fail_at(yaml_reader *reader, size_t line, size_t column, const char *what,
                         const char *advice) {
  if (reader->name == NULL)
    return kp_fail(reader->error, KP_ERR_INPUT, "column %zu: %s%s", column, what, advice);
  return kp_fail(reader->error, KP_ERR_INPUT, "%s:%zu:%zu: %s%s", reader->name, line, column, what, advice);
}

static kp_status fail_mark(yaml_reader *reader, yaml_mark_t mark, const char *what) {
  return fail_at(reader, mark.line + 1, mark.column + 1, what, "");
}

static kp_status fail_memory(yaml_reader *reader) {
  return kp_fail(reader->error, KP_ERR_MEMORY, "not enough memory to read the configuration");
}

/* libyaml gives the place of a wrong byte as an offset. */
static kp_status fail_encoding(yaml_reader *reader) {
  size_t line = 1, column = 1;
  size_t offset = reader->parser.problem_offset;
  for (size_t i = 0; i < offset && i < reader->size; i++) {
    unsigned char byte = (unsigned char)reader->text[i];
    if (byte == '\n') {
      line++;
      column = 1;
    } else if ((byte & 0xc0) != 0x80) {
      column++;
    }
  }
  return fail_at(reader, line, column, reader->parser.problem,
                 "; the text must be UTF-8 without control characters");
}

/* libyaml counts in characters, a tab is looked for in bytes. */
static bool is_tab(const yaml_reader *reader, size_t character) {
  for (size_t i = 0; i < reader->size; i++) {
    if (((unsigned char)reader->text[i] & 0xc0) == 0x80) continue;
    if (character-- == 0) return reader->text[i] == '\t';
  }
  return false;
}

static kp_status fail_syntax(yaml_reader *reader) {
  const yaml_parser_t *parser = &reader->parser;
  if (parser->error == YAML_MEMORY_ERROR) return fail_memory(reader);
  if (parser->error == YAML_READER_ERROR) return fail_encoding(reader);
  bool tab = is_tab(reader, parser->problem_mark.index);
  char what[256];
  snprintf(what, sizeof what, "%s%s%s", parser->problem, parser->context ? " " : "",
           parser->context ? parser->context : "");
  return fail_at(reader, parser->problem_mark.line + 1, parser->problem_mark.column + 1, what,
                 tab ? "; indent with spaces, not tabs" : "");
}

/* What is refused wherever it stands: NULL, or the reason. */
static const char *refusal(const yaml_event_t *event) {
  const yaml_char_t *anchor = NULL, *tag = NULL;
  switch (event->type) {
  case YAML_ALIAS_EVENT: return "aliases (*name) are not supported; write the value again";
  case YAML_SCALAR_EVENT:
    anchor = event->data.scalar.anchor;
    tag = event->data.scalar.tag;
    break;
  case YAML_SEQUENCE_START_EVENT:
    anchor = event->data.sequence_start.anchor;
    tag = event->data.sequence_start.tag;
    break;
  case YAML_MAPPING_START_EVENT:
    anchor = event->data.mapping_start.anchor;
    tag = event->data.mapping_start.tag;
    break;
  default: break;
  }
  if (anchor != NULL) return "anchors (&name) are not supported; write the value again where it is needed";
  if (tag != NULL) return "tags (!type) are not supported; the schema knows the type of every key";
  if (event->type != YAML_SCALAR_EVENT) return NULL;
  if (event->data.scalar.length > KP_YAML_SCALAR_LIMIT) return "a text of more than 4096 bytes";
  if (memchr(event->data.scalar.value, 0, event->data.scalar.length) != NULL)
    return "a text with a zero byte";
  return NULL;
}

/* On success the caller must yaml_event_delete(event). */
static kp_status next_event(yaml_reader *reader, yaml_event_t *event) {
  if (!yaml_parser_parse(&reader->parser, event)) return fail_syntax(reader);
  const char *reason = refusal(event);
  if (reason == NULL) return KP_OK;
  kp_status status = fail_mark(reader, event->start_mark, reason);
  yaml_event_delete(event);
  return status;
}

/* Doubles the room of an array when `count` has filled it (count is then a
 * power of two), so that no capacity needs to be kept. */
static void *grown(void *array, size_t count, size_t element_size) {
  if (count != 0 && (count & (count - 1)) != 0) return array;
  return realloc(array, (count == 0 ? 1 : 2 * count) * element_size);
}

static kp_status check_duplicate(yaml_reader *reader, yaml_mark_t mark) {
  for (size_t i = 0; i < reader->document->count; i++) {
    const kp_yaml_entry *other = &reader->document->entries[i];
    if (strcmp(other->key, reader->key) != 0) continue;
    char what[KP_YAML_KEY_LIMIT + 80];
    snprintf(what, sizeof what, "%s: this key already stands in line %zu", reader->key, other->line);
    return fail_mark(reader, mark, what);
  }
  return KP_OK;
}

static kp_status add_entry(yaml_reader *reader, kp_yaml_kind kind, yaml_mark_t mark, size_t *index) {
  kp_yaml_document *document = reader->document;
  KP_TRY(check_duplicate(reader, mark));
  if (document->count == KP_YAML_ENTRY_LIMIT) return fail_mark(reader, mark, "more than 2048 keys");
  kp_yaml_entry *entries = grown(document->entries, document->count, sizeof *entries);
  if (entries == NULL) return fail_memory(reader);
  document->entries = entries;
  char *key = strdup(reader->key);
  if (key == NULL) return fail_memory(reader);
  *index = document->count++;
  entries[*index] = (kp_yaml_entry){.key = key, .kind = kind, .line = mark.line + 1};
  return KP_OK;
}

static kp_status add_item(yaml_reader *reader, size_t index, const yaml_event_t *event) {
  kp_yaml_entry *entry = &reader->document->entries[index];
  if (entry->count == KP_YAML_ITEM_LIMIT) return fail_mark(reader, event->start_mark, "more than 4096 items");
  kp_yaml_scalar *items = grown(entry->items, entry->count, sizeof *items);
  if (items == NULL) return fail_memory(reader);
  entry->items = items;
  char *text = strdup((const char *)event->data.scalar.value);
  if (text == NULL) return fail_memory(reader);
  bool quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
  items[entry->count++] = (kp_yaml_scalar){.text = text, .quoted = quoted};
  return KP_OK;
}

static kp_status read_list(yaml_reader *reader, size_t index) {
  for (;;) {
    yaml_event_t event;
    KP_TRY(next_event(reader, &event));
    bool end = event.type == YAML_SEQUENCE_END_EVENT;
    kp_status status = KP_OK;
    if (event.type == YAML_SCALAR_EVENT) {
      status = add_item(reader, index, &event);
    } else if (!end) {
      status = fail_mark(reader, event.start_mark, "a list may hold numbers and texts only");
    }
    yaml_event_delete(&event);
    if (end || status != KP_OK) return status;
  }
}

/* Puts the key of `event` behind what is in reader->key. */
static kp_status push_key(yaml_reader *reader, const yaml_event_t *event) {
  if (event->type != YAML_SCALAR_EVENT || event->data.scalar.length == 0)
    return fail_mark(reader, event->start_mark, "a key must be a word");
  size_t old = strlen(reader->key);
  size_t dot = old > 0;
  if (old + dot + event->data.scalar.length > KP_YAML_KEY_LIMIT)
    return fail_mark(reader, event->start_mark, "a key of more than 200 bytes");
  if (dot) reader->key[old] = '.';
  memcpy(reader->key + old + dot, event->data.scalar.value, event->data.scalar.length + 1);
  return KP_OK;
}

static kp_status read_mapping(yaml_reader *reader, size_t depth, size_t *children);

/* Reads the node that `event` begins; its entry's line is that of the key. */
static kp_status read_node(yaml_reader *reader, const yaml_event_t *event, yaml_mark_t key_mark,
                           size_t depth) {
  size_t index = 0;
  switch (event->type) {
  case YAML_SCALAR_EVENT: KP_TRY(add_entry(reader, KP_YAML_SCALAR, key_mark, &index)); break;
  case YAML_SEQUENCE_START_EVENT: KP_TRY(add_entry(reader, KP_YAML_LIST, key_mark, &index)); break;
  default: KP_TRY(add_entry(reader, KP_YAML_MAPPING, key_mark, &index)); break;
  }
  if (event->type == YAML_SCALAR_EVENT) return add_item(reader, index, event);
  if (event->type == YAML_SEQUENCE_START_EVENT) return read_list(reader, index);
  if (depth == KP_YAML_DEPTH_LIMIT)
    return fail_mark(reader, event->start_mark, "nested deeper than 8 levels");
  size_t children = 0;
  KP_TRY(read_mapping(reader, depth + 1, &children));
  reader->document->entries[index].children = children;
  return KP_OK;
}

static kp_status read_pair(yaml_reader *reader, const yaml_event_t *key, size_t depth) {
  KP_TRY(push_key(reader, key));
  yaml_event_t value;
  KP_TRY(next_event(reader, &value));
  kp_status status = read_node(reader, &value, key->start_mark, depth);
  yaml_event_delete(&value);
  return status;
}

static kp_status read_mapping(yaml_reader *reader, size_t depth, size_t *children) {
  size_t length = strlen(reader->key);
  for (;;) {
    yaml_event_t event;
    KP_TRY(next_event(reader, &event));
    bool end = event.type == YAML_MAPPING_END_EVENT;
    kp_status status = end ? KP_OK : read_pair(reader, &event, depth);
    yaml_event_delete(&event);
    if (end || status != KP_OK) return status;
    reader->key[length] = 0;
    ++*children;
  }
}

/* Takes one event and refuses it when it is not of that type. */
static kp_status expect(yaml_reader *reader, yaml_event_type_t type, const char *otherwise) {
  yaml_event_t event;
  KP_TRY(next_event(reader, &event));
  kp_status status = event.type == type ? KP_OK : fail_mark(reader, event.start_mark, otherwise);
  yaml_event_delete(&event);
  return status;
}

static kp_status read_root(yaml_reader *reader) {
  yaml_event_t event;
  KP_TRY(next_event(reader, &event));
  kp_status status;
  bool is_mapping = event.type == YAML_MAPPING_START_EVENT;
  if (reader->name == NULL) {
    status = is_mapping
                 ? fail_mark(reader, event.start_mark, "expected one value or [a, list], found a mapping")
                 : read_node(reader, &event, event.start_mark, 0);
  } else if (is_mapping) {
    size_t children = 0;
    status = read_mapping(reader, 1, &children);
  } else {
    status = fail_mark(reader, event.start_mark, "expected lines of the form 'key: value'");
  }
  yaml_event_delete(&event);
  return status;
}

/* A value that is nothing at all, "--set key=", is a null. */
static kp_status read_nothing(yaml_reader *reader) {
  yaml_event_t event = {.type = YAML_SCALAR_EVENT};
  event.data.scalar.value = (yaml_char_t *)"";
  event.data.scalar.style = YAML_PLAIN_SCALAR_STYLE;
  return read_node(reader, &event, event.start_mark, 0);
}

static kp_status read_stream(yaml_reader *reader) {
  KP_TRY(expect(reader, YAML_STREAM_START_EVENT, "expected a text"));
  yaml_event_t event;
  KP_TRY(next_event(reader, &event));
  bool empty = event.type == YAML_STREAM_END_EVENT;
  yaml_event_delete(&event);
  if (empty && reader->name == NULL) return read_nothing(reader);
  if (empty)
    return kp_fail(reader->error, KP_ERR_INPUT, "%s: the file is empty; write {} to take every default",
                   reader->name);
  KP_TRY(read_root(reader));
  KP_TRY(expect(reader, YAML_DOCUMENT_END_EVENT, "expected the end of the text"));
  return expect(reader, YAML_STREAM_END_EVENT, "more than one document; put them in files of their own");
}

static kp_status read_all(yaml_reader *reader) {
  *reader->document = (kp_yaml_document){0};
  if (reader->size > KP_YAML_SIZE_LIMIT)
    return fail_at(reader, 1, 1, "a configuration of more than 1 MiB", "");
  if (!yaml_parser_initialize(&reader->parser)) return fail_memory(reader);
  /* Without this libyaml would take a byte order mark's word for UTF-16. */
  yaml_parser_set_encoding(&reader->parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&reader->parser, (const unsigned char *)reader->text, reader->size);
  kp_status status = read_stream(reader);
  yaml_parser_delete(&reader->parser);
  if (status != KP_OK) kp_yaml_clear(reader->document);
  return status;
}

kp_status kp_yaml_read(const char *text, size_t size, const char *name, kp_yaml_document *document,
                       kp_error *error) {
  yaml_reader reader = {.text = text, .size = size, .name = name, .document = document, .error = error};
  return read_all(&reader);
}

kp_status kp_yaml_read_value(const char *key, const char *text, kp_yaml_document *document, kp_error *error) {
  yaml_reader reader = {.text = text, .size = strlen(text), .document = document, .error = error};
  if (strlen(key) > KP_YAML_KEY_LIMIT) return kp_fail(error, KP_ERR_INPUT, "a key of more than 200 bytes");
  memcpy(reader.key, key, strlen(key) + 1);
  return read_all(&reader);
}

void kp_yaml_clear(kp_yaml_document *document) {
  for (size_t i = 0; i < document->count; i++) {
    kp_yaml_entry *entry = &document->entries[i];
    for (size_t j = 0; j < entry->count; j++) free(entry->items[j].text);
    free(entry->items);
    free(entry->key);
  }
  free(document->entries);
  *document = (kp_yaml_document){0};
}

bool kp_yaml_is_null(const kp_yaml_scalar *scalar) {
  static const char *const words[] = {"", "~", "null", "Null", "NULL"};
  if (scalar->quoted) return false;
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (strcmp(scalar->text, words[i]) == 0) return true;
  return false;
}
