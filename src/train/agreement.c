/* Macro-F1 and Matthews' correlation of a confusion table.
 *
 * Both are functions of few sums, so that each value without one example, which the jackknife needs, takes no
 * pass over the table. */
#include <math.h>
#include <stdlib.h>

#include "train/scores.h"

/* What the measures are made of: gold and predicted examples of each label (K), and sums over labels. */
typedef struct sums {
  int32_t K;
  double *gold, *predicted;
  double all, right, products, golds, predictions; /* Σ gold·predicted, Σ gold², Σ predicted² */
} sums;

static void fill(const int64_t *confusion, int32_t K, double *room, sums *s) {
  *s = (sums){.K = K, .gold = room, .predicted = room + K};
  for (int32_t g = 0; g < K; g++)
    for (int32_t p = 0; p < K; p++) {
      const double count = (double)confusion[(int64_t)g * K + p];
      s->gold[g] += count;
      s->predicted[p] += count;
      s->all += count;
      s->right += g == p ? count : 0;
    }
  for (int32_t k = 0; k < K; k++) {
    s->products += s->gold[k] * s->predicted[k];
    s->golds += s->gold[k] * s->gold[k];
    s->predictions += s->predicted[k] * s->predicted[k];
  }
}

static double f1(double right, double gold, double predicted) {
  return gold + predicted > 0 ? 2 * right / (gold + predicted) : 0;
}

/* The sum of F1 over labels, and the number of labels that occur. */
static double sum_f1(const int64_t *confusion, const sums *s, int32_t *labels) {
  double sum = 0;
  *labels = 0;
  for (int32_t k = 0; k < s->K; k++) {
    sum += f1((double)confusion[(int64_t)k * s->K + k], s->gold[k], s->predicted[k]);
    *labels += s->gold[k] + s->predicted[k] > 0;
  }
  return sum;
}

double kp_matthews(double all, double right, double products, double golds, double predictions) {
  const double scale = (all * all - golds) * (all * all - predictions);
  return scale > 0 ? (right * all - products) / sqrt(scale) : 0;
}

/* The correlation without one example of label g that was taken for p. */
static double matthews_without(const sums *s, int32_t g, int32_t p) {
  const double same = g == p;
  const double products = s->products - s->predicted[g] - s->gold[p] + same;
  return kp_matthews(s->all - 1, s->right - same, products, s->golds - 2 * s->gold[g] + 1,
                     s->predictions - 2 * s->predicted[p] + 1);
}

/* The same of macro-F1: only the labels g and p change. */
static double macro_without(const int64_t *confusion, const sums *s, double sum, int32_t labels, int32_t g,
                            int32_t p) {
  for (int side = 0; side < (g == p ? 1 : 2); side++) {
    const int32_t k = side == 0 ? g : p;
    const double right = (double)confusion[(int64_t)k * s->K + k], same = g == p;
    const double gold = s->gold[k] - (k == g), predicted = s->predicted[k] - (k == p);
    sum += f1(right - same, gold, predicted) - f1(right, s->gold[k], s->predicted[k]);
    labels -= gold + predicted == 0;
  }
  return labels > 0 ? sum / labels : 0;
}

/* Sums of the values without an example, and of their squares' differences from the value of all: shifted, so
 * that what cancels is small. */
typedef struct jackknife {
  double sum, squares;
} jackknife;

static void add(jackknife *j, double difference, double count) {
  j->sum += count * difference;
  j->squares += count * difference * difference;
}

static double error_of(const jackknife *j, double all) {
  const double mean = j->sum / all;
  return all > 1 ? sqrt((all - 1) * fmax(j->squares / all - mean * mean, 0)) : (double)NAN;
}

kp_status kp_agreement_of(const int64_t *confusion, int32_t K, kp_agreement *agreement, kp_error *error) {
  double *room = calloc(2 * (size_t)K, sizeof *room);
  if (room == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %d labels", K);
  sums s;
  int32_t labels;
  jackknife of_macro = {0}, of_mcc = {0};
  fill(confusion, K, room, &s);
  const double sum = sum_f1(confusion, &s, &labels), macro = labels > 0 ? sum / labels : 0;
  const double mcc = kp_matthews(s.all, s.right, s.products, s.golds, s.predictions);
  for (int32_t g = 0; g < K; g++)
    for (int32_t p = 0; p < K; p++) {
      const double count = (double)confusion[(int64_t)g * K + p];
      if (count == 0) continue;
      add(&of_macro, macro_without(confusion, &s, sum, labels, g, p) - macro, count);
      add(&of_mcc, matthews_without(&s, g, p) - mcc, count);
    }
  free(room);
  *agreement = (kp_agreement){.macro_f1 = macro,
                              .mcc = mcc,
                              .macro_f1_error = error_of(&of_macro, s.all),
                              .mcc_error = error_of(&of_mcc, s.all)};
  return KP_OK;
}
