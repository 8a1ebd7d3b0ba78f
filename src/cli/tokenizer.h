/* The sub-commands of `kappa tokenizer`, and what they share. */
#ifndef KAPPA_CLI_TOKENIZER_H
#define KAPPA_CLI_TOKENIZER_H

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>

#include "data/tokenizer.h"

int kp_tokenizer_encode_command(int argc, char **argv);
int kp_tokenizer_decode_command(int argc, char **argv);
int kp_tokenizer_info_command(int argc, char **argv);
int kp_tokenizer_train_command(int argc, char **argv);
int kp_tokenizer_convert_command(int argc, char **argv);

/* Reads the bytes of a file, or of standard input for "-" and NULL.  The caller frees *text. */
kp_status kp_read_text(const char *path, char **text, size_t *size, kp_error *error);

/* What is done with bytes that are not UTF-8: --invalid refuse or replace. */
bool kp_parse_invalid(const char *word, struct argp_state *state);

/* Replaces the invalid bytes of a text that kp_read_text read. */
kp_status kp_repair_text(char **text, size_t *size, kp_error *error);

/* Bytes as a JSON string.  Those that are no UTF-8, which a token by itself may well be, are shown as \xHH in
 * the string.  The value belongs to the caller. */
json_t *kp_json_bytes(const char *bytes, size_t size);

/* The same bytes in quotation marks on a stream, so that white space and control characters can be seen. */
void kp_print_bytes(const char *bytes, size_t size);

#endif
