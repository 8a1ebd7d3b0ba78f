#include "study/json_values.h"

#include "core/json_text.h"

json_t *kp_json_list(const double *values, int64_t count) {
  json_t *list = json_array();
  for (int64_t i = 0; i < count; i++) json_array_append_new(list, kp_json_number(values[i]));
  return list;
}

json_t *kp_json_table(const double *values, int64_t rows, int64_t columns) {
  json_t *table = json_array();
  for (int64_t r = 0; r < rows; r++)
    json_array_append_new(table, kp_json_list(values + r * columns, columns));
  return table;
}
