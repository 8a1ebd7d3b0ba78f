/* kappa compare: the table of tasks × models. */
#include <math.h>

#include "cli/compare_tasks.h"
#include "cli/table.h"

enum { FIXED = 4 };

/* "0.8012 ± 0.0041 (3)"; a single run has no spread. */
static void put_statistic(kp_table *table, const kp_statistic *s) {
  if (s->count == 0)
    kp_table_cell(table, "–");
  else if (s->count == 1)
    kp_table_cell(table, "%.4f", s->mean);
  else
    kp_table_cell(table, "%.4f ± %.4f (%d)", s->mean, s->spread, s->count);
}

static void put_row(kp_table *table, const kp_task_score *score, int models) {
  kp_table_cell(table, "%s", score->task);
  kp_table_cell(table, "%s", score->metric);
  kp_table_cell(table, score->examples < 0 ? "–" : "%lld", (long long)score->examples);
  kp_table_cell(table, isnan(score->chance) ? "–" : "%.4f", score->chance);
  for (int m = 0; m < models; m++) put_statistic(table, &score->models[m]);
}

void kp_print_tasks(const kp_task_table *t) {
  const char *titles[KP_TABLE_COLUMNS + 1] = {"<task", "<metric", "scored", "chance"};
  const int most = KP_TABLE_COLUMNS - FIXED, models = t->model_count < most ? t->model_count : most;
  kp_table table;
  if (t->score_count == 0) return;
  for (int m = 0; m < models; m++) titles[FIXED + m] = t->models[m].name;
  printf("\nTasks, over the seeds of a model: mean ± standard deviation (runs)%s\n",
         models < t->model_count ? "; of the first models, comparison.json has all" : "");
  kp_table_begin(&table, titles);
  for (int s = 0; s < t->score_count; s++) put_row(&table, &t->scores[s], models);
  kp_table_print(&table, stdout);
}
