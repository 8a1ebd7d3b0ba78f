#include "data/conversation_template.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

const char *kp_template_name(kp_template which) {
  static const char *const names[] = {"chatml", "llama3", "plain"};
  return names[which];
}

/* What stands around the words of a turn.  Marks become special tokens where the tokenizer has them. */
typedef struct frame {
  const char *before;             /* in front of the role; a mark */
  const char *roles[KP_SPEAKERS]; /* text */
  const char *after;              /* behind the role; a mark */
  const char *gap;                /* between that and the words; text */
  const char *space;              /* in front of the words and learned with them; text */
  const char *end;                /* what ends a turn, learned with the assistant's; a mark */
  const char *between;            /* behind it, not learned; text */
  bool end_token; /* the tokenizer's end token, where it has one, ends the assistant's turns */
} frame;

static const frame frames[KP_TEMPLATES] = {
    [KP_TEMPLATE_CHATML] = {.before = "<|im_start|>",
                            .roles = {"system", "user", "assistant", "tool"},
                            .after = "",
                            .gap = "\n",
                            .space = "",
                            .end = "<|im_end|>",
                            .between = "\n"},
    [KP_TEMPLATE_LLAMA3] = {.before = "<|start_header_id|>",
                            .roles = {"system", "user", "assistant", "ipython"},
                            .after = "<|end_header_id|>",
                            .gap = "\n\n",
                            .space = "",
                            .end = "<|eot_id|>",
                            .between = ""},
    [KP_TEMPLATE_PLAIN] = {.before = "",
                           .roles = {"System:", "User:", "Assistant:", "Tool:"},
                           .after = "",
                           .gap = "",
                           .space = " ",
                           .end = "\n",
                           .between = "",
                           .end_token = true},
};

static const char llama3_begin[] = "<|begin_of_text|>";

kp_status kp_template_check(kp_template which, const kp_tokenizer *tokenizer, kp_error *error) {
  const frame *f = &frames[KP_TEMPLATE_LLAMA3];
  const char *const needed[] = {llama3_begin, f->before, f->after, f->end};
  for (size_t i = 0; which == KP_TEMPLATE_LLAMA3 && i < sizeof needed / sizeof *needed; i++)
    if (kp_tokenizer_special(tokenizer, needed[i]) < 0)
      return kp_fail(error, KP_ERR_INPUT,
                     "the template llama3 is made of special tokens, and the tokenizer has no %s: take one "
                     "of Llama 3, or the template chatml or plain",
                     needed[i]);
  return KP_OK;
}

kp_status kp_template_text(kp_template which, const kp_conversation *c, kp_byte_buffer *text,
                           kp_error *error) {
  const frame *f = &frames[which];
  for (size_t i = 0; i < c->count; i++) {
    const kp_turn *turn = &c->turns[i];
    const char *const before[] = {f->before, f->roles[turn->role], f->after, f->gap, f->space};
    for (size_t part = 0; part < sizeof before / sizeof *before; part++)
      KP_TRY(kp_byte_buffer_append(text, before[part], strlen(before[part]), error));
    KP_TRY(kp_byte_buffer_append(text, c->text + turn->begin, turn->size, error));
    KP_TRY(kp_byte_buffer_append(text, f->end, strlen(f->end), error));
    KP_TRY(kp_byte_buffer_append(text, f->between, strlen(f->between), error));
  }
  return KP_OK;
}

/* ---- the list ---- */

void kp_masked_ids_clear(kp_masked_ids *list) {
  kp_ids_clear(&list->ids);
  free(list->mask);
  *list = (kp_masked_ids){0};
}

/* Gives the mask of the ids from `first` on. */
static kp_status set_mask(kp_masked_ids *list, size_t first, bool learned, kp_error *error) {
  const size_t count = list->ids.count;
  if (count > list->mask_capacity) {
    uint8_t *grown = realloc(list->mask, list->ids.capacity);
    if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for the mask of %zu tokens", count);
    list->mask = grown;
    list->mask_capacity = list->ids.capacity;
  }
  if (count > first) memset(list->mask + first, learned, count - first);
  return KP_OK;
}

/* ---- writing ---- */

typedef struct writer {
  const frame *frame;
  const kp_conversation *conversation;
  const kp_tokenizer *tokenizer;
  kp_masked_ids *list;
} writer;

static kp_status put(writer *w, const char *text, size_t size, bool special, bool learned, kp_error *error) {
  const size_t first = w->list->ids.count;
  const kp_text_view view = {text, size};
  KP_TRY(kp_tokenizer_append(w->tokenizer, view, special, &w->list->ids, error));
  return set_mask(w->list, first, learned, error);
}

static kp_status put_mark(writer *w, const char *mark, bool learned, kp_error *error) {
  return put(w, mark, strlen(mark), true, learned, error);
}

/* A template's own text, which is no special token. */
static kp_status put_text(writer *w, const char *text, kp_error *error) {
  return put(w, text, strlen(text), false, false, error);
}

static kp_status put_words(writer *w, const kp_turn *turn, bool learned, kp_error *error) {
  const char *space = w->frame->space, *words = w->conversation->text + turn->begin;
  const size_t length = strlen(space);
  if (length == 0 || turn->size == 0) return put(w, words, turn->size, false, learned, error);
  char *spaced = malloc(length + turn->size);
  if (spaced == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a turn of %zu bytes", turn->size);
  memcpy(spaced, space, length);
  memcpy(spaced + length, words, turn->size);
  kp_status status = put(w, spaced, length + turn->size, false, learned, error);
  free(spaced);
  return status;
}

/* A role and what stands between it and the words. */
static kp_status put_header(writer *w, kp_speaker role, kp_error *error) {
  char text[32];
  const frame *f = w->frame;
  KP_TRY(put_mark(w, f->before, false, error));
  /* One piece of text where no mark stands in between, as the tokenizer would see it. */
  if (f->after[0] == 0) {
    const size_t size = strlen(f->roles[role]), gap = strlen(f->gap);
    kp_assert(size + gap < sizeof text, "a role of %zu bytes", size);
    memcpy(text, f->roles[role], size);
    memcpy(text + size, f->gap, gap + 1);
    return put_text(w, text, error);
  }
  KP_TRY(put_text(w, f->roles[role], error));
  KP_TRY(put_mark(w, f->after, false, error));
  return put_text(w, f->gap, error);
}

/* What ends a turn. */
static kp_status put_turn_end(writer *w, bool learned, kp_error *error) {
  const int32_t end = w->tokenizer->end;
  const bool token = learned && w->frame->end_token && end >= 0;
  if (token) {
    KP_TRY(kp_ids_append(&w->list->ids, &end, 1, error));
    KP_TRY(set_mask(w->list, w->list->ids.count - 1, true, error));
  }
  KP_TRY(put_mark(w, w->frame->end, learned && !token, error));
  return put_text(w, w->frame->between, error);
}

static kp_status put_turn(writer *w, const kp_turn *turn, kp_error *error) {
  const bool learned = turn->role == KP_SPEAKER_ASSISTANT;
  KP_TRY(put_header(w, turn->role, error));
  KP_TRY(put_words(w, turn, learned, error));
  return put_turn_end(w, learned, error);
}

/* A turn of which only the front has room; false when nothing of it would be learned. */
static bool cut_turn(kp_masked_ids *list, size_t first, size_t end) {
  list->ids.count = end;
  return first < end && memchr(list->mask + first, 1, end - first) != NULL;
}

kp_status kp_template_write(kp_template which, const kp_conversation *c, const kp_tokenizer *tokenizer,
                            size_t room, kp_masked_ids *list, kp_written *written, kp_error *error) {
  writer w = {.frame = &frames[which], .conversation = c, .tokenizer = tokenizer, .list = list};
  const size_t begin = list->ids.count, end = begin + room;
  size_t kept = begin; /* where the last turn of the assistant that had room ends */
  if (which == KP_TEMPLATE_LLAMA3) KP_TRY(put_mark(&w, llama3_begin, false, error));
  *written = KP_WRITTEN_WHOLE;
  for (size_t i = 0; i < c->count && *written == KP_WRITTEN_WHOLE; i++) {
    const size_t first = list->ids.count;
    const bool learned = c->turns[i].role == KP_SPEAKER_ASSISTANT;
    KP_TRY(put_turn(&w, &c->turns[i], error));
    const bool fits = list->ids.count <= end, long_alone = learned && list->ids.count - first > room;
    if (!fits) *written = long_alone && cut_turn(list, first, end) ? KP_WRITTEN_CUT : KP_WRITTEN_SHORTER;
    if (learned && *written != KP_WRITTEN_SHORTER) kept = list->ids.count;
  }
  list->ids.count = kept;
  if (kept == begin) *written = KP_WRITTEN_NOTHING;
  return KP_OK;
}
