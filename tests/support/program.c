#define _GNU_SOURCE /* memfd_create */

#include "support/program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/check.h"

extern char **environ;

enum { MAXIMUM_ARGUMENTS = 62 };

program_process program_start(const char *const *arguments) {
  char *list[MAXIMUM_ARGUMENTS + 2] = {(char *)(uintptr_t)KP_PROGRAM};
  program_process process = {.output = memfd_create("output", MFD_CLOEXEC),
                             .errors = memfd_create("errors", MFD_CLOEXEC)};
  posix_spawn_file_actions_t actions;
  assert_true(process.output >= 0 && process.errors >= 0);
  for (int i = 0; arguments[i] != NULL; i++) {
    assert_true(i < MAXIMUM_ARGUMENTS);
    list[i + 1] = (char *)(uintptr_t)arguments[i];
  }
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, process.output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, process.errors, STDERR_FILENO);
  assert_int_equal(posix_spawn(&process.id, KP_PROGRAM, &actions, NULL, list, environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  return process;
}

static void take(int descriptor, char *text, size_t size) {
  const ssize_t count = pread(descriptor, text, size - 1, 0);
  assert_true(count >= 0);
  text[count] = 0;
  close(descriptor);
}

void program_wait(program_process *process, program_result *result) {
  int status;
  while (waitpid(process->id, &status, 0) < 0) assert_int_equal(errno, EINTR);
  result->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  result->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  take(process->output, result->output, sizeof result->output);
  take(process->errors, result->errors, sizeof result->errors);
}

void program_run(const char *const *arguments, program_result *result) {
  program_process process = program_start(arguments);
  program_wait(&process, result);
}

/* The limit and the ignored signal are inherited; only the soft limit changes, so that it can be lifted. */
void program_limit_files(size_t bytes) {
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
  limit.rlim_cur = bytes == 0 ? limit.rlim_max : (rlim_t)bytes;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  signal(SIGXFSZ, bytes == 0 ? SIG_DFL : SIG_IGN);
}

static void fail_with(const program_result *result, const char *what, const char *words) {
  fail_msg("%s '%s': exit code %d, signal %d\n--- output\n%s--- errors\n%s---", what, words,
           result->exit_code, result->signal, result->output, result->errors);
}

void program_check_refused(const program_result *result, int exit_code, const char *words) {
  const char *end = strchr(result->errors, '\n');
  if (result->exit_code != exit_code) fail_with(result, "not refused", words);
  if (strncmp(result->errors, "kappa: ", 7) != 0) fail_with(result, "no message for", words);
  if (end == NULL || end[1] != 0) fail_with(result, "not one line:", words);
  if (strstr(result->errors, words) == NULL) fail_with(result, "the message lacks", words);
}

void program_check_usage(const program_result *result, const char *words) {
  if (result->exit_code != 2) fail_with(result, "not refused as wrong usage:", words);
  if (strstr(result->errors, words) == NULL) fail_with(result, "the message lacks", words);
}

void program_check_ok(const program_result *result) {
  if (result->exit_code != 0) fail_with(result, "failed", "");
}
