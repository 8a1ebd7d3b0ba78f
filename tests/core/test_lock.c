#include "support/check_fails.h"
#include "support/temporary.h"
#include "core/lock.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_lock_is_taken_once(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "lock");
  kp_lock *first = NULL, *second = NULL;
  check_ok(kp_lock_acquire(path, &first, &error), &error);
  char holder[64];
  snprintf(holder, sizeof holder, "held by process %ld on host ", (long)getpid());
  check_fails(kp_lock_acquire(path, &second, &error), &error, KP_ERR_IO, holder);
  assert_null(second);
  kp_lock_release(first);
  kp_lock_release(NULL);
  check_ok(kp_lock_acquire(path, &second, &error), &error);
  kp_lock_release(second);
  check_fails(kp_lock_acquire(temporary_path(state, "none/lock"), &first, &error), &error, KP_ERR_IO,
              "none/lock");
  check_fails(kp_lock_acquire(temporary_path(state, ""), &first, &error), &error, KP_ERR_IO, "directory");
}

/* A child that takes the lock, says so through the pipe, and waits to be killed. */
static pid_t start_holder(const char *path, int *ready) {
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    kp_lock *lock = NULL;
    char answer = kp_lock_acquire(path, &lock, NULL) == KP_OK ? 'y' : 'n';
    if (write(ends[1], &answer, 1) != 1) _exit(1);
    for (;;) pause();
  }
  close(ends[1]);
  *ready = ends[0];
  return child;
}

static void test_lock_of_a_killed_process_is_free(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "lock");
  int ready = -1;
  pid_t child = start_holder(path, &ready);
  char answer = 0;
  assert_int_equal(read(ready, &answer, 1), 1);
  close(ready);
  assert_int_equal(answer, 'y');

  kp_lock *lock = NULL;
  char holder[64];
  snprintf(holder, sizeof holder, "held by process %ld on host ", (long)child);
  check_fails(kp_lock_acquire(path, &lock, &error), &error, KP_ERR_IO, holder);
  assert_non_null(strstr(error.message, path));

  assert_int_equal(kill(child, SIGKILL), 0);
  assert_int_equal(waitpid(child, NULL, 0), child);
  check_ok(kp_lock_acquire(path, &lock, &error), &error);
  kp_lock_release(lock);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_lock_is_taken_once, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_lock_of_a_killed_process_is_free, temporary_create,
                                      temporary_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
