/* The table of row programs in double, and the plain way to run one on a single row. */
#include "geometry/row_program.h"

#include <stddef.h>
#include <string.h>

#include "geometry/programs.h"

#define KP_ROW_PROGRAM(id, name, inputs, difference, scalar, forward, backward, reference)                   \
  [id] = {id, name, inputs, difference, scalar, forward, backward, reference},
const kp_row_program kp_row_programs[KP_PROGRAM_COUNT] = {
#include "geometry/programs.def"
};

const kp_row_program *kp_row_program_find(const char *name) {
  for (int i = 0; i < KP_PROGRAM_COUNT; i++)
    if (strcmp(kp_row_programs[i].name, name) == 0) return &kp_row_programs[i];
  return NULL;
}

/* An input that is NULL is the origin. */
static double input_element(const double *input, size_t i) {
  return input == NULL ? 0 : input[i];
}

/* Element i of basis vector j. */
static double basis_element(const kp_row_program *program, const double *const *inputs, int j, size_t i) {
  double element = input_element(inputs[j], i);
  if (program->difference && j == program->inputs - 1) return element - input_element(inputs[0], i);
  return element;
}

static void gram_matrix(const kp_row_program *program, size_t n, const double *const *inputs, double *gram) {
  int entry = 0;
  for (int j = 0; j < program->inputs; j++) {
    for (int k = j; k < program->inputs; k++) {
      double sum = 0;
      for (size_t i = 0; i < n; i++)
        sum += basis_element(program, inputs, j, i) * basis_element(program, inputs, k, i);
      gram[entry++] = sum;
    }
  }
}

int kp_row_program_apply(const kp_row_program *program, size_t n, const double *const *inputs, double kappa,
                         double p, double *output) {
  double gram[KP_ROW_PROGRAM_MAX_GRAM], coefficients[KP_ROW_PROGRAM_MAX_INPUTS];
  gram_matrix(program, n, inputs, gram);
  int event = program->forward(gram, kappa, p, coefficients);
  if (program->scalar) {
    output[0] = coefficients[0];
    return event;
  }
  for (size_t i = 0; i < n; i++) {
    double sum = 0;
    for (int j = 0; j < program->inputs; j++) sum += coefficients[j] * basis_element(program, inputs, j, i);
    output[i] = sum;
  }
  return event;
}

/* Element i of the gradient of basis vector j: c_j out_bar + sum_k (1 + [j = k]) G_bar_jk b_k. */
static double basis_bar_element(const kp_row_program *program, const double *const *inputs,
                                const double *coefficients, const double *gram_bar, const double *output_bar,
                                int j, size_t i) {
  double sum = program->scalar ? 0 : coefficients[j] * output_bar[i];
  int entry = 0;
  for (int a = 0; a < program->inputs; a++) {
    for (int b = a; b < program->inputs; b++, entry++) {
      if (a == j) sum += gram_bar[entry] * basis_element(program, inputs, b, i);
      if (b == j) sum += gram_bar[entry] * basis_element(program, inputs, a, i);
    }
  }
  return sum;
}

void kp_row_program_apply_backward(const kp_row_program *program, size_t n, const double *const *inputs,
                                   double kappa, double p, const double *output_bar,
                                   double *const *inputs_bar, double *kappa_bar, double *p_bar) {
  double gram[KP_ROW_PROGRAM_MAX_GRAM], gram_bar[KP_ROW_PROGRAM_MAX_GRAM];
  double coefficients[KP_ROW_PROGRAM_MAX_INPUTS], coefficients_bar[KP_ROW_PROGRAM_MAX_INPUTS];
  double row_kappa_bar, row_p_bar;
  int last = program->inputs - 1;
  gram_matrix(program, n, inputs, gram);
  program->forward(gram, kappa, p, coefficients);
  for (int j = 0; j <= last; j++) {
    coefficients_bar[j] = program->scalar ? output_bar[0] : 0;
    if (program->scalar) continue;
    for (size_t i = 0; i < n; i++)
      coefficients_bar[j] += output_bar[i] * basis_element(program, inputs, j, i);
  }
  program->backward(gram, kappa, p, coefficients_bar, gram_bar, &row_kappa_bar, &row_p_bar);
  for (int j = 0; j <= last; j++) {
    for (size_t i = 0; i < n; i++) {
      double element = basis_bar_element(program, inputs, coefficients, gram_bar, output_bar, j, i);
      if (inputs_bar[j]) inputs_bar[j][i] += element;
      if (program->difference && j == last && inputs_bar[0]) inputs_bar[0][i] -= element;
    }
  }
  if (kappa_bar) *kappa_bar += row_kappa_bar;
  if (p_bar) *p_bar += row_p_bar;
}
