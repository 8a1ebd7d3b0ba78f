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

static void print_encoded(const kp_prepare_progress *p, double seconds) {
  char there[32], all[32], left[32];
  const double speed = (double)p->bytes / seconds;
  fprintf(stderr, "%lld documents, %s", (long long)p->documents, kp_bytes_text((double)p->bytes, there));
  if (p->all_bytes > 0) fprintf(stderr, " of %s", kp_bytes_text((double)p->all_bytes, all));
  fprintf(stderr, ", %.1f MB/s", speed * 1e-6);
  if (p->tokens > 0) fprintf(stderr, ", %.0f tokens/s", (double)p->tokens / seconds);
  if (p->duplicates > 0) fprintf(stderr, ", %lld duplicates", (long long)p->duplicates);
  if (p->all_bytes > p->bytes && speed > 0)
    fprintf(stderr, ", %s left", kp_duration_text((double)(p->all_bytes - p->bytes) / speed, left));
}

static void print(const kp_progress *shown, const kp_prepare_progress *p, double seconds) {
  char there[32], all[32];
  fputs(shown->terminal ? "\r\033[K" : "", stderr);
  switch (p->stage) {
  case KP_PREPARE_READS: fputs("learning: ", stderr); /* fall through */
  case KP_PREPARE_ENCODES: print_encoded(p, seconds); break;
  case KP_PREPARE_COUNTS:
    fprintf(stderr, "learning: %s of %s counted", kp_bytes_text((double)p->bytes, there),
            kp_bytes_text((double)p->all_bytes, all));
    break;
  case KP_PREPARE_MERGES:
    fprintf(stderr, "learning: %lld of %lld tokens", (long long)p->tokens, (long long)p->all_tokens);
    break;
  }
  if (!shown->terminal) fputc('\n', stderr);
}

bool kp_progress_show(void *context, const kp_prepare_progress *progress) {
  enum { SECONDS_BETWEEN_LINES = 5 };
  static const double between_moves = 0.2;
  kp_progress *shown = context;
  const double time = now();
  if (progress->stage != shown->stage) { /* each has its own speed */
    shown->stage = progress->stage;
    shown->begun = time;
  }
  if (time - shown->printed >= (shown->terminal ? between_moves : SECONDS_BETWEEN_LINES)) {
    shown->printed = time;
    shown->shown = true;
    print(shown, progress, time > shown->begun ? time - shown->begun : between_moves);
  }
  return !kp_stop_requested;
}

void kp_progress_end(const kp_progress *shown) {
  if (shown->terminal && shown->shown) fputc('\n', stderr);
}
