/* Decodes the event files with a reader of its own: table-driven CRC, generic
 * protobuf fields. */
#include "support/check_fails.h"
#include "support/temporary.h"
#include "core/file.h"
#include "core/tensorboard.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static const char file_name[] = "events.out.tfevents.kappa";

typedef struct event {
  double wall_time;
  int64_t step;
  char version[32];
  char tag[300];
  float value;
  bool has_value;
  int session_status;
} event;

typedef struct reader {
  const unsigned char *data, *end;
} reader;

static uint32_t crc32c(const unsigned char *data, size_t size) {
  uint32_t table[256];
  for (uint32_t i = 0; i < 256; i++) {
    table[i] = i;
    for (int bit = 0; bit < 8; bit++) table[i] = table[i] & 1 ? table[i] >> 1 ^ 0x82f63b78u : table[i] >> 1;
  }
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < size; i++) crc = crc >> 8 ^ table[(crc ^ data[i]) & 255];
  return crc ^ 0xffffffffu;
}

static void check_crc(const unsigned char *data, size_t size, const unsigned char *stored) {
  uint32_t masked;
  memcpy(&masked, stored, sizeof masked);
  uint32_t rotated = masked - 0xa282ead8u;
  assert_int_equal(rotated >> 17 | rotated << 15, crc32c(data, size));
}

static uint64_t take_varint(reader *r) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    assert_true(r->data < r->end && shift < 64);
    unsigned char byte = *r->data++;
    value |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return value;
  }
}

static reader take_block(reader *r) {
  uint64_t size = take_varint(r);
  assert_true(size <= (uint64_t)(r->end - r->data));
  reader block = {r->data, r->data + size};
  r->data += size;
  return block;
}

static void take_fixed(reader *r, void *out, size_t size) {
  assert_true(size <= (size_t)(r->end - r->data));
  memcpy(out, r->data, size);
  r->data += size;
}

static void copy_text(reader block, char *out, size_t size) {
  size_t length = (size_t)(block.end - block.data);
  assert_true(length < size);
  memcpy(out, block.data, length);
  out[length] = 0;
}

static void decode_value(reader value, event *e) {
  while (value.data < value.end) {
    uint64_t key = take_varint(&value);
    if (key == 10) { /* tag */
      copy_text(take_block(&value), e->tag, sizeof e->tag);
    } else {
      assert_int_equal(key, 21); /* simple_value */
      take_fixed(&value, &e->value, sizeof e->value);
      e->has_value = true;
    }
  }
}

static event decode_event(reader r) {
  event e = {.step = 0};
  while (r.data < r.end) {
    uint64_t key = take_varint(&r);
    reader block;
    switch (key) {
    case 9: take_fixed(&r, &e.wall_time, sizeof e.wall_time); break;
    case 16: e.step = (int64_t)take_varint(&r); break;
    case 26: copy_text(take_block(&r), e.version, sizeof e.version); break;
    case 42:
      block = take_block(&r);
      assert_int_equal(take_varint(&block), 10);
      decode_value(take_block(&block), &e);
      assert_ptr_equal(block.data, block.end);
      break;
    case 58:
      block = take_block(&r);
      assert_int_equal(take_varint(&block), 8);
      e.session_status = (int)take_varint(&block);
      break;
    default: fail_msg("key %d", (int)key);
    }
  }
  return e;
}

static size_t decode_file(const char *path, event *events, size_t maximum) {
  kp_error error = {0};
  kp_file_map map;
  check_ok(kp_file_map_open(path, KP_EMPTY_REFUSED, &map, &error), &error);
  size_t count = 0;
  for (size_t place = 0; place < map.size; count++) {
    assert_true(count < maximum && map.size - place >= 16);
    const unsigned char *record = map.data + place;
    uint64_t length;
    memcpy(&length, record, sizeof length);
    check_crc(record, sizeof length, record + 8);
    assert_true(length <= map.size - place - 16);
    check_crc(record + 12, (size_t)length, record + 12 + length);
    events[count] = decode_event((reader){record + 12, record + 12 + length});
    place += 16 + (size_t)length;
  }
  kp_file_map_close(&map);
  return count;
}

static void write_scalars(const char *folder, int64_t first_step, int64_t last_step) {
  kp_error error = {0};
  kp_tensorboard *board = NULL;
  check_ok(kp_tensorboard_open(folder, first_step, &board, &error), &error);
  for (int64_t step = first_step; step <= last_step; step++)
    check_ok(kp_tensorboard_scalar(board, "train/loss", 10.0f / (float)(step + 1), step, &error), &error);
  kp_tensorboard_close(board);
}

static void test_crc_of_the_standard(void **state) {
  (void)state;
  assert_int_equal(crc32c((const unsigned char *)"123456789", 9), 0xe3069283u);
}

static void test_events_are_decoded(void **state) {
  const char *path = temporary_path(state, file_name);
  write_scalars(temporary_path(state, ""), 127, 129);
  event events[8];
  assert_int_equal(decode_file(path, events, 8), 4);
  assert_string_equal(events[0].version, "brain.Event:2");
  assert_true(events[0].wall_time > 1.6e9);
  for (int i = 1; i < 4; i++) {
    assert_int_equal(events[i].step, 126 + i);
    assert_string_equal(events[i].tag, "train/loss");
    assert_true(events[i].has_value);
    assert_true(events[i].value == 10.0f / (float)(127 + i));
    assert_true(events[i].wall_time >= events[i - 1].wall_time);
  }
}

static void test_a_file_is_continued(void **state) {
  const char *path = temporary_path(state, file_name);
  write_scalars(temporary_path(state, ""), 0, 2);
  write_scalars(temporary_path(state, ""), 2, 3);
  event events[8];
  assert_int_equal(decode_file(path, events, 8), 7);
  assert_int_equal(events[4].session_status, 1);
  assert_int_equal(events[4].step, 2);
  assert_int_equal(events[5].step, 2);
  assert_int_equal(events[6].step, 3);
}

/* Wherever the file is cut, the whole records before the cut stay and new ones can be read behind them. */
static void test_torn_records_are_cut_off(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, file_name), *folder = temporary_path(state, "");
  write_scalars(folder, 0, 1);
  char *whole = NULL;
  size_t size = 0;
  check_ok(kp_file_read_all(path, 4096, &whole, &size, &error), &error);
  event events[8];
  assert_int_equal(decode_file(path, events, 8), 3);
  size_t record = (size - 42) / 2;
  for (size_t cut = size - record + 1; cut < size; cut++) {
    temporary_write(path, whole, cut);
    write_scalars(folder, 1, 1);
    assert_int_equal(decode_file(path, events, 8), 4);
    assert_int_equal(events[1].step, 0);
    assert_int_equal(events[2].session_status, 1);
    assert_int_equal(events[3].step, 1);
  }
  whole[size - 10] ^= 1;
  temporary_write(path, whole, size);
  write_scalars(folder, 1, 1);
  assert_int_equal(decode_file(path, events, 8), 4);
  free(whole);
}

static void test_odd_files_and_values(void **state) {
  kp_error error = {0};
  kp_tensorboard *board = NULL;
  const char *path = temporary_path(state, file_name), *folder = temporary_path(state, "");
  const char text[] = "this is not an event file at all, whatever its name";
  temporary_write(path, text, sizeof text);
  check_fails(kp_tensorboard_open(folder, 0, &board, &error), &error, KP_ERR_INPUT,
              "not a TensorBoard event file");
  check_fails(kp_tensorboard_open(temporary_path(state, "none"), 0, &board, &error), &error, KP_ERR_IO,
              "none");
  assert_null(board);
  temporary_write(path, "", 0);
  check_ok(kp_tensorboard_open(folder, 0, &board, &error), &error);
  check_ok(kp_tensorboard_scalar(board, "loss", NAN, INT64_MAX, &error), &error);
  char tag[258];
  memset(tag, 't', sizeof tag);
  tag[257] = 0;
  check_fails(kp_tensorboard_scalar(board, tag, 1.0f, 0, &error), &error, KP_ERR_INPUT, "256");
  tag[256] = 0;
  check_ok(kp_tensorboard_scalar(board, tag, 1.0f, 0, &error), &error);
  kp_tensorboard_close(board);
  kp_tensorboard_close(NULL);
  event events[8];
  assert_int_equal(decode_file(path, events, 8), 3);
  assert_string_equal(events[0].version, "brain.Event:2");
  assert_true(isnan(events[1].value));
  assert_true(events[1].step == INT64_MAX);
  assert_string_equal(events[2].tag, tag);
}

#define with_folder(test) cmocka_unit_test_setup_teardown(test, temporary_create, temporary_remove)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_crc_of_the_standard), with_folder(test_events_are_decoded),
      with_folder(test_a_file_is_continued),      with_folder(test_torn_records_are_cut_off),
      with_folder(test_odd_files_and_values),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
