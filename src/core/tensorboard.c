#include "core/tensorboard.h"
#include "core/assert.h"
#include "core/file.h"
#include "core/path.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HEAD_SIZE = 12, TAIL_SIZE = 4, MAXIMUM_TAG = 256, MESSAGE_SIZE = 512, SESSION_START = 1 };

/* Field numbers of Event, Summary, Summary.Value and SessionLog, as protobuf keys (number << 3 | wire type).
 */
enum {
  EVENT_WALL_TIME = 1 << 3 | 1,
  EVENT_STEP = 2 << 3 | 0,
  EVENT_FILE_VERSION = 3 << 3 | 2,
  EVENT_SUMMARY = 5 << 3 | 2,
  EVENT_SESSION_LOG = 7 << 3 | 2,
  SUMMARY_VALUE = 1 << 3 | 2,
  VALUE_TAG = 1 << 3 | 2,
  VALUE_SIMPLE = 2 << 3 | 5,
  SESSION_STATUS = 1 << 3 | 0,
};

struct kp_tensorboard {
  char path[KP_PATH_SIZE];
};

/* A message while it is built; the callers' bounds keep it below its size. */
typedef struct message {
  unsigned char bytes[MESSAGE_SIZE];
  size_t size;
} message;

static void put_bytes(message *m, const void *data, size_t size) {
  kp_assert(size <= sizeof m->bytes - m->size, "a message of %zu bytes", m->size + size);
  memcpy(m->bytes + m->size, data, size);
  m->size += size;
}

static void put_varint(message *m, uint64_t value) {
  for (; value >= 128; value >>= 7) put_bytes(m, &(unsigned char){(unsigned char)(value | 128)}, 1);
  put_bytes(m, &(unsigned char){(unsigned char)value}, 1);
}

static void put_block(message *m, uint64_t key, const void *data, size_t size) {
  put_varint(m, key);
  put_varint(m, size);
  put_bytes(m, data, size);
}

/* CRC-32C (Castagnoli), one bit at a time: the records are some 50 bytes. */
static uint32_t crc32c(const unsigned char *data, size_t size) {
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < size; i++) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
  }
  return ~crc;
}

/* The rotation and constant of the TFRecord format. */
static uint32_t masked_crc(const unsigned char *data, size_t size) {
  uint32_t crc = crc32c(data, size);
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static message start_event(int64_t step) {
  message event = {.size = 0};
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  double wall_time = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
  put_varint(&event, EVENT_WALL_TIME);
  put_bytes(&event, &wall_time, sizeof wall_time);
  put_varint(&event, EVENT_STEP);
  put_varint(&event, (uint64_t)step);
  return event;
}

static kp_status append_record(const kp_tensorboard *board, const message *event, kp_error *error) {
  unsigned char record[HEAD_SIZE + MESSAGE_SIZE + TAIL_SIZE];
  uint64_t length = event->size;
  memcpy(record, &length, sizeof length);
  uint32_t crc = masked_crc(record, sizeof length);
  memcpy(record + sizeof length, &crc, sizeof crc);
  memcpy(record + HEAD_SIZE, event->bytes, event->size);
  crc = masked_crc(event->bytes, event->size);
  memcpy(record + HEAD_SIZE + event->size, &crc, sizeof crc);
  return kp_file_append(board->path, record, HEAD_SIZE + event->size + TAIL_SIZE, error);
}

static kp_status write_version(const kp_tensorboard *board, kp_error *error) {
  static const char version[] = "brain.Event:2";
  message event = start_event(0);
  put_block(&event, EVENT_FILE_VERSION, version, sizeof version - 1);
  return append_record(board, &event, error);
}

static kp_status write_session_start(const kp_tensorboard *board, int64_t first_step, kp_error *error) {
  message event = start_event(first_step), log = {.size = 0};
  put_varint(&log, SESSION_STATUS);
  put_varint(&log, SESSION_START);
  put_block(&event, EVENT_SESSION_LOG, log.bytes, log.size);
  return append_record(board, &event, error);
}

/* Bytes of the record at `data`, or 0 when it is torn or damaged. */
static size_t record_size(const unsigned char *data, size_t available) {
  if (available < HEAD_SIZE + TAIL_SIZE) return 0;
  uint64_t length;
  uint32_t crc;
  memcpy(&length, data, sizeof length);
  memcpy(&crc, data + sizeof length, sizeof crc);
  if (crc != masked_crc(data, sizeof length) || length > available - HEAD_SIZE - TAIL_SIZE) return 0;
  memcpy(&crc, data + HEAD_SIZE + length, sizeof crc);
  return crc == masked_crc(data + HEAD_SIZE, (size_t)length) ? HEAD_SIZE + (size_t)length + TAIL_SIZE : 0;
}

/* Readers stop at the first record that is damaged, so what follows one is
 * lost to them already and is cut off.  *kept gets the bytes that stay. */
static kp_status repair(const kp_tensorboard *board, size_t *kept, kp_error *error) {
  kp_file_map map;
  KP_TRY(kp_file_map_open(board->path, KP_EMPTY_ALLOWED, &map, error));
  size_t size = map.size, whole = 0;
  for (size_t next; whole < size && (next = record_size(map.data + whole, size - whole)) > 0;) whole += next;
  kp_file_map_close(&map);
  *kept = whole;
  if (whole == size) return KP_OK;
  if (whole == 0)
    return kp_fail(error, KP_ERR_INPUT, "'%s' is not a TensorBoard event file; move it away", board->path);
  return kp_file_truncate(board->path, whole, error);
}

static kp_status open_in_folder(kp_tensorboard *board, const char *folder, int64_t first_step,
                                kp_error *error) {
  /* TensorBoard looks for "tfevents" in names. */
  KP_TRY(kp_path_join(board->path, folder, "events.out.tfevents.kappa", error));
  size_t kept = 0;
  if (kp_path_kind_of(board->path) != KP_PATH_MISSING) KP_TRY(repair(board, &kept, error));
  return kept == 0 ? write_version(board, error) : write_session_start(board, first_step, error);
}

kp_status kp_tensorboard_open(const char *folder, int64_t first_step, kp_tensorboard **result,
                              kp_error *error) {
  kp_assert(first_step >= 0, "step %lld", (long long)first_step);
  *result = NULL;
  kp_tensorboard *board = malloc(sizeof *board);
  if (board == NULL) return kp_fail(error, KP_ERR_MEMORY, "not enough memory for events in '%s'", folder);
  kp_status status = open_in_folder(board, folder, first_step, error);
  if (status == KP_OK)
    *result = board;
  else
    free(board);
  return status;
}

kp_status kp_tensorboard_scalar(kp_tensorboard *board, const char *tag, float value, int64_t step,
                                kp_error *error) {
  kp_assert(step >= 0, "step %lld", (long long)step);
  size_t tag_size = strlen(tag);
  if (tag_size > MAXIMUM_TAG)
    return kp_fail(error, KP_ERR_INPUT, "the tag '%.60s...' has more than %d characters; shorten it", tag,
                   MAXIMUM_TAG);
  message entry = {.size = 0}, summary = {.size = 0}, event = start_event(step);
  put_block(&entry, VALUE_TAG, tag, tag_size);
  put_varint(&entry, VALUE_SIMPLE);
  put_bytes(&entry, &value, sizeof value);
  put_block(&summary, SUMMARY_VALUE, entry.bytes, entry.size);
  put_block(&event, EVENT_SUMMARY, summary.bytes, summary.size);
  return append_record(board, &event, error);
}

void kp_tensorboard_close(kp_tensorboard *board) {
  free(board);
}
