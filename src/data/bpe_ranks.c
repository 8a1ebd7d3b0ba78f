/* Rank files of tiktoken.
 *
 * tiktoken merges any two neighbours whose bytes together are a token, the one of the lowest rank first.  A
 * token that its bytes come to with the ranks below its own, in two parts at last, is only ever made of those
 * two: one merge says the same.  For the few that end in more parts, every split into two tokens is a merge.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/bpe_draft.h"
#include "data/bpe_files.h"

/* ---- what rank files do not say ---- */

static const char *const gpt2_specials[] = {"<|endoftext|>", NULL};
static const char *const llama3_specials[] = {
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|reserved_special_token_2|>",
    "<|reserved_special_token_3|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_4|>",
    "<|eot_id|>",
    NULL,
};

static const kp_bpe_scheme schemes[] = {
    {.ranks = 50256, .pattern = KP_PATTERN_GPT2, .specials = gpt2_specials},
    {.ranks = 128000,
     .pattern = KP_PATTERN_LLAMA3,
     .specials = llama3_specials,
     .reserved = 246,
     .first_reserved = 5,
     .begin = "<|begin_of_text|>"},
};

const kp_bpe_scheme *kp_bpe_scheme_of(size_t ranks) {
  for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
    if ((size_t)schemes[i].ranks == ranks) return &schemes[i];
  return NULL;
}

/* ---- lines ---- */

/* Longer tokens are refused: finding out how one was made takes the square of its length. */
enum { TOKEN_LONGEST = 1024, RESERVED_ROOM = 48 };

static int digit_of(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648; the bytes, SIZE_MAX when it is not base64. */
static size_t decode_base64(const char *text, size_t size, char *out) {
  size_t written = 0;
  if (size == 0 || size % 4 != 0) return SIZE_MAX;
  const size_t padding = text[size - 1] != '=' ? 0 : text[size - 2] != '=' ? 1 : 2;
  for (size_t at = 0; at < size; at += 4) {
    uint32_t group = 0;
    const size_t kept = at + 4 == size ? 4 - padding : 4;
    for (size_t i = 0; i < 4; i++) {
      const int digit = i < kept ? digit_of(text[at + i]) : 0;
      if (digit < 0) return SIZE_MAX;
      group = group << 6 | (uint32_t)digit;
    }
    for (size_t i = 0; i + 1 < kept; i++) out[written++] = (char)(group >> (16 - 8 * i) & 0xFF);
  }
  return written;
}

/* One line: the token's bytes in `out` and its rank; false when it is not such a line. */
static bool read_line(const char *line, size_t size, char *out, size_t *length, int32_t *rank) {
  const char *space = memchr(line, ' ', size);
  if (space == NULL || (size_t)(space - line) > TOKEN_LONGEST / 3 * 4) return false;
  *length = decode_base64(line, (size_t)(space - line), out);
  const size_t digits = size - (size_t)(space - line) - 1;
  if (*length == SIZE_MAX || *length == 0 || digits == 0 || digits > 9) return false;
  *rank = 0;
  for (size_t i = 0; i < digits; i++) {
    const char c = space[1 + i];
    if (c < '0' || c > '9') return false;
    *rank = *rank * 10 + (c - '0');
  }
  return true;
}

/* The next line of the file that is not empty; false behind the last. */
static bool next_line(const char *data, size_t size, size_t *at, size_t *number, kp_text_view *line) {
  while (*at < size) {
    const char *begin = data + *at, *end = memchr(begin, '\n', size - *at);
    size_t length = end == NULL ? size - *at : (size_t)(end - begin);
    *at += length + 1;
    *number += 1;
    if (length > 0 && begin[length - 1] == '\r') length--;
    *line = (kp_text_view){.data = begin, .size = length};
    if (length > 0) return true;
  }
  return false;
}

/* Counts the lines, the largest rank and the bytes. */
static kp_status measure(const char *data, size_t size, size_t *count, int64_t *largest, size_t *bytes,
                         kp_error *error) {
  char token[TOKEN_LONGEST + 3];
  size_t at = 0, number = 0, length;
  kp_text_view line;
  while (next_line(data, size, &at, &number, &line)) {
    int32_t rank;
    if (!read_line(line.data, line.size, token, &length, &rank))
      return kp_fail(error, KP_ERR_INPUT,
                     "line %zu is not a token of up to %d bytes in base64, a space and its rank", number,
                     TOKEN_LONGEST);
    if (rank > *largest) *largest = rank;
    *bytes += length;
    *count += 1;
  }
  return KP_OK;
}

static kp_status read_tokens(kp_bpe_draft *draft, const char *data, size_t size, kp_error *error) {
  char token[TOKEN_LONGEST + 3];
  size_t at = 0, number = 0, length = 0;
  kp_text_view line;
  while (next_line(data, size, &at, &number, &line)) {
    int32_t rank = -1;
    if (!read_line(line.data, line.size, token, &length, &rank))
      return kp_fail(error, KP_ERR_INPUT, "line %zu is not a token", number);
    if (kp_bpe_draft_token(draft, token, length, rank, error) != KP_OK)
      return kp_context(error, "line %zu", number);
  }
  return KP_OK;
}

/* ---- merges ---- */

/* The token of bytes [begin, end) when its rank is below `below`, else -1. */
static int32_t lower_token(const kp_bpe_draft *draft, kp_text_view token, size_t begin, size_t end,
                           int32_t below) {
  const int32_t id = kp_token_table_find(&draft->table, token.data + begin, end - begin);
  return id < below ? id : -1;
}

/* The parts that a token's bytes come to with the ranks below its own: their begins, and the token's end
 * behind the last.  Returns how many. */
static size_t find_parts(const kp_bpe_draft *draft, int32_t id, size_t begins[TOKEN_LONGEST + 1]) {
  const kp_text_view token = draft->tokens[id];
  int32_t ranks[TOKEN_LONGEST]; /* of what the part at i and the next would become; -1: nothing */
  size_t count = token.size;
  for (size_t i = 0; i <= count; i++) begins[i] = i;
  for (size_t i = 0; i + 2 <= count; i++) ranks[i] = lower_token(draft, token, i, i + 2, id);
  for (;;) {
    size_t best = count;
    for (size_t i = 0; i + 1 < count; i++)
      if (ranks[i] >= 0 && (best == count || ranks[i] < ranks[best])) best = i;
    if (best == count) return count;
    memmove(begins + best + 1, begins + best + 2, (count - best - 1) * sizeof *begins);
    memmove(ranks + best, ranks + best + 1, (count - best - 2) * sizeof *ranks);
    count--;
    if (best > 0) ranks[best - 1] = lower_token(draft, token, begins[best - 1], begins[best + 1], id);
    if (best + 1 < count) ranks[best] = lower_token(draft, token, begins[best], begins[best + 2], id);
  }
}

static int by_parts(const void *a, const void *b) {
  const kp_merge *x = a, *y = b;
  if (x->left != y->left) return x->left < y->left ? -1 : 1;
  return (x->right > y->right) - (x->right < y->right);
}

/* Every way to make the token of two others, in the order of their ranks. */
static kp_status add_splits(kp_bpe_draft *draft, int32_t id, kp_error *error) {
  const kp_text_view token = draft->tokens[id];
  const size_t first = draft->merge_count;
  for (size_t at = 1; at < token.size; at++) {
    const int32_t left = kp_token_table_find(&draft->table, token.data, at);
    const int32_t right = kp_token_table_find(&draft->table, token.data + at, token.size - at);
    if (left < 0 || right < 0) continue;
    KP_TRY(kp_bpe_draft_merge_ids(draft, (kp_merge){.left = left, .right = right, .id = id}, error));
  }
  if (draft->merge_count > first + 1)
    qsort(draft->merges + first, draft->merge_count - first, sizeof *draft->merges, by_parts);
  return KP_OK;
}

static kp_status find_merges(kp_bpe_draft *draft, int32_t ranks, kp_error *error) {
  size_t begins[TOKEN_LONGEST + 1];
  for (int32_t id = 0; id < ranks; id++) {
    const kp_text_view token = draft->tokens[id];
    if (token.size < 2) continue;
    if (find_parts(draft, id, begins) != 2) {
      KP_TRY(add_splits(draft, id, error));
      continue;
    }
    const int32_t left = kp_token_table_find(&draft->table, token.data, begins[1]);
    const int32_t right = kp_token_table_find(&draft->table, token.data + begins[1], token.size - begins[1]);
    /* Only a token of two bytes can have a part that is no token: a byte that the file lacks. */
    if (left < 0 || right < 0) continue;
    KP_TRY(kp_bpe_draft_merge_ids(draft, (kp_merge){.left = left, .right = right, .id = id}, error));
  }
  return KP_OK;
}

/* ---- all of it ---- */

static size_t special_count(const kp_bpe_scheme *scheme) {
  size_t count = 0;
  while (scheme->specials[count] != NULL) count++;
  return count + (size_t)scheme->reserved;
}

static kp_status add_specials(kp_bpe_draft *draft, const kp_bpe_scheme *scheme, int32_t id, kp_error *error) {
  char reserved[RESERVED_ROOM];
  for (size_t i = 0; scheme->specials[i] != NULL; i++)
    KP_TRY(kp_bpe_draft_add(draft, scheme->specials[i], id++, true, error));
  for (int32_t i = 0; i < scheme->reserved; i++) {
    snprintf(reserved, sizeof reserved, "<|reserved_special_token_%d|>", scheme->first_reserved + i);
    KP_TRY(kp_bpe_draft_add(draft, reserved, id++, true, error));
  }
  for (size_t i = 0; i < draft->added_count; i++) {
    const kp_bpe_added *added = &draft->added[i];
    if (scheme->begin != NULL && strcmp(added->text, scheme->begin) == 0) draft->begin = added->id;
    if (scheme->end != NULL && strcmp(added->text, scheme->end) == 0) draft->end = added->id;
  }
  return KP_OK;
}

static kp_status read_scheme(kp_bpe_draft *draft, const char *data, size_t size, const kp_bpe_scheme *scheme,
                             kp_error *error) {
  const int32_t ranks = draft->vocabulary - (int32_t)special_count(scheme);
  KP_TRY(read_tokens(draft, data, size, error));
  KP_TRY(find_merges(draft, ranks, error));
  KP_TRY(add_specials(draft, scheme, ranks, error));
  draft->patterns[draft->pattern_count++] = scheme->pattern;
  draft->ignore_merges = true;
  return KP_OK;
}

kp_status kp_bpe_read_ranks(const char *data, size_t size, const kp_bpe_scheme *scheme,
                            kp_tokenizer **tokenizer, kp_error *error) {
  size_t count = 0, bytes = 0;
  int64_t largest = -1;
  KP_TRY(measure(data, size, &count, &largest, &bytes, error));
  if (scheme == NULL) scheme = kp_bpe_scheme_of(count);
  if (scheme == NULL)
    return kp_fail(
        error, KP_ERR_UNSUPPORTED,
        "it has %zu ranks, and a rank file does not say by which pattern text is cut: known are those of "
        "GPT-2 (50256) and Llama 3 (128000); convert others to tokenizer.json",
        count);
  const size_t specials = special_count(scheme);
  kp_bpe_draft draft = {0};
  kp_status status = kp_bpe_draft_init(&draft, count + specials, largest + (int64_t)specials,
                                       bytes + specials * RESERVED_ROOM, error);
  if (status == KP_OK) status = read_scheme(&draft, data, size, scheme, error);
  if (status == KP_OK) status = kp_bpe_draft_finish(&draft, tokenizer, error);
  kp_bpe_draft_clear(&draft);
  return status;
}
