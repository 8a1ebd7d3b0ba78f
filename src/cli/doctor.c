/* kappa doctor: what this machine offers, and what kappa uses of it. */
#include <stdio.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "cli/command.h"
#include "data/data_sets.h"
#include "study/machine.h"

typedef struct arguments {
  const char *data_folder;
  bool json, quick;
} arguments;

static const struct argp_option options[] = {
    {"quick", 'q', 0, 0, "measure nothing", 0},
    {"data", 'd', "DIR", 0, "folder of the data sets (default: $KAPPA_DATA, or data)", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *value, struct argp_state *state) {
  arguments *a = state->input;
  switch (key) {
  case 'q': a->quick = true; return 0;
  case 'd': a->data_folder = value; return 0;
  case 'j': a->json = true; return 0;
  default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {options,
                                 parse,
                                 "",
                                 "Say what this machine offers and what kappa uses of it.\v"
                                 "Example:\n  kappa doctor --quick",
                                 0,
                                 0,
                                 0};

/* What is found: the machine, its limits (zeros where nothing was measured), the data. */
typedef struct findings {
  kp_machine machine;
  kp_machine_limits limits;
  kp_data_sets sets;
} findings;

static void isa_words(const kp_machine *m, char *text, size_t size) {
  size_t used = (size_t)snprintf(text, size, "%s (of ", m->isa);
  for (int i = 0; i < m->isa_count && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%s%s", i == 0 ? "" : ", ", m->isas[i].name,
                             m->isas[i].runs_here ? "" : " not here");
  if (used < size) snprintf(text + used, size - used, ")");
}

static void print_data(const kp_data_sets *sets) {
  int prepared = 0;
  printf("  prepared    ");
  for (size_t i = 0; i < sets->count; i++)
    if (sets->entries[i].state == KP_PREPARED_COMPLETE)
      printf("%s%s", prepared++ == 0 ? "" : ", ", sets->entries[i].name);
  puts(prepared == 0 ? "nothing yet: kappa data get kjv_char" : "");
}

static void print_gpus(void) {
  const int count = kp_cuda_device_count();
  char text[32], left[32];
  if (count == 0)
    printf("  cuda        %s\n", kp_cuda_built()
                                     ? "built, but there is no NVIDIA GPU with a driver here"
                                     : "not built: install the CUDA toolkit (12.4 or later) and build again");
  for (int i = 0; i < count; i++) {
    kp_cuda_device_description d;
    kp_error error = {0};
    if (kp_cuda_describe(i, &d, &error) != KP_OK)
      printf("  cuda:%d      %s\n", i, error.message);
    else
      printf(
          "  cuda:%d      %s, compute capability %d.%d, %d processors, %s, of these %s free; driver %d.%d, "
          "runtime %d.%d\n",
          i, d.name, d.major, d.minor, d.processors, kp_bytes_text((double)d.memory_bytes, text),
          kp_bytes_text((double)d.free_bytes, left), d.driver / 1000, d.driver % 1000 / 10, d.runtime / 1000,
          d.runtime % 1000 / 10);
  }
}

static void print_findings(const findings *f, bool measured) {
  const kp_machine *m = &f->machine;
  char text[256], total[32], available[32];
  isa_words(m, text, sizeof text);
  printf("kappa %s, built by %s\n\nmachine\n", KP_VERSION, m->compiler);
  printf("  system      %s\n  processor   %s\n  cores       %d, kappa uses %d threads\n", m->system,
         m->processor, m->cores, m->threads);
  printf("  memory      %s, of these %s available\n", kp_bytes_text((double)m->memory_bytes, total),
         kp_bytes_text((double)m->free_memory_bytes, available));
  printf("\nbackends\n  cpu         float32, instruction set %s\n  ref         double, plain loops\n", text);
  print_gpus();
  printf("  products    %s\n              core %s, %s threads\n", m->blas.config, m->blas.core,
         m->blas.openmp ? "OpenMP" : "own");
  if (measured)
    printf("\nmeasured on %d threads\n  sgemm       %.0f GF/s (1024 x 1024 x 1024)\n  copy        %.1f GB/s "
           "read and written\n  read        %.1f GB/s\n",
           m->threads, f->limits.product, f->limits.copy, f->limits.read);
  printf("\ndata\n  folder      %s, %s free\n", m->data_folder,
         kp_bytes_text((double)m->free_disk_bytes, available));
  print_data(&f->sets);
  printf("  gnuplot     %s\n  bible       %s\n", m->gnuplot[0] ? m->gnuplot : "not installed",
         m->bible[0] ? m->bible : "not installed");
  for (int i = 0; i < m->warning_count; i++) printf("%swarning: %s\n", i == 0 ? "\n" : "", m->warnings[i]);
}

static json_t *backends_json(const kp_machine *m) {
  json_t *isas = json_array();
  for (int i = 0; i < m->isa_count; i++)
    json_array_append_new(
        isas, json_pack("{s:s, s:b}", "name", m->isas[i].name, "runs_here", m->isas[i].runs_here));
  return json_pack("{s:b, s:b, s:i, s:s, s:o, s:{s:s, s:s, s:b}}", "ref", true, "cpu", true, "cuda",
                   kp_cuda_device_count(), "instruction_set", m->isa, "instruction_sets", isas, "blas",
                   "config", m->blas.config, "core", m->blas.core, "openmp", m->blas.openmp);
}

static json_t *data_json(const findings *f) {
  json_t *prepared = json_array();
  for (size_t i = 0; i < f->sets.count; i++)
    if (f->sets.entries[i].state == KP_PREPARED_COMPLETE)
      json_array_append_new(prepared, json_string(f->sets.entries[i].name));
  return json_pack("{s:s, s:I, s:o}", "folder", f->machine.data_folder, "free_bytes",
                   (json_int_t)f->machine.free_disk_bytes, "prepared", prepared);
}

static json_t *findings_json(const findings *f, bool measured) {
  const kp_machine *m = &f->machine;
  json_t *warnings = json_array();
  for (int i = 0; i < m->warning_count; i++) json_array_append_new(warnings, json_string(m->warnings[i]));
  json_t *json = json_pack(
      "{s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:I, s:o, s:o, s:s?, s:s?, s:o}", "version", KP_VERSION,
      "compiler", m->compiler, "system", m->system, "processor", m->processor, "cores", m->cores, "threads",
      m->threads, "memory_bytes", (json_int_t)m->memory_bytes, "available_memory_bytes",
      (json_int_t)m->free_memory_bytes, "backends", backends_json(m), "data", data_json(f), "gnuplot",
      m->gnuplot[0] ? m->gnuplot : NULL, "bible", m->bible[0] ? m->bible : NULL, "warnings", warnings);
  if (measured)
    json_object_set_new(json, "measured",
                        json_pack("{s:f, s:f, s:f}", "sgemm_gflops", f->limits.product, "copy_gbytes_per_s",
                                  f->limits.copy, "read_gbytes_per_s", f->limits.read));
  return json;
}

int kp_command_doctor(int argc, char **argv) {
  arguments a = {0};
  findings f = {0};
  kp_error error = {0};
  kp_parse(&argp, argc, argv, &a);
  kp_status status = kp_machine_read(a.data_folder, &f.machine, &error);
  if (status == KP_OK) status = kp_data_sets_read(a.data_folder, &f.sets, &error);
  if (status == KP_OK && !a.quick) status = kp_machine_measure(&f.machine, &f.limits, &error);
  if (status == KP_OK && a.json) kp_print_json(findings_json(&f, !a.quick));
  if (status == KP_OK && !a.json) print_findings(&f, !a.quick);
  kp_data_sets_clear(&f.sets);
  return status == KP_OK ? KP_EXIT_OK : kp_print_error(&error);
}
