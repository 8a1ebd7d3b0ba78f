#include "cli/data_show_dialogue.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "data/utf8_repair.h"

/* What stands around learned words: bold and green on a terminal, else brackets. */
static const char *const colours[] = {"\033[1;32m", "\033[0m"}, *const brackets[] = {"[", "]"},
                         *const nothing[] = {"", ""};

static const kp_conversation_index *index_of(const kp_inspected *in, int part) {
  return kp_tokens_index(in->parts[part].tokens);
}

/* The ids of conversation e; for the caller to free. */
static kp_status copy_ids(const kp_inspected *in, int part, int64_t e, int32_t **ids, kp_error *error) {
  const int64_t *offsets = index_of(in, part)->offsets, count = offsets[e + 1] - offsets[e];
  *ids = malloc((size_t)count * sizeof **ids);
  if (*ids == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %lld tokens", (long long)count);
  kp_tokens_copy(in->parts[part].tokens, offsets[e], count, *ids);
  return KP_OK;
}

/* ---- text ---- */

static kp_status print_ids(const kp_inspected *in, int part, int64_t e, int64_t most,
                           const char *const marks[2], kp_error *error) {
  const kp_conversation_index *index = index_of(in, part);
  const uint8_t *mask = index->mask + index->offsets[e];
  const int64_t all = index->offsets[e + 1] - index->offsets[e], count = all < most ? all : most;
  int32_t *ids;
  if (count == 0) return KP_OK;
  KP_TRY(copy_ids(in, part, e, &ids, error));
  printf("  ids:");
  for (int64_t t = 0; t < count; t++) {
    const bool begins = mask[t] == 1 && (t == 0 || mask[t - 1] == 0),
               ends = mask[t] == 1 && (t == count - 1 || mask[t + 1] == 0);
    printf(" %s%d%s", begins ? marks[0] : "", ids[t], ends ? marks[1] : "");
  }
  printf("%s\n", count < all ? " ..." : "");
  free(ids);
  return KP_OK;
}

static kp_status print_conversation(const kp_inspected *in, int part, int64_t e, int64_t most,
                                    kp_error *error) {
  const kp_conversation_index *index = index_of(in, part);
  const char *const *marks = isatty(STDOUT_FILENO) ? colours : brackets;
  kp_byte_buffer text = {0};
  int64_t learned = 0;
  for (int64_t i = index->offsets[e]; i < index->offsets[e + 1]; i++) learned += index->mask[i];
  printf("  conversation %lld: %lld tokens, %lld learned\n", (long long)e,
         (long long)(index->offsets[e + 1] - index->offsets[e]), (long long)learned);
  KP_TRY(print_ids(in, part, e, most, marks, error));
  kp_status status = KP_OK;
  if (in->tokenizer != NULL) status = kp_inspected_conversation(in, part, e, marks, &text, error);
  if (status == KP_OK) fwrite(text.data, 1, text.size, stdout);
  if (text.size > 0 && text.data[text.size - 1] != '\n') putchar('\n');
  kp_byte_buffer_clear(&text);
  return status;
}

kp_status kp_print_dialogue(const kp_inspected *in, int part, const kp_dialogue_view *view, kp_error *error) {
  const kp_conversation_index *index = index_of(in, part);
  kp_inspected_packing packing;
  if (index == NULL) return KP_OK;
  const kp_conversation_counts *c = &index->counts;
  KP_TRY(kp_inspect_packing(in, part, view->context, &packing, error));
  printf("  %lld conversations, %lld turns, at most %lld tokens; template %s\n"
         "  %lld tokens (%.1f%%) are learned; %lld conversations lost turns, %lld end within one, %lld were "
         "left out\n"
         "  rows of %lld tokens are %.1f%% full by best fit, %.1f%% with one conversation each\n",
         (long long)index->count, (long long)c->turns, (long long)index->longest, index->template_name,
         (long long)c->learned, 100 * (double)c->learned / (double)kp_tokens_count(in->parts[part].tokens),
         (long long)c->shorter, (long long)c->cut, (long long)c->left_out, (long long)packing.context,
         100 * packing.best_fit, 100 * packing.single);
  for (int64_t e = 0; e < index->count && e < view->documents; e++)
    KP_TRY(print_conversation(in, part, e, view->tokens, error));
  return KP_OK;
}

/* ---- JSON ---- */

kp_status kp_show_text(const char *text, size_t size, json_t **json, kp_error *error) {
  kp_byte_buffer repaired = {0};
  KP_TRY(kp_utf8_repair(text, size, &repaired, error));
  *json = json_stringn(repaired.data == NULL ? "" : repaired.data, repaired.size);
  kp_byte_buffer_clear(&repaired);
  return KP_OK;
}

static kp_status conversation_json(const kp_inspected *in, int part, int64_t e, json_t *list,
                                   kp_error *error) {
  const kp_conversation_index *index = index_of(in, part);
  const int64_t count = index->offsets[e + 1] - index->offsets[e];
  kp_byte_buffer text = {0};
  int32_t *ids;
  KP_TRY(copy_ids(in, part, e, &ids, error));
  json_t *numbers = json_array(), *mask = json_array();
  for (int64_t t = 0; t < count; t++) {
    json_array_append_new(numbers, json_integer(ids[t]));
    json_array_append_new(mask, json_integer(index->mask[index->offsets[e] + t]));
  }
  free(ids);
  kp_status status = KP_OK;
  if (in->tokenizer != NULL) status = kp_inspected_conversation(in, part, e, nothing, &text, error);
  json_t *words = NULL;
  if (status == KP_OK && text.size > 0) status = kp_show_text(text.data, text.size, &words, error);
  json_array_append_new(list, json_pack("{s:o, s:o, s:o}", "ids", numbers, "mask", mask, "text",
                                        words == NULL ? json_null() : words));
  kp_byte_buffer_clear(&text);
  return status;
}

kp_status kp_dialogue_json(const kp_inspected *in, int part, const kp_dialogue_view *view, json_t **json,
                           kp_error *error) {
  const kp_conversation_index *index = index_of(in, part);
  kp_inspected_packing packing;
  *json = NULL;
  if (index == NULL) return KP_OK;
  const kp_conversation_counts *c = &index->counts;
  KP_TRY(kp_inspect_packing(in, part, view->context, &packing, error));
  json_t *list = json_array();
  for (int64_t e = 0; e < index->count && e < view->documents; e++)
    KP_TRY(conversation_json(in, part, e, list, error));
  *json = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:f, s:f}, s:o}", "template",
                    index->template_name, "conversations", (json_int_t)index->count, "turns",
                    (json_int_t)c->turns, "longest", (json_int_t)index->longest, "learned",
                    (json_int_t)c->learned, "shorter", (json_int_t)c->shorter, "cut", (json_int_t)c->cut,
                    "left_out", (json_int_t)c->left_out, "packing", "context", (json_int_t)packing.context,
                    "best_fit", packing.best_fit, "single", packing.single, "documents", list);
  return KP_OK;
}
