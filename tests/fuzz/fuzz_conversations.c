/* Feeds hostile bytes to the readers of conversations, as a JSON object and as text, and to that of an index.
 * What is accepted is written by every template, and must keep what the headers promise. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/character_tokenizer.h"
#include "data/conversation_template.h"
#include "data/packed_stream.h"
#include "data/token_writer.h"

enum { ROOM = 48, INDEX_TOKENS = 40 };

static const kp_speaker_name names[] = {{"observation", KP_SPEAKER_TOOL}};
static const kp_speaker_names known = {names, 1};

/* Words lie one behind the other, in the text, without white space around them. */
static void check_turns(const kp_conversation *c) {
  size_t at = 0;
  for (size_t i = 0; i < c->count; i++) {
    const kp_turn *turn = &c->turns[i];
    if (turn->begin != at || turn->size > c->size - at || turn->role > KP_SPEAKER_TOOL) abort();
    if (turn->size > 0 && (c->text[at] == ' ' || c->text[at + turn->size - 1] == '\n')) abort();
    at += turn->size;
  }
  if (at != c->size) abort();
}

/* At most ROOM tokens, the first of which is not learned, and something learned. */
static void check_list(const kp_masked_ids *list, kp_written written) {
  size_t learned = 0;
  if ((written == KP_WRITTEN_NOTHING) != (list->ids.count == 0) || list->ids.count > ROOM) abort();
  for (size_t i = 0; i < list->ids.count; i++) {
    if (list->mask[i] > 1) abort();
    learned += list->mask[i];
  }
  if (list->ids.count > 0 && (learned == 0 || list->mask[0] == 1)) abort();
}

static void write_all(const kp_conversation *c) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  kp_byte_buffer text = {0};
  check_turns(c);
  if (kp_template_text(KP_TEMPLATE_CHATML, c, &text, &error) != KP_OK) abort();
  if (kp_template_text(KP_TEMPLATE_PLAIN, c, &text, &error) != KP_OK) abort();
  const char *data = text.data;
  if (text.size > 0 && kp_character_tokenizer_create(&data, &text.size, 1, &tokenizer, &error) == KP_OK) {
    static const kp_template templates[] = {KP_TEMPLATE_CHATML, KP_TEMPLATE_PLAIN};
    for (int i = 0; i < 2; i++) {
      kp_masked_ids list = {0};
      kp_written written;
      if (kp_template_write(templates[i], c, tokenizer, ROOM, &list, &written, &error) != KP_OK) abort();
      check_list(&list, written);
      kp_masked_ids_clear(&list);
    }
  }
  kp_tokenizer_destroy(tokenizer);
  kp_byte_buffer_clear(&text);
}

static void read_object(const uint8_t *bytes, size_t size) {
  kp_error error = {0};
  kp_conversation c = {0};
  kp_conversation_format format;
  json_t *object = json_loadb((const char *)bytes, size, JSON_ALLOW_NUL, NULL);
  if (object == NULL) return;
  kp_status status = kp_conversation_format_of_object(object, &format, &error);
  if (status == KP_OK) status = kp_conversation_from_object(&c, format, object, &known, &error);
  if (status != KP_OK && error.message[0] == 0) abort();
  if (status == KP_OK) write_all(&c);
  kp_conversation_clear(&c);
  json_decref(object);
}

static void read_text(const uint8_t *bytes, size_t size) {
  kp_error error = {0};
  kp_conversation c = {0};
  kp_conversation_text text = {.text = (const char *)bytes, .size = size};
  kp_status status = kp_conversation_format_of_text(text.text, size, &known, &text.format, &error);
  while (status == KP_OK && text.at < size) {
    const size_t before = text.at;
    kp_conversation_reset(&c);
    status = kp_conversation_from_text(&c, &text, &known, &error);
    if (status == KP_OK && (text.at <= before || text.at > size)) abort();
    if (status == KP_OK) write_all(&c);
  }
  if (status != KP_OK && error.message[0] == 0) abort();
  kp_conversation_clear(&c);
}

/* ---- the index ---- */

static const char *token_file(void) {
  static char path[64];
  static int32_t tokens[INDEX_TOKENS];
  kp_token_writer *writer;
  if (path[0] != 0) return path;
  snprintf(path, sizeof path, "/tmp/kappa-fuzz-%d.bin", (int)getpid());
  if (kp_token_writer_create(path, 9, 1, &writer, NULL) != KP_OK) abort();
  if (kp_token_writer_append(writer, tokens, INDEX_TOKENS, NULL) != KP_OK) abort();
  if (kp_token_writer_finish(writer, 0, NULL) != KP_OK) abort();
  return path;
}

static void pack(const kp_tokens *tokens) {
  const kp_conversation_index *index = kp_tokens_index(tokens);
  kp_packed_stream stream;
  kp_error error = {0};
  int32_t inputs[2 * INDEX_TOKENS], targets[2 * INDEX_TOKENS], documents[2 * INDEX_TOKENS];
  kp_batch batch = {.inputs = inputs, .targets = targets, .documents = documents};
  const kp_sampler_options options = {
      .rows = 2, .context = INDEX_TOKENS, .micro_batches = 1, .vocabulary = 9};
  if (index->longest < 2 || index->longest > INDEX_TOKENS) abort();
  for (kp_packing_rule rule = KP_PACKING_EXACT; rule <= KP_PACKING_HELM; rule++) {
    if (kp_packed_stream_init_conversations(&stream, tokens, &options, rule, &error) != KP_OK) continue;
    if (kp_packed_stream_fill(&stream, 0, 0, &batch, &error) != KP_OK) abort();
    kp_packed_stream_clear(&stream);
  }
}

static void read_index(const uint8_t *bytes, size_t size) {
  char path[KP_PATH_SIZE];
  const char *file = token_file();
  kp_error error = {0};
  kp_tokens *tokens = NULL;
  if (kp_conversation_index_path(file, path, NULL) != KP_OK) abort();
  FILE *out = fopen(path, "wb");
  if (out == NULL || fwrite(bytes, 1, size, out) != size || fclose(out) != 0) abort();
  if (kp_tokens_open(&file, 1, NULL, &tokens, &error) == KP_OK)
    pack(tokens);
  else if (error.message[0] == 0)
    abort();
  kp_tokens_destroy(tokens);
  unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  read_object(data, size);
  read_text(data, size);
  if (size >= 8 && memcmp(data + 2, "\0\0\0\0\0\0", 6) == 0) read_index(data, size);
  return 0;
}
