/* A study's report in Markdown.  No sentence about a result is written by hand: each follows from the numbers
 * by the rules that the report states. */
#include <math.h>

#include "study/study_private.h"

/* ---- how it was done ---- */

static void put_setting(const kp_run_record *run, const char *key, const char *words, FILE *out) {
  char value[256];
  kp_run_record_setting(run, key, value, sizeof value);
  fprintf(out, "%s%s", value, words);
}

static void put_setup(const kp_study_plan *plan, const kp_text_result *results, FILE *out) {
  const kp_run_record *run = results[0].comparison->rows[0].runs[0];
  fprintf(out, "%d models", plan->variant_count);
  if (plan->text_count > 1) fprintf(out, " × %d texts", plan->text_count);
  fprintf(out, " × %d seed%s. The first model: ", plan->seed_count, plan->seed_count == 1 ? "" : "s");
  put_setting(run, "model.layers", " blocks, ", out);
  put_setting(run, "model.heads", " heads, width ", out);
  put_setting(run, "model.width", ", context ", out);
  put_setting(run, "model.context", ", ", out);
  put_setting(run, "train.steps", " steps of ", out);
  fprintf(out, "%lld tokens, learning rate ", (long long)run->tokens_per_step);
  put_setting(run, "train.learning_rate", ". ", out);
  fprintf(out, "Backend %s with %lld threads.\n", run->backend, (long long)run->threads);
}

static int tests_of(const kp_study_plan *plan, const kp_text_result *results) {
  int tests = 0;
  for (int t = 0; t < plan->text_count; t++)
    for (int f = 0; f < results[t].finding_count; f++)
      tests += results[t].findings[f].outcome != KP_OUTCOME_UNKNOWN;
  return tests;
}

static void put_rules(const kp_study_plan *plan, const kp_text_result *results, FILE *out) {
  const int tests = tests_of(plan, results);
  fputs(
      "\n## Rules\n\n"
      "- A difference is a model's mean over seeds less that of its twin; its interval is Welch's, 95 %.\n"
      "- A claim **holds** when the interval lies on the claimed side of 0; the numbers say **the opposite** "
      "when it lies on the other; the two **cannot be told apart** when it holds 0. Without a twin, or with "
      "one seed a side, nothing is known.\n"
      "- *Flat twin*: differs in curvature alone. *In a ball of the same size*: the flat twin, its stream "
      "drawn "
      "back into the ball that the curved stream lives in. *Frozen curvature*: the same model whose "
      "curvatures stay "
      "where they start.\n"
      "- *Speed*: the twin's steps over those after which the model's mean loss is the twin's final one.\n"
      "- ± is the standard deviation over seeds.\n",
      out);
  fprintf(
      out,
      "- %d claims are tested. If no model differed from its twin, about %.0f of them would still seem to, "
      "one in twenty: a single line below proves little, a pattern over texts and models more.\n",
      tests, ceil(tests / 20.0));
}

/* ---- what came of it ---- */

static void put_finding(const kp_study_plan *plan, const kp_text_result *result, const kp_finding *f,
                        FILE *out) {
  static const char *const missing[KP_TWINS] = {"flat twin", "bounded flat twin",
                                                "run with frozen curvature"};
  const int digits = kp_measure_digits(f->claim->measure) + 1;
  fprintf(out, "- **%s**", f->model);
  if (plan->text_count > 1) fprintf(out, ", %s,", result->text->name);
  if (f->outcome == KP_OUTCOME_UNKNOWN) {
    if (f->twin == NULL)
      fprintf(out, ": no %s here\n", missing[f->claim->twin]);
    else
      fprintf(out, ": %s beside it, with too few seeds\n", f->twin);
    return;
  }
  fprintf(out, " (%s): %+.*f, %+.*f … %+.*f, p = %.2g\n", f->twin, digits, f->difference.value, digits,
          f->difference.low, digits, f->difference.high, f->difference.p);
}

static int put_outcome(const kp_study_plan *plan, const kp_text_result *results, const kp_claim *claim,
                       kp_outcome outcome, const char *title, FILE *out) {
  int count = 0;
  for (int t = 0; t < plan->text_count; t++)
    for (int f = 0; f < results[t].finding_count; f++) {
      const kp_finding *finding = &results[t].findings[f];
      if (finding->claim != claim || finding->outcome != outcome) continue;
      if (count++ == 0) fprintf(out, "\n%s\n\n", title);
      put_finding(plan, &results[t], finding, out);
    }
  return count;
}

/* "Of 6 models and texts: 2 hold, 1 the opposite, 3 cannot be told apart." */
static void put_sum(const kp_study_plan *plan, const kp_text_result *results, const kp_claim *claim,
                    FILE *out) {
  int counts[KP_OUTCOMES] = {0}, all = 0;
  for (int t = 0; t < plan->text_count; t++)
    for (int f = 0; f < results[t].finding_count; f++) {
      if (results[t].findings[f].claim != claim) continue;
      counts[results[t].findings[f].outcome]++;
      all++;
    }
  if (all == 0) return;
  fprintf(out, "\n### A model %s\n\n", claim->words);
  fprintf(out, "Of %d %s: holds for %d, the opposite for %d, cannot be told for %d, not known for %d.\n", all,
          plan->text_count > 1 ? "pairs of model and text" : "models", counts[KP_OUTCOME_HOLDS],
          counts[KP_OUTCOME_OPPOSITE], counts[KP_OUTCOME_UNDECIDED], counts[KP_OUTCOME_UNKNOWN]);
  put_outcome(plan, results, claim, KP_OUTCOME_HOLDS, "Holds:", out);
  put_outcome(plan, results, claim, KP_OUTCOME_OPPOSITE, "The opposite:", out);
  put_outcome(plan, results, claim, KP_OUTCOME_UNDECIDED, "Cannot be told apart:", out);
  put_outcome(plan, results, claim, KP_OUTCOME_UNKNOWN, "Not known:", out);
}

void kp_study_write_report(const kp_study_plan *plan, const kp_text_result *results, FILE *out) {
  fprintf(out, "# %s\n\n", plan->title[0] != 0 ? plan->title : "A study");
  if (plan->about[0] != 0) fprintf(out, "%s\n\n", plan->about);
  put_setup(plan, results, out);
  put_rules(plan, results, out);
  fputs("\n## What holds\n", out);
  for (int claim = 0; claim < kp_claim_count(); claim++) put_sum(plan, results, kp_claim_at(claim), out);
  for (int t = 0; t < plan->text_count; t++) {
    fprintf(out, "\n## %s\n\n", plan->text_count > 1 ? results[t].text->name : "Numbers");
    kp_study_write_tables(&results[t], out);
  }
}
