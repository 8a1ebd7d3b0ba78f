/* Runs the program kappa as a user does, and catches what it prints. */
#ifndef KAPPA_TESTS_PROGRAM_H
#define KAPPA_TESTS_PROGRAM_H

#include <stddef.h>
#include <sys/types.h>

typedef struct program_result {
  int exit_code; /* -1 when a signal ended it */
  int signal;    /* 0 when none did */
  char output[32768], errors[8192];
} program_result;

/* One that runs; its output goes to files without a name. */
typedef struct program_process {
  pid_t id;
  int output, errors;
} program_process;

/* `arguments` stand behind "kappa" and end with NULL. */
program_process program_start(const char *const *arguments);
void program_wait(program_process *process, program_result *result);
void program_run(const char *const *arguments, program_result *result);

/* Writes beyond this size of a file fail in the programs that are started until it is set to 0: a disk that
 * is full. */
void program_limit_files(size_t bytes);

/* The program must have ended with `exit_code` and one line on standard error that begins with "kappa: " and
 * holds `words`. */
void program_check_refused(const program_result *result, int exit_code, const char *words);
/* The program must have ended with 2, and said `words`. */
void program_check_usage(const program_result *result, const char *words);
void program_check_ok(const program_result *result);

/* program_run with the arguments in place: RUN(&result, "train", path). */
#define RUN(result, ...) program_run((const char *const[]){__VA_ARGS__, NULL}, result)

#endif
