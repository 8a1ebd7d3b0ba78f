/* Feeds hostile bytes to the readers of labelled texts, each layout, by usual names and by numbers; and what
 * they accept to the tokenizer and the encoder.  What is accepted must keep what the headers promise. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/batches.h"
#include "data/character_tokenizer.h"
#include "data/labelled_encode.h"
#include "data/labelled_text.h"

/* Pieces lie one behind the other, in the bytes of the file; labels are below their number. */
static void check_texts(const kp_labelled_texts *texts) {
  size_t next = 0;
  for (size_t i = 0; i < texts->example_count; i++) {
    const kp_labelled_example *example = &texts->examples[i];
    const bool words = texts->task == KP_TASK_TAG;
    if (example->first != next || example->count == 0 || (!words && example->count > 2)) abort();
    if (words ? example->label != -1 : example->label < 0 || example->label >= texts->labels->count) abort();
    next += example->count;
  }
  if (next > texts->piece_count) abort();
  for (size_t i = 0; i < next; i++) {
    const kp_labelled_piece *piece = &texts->pieces[i];
    if (memchr(piece->text, 0, piece->size) != NULL) abort();
    if (texts->task == KP_TASK_TAG && (piece->label < 0 || piece->label >= texts->labels->count)) abort();
  }
}

/* Every example has 1 to 8 tokens, and as many tags as words began. */
static void check_stream(const kp_labelled_stream *stream, const kp_labelling *labelling) {
  for (size_t e = 0; e < stream->examples; e++) {
    const int64_t size = stream->offsets[e + 1] - stream->offsets[e];
    if (size < 1 || size > labelling->length) abort();
  }
  if (stream->offsets[stream->examples] != (int64_t)stream->count) abort();
  for (size_t i = 0; i < stream->count; i++) {
    if (stream->ids[i] < 0 || stream->ids[i] > kp_labelling_separator(labelling)) abort();
    if (stream->tags[i] != KP_IGNORE && (stream->tags[i] < 0 || stream->tags[i] >= labelling->labels.count))
      abort();
  }
}

static void encode(const kp_labelled_texts *texts, const char *data, size_t size) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  kp_labelled_stream stream = {0};
  /* Decoded JSON may have characters that the file has only as escapes: some examples are refused. */
  const char *sources[] = {data, " "};
  const size_t sizes[] = {size, 1};
  if (kp_character_tokenizer_create(sources, sizes, 2, &tokenizer, &error) != KP_OK) return;
  const kp_labelling labelling = {
      .task = texts->task, .labels = *texts->labels, .vocabulary = tokenizer->vocabulary, .length = 8};
  for (size_t i = 0; i < texts->example_count; i++) {
    const kp_status status =
        kp_labelled_encode(&stream, texts, &texts->examples[i], &labelling, tokenizer, &error);
    if (status == KP_OK) continue;
    if (error.message[0] == 0) abort();
    break;
  }
  if (stream.examples > 0 && stream.offsets[stream.examples] == (int64_t)stream.count)
    check_stream(&stream, &labelling);
  kp_labelled_stream_clear(&stream);
  kp_tokenizer_destroy(tokenizer);
}

static void read_layout(kp_task task, kp_labelled_format format, const uint8_t *bytes, size_t size) {
  kp_error error = {0};
  kp_label_set labels = {0};
  kp_labelled_texts texts = {.task = task, .labels = &labels};
  char *data = malloc(size + 1);
  if (data == NULL) return;
  memcpy(data, bytes, size);
  data[size] = 0;
  if (kp_labelled_texts_parse(&texts, &format, "file", data, size, &error) == KP_OK) {
    check_texts(&texts);
    encode(&texts, (const char *)bytes, size);
  } else if (error.message[0] == 0) {
    abort();
  }
  kp_labelled_texts_clear(&texts);
  kp_label_set_clear(&labels);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  read_layout(KP_TASK_CLASSIFY, (kp_labelled_format){.layout = KP_LAYOUT_TABLE}, data, size);
  read_layout(KP_TASK_CLASSIFY,
              (kp_labelled_format){.layout = KP_LAYOUT_TABLE, .text = "2", .second = "3", .label = "1"}, data,
              size);
  read_layout(KP_TASK_CLASSIFY, (kp_labelled_format){.layout = KP_LAYOUT_LINES}, data, size);
  read_layout(KP_TASK_TAG, (kp_labelled_format){.layout = KP_LAYOUT_COLUMNS}, data, size);
  return 0;
}
