/* Checkpoints of llm.c ("gpt2_124M.bin", "model_00019560.bin"): GPT-2.
 *
 *   256 int32     magic 20240326, version (3: float32, 5: bfloat16), context, vocabulary V, layers L, heads,
 *                 width C, and the vocabulary Vp that the table is padded to
 *   the tensors   wte (Vp, C), wpe (context, C), then of all layers together: ln_1 weight and bias,
 *                 c_attn weight (3C, C) and bias, c_proj weight (C, C) and bias, ln_2 weight and bias,
 *                 c_fc weight (4C, C) and bias, c_proj weight (C, 4C) and bias; then ln_f weight and bias
 *
 * All tensors are of one type, without gaps, little endian.  The head is the table. */
#ifndef KAPPA_INTERCHANGE_LLMC_H
#define KAPPA_INTERCHANGE_LLMC_H

#include <stdbool.h>
#include <stdint.h>

#include "core/dtype.h"
#include "interchange/export.h"
#include "interchange/import.h"

enum { KP_LLMC_HEADER = 256, KP_LLMC_MAGIC = 20240326, KP_LLMC_F32 = 3, KP_LLMC_BF16 = 5 };

/* What the header says. */
typedef struct kp_llmc_shape {
  kp_dtype dtype; /* KP_F32 or KP_BF16 */
  int64_t context, vocabulary, layers, heads, width, padded;
} kp_llmc_shape;

/* Reads a header of which `size` bytes are there, and checks it against the size of the whole file; `label`
 * names the file in messages. */
kp_status kp_llmc_read_header(const unsigned char *bytes, uint64_t size, const char *label,
                              kp_llmc_shape *shape, kp_error *error);
void kp_llmc_write_header(const kp_llmc_shape *shape, int32_t header[KP_LLMC_HEADER]);

/* Numbers of all tensors. */
int64_t kp_llmc_count(const kp_llmc_shape *shape);

/* Where the parameter of that name of kappa begins, counted in numbers, and how many it has there; false when
 * a GPT-2 has none like it. */
bool kp_llmc_find(const kp_llmc_shape *shape, const char *name, int64_t *first, int64_t *count);

extern const kp_importer kp_importer_llmc;

/* Writes a run of GPT-2's kind as one file, whole or not at all: float32 (version 3) or bfloat16 (version 5).
 * What llm.c computes otherwise is refused by its key. */
kp_status kp_export_llmc(const char *run, const kp_export_options *options, const char *path,
                         kp_export_report *report, kp_error *error);

#endif
