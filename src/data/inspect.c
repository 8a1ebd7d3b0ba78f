#include "data/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/packed_stream.h"
#include "data/prepare.h"

/* The path that `name` stands for. */
static kp_status find(const char *name, const char *data_folder, char out[KP_PATH_SIZE], kp_error *error) {
  char root[KP_PATH_SIZE];
  KP_TRY(kp_path_check(name, error));
  if (kp_path_kind_of(name) != KP_PATH_MISSING || strpbrk(name, "*?[/") != NULL)
    return kp_path_join(out, "", name, error);
  if (data_folder != NULL)
    KP_TRY(kp_path_join(root, "", data_folder, error));
  else
    KP_TRY(kp_data_folder(root, error));
  KP_TRY(kp_path_join(out, root, name, error));
  if (kp_path_kind_of(out) != KP_PATH_MISSING) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "there is neither a file or folder %s nor a data set %s", name, out);
}

static kp_status add_part(kp_inspected *in, const char *name, const char *split, kp_error *error) {
  const char *path = in->path;
  kp_inspected_part *part = &in->parts[in->part_count];
  KP_TRY(kp_tokens_open(&path, 1, split, &part->tokens, error));
  part->name = name;
  in->part_count++;
  return KP_OK;
}

/* The tokenizer of the folder, if it made the tokens. */
static kp_status open_tokenizer(kp_inspected *in, const char *folder, kp_error *error) {
  char path[KP_PATH_SIZE];
  KP_TRY(kp_path_join(path, folder, KP_TOKENIZER_FILE, error));
  if (kp_path_kind_of(path) != KP_PATH_FILE) return KP_OK;
  KP_TRY(kp_tokenizer_open(path, &in->tokenizer, error));
  const kp_tokens *tokens = in->parts[0].tokens;
  if (kp_tokens_fingerprint(tokens) == in->tokenizer->fingerprint) return KP_OK;
  if (in->prepared) return kp_tokens_check_tokenizer(tokens, in->tokenizer, error);
  kp_tokenizer_destroy(in->tokenizer);
  in->tokenizer = NULL;
  return KP_OK;
}

static kp_status open_folder(kp_inspected *in, kp_error *error) {
  in->prepared = kp_prepared_state_of(in->path) != KP_PREPARED_FOREIGN;
  if (in->prepared) KP_TRY(kp_prepared_read(in->path, &in->set, error));
  in->labelled = kp_labelling_stands_in(in->path);
  if (in->labelled) KP_TRY(kp_labelled_open(in->path, &in->examples, error));
  KP_TRY(add_part(in, "train", "train", error));
  KP_TRY(add_part(in, "validation", "val", error));
  return open_tokenizer(in, in->path, error);
}

static kp_status open_file(kp_inspected *in, kp_error *error) {
  char folder[KP_PATH_SIZE];
  const char *name;
  KP_TRY(add_part(in, "tokens", NULL, error));
  KP_TRY(kp_path_split(in->path, folder, &name, error));
  return open_tokenizer(in, folder, error);
}

kp_status kp_inspect(const char *name, const char *data_folder, kp_inspected *in, kp_error *error) {
  *in = (kp_inspected){0};
  kp_status status = find(name, data_folder, in->path, error);
  if (status == KP_OK)
    status = kp_path_kind_of(in->path) == KP_PATH_FOLDER ? open_folder(in, error) : open_file(in, error);
  if (status != KP_OK) kp_inspected_clear(in);
  return status;
}

void kp_inspected_clear(kp_inspected *in) {
  for (int i = 0; i < in->part_count; i++) kp_tokens_destroy(in->parts[i].tokens);
  kp_tokenizer_destroy(in->tokenizer);
  kp_labelled_close(&in->examples);
  *in = (kp_inspected){0};
}

/* The examples that begin among the first `count` tokens. */
static kp_status examples_text(const kp_inspected *in, int part, int64_t count, char **text,
                               kp_error *error) {
  const kp_examples *examples = part == 0 ? &in->examples.train : &in->examples.validation;
  size_t size;
  FILE *out = open_memstream(text, &size);
  if (out == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the texts of examples");
  kp_status status = KP_OK;
  for (int64_t e = 0; status == KP_OK && e < examples->count && examples->offsets[e] < count; e++) {
    char *one = NULL;
    status = kp_example_text(&in->examples.labelling, examples, e, in->tokenizer, &one, error);
    if (status == KP_OK) fprintf(out, "%s%s", e > 0 ? "\n" : "", one);
    free(one);
  }
  fclose(out);
  return status;
}

kp_status kp_inspected_begin(const kp_inspected *in, int part, int64_t *count, int32_t **ids, char **text,
                             kp_error *error) {
  const kp_tokens *tokens = in->parts[part].tokens;
  size_t size;
  *text = NULL;
  if (*count > kp_tokens_count(tokens)) *count = kp_tokens_count(tokens);
  *ids = malloc(((size_t)*count + 1) * sizeof **ids);
  if (*ids == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %lld tokens", (long long)*count);
  kp_tokens_copy(tokens, 0, *count, *ids);
  if (in->tokenizer == NULL) return KP_OK;
  kp_status status = in->labelled
                         ? examples_text(in, part, *count, text, error)
                         : kp_tokenizer_decode(in->tokenizer, *ids, (size_t)*count, text, &size, error);
  if (status != KP_OK) {
    free(*ids);
    free(*text);
  }
  return status;
}

/* ---- conversations ---- */

kp_status kp_inspected_conversation(const kp_inspected *in, int part, int64_t number,
                                    const char *const marks[2], kp_byte_buffer *text, kp_error *error) {
  const kp_tokens *tokens = in->parts[part].tokens;
  const kp_conversation_index *index = kp_tokens_index(tokens);
  const int64_t end = index->offsets[number + 1];
  for (int64_t i = index->offsets[number]; i < end; i++) {
    const uint8_t *mask = index->mask + i;
    int32_t id;
    char *bytes;
    size_t size;
    kp_tokens_copy(tokens, i, 1, &id);
    KP_TRY(kp_tokenizer_decode(in->tokenizer, &id, 1, &bytes, &size, error));
    kp_status status = KP_OK;
    if (mask[0] == 1 && mask[-1] == 0)
      status = kp_byte_buffer_append(text, marks[0], strlen(marks[0]), error);
    if (status == KP_OK) status = kp_byte_buffer_append(text, bytes, size, error);
    if (status == KP_OK && mask[0] == 1 && (i == end - 1 || mask[1] == 0))
      status = kp_byte_buffer_append(text, marks[1], strlen(marks[1]), error);
    free(bytes);
    KP_TRY(status);
  }
  return KP_OK;
}

static kp_status efficiency(const kp_tokens *tokens, int64_t context, kp_packing_rule rule, double *share,
                            kp_error *error) {
  kp_packed_stream stream;
  const kp_sampler_options options = {
      .rows = 1, .context = context, .micro_batches = 1, .vocabulary = INT32_MAX};
  KP_TRY(kp_packed_stream_init_conversations(&stream, tokens, &options, rule, error));
  *share = kp_packed_stream_efficiency(&stream);
  kp_packed_stream_clear(&stream);
  return KP_OK;
}

kp_status kp_inspect_packing(const kp_inspected *in, int part, int64_t context, kp_inspected_packing *packing,
                             kp_error *error) {
  const kp_tokens *tokens = in->parts[part].tokens;
  packing->context = context > 0 ? context : kp_tokens_index(tokens)->longest - 1;
  KP_TRY(efficiency(tokens, packing->context, KP_PACKING_EXACT, &packing->best_fit, error));
  return efficiency(tokens, packing->context, KP_PACKING_SINGLE, &packing->single, error);
}
