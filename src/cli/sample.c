/* kappa sample: writes text with a trained model, or times a model of random weights. */
#include <jansson.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/limits.h"
#include "cli/command.h"
#include "core/assert.h"
#include "core/file.h"
#include "core/json_text.h"
#include "core/random.h"
#include "infer/generate.h"
#include "infer/random_model.h"

enum { LONGEST_PROMPT = 1 << 28 };

typedef struct arguments {
  const char *run, *config, *checkpoint, *prompt, *prompt_file;
  kp_texts sets;
  const kp_backend *backend;
  kp_token_sampler_options sampler;
  int64_t tokens, samples, random_prompt, batch;
  int threads;
  bool random, json;
} arguments;

enum { MIN_P = 256, PENALTY, WINDOW, SEED, CHECKPOINT, CONFIG, SET, RANDOM, RANDOM_PROMPT, BATCH };

static const struct argp_option options[] = {
    {0, 0, 0, 0, "The text:", 1},
    {"prompt", 'p', "TEXT", 0, "text to go on from (default: a line break)", 0},
    {"prompt-file", 'f', "FILE", 0, "the prompt is this file; - reads standard input", 0},
    {"tokens", 'n', "N", 0, "tokens to write (default: 500)", 0},
    {"samples", 's', "N", 0, "texts to write, each from the prompt (default: 1)", 0},
    {"checkpoint", CHECKPOINT, "WHICH", 0, "best (default), last, or a step", 0},
    {0, 0, 0, 0, "How tokens are chosen:", 2},
    {"temperature", 'T', "X", 0, "above 1 bolder, below 1 safer, 0 always the likeliest (default: 0.8)", 0},
    {"top-k", 'k', "K", 0, "among the K likeliest; 0: all (default: 200)", 0},
    {"top-p", 'P', "P", 0, "among the fewest tokens that hold this share of the probability (default: 1)", 0},
    {"min-p", MIN_P, "P", 0, "among tokens at least P times as likely as the likeliest (default: 0)", 0},
    {"repetition-penalty", PENALTY, "X", 0, "above 1: weaken what stands in the window (default: 1)", 0},
    {"repetition-window", WINDOW, "N", 0, "newest tokens that the penalty looks at (default: 64)", 0},
    {"seed", SEED, "N", 0, "of the random numbers (default: 1337)", 0},
    {0, 0, 0, 0, "The machine:", 3},
    {"threads", 't', "N", 0, "threads (default: all cores)", 0},
    {"device", 'b', "NAME", 0, KP_DEVICE_HELP, 0},
    {"backend", 0, 0, OPTION_ALIAS, 0, 0},
    {"json", 'j', 0, 0, "print one JSON object at the end instead of text", 0},
    {0, 0, 0, 0, "Without a run, to measure speed:", 4},
    {"random", RANDOM, 0, 0, "random weights and prompt: no text, only figures", 0},
    {"config", CONFIG, "FILE", 0, "configuration of the random model; needs model.vocabulary", 0},
    {"set", SET, "KEY=VALUE", 0, "override a key of the configuration; may be repeated", 0},
    {"prompt-tokens", RANDOM_PROMPT, "N", 0, "length of the random prompt (default: 16)", 0},
    {"batch", BATCH, "N", 0, "sequences decoded side by side (default: 1)", 0},
    {0},
};

static void check(const arguments *a, struct argp_state *state) {
  if (a->random != (a->config != NULL)) argp_error(state, "--random and --config go together");
  if (a->random && a->run != NULL) argp_error(state, "a run or --random, not both");
  if (!a->random && a->run == NULL) argp_error(state, "which run?");
  if (!a->random && a->sets.count > 0)
    argp_error(state, "--set is for --random: a run has its configuration");
  if (!a->random && a->batch > 1) argp_error(state, "--batch is for --random: texts are written in turn");
  if (a->prompt != NULL && a->prompt_file != NULL) argp_error(state, "--prompt or --prompt-file, not both");
}

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'p': a->prompt = value; return 0;
  case 'f': a->prompt_file = value; return 0;
  case 'n': a->tokens = kp_parse_integer(value, "--tokens", 1, state); return 0;
  case 's': a->samples = kp_parse_integer(value, "--samples", 1, state); return 0;
  case CHECKPOINT: a->checkpoint = value; return 0;
  case 'T': a->sampler.temperature = kp_parse_real(value, "--temperature", 0, 1000, state); return 0;
  case 'k': a->sampler.top_k = kp_parse_integer(value, "--top-k", 0, state); return 0;
  case 'P': a->sampler.top_p = kp_parse_real(value, "--top-p", 0, 1, state); return 0;
  case MIN_P: a->sampler.min_p = kp_parse_real(value, "--min-p", 0, 1, state); return 0;
  case PENALTY:
    a->sampler.repetition_penalty = kp_parse_real(value, "--repetition-penalty", 1, 1000, state);
    return 0;
  case WINDOW:
    a->sampler.repetition_window = kp_parse_integer(value, "--repetition-window", 0, state);
    return 0;
  case SEED: a->sampler.seed = (uint64_t)kp_parse_integer(value, "--seed", 0, state); return 0;
  case 't': a->threads = (int)kp_parse_integer(value, "--threads", 1, state); return 0;
  case 'b': a->backend = kp_parse_backend(value, state); return 0;
  case 'j': a->json = true; return 0;
  case RANDOM: a->random = true; return 0;
  case CONFIG: a->config = value; return 0;
  case SET: kp_texts_add(&a->sets, value); return 0;
  case RANDOM_PROMPT: a->random_prompt = kp_parse_integer(value, "--prompt-tokens", 1, state); return 0;
  case BATCH: a->batch = kp_parse_integer(value, "--batch", 1, state); return 0;
  case ARGP_KEY_ARG: return kp_parse_one(&a->run, value, "run", state);
  case ARGP_KEY_END: check(a, state); return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    options,
    parse,
    "RUN\n--random --config FILE",
    "Write text with a trained model, as it comes.\v"
    "The text goes to standard output, figures to standard error.  Ctrl-C ends it after the present "
    "token.\n\n"
    "Example:\n"
    "  kappa sample runs/first --prompt \"ROMEO:\" --tokens 300 --temperature 0.9\n"
    "  kappa sample --random --config configs/gpt.yaml --set model.vocabulary=50304 --json",
    0,
    0,
    0};

/* All that the samples of one call share. */
typedef struct session {
  const arguments *arguments;
  kp_trained model;
  kp_decoder *decoder;
  kp_token_sampler *sampler;
  char *text; /* of the prompt; owned */
  size_t text_size;
  int32_t *prompt; /* owned */
  int64_t prompt_length;
  json_t *samples;
} session;

/* ---- setting up ---- */

static kp_status read_text(session *s, kp_error *error) {
  const arguments *a = s->arguments;
  if (a->prompt_file != NULL) {
    const char *path = strcmp(a->prompt_file, "-") == 0 ? "/dev/stdin" : a->prompt_file;
    return kp_file_read_all(path, LONGEST_PROMPT, &s->text, &s->text_size, error);
  }
  s->text = strdup(a->prompt != NULL ? a->prompt : "\n");
  kp_assert(s->text != NULL, "out of memory");
  s->text_size = strlen(s->text);
  return KP_OK;
}

static kp_status open_run(session *s, kp_error *error) {
  const arguments *a = s->arguments;
  KP_TRY(kp_trained_open(a->run, a->checkpoint, a->backend, &s->model, error));
  if (s->model.tokenizer == NULL)
    return kp_fail(error, KP_ERR_INPUT,
                   "run %s has no tokenizer.json, so tokens cannot become text: copy the tokenizer.json of "
                   "its data into the run's folder",
                   a->run);
  if (s->model.tokenizer->vocabulary > s->model.options.vocabulary)
    return kp_fail(error, KP_ERR_INPUT,
                   "the tokenizer of run %s has %d tokens, its model only %lld: it belongs to other data",
                   a->run, s->model.tokenizer->vocabulary, (long long)s->model.options.vocabulary);
  KP_TRY(read_text(s, error));
  return kp_prompt_encode(s->model.tokenizer, s->text, s->text_size, &s->prompt, &s->prompt_length, error);
}

static kp_status open_random(session *s, kp_error *error) {
  const arguments *a = s->arguments;
  KP_TRY(kp_random_model_open(a->config, a->sets.list, a->sets.count, a->sampler.seed, a->backend, &s->model,
                              error));
  s->prompt_length = a->random_prompt;
  s->prompt = malloc((size_t)s->prompt_length * sizeof *s->prompt);
  if (s->prompt == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a prompt");
  for (int64_t i = 0; i < s->prompt_length; i++)
    s->prompt[i] = (int32_t)kp_random_below(a->sampler.seed, KP_RANDOM_GENERIC, 0, (uint64_t)i,
                                            (uint64_t)s->model.options.vocabulary);
  return KP_OK;
}

static kp_status open_session(session *s, kp_error *error) {
  const arguments *a = s->arguments;
  const kp_decoder_options decoder = {.batch = a->batch, .threads = a->threads};
  KP_TRY(a->random ? open_random(s, error) : open_run(s, error));
  const int64_t vocabulary = a->random ? s->model.options.vocabulary : s->model.tokenizer->vocabulary;
  KP_TRY(kp_token_sampler_create(&a->sampler, vocabulary, &s->sampler, error));
  return kp_decoder_create(&s->model.options, s->model.parameters, &decoder, &s->decoder, error);
}

static void close_session(session *s) {
  kp_decoder_destroy(s->decoder);
  kp_token_sampler_destroy(s->sampler);
  kp_trained_close(&s->model);
  json_decref(s->samples);
  free(s->text);
  free(s->prompt);
}

/* ---- figures ---- */

static double per_second(double count, double seconds) {
  return seconds > 0 ? count / seconds : 0;
}

/* Of the fastest step, which other programs disturbed least. */
static double bytes_per_second(const kp_generation_report *r) {
  return r->steps > 0 ? per_second(r->parameter_bytes, r->best_step) : 0;
}

static double tokens_per_second_of_all(const kp_generation_report *r) {
  return per_second((double)(r->sequences * r->steps), r->step_seconds);
}

static void print_figures(const kp_generation_report *r) {
  char size[32];
  if (r->end == KP_END_INTERRUPTED) fprintf(stderr, "stopped; ");
  fprintf(stderr, "prompt: %lld tokens, %.0f tok/s; written: %lld tokens", (long long)r->prompt_tokens,
          per_second((double)r->prompt_tokens, r->prompt_seconds), (long long)r->tokens);
  if (r->steps > 0)
    fprintf(stderr, ", %.1f tok/s, %.2f ms a token (best %.2f), %s of parameters a token: %.1f GB/s",
            per_second((double)r->steps, r->step_seconds), 1e3 * r->median_step, 1e3 * r->best_step,
            kp_bytes_text(r->parameter_bytes, size), bytes_per_second(r) / 1e9);
  if (r->sequences > 1)
    fprintf(stderr, "; %lld sequences: %.0f tok/s of all", (long long)r->sequences,
            tokens_per_second_of_all(r));
  if (r->token_bytes > 0) fprintf(stderr, "; cache: %.0f bytes a token", r->token_bytes);
  fputc('\n', stderr);
}

static json_t *report_json(const kp_generation_report *r) {
  static const char *const ends[] = {"length", "stop_token", "interrupted"};
  return json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "end",
                   ends[r->end], "sequences", (json_int_t)r->sequences, "prompt_tokens",
                   (json_int_t)r->prompt_tokens, "tokens", (json_int_t)r->tokens, "prompt_ms",
                   kp_json_number(1e3 * r->prompt_seconds), "prompt_tokens_per_s",
                   kp_json_number(per_second((double)r->prompt_tokens, r->prompt_seconds)), "token_ms",
                   kp_json_number(1e3 * r->median_step), "token_ms_best", kp_json_number(1e3 * r->best_step),
                   "tokens_per_s", kp_json_number(per_second((double)r->steps, r->step_seconds)),
                   "tokens_per_s_all", kp_json_number(tokens_per_second_of_all(r)),
                   "parameter_bytes_per_token", kp_json_number(r->parameter_bytes), "cache_bytes_per_token",
                   kp_json_number(r->cache_bytes), "cache_bytes_of_a_token", kp_json_number(r->token_bytes),
                   "parameter_gb_per_s_best", kp_json_number(bytes_per_second(r) / 1e9));
}

/* How near the fastest token of all samples came to the memory's speed, which is measured on a buffer of the
 * parameters' size. */
static kp_status compare_with_limit(const session *s, double best, int threads, json_t *json,
                                    kp_error *error) {
  const double bytes = kp_decoder_parameter_bytes(s->decoder);
  double limit;
  KP_TRY(kp_limits_read((size_t)bytes, threads, &limit, error));
  json_object_set_new(json, "read_limit_gb_per_s", kp_json_number(limit));
  json_object_set_new(json, "share_of_read_limit", kp_json_number(best / 1e9 / limit));
  if (!s->arguments->json)
    fprintf(stderr, "memory can be read at %.1f GB/s: the fastest token came to %.0f%% of it\n", limit,
            100 * best / 1e9 / limit);
  return KP_OK;
}

/* ---- samples ---- */

static bool to_standard_output(void *context, const char *text, size_t size) {
  (void)context;
  return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0;
}

/* A text that grows. */
typedef struct collected {
  char *text;
  size_t size, capacity;
} collected;

static bool collect(void *context, const char *text, size_t size) {
  collected *c = context;
  if (c->size + size > c->capacity) {
    c->capacity = 2 * (c->size + size) + 64;
    c->text = realloc(c->text, c->capacity);
    kp_assert(c->text != NULL, "out of memory for %zu bytes of text", c->capacity);
  }
  memcpy(c->text + c->size, text, size);
  c->size += size;
  return true;
}

static void before_text(const session *s, int64_t sample) {
  if (s->arguments->json || s->arguments->random) return;
  if (sample > 0) puts("---------------");
  fwrite(s->text, 1, s->text_size, stdout);
  fflush(stdout);
}

static kp_status write_sample(session *s, int64_t sample, kp_generation_report *report, kp_error *error) {
  const arguments *a = s->arguments;
  collected text = {0};
  const kp_generation generation = {.prompt = s->prompt,
                                    .prompt_length = s->prompt_length,
                                    .tokens = a->tokens,
                                    .stop_token = -1,
                                    .sample = (uint64_t)(sample * a->batch),
                                    .sequences = a->batch,
                                    .tokenizer = s->model.tokenizer,
                                    .sink = a->json ? collect : to_standard_output,
                                    .context = &text,
                                    .interrupt = &kp_stop_requested};
  before_text(s, sample);
  kp_status status = kp_generate(s->decoder, s->sampler, &generation, report, error);
  if (!a->json && !a->random) putchar('\n');
  fflush(stdout);
  if (status == KP_OK) {
    json_t *json = report_json(report);
    if (!a->random)
      json_object_set_new(json, "text", json_stringn(text.text == NULL ? "" : text.text, text.size));
    json_array_append_new(s->samples, json);
    if (!a->json) print_figures(report);
  }
  free(text.text);
  return status;
}

static json_t *settings_json(const session *s) {
  const arguments *a = s->arguments;
  const kp_token_sampler_options *o = &a->sampler;
  json_t *json = json_pack(
      "{s:s, s:s, s:i, s:I, s:o, s:I, s:o, s:o, s:o, s:I, s:I}", "model", s->model.run, "backend",
      a->backend->name, "threads", a->threads > 0 ? a->threads : omp_get_num_procs(), "seed",
      (json_int_t)o->seed, "temperature", kp_json_number(o->temperature), "top_k", (json_int_t)o->top_k,
      "top_p", kp_json_number(o->top_p), "min_p", kp_json_number(o->min_p), "repetition_penalty",
      kp_json_number(o->repetition_penalty), "repetition_window", (json_int_t)o->repetition_window,
      "parameters", (json_int_t)kp_parameters_elements(s->model.parameters));
  if (!a->random) {
    json_object_set_new(json, "step", json_integer(s->model.step));
    json_object_set_new(json, "prompt", json_stringn(s->text, s->text_size));
  }
  json_object_set(json, "samples", s->samples);
  return json;
}

static kp_status write_samples(session *s, kp_error *error) {
  const arguments *a = s->arguments;
  double best = 0;
  for (int64_t i = 0; i < a->samples && !kp_stop_requested; i++) {
    kp_generation_report report;
    KP_TRY(write_sample(s, i, &report, error));
    const double speed = bytes_per_second(&report);
    if (speed > best) best = speed;
  }
  json_t *json = settings_json(s);
  kp_status status = KP_OK;
  if (a->random && best > 0 && a->backend == kp_backend_cpu())
    status = compare_with_limit(s, best, a->threads > 0 ? a->threads : omp_get_num_procs(), json, error);
  if (a->json && status == KP_OK) {
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(KP_JSON_FLOAT_DIGITS));
    putchar('\n');
  }
  json_decref(json);
  return status;
}

int kp_command_sample(int argc, char **argv) {
  arguments a = {.checkpoint = "best",
                 .backend = kp_backend_cpu(),
                 .sampler = kp_token_sampler_defaults(),
                 .tokens = 500,
                 .samples = 1,
                 .random_prompt = 16,
                 .batch = 1};
  session s = {.arguments = &a};
  kp_error error = {0};
  kp_parse(&argp, argc, argv, &a);
  s.samples = json_array();
  kp_catch_stop();
  kp_status status = open_session(&s, &error);
  if (status == KP_OK) status = write_samples(&s, &error);
  close_session(&s);
  kp_texts_clear(&a.sets);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
