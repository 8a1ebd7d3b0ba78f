/* Where the numbers of a kappa parameter stand in a Hugging Face model, and how they lie there.
 *
 * A parameter is made of parts, stacked along its rows: kappa has queries, keys and values in one matrix, and
 * the two halves of a gated feed-forward in another.  The same description serves import and export. */
#ifndef KAPPA_INTERCHANGE_HF_NAMES_H
#define KAPPA_INTERCHANGE_HF_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "models/model.h"

/* The run's own tokenizer file in an export, where tokenizer.json cannot be read back. */
#define KP_HF_OWN_TOKENIZER "kappa_tokenizer.json"

enum { KP_HF_MAX_PARTS = 3, KP_HF_NAME = 160 };

typedef struct kp_hf_part {
  char name[KP_HF_NAME]; /* without the prefix of the base model */
  bool based;            /* stands behind the prefix: all but the head */
  int64_t rows;          /* of the parameter */
  int64_t head_size;     /* > 0: heads of so many rows, whose pairs (2i, 2i + 1) are (i, i + D/2) there */
  bool transposed;       /* (in, out) there */
  bool may_lack;         /* a bias that is zero where the other side has none */
} kp_hf_part;

/* What names depend on. */
typedef struct kp_hf_layout {
  int64_t heads, kv_heads, head_size, hidden;
} kp_hf_layout;

kp_hf_layout kp_hf_layout_of(const kp_model_options *options);

/* The parts of the parameter `name` with `rows` rows in GPT-2 and in LLaMA; their number, 0 when such a model
 * has nothing of the kind. */
typedef int kp_hf_parts_of(const kp_hf_layout *layout, const char *name, int64_t rows,
                           kp_hf_part parts[KP_HF_MAX_PARTS]);
kp_hf_parts_of kp_hf_gpt2_parts, kp_hf_llama_parts;

/* Turns the rows (count, columns) of one part from the other side's order into kappa's, or back, in place;
 * `room` holds count · columns numbers. */
void kp_hf_pair_rows(double *rows, int64_t count, int64_t columns, int64_t head_size, bool to_kappa,
                     double *room);

/* (rows, columns) -> (columns, rows), by way of `room`. */
void kp_hf_transpose(double *matrix, int64_t rows, int64_t columns, double *room);

#endif
