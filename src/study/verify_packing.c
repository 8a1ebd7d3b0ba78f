/* Cases of packing: several calls of one packer, whose left-over rows are carried on. */
#include <stdlib.h>
#include <string.h>

#include "data/packed.h"
#include "study/verify_private.h"

/* A case's numbers and the state of its calls. */
typedef struct session {
  const kp_case *c;
  kp_packer *packer;
  kp_packed packed;
  int64_t rows, length, raw;
  kp_packed_marks marks;
  int32_t *tokens; /* of all calls, one behind the other; owned */
  int64_t token_count;
} session;

static kp_status one_number(const kp_case *c, const char *name, int64_t *value, kp_error *error) {
  double *values;
  KP_TRY(kp_case_values(c, name, false, &values, NULL, error));
  *value = (int64_t)values[0];
  free(values);
  return KP_OK;
}

static kp_status begin(session *s, kp_error *error) {
  int64_t pad;
  KP_TRY(one_number(s->c, "cfg/bins", &s->rows, error));
  KP_TRY(one_number(s->c, "cfg/max_seq_len", &s->length, error));
  KP_TRY(one_number(s->c, "cfg/pad", &pad, error));
  KP_TRY(one_number(s->c, "cfg/raw_batch", &s->raw, error));
  if (s->rows < 1 || s->length < 1 || s->length > INT32_MAX || s->raw < 1)
    return kp_fail(error, KP_ERR_INPUT, "cfg/ describes no packing");
  const json_t *ignore = json_object_get(s->c->json, "ignore_index");
  s->marks = (kp_packed_marks){
      .pad = (int32_t)pad, .end = (int32_t)pad, .ignore = (int32_t)json_integer_value(ignore)};
  return kp_packer_create(KP_PACKING_HELM, s->rows, s->length, &s->packer, error);
}

static void end(session *s) {
  kp_packer_destroy(s->packer);
  kp_packed_clear(&s->packed);
  free(s->tokens);
}

static void copy_tokens(const void *from, int64_t offset, int64_t count, int32_t *out) {
  memcpy(out, (const int32_t *)from + offset, (size_t)count * sizeof *out);
}

static kp_status append_tokens(session *s, const double *values, int64_t count, kp_error *error) {
  int32_t *grown = realloc(s->tokens, (size_t)(s->token_count + count + 1) * sizeof *grown);
  if (grown == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %lld tokens", (long long)count);
  for (int64_t i = 0; i < count; i++) grown[s->token_count + i] = (int32_t)values[i];
  s->tokens = grown;
  s->token_count += count;
  return KP_OK;
}

/* Gives the documents of call `call` to the packer. */
static kp_status add_documents(session *s, int call, kp_error *error) {
  char name[64];
  double *lengths = NULL, *tokens = NULL;
  int64_t count, token_count, used = 0;
  snprintf(name, sizeof name, "in/call%d_lens", call);
  KP_TRY(kp_case_values(s->c, name, false, &lengths, &count, error));
  snprintf(name, sizeof name, "in/call%d_tokens", call);
  kp_status status = kp_case_values(s->c, name, false, &tokens, &token_count, error);
  kp_span *spans = malloc((size_t)(count + 1) * sizeof *spans);
  if (status == KP_OK && spans == NULL) status = kp_fail(error, KP_ERR_MEMORY, "no memory for documents");
  for (int64_t i = 0; i < count && status == KP_OK; i++) {
    spans[i] = (kp_span){.offset = s->token_count + used, .count = (int64_t)lengths[i]};
    used += spans[i].count;
  }
  if (status == KP_OK && used != token_count)
    status = kp_fail(error, KP_ERR_INPUT, "%s has %lld tokens, its documents %lld", name,
                     (long long)token_count, (long long)used);
  if (status == KP_OK) status = append_tokens(s, tokens, token_count, error);
  if (status == KP_OK) status = kp_packer_add(s->packer, spans, count, error);
  free(spans);
  free(lengths);
  free(tokens);
  return status;
}

/* Compares `count` whole numbers with an output of the call. */
static kp_status check(session *s, int call, const char *what, const int32_t *got, int64_t count,
                       kp_error *error) {
  char name[64];
  double *want, worst = 0;
  int64_t expected;
  snprintf(name, sizeof name, "out/call%d_%s", call, what);
  KP_TRY(kp_case_values(s->c, name, false, &want, &expected, error));
  if (expected != count) worst = 1e9;
  for (int64_t i = 0; i < count && expected == count; i++) {
    const double difference = got[i] > want[i] ? got[i] - want[i] : want[i] - got[i];
    if (difference > worst) worst = difference;
  }
  kp_case_check(s->c, worst, 0, "%s", name);
  free(want);
  return KP_OK;
}

static kp_status check_rows(session *s, int call, int32_t *scratch, kp_error *error) {
  const int64_t count = s->packed.count * s->length;
  int32_t *tokens = scratch, *labels = tokens + count, *documents = labels + count, *mask = documents + count;
  const kp_token_source source = {copy_tokens, s->tokens};
  for (int64_t row = 0; row < s->packed.count; row++) {
    const int64_t at = row * s->length;
    kp_packed_fill(&s->packed, row, s->length, s->marks, source, tokens + at, labels + at, documents + at,
                   NULL);
  }
  for (int64_t i = 0; i < count; i++) mask[i] = documents[i] >= 0;
  KP_TRY(check(s, call, "input_ids", tokens, count, error));
  KP_TRY(check(s, call, "labels", labels, count, error));
  KP_TRY(check(s, call, "sequence_id", documents, count, error));
  return check(s, call, "attention_mask", mask, count, error);
}

static kp_status check_waiting(session *s, int call, kp_error *error) {
  const int64_t count = kp_packer_waiting(s->packer, NULL, 0);
  int64_t *sizes = malloc((size_t)(count + 1) * sizeof *sizes);
  int32_t *narrow = malloc((size_t)(count + 1) * sizeof *narrow);
  kp_status status = sizes == NULL || narrow == NULL
                         ? kp_fail(error, KP_ERR_MEMORY, "no memory for %lld sizes", (long long)count)
                         : KP_OK;
  if (status == KP_OK) {
    kp_packer_waiting(s->packer, sizes, count);
    for (int64_t i = 0; i < count; i++) narrow[i] = (int32_t)sizes[i];
    status = check(s, call, "leftover_sizes", narrow, count, error);
  }
  free(sizes);
  free(narrow);
  return status;
}

static kp_status run_call(session *s, int call, kp_error *error) {
  KP_TRY(add_documents(s, call, error));
  kp_packed_clear(&s->packed);
  KP_TRY(kp_packer_take(s->packer, s->rows, &s->packed, error));
  int32_t *scratch = malloc((size_t)(4 * s->packed.count * s->length + 1) * sizeof *scratch);
  if (scratch == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for packed rows");
  kp_status status = check_rows(s, call, scratch, error);
  free(scratch);
  return status == KP_OK ? check_waiting(s, call, error) : status;
}

kp_status kp_verify_packing(const kp_case *c, kp_error *error) {
  session s = {.c = c};
  kp_status status = begin(&s, error);
  for (int call = 0; status == KP_OK; call++) {
    char name[64];
    snprintf(name, sizeof name, "in/call%d_lens", call);
    if (kp_safetensors_find(c->file, name) == NULL) break;
    status = run_call(&s, call, error);
  }
  end(&s);
  return status;
}
