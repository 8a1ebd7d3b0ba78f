#include "infer/multiple_choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "infer/choice_examples.h"
#include "infer/choice_text.h"

/* ---- tokens ---- */

static kp_status append(const kp_tokenizer *tokenizer, const char *text, size_t size, kp_ids *ids,
                        kp_error *error) {
  const kp_text_view view = {text, size};
  if (tokenizer->begin >= 0) KP_TRY(kp_ids_append(ids, &tokenizer->begin, 1, error));
  return kp_tokenizer_append(tokenizer, view, false, ids, error);
}

/* The prompt as it is encoded alone, then what the whole has behind as many tokens. */
static kp_status join(const kp_tokenizer *tokenizer, const kp_ids *prompt, const kp_ids *whole, kp_ids *row,
                      int64_t *scored, kp_error *error) {
  const int32_t first = tokenizer->begin >= 0 ? tokenizer->begin : tokenizer->end;
  if (whole->count <= prompt->count)
    return kp_fail(error, KP_ERR_INPUT, "the choice adds no token to the prompt");
  if (prompt->count == 0 && first < 0)
    return kp_fail(error, KP_ERR_INPUT,
                   "the prompt is empty, and the tokenizer has no token for the beginning of a text");
  KP_TRY(prompt->count == 0 ? kp_ids_append(row, &first, 1, error)
                            : kp_ids_append(row, prompt->list, prompt->count, error));
  *scored = (int64_t)(whole->count - prompt->count);
  return kp_ids_append(row, whole->list + prompt->count, (size_t)*scored, error);
}

kp_status kp_encode_continuation(const kp_tokenizer *tokenizer, const char *prompt, const char *continuation,
                                 kp_ids *row, int64_t *scored, kp_error *error) {
  const size_t size = strlen(prompt), kept = size - kp_trailing_space(prompt, size);
  kp_ids front = {0}, whole = {0};
  char *text;
  KP_TRY(kp_join_text(&text, error, 2, prompt, continuation));
  kp_status status = append(tokenizer, prompt, kept, &front, error);
  if (status == KP_OK) status = append(tokenizer, text, strlen(text), &whole, error);
  if (status == KP_OK) status = join(tokenizer, &front, &whole, row, scored, error);
  free(text);
  kp_ids_clear(&front);
  kp_ids_clear(&whole);
  return status;
}

/* ---- rows ---- */

typedef struct row_place {
  size_t first;
  int64_t count, scored;
} row_place;

typedef struct rows {
  const kp_trained *trained;
  const kp_choice_options *options;
  kp_ids tokens;
  row_place *places; /* of the choices, question by question */
  size_t count;
} rows;

/* What does not fit goes at the front. */
static kp_status add_row(rows *r, const char *prompt, const char *answer, bool *cut, kp_error *error) {
  const int64_t context = r->trained->options.context;
  row_place place = {.first = r->tokens.count};
  char *continuation;
  KP_TRY(kp_join_text(&continuation, error, 2, " ", answer));
  kp_status status =
      kp_encode_continuation(r->trained->tokenizer, prompt, continuation, &r->tokens, &place.scored, error);
  free(continuation);
  KP_TRY(status);
  if (place.scored > context)
    return kp_fail(error, KP_ERR_INPUT, "a choice has %lld tokens, the model's context is %lld",
                   (long long)place.scored, (long long)context);
  place.count = (int64_t)(r->tokens.count - place.first);
  if (place.count > context + 1) {
    place.first += (size_t)(place.count - context - 1);
    place.count = context + 1;
    *cut = true;
  }
  r->places[r->count++] = place;
  return KP_OK;
}

static kp_status add_question(rows *r, const kp_question *question, const kp_question *const *examples,
                              kp_choice_result *result, kp_error *error) {
  char *prompt;
  KP_TRY(kp_choice_prompt(r->options->task, question, examples, r->options->shots, &prompt, error));
  *result = (kp_choice_result){.count = question->count, .gold = question->gold};
  kp_status status = KP_OK;
  for (int c = 0; status == KP_OK && c < question->count; c++)
    status = add_row(r, prompt, kp_choice_answer(r->options->task, question, c), &result->cut, error);
  free(prompt);
  return status;
}

static kp_status add_questions(rows *r, const kp_questions *questions, size_t count,
                               kp_choice_result *results, kp_error *error) {
  kp_example_choice choice;
  const int shots = r->options->shots;
  const kp_question **examples = calloc((size_t)shots + 1, sizeof *examples);
  if (examples == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %d examples", shots);
  kp_status status = kp_example_choice_init(&choice, r->options->task, questions, r->options->examples, shots,
                                            r->options->seed, error);
  for (size_t i = 0; status == KP_OK && i < count; i++) {
    status = kp_example_choice_next(&choice, &questions->list[i], examples, error);
    if (status == KP_OK) status = add_question(r, &questions->list[i], examples, &results[i], error);
    if (status != KP_OK) kp_context(error, "question %zu", i + 1);
  }
  kp_example_choice_clear(&choice);
  free(examples);
  return status;
}

/* ---- choosing ---- */

static int largest(const double *scores, int count) {
  int best = 0;
  for (int c = 1; c < count; c++)
    if (scores[c] > scores[best]) best = c;
  return best;
}

static kp_status choose(const kp_choice_task *task, const kp_question *question, kp_choice_result *result,
                        kp_error *error) {
  double norm[KP_MAX_CHOICES], bytes[KP_MAX_CHOICES];
  for (int c = 0; c < question->count; c++) {
    const char *answer = kp_choice_answer(task, question, c);
    size_t characters;
    KP_TRY(kp_utf8_count(answer, strlen(answer), &characters, error));
    norm[c] = result->scores[c] / (double)characters;
    bytes[c] = result->scores[c] / (double)strlen(answer);
  }
  result->chosen = largest(result->scores, question->count);
  result->chosen_norm = largest(norm, question->count);
  result->chosen_bytes = largest(bytes, question->count);
  return KP_OK;
}

static kp_status score_rows(const rows *r, const kp_questions *questions, size_t count,
                            kp_choice_result *results, kp_error *error) {
  kp_scored_row *scored = calloc(r->count, sizeof *scored);
  kp_likelihood *likelihoods = calloc(r->count, sizeof *likelihoods);
  kp_status status = scored == NULL || likelihoods == NULL
                         ? kp_fail(error, KP_ERR_MEMORY, "no memory for %zu choices", r->count)
                         : KP_OK;
  for (size_t i = 0; status == KP_OK && i < r->count; i++)
    scored[i] = (kp_scored_row){.tokens = r->tokens.list + r->places[i].first,
                                .count = r->places[i].count,
                                .scored = r->places[i].scored};
  if (status == KP_OK)
    status = kp_likelihoods(r->trained, scored, r->count, &r->options->likelihood, likelihoods, error);
  for (size_t i = 0, next = 0; status == KP_OK && i < count; i++) {
    for (int c = 0; c < results[i].count; c++) results[i].scores[c] = likelihoods[next++].sum;
    status = choose(r->options->task, &questions->list[i], &results[i], error);
  }
  free(scored);
  free(likelihoods);
  return status;
}

kp_status kp_multiple_choice(const kp_trained *trained, const kp_questions *questions,
                             const kp_choice_options *options, kp_choice_result *results, kp_error *error) {
  const size_t count =
      options->limit > 0 && options->limit < questions->count ? options->limit : questions->count;
  rows r = {.trained = trained, .options = options};
  size_t choices = 0;
  if (trained->tokenizer == NULL)
    return kp_fail(error, KP_ERR_INPUT, "run %s has no tokenizer.json, so questions cannot become tokens",
                   trained->run);
  for (size_t i = 0; i < count; i++) choices += (size_t)questions->list[i].count;
  r.places = calloc(choices + 1, sizeof *r.places);
  kp_status status = r.places == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for %zu choices", choices)
                                      : add_questions(&r, questions, count, results, error);
  if (status == KP_OK) status = score_rows(&r, questions, count, results, error);
  kp_ids_clear(&r.tokens);
  free(r.places);
  return status;
}

/* ---- the report ---- */

static double binary_error(double p, size_t count) {
  return count > 1 ? sqrt(p * (1 - p) / (double)(count - 1)) : (double)NAN;
}

kp_status kp_choice_report_of(const kp_choice_result *results, size_t count, kp_choice_report *report,
                              kp_error *error) {
  size_t right = 0, right_norm = 0, right_bytes = 0;
  const double n = (double)count;
  double *chances = malloc((count + 1) * sizeof *chances);
  *report = (kp_choice_report){.questions = count};
  if (chances == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu questions", count);
  for (size_t i = 0; i < count; i++) {
    chances[i] = 1 / (double)results[i].count;
    report->chance += chances[i] / n;
    report->cut += results[i].cut;
    right += results[i].chosen == results[i].gold;
    right_norm += results[i].chosen_norm == results[i].gold;
    right_bytes += results[i].chosen_bytes == results[i].gold;
  }
  report->accuracy = (double)right / n;
  report->accuracy_norm = (double)right_norm / n;
  report->accuracy_bytes = (double)right_bytes / n;
  report->accuracy_error = binary_error(report->accuracy, count);
  report->accuracy_norm_error = binary_error(report->accuracy_norm, count);
  report->accuracy_bytes_error = binary_error(report->accuracy_bytes, count);
  kp_status status = kp_chance_test(chances, count, right, &report->p, error);
  if (status == KP_OK) status = kp_chance_test(chances, count, right_norm, &report->p_norm, error);
  free(chances);
  return status;
}
