/* Gromov's δ of a model's vectors, beside that of clouds that have no structure. */
#include <math.h>
#include <stdlib.h>

#include "core/assert.h"
#include "core/json_text.h"
#include "study/analyze_private.h"

/* Ten samples of fifty points are 2.3 million quadruples, a moment's work. */
enum { SAMPLES = 10, POINTS = 50, SEED = 20 };

static kp_status measure(int64_t count, int64_t columns, const double *rows, const kp_product_space *space,
                         kp_hyperbolicity *result, kp_error *error) {
  return kp_hyperbolicity_measure(count, columns, rows,
                                  space == NULL ? kp_metric_euclidean : kp_metric_geodesic, space, SAMPLES,
                                  POINTS, SEED, result, error);
}

kp_status kp_tree_likeness_measure(int64_t count, int64_t columns, const double *rows,
                                   const kp_product_space *space, kp_tree_likeness *r, kp_error *error) {
  double *cloud = malloc((size_t)(count * columns + 1) * sizeof *cloud);
  kp_assert(cloud != NULL, "out of memory");
  *r = (kp_tree_likeness){.curved = space != NULL};
  kp_status status = measure(count, columns, rows, NULL, &r->rows, error);
  if (status == KP_OK) {
    kp_cloud_gaussian(count, columns, SEED, cloud);
    status = measure(count, columns, cloud, NULL, &r->gaussian, error);
  }
  if (status == KP_OK) {
    kp_cloud_like(count, columns, rows, count, SEED, cloud);
    status = measure(count, columns, cloud, NULL, &r->like, error);
  }
  if (status == KP_OK && space != NULL) status = measure(count, columns, rows, space, &r->geodesic, error);
  if (status == KP_OK && space != NULL)
    status = measure(count, columns, cloud, space, &r->geodesic_like, error);
  free(cloud);
  return status;
}

static json_t *delta_json(const kp_hyperbolicity *h) {
  return json_pack("{s:o, s:o, s:o, s:o}", "relative", kp_json_number(h->relative), "low",
                   kp_json_number(h->low), "high", kp_json_number(h->high), "mean_relative",
                   kp_json_number(h->mean_relative));
}

json_t *kp_tree_likeness_json(const kp_tree_likeness *t) {
  json_t *json = json_pack("{s:i, s:i, s:o, s:o, s:o}", "samples", t->rows.samples, "points", t->rows.points,
                           "rows", delta_json(&t->rows), "gaussian", delta_json(&t->gaussian),
                           "gaussian_of_equal_moments", delta_json(&t->like));
  if (!t->curved) return json;
  json_object_set_new(json, "geodesic", delta_json(&t->geodesic));
  json_object_set_new(json, "geodesic_gaussian_of_equal_moments", delta_json(&t->geodesic_like));
  return json;
}
