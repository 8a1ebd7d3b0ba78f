#include "interchange/hf_names.h"

#include <stdio.h>
#include <string.h>

kp_hf_layout kp_hf_layout_of(const kp_model_options *o) {
  return (kp_hf_layout){.heads = o->heads,
                        .kv_heads = o->attention.kv_heads,
                        .head_size = o->attention.head_size,
                        .hidden = o->hidden};
}

static bool ends_in(const char *text, const char *end) {
  const size_t size = strlen(text), tail = strlen(end);
  return size >= tail && strcmp(text + size - tail, end) == 0;
}

static kp_hf_part *add(kp_hf_part *parts, int *count, const char *name, int64_t rows) {
  kp_hf_part *part = &parts[(*count)++];
  *part = (kp_hf_part){.based = true, .rows = rows};
  snprintf(part->name, sizeof part->name, "%s", name);
  return part;
}

static int head(kp_hf_part *parts, int64_t rows) {
  int count = 0;
  add(parts, &count, "lm_head.weight", rows)->based = false;
  return count;
}

/* GPT-2's own names are kappa's; its linear maps are convolutions of width 1, whose matrices are (in, out).
 */
int kp_hf_gpt2_parts(const kp_hf_layout *layout, const char *name, int64_t rows,
                     kp_hf_part parts[KP_HF_MAX_PARTS]) {
  static const char base[] = "transformer.";
  int count = 0;
  (void)layout;
  if (strcmp(name, "lm_head.weight") == 0) return head(parts, rows);
  if (strncmp(name, base, sizeof base - 1) != 0) return 0;
  add(parts, &count, name + sizeof base - 1, rows)->transposed =
      ends_in(name, ".c_attn.weight") || ends_in(name, ".c_proj.weight") || ends_in(name, ".c_fc.weight");
  return count;
}

/* "weight" or "bias" behind `module`, or NULL. */
static const char *kind_behind(const char *name, const char *module) {
  const size_t size = strlen(module);
  if (strncmp(name, module, size) != 0 || name[size] != '.') return NULL;
  const char *kind = name + size + 1;
  return strcmp(kind, "weight") == 0 || strcmp(kind, "bias") == 0 ? kind : NULL;
}

static kp_hf_part *add_block_part(kp_hf_part *parts, int *count, long long layer, const char *module,
                                  const char *kind, int64_t rows) {
  char name[KP_HF_NAME];
  snprintf(name, sizeof name, "layers.%lld.%s.%s", layer, module, kind);
  kp_hf_part *part = add(parts, count, name, rows);
  part->may_lack = strcmp(kind, "bias") == 0;
  return part;
}

static int llama_block_parts(const kp_hf_layout *l, long long layer, const char *rest, int64_t rows,
                             kp_hf_part *parts) {
  static const struct {
    const char *own, *theirs;
  } simple[] = {{"ln_1", "input_layernorm"},
                {"ln_2", "post_attention_layernorm"},
                {"attn.c_proj", "self_attn.o_proj"},
                {"mlp.c_proj", "mlp.down_proj"}};
  const char *kind;
  int count = 0;
  for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
    if ((kind = kind_behind(rest, simple[i].own)) != NULL)
      add_block_part(parts, &count, layer, simple[i].theirs, kind, rows);
  if ((kind = kind_behind(rest, "attn.c_attn")) != NULL) {
    const int64_t shared = l->kv_heads * l->head_size;
    add_block_part(parts, &count, layer, "self_attn.q_proj", kind, l->heads * l->head_size)->head_size =
        l->head_size;
    add_block_part(parts, &count, layer, "self_attn.k_proj", kind, shared)->head_size = l->head_size;
    add_block_part(parts, &count, layer, "self_attn.v_proj", kind, shared);
  }
  if ((kind = kind_behind(rest, "mlp.c_fc")) != NULL) {
    add_block_part(parts, &count, layer, "mlp.up_proj", kind, l->hidden);
    add_block_part(parts, &count, layer, "mlp.gate_proj", kind, l->hidden);
  }
  return count;
}

int kp_hf_llama_parts(const kp_hf_layout *layout, const char *name, int64_t rows,
                      kp_hf_part parts[KP_HF_MAX_PARTS]) {
  long long layer;
  int behind = 0, count = 0;
  if (strcmp(name, "lm_head.weight") == 0) return head(parts, rows);
  if (strcmp(name, "transformer.wte.weight") == 0) {
    add(parts, &count, "embed_tokens.weight", rows);
    return count;
  }
  if (strcmp(name, "transformer.ln_f.weight") == 0) {
    add(parts, &count, "norm.weight", rows);
    return count;
  }
  if (sscanf(name, "transformer.h.%lld.%n", &layer, &behind) != 1 || behind == 0) return 0;
  return llama_block_parts(layout, layer, name + behind, rows, parts);
}

void kp_hf_pair_rows(double *rows, int64_t count, int64_t columns, int64_t head_size, bool to_kappa,
                     double *room) {
  const int64_t pairs = head_size / 2;
  for (int64_t first = 0; first < count; first += head_size)
    for (int64_t i = 0; i < pairs; i++)
      for (int64_t side = 0; side < 2; side++) {
        const int64_t neighbours = first + 2 * i + side, halves = first + side * pairs + i;
        const int64_t to = to_kappa ? neighbours : halves, from = to_kappa ? halves : neighbours;
        memcpy(room + to * columns, rows + from * columns, (size_t)columns * sizeof *rows);
      }
  memcpy(rows, room, (size_t)(count * columns) * sizeof *rows);
}

void kp_hf_transpose(double *matrix, int64_t rows, int64_t columns, double *room) {
  memcpy(room, matrix, (size_t)(rows * columns) * sizeof *matrix);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) matrix[c * rows + r] = room[r * columns + c];
}
