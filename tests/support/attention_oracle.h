/* Attention by its definition, in double: what the fast kernels are measured against.
 *
 * Independent of src/: scores of pairs one by one, a T × T matrix, distances from the difference vector
 * c_k m_q - c_q m_k.  Tensors are (B, H, T, D), float inputs.
 */
#ifndef KAPPA_TESTS_ATTENTION_ORACLE_H
#define KAPPA_TESTS_ATTENTION_ORACLE_H

#include <stdbool.h>

typedef struct oracle_problem {
  int batch, length, heads, kv_heads, size;
  bool causal;
  int power; /* 0: dot product; 1, 2: minus β times the distance to that power */
  double scale;
  float *q, *k, *v, *out_bar; /* (B, H, T, D), k and v (B, KV, T, D) */
  float *kappa, *beta;        /* (H) */
} oracle_problem;

typedef struct oracle_result {
  double *out, *logsumexp;       /* (B, H, T, D), (B, H, T) */
  double *q_bar, *k_bar, *v_bar; /* as q, k, v */
  double *kappa_bar, *beta_bar;  /* (H) */
} oracle_result;

/* Arrays for the problem's shape, uninitialised inputs and zeroed results; freed by the _destroy. */
void oracle_problem_create(oracle_problem *problem);
void oracle_problem_destroy(oracle_problem *problem);
void oracle_result_create(oracle_result *result, const oracle_problem *problem);
void oracle_result_destroy(oracle_result *result);

/* Fills a created result. */
void oracle_run(const oracle_problem *problem, oracle_result *result);

#endif
