/* kappa tokenizer: text to token ids and back, by itself. */
#include "cli/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/subcommand.h"
#include "core/file.h"
#include "data/utf8.h"
#include "data/utf8_repair.h"

kp_status kp_read_text(const char *path, char **text, size_t *size, kp_error *error) {
  const bool standard = path == NULL || strcmp(path, "-") == 0;
  return kp_file_read_all(standard ? "/dev/stdin" : path, SIZE_MAX - 1, text, size, error);
}

bool kp_parse_invalid(const char *word, struct argp_state *state) {
  const bool replace = strcmp(word, "replace") == 0;
  if (!replace && strcmp(word, "refuse") != 0)
    argp_error(state, "--invalid is refuse or replace, not '%s'", word);
  return replace;
}

kp_status kp_repair_text(char **text, size_t *size, kp_error *error) {
  kp_byte_buffer repaired = {0};
  const kp_status status = kp_utf8_repair(*text, *size, &repaired, error);
  if (status != KP_OK) {
    kp_byte_buffer_clear(&repaired);
    return status;
  }
  free(*text);
  *text = repaired.data;
  *size = repaired.size;
  return KP_OK;
}

/* The bytes with those that are no UTF-8 written as \xHH; the caller frees them.  NULL: no memory. */
static char *readable(const char *bytes, size_t size, size_t *length) {
  enum { LONGEST = 4 };
  if (size > SIZE_MAX / LONGEST - 1) return NULL;
  char *text = malloc(LONGEST * size + 1);
  size_t written = 0;
  if (text == NULL) return NULL;
  for (size_t at = 0; at < size;) {
    uint32_t character;
    const size_t read = kp_utf8_read(bytes + at, size - at, &character);
    if (read > 0)
      memcpy(text + written, bytes + at, read);
    else
      snprintf(text + written, LONGEST + 1, "\\x%02X", (unsigned char)bytes[at]);
    written += read > 0 ? read : LONGEST;
    at += read > 0 ? read : 1;
  }
  *length = written;
  return text;
}

json_t *kp_json_bytes(const char *bytes, size_t size) {
  size_t length = 0;
  char *text = readable(bytes, size, &length);
  json_t *string = text == NULL ? NULL : json_stringn(text, length);
  free(text);
  return string;
}

void kp_print_bytes(const char *bytes, size_t size) {
  json_t *string = kp_json_bytes(bytes, size);
  if (string != NULL) json_dumpf(string, stdout, JSON_ENCODE_ANY);
  json_decref(string);
}

static const kp_command commands[] = {
    {"encode", "text to token ids", kp_tokenizer_encode_command},
    {"decode", "token ids to text", kp_tokenizer_decode_command},
    {"info", "what a tokenizer is, and how well it fits a text", kp_tokenizer_info_command},
    {"train", "learn a byte-level BPE tokenizer from texts", kp_tokenizer_train_command},
    {"convert", "write a tokenizer of another format as tokenizer.json", kp_tokenizer_convert_command},
};

static const kp_command_family family = {"tokenizer", commands, sizeof commands / sizeof *commands,
                                         "kappa tokenizer train book.txt --vocabulary 8192 --out mine.json"};

int kp_command_tokenizer(int argc, char **argv) {
  return kp_run_family(&family, argc, argv);
}
