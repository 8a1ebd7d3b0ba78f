#include "interchange/originals_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

#define H      "transformer.h.%d."
#define ALL    KP_COLUMNS_ALL
#define TIME   KP_COLUMNS_TIME
#define SPACE  KP_COLUMNS_SPACE
#define TIMES  KP_COLUMNS_TIME_HEADS
#define SPACES KP_COLUMNS_SPACE_HEADS

/* NVIDIA's nGPT, and the baseline of the same repository. */
static const kp_original_rule ngpt[] = {
    {"lm_head.scale", "sz", 0, 1, ALL},
    {H "attn.c_attn.weight", H "query.weight", 0, 3, ALL},
    {H "attn.c_attn.weight", H "key.weight", 1, 3, ALL},
    {H "attn.c_attn.weight", H "value.weight", 2, 3, ALL},
    {H "attn.c_attn.bias", H "query.bias", 0, 3, ALL},
    {H "attn.c_attn.bias", H "key.bias", 1, 3, ALL},
    {H "attn.c_attn.bias", H "value.bias", 2, 3, ALL},
    {H "attn.c_proj.weight", H "att_c_proj.weight", 0, 1, ALL},
    {H "attn.c_proj.bias", H "att_c_proj.bias", 0, 1, ALL},
    {H "attn.query_gain", H "sqk", 0, 1, ALL},
    {H "attn.rate", H "attn_alpha", 0, 1, ALL},
    {H "mlp.c_fc.weight", H "c_fc.weight", 0, 1, ALL},
    {H "mlp.c_fc.bias", H "c_fc.bias", 0, 1, ALL},
    {H "mlp.c_proj.weight", H "mlp_c_proj.weight", 0, 1, ALL},
    {H "mlp.c_proj.bias", H "mlp_c_proj.bias", 0, 1, ALL},
    {H "mlp.scale", H "suv", 0, 1, ALL},
    {H "mlp.rate", H "mlp_alpha", 0, 1, ALL},
    {H "ln_1.weight", H "rmsnorm_att.weight", 0, 1, ALL},
    {H "ln_2.weight", H "rmsnorm_mlp.weight", 0, 1, ALL},
    {"transformer.ln_f.weight", "rmsnorm_f.weight", 0, 1, ALL},
};

/* A Lorentz map of theirs: its time column, its other columns, its bias. */
#define LINEAR(ours, theirs, part, parts)                                                                    \
  {ours ".weight", theirs ".weight", part, parts, SPACE},                                                    \
      {ours ".time", theirs ".weight", part, parts, TIME}, {                                                 \
    ours ".bias", theirs ".bias", part, parts, ALL                                                           \
  }

static const kp_original_rule helm_d[] = {
    {"transformer.wte.points", "token_embed.embedding", 0, 1, ALL},
    {"transformer.ln_f.weight", "ln_final.weight", 0, 1, ALL},
    {"lm_head.weight", "mapping.weight", 0, 1, SPACE},
    {"lm_head.time", "mapping.weight", 0, 1, TIME},
    LINEAR("final_projection", "final_proj.linear", 0, 1),
    {H "ln_1.weight", "resblocks.%d.ln_1.weight", 0, 1, ALL},
    {H "ln_2.weight", "resblocks.%d.ln_2.weight", 0, 1, ALL},
    LINEAR(H "attn.c_attn", "resblocks.%d.attn.Wq", 0, 3),
    LINEAR(H "attn.c_attn", "resblocks.%d.attn.Wk", 1, 3),
    LINEAR(H "attn.c_attn", "resblocks.%d.attn.Wv", 2, 3),
    {H "attn.temperature", "resblocks.%d.attn.scale", 0, 1, ALL},
    {H "attn.c_proj.weight", "resblocks.%d.attn.final_linear.weight", 0, 1, SPACES},
    {H "attn.c_proj.time", "resblocks.%d.attn.final_linear.weight", 0, 1, TIMES},
    {H "attn.c_proj.bias", "resblocks.%d.attn.final_linear.bias", 0, 1, ALL},
    {H "attn.branch_weight", "resblocks.%d.res1.w_y", 0, 1, ALL},
    LINEAR(H "mlp.c_fc", "resblocks.%d.mlp.w3.linear", 0, 2),
    LINEAR(H "mlp.c_fc", "resblocks.%d.mlp.w1.linear", 1, 2),
    LINEAR(H "mlp.c_proj", "resblocks.%d.mlp.w2.linear", 0, 1),
    {H "mlp.branch_weight", "resblocks.%d.res2.w_y", 0, 1, ALL},
};

#define L "layers.%d."

static const kp_original_rule helm_mice[] = {
    {"transformer.wte.points", "embed.embedding", 0, 1, ALL},
    {"transformer.wte.weight", "embed.weight", 0, 1, ALL},
    {"transformer.ln_f.weight", "norm.weight", 0, 1, ALL},
    {"lm_head.weight", "head.weight", 0, 1, SPACE},
    {"lm_head.time", "head.weight", 0, 1, TIME},
    LINEAR("final_projection", "final_proj.linear", 0, 1),
    {H "ln_1.weight", L "attn_norm.weight", 0, 1, ALL},
    {H "ln_2.weight", L "ffn_norm.weight", 0, 1, ALL},
    LINEAR(H "attn.q", L "attn.wq.linear", 0, 1),
    LINEAR(H "attn.kv_a", L "attn.wkv_a.linear", 0, 1),
    {H "attn.kv_norm.weight", L "attn.kv_norm.weight", 0, 1, ALL},
    LINEAR(H "attn.kv_b", L "attn.wkv_b.linear", 0, 1),
    {H "attn.temperature", L "attn.softmax_scale", 0, 1, ALL},
    {H "attn.c_proj.weight", L "attn.wo.linear.weight", 0, 1, SPACES},
    {H "attn.c_proj.time", L "attn.wo.linear.weight", 0, 1, TIMES},
    {H "attn.c_proj.bias", L "attn.wo.linear.bias", 0, 1, ALL},
    {H "attn.branch_weight", L "attn_res.w_y", 0, 1, ALL},
    {H "mlp.branch_weight", L "ffn_res.w_y", 0, 1, ALL},
    LINEAR(H "mlp.c_fc", L "ffn.w3.linear", 0, 2),
    LINEAR(H "mlp.c_fc", L "ffn.w1.linear", 1, 2),
    LINEAR(H "mlp.c_proj", L "ffn.w2.linear", 0, 1),
    {H "mlp.gate.weight", L "ffn.gate.weight", 0, 1, ALL},
    {H "mlp.gate.bias", L "ffn.gate.bias", 0, 1, ALL},
    LINEAR(H "mlp.shared.c_fc", L "ffn.shared_experts.w3.linear", 0, 2),
    LINEAR(H "mlp.shared.c_fc", L "ffn.shared_experts.w1.linear", 1, 2),
    LINEAR(H "mlp.shared.c_proj", L "ffn.shared_experts.w2.linear", 0, 1),
    LINEAR(H "mlp.experts.w1", L "ffn.experts.%d.w1.linear", 0, 0),
    LINEAR(H "mlp.experts.w2", L "ffn.experts.%d.w2.linear", 0, 0),
    LINEAR(H "mlp.experts.w3", L "ffn.experts.%d.w3.linear", 0, 0),
    {H "mlp.experts.curvature", L "ffn.experts.%d.expert_manifold.k", 0, 0, ALL},
    {H "mlp.merge_weight", L "ffn.add_experts.w_y", 0, 1, ALL},
    {H "mlp.merge_scale", L "ffn.add_experts.scale", 0, 1, ALL},
};

const kp_original_rule *kp_original_rules(const char *family, int *count) {
  static const struct {
    const char *family;
    const kp_original_rule *rules;
    int count;
  } tables[] = {
      {"ngpt", ngpt, sizeof ngpt / sizeof *ngpt},
      {"gpt-rope", ngpt, sizeof ngpt / sizeof *ngpt},
      {"helm-d", helm_d, sizeof helm_d / sizeof *helm_d},
      {"helm-mice", helm_mice, sizeof helm_mice / sizeof *helm_mice},
  };
  *count = 0;
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
    if (strcmp(tables[i].family, family) == 0) {
      *count = tables[i].count;
      return tables[i].rules;
    }
  return NULL;
}

bool kp_original_matches(const char *pattern, const char *name, int *block) {
  const char *place = strstr(pattern, "%d");
  *block = 0;
  if (place == NULL) return strcmp(pattern, name) == 0;
  const size_t before = (size_t)(place - pattern);
  if (strncmp(pattern, name, before) != 0) return false;
  char *end;
  const long number = strtol(name + before, &end, 10);
  if (end == name + before || number < 0 || number >= KP_MAX_LAYERS) return false;
  *block = (int)number;
  return strcmp(end, place + 2) == 0;
}

/* Writes `pattern` with the block and the expert for its %d. */
static void fill(char *out, size_t size, const char *pattern, int block, int expert) {
  const int numbers[] = {block, expert};
  size_t length = 0;
  for (int n = 0; *pattern != 0 && length + 12 < size;) {
    if (pattern[0] == '%' && pattern[1] == 'd' && n < 2) {
      length += (size_t)snprintf(out + length, size - length, "%d", numbers[n++]);
      pattern += 2;
    } else {
      out[length++] = *pattern++;
    }
  }
  out[length] = 0;
}

/* Their column that column `column` of `columns` of ours is. */
static int64_t their_column(kp_original_columns kind, int64_t heads, int64_t column, int64_t columns) {
  const int64_t groups = kind >= KP_COLUMNS_TIME_HEADS ? heads : 1, size = columns / groups;
  switch (kind) {
  case KP_COLUMNS_SPACE:
  case KP_COLUMNS_SPACE_HEADS: return column / size * (size + 1) + 1 + column % size;
  default: return column;
  }
}

static int64_t count_of(const kp_original_shape *p) {
  int64_t count = 1;
  for (int i = 0; i < p->dimensions; i++) count *= p->shape[i];
  return count;
}

/* A rule's place in a parameter: rows × columns from a first row on. */
typedef struct place {
  int64_t first, rows, columns, their_columns;
} place;

static kp_status place_of(const kp_original_rule *rule, const kp_original_shape *p, int64_t heads,
                          int64_t their_count, int expert, place *out, kp_error *error) {
  const bool time = rule->columns == KP_COLUMNS_TIME || rule->columns == KP_COLUMNS_TIME_HEADS;
  const int64_t groups = rule->columns >= KP_COLUMNS_TIME_HEADS ? heads : 1;
  int64_t columns = p->dimensions == 1 ? 1 : p->shape[p->dimensions - 1];
  /* Vectors of one number a row, and a stack's vectors. */
  if (time || (p->dimensions == 2 && rule->columns == KP_COLUMNS_ALL && rule->parts == 0))
    columns = time ? groups : 1;
  const int64_t rows = count_of(p) / columns, parts = rule->parts == 0 ? p->shape[0] : rule->parts;
  out->rows = rows / parts;
  out->first = out->rows * (rule->parts == 0 ? expert : rule->part);
  out->columns = columns;
  out->their_columns = out->rows == 0 ? 0 : their_count / out->rows;
  const bool split = rule->columns != KP_COLUMNS_ALL;
  const int64_t least = time ? groups + 1 : columns + (split ? groups : 0);
  if (out->their_columns * out->rows != their_count ||
      (time ? out->their_columns < least : out->their_columns != least))
    return kp_fail(error, KP_ERR_INPUT, "%s has %lld elements, which do not make %lld rows of %s",
                   rule->theirs, (long long)their_count, (long long)out->rows, p->name);
  return KP_OK;
}

/* Element (r, k) of the place, counted in their tensor. */
static int64_t their_index(const kp_original_rule *rule, const place *at, int64_t heads, int64_t r,
                           int64_t k) {
  const bool times = rule->columns == KP_COLUMNS_TIME_HEADS;
  return r * at->their_columns +
         (times ? k * (at->their_columns / heads) : their_column(rule->columns, heads, k, at->columns));
}

/* Copies what the rule takes of one of their tensors, if it is there. */
static kp_status take(const kp_original_source *source, const kp_original_rule *rule, int block, int expert,
                      const kp_original_shape *p, int64_t heads, double *values, kp_original_found *found,
                      kp_error *error) {
  double *theirs;
  int64_t count;
  place at;
  char name[sizeof found->missing];
  fill(name, sizeof name, rule->theirs, block, expert);
  KP_TRY(source->read(source->context, name, &theirs, &count, error));
  if (theirs == NULL) {
    if (found->missing[0] == 0) memcpy(found->missing, name, sizeof name);
    return KP_OK;
  }
  kp_status status = place_of(rule, p, heads, count, expert, &at, error);
  for (int64_t r = 0; r < at.rows && status == KP_OK; r++)
    for (int64_t k = 0; k < at.columns; k++)
      values[(at.first + r) * at.columns + k] = theirs[their_index(rule, &at, heads, r, k)];
  found->any = true;
  free(theirs);
  return status;
}

kp_status kp_original_parameter(const char *family, const kp_original_source *source, int64_t heads,
                                const kp_original_shape *p, double *values, kp_original_found *found,
                                kp_error *error) {
  const kp_original_rule same = {p->name, p->name, 0, 1, KP_COLUMNS_ALL};
  int count, block;
  bool ruled = false;
  const kp_original_rule *rules = kp_original_rules(family, &count);
  *found = (kp_original_found){0};
  for (int i = 0; i < count; i++) {
    if (!kp_original_matches(rules[i].ours, p->name, &block)) continue;
    ruled = true;
    const int64_t experts = rules[i].parts == 0 ? p->shape[0] : 1;
    for (int e = 0; e < experts; e++)
      KP_TRY(take(source, &rules[i], block, e, p, heads, values, found, error));
  }
  return ruled ? KP_OK : take(source, &same, 0, 0, p, heads, values, found, error);
}

/* Writes what a rule takes of `theirs` back into it. */
static kp_status give(const kp_original_rule *rule, int expert, const kp_parameters *parameters, int index,
                      int64_t heads, double *theirs, int64_t their_count, kp_error *error) {
  const kp_parameter *p = &parameters->list[index];
  const kp_original_shape shape = {p->name, p->dimensions, p->shape};
  place at;
  KP_TRY(place_of(rule, &shape, heads, their_count, expert, &at, error));
  double *values = malloc((size_t)p->count * sizeof *values);
  kp_assert(values != NULL, "out of memory");
  kp_parameters_read(parameters, parameters->values, index, values);
  for (int64_t r = 0; r < at.rows; r++)
    for (int64_t k = 0; k < at.columns; k++)
      theirs[their_index(rule, &at, heads, r, k)] = values[(at.first + r) * at.columns + k];
  free(values);
  return KP_OK;
}

kp_status kp_original_theirs(const char *family, int64_t heads, const kp_parameters *parameters,
                             const char *name, double *theirs, int64_t their_count, kp_error *error) {
  int count, block;
  const kp_original_rule *rules = kp_original_rules(family, &count);
  for (int index = 0; index < parameters->count; index++)
    for (int i = 0; i < count; i++) {
      const kp_parameter *p = &parameters->list[index];
      if (!kp_original_matches(rules[i].ours, p->name, &block)) continue;
      const int64_t experts = rules[i].parts == 0 ? p->shape[0] : 1;
      for (int e = 0; e < experts; e++) {
        char full[256];
        fill(full, sizeof full, rules[i].theirs, block, e);
        if (strcmp(full, name) == 0)
          KP_TRY(give(&rules[i], e, parameters, index, heads, theirs, their_count, error));
      }
    }
  return KP_OK;
}
