/* Checkpoints of llm.c, in and out. */
#include "support/check_fails.h"
#include "support/temporary.h"
#include "backend/cpu/cpu.h"
#include "core/file.h"
#include "core/half.h"
#include "infer/logits.h"
#include "interchange/llmc.h"

#include <stdio.h>
#include <stdlib.h>

#define DATA KP_TEST_DIRECTORY "/interchange/data/"

static const kp_llmc_shape tiny = {
    .dtype = KP_F32, .context = 3, .vocabulary = 5, .layers = 2, .heads = 2, .width = 4, .padded = 8};
/* 8·4 + 3·4 + 2 (4 + 4 + 48 + 12 + 16 + 4 + 4 + 4 + 64 + 16 + 64 + 4) + 4 + 4 */
enum { TINY_COUNT = 540 };

/* A file whose number at place i is i. */
static unsigned char *counting_file(const kp_llmc_shape *shape, size_t *size) {
  const size_t width = kp_dtype_size(shape->dtype), head = KP_LLMC_HEADER * sizeof(int32_t);
  *size = head + (size_t)kp_llmc_count(shape) * width;
  unsigned char *bytes = calloc(1, *size);
  assert_non_null(bytes);
  int32_t header[KP_LLMC_HEADER];
  kp_llmc_write_header(shape, header);
  memcpy(bytes, header, sizeof header);
  for (int64_t i = 0; i < kp_llmc_count(shape); i++) {
    const float number = (float)i;
    const uint16_t half = kp_bf16_from_float(number);
    memcpy(bytes + head + (size_t)i * width, width == 4 ? (const void *)&number : &half, width);
  }
  return bytes;
}

static void test_places(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int64_t first, count;
  } cases[] = {
      {"transformer.wte.weight", 0, 32},
      {"transformer.wpe.weight", 32, 12},
      {"transformer.h.0.ln_1.weight", 44, 4},
      {"transformer.h.1.ln_1.weight", 48, 4},
      {"transformer.h.0.ln_1.bias", 52, 4},
      {"transformer.h.0.attn.c_attn.weight", 60, 48},
      {"transformer.h.1.attn.c_attn.weight", 108, 48},
      {"transformer.h.1.attn.c_attn.bias", 168, 12},
      {"transformer.h.0.mlp.c_fc.weight", 236, 64},
      {"transformer.h.1.mlp.c_proj.bias", 528, 4},
      {"transformer.ln_f.weight", 532, 4},
      {"transformer.ln_f.bias", 536, 4},
  };
  int64_t first, count;
  assert_int_equal(kp_llmc_count(&tiny), TINY_COUNT);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_true(kp_llmc_find(&tiny, cases[i].name, &first, &count));
    assert_int_equal(first, cases[i].first);
    assert_int_equal(count, cases[i].count);
  }
  assert_false(kp_llmc_find(&tiny, "transformer.h.2.ln_1.weight", &first, &count));
  assert_false(kp_llmc_find(&tiny, "transformer.h.0.ln_f.weight", &first, &count));
  assert_false(kp_llmc_find(&tiny, "transformer.ln_1.weight", &first, &count));
  assert_false(kp_llmc_find(&tiny, "lm_head.weight", &first, &count));
}

static void check_parameter(const kp_trained *trained, const char *name, int64_t first, bool half) {
  const int index = kp_parameters_find(trained->parameters, name);
  double values[128];
  assert_true(index >= 0 && trained->parameters->list[index].count <= 128);
  kp_parameters_read(trained->parameters, trained->parameters->values, index, values);
  for (int64_t i = 0; i < trained->parameters->list[index].count; i++) {
    const float want = (float)(first + i);
    assert_true(values[i] == (double)(half ? kp_float_from_bf16(kp_bf16_from_float(want)) : want));
  }
}

static void import_counting(void **state, kp_dtype dtype) {
  kp_error error = {0};
  kp_llmc_shape shape = tiny;
  kp_trained trained;
  size_t size;
  shape.dtype = dtype;
  unsigned char *bytes = counting_file(&shape, &size);
  const char *path = temporary_path(state, "model.bin");
  const char *run = temporary_path(state, dtype == KP_F32 ? "run" : "run16");
  temporary_write(path, bytes, size);
  free(bytes);
  check_ok(kp_import(path, &(kp_import_options){0}, run, NULL, &error), &error);
  check_ok(kp_trained_open(run, "last", kp_backend_cpu(), &trained, &error), &error);
  assert_int_equal(trained.options.vocabulary, 5);
  assert_int_equal(trained.options.context, 3);
  assert_int_equal(trained.options.activation, KP_GELU_TANH);
  check_parameter(&trained, "transformer.wte.weight", 0, dtype == KP_BF16);
  check_parameter(&trained, "transformer.wpe.weight", 32, dtype == KP_BF16);
  check_parameter(&trained, "transformer.h.1.attn.c_attn.weight", 108, dtype == KP_BF16);
  check_parameter(&trained, "transformer.h.1.mlp.c_proj.bias", 528, dtype == KP_BF16);
  kp_trained_close(&trained);
}

static void test_import(void **state) {
  import_counting(state, KP_F32);
  import_counting(state, KP_BF16);
}

/* What is written is read again, with the same logits. */
static void test_there_and_back(void **state) {
  kp_error error = {0};
  kp_export_report report;
  kp_llmc_shape shape;
  kp_file_map map;
  const char *const sets[] = {"model.activation=gelu_tanh"};
  const kp_import_options options = {.sets = sets, .set_count = 1};
  const char *runs[2] = {temporary_path(state, "first"), temporary_path(state, "second")};
  const char *path = temporary_path(state, "model.bin");
  check_ok(kp_import(DATA "original_mixed_baseline.pt", &options, runs[0], NULL, &error), &error);
  const kp_export_options f32 = {.dtype = KP_F32, .checkpoint = "last"};
  check_ok(kp_export_llmc(runs[0], &f32, path, &report, &error), &error);
  check_ok(kp_file_map_open(path, KP_EMPTY_REFUSED, &map, &error), &error);
  check_ok(kp_llmc_read_header(map.data, map.size, path, &shape, &error), &error);
  kp_file_map_close(&map);
  assert_int_equal(shape.vocabulary, 13);
  assert_int_equal(shape.padded, 128);
  check_ok(kp_import(path, &(kp_import_options){0}, runs[1], NULL, &error), &error);
  double *logits[2];
  for (int i = 0; i < 2; i++) {
    kp_trained trained;
    check_ok(kp_trained_open(runs[i], "last", kp_backend_cpu(), &trained, &error), &error);
    check_ok(kp_logits(&trained, (const int32_t[]){1, 5, 12, 0}, 4, 1, &logits[i], &error), &error);
    kp_trained_close(&trained);
  }
  assert_memory_equal(logits[0], logits[1], 4 * 13 * sizeof(double));
  free(logits[0]);
  free(logits[1]);
  check_fails(kp_export_llmc(runs[0], &f32, path, &report, &error), &error, KP_ERR_INPUT, "is there already");
}

static void test_exports_that_are_refused(void **state) {
  kp_error error = {0};
  kp_export_report report;
  const char *run = temporary_path(state, "run"), *curved = temporary_path(state, "curved");
  const char *path = temporary_path(state, "model.bin");
  const kp_export_options f32 = {.dtype = KP_F32, .checkpoint = "last"};
  const kp_export_options f16 = {.dtype = KP_F16, .checkpoint = "last"};
  const char *const sets[] = {"model.activation=gelu_tanh"};
  check_ok(kp_import(DATA "original_mixed_random_perhead.pt", &(kp_import_options){0}, curved, NULL, &error),
           &error);
  check_fails(kp_export_llmc(curved, &f32, path, &report, &error), &error, KP_ERR_INPUT, "model.family: gpt");
  check_ok(kp_import(DATA "original_mixed_baseline.pt", &(kp_import_options){0}, run, NULL, &error), &error);
  check_fails(kp_export_llmc(run, &f32, path, &report, &error), &error, KP_ERR_INPUT,
              "model.activation: gelu_tanh");
  const char *good = temporary_path(state, "good");
  check_ok(kp_import(DATA "original_mixed_baseline.pt", &(kp_import_options){.sets = sets, .set_count = 1},
                     good, NULL, &error),
           &error);
  check_fails(kp_export_llmc(good, &f16, path, &report, &error), &error, KP_ERR_INPUT, "not of F16");
  assert_int_equal(kp_path_kind_of(path), KP_PATH_MISSING);
}

static void test_damaged_headers(void **state) {
  static const struct {
    int place;
    int32_t value;
    const char *words;
    kp_status status;
  } cases[] = {
      {0, 20240520, "does not begin like a GPT-2 of llm.c", KP_ERR_INPUT},
      {0, 20240803, "does not begin like a GPT-2 of llm.c", KP_ERR_INPUT},
      {1, 1, "of version 1", KP_ERR_UNSUPPORTED},
      {1, 5, "its header promises", KP_ERR_INPUT},
      {2, 0, "says 0 for its context", KP_ERR_INPUT},
      {3, 9, "a vocabulary of 9 padded to 8", KP_ERR_INPUT},
      {4, -1, "says -1 for its layers", KP_ERR_INPUT},
      {4, 512, "its header promises", KP_ERR_INPUT},
      {5, 3, "a width of 4 for 3 heads", KP_ERR_INPUT},
      {6, 2147483647, "says 2147483647 for its width", KP_ERR_INPUT},
      {7, 2147483647, "for its padded vocabulary", KP_ERR_INPUT},
  };
  kp_error error = {0};
  kp_llmc_shape shape;
  size_t size;
  (void)state;
  unsigned char *bytes = counting_file(&tiny, &size);
  check_ok(kp_llmc_read_header(bytes, size, "x.bin", &shape, &error), &error);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    unsigned char *copy = malloc(size);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    memcpy(copy + 4 * cases[i].place, &cases[i].value, 4);
    check_fails(kp_llmc_read_header(copy, size, "x.bin", &shape, &error), &error, cases[i].status,
                cases[i].words);
    free(copy);
  }
  check_fails(kp_llmc_read_header(bytes, size - 1, "x.bin", &shape, &error), &error, KP_ERR_INPUT,
              "its header promises");
  check_fails(kp_llmc_read_header(bytes, 1023, "x.bin", &shape, &error), &error, KP_ERR_INPUT, "too few");
  free(bytes);
}

static void test_other_sizes(void **state) {
  kp_error error = {0};
  size_t size;
  unsigned char *bytes = counting_file(&tiny, &size);
  const char *path = temporary_path(state, "model.bin"), *run = temporary_path(state, "run");
  temporary_write(path, bytes, size);
  free(bytes);
  const char *const layers[] = {"model.layers=1"}, *const width[] = {"model.width=8"};
  const char *const shorter[] = {"model.context=2"};
  check_fails(kp_import(path, &(kp_import_options){.sets = layers, .set_count = 1}, run, NULL, &error),
              &error, KP_ERR_INPUT, "the file has 2");
  check_fails(kp_import(path, &(kp_import_options){.sets = width, .set_count = 1}, run, NULL, &error), &error,
              KP_ERR_INPUT, "numbers for transformer.");
  check_ok(kp_import(path, &(kp_import_options){.sets = shorter, .set_count = 1}, run, NULL, &error), &error);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_places),
      cmocka_unit_test_setup_teardown(test_import, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_there_and_back, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_exports_that_are_refused, temporary_create, temporary_remove),
      cmocka_unit_test(test_damaged_headers),
      cmocka_unit_test_setup_teardown(test_other_sizes, temporary_create, temporary_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
