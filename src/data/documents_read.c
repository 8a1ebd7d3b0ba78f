/* Cutting pieces out of a file's bytes. */
#include <string.h>

#include "data/documents_private.h"

/* Makes sure that bytes are left, unless the file has ended. */
static kp_status fill(kp_documents *documents, kp_error *error) {
  size_t size;
  if (documents->at < documents->end || documents->ended) return KP_OK;
  KP_TRY(kp_byte_source_next(documents->source, &documents->at, &size, error));
  documents->end = documents->at + size;
  documents->ended = size == 0;
  return KP_OK;
}

static kp_status append(kp_documents *documents, const char *bytes, size_t size, kp_error *error) {
  if (size > documents->options.longest - documents->raw.size)
    return kp_fail(error, KP_ERR_INPUT, "%s, line %zu: what begins here has more than %zu bytes%s",
                   documents->path, documents->first_line, documents->options.longest,
                   documents->format != KP_DOCUMENTS_TEXT ? ": is it a document?"
                   : documents->options.separator == NULL ? "; name the line that separates documents"
                                                          : " without a line that separates documents");
  return kp_byte_buffer_append(&documents->raw, bytes, size, error);
}

/* Appends the rest of the line with its end; *any is false at the end of the file. */
static kp_status append_line(kp_documents *documents, bool *any, kp_error *error) {
  *any = false;
  for (;;) {
    KP_TRY(fill(documents, error));
    if (documents->ended) return KP_OK;
    *any = true;
    const size_t left = (size_t)(documents->end - documents->at);
    const char *newline = memchr(documents->at, '\n', left);
    const size_t size = newline == NULL ? left : (size_t)(newline - documents->at) + 1;
    KP_TRY(append(documents, documents->at, size, error));
    documents->at += size;
    if (newline == NULL) continue;
    documents->line++;
    return KP_OK;
  }
}

/* The mark of UTF-8 that some editors put in front of a file is no text. */
static void remove_mark(kp_documents *documents) {
  kp_byte_buffer *raw = &documents->raw;
  if (documents->fresh && raw->size >= 3 && memcmp(raw->data, "\xEF\xBB\xBF", 3) == 0) {
    raw->size -= 3;
    memmove(raw->data, raw->data + 3, raw->size);
  }
  documents->fresh = false;
}

/* `size` without the line end that the bytes may close with. */
static size_t without_end(const char *bytes, size_t size) {
  if (size > 0 && bytes[size - 1] == '\n') size--;
  if (size > 0 && bytes[size - 1] == '\r') size--;
  return size;
}

static void begin(kp_documents *documents) {
  documents->raw.size = 0;
  documents->first_line = documents->line;
}

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_blank(const char *bytes, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (!is_space(bytes[i])) return false;
  return true;
}

kp_status kp_documents_read_line(kp_documents *documents, bool *found, kp_error *error) {
  do {
    begin(documents);
    KP_TRY(append_line(documents, found, error));
    remove_mark(documents);
  } while (*found && is_blank(documents->raw.data, documents->raw.size));
  if (*found) documents->raw.size = without_end(documents->raw.data, documents->raw.size);
  return KP_OK;
}

static bool separates(const char *separator, const char *line, size_t size) {
  if (separator[0] == 0) return is_blank(line, size);
  size = without_end(line, size);
  return size == strlen(separator) && memcmp(line, separator, size) == 0;
}

static kp_status read_file(kp_documents *documents, bool *found, kp_error *error) {
  *found = false;
  for (;;) {
    KP_TRY(fill(documents, error));
    if (documents->ended) break;
    *found = true;
    KP_TRY(append(documents, documents->at, (size_t)(documents->end - documents->at), error));
    documents->at = documents->end;
  }
  remove_mark(documents);
  return KP_OK;
}

kp_status kp_documents_read_text(kp_documents *documents, bool *found, kp_error *error) {
  const char *separator = documents->options.separator;
  kp_byte_buffer *raw = &documents->raw;
  begin(documents);
  if (separator == NULL) return read_file(documents, found, error);
  for (;;) {
    const size_t before = raw->size;
    bool any;
    KP_TRY(append_line(documents, &any, error));
    remove_mark(documents);
    const bool separated = any && separates(separator, raw->data + before, raw->size - before);
    if (separated && before == 0) {
      begin(documents); /* nothing stood in front of it */
      continue;
    }
    *found = any || raw->size > 0;
    if (any && !separated) continue;
    if (separated) raw->size = before;
    if (raw->size > 0) raw->size = without_end(raw->data, raw->size);
    return KP_OK;
  }
}

/* ---- JSON values ---- */

static kp_status fail(const kp_documents *documents, const char *words, kp_error *error) {
  return kp_fail(error, KP_ERR_INPUT, "%s, line %zu: %s", documents->path, documents->line, words);
}

/* Passes white space and, at the front of the file, the mark of UTF-8; *byte is the one behind, 0 at the end,
 * and stays in place. */
static kp_status pass_space(kp_documents *documents, char *byte, kp_error *error) {
  static const char mark[] = "\xEF\xBB\xBF";
  for (size_t marked = 0;; documents->at++) {
    KP_TRY(fill(documents, error));
    *byte = documents->ended ? 0 : *documents->at;
    if (documents->ended) return KP_OK;
    if (*byte == '\n') documents->line++;
    if (documents->fresh && marked < 3 && *byte == mark[marked]) {
      marked++;
      continue;
    }
    documents->fresh = false;
    if (*byte == 0) return fail(documents, "it has a zero byte: this is no JSON", error);
    if (!is_space(*byte)) return KP_OK;
  }
}

/* Where in a value the scan stands. */
typedef struct nesting {
  size_t depth; /* brackets that are open */
  bool in_string, escaped;
} nesting;

/* Whether the value goes on with this byte. */
static bool goes_on(nesting *n, char byte, bool first) {
  if (n->in_string) {
    if (n->escaped)
      n->escaped = false;
    else if (byte == '\\')
      n->escaped = true;
    else if (byte == '"')
      n->in_string = false;
    return true;
  }
  if (n->depth == 0 && !first && (is_space(byte) || strchr(",]}{[\"", byte) != NULL)) return false;
  if (byte == '"') n->in_string = true;
  if (byte == '{' || byte == '[') n->depth++;
  if (byte == '}' || byte == ']') n->depth--;
  return true;
}

/* Whether a value that ends with this byte is whole: what opened has closed. */
static bool closes(const nesting *n, char byte) {
  return n->depth == 0 && !n->in_string && (byte == '}' || byte == ']' || byte == '"');
}

/* Appends the value that begins at the next byte, which is no space. */
static kp_status append_value(kp_documents *documents, kp_error *error) {
  nesting n = {0};
  for (bool first = true, done = false; !done;) {
    KP_TRY(fill(documents, error));
    if (documents->ended) {
      if (n.depth == 0 && !n.in_string) return KP_OK;
      return kp_fail(error, KP_ERR_INPUT, "%s, line %zu: the value that begins here is cut short",
                     documents->path, documents->first_line);
    }
    const char *from = documents->at;
    while (documents->at < documents->end && !done) {
      const char byte = *documents->at;
      if (!goes_on(&n, byte, first)) break;
      first = false;
      if (byte == '\n') documents->line++;
      documents->at++;
      done = closes(&n, byte);
    }
    KP_TRY(append(documents, from, (size_t)(documents->at - from), error));
    if (documents->at < documents->end) done = true;
  }
  return KP_OK;
}

/* Behind an element: to the next one, or the end of the array. */
static kp_status pass_comma(kp_documents *documents, char *byte, kp_error *error) {
  KP_TRY(pass_space(documents, byte, error));
  if (*byte == ']') return KP_OK;
  if (*byte == 0) return fail(documents, "the array is cut short", error);
  if (*byte != ',') return fail(documents, "a ',' or ']' must stand between the elements", error);
  documents->at++;
  KP_TRY(pass_space(documents, byte, error));
  if (*byte == ']' || *byte == ',') return fail(documents, "an element is missing behind ','", error);
  return *byte == 0 ? fail(documents, "the array is cut short", error) : KP_OK;
}

static kp_status end_array(kp_documents *documents, kp_error *error) {
  char byte;
  documents->at++;
  KP_TRY(pass_space(documents, &byte, error));
  return byte == 0 ? KP_OK : fail(documents, "something stands behind the array", error);
}

/* Documents behind each other need nothing in between, but a comma is no array. */
kp_status kp_documents_read_value(kp_documents *documents, bool *found, kp_error *error) {
  char byte;
  const bool first = documents->fresh;
  *found = false;
  KP_TRY(documents->in_array ? pass_comma(documents, &byte, error) : pass_space(documents, &byte, error));
  if (first && byte == '[') {
    documents->in_array = true;
    documents->at++;
    KP_TRY(pass_space(documents, &byte, error));
    if (byte == 0) return fail(documents, "the array is cut short", error);
  }
  if (documents->in_array && byte == ']') return end_array(documents, error);
  if (byte == 0) return KP_OK;
  if (strchr(",]}", byte) != NULL) return fail(documents, "a document must begin here", error);
  begin(documents);
  *found = true;
  return append_value(documents, error);
}
