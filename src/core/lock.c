#include "core/lock.h"
#include "core/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { HOLDER_SIZE = 320 };

struct kp_lock {
  int descriptor;
};

/* The words in the lock file.  They may be empty for the moment between the
 * holder's lock and its write. */
static void read_holder(int descriptor, char holder[HOLDER_SIZE]) {
  ssize_t count = pread(descriptor, holder, HOLDER_SIZE - 1, 0);
  holder[count > 0 ? count : 0] = 0;
  holder[strcspn(holder, "\n")] = 0;
  if (holder[0] == 0) snprintf(holder, HOLDER_SIZE, "another process");
}

static kp_status write_holder(int descriptor, const char *path, kp_error *error) {
  char host[256] = "";
  if (gethostname(host, sizeof host - 1) != 0) snprintf(host, sizeof host, "unknown");
  char holder[HOLDER_SIZE];
  int length = snprintf(holder, sizeof holder, "process %ld on host %s\n", (long)getpid(), host);
  if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, holder, (size_t)length, 0) != length)
    return kp_fail_errno(error, KP_ERR_IO, "cannot write the lock file '%s'", path);
  return KP_OK;
}

static kp_status take(int descriptor, const char *path, kp_error *error) {
  if (flock(descriptor, LOCK_EX | LOCK_NB) == 0) return write_holder(descriptor, path, error);
  if (errno != EWOULDBLOCK) return kp_fail_errno(error, KP_ERR_IO, "cannot lock '%s'", path);
  char holder[HOLDER_SIZE];
  read_holder(descriptor, holder);
  return kp_fail(error, KP_ERR_IO,
                 "'%s' is held by %s; wait until it ends, stop it, or choose another folder", path, holder);
}

kp_status kp_lock_acquire(const char *path, kp_lock **result, kp_error *error) {
  *result = NULL;
  KP_TRY(kp_path_check(path, error));
  kp_lock *lock = malloc(sizeof *lock);
  if (lock == NULL) return kp_fail(error, KP_ERR_MEMORY, "not enough memory to lock '%s'", path);
  lock->descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  kp_status status = KP_OK;
  if (lock->descriptor < 0)
    status = kp_fail_errno(error, KP_ERR_IO, "cannot open the lock file '%s'", path);
  else
    status = take(lock->descriptor, path, error);
  if (status == KP_OK) {
    *result = lock;
    return KP_OK;
  }
  if (lock->descriptor >= 0) close(lock->descriptor);
  free(lock);
  return status;
}

void kp_lock_release(kp_lock *lock) {
  if (lock == NULL) return;
  /* The words go first: after the unlock they would be those of the next holder. */
  if (ftruncate(lock->descriptor, 0) != 0) errno = 0;
  flock(lock->descriptor, LOCK_UN);
  close(lock->descriptor);
  free(lock);
}
