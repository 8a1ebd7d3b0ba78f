/* kappa eval --task context: the loss against the length of the context, up to 8 times the trained one. */
#include <math.h>
#include <stdio.h>

#include "cli/command.h"
#include "cli/eval.h"
#include "cli/table.h"
#include "core/json_text.h"
#include "study/plot.h"

enum { LENGTHS = 6 };
static const double multiples[LENGTHS] = {0.25, 0.5, 1, 2, 4, 8};

typedef struct lengths {
  kp_evaluation list[LENGTHS];
  int count;
  const char *refusal; /* why no longer ones follow, or NULL */
  int64_t missing;     /* tokens that the next length would have needed; 0: none was left out for it */
} lengths;

static kp_status score_lengths(const kp_eval_arguments *a, const kp_trained *trained, const kp_tokens *tokens,
                               lengths *l, kp_error *error) {
  kp_progress_line line = kp_progress_line_begin();
  for (int i = 0; i < LENGTHS; i++) {
    kp_evaluation_options options = a->options;
    options.window = (int64_t)(multiples[i] * (double)trained->options.context);
    if (options.window < 1) continue;
    l->refusal = kp_context_refusal(&trained->options, options.window);
    if (l->refusal != NULL) break;
    if (kp_tokens_count(tokens) <= options.window) {
      l->missing = options.window + 1;
      break;
    }
    if (options.stride == 0) options.stride = (options.window + 1) / 2;
    options.progress = kp_eval_show_batches;
    options.context = &line;
    kp_status status = kp_evaluate(trained, tokens, &options, &l->list[l->count], error);
    kp_progress_line_end(&line);
    KP_TRY(status);
    l->count++;
  }
  if (l->count > 0) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "the text has %lld tokens, and a quarter of the context of run %s has %lld",
                 (long long)kp_tokens_count(tokens), trained->run, (long long)trained->options.context / 4);
}

/* ---- output ---- */

static void print_words(const kp_trained *trained, const kp_tokens *tokens, const lengths *l) {
  static const char *const titles[] = {"context", "trained ×",  "stride",        "loss",
                                       "±",       "perplexity", "bits per byte", NULL};
  kp_table table;
  printf("%s, step %lld: loss by context; it was trained on %lld tokens\n", trained->run,
         (long long)trained->step, (long long)trained->options.context);
  kp_table_begin(&table, titles);
  for (int i = 0; i < l->count; i++) {
    const kp_evaluation *e = &l->list[i];
    kp_table_cell(&table, "%lld", (long long)e->window);
    kp_table_cell(&table, "%.4g", (double)e->window / (double)trained->options.context);
    kp_table_cell(&table, "%lld", (long long)e->stride);
    kp_table_cell(&table, "%.4f", e->loss);
    kp_table_cell(&table, isnan(e->standard_error) ? "–" : "%.4f", e->standard_error);
    kp_table_cell(&table, "%.4g", e->perplexity);
    kp_table_cell(&table, isnan(e->bits_per_byte) ? "–" : "%.4f", e->bits_per_byte);
  }
  kp_table_print(&table, stdout);
  if (l->refusal != NULL) printf("no longer ones: %s\n", l->refusal);
  if (l->missing > 0)
    printf("no longer ones: a window would take %lld tokens, the text has %lld\n", (long long)l->missing,
           (long long)kp_tokens_count(tokens));
}

static json_t *result_of(const kp_eval_arguments *a, const kp_trained *trained, const lengths *l) {
  const char *data = a->file != NULL ? a->file : a->data;
  json_t *list = json_array();
  for (int i = 0; i < l->count; i++) {
    const kp_evaluation *e = &l->list[i];
    json_array_append_new(
        list, json_pack("{s:I, s:I, s:o, s:o, s:o, s:o, s:I, s:o}", "context", (json_int_t)e->window,
                        "stride", (json_int_t)e->stride, "loss", kp_json_number(e->loss), "standard_error",
                        kp_json_number(e->standard_error), "perplexity", kp_json_number(e->perplexity),
                        "bits_per_byte", kp_json_number(e->bits_per_byte), "tokens", (json_int_t)e->tokens,
                        "seconds", kp_json_number(e->seconds)));
  }
  return json_pack("{s:s, s:I, s:s, s:s, s:s?, s:I, s:s?, s:o}", "run", a->run, "step",
                   (json_int_t)trained->step, "backend", a->backend->name, "task", "context", "data", data,
                   "trained_context", (json_int_t)trained->options.context, "refusal", l->refusal, "lengths",
                   list);
}

/* The loss over the context, and where the trained context is. */
static kp_status draw(const kp_trained *trained, const lengths *l, kp_error *error) {
  double x[LENGTHS], y[LENGTHS], least = INFINITY, most = -INFINITY;
  const double trained_context = (double)trained->options.context;
  kp_figure *figure = kp_figure_create(NULL, 1);
  kp_panel *panel = kp_figure_panel(figure, "context (tokens)", "loss");
  for (int i = 0; i < l->count; i++) {
    x[i] = (double)l->list[i].window;
    y[i] = l->list[i].loss;
    least = fmin(least, y[i]);
    most = fmax(most, y[i]);
  }
  panel->x.logarithmic = true;
  panel->x.minimum = x[0];
  panel->x.maximum = x[l->count - 1];
  panel->legend = KP_LEGEND_RIGHT;
  kp_panel_title(panel, trained->run);
  kp_panel_series(panel, KP_LINE_DASHED, "trained context", 0x808080, 2,
                  (const double[]){trained_context, trained_context}, (const double[]){least, most});
  kp_panel_series(panel, KP_LINE_POINTS, "loss", kp_plot_colour(0), (size_t)l->count, x, y);
  kp_status status = kp_figure_write(figure, trained->run, "context", error);
  kp_figure_destroy(figure);
  return status;
}

kp_status kp_eval_context(const kp_eval_arguments *a, const kp_trained *trained, kp_error *error) {
  kp_tokens *tokens = NULL;
  kp_error fault = {0};
  lengths l = {.count = 0};
  if (trained->options.task != KP_TASK_LANGUAGE)
    return kp_fail(error, KP_ERR_INPUT, "%s predicts labels, and a text has none", a->run);
  KP_TRY(kp_eval_open_text(a, trained, &tokens, error));
  kp_status status = score_lengths(a, trained, tokens, &l, error);
  if (status == KP_OK && !a->json) print_words(trained, tokens, &l);
  kp_tokens_destroy(tokens);
  KP_TRY(status);
  if (draw(trained, &l, &fault) != KP_OK)
    fprintf(stderr, "kappa: note: no figure: %s\n", fault.message);
  else if (!a->json)
    printf("written: %s/context.png, context.svg\n", trained->run);
  return kp_eval_finish(a, trained, result_of(a, trained, &l), error);
}
