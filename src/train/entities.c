/* Entities in tags of words, by the rules of conlleval: lenient about where an entity begins (I- after O
 * does), strict about what it is. */
#include <string.h>

#include "train/scores.h"

typedef struct tag {
  char place; /* B, I, E, S or O */
  const char *type;
} tag;

static bool is_marked(const char *name) {
  return name[0] != 0 && strchr("BIES", name[0]) != NULL && name[1] == '-' && name[2] != 0;
}

static tag tag_of(const kp_label_set *labels, int32_t label) {
  const char *name = label < 0 ? "O" : labels->names[label];
  return is_marked(name) ? (tag){name[0], name + 2} : (tag){'O', ""};
}

bool kp_labels_mark_entities(const kp_label_set *labels) {
  bool marked = false;
  for (int32_t i = 0; i < labels->count; i++) {
    if (is_marked(labels->names[i]))
      marked = true;
    else if (strcmp(labels->names[i], "O") != 0)
      return false;
  }
  return marked;
}

/* Whether an entity that reaches to `before` ends there. */
static bool ends(tag before, tag now) {
  if (before.place == 'O') return false;
  if (before.place == 'E' || before.place == 'S') return true;
  return now.place == 'B' || now.place == 'S' || now.place == 'O' || strcmp(before.type, now.type) != 0;
}

/* Whether an entity begins at `now`. */
static bool begins(tag before, tag now) {
  if (now.place == 'O') return false;
  if (now.place == 'B' || now.place == 'S') return true;
  return before.place == 'O' || before.place == 'E' || before.place == 'S' ||
         strcmp(before.type, now.type) != 0;
}

bool kp_next_entity(const kp_label_set *labels, const int32_t *tags, int64_t count, int64_t *at,
                    kp_entity *entity) {
  const tag outside = {'O', ""};
  int64_t i = *at;
  tag before = i > 0 ? tag_of(labels, tags[i - 1]) : outside;
  for (; i < count; i++) {
    const tag now = tag_of(labels, tags[i]);
    if (begins(before, now)) break;
    before = now;
  }
  *at = i;
  if (i >= count) return false;
  *entity = (kp_entity){.first = i, .type = tag_of(labels, tags[i]).type};
  while (!ends(tag_of(labels, tags[i]), i + 1 < count ? tag_of(labels, tags[i + 1]) : outside)) i++;
  entity->last = i;
  *at = i + 1;
  return true;
}
