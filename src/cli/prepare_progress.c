#include "cli/prepare_progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cli/command.h"

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

kp_progress kp_progress_begin(void) {
  const double begun = now();
  return (kp_progress){.terminal = isatty(STDERR_FILENO) == 1, .begun = begun, .printed = begun};
}

static void print(const kp_progress *shown, const kp_prepare_progress *p, double seconds) {
  char there[32], all[32], left[32];
  const double speed = (double)p->bytes / seconds;
  fprintf(stderr, "%s%lld documents, %s", shown->terminal ? "\r\033[K" : "", (long long)p->documents,
          kp_bytes_text((double)p->bytes, there));
  if (p->all_bytes > 0) fprintf(stderr, " of %s", kp_bytes_text((double)p->all_bytes, all));
  fprintf(stderr, ", %.1f MB/s, %.0f tokens/s", speed * 1e-6, (double)p->tokens / seconds);
  if (p->duplicates > 0) fprintf(stderr, ", %lld duplicates", (long long)p->duplicates);
  if (p->all_bytes > p->bytes && speed > 0)
    fprintf(stderr, ", %s left", kp_duration_text((double)(p->all_bytes - p->bytes) / speed, left));
  if (!shown->terminal) fputc('\n', stderr);
}

bool kp_progress_show(void *context, const kp_prepare_progress *progress) {
  enum { SECONDS_BETWEEN_LINES = 5 };
  static const double between_moves = 0.2;
  kp_progress *shown = context;
  const double time = now();
  if (time - shown->printed >= (shown->terminal ? between_moves : SECONDS_BETWEEN_LINES)) {
    shown->printed = time;
    shown->shown = true;
    print(shown, progress, time - shown->begun);
  }
  return !kp_stop_requested;
}

void kp_progress_end(const kp_progress *shown) {
  if (shown->terminal && shown->shown) fputc('\n', stderr);
}
