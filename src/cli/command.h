/* The program's commands: one file each, which parses, calls the library and prints. */
#ifndef KAPPA_CLI_COMMAND_H
#define KAPPA_CLI_COMMAND_H

#include <argp.h>
#include <jansson.h>
#include <signal.h>

#include "core/backend.h"
#include "core/config.h"
#include "core/error.h"

enum {
  KP_EXIT_OK = 0,
  KP_EXIT_FAILED = 1, /* the work failed: an error was printed */
  KP_EXIT_USAGE = 2,  /* the command line was wrong */
};

typedef struct kp_command {
  const char *name;
  const char *help; /* one line */
  int (*run)(int argc, char **argv);
} kp_command;

/* One function a command, in the file of its name. */
int kp_command_data(int argc, char **argv);
int kp_command_doctor(int argc, char **argv);
int kp_command_info(int argc, char **argv);
int kp_command_bench(int argc, char **argv);
int kp_command_eval(int argc, char **argv);
int kp_command_sample(int argc, char **argv);
int kp_command_train(int argc, char **argv);
int kp_command_merge(int argc, char **argv);
int kp_command_import(int argc, char **argv);
int kp_command_export(int argc, char **argv);
int kp_command_logits(int argc, char **argv);
int kp_command_compare(int argc, char **argv);
int kp_command_plot(int argc, char **argv);
int kp_command_analyze(int argc, char **argv);
int kp_command_study(int argc, char **argv);
int kp_command_verify(int argc, char **argv);
int kp_command_tokenizer(int argc, char **argv);

/* ---- what commands share ---- */

/* Prints the value to standard output and releases it; numbers with the digits of a float, or all of a
 * double's. */
void kp_print_json(json_t *json);
void kp_print_json_doubles(json_t *json);

/* Prints "kappa: note: KEY has no effect ..." to standard error for each key of a configuration that nothing
 * reads. */
void kp_print_unused_keys(const kp_config *config);

/* Prints "kappa: message" to standard error; the exit code for the error. */
int kp_print_error(const kp_error *error);

/* Parses with argp; argv[0] should read "kappa COMMAND".  A wrong command line ends the program with
 * KP_EXIT_USAGE. */
void kp_parse(const struct argp *argp, int argc, char **argv, void *input);

/* A whole number from `minimum` on, or the end of the program through argp_error. */
long long kp_parse_integer(const char *text, const char *option, long long minimum, struct argp_state *state);
int kp_parse_threads(const char *text, struct argp_state *state);
double kp_parse_real(const char *text, const char *option, double minimum, double maximum,
                     struct argp_state *state);

/* The argument of a command that takes one: `what` it is, should there be another. */
error_t kp_parse_one(const char **argument, const char *value, const char *what, struct argp_state *state);

#define KP_DEVICE_HELP                                                                                       \
  "cpu (default); cuda, cuda:1: a GPU, in bfloat16, or cuda:float32; auto: a GPU if there is one; ref: "     \
  "double "                                                                                                  \
  "precision, slow"

/* A backend by the name of --device, or the end of the program through argp_error. */
const kp_backend *kp_parse_backend(const char *name, struct argp_state *state);

/* A growing list of texts: repeated options such as --set. */
typedef struct kp_texts {
  const char **list;
  size_t count;
} kp_texts;
void kp_texts_add(kp_texts *texts, const char *text);
void kp_texts_clear(kp_texts *texts);

/* Set by Ctrl-C and SIGTERM once kp_catch_stop was called; a second Ctrl-C ends the program at once. */
extern volatile sig_atomic_t kp_stop_requested;
void kp_catch_stop(void);

/* "1.5 GiB", "12 MiB" in a buffer of the caller. */
const char *kp_bytes_text(double bytes, char text[32]);
/* "2 h 03 min", "4 min 12 s", "8 s". */
const char *kp_duration_text(double seconds, char text[32]);

#endif
