/* Labelled texts in memory, as they stand in a user's files: sentences with a class, or words with a tag
 * each.
 *
 *   table      one example a line, columns between tabs: GLUE's files.  Nothing is quoted; a quotation mark
 * is a character like others. lines      one JSON object a line columns    one word a line, its tag in the
 * last column, a blank line between sentences: CoNLL's files. Columns stand between tabs, or between spaces
 * in lines without tabs.
 *
 * Files are UTF-8; a byte order mark at the front and carriage returns at line ends are dropped.  Whatever
 * else is wrong is an error that names file and line.
 *
 * Memory: the texts own the files' bytes, and every piece points into them. */
#ifndef KAPPA_DATA_LABELLED_TEXT_H
#define KAPPA_DATA_LABELLED_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "data/label_set.h"
#include "data/task.h"

typedef enum kp_labelled_layout { KP_LAYOUT_TABLE, KP_LAYOUT_LINES, KP_LAYOUT_COLUMNS } kp_labelled_layout;

/* Where sentences and labels stand.  A name is that of a table's column or of an object's field, a number
 * (from 1) that of a column.  Nothing said means the usual names: label or gold_label; sentence, text,
 * sentence1 and sentence2, premise and hypothesis, question1 and question2, question and sentence. */
typedef struct kp_labelled_format {
  kp_labelled_layout layout;
  const char *text, *second, *label; /* NULL: the usual; without `second` a named text stands alone */
  bool header;                       /* of a table: skip a first line although all columns are numbers */
} kp_labelled_format;

/* A sentence, or a word with its tag. */
typedef struct kp_labelled_piece {
  const char *text;
  size_t size;
  int32_t label; /* of a word; -1 for a sentence */
} kp_labelled_piece;

typedef struct kp_labelled_example {
  size_t first, count; /* pieces: one or two sentences, or the words */
  int32_t label;       /* of the sentences; -1 for words */
  size_t line;         /* where it begins, from 1 */
  const char *path;
} kp_labelled_example;

typedef struct kp_labelled_texts {
  kp_task task;
  kp_label_set *labels; /* not owned: the texts for training and those for validation share one */
  kp_labelled_piece *pieces;
  size_t piece_count, piece_capacity;
  kp_labelled_example *examples;
  size_t example_count, example_capacity;
  char **buffers; /* the files' bytes, and their paths */
  size_t buffer_count;
} kp_labelled_texts;

/* An empty collection: set task and labels, leave the rest zero.  Frees everything but the labels. */
void kp_labelled_texts_clear(kp_labelled_texts *texts);

/* The layout that a task and a file's name suggest: .jsonl, .ndjson and .json are lines, compressed or not.
 */
kp_labelled_layout kp_labelled_layout_of(kp_task task, const char *path);

/* Adds the examples of a file, which may be compressed (data/byte_source.h).  A file without any is an error.
 */
kp_status kp_labelled_texts_read(kp_labelled_texts *texts, const kp_labelled_format *format, const char *path,
                                 kp_error *error);

/* Same for bytes in memory, `size` of them and a zero, which the texts take over (malloc) in either case. */
kp_status kp_labelled_texts_parse(kp_labelled_texts *texts, const kp_labelled_format *format,
                                  const char *path, char *data, size_t size, kp_error *error);

/* ---- for the readers of the layouts ---- */

/* A line of a file, without its end. */
typedef struct kp_labelled_line {
  char *text;
  size_t size, number;
} kp_labelled_line;

/* The next line from *at on, which moves behind it; false at the end of the text. */
bool kp_labelled_next_line(char **at, const char *end, kp_labelled_line *line);

kp_status kp_labelled_add_piece(kp_labelled_texts *texts, const char *text, size_t size, int32_t label,
                                kp_error *error);

/* Closes an example of all pieces since the last one. */
kp_status kp_labelled_add_example(kp_labelled_texts *texts, int32_t label, size_t line, const char *path,
                                  kp_error *error);

/* What an example of sentences is made of; `second` may be NULL. */
kp_status kp_labelled_add_sentences(kp_labelled_texts *texts, const char *const text[2], const size_t size[2],
                                    const char *label, size_t label_size, const kp_labelled_line *line,
                                    const char *path, kp_error *error);

/* The names under which an example's parts are found, given what there is. */
typedef struct kp_labelled_names {
  const char *text, *second, *label; /* second may be NULL */
} kp_labelled_names;

/* `has` says whether there is a column or field of that name. */
kp_status kp_labelled_find_names(const kp_labelled_format *format,
                                 bool (*has)(const void *context, const char *name), const void *context,
                                 kp_labelled_names *names, kp_error *error);

kp_status kp_labelled_parse_table(kp_labelled_texts *texts, const kp_labelled_format *format,
                                  const char *path, char *data, size_t size, kp_error *error);
kp_status kp_labelled_parse_lines(kp_labelled_texts *texts, const kp_labelled_format *format,
                                  const char *path, char *data, size_t size, kp_error *error);
kp_status kp_labelled_parse_columns(kp_labelled_texts *texts, const char *path, char *data, size_t size,
                                    kp_error *error);

#endif
