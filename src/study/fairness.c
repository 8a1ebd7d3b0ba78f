/* Whether runs may be compared: their flat twins, and what else differs. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/arena.h"
#include "study/compare_private.h"
#include "study/twin.h"

__attribute__((format(printf, 2, 3))) static void warn(kp_comparison *c, const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (c->warning_count == c->warning_capacity) {
    const int capacity = c->warning_capacity == 0 ? 16 : 2 * c->warning_capacity;
    const char **grown = kp_arena_take(c->arena, (size_t)capacity * sizeof *grown);
    if (c->warning_count > 0) memcpy(grown, c->warnings, (size_t)c->warning_count * sizeof *grown);
    c->warnings = grown;
    c->warning_capacity = capacity;
  }
  c->warnings[c->warning_count++] = kp_arena_text(c->arena, text);
}

/* ---- twins ---- */

const char *kp_verdict_words(const kp_difference *difference) {
  static const char *const words[] = {[KP_VERDICT_UNKNOWN] = "not known",
                                      [KP_VERDICT_LOWER] = "lower",
                                      [KP_VERDICT_SAME] = "cannot be told apart",
                                      [KP_VERDICT_HIGHER] = "higher"};
  return words[kp_verdict_of(difference)];
}

/* By Welch's test, of every measure. */
static void fill_differences(const kp_comparison_row *row, const kp_comparison_row *other,
                             kp_difference differences[KP_MEASURES]) {
  for (int m = 0; m < KP_MEASURES; m++) differences[m] = kp_welch(row->measures[m], other->measures[m]);
}

static int64_t seed_of(const kp_comparison_row *row, int run) {
  return kp_config_integer(row->runs[run]->config, "train.seed");
}

/* Of the final loss by pairs of one seed: both saw the same batches.  NaN unless each seed has its pair. */
static kp_difference paired_difference(kp_comparison *c, const kp_comparison_row *row,
                                       const kp_comparison_row *other) {
  double *mine = kp_arena_take(c->arena, (size_t)row->count * sizeof *mine);
  double *theirs = kp_arena_take(c->arena, (size_t)row->count * sizeof *theirs);
  int pairs = 0;
  for (int i = 0; i < row->count && row->count == other->count; i++)
    for (int j = 0; j < other->count; j++) {
      if (seed_of(row, i) != seed_of(other, j)) continue;
      mine[i] = row->values[i][KP_FINAL_LOSS];
      theirs[i] = other->values[j][KP_FINAL_LOSS];
      pairs++;
      break;
    }
  return kp_paired(mine, theirs, pairs == row->count ? pairs : 0);
}

static double mean_loss_at(const kp_comparison_row *row, double step) {
  double sum = 0;
  for (int i = 0; i < row->count; i++) sum += kp_run_record_loss_at(row->runs[i], step);
  return sum / row->count;
}

/* Where the mean loss first meets the twin's final one, between evaluations by linear interpolation. */
static double speed_of(const kp_comparison_row *row, const kp_comparison_row *twin) {
  const double goal = twin->measures[KP_FINAL_LOSS].mean, steps = twin->measures[KP_STEPS].mean;
  const kp_run_record *first = row->runs[0];
  double before = 0, loss_before = (double)NAN;
  for (int64_t e = 0; e < first->evaluation_count; e++) {
    const double step = first->evaluations[e].step, loss = mean_loss_at(row, step);
    if (loss <= goal) {
      const double share = loss_before > loss ? (loss_before - goal) / (loss_before - loss) : 1;
      return steps / (before + share * (step - before));
    }
    before = step;
    loss_before = loss;
  }
  return (double)NAN;
}

static void use_twin(kp_comparison *c, int row, int twin) {
  kp_comparison_row *r = &c->rows[row];
  const kp_comparison_row *t = &c->rows[twin];
  r->twins[KP_TWIN_FLAT] = r->reference = twin;
  fill_differences(r, t, r->differences[KP_TWIN_FLAT]);
  r->twin_paired = paired_difference(c, r, t);
  r->twin_speed = speed_of(r, t);
}

static void warn_without_twin(kp_comparison *c, int row, int nearest, const kp_twin_difference *difference) {
  const kp_comparison_row *r = &c->rows[row];
  char words[640], keys[512] = "";
  kp_twin_words(r->runs[0], words, sizeof words);
  if (nearest < 0) {
    warn(c,
         "%s is curved and no flat model stands beside it: what it gains may not come from curvature; train "
         "its "
         "twin, the same configuration with %s",
         r->name, words);
    return;
  }
  for (int i = 0; i < difference->count && i < KP_TWIN_KEYS; i++)
    snprintf(keys + strlen(keys), sizeof keys - strlen(keys), "%s%s", i == 0 ? "" : ", ",
             difference->keys[i]);
  warn(c,
       "%s is curved and has no fair flat twin here: %s, the nearest, also differs in %s%s; train its twin, "
       "the "
       "same configuration with %s",
       r->name, c->rows[nearest].name, keys, difference->count > KP_TWIN_KEYS ? ", …" : "", words);
}

static kp_status find_twin(kp_comparison *c, int row, kp_error *error) {
  kp_twin_difference best = {0};
  int nearest = -1;
  for (int other = 0; other < c->row_count; other++) {
    kp_twin_difference difference;
    if (kp_model_is_curved(&c->rows[other].runs[0]->options)) continue;
    KP_TRY(kp_twin_compare(c->rows[row].runs[0], c->rows[other].runs[0], &difference, error));
    if (nearest >= 0 && difference.count >= best.count) continue;
    nearest = other;
    best = difference;
  }
  if (nearest >= 0 && best.count == 0)
    use_twin(c, row, nearest);
  else
    warn_without_twin(c, row, nearest, &best);
  return KP_OK;
}

/* The row that is flat and as bounded: what a curved stream gains may come from its boundary alone. */
static kp_status find_bounded(kp_comparison *c, int row, kp_error *error) {
  kp_comparison_row *r = &c->rows[row];
  for (int other = 0; other < c->row_count && r->twins[KP_TWIN_BOUNDED] < 0; other++) {
    bool bounded;
    KP_TRY(kp_twin_is_bounded(r->runs[0], c->rows[other].runs[0], &bounded, error));
    if (bounded) r->twins[KP_TWIN_BOUNDED] = other;
  }
  if (r->twins[KP_TWIN_BOUNDED] >= 0)
    fill_differences(r, &c->rows[r->twins[KP_TWIN_BOUNDED]], r->differences[KP_TWIN_BOUNDED]);
  return KP_OK;
}

/* The row that is the same model with curvatures that stay where they start. */
static void find_frozen(kp_comparison *c, int row) {
  kp_comparison_row *r = &c->rows[row];
  for (int other = 0; other < c->row_count && r->twins[KP_TWIN_FROZEN] < 0; other++)
    if (other != row && kp_twin_is_frozen(r->runs[0], c->rows[other].runs[0]))
      r->twins[KP_TWIN_FROZEN] = other;
  if (r->twins[KP_TWIN_FROZEN] >= 0)
    fill_differences(r, &c->rows[r->twins[KP_TWIN_FROZEN]], r->differences[KP_TWIN_FROZEN]);
  else
    warn(c,
         "%s learns its curvature and no run with the same curvature frozen stands beside it: what it gains "
         "may "
         "not come from learning it; train the same configuration with --set train.curvature_rate=0",
         r->name);
}

/* ---- other differences ---- */

/* Warns when the value of one of the keys is not the same in all rows. */
static void warn_of_keys(kp_comparison *c, const char *const *keys, const char *consequence) {
  for (int i = 0; i < c->key_count; i++)
    for (const char *const *key = keys; *key != NULL; key++) {
      if (strcmp(c->keys[i].key, *key) != 0) continue;
      int other = 1;
      while (strcmp(c->keys[i].values[other], c->keys[i].values[0]) == 0) other++;
      warn(c, "%s differs (%s has %s, %s has %s): %s", *key, c->rows[0].name, c->keys[i].values[0],
           c->rows[other].name, c->keys[i].values[other], consequence);
    }
}

static bool key_differs(const kp_comparison *c, const char *key) {
  for (int i = 0; i < c->key_count; i++)
    if (strcmp(c->keys[i].key, key) == 0) return true;
  return false;
}

/* Data are the same when their names and their sizes are; the sizes catch a folder that was prepared anew. */
static void judge_data(kp_comparison *c) {
  static const char *const data[] = {"data.path", "data.train", "data.validation", NULL};
  static const char *const vocabulary[] = {"model.vocabulary", NULL};
  warn_of_keys(c, data, "runs on different data do not compare");
  warn_of_keys(c, vocabulary, "losses per token do not compare; bits per byte may");
  if (key_differs(c, "data.path") || key_differs(c, "data.train") || key_differs(c, "data.validation"))
    return;
  for (int i = 1; i < c->run_count; i++) {
    const kp_run_record *a = &c->runs[0], *b = &c->runs[i];
    if (a->training_tokens == b->training_tokens && a->validation_tokens == b->validation_tokens) continue;
    warn(c, "%s had %lld training and %lld validation tokens, %s %lld and %lld: the data were not the same",
         a->name, (long long)a->training_tokens, (long long)a->validation_tokens, b->name,
         (long long)b->training_tokens, (long long)b->validation_tokens);
    return;
  }
}

static void judge_training(kp_comparison *c) {
  static const char *const steps[] = {"train.steps", NULL};
  static const char *const measure[] = {"train.evaluate_batches", "model.context", NULL};
  warn_of_keys(c, steps, "the longer run has the advantage, and its learning rate falls later");
  warn_of_keys(c, measure, "validation losses are of different windows of text");
  for (int i = 1; i < c->row_count; i++) {
    const kp_run_record *a = c->rows[0].runs[0], *b = c->rows[i].runs[0];
    if (a->tokens_per_step == b->tokens_per_step) continue;
    warn(c, "%s learns from %lld tokens a step, %s from %lld: compare over tokens, not over steps",
         c->rows[0].name, (long long)a->tokens_per_step, c->rows[i].name, (long long)b->tokens_per_step);
    return;
  }
}

static void judge_runs(kp_comparison *c) {
  for (int i = 0; i < c->run_count; i++) {
    const kp_run_record *run = &c->runs[i];
    const double done = run->evaluation_count > 0 ? run->evaluations[run->evaluation_count - 1].step : -1;
    if (done < 0)
      warn(c, "%s has no evaluation yet", run->name);
    else if (done < (double)run->planned_steps)
      warn(c, "%s was last evaluated at step %.0f of %lld: it is not finished", run->name, done,
           (long long)run->planned_steps);
  }
}

static void judge_machines(kp_comparison *c) {
  for (int i = 1; i < c->run_count; i++) {
    const kp_run_record *a = &c->runs[0], *b = &c->runs[i];
    if (strcmp(a->backend, b->backend) == 0 && a->threads == b->threads) continue;
    warn(c, "%s ran on backend %s with %lld threads, %s on %s with %lld: times do not compare", a->name,
         a->backend, (long long)a->threads, b->name, b->backend, (long long)b->threads);
    return;
  }
}

static void judge_seeds(kp_comparison *c) {
  bool spread = false;
  for (int row = 0; row < c->row_count; row++) {
    const kp_comparison_row *r = &c->rows[row];
    spread |= r->count > 1;
    for (int i = 0; i < r->count; i++)
      for (int j = 0; j < i; j++)
        if (kp_config_integer(r->runs[i]->config, "train.seed") ==
            kp_config_integer(r->runs[j]->config, "train.seed"))
          warn(c, "%s and %s have the same configuration and the same seed: they are one sample, not two",
               r->runs[j]->path, r->runs[i]->path);
  }
  if (!spread && c->row_count > 1)
    warn(c, "every configuration has one seed: how much seeds alone change the loss is not known");
}

kp_status kp_comparison_judge(kp_comparison *c, kp_error *error) {
  for (int row = 0; row < c->row_count; row++) {
    kp_comparison_row *r = &c->rows[row];
    for (int kind = 0; kind < KP_TWINS; kind++) r->twins[kind] = -1;
    r->twin_paired = kp_paired(NULL, NULL, 0);
    r->twin_speed = (double)NAN;
    if (kp_model_is_curved(&r->runs[0]->options)) KP_TRY(find_twin(c, row, error));
    KP_TRY(find_bounded(c, row, error));
    if (kp_run_record_learns_curvature(r->runs[0])) find_frozen(c, row);
    r->step_ratio = r->measures[KP_STEP_MS].mean / c->rows[r->reference].measures[KP_STEP_MS].mean;
  }
  judge_data(c);
  judge_training(c);
  judge_runs(c);
  judge_machines(c);
  judge_seeds(c);
  return KP_OK;
}
