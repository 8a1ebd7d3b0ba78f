/* For environ, and for pipe2: a pipe that children of other threads do not inherit. */
#define _GNU_SOURCE
#include "data/program_output.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Starts the program with its output going into `sink`. */
static kp_status start(const char *const *arguments, int sink, pid_t *process, kp_error *error) {
  posix_spawn_file_actions_t actions;
  if (posix_spawn_file_actions_init(&actions) != 0)
    return kp_fail(error, KP_ERR_MEMORY, "no memory to start %s", arguments[0]);
  int code = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (code == 0) code = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  if (code == 0) code = posix_spawn_file_actions_adddup2(&actions, sink, STDOUT_FILENO);
  /* POSIX declares the arguments without const, and promises not to change them. */
  if (code == 0)
    code = posix_spawnp(process, arguments[0], &actions, NULL, (char *const *)arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (code == 0) return KP_OK;
  if (code == ENOENT)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "the program '%s' is not installed", arguments[0]);
  errno = code;
  return kp_fail_errno(error, KP_ERR_IO, "cannot start the program '%s'", arguments[0]);
}

/* Reads to the end; *output is untouched on failure. */
static kp_status collect(int source, const char *name, size_t maximum, char **output, size_t *size,
                         kp_error *error) {
  size_t capacity = 1 << 16, used = 0;
  char *buffer = malloc(capacity);
  while (buffer != NULL) {
    ssize_t got = read(source, buffer + used, capacity - 1 - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      kp_status status = kp_fail_errno(error, KP_ERR_IO, "cannot read what '%s' prints", name);
      free(buffer);
      return status;
    }
    if (got == 0) {
      buffer[used] = 0;
      *output = buffer;
      *size = used;
      return KP_OK;
    }
    used += (size_t)got;
    if (used > maximum) {
      free(buffer);
      return kp_fail(error, KP_ERR_INPUT, "'%s' printed more than %zu bytes", name, maximum);
    }
    if (used < capacity - 1) continue;
    char *grown = realloc(buffer, capacity *= 2);
    if (grown == NULL) free(buffer);
    buffer = grown;
  }
  return kp_fail(error, KP_ERR_MEMORY, "no memory for what '%s' prints", name);
}

static kp_status wait_for(pid_t process, const char *name, kp_error *error) {
  int result;
  while (waitpid(process, &result, 0) < 0)
    if (errno != EINTR) return kp_fail_errno(error, KP_ERR_IO, "cannot wait for '%s'", name);
  if (WIFEXITED(result) && WEXITSTATUS(result) == 0) return KP_OK;
  if (WIFEXITED(result))
    return kp_fail(error, KP_ERR_IO, "'%s' failed with exit status %d", name, WEXITSTATUS(result));
  return kp_fail(error, KP_ERR_IO, "'%s' was ended by signal %d", name, WTERMSIG(result));
}

kp_status kp_program_output(const char *const *arguments, size_t maximum, char **output, size_t *size,
                            kp_error *error) {
  int ends[2];
  pid_t process = -1;
  char *taken = NULL;
  if (pipe2(ends, O_CLOEXEC) != 0) return kp_fail_errno(error, KP_ERR_IO, "cannot make a pipe");
  kp_status status = start(arguments, ends[1], &process, error);
  close(ends[1]);
  if (status != KP_OK) {
    close(ends[0]);
    return status;
  }
  status = collect(ends[0], arguments[0], maximum, &taken, size, error);
  close(ends[0]); /* a program that is still printing ends by SIGPIPE */
  kp_status ended = wait_for(process, arguments[0], status == KP_OK ? error : NULL);
  if (status == KP_OK) status = ended;
  if (status != KP_OK) {
    free(taken);
    return status;
  }
  *output = taken;
  return KP_OK;
}
