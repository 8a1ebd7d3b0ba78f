#include "study/machine.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "backend/cpu/limits.h"
#include "core/backend.h"
#include "data/prepare.h"

__attribute__((format(printf, 2, 3))) static void warn(kp_machine *m, const char *format, ...) {
  if (m->warning_count == KP_MACHINE_WARNINGS) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(m->warnings[m->warning_count++], sizeof m->warnings[0], format, arguments);
  va_end(arguments);
}

/* The value of the first line "key...: value" of a file of /proc, or nothing. */
static void read_line(const char *path, const char *key, char *value, size_t size) {
  char line[512];
  FILE *file = fopen(path, "r");
  value[0] = 0;
  if (file == NULL) return;
  while (value[0] == 0 && fgets(line, sizeof line, file) != NULL) {
    const char *colon = strchr(line, ':');
    if (colon == NULL || strncmp(line, key, strlen(key)) != 0) continue;
    snprintf(value, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
    value[strcspn(value, "\n")] = 0;
  }
  fclose(file);
}

static size_t kibibytes(const char *key) {
  char value[64];
  read_line("/proc/meminfo", key, value, sizeof value);
  return (size_t)strtoull(value, NULL, 10) * 1024;
}

static void read_system(kp_machine *m) {
  struct utsname names;
  read_line("/proc/cpuinfo", "model name", m->processor, sizeof m->processor);
  if (uname(&names) == 0)
    snprintf(m->system, sizeof m->system, "%.60s %.100s %.60s", names.sysname, names.release, names.machine);
  if (m->processor[0] == 0) snprintf(m->processor, sizeof m->processor, "%.60s", names.machine);
  m->memory_bytes = kibibytes("MemTotal");
  m->free_memory_bytes = kibibytes("MemAvailable");
#if defined __clang__
  m->compiler = "clang " __clang_version__;
#else
  m->compiler = "gcc " __VERSION__;
#endif
}

static void read_backend(kp_machine *m) {
  const char *forced = getenv("KAPPA_ISA");
  m->cores = kp_thread_count(0);
  m->threads = kp_thread_count(0);
  kp_backend_cpu(); /* sets up the library of products */
  m->isa = kp_cpu_isa_name();
  m->blas = kp_cpu_blas();
  for (const char *name; m->isa_count < KP_MACHINE_ISAS; m->isa_count++) {
    name = kp_cpu_isa_at(m->isa_count, &m->isas[m->isa_count].runs_here);
    if (name == NULL) break;
    m->isas[m->isa_count].name = name;
  }
  if (forced != NULL && strcmp(forced, m->isa) != 0)
    warn(m, "KAPPA_ISA=%s names no instruction set that runs here; %s is used", forced, m->isa);
  else if (forced != NULL && strcmp(m->isas[0].name, m->isa) != 0 && m->isas[0].runs_here)
    warn(m, "KAPPA_ISA=%s keeps kappa from using %s", forced, m->isas[0].name);
  if (!m->blas.openmp)
    warn(m, "OpenBLAS is not its OpenMP build: install libopenblas-openmp-dev and build kappa again");
}

/* The absolute path of a program in $PATH, or nothing. */
static void find_program(const char *name, char out[KP_PATH_SIZE]) {
  const char *path = getenv("PATH");
  out[0] = 0;
  while (path != NULL && *path != 0) {
    const size_t length = strcspn(path, ":");
    char folder[KP_PATH_SIZE];
    snprintf(folder, sizeof folder, "%.*s", (int)length, path);
    if (kp_path_join(out, folder, name, NULL) == KP_OK && kp_path_kind_of(out) == KP_PATH_FILE &&
        access(out, X_OK) == 0)
      return;
    out[0] = 0;
    path += length + (path[length] == ':');
  }
}

/* The space where a folder is, or where it would be made. */
static size_t free_disk(const char *folder) {
  struct statvfs disk;
  char path[KP_PATH_SIZE];
  snprintf(path, sizeof path, "%s", folder);
  while (statvfs(path, &disk) != 0) {
    char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path)
      snprintf(path, sizeof path, "%s", slash == NULL && strcmp(path, ".") != 0 ? "." : "/");
    else
      *slash = 0;
    if (strcmp(path, "/") == 0 && statvfs(path, &disk) != 0) return 0;
  }
  return (size_t)disk.f_bavail * disk.f_frsize;
}

kp_status kp_machine_read(const char *data_folder, kp_machine *m, kp_error *error) {
  static const size_t little_disk = (size_t)1 << 30;
  *m = (kp_machine){0};
  if (data_folder != NULL)
    KP_TRY(kp_path_join(m->data_folder, "", data_folder, error));
  else
    KP_TRY(kp_data_folder(m->data_folder, error));
  read_system(m);
  read_backend(m);
  find_program("gnuplot", m->gnuplot);
  find_program("bible", m->bible);
  m->free_disk_bytes = free_disk(m->data_folder);
  if (m->gnuplot[0] == 0)
    warn(m, "gnuplot is not installed: plots are not drawn (apt-get install gnuplot-nox)");
  if (m->bible[0] == 0)
    warn(m, "bible is not installed: data set kjv_char cannot be made (apt-get install bible-kjv)");
  if (m->free_disk_bytes < little_disk) warn(m, "less than 1 GiB of disk is free for data and checkpoints");
  return KP_OK;
}

kp_status kp_machine_measure(const kp_machine *m, kp_machine_limits *limits, kp_error *error) {
  enum { SIZE = 1024 };
  static const size_t beyond_caches = (size_t)256 << 20;
  KP_TRY(kp_limits_product(SIZE, SIZE, SIZE, m->threads, &limits->product, error));
  KP_TRY(kp_limits_copy(beyond_caches, m->threads, &limits->copy, error));
  return kp_limits_read(beyond_caches, m->threads, &limits->read, error);
}
