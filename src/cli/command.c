#include "cli/command.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cuda/cuda.h"
#include "core/assert.h"
#include "core/json_text.h"
#include "ops/ops.h"
#include "train/settings.h"

int kp_print_error(const kp_error *error) {
  fflush(stdout);
  fprintf(stderr, "kappa: %s\n", error->message);
  return KP_EXIT_FAILED;
}

static void print_json(json_t *json, size_t digits) {
  json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
  putchar('\n');
  json_decref(json);
}

void kp_print_json(json_t *json) {
  print_json(json, KP_JSON_FLOAT_DIGITS);
}

void kp_print_json_doubles(json_t *json) {
  print_json(json, KP_JSON_DOUBLE_DIGITS);
}

void kp_print_unused_keys(const kp_config *config) {
  const char *keys[32];
  const size_t count = kp_training_unused_keys(config, keys, 32);
  for (size_t i = 0; i < count; i++)
    fprintf(stderr, "kappa: note: %s has no effect with the other keys as they are\n", keys[i]);
}

void kp_parse(const struct argp *argp, int argc, char **argv, void *input) {
  argp_err_exit_status = KP_EXIT_USAGE;
  argp_parse(argp, argc, argv, 0, NULL, input);
}

long long kp_parse_integer(const char *text, const char *option, long long minimum,
                           struct argp_state *state) {
  char *end;
  errno = 0;
  long long value = strtoll(text, &end, 10);
  if (end == text || *end != 0 || value < minimum || errno == ERANGE)
    argp_error(state, "%s takes a whole number from %lld on, not '%s'", option, minimum, text);
  return value;
}

error_t kp_parse_one(const char **argument, const char *value, const char *what, struct argp_state *state) {
  if (*argument != NULL) argp_error(state, "one %s, not also '%s'", what, value);
  *argument = value;
  return 0;
}

int kp_parse_threads(const char *text, struct argp_state *state) {
  enum { MAXIMUM = 4096 };
  const long long threads = kp_parse_integer(text, "--threads", 1, state);
  if (threads > MAXIMUM) argp_error(state, "--threads takes at most %d, not %s", MAXIMUM, text);
  return (int)threads;
}

double kp_parse_real(const char *text, const char *option, double minimum, double maximum,
                     struct argp_state *state) {
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end != 0 || !(value >= minimum && value <= maximum))
    argp_error(state, "%s takes a number from %g to %g, not '%s'", option, minimum, maximum, text);
  return value;
}

/* "cuda", "cuda:1", "cuda:float32", "cuda:1:float32". */
static const kp_backend *parse_cuda(const char *name, struct argp_state *state) {
  const char *rest = name + strlen("cuda");
  kp_cuda_precision precision = KP_CUDA_BFLOAT16;
  const kp_backend *backend;
  kp_error error = {0};
  long index = 0;
  if (rest[0] == ':' && isdigit((unsigned char)rest[1])) {
    char *end;
    index = strtol(rest + 1, &end, 10);
    rest = end;
  }
  if (strcmp(rest, ":float32") == 0)
    precision = KP_CUDA_FLOAT32;
  else if (rest[0] != 0 && strcmp(rest, ":bfloat16") != 0)
    argp_error(state, "--device cuda is cuda[:NUMBER][:bfloat16|:float32], not '%s'", name);
  if (kp_backend_cuda_open((int)index, precision, &backend, &error) == KP_OK)
    return backend; /* open until the program ends */
  argp_failure(state, 1, 0, "%s", error.message);
  return NULL;
}

const kp_backend *kp_parse_backend(const char *name, struct argp_state *state) {
  if (strcmp(name, "cpu") == 0) return kp_backend_cpu();
  if (strcmp(name, "ref") == 0) return kp_backend_ref();
  if (strcmp(name, "auto") == 0)
    return kp_cuda_device_count() > 0 ? parse_cuda("cuda", state) : kp_backend_cpu();
  if (strncmp(name, "cuda", strlen("cuda")) != 0)
    argp_error(state, "--device is cpu, cuda, auto or ref, not '%s'", name);
  return parse_cuda(name, state);
}

void kp_texts_add(kp_texts *texts, const char *text) {
  texts->list = realloc(texts->list, (texts->count + 1) * sizeof *texts->list);
  kp_assert(texts->list != NULL, "out of memory");
  texts->list[texts->count++] = text;
}

void kp_texts_clear(kp_texts *texts) {
  free(texts->list);
  *texts = (kp_texts){0};
}

volatile sig_atomic_t kp_stop_requested;

static void request_stop(int number) {
  if (kp_stop_requested) _Exit(128 + number);
  kp_stop_requested = 1;
}

void kp_catch_stop(void) {
  struct sigaction action = {.sa_handler = request_stop};
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

const char *kp_bytes_text(double bytes, char text[32]) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; bytes >= 1024 && unit < 4; unit++) bytes /= 1024;
  snprintf(text, 32, bytes < 10 && unit > 0 ? "%.2f %s" : "%.0f %s", bytes, units[unit]);
  return text;
}

const char *kp_duration_text(double seconds, char text[32]) {
  if (!(seconds >= 0))
    snprintf(text, 32, "?");
  else if (seconds < 60)
    snprintf(text, 32, "%.0f s", seconds);
  else if (seconds < 3600)
    snprintf(text, 32, "%d min %02d s", (int)(seconds / 60), (int)fmod(seconds, 60));
  else
    snprintf(text, 32, "%d h %02d min", (int)(seconds / 3600), (int)(fmod(seconds, 3600) / 60));
  return text;
}
