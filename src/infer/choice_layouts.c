#define _POSIX_C_SOURCE 200809L /* strdup */
/* The kinds of objects that hold a multiple-choice question. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/choice_questions.h"
#include "infer/choice_text.h"

typedef struct layout {
  kp_choice_layout kind;
  const char *fields; /* what messages call it */
  bool (*is)(const json_t *object);
  kp_status (*read)(const json_t *object, kp_question *question, kp_error *error);
} layout;

/* ---- fields ---- */

static kp_status text_of(const json_t *object, const char *field, const char **text, kp_error *error) {
  const json_t *value = json_object_get(object, field);
  *text = "";
  if (value == NULL) return kp_fail(error, KP_ERR_INPUT, "there is no field \"%s\"", field);
  if (!json_is_string(value)) return kp_fail(error, KP_ERR_INPUT, "its \"%s\" is not a text", field);
  *text = json_string_value(value);
  return KP_OK;
}

static kp_status keep(char **place, const char *text, kp_error *error) {
  *place = strdup(text);
  return *place == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for a question") : KP_OK;
}

static kp_status keep_field(const json_t *object, const char *field, char **place, kp_error *error) {
  const char *text;
  KP_TRY(text_of(object, field, &text, error));
  return keep(place, text, error);
}

static kp_status add_choice(kp_question *question, const char *text, kp_error *error) {
  if (question->count == KP_MAX_CHOICES)
    return kp_fail(error, KP_ERR_INPUT, "it has more than %d choices", KP_MAX_CHOICES);
  KP_TRY(keep(&question->choices[question->count], text, error));
  question->count++;
  return KP_OK;
}

/* A list of texts. */
static kp_status add_texts(const json_t *list, const char *field, kp_question *question, kp_error *error) {
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *text = json_array_get(list, i);
    if (!json_is_string(text))
      return kp_fail(error, KP_ERR_INPUT, "item %zu of its \"%s\" is not a text", i + 1, field);
    KP_TRY(add_choice(question, json_string_value(text), error));
  }
  return KP_OK;
}

/* A number, or its digits; absent or empty is not known.  `first` is what the first choice is called. */
static kp_status number_of(const json_t *object, const char *field, int first, kp_question *question,
                           kp_error *error) {
  const json_t *value = json_object_get(object, field);
  const char *text = json_is_string(value) ? json_string_value(value) : NULL;
  long long number = -1;
  question->gold = -1;
  if (value == NULL || (text != NULL && text[0] == 0)) return KP_OK;
  if (json_is_integer(value))
    number = json_integer_value(value);
  else if (text != NULL && strlen(text) == 1 && strchr("0123456789", text[0]) != NULL)
    number = text[0] - '0';
  else if (text != NULL && strlen(text) == 1 && text[0] >= 'A' && text[0] <= 'Z')
    number = text[0] - 'A' + first;
  if (number < first || number >= first + question->count)
    return kp_fail(error, KP_ERR_INPUT, "its \"%s\" is none of its %d choices", field, question->count);
  question->gold = (int)(number - first);
  return KP_OK;
}

/* The choice whose label is the answer's; an absent answer is not known. */
static kp_status key_of(const json_t *object, const json_t *const *labels, kp_question *question,
                        kp_error *error) {
  const json_t *key = json_object_get(object, "answerKey");
  question->gold = -1;
  if (key == NULL) return KP_OK;
  if (!json_is_string(key)) return kp_fail(error, KP_ERR_INPUT, "its \"answerKey\" is not a text");
  const char *answer = json_string_value(key) + strspn(json_string_value(key), " \t\n");
  if (answer[0] == 0) return KP_OK;
  for (int i = 0; i < question->count && question->gold < 0; i++)
    if (json_is_string(labels[i]) && strcmp(json_string_value(labels[i]), answer) == 0) question->gold = i;
  if (question->gold >= 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "its \"answerKey\" %.20s is no label of its choices", answer);
}

static bool has(const json_t *object, const char *field) {
  return json_object_get(object, field) != NULL;
}

/* ---- layouts ---- */

static bool is_plain(const json_t *object) {
  return has(object, "query") && json_is_array(json_object_get(object, "choices"));
}

static kp_status read_plain(const json_t *object, kp_question *question, kp_error *error) {
  KP_TRY(keep_field(object, "query", &question->text, error));
  KP_TRY(add_texts(json_object_get(object, "choices"), "choices", question, error));
  return number_of(object, "gold", 0, question, error);
}

static bool is_hellaswag(const json_t *object) {
  return has(object, "ctx_a") && has(object, "endings");
}

static kp_status read_hellaswag(const json_t *object, kp_question *question, kp_error *error) {
  const char *activity, *first, *second;
  const json_t *endings = json_object_get(object, "endings");
  KP_TRY(text_of(object, "activity_label", &activity, error));
  KP_TRY(text_of(object, "ctx_a", &first, error));
  KP_TRY(text_of(object, "ctx_b", &second, error));
  if (!json_is_array(endings)) return kp_fail(error, KP_ERR_INPUT, "its \"endings\" is not a list");
  KP_TRY(kp_hellaswag_query(activity, first, second, &question->text, error));
  KP_TRY(add_texts(endings, "endings", question, error));
  for (int i = 0; i < question->count; i++) kp_hellaswag_clean(question->choices[i]);
  return number_of(object, "label", 0, question, error);
}

static bool is_stem(const json_t *object) {
  return json_is_object(json_object_get(object, "question"));
}

static kp_status read_stem(const json_t *object, kp_question *question, kp_error *error) {
  const json_t *inner = json_object_get(object, "question"), *choices = json_object_get(inner, "choices");
  const json_t *labels[KP_MAX_CHOICES];
  const char *text;
  KP_TRY(keep_field(inner, "stem", &question->text, error));
  if (!json_is_array(choices)) return kp_fail(error, KP_ERR_INPUT, "its question has no list \"choices\"");
  for (size_t i = 0; i < json_array_size(choices); i++) {
    const json_t *choice = json_array_get(choices, i);
    KP_TRY(text_of(choice, "text", &text, error));
    KP_TRY(add_choice(question, text, error));
    labels[i] = json_object_get(choice, "label");
  }
  return key_of(object, labels, question, error);
}

static bool is_lists(const json_t *object) {
  return json_is_object(json_object_get(object, "choices"));
}

static kp_status read_lists(const json_t *object, kp_question *question, kp_error *error) {
  const json_t *choices = json_object_get(object, "choices"), *texts = json_object_get(choices, "text");
  const json_t *names = json_object_get(choices, "label"), *labels[KP_MAX_CHOICES];
  KP_TRY(keep_field(object, has(object, "question") ? "question" : "question_stem", &question->text, error));
  if (!json_is_array(texts) || !json_is_array(names) || json_array_size(texts) != json_array_size(names))
    return kp_fail(error, KP_ERR_INPUT, "its choices are not two lists \"text\" and \"label\" of one length");
  KP_TRY(add_texts(texts, "text", question, error));
  for (int i = 0; i < question->count; i++) labels[i] = json_array_get(names, (size_t)i);
  return key_of(object, labels, question, error);
}

static bool is_subject(const json_t *object) {
  return json_is_string(json_object_get(object, "question")) &&
         json_is_array(json_object_get(object, "choices"));
}

static kp_status read_subject(const json_t *object, kp_question *question, kp_error *error) {
  KP_TRY(keep_field(object, "question", &question->text, error));
  if (has(object, "subject")) KP_TRY(keep_field(object, "subject", &question->subject, error));
  KP_TRY(add_texts(json_object_get(object, "choices"), "choices", question, error));
  return number_of(object, "answer", 0, question, error);
}

static bool is_goal(const json_t *object) {
  return has(object, "goal") && has(object, "sol1");
}

static kp_status add_fields(const json_t *object, const char *const *fields, kp_question *question,
                            kp_error *error) {
  const char *text;
  for (; *fields != NULL; fields++) {
    KP_TRY(text_of(object, *fields, &text, error));
    KP_TRY(add_choice(question, text, error));
  }
  return KP_OK;
}

static kp_status read_goal(const json_t *object, kp_question *question, kp_error *error) {
  static const char *const fields[] = {"sol1", "sol2", NULL};
  KP_TRY(keep_field(object, "goal", &question->text, error));
  KP_TRY(add_fields(object, fields, question, error));
  return number_of(object, "label", 0, question, error);
}

static bool is_social(const json_t *object) {
  return has(object, "context") && has(object, "answerA");
}

static kp_status read_social(const json_t *object, kp_question *question, kp_error *error) {
  static const char *const fields[] = {"answerA", "answerB", "answerC", NULL};
  const char *context, *asked;
  KP_TRY(text_of(object, "context", &context, error));
  KP_TRY(text_of(object, "question", &asked, error));
  KP_TRY(kp_join_text(&question->text, error, 3, context, " ", asked));
  KP_TRY(add_fields(object, fields, question, error));
  return number_of(object, has(object, "correct") ? "correct" : "label", 1, question, error);
}

static const layout layouts[] = {
    {KP_CHOICES_PLAIN, "query, choices, gold", is_plain, read_plain},
    {KP_CHOICES_HELLASWAG, "activity_label, ctx_a, ctx_b, endings, label", is_hellaswag, read_hellaswag},
    {KP_CHOICES_STEM, "question {stem, choices [{label, text}]}, answerKey", is_stem, read_stem},
    {KP_CHOICES_LISTS, "question, choices {label, text}, answerKey", is_lists, read_lists},
    {KP_CHOICES_SUBJECT, "question, choices, answer, subject", is_subject, read_subject},
    {KP_CHOICES_GOAL, "goal, sol1, sol2, label", is_goal, read_goal},
    {KP_CHOICES_SOCIAL, "context, question, answerA, answerB, answerC, label", is_social, read_social},
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

/* ---- questions ---- */

static void clear_question(kp_question *question) {
  free(question->text);
  free(question->subject);
  for (int i = 0; i < question->count; i++) free(question->choices[i]);
}

void kp_questions_clear(kp_questions *questions) {
  for (size_t i = 0; i < questions->count; i++) clear_question(&questions->list[i]);
  free(questions->list);
  *questions = (kp_questions){0};
}

/* The fields that there are, and those that would do. */
static kp_status unknown_layout(const json_t *object, int expected, kp_error *error) {
  char there[160] = "", wanted[400] = "";
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)object, key, value) {
    const size_t used = strlen(there);
    snprintf(there + used, sizeof there - used, "%s%.40s", used > 0 ? ", " : "", key);
  }
  for (int i = 0; i < LAYOUTS; i++) {
    const size_t used = strlen(wanted);
    if ((layouts[i].kind & expected) != 0)
      snprintf(wanted + used, sizeof wanted - used, "%s%s", used > 0 ? "; or " : "", layouts[i].fields);
  }
  return kp_fail(error, KP_ERR_INPUT, "it has the fields %s: the task reads %s",
                 there[0] == 0 ? "of nothing" : there, wanted);
}

static kp_status read_object(const json_t *object, int expected, kp_question *question, kp_error *error) {
  for (int i = 0; i < LAYOUTS; i++) {
    if ((layouts[i].kind & expected) == 0 || !layouts[i].is(object)) continue;
    KP_TRY(layouts[i].read(object, question, error));
    return question->count >= 2 ? KP_OK : kp_fail(error, KP_ERR_INPUT, "it has %d choices", question->count);
  }
  return unknown_layout(object, expected, error);
}

kp_status kp_questions_add(kp_questions *questions, const json_t *object, int expected, kp_error *error) {
  kp_question question = {0};
  if (questions->count == questions->capacity) {
    const size_t capacity = questions->capacity > 0 ? 2 * questions->capacity : 256;
    kp_question *list = realloc(questions->list, capacity * sizeof *list);
    if (list == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu questions", capacity);
    questions->list = list;
    questions->capacity = capacity;
  }
  kp_status status = json_is_object(object) ? read_object(object, expected, &question, error)
                                            : kp_fail(error, KP_ERR_INPUT, "it is JSON, but not an object");
  if (status == KP_OK)
    questions->list[questions->count++] = question;
  else
    clear_question(&question);
  return status;
}
