/* Token streams: one or several token files, mapped into memory and read as one sequence.
 *
 * Nothing is copied or scanned on opening, so a stream of many gigabytes opens at once.  A stream never
 * changes and may be shared by threads.  The layouts are those of data/token_layout.h. */
#ifndef KAPPA_DATA_TOKEN_FILE_H
#define KAPPA_DATA_TOKEN_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "data/tokenizer.h"

typedef struct kp_tokens kp_tokens;

/* Opens a stream.  Each path is a file, a pattern ("shards/fineweb_train_*.bin", files in the order of their
 * names) or a folder.  A folder means its .bin files whose names hold the word `split` ("train" or "val");
 * with split = NULL all its .bin files, unless there are both train and val files among them: these must not
 * be mixed.  A file may be raw only if its name ends in .bin.  Files that disagree on vocabulary or tokenizer
 * are refused.  The caller destroys the stream. */
kp_status kp_tokens_open(const char *const *paths, size_t count, const char *split, kp_tokens **tokens,
                         kp_error *error);

/* NULL is allowed. */
void kp_tokens_destroy(kp_tokens *tokens);

/* Where conversations lie in a stream of one file and which tokens are learned, if an index stands beside the
 * file (data/conversation_index.h); else NULL. */
const struct kp_conversation_index *kp_tokens_index(const kp_tokens *tokens);

/* Tokens in the stream. */
int64_t kp_tokens_count(const kp_tokens *tokens);

/* Files in the stream, and the path of one. */
size_t kp_tokens_files(const kp_tokens *tokens);
const char *kp_tokens_path(const kp_tokens *tokens, size_t file);

/* Bytes of a token: 4 when one of the files has such. */
size_t kp_tokens_width(const kp_tokens *tokens);

/* What the files say about themselves; 0 when one of them does not. */
int32_t kp_tokens_vocabulary(const kp_tokens *tokens);
uint64_t kp_tokens_fingerprint(const kp_tokens *tokens);
uint64_t kp_tokens_text_bytes(const kp_tokens *tokens); /* for bits per byte */

/* Bytes of all files, which are mapped. */
uint64_t kp_tokens_file_bytes(const kp_tokens *tokens);

/* out[i] = token offset + i for i < count.  0 <= offset and offset + count <= kp_tokens_count. */
void kp_tokens_copy(const kp_tokens *tokens, int64_t offset, int64_t count, int32_t *out);

/* Reads the whole stream and fails if a token is not below `vocabulary`, naming file and position. */
kp_status kp_tokens_check(const kp_tokens *tokens, int32_t vocabulary, kp_error *error);

/* Fails if the stream was made with another tokenizer.  A stream that does not say passes. */
kp_status kp_tokens_check_tokenizer(const kp_tokens *tokens, const kp_tokenizer *tokenizer, kp_error *error);

/* Fails with the file and position of the stream's token `offset`, which is not below `vocabulary`. */
kp_status kp_tokens_fail_range(const kp_tokens *tokens, int64_t offset, int32_t vocabulary, kp_error *error);

#endif
