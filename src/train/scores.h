/* How well labels are predicted: accuracy, macro-F1, and F1 of entities where tags mark them.
 *
 *   accuracy   right labels over all; of words: each word counts
 *   macro-F1   the mean over labels of 2 right / (gold + predicted), labels that occur in neither left out
 *   MCC        the correlation of labels and predictions (Matthews 1975; of several classes Gorodkin 2004), 0
 *              where either is always the same
 *   entities   tags B-X, I-X, O (also E-, S-): an entity is right when its first word, last word and type
 * are, as conlleval counts (Tjong Kim Sang and De Meulder 2003)
 *
 * Standard errors are those of a ratio of sums over examples (Cochran 1977, chapter 2.11): words of a
 * sentence are not independent, sentences are taken to be.  For sentences with one label each the error of
 * the accuracy is the root of p (1 - p) / (n - 1).  Those of macro-F1 and MCC are jackknifes over sentences
 * (Efron 1982), of classifiers alone. */
#ifndef KAPPA_TRAIN_SCORES_H
#define KAPPA_TRAIN_SCORES_H

#include "data/labelled.h"

/* Sums over examples of a numerator r and a denominator n. */
typedef struct kp_ratio {
  double r, n, rr, rn, nn;
} kp_ratio;

typedef struct kp_scores {
  const kp_labelling *labelling;
  int32_t majority;   /* the most frequent label in training */
  bool entities;      /* the labels mark some */
  int64_t *confusion; /* (K, K): gold, predicted; owned */
  int32_t *row;       /* (2, longest row): scratch; owned */
  int64_t examples;
  kp_ratio loss, right, entity; /* entity: 2 right over gold + predicted */
  int64_t entities_gold, entities_found, entities_right;
  struct kp_type_count *types; /* of entities, in the order of their names; owned */
  int type_count;
} kp_scores;

/* `train` gives the majority label and may be NULL: then there is none.  `labelling` must outlive the scores.
 */
kp_status kp_scores_init(kp_scores *scores, const kp_labelling *labelling, const kp_examples *train,
                         int64_t context, kp_error *error);
void kp_scores_clear(kp_scores *scores);

/* Adds the rows of a batch: logits (B, K) and targets (B), or (B, T, K) and (B, T).  Rows without a target
 * are no examples. */
void kp_scores_add(kp_scores *scores, const double *logits, const int32_t *targets, int64_t rows,
                   int64_t length);

typedef struct kp_score_report {
  int64_t examples, labels; /* scored */
  double loss, loss_error;
  double accuracy, accuracy_error;
  double macro_f1;
  double mcc; /* Matthews' correlation, of several labels (Gorodkin 2004); 0 where it divides by zero */
  double majority, chance;                           /* accuracies without looking: the label most frequent in
                                                        training (NaN: unknown), and any label by a die */
  double precision, recall, entity_f1, entity_error; /* NaN without entities */
} kp_score_report;

kp_score_report kp_scores_report(const kp_scores *scores);

/* One label alone.  What divides by zero is 0. */
typedef struct kp_label_score {
  int64_t gold, predicted, right;
  double precision, recall, f1;
} kp_label_score;

kp_label_score kp_scores_of_label(const kp_scores *scores, int32_t label);

/* Entities of one type, what divides by zero being 0. */
typedef struct kp_type_score {
  const char *type;
  int64_t gold, found, right;
  double precision, recall, f1;
} kp_type_score;

/* Of type 0 <= number < scores->type_count. */
kp_type_score kp_scores_of_type(const kp_scores *scores, int number);

/* ---- agreement of a confusion table (train/agreement.c) ---- */

/* (right · all - Σ gold·predicted) over the root of (all² - Σ gold²) (all² - Σ predicted²); 0 over 0 is 0. */
double kp_matthews(double all, double right, double products, double golds, double predictions);

/* Macro-F1 and MCC of a table (K, K) of counts, gold by predicted, and their jackknife errors; NaN below two
 * examples. */
typedef struct kp_agreement {
  double macro_f1, mcc, macro_f1_error, mcc_error;
} kp_agreement;

kp_status kp_agreement_of(const int64_t *confusion, int32_t K, kp_agreement *agreement, kp_error *error);

/* ---- entities ---- */

typedef struct kp_entity {
  int64_t first, last; /* words */
  const char *type;
} kp_entity;

/* Whether the labels are those of an entity scheme: O, and B-, I-, E- or S- with a type. */
bool kp_labels_mark_entities(const kp_label_set *labels);

/* The first entity of `count` tags that begins at word *at or behind it; *at moves behind the entity.  False
 * when there is none. */
bool kp_next_entity(const kp_label_set *labels, const int32_t *tags, int64_t count, int64_t *at,
                    kp_entity *entity);

#endif
