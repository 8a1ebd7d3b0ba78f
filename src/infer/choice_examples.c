#include "infer/choice_examples.h"

#include <stdlib.h>
#include <string.h>

kp_status kp_example_choice_init(kp_example_choice *choice, const kp_choice_task *task,
                                 const kp_questions *questions, const kp_questions *examples, int shots,
                                 uint64_t seed, kp_error *error) {
  *choice = (kp_example_choice){.task = task,
                                .pool = examples != NULL ? examples : questions,
                                .spare = examples == NULL || task->spare_example,
                                .shots = shots,
                                .drawn = calloc((size_t)shots + 1, sizeof *choice->drawn)};
  kp_python_random_init(&choice->random, seed);
  return choice->drawn == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for %d examples", shots) : KP_OK;
}

void kp_example_choice_clear(kp_example_choice *choice) {
  free(choice->drawn);
  *choice = (kp_example_choice){0};
}

static bool same_text(const char *a, const char *b) {
  return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool same_question(const kp_question *a, const kp_question *b) {
  if (a->count != b->count || a->gold != b->gold || !same_text(a->text, b->text) ||
      !same_text(a->subject, b->subject))
    return false;
  for (int i = 0; i < a->count; i++)
    if (!same_text(a->choices[i], b->choices[i])) return false;
  return true;
}

static bool may_stand(const kp_example_choice *c, const kp_question *example, const kp_question *question) {
  if (c->task->subjects && !same_text(example->subject, question->subject)) return false;
  return !c->spare || !same_question(example, question);
}

/* The first of the pool that may stand; how many, at most `shots`. */
static int take_first(const kp_example_choice *c, const kp_question *question, const kp_question **examples) {
  int taken = 0;
  for (size_t i = 0; i < c->pool->count && taken < c->shots; i++)
    if (may_stand(c, &c->pool->list[i], question)) examples[taken++] = &c->pool->list[i];
  return taken;
}

/* Draws `count` of `size` numbers, which stand for all of the pool or, with `others`, for those of it that
 * may stand; keeps what may.  The number kept. */
static kp_status draw(kp_example_choice *c, const kp_question *question, size_t count, const size_t *others,
                      size_t size, const kp_question **examples, int *kept, kp_error *error) {
  *kept = 0;
  if (count > size) return KP_OK;
  KP_TRY(kp_python_random_sample(&c->random, size, count, c->drawn, error));
  for (size_t i = 0; i < count && *kept < c->shots; i++) {
    const kp_question *example = &c->pool->list[others != NULL ? others[c->drawn[i]] : c->drawn[i]];
    if (may_stand(c, example, question)) examples[(*kept)++] = example;
  }
  return KP_OK;
}

/* Again, of a pool without the question's likes. */
static kp_status draw_of_others(kp_example_choice *c, const kp_question *question,
                                const kp_question **examples, int *kept, kp_error *error) {
  size_t size = 0, *others = malloc((c->pool->count + 1) * sizeof *others);
  if (others == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu examples", c->pool->count);
  for (size_t i = 0; i < c->pool->count; i++)
    if (may_stand(c, &c->pool->list[i], question)) others[size++] = i;
  kp_status status = draw(c, question, (size_t)c->shots, others, size, examples, kept, error);
  if (size < (size_t)c->shots) *kept = (int)size; /* what there is */
  free(others);
  return status;
}

/* Where the question may be among the examples, one more is drawn than is needed. */
kp_status kp_example_choice_next(kp_example_choice *c, const kp_question *question,
                                 const kp_question **examples, kp_error *error) {
  int taken = 0;
  if (c->shots == 0) return KP_OK;
  if (c->task->first_examples)
    taken = take_first(c, question, examples);
  else
    KP_TRY(draw(c, question, (size_t)c->shots + c->spare, NULL, c->pool->count, examples, &taken, error));
  if (taken < c->shots && !c->task->first_examples)
    KP_TRY(draw_of_others(c, question, examples, &taken, error));
  if (taken == c->shots) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "there are %d examples for a question%s%s, not %d", taken,
                 question->subject != NULL ? " about " : "",
                 question->subject != NULL ? question->subject : "", c->shots);
}
