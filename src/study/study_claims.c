#include "study/study_claims.h"

#include <math.h>

#include "core/arena.h"
#include "core/json_text.h"

static const kp_claim claims[] = {
    {"reaches a lower final validation loss than its flat twin",
     "reaches a higher final validation loss than its flat twin", KP_FINAL_LOSS, true, KP_TWIN_FLAT},
    {"has a lower loss than its flat twin after a quarter of the steps",
     "has a higher loss than its flat twin after a quarter of the steps", KP_QUARTER_LOSS, true,
     KP_TWIN_FLAT},
    {"spreads its hidden states over more directions than its flat twin (mean cosine)",
     "spreads its hidden states over fewer directions than its flat twin (mean cosine)", KP_MEAN_COSINE, true,
     KP_TWIN_FLAT},
    {"uses more dimensions than its flat twin (effective rank of hidden states)",
     "uses fewer dimensions than its flat twin (effective rank of hidden states)", KP_EFFECTIVE_RANK, false,
     KP_TWIN_FLAT},
    {"has hidden states more like a tree than those of its flat twin (relative δ)",
     "has hidden states less like a tree than those of its flat twin (relative δ)", KP_RELATIVE_DELTA, true,
     KP_TWIN_FLAT},
    {"places frequent tokens nearer the origin than its flat twin does (rank correlation of frequency and "
     "embedding length)",
     "places frequent tokens further from the origin than its flat twin does (rank correlation of frequency "
     "and embedding length)",
     KP_FREQUENCY_CORRELATION, true, KP_TWIN_FLAT},
    {"has matrices with more even spectra than those of its flat twin (SVD entropy)",
     "has matrices with less even spectra than those of its flat twin (SVD entropy)", KP_SVD_ENTROPY, false,
     KP_TWIN_FLAT},
    {"reaches a lower final validation loss than its flat twin in a ball of the same size",
     "reaches a higher final validation loss than its flat twin in a ball of the same size", KP_FINAL_LOSS,
     true, KP_TWIN_BOUNDED},
    {"reaches a lower final validation loss than the same model with frozen curvature",
     "reaches a higher final validation loss than the same model with frozen curvature", KP_FINAL_LOSS, true,
     KP_TWIN_FROZEN},
};

int kp_claim_count(void) {
  return (int)(sizeof claims / sizeof *claims);
}

const kp_claim *kp_claim_at(int index) {
  return &claims[index];
}

static kp_outcome outcome_of(const kp_claim *claim, const kp_difference *difference) {
  switch (kp_verdict_of(difference)) {
  case KP_VERDICT_UNKNOWN: return KP_OUTCOME_UNKNOWN;
  case KP_VERDICT_SAME: return KP_OUTCOME_UNDECIDED;
  case KP_VERDICT_LOWER: return claim->lower ? KP_OUTCOME_HOLDS : KP_OUTCOME_OPPOSITE;
  case KP_VERDICT_HIGHER: return claim->lower ? KP_OUTCOME_OPPOSITE : KP_OUTCOME_HOLDS;
  }
  return KP_OUTCOME_UNKNOWN;
}

/* Whether a run asks for a twin of that kind. */
static bool wants(const kp_run_record *run, kp_twin_kind kind) {
  switch (kind) {
  case KP_TWIN_FLAT: return kp_model_is_curved(&run->options);
  case KP_TWIN_BOUNDED: return kp_twin_wants_bounded(run);
  case KP_TWIN_FROZEN: return kp_run_record_learns_curvature(run);
  case KP_TWINS: break;
  }
  return false;
}

/* Whether a claim concerns a row at all: measures that the row does not have make no claim. */
static bool concerns(const kp_claim *claim, const kp_comparison_row *row) {
  const kp_run_record *run = row->runs[0];
  return wants(run, claim->twin) && row->measures[claim->measure].count > 0;
}

static kp_finding finding_of(const kp_comparison *c, const kp_claim *claim, const kp_comparison_row *row) {
  const int twin = row->twins[claim->twin];
  kp_finding f = {.claim = claim, .model = row->name, .outcome = KP_OUTCOME_UNKNOWN};
  f.difference = kp_paired(NULL, NULL, 0);
  if (twin < 0) return f;
  f.twin = c->rows[twin].name;
  f.difference = row->differences[claim->twin][claim->measure];
  f.outcome = outcome_of(claim, &f.difference);
  return f;
}

kp_finding *kp_findings_of(const kp_comparison *c, int *count) {
  kp_finding *list = kp_arena_take(c->arena, (size_t)(c->row_count * kp_claim_count() + 1) * sizeof *list);
  *count = 0;
  for (int claim = 0; claim < kp_claim_count(); claim++)
    for (int row = 0; row < c->row_count; row++)
      if (concerns(&claims[claim], &c->rows[row]))
        list[(*count)++] = finding_of(c, &claims[claim], &c->rows[row]);
  return list;
}

const char *kp_outcome_name(kp_outcome outcome) {
  static const char *const names[] = {"holds", "opposite", "undecided", "unknown"};
  return names[outcome];
}

json_t *kp_finding_json(const kp_finding *f) {
  return json_pack("{s:s, s:s, s:o, s:s, s:s, s:o, s:o, s:o, s:o}", "model", f->model, "claim",
                   f->claim->words, "twin", f->twin != NULL ? json_string(f->twin) : json_null(), "measure",
                   kp_measure_name(f->claim->measure), "outcome", kp_outcome_name(f->outcome), "difference",
                   kp_json_number(f->difference.value), "low", kp_json_number(f->difference.low), "high",
                   kp_json_number(f->difference.high), "p", kp_json_number(f->difference.p));
}
