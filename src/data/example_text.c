/* A labelled example back as words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/labelled.h"

static kp_status print_token(FILE *out, const kp_labelling *labelling, const kp_tokenizer *tokenizer,
                             int32_t id, int32_t tag, kp_error *error) {
  char *bytes;
  size_t size;
  if (id == kp_labelling_separator(labelling)) {
    fputs(" | ", out);
    return KP_OK;
  }
  KP_TRY(kp_tokenizer_decode(tokenizer, &id, 1, &bytes, &size, error));
  if (tag >= 0 && strcmp(labelling->labels.names[tag], "O") != 0)
    fprintf(out, "[%s]", labelling->labels.names[tag]);
  fwrite(bytes, 1, size, out);
  free(bytes);
  return KP_OK;
}

static kp_status print_example(FILE *out, const kp_labelling *labelling, const kp_examples *examples,
                               int64_t example, const kp_tokenizer *tokenizer, kp_error *error) {
  const bool words = labelling->task == KP_TASK_TAG;
  if (!words) fprintf(out, "%s: ", labelling->labels.names[examples->labels[example]]);
  for (int64_t i = examples->offsets[example]; i < examples->offsets[example + 1]; i++) {
    int32_t id;
    kp_tokens_copy(examples->tokens, i, 1, &id);
    KP_TRY(print_token(out, labelling, tokenizer, id, words ? examples->labels[i] : -1, error));
  }
  return KP_OK;
}

kp_status kp_example_text(const kp_labelling *labelling, const kp_examples *examples, int64_t example,
                          const kp_tokenizer *tokenizer, char **text, kp_error *error) {
  size_t size;
  *text = NULL;
  FILE *out = open_memstream(text, &size);
  if (out == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the text of an example");
  kp_status status = print_example(out, labelling, examples, example, tokenizer, error);
  if (fclose(out) != 0 && status == KP_OK)
    status = kp_fail(error, KP_ERR_MEMORY, "no memory for the text of an example");
  if (status == KP_OK) return KP_OK;
  free(*text);
  *text = NULL;
  return status;
}
