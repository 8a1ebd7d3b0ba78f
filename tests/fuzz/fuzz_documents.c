/* Feeds hostile bytes to the readers of documents: text, JSON, JSON lines, compressed or not.  What is
 * accepted is UTF-8 and not empty, text with replaced bytes is always accepted, and refusals have words. */
#define _GNU_SOURCE /* memfd_create */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data/documents.h"
#include "data/utf8.h"

enum { LONGEST = 100000 };

static void read_all(const kp_documents_options *options, bool always_accepted) {
  kp_error error = {0};
  kp_documents *documents;
  kp_document document = {.text = ""};
  size_t line = 1;
  if (kp_documents_open(options, &documents, &error) != KP_OK) abort();
  while (document.text != NULL) {
    if (kp_documents_next(documents, &document, &error) != KP_OK) {
      if (error.message[0] == 0 || always_accepted) abort();
      break;
    }
    if (document.text == NULL) break;
    if (document.size == 0 || kp_utf8_invalid(document.text, document.size) != document.size) abort();
    if (document.line < line) abort();
    line = document.line;
  }
  kp_documents_close(documents);
}

/* The first bytes of compressed files: damage there is refused whatever the policy. */
static bool may_be_compressed(const uint8_t *data, size_t size) {
  static const char magics[][2] = {{'\x1F', '\x8B'}, {'\x28', '\xB5'}, {'\xFD', '7'}, {'B', 'Z'}, {'P', 'A'}};
  for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
    if (size >= 2 && memcmp(data, magics[i], 2) == 0) return true;
  /* Frames of Zstandard that are to be skipped. */
  return size >= 4 && (data[0] & 0xF0) == 0x50 && data[1] == 0x2A;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[64];
  const char *const paths[] = {path};
  const int file = memfd_create("documents", 0);
  if (file < 0 || write(file, data, size) != (ssize_t)size) abort();
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  for (kp_document_format format = KP_DOCUMENTS_TEXT; format <= KP_DOCUMENTS_LINES; format++)
    for (int replace = 0; replace < 2; replace++) {
      kp_documents_options options = {.paths = paths,
                                      .path_count = 1,
                                      .format = format,
                                      .field = "a.b",
                                      .replace_invalid = replace == 1,
                                      .longest = LONGEST};
      const bool accepted =
          format == KP_DOCUMENTS_TEXT && replace == 1 && size < LONGEST && !may_be_compressed(data, size);
      read_all(&options, accepted);
      if (format != KP_DOCUMENTS_TEXT) continue;
      options.separator = "--";
      read_all(&options, accepted);
      options.separator = "";
      read_all(&options, accepted);
    }
  close(file);
  return 0;
}
