#include <stdlib.h>
#include <string.h>

#include "interchange/llmc.h"

/* A tensor's size: rows, times the width or its square. */
typedef enum size_of { TABLE, POSITIONS, VECTOR, MATRIX } size_of;

/* In the order of the file. */
static const struct tensor {
  const char *name; /* behind "transformer.", and of the layered ones behind "h.N." */
  bool layered;
  size_of size;
  int64_t times;
} tensors[] = {
    {"wte.weight", false, TABLE, 1},         {"wpe.weight", false, POSITIONS, 1},
    {"ln_1.weight", true, VECTOR, 1},        {"ln_1.bias", true, VECTOR, 1},
    {"attn.c_attn.weight", true, MATRIX, 3}, {"attn.c_attn.bias", true, VECTOR, 3},
    {"attn.c_proj.weight", true, MATRIX, 1}, {"attn.c_proj.bias", true, VECTOR, 1},
    {"ln_2.weight", true, VECTOR, 1},        {"ln_2.bias", true, VECTOR, 1},
    {"mlp.c_fc.weight", true, MATRIX, 4},    {"mlp.c_fc.bias", true, VECTOR, 4},
    {"mlp.c_proj.weight", true, MATRIX, 4},  {"mlp.c_proj.bias", true, VECTOR, 1},
    {"ln_f.weight", false, VECTOR, 1},       {"ln_f.bias", false, VECTOR, 1},
};
enum { TENSORS = sizeof tensors / sizeof *tensors };

/* Of one layer. */
static int64_t count_of(const kp_llmc_shape *s, const struct tensor *tensor) {
  switch (tensor->size) {
  case TABLE: return s->padded * s->width;
  case POSITIONS: return s->context * s->width;
  case VECTOR: return tensor->times * s->width;
  default: return tensor->times * s->width * s->width;
  }
}

int64_t kp_llmc_count(const kp_llmc_shape *s) {
  int64_t count = 0;
  for (int i = 0; i < TENSORS; i++) count += count_of(s, &tensors[i]) * (tensors[i].layered ? s->layers : 1);
  return count;
}

/* The layer of "transformer.h.N.…" and what stands behind it; -1 for tensors of no layer. */
static bool split_name(const kp_llmc_shape *s, const char *name, int64_t *layer, const char **rest) {
  static const char front[] = "transformer.";
  if (strncmp(name, front, sizeof front - 1) != 0) return false;
  name += sizeof front - 1;
  *layer = -1;
  *rest = name;
  if (strncmp(name, "h.", 2) != 0) return true;
  char *end;
  *layer = strtoll(name + 2, &end, 10);
  *rest = end + 1;
  return end > name + 2 && *end == '.' && *layer >= 0 && *layer < s->layers;
}

bool kp_llmc_find(const kp_llmc_shape *s, const char *name, int64_t *first, int64_t *count) {
  int64_t layer;
  const char *rest;
  if (!split_name(s, name, &layer, &rest)) return false;
  *first = 0;
  for (int i = 0; i < TENSORS; i++) {
    *count = count_of(s, &tensors[i]);
    if (tensors[i].layered == (layer >= 0) && strcmp(tensors[i].name, rest) == 0) {
      if (layer > 0) *first += layer * *count;
      return true;
    }
    *first += *count * (tensors[i].layered ? s->layers : 1);
  }
  return false;
}

/* ---- the header ---- */

static kp_status check_version(const char *label, int32_t version, kp_error *error) {
  if (version == KP_LLMC_F32 || version == KP_LLMC_BF16) return KP_OK;
  return kp_fail(error, KP_ERR_UNSUPPORTED,
                 "'%s' is an llm.c checkpoint of version %d, and kappa reads 3 (float32) and 5 (bfloat16): "
                 "write it again with a newer llm.c",
                 label, version);
}

static kp_status check_sizes(const char *label, const kp_llmc_shape *s, kp_error *error) {
  const struct {
    const char *name;
    int64_t value, most;
  } sizes[] = {{"context", s->context, 1 << 20}, {"vocabulary", s->vocabulary, 1 << 24},
               {"layers", s->layers, 512},       {"heads", s->heads, 512},
               {"width", s->width, 65536},       {"padded vocabulary", s->padded, 1 << 24}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (sizes[i].value < 1 || sizes[i].value > sizes[i].most)
      return kp_fail(error, KP_ERR_INPUT, "the header of '%s' says %lld for its %s: the file is damaged",
                     label, (long long)sizes[i].value, sizes[i].name);
  if (s->padded < s->vocabulary || s->width % s->heads != 0)
    return kp_fail(
        error, KP_ERR_INPUT,
        "the header of '%s' says a vocabulary of %lld padded to %lld, and a width of %lld for %lld "
        "heads: the file is damaged",
        label, (long long)s->vocabulary, (long long)s->padded, (long long)s->width, (long long)s->heads);
  return KP_OK;
}

kp_status kp_llmc_read_header(const unsigned char *bytes, uint64_t size, const char *label, kp_llmc_shape *s,
                              kp_error *error) {
  int32_t header[KP_LLMC_HEADER];
  if (size < sizeof header)
    return kp_fail(error, KP_ERR_INPUT, "'%s' has %llu bytes, too few for an llm.c checkpoint", label,
                   (unsigned long long)size);
  memcpy(header, bytes, sizeof header);
  if (header[0] != KP_LLMC_MAGIC)
    return kp_fail(error, KP_ERR_INPUT,
                   "'%s' does not begin like a GPT-2 of llm.c: its first number is %d, not %d", label,
                   header[0], KP_LLMC_MAGIC);
  KP_TRY(check_version(label, header[1], error));
  *s = (kp_llmc_shape){.dtype = header[1] == KP_LLMC_BF16 ? KP_BF16 : KP_F32,
                       .context = header[2],
                       .vocabulary = header[3],
                       .layers = header[4],
                       .heads = header[5],
                       .width = header[6],
                       .padded = header[7]};
  KP_TRY(check_sizes(label, s, error));
  const uint64_t wanted = sizeof header + (uint64_t)kp_llmc_count(s) * kp_dtype_size(s->dtype);
  if (size == wanted) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "'%s' has %llu bytes, and its header promises %llu: it is cut short or damaged", label,
                 (unsigned long long)size, (unsigned long long)wanted);
}

void kp_llmc_write_header(const kp_llmc_shape *s, int32_t header[KP_LLMC_HEADER]) {
  memset(header, 0, KP_LLMC_HEADER * sizeof *header);
  header[0] = KP_LLMC_MAGIC;
  header[1] = s->dtype == KP_BF16 ? KP_LLMC_BF16 : KP_LLMC_F32;
  header[2] = (int32_t)s->context;
  header[3] = (int32_t)s->vocabulary;
  header[4] = (int32_t)s->layers;
  header[5] = (int32_t)s->heads;
  header[6] = (int32_t)s->width;
  header[7] = (int32_t)s->padded;
}
