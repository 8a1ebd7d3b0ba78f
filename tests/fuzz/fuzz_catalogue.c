/* Feeds hostile bytes to what reads a set's files: as an archive, and as a tree of messages. */
#define _GNU_SOURCE /* memfd_create */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/archive_files.h"
#include "data/message_trees.h"

enum { LARGEST = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was taken out keeps to the bound. */
static void read_archive(const uint8_t *data, size_t size) {
  char archive[64], out[64];
  kp_error error = {0};
  struct stat made;
  const int file = memfd_create("archive", 0);
  if (file < 0 || write(file, data, size) != (ssize_t)size) abort();
  snprintf(archive, sizeof archive, "/proc/self/fd/%d", file);
  snprintf(out, sizeof out, "/tmp/kappa-fuzz-catalogue-%d", (int)getpid());
  const kp_archive_member member = {"a/b", out};
  const kp_status status = kp_archive_extract(archive, &member, 1, LARGEST, &error);
  if ((stat(out, &made) == 0) != (status == KP_OK)) abort();
  if (status == KP_OK && made.st_size > LARGEST) abort();
  unlink(out);
  close(file);
}

/* A conversation ends with what the assistant says. */
static void read_tree(const uint8_t *data, size_t size) {
  kp_error error = {0};
  json_error_t fault;
  json_t *conversation = NULL, *tree = json_loadb((const char *)data, size, 0, &fault);
  if (tree != NULL && kp_message_tree_best(tree, &conversation, &error) == KP_OK && conversation != NULL) {
    const json_t *messages = json_object_get(conversation, "messages");
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    if (strcmp(json_string_value(json_object_get(last, "role")), "assistant") != 0) abort();
  }
  json_decref(conversation);
  json_decref(tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  read_archive(data, size);
  read_tree(data, size);
  return 0;
}
