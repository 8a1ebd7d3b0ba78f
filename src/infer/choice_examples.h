/* Which examples stand in front of a question. */
#ifndef KAPPA_INFER_CHOICE_EXAMPLES_H
#define KAPPA_INFER_CHOICE_EXAMPLES_H

#include "infer/choice_tasks.h"
#include "infer/python_random.h"

/* Takes from the examples of one list after the other.  A view: the lists must outlive it. */
typedef struct kp_example_choice {
  const kp_choice_task *task;
  const kp_questions *pool;
  bool spare; /* none stands in front of its like, and one more is drawn: of tasks that say so, and where the
                 pool are the questions themselves */
  int shots;
  kp_python_random random;
  size_t *drawn; /* shots + 1 */
} kp_example_choice;

/* `examples` NULL: the questions themselves.  Close with kp_example_choice_clear. */
kp_status kp_example_choice_init(kp_example_choice *choice, const kp_choice_task *task,
                                 const kp_questions *questions, const kp_questions *examples, int shots,
                                 uint64_t seed, kp_error *error);
void kp_example_choice_clear(kp_example_choice *choice);

/* Writes `shots` examples for the next question; questions are asked in their order. */
kp_status kp_example_choice_next(kp_example_choice *choice, const kp_question *question,
                                 const kp_question **examples, kp_error *error);

#endif
