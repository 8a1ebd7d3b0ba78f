/* The tables of a study's report, in Markdown. */
#include <math.h>

#include "study/study_private.h"

/* "1.5921 ± 0.0031", or without the spread of a single run; "–" when it is not known. */
static void put_statistic(const kp_statistic *s, int digits, FILE *out) {
  if (isnan(s->mean))
    fputs("–", out);
  else if (isnan(s->spread))
    fprintf(out, "%.*f", digits, s->mean);
  else
    fprintf(out, "%.*f ± %.*f", digits, s->mean, digits, s->spread);
}

static void put_difference(const kp_difference *d, int digits, FILE *out) {
  if (isnan(d->value)) {
    fputs("– | – | –", out);
    return;
  }
  fprintf(out, "%+.*f | ", digits, d->value);
  if (isnan(d->low))
    fputs("– | ", out);
  else
    fprintf(out, "%+.*f … %+.*f | ", digits, d->low, digits, d->high);
  fputs(kp_verdict_words(d), out);
}

/* A table of measures, one row a model; columns that no model knows are left out. */
static void put_measures(const kp_comparison *c, const kp_measure *columns, int count, FILE *out) {
  bool known[KP_MEASURES] = {0};
  int shown = 0;
  for (int m = 0; m < count; m++)
    for (int i = 0; i < c->row_count; i++)
      if (c->rows[i].measures[columns[m]].count > 0) known[m] = true;
  fputs("| model |", out);
  for (int m = 0; m < count; m++)
    if (known[m]) {
      fprintf(out, " %s |", kp_measure_words(columns[m]));
      shown++;
    }
  fputs("\n| --- |", out);
  for (int m = 0; m < shown; m++) fputs(" ---: |", out);
  fputc('\n', out);
  for (int i = 0; i < c->row_count; i++) {
    fprintf(out, "| %s |", c->rows[i].name);
    for (int m = 0; m < count; m++) {
      if (!known[m]) continue;
      fputc(' ', out);
      put_statistic(&c->rows[i].measures[columns[m]], kp_measure_digits(columns[m]), out);
      fputs(" |", out);
    }
    fputc('\n', out);
  }
}

static void put_models(const kp_comparison *c, FILE *out) {
  fputs("| model | what | seeds | parameters | memory planned (MiB) | step time, to its twin or the first |\n"
        "| --- | --- | ---: | ---: | ---: | ---: |\n",
        out);
  for (int i = 0; i < c->row_count; i++) {
    const kp_comparison_row *r = &c->rows[i];
    fprintf(out, "| %s | %s | %d | %.0f | %.0f | ", r->name, r->model, r->count, r->parameters,
            r->planned_bytes / 1048576);
    if (isnan(r->step_ratio))
      fputs("– |\n", out);
    else
      fprintf(out, "×%.2f |\n", r->step_ratio);
  }
}

static void put_twins(const kp_comparison *c, kp_twin_kind kind, FILE *out) {
  static const char *const titles[KP_TWINS] = {"Less the flat twin",
                                               "Less the flat twin in a ball of the same size",
                                               "Less the same with frozen curvature"};
  int rows = 0;
  for (int i = 0; i < c->row_count; i++) {
    const kp_comparison_row *r = &c->rows[i];
    const int twin = r->twins[kind];
    const kp_difference *d = r->differences[kind];
    if (twin < 0) continue;
    if (rows++ == 0)
      fprintf(out,
              "\n### %s\n\n| model | twin | final loss | 95 %% interval | verdict | at a quarter | 95 %% "
              "interval | verdict | speed |\n| --- | --- | ---: | ---: | --- | ---: | ---: | --- | ---: |\n",
              titles[kind]);
    fprintf(out, "| %s | %s | ", r->name, c->rows[twin].name);
    put_difference(&d[KP_FINAL_LOSS], 4, out);
    fputs(" | ", out);
    put_difference(&d[KP_QUARTER_LOSS], 4, out);
    if (kind != KP_TWIN_FLAT || isnan(r->twin_speed))
      fputs(" | – |\n", out);
    else
      fprintf(out, " | ×%.2f |\n", r->twin_speed);
  }
}

static void put_signs(const kp_comparison *c, FILE *out) {
  int rows = 0;
  for (int i = 0; i < c->row_count; i++) {
    const kp_comparison_row *r = &c->rows[i];
    char sentence[1024];
    if (r->curvature.heads == 0 || !kp_run_record_learns_curvature(r->runs[0])) continue;
    if (rows++ == 0) fputs("\n### Learned curvatures, all seeds together\n\n", out);
    kp_curvature_sentence(&r->curvature, sentence, sizeof sentence);
    fprintf(out, "- **%s**: %s\n", r->name, sentence);
  }
}

static void put_warnings(const kp_comparison *c, FILE *out) {
  if (c->warning_count > 0) fputs("\n### What limits the comparison\n\n", out);
  for (int i = 0; i < c->warning_count; i++) fprintf(out, "- %s\n", c->warnings[i]);
}

void kp_study_write_tables(const kp_text_result *result, FILE *out) {
  static const kp_measure losses[] = {KP_FINAL_LOSS,   KP_BEST_LOSS, KP_BEST_STEP, KP_BITS_PER_BYTE,
                                      KP_QUARTER_LOSS, KP_ACCURACY,  KP_MACRO_F1,  KP_ENTITY_F1,
                                      KP_TOKENS_PER_S, KP_SKIPPED};
  static const kp_measure geometry[] = {KP_HYPERBOLIC,
                                        KP_EUCLIDEAN,
                                        KP_SPHERICAL,
                                        KP_MEAN_COSINE,
                                        KP_EFFECTIVE_RANK,
                                        KP_RELATIVE_DELTA,
                                        KP_RELATIVE_DELTA_GAUSSIAN,
                                        KP_SVD_ENTROPY,
                                        KP_FREQUENCY_CORRELATION,
                                        KP_EDGE_SHARE,
                                        KP_BOUNDARY_SHARE,
                                        KP_LOAD_ENTROPY};
  const kp_comparison *c = result->comparison;
  put_models(c, out);
  fputc('\n', out);
  put_measures(c, losses, (int)(sizeof losses / sizeof *losses), out);
  for (int kind = 0; kind < KP_TWINS; kind++) put_twins(c, (kp_twin_kind)kind, out);
  put_signs(c, out);
  fputs("\n### Geometry\n\n", out);
  put_measures(c, geometry, (int)(sizeof geometry / sizeof *geometry), out);
  put_warnings(c, out);
}
