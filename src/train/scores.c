#include "train/scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/batches.h"

static void add_ratio(kp_ratio *sum, double r, double n) {
  sum->r += r;
  sum->n += n;
  sum->rr += r * r;
  sum->rn += r * n;
  sum->nn += n * n;
}

static double ratio(const kp_ratio *sum) {
  return sum->n > 0 ? sum->r / sum->n : 0;
}

/* The root of sum (r - q n)^2 over the examples, their number taken into account, over sum n. */
static double ratio_error(const kp_ratio *sum, int64_t examples) {
  const double q = ratio(sum), m = (double)examples;
  if (examples < 2 || sum->n == 0) return (double)NAN;
  const double squares = sum->rr - 2 * q * sum->rn + q * q * sum->nn;
  return sqrt(fmax(squares, 0) * m / (m - 1)) / sum->n;
}

/* ---- making ---- */

static int32_t most_frequent(const kp_labelling *labelling, const kp_examples *train, int64_t *counts) {
  const int64_t places = labelling->task == KP_TASK_TAG ? train->offsets[train->count] : train->count;
  int32_t best = 0;
  for (int64_t i = 0; i < places; i++)
    if (train->labels[i] >= 0) counts[train->labels[i]]++;
  for (int32_t k = 1; k < labelling->labels.count; k++)
    if (counts[k] > counts[best]) best = k;
  return best;
}

/* A type of entities, and those that were counted. */
struct kp_type_count {
  const char *type; /* of a label's name */
  int64_t gold, found, right;
};

/* The types that labels have, each once.  Labels stand in the order of their names, those of one place (B-,
 * I-, …) in the order of their types. */
static kp_status find_types(kp_scores *scores, kp_error *error) {
  const kp_label_set *labels = &scores->labelling->labels;
  scores->types = calloc((size_t)labels->count, sizeof *scores->types);
  if (scores->types == NULL) {
    kp_scores_clear(scores);
    return kp_fail(error, KP_ERR_MEMORY, "no memory to score %d labels", labels->count);
  }
  for (int32_t k = 0; k < labels->count; k++) {
    const char *type = labels->names[k][0] == 'O' ? NULL : labels->names[k] + 2;
    int at = 0;
    while (type != NULL && at < scores->type_count && strcmp(scores->types[at].type, type) < 0) at++;
    if (type == NULL || (at < scores->type_count && strcmp(scores->types[at].type, type) == 0)) continue;
    memmove(scores->types + at + 1, scores->types + at,
            (size_t)(scores->type_count - at) * sizeof *scores->types);
    scores->types[at].type = type;
    scores->type_count++;
  }
  return KP_OK;
}

kp_status kp_scores_init(kp_scores *scores, const kp_labelling *labelling, const kp_examples *train,
                         int64_t context, kp_error *error) {
  const size_t K = (size_t)labelling->labels.count;
  *scores =
      (kp_scores){.labelling = labelling,
                  .majority = -1,
                  .entities = labelling->task == KP_TASK_TAG && kp_labels_mark_entities(&labelling->labels),
                  .confusion = calloc(K * K, sizeof *scores->confusion),
                  .row = malloc(2 * (size_t)context * sizeof *scores->row)};
  if (scores->confusion == NULL || scores->row == NULL) {
    kp_scores_clear(scores);
    return kp_fail(error, KP_ERR_MEMORY, "no memory to score %zu labels", K);
  }
  if (scores->entities) KP_TRY(find_types(scores, error));
  if (train == NULL) return KP_OK;
  scores->majority = most_frequent(labelling, train, scores->confusion);
  memset(scores->confusion, 0, K * sizeof *scores->confusion);
  return KP_OK;
}

void kp_scores_clear(kp_scores *scores) {
  free(scores->confusion);
  free(scores->row);
  free(scores->types);
  *scores = (kp_scores){0};
}

/* ---- adding ---- */

/* The largest logit, the first of equal ones, and the cross-entropy of the target. */
static int32_t predict(const double *logits, int32_t K, int32_t target, double *loss) {
  int32_t best = 0;
  double sum = 0;
  for (int32_t k = 1; k < K; k++)
    if (logits[k] > logits[best]) best = k;
  for (int32_t k = 0; k < K; k++) sum += exp(logits[k] - logits[best]);
  *loss = log(sum) + logits[best] - logits[target];
  return best;
}

static bool same_entity(const kp_entity *a, const kp_entity *b) {
  return a->first == b->first && a->last == b->last && strcmp(a->type, b->type) == 0;
}

static struct kp_type_count *count_of(const kp_scores *scores, const kp_entity *entity) {
  int at = 0;
  while (strcmp(scores->types[at].type, entity->type) != 0) at++;
  return &scores->types[at];
}

/* Entities of one sentence, which both lists give in the order of their first words. */
static void add_entities(kp_scores *scores, const int32_t *gold, const int32_t *found, int64_t count) {
  const kp_label_set *labels = &scores->labelling->labels;
  int64_t gold_at = 0, found_at = 0, golds = 0, founds = 0, right = 0;
  kp_entity g, f;
  bool more_gold = kp_next_entity(labels, gold, count, &gold_at, &g);
  bool more_found = kp_next_entity(labels, found, count, &found_at, &f);
  while (more_gold || more_found) {
    const bool take_gold = more_gold && (!more_found || g.first <= f.first);
    const bool take_found = more_found && (!more_gold || f.first <= g.first);
    const bool same = take_gold && take_found && same_entity(&g, &f);
    right += same;
    if (same) count_of(scores, &g)->right++;
    if (take_gold) count_of(scores, &g)->gold++;
    if (take_found) count_of(scores, &f)->found++;
    golds += take_gold;
    founds += take_found;
    if (take_gold) more_gold = kp_next_entity(labels, gold, count, &gold_at, &g);
    if (take_found) more_found = kp_next_entity(labels, found, count, &found_at, &f);
  }
  scores->entities_gold += golds;
  scores->entities_found += founds;
  scores->entities_right += right;
  add_ratio(&scores->entity, 2 * (double)right, (double)(golds + founds));
}

/* One example: `length` places, of which those with a target count. */
static void add_example(kp_scores *scores, const double *logits, const int32_t *targets, int64_t length) {
  const int32_t K = scores->labelling->labels.count;
  int32_t *gold = scores->row, *found = scores->row + length;
  int64_t count = 0, right = 0;
  double losses = 0, loss;
  for (int64_t t = 0; t < length; t++) {
    if (targets[t] == KP_IGNORE) continue;
    gold[count] = targets[t];
    found[count] = predict(logits + t * K, K, targets[t], &loss);
    scores->confusion[gold[count] * K + found[count]]++;
    right += gold[count] == found[count];
    losses += loss;
    count++;
  }
  if (count == 0) return;
  scores->examples++;
  add_ratio(&scores->loss, losses, (double)count);
  add_ratio(&scores->right, (double)right, (double)count);
  if (scores->entities) add_entities(scores, gold, found, count);
}

void kp_scores_add(kp_scores *scores, const double *logits, const int32_t *targets, int64_t rows,
                   int64_t length) {
  const int64_t K = scores->labelling->labels.count;
  for (int64_t row = 0; row < rows; row++)
    add_example(scores, logits + row * length * K, targets + row * length, length);
}

/* ---- reporting ---- */

kp_label_score kp_scores_of_label(const kp_scores *scores, int32_t label) {
  const int32_t K = scores->labelling->labels.count;
  kp_label_score s = {.right = scores->confusion[label * K + label]};
  for (int32_t k = 0; k < K; k++) {
    s.gold += scores->confusion[label * K + k];
    s.predicted += scores->confusion[k * K + label];
  }
  s.precision = s.predicted > 0 ? (double)s.right / (double)s.predicted : 0;
  s.recall = s.gold > 0 ? (double)s.right / (double)s.gold : 0;
  s.f1 = s.gold + s.predicted > 0 ? 2 * (double)s.right / (double)(s.gold + s.predicted) : 0;
  return s;
}

/* Macro-F1 and MCC. */
static void measure_agreement(const kp_scores *scores, kp_score_report *r) {
  double sum = 0, all = 0, right = 0, products = 0, golds = 0, predictions = 0;
  int64_t labels = 0;
  for (int32_t k = 0; k < scores->labelling->labels.count; k++) {
    const kp_label_score s = kp_scores_of_label(scores, k);
    const double gold = (double)s.gold, predicted = (double)s.predicted;
    sum += s.f1;
    labels += s.gold + s.predicted > 0;
    all += gold;
    right += (double)s.right;
    products += gold * predicted;
    golds += gold * gold;
    predictions += predicted * predicted;
  }
  r->macro_f1 = labels > 0 ? sum / (double)labels : 0;
  r->mcc = kp_matthews(all, right, products, golds, predictions);
}

static double share(int64_t part, int64_t all) {
  return all > 0 ? (double)part / (double)all : 0;
}

kp_type_score kp_scores_of_type(const kp_scores *scores, int number) {
  const struct kp_type_count *of = &scores->types[number];
  return (kp_type_score){.type = of->type,
                         .gold = of->gold,
                         .found = of->found,
                         .right = of->right,
                         .precision = share(of->right, of->found),
                         .recall = share(of->right, of->gold),
                         .f1 = share(2 * of->right, of->gold + of->found)};
}

kp_score_report kp_scores_report(const kp_scores *scores) {
  const double nan = (double)NAN;
  kp_score_report r = {.examples = scores->examples,
                       .labels = (int64_t)scores->right.n,
                       .loss = ratio(&scores->loss),
                       .loss_error = ratio_error(&scores->loss, scores->examples),
                       .accuracy = ratio(&scores->right),
                       .accuracy_error = ratio_error(&scores->right, scores->examples),
                       .majority = nan,
                       .chance = 1 / (double)scores->labelling->labels.count,
                       .precision = nan,
                       .recall = nan,
                       .entity_f1 = nan,
                       .entity_error = nan};
  measure_agreement(scores, &r);
  if (scores->majority >= 0) r.majority = share(kp_scores_of_label(scores, scores->majority).gold, r.labels);
  if (!scores->entities) return r;
  r.precision = share(scores->entities_right, scores->entities_found);
  r.recall = share(scores->entities_right, scores->entities_gold);
  r.entity_f1 = ratio(&scores->entity);
  r.entity_error = ratio_error(&scores->entity, scores->examples);
  return r;
}
