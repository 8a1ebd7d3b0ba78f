#include "data/batch_reader.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 2 };

/* A batch that the thread fills, then the user has. */
typedef struct slot {
  kp_document_batch batch;
  bool full, last;
  kp_status status;
  kp_error error;
} slot;

struct kp_batch_reader {
  kp_document_feed *feed;
  pthread_t thread;
  pthread_mutex_t mutex; /* guards `full` of the slots and `stopped` */
  pthread_cond_t changed;
  slot slots[SLOTS];
  int next; /* the slot that the user gets next; the one before it may be in use */
  bool in_use, ended, stopped;
};

/* Waits until the slot is full, or empty; false when the user has stopped. */
static bool wait_for(kp_batch_reader *reader, const slot *one, bool full) {
  pthread_mutex_lock(&reader->mutex);
  while (one->full != full && !reader->stopped) pthread_cond_wait(&reader->changed, &reader->mutex);
  const bool stopped = reader->stopped;
  pthread_mutex_unlock(&reader->mutex);
  return !stopped;
}

static void set_full(kp_batch_reader *reader, slot *one, bool full) {
  pthread_mutex_lock(&reader->mutex);
  one->full = full;
  pthread_cond_signal(&reader->changed);
  pthread_mutex_unlock(&reader->mutex);
}

static void *read_ahead(void *context) {
  kp_batch_reader *reader = context;
  for (int at = 0;; at = (at + 1) % SLOTS) {
    slot *one = &reader->slots[at];
    bool more = false;
    if (!wait_for(reader, one, false)) return NULL;
    one->status = kp_document_batch_fill(&one->batch, reader->feed, &more, &one->error);
    one->last = !more || one->status != KP_OK;
    const bool last = one->last;
    set_full(reader, one, true);
    if (last) return NULL;
  }
}

kp_status kp_batch_reader_create(kp_document_feed *feed, kp_batch_reader **reader, kp_error *error) {
  kp_batch_reader *made = calloc(1, sizeof *made);
  *reader = NULL;
  if (made == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to read documents");
  made->feed = feed;
  pthread_mutex_init(&made->mutex, NULL);
  pthread_cond_init(&made->changed, NULL);
  if (pthread_create(&made->thread, NULL, read_ahead, made) != 0) {
    pthread_mutex_destroy(&made->mutex);
    pthread_cond_destroy(&made->changed);
    free(made);
    return kp_fail(error, KP_ERR_MEMORY, "cannot start a thread to read documents");
  }
  *reader = made;
  return KP_OK;
}

kp_status kp_batch_reader_next(kp_batch_reader *reader, const kp_document_batch **batch, kp_error *error) {
  *batch = NULL;
  if (reader->in_use) set_full(reader, &reader->slots[(reader->next + SLOTS - 1) % SLOTS], false);
  reader->in_use = false;
  if (reader->ended) return KP_OK;
  slot *one = &reader->slots[reader->next];
  wait_for(reader, one, true);
  if (one->status != KP_OK) {
    reader->ended = true;
    if (error != NULL) *error = one->error;
    return one->status;
  }
  reader->ended = one->last;
  reader->in_use = true;
  reader->next = (reader->next + 1) % SLOTS;
  *batch = &one->batch;
  return KP_OK;
}

void kp_batch_reader_destroy(kp_batch_reader *reader) {
  if (reader == NULL) return;
  pthread_mutex_lock(&reader->mutex);
  reader->stopped = true;
  pthread_cond_signal(&reader->changed);
  pthread_mutex_unlock(&reader->mutex);
  pthread_join(reader->thread, NULL);
  for (int i = 0; i < SLOTS; i++) kp_document_batch_clear(&reader->slots[i].batch);
  pthread_mutex_destroy(&reader->mutex);
  pthread_cond_destroy(&reader->changed);
  free(reader);
}
