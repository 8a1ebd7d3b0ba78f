/* The machine as kappa sees it: what it offers, and what would be used of it. */
#ifndef KAPPA_STUDY_MACHINE_H
#define KAPPA_STUDY_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

#include "backend/cpu/cpu.h"
#include "core/error.h"
#include "core/path.h"

enum { KP_MACHINE_ISAS = 8, KP_MACHINE_WARNINGS = 8 };

typedef struct kp_machine {
  char processor[128], system[256];
  int cores;   /* that this process may use */
  int threads; /* that kappa would use */
  struct {
    const char *name;
    bool runs_here;
  } isas[KP_MACHINE_ISAS]; /* of this build, the best first */
  int isa_count;
  const char *isa; /* the chosen one */
  kp_blas blas;
  size_t memory_bytes, free_memory_bytes; /* 0: unknown; free counts what the system would give up */
  char data_folder[KP_PATH_SIZE];
  size_t free_disk_bytes;                          /* where the data folder is or would be */
  char gnuplot[KP_PATH_SIZE], bible[KP_PATH_SIZE]; /* paths of the programs; empty: not installed */
  const char *compiler;
  char warnings[KP_MACHINE_WARNINGS][256];
  int warning_count;
} kp_machine;

/* Looks; takes no time.  `data_folder` NULL: kp_data_folder. */
kp_status kp_machine_read(const char *data_folder, kp_machine *machine, kp_error *error);

/* What the machine reaches at best on its threads, in 10⁹ operations or bytes a second; some two seconds. */
typedef struct kp_machine_limits {
  double product, copy, read;
} kp_machine_limits;
kp_status kp_machine_measure(const kp_machine *machine, kp_machine_limits *limits, kp_error *error);

#endif
