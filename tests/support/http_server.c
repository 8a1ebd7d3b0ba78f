#include "support/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct request {
  char path[256];
  long range_begin; /* -1 without a Range */
  char tag[32];     /* of an If-Range; empty without */
} request;

static void send_all(int connection, const char *data, size_t size) {
  while (size > 0) {
    ssize_t sent = send(connection, data, size, MSG_NOSIGNAL);
    if (sent <= 0) return;
    data += sent;
    size -= (size_t)sent;
  }
}

static void send_text(int connection, const char *text) {
  send_all(connection, text, strlen(text));
}

static int read_request(int connection, request *asked) {
  char text[4096];
  size_t used = 0;
  while (used < sizeof text - 1) {
    ssize_t got = recv(connection, text + used, sizeof text - 1 - used, 0);
    if (got <= 0) return -1;
    used += (size_t)got;
    text[used] = 0;
    if (strstr(text, "\r\n\r\n") != NULL) break;
  }
  asked->range_begin = -1;
  const char *range = strstr(text, "\r\nRange: bytes=");
  if (range != NULL) asked->range_begin = strtol(range + 15, NULL, 10);
  const char *tag = strstr(text, "\r\nIf-Range: ");
  asked->tag[0] = 0;
  if (tag != NULL && sscanf(tag + 12, "%31s", asked->tag) != 1) return -1;
  return sscanf(text, "GET %255s ", asked->path) == 1 ? 0 : -1;
}

/* `tag`: a line of the header, or empty. */
static void send_whole(int connection, const char *tag, const char *body, size_t size, size_t sent) {
  char head[192];
  snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\n%sContent-Length: %zu\r\nConnection: close\r\n\r\n", tag,
           size);
  send_text(connection, head);
  send_all(connection, body, sent);
}

static void send_range(int connection, const char *tag, const char *body, size_t size, size_t begin) {
  char head[256];
  if (begin >= size) {
    send_text(connection,
              "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    return;
  }
  snprintf(head, sizeof head,
           "HTTP/1.1 206 Partial Content\r\n%sContent-Range: bytes %zu-%zu/%zu\r\nContent-Length: %zu\r\n"
           "Connection: close\r\n\r\n",
           tag, begin, size - 1, size, size - begin);
  send_text(connection, head);
  send_all(connection, body + begin, size - begin);
}

static void redirect(int connection, const char *target) {
  char head[192];
  snprintf(head, sizeof head,
           "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", target);
  send_text(connection, head);
}

static void answer(int connection, const request *asked, const char *body, size_t size) {
  const char *path = asked->path;
  size_t begin = asked->range_begin < 0 ? 0 : (size_t)asked->range_begin;
  if (strcmp(path, "/missing") == 0)
    send_text(connection, "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngone");
  else if (strcmp(path, "/elsewhere") == 0)
    redirect(connection, "/file");
  else if (strcmp(path, "/local") == 0)
    redirect(connection, "file:///etc/hostname");
  else if (strcmp(path, "/loop") == 0)
    redirect(connection, "/loop");
  else if (strcmp(path, "/silent") == 0)
    pause();
  else if (strcmp(path, "/unsized") == 0) {
    send_text(connection, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    send_all(connection, body, size);
  } else if (strcmp(path, "/refuse-range") == 0 && asked->range_begin >= 0)
    send_range(connection, "", body, size, size);
  else if (strcmp(path, "/shifted") == 0 && asked->range_begin >= 0)
    send_range(connection, "", body, size, begin + 1);
  else if (asked->range_begin >= 0 && strcmp(path, "/no-range") != 0)
    send_range(connection, "", body, size, begin);
  else
    send_whole(connection, "", body, size, strcmp(path, "/cut") == 0 ? size / 2 : size);
}

/* The file of a name in the folder; NULL when there is none.  The caller frees it. */
static char *read_file(const char *folder, const char *name, size_t *size) {
  char path[512];
  if (strstr(name, "..") != NULL || snprintf(path, sizeof path, "%s%s", folder, name) >= (int)sizeof path)
    return NULL;
  FILE *file = fopen(path, "rb");
  if (file == NULL) return NULL;
  char *data = NULL;
  if (fseek(file, 0, SEEK_END) == 0 && ftell(file) >= 0) {
    *size = (size_t)ftell(file);
    rewind(file);
    data = malloc(*size + 1);
    if (data != NULL && fread(data, 1, *size, file) != *size) {
      free(data);
      data = NULL;
    }
  }
  fclose(file);
  return data;
}

static void answer_file(int connection, const request *asked, const char *folder) {
  static const char broken[] = "/broken/";
  const bool cut = strncmp(asked->path, broken, sizeof broken - 1) == 0;
  const char *name = cut ? asked->path + sizeof broken - 2 : asked->path;
  size_t size = 0;
  char *data = read_file(folder, name, &size);
  unsigned long hash = 5381;
  for (size_t i = 0; i < size; i++) hash = hash * 33 + (unsigned char)data[i];
  char tag[32], line[64];
  snprintf(tag, sizeof tag, "\"%lx\"", hash);
  snprintf(line, sizeof line, "ETag: %s\r\n", tag);
  if (data == NULL)
    send_text(connection, "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngone");
  else if (asked->range_begin >= 0 && (asked->tag[0] == 0 || strcmp(asked->tag, tag) == 0))
    send_range(connection, line, data, size, (size_t)asked->range_begin);
  else
    send_whole(connection, line, data, size, cut ? size / 2 : size);
  free(data);
}

static void serve(int listener, volatile http_server_log *log, const char *folder, const char *body,
                  size_t size) {
  for (;;) {
    int connection = accept(listener, NULL, NULL);
    request asked;
    if (connection < 0) continue;
    if (read_request(connection, &asked) == 0) {
      log->requests++;
      if (asked.range_begin >= 0) {
        log->ranges++;
        log->last_range_begin = asked.range_begin;
      }
      if (folder != NULL)
        answer_file(connection, &asked, folder);
      else
        answer(connection, &asked, body, size);
    }
    shutdown(connection, SHUT_WR);
    close(connection);
  }
}

/* A listening socket at a port that the kernel chooses. */
static int listen_anywhere(int *port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return -1;
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 8) != 0 ||
      getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
    close(listener);
    return -1;
  }
  *port = ntohs(address.sin_port);
  return listener;
}

static int start(http_server *server, const char *folder, const char *body, size_t size) {
  void *shared =
      mmap(NULL, sizeof(http_server_log), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int listener = listen_anywhere(&server->port);
  if (shared == MAP_FAILED || listener < 0) return -1;
  server->log = shared;
  server->process = fork();
  if (server->process == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve(listener, server->log, folder, body, size);
  }
  close(listener);
  return server->process < 0 ? -1 : 0;
}

int http_server_start(http_server *server, const char *body, size_t size) {
  return start(server, NULL, body, size);
}

int http_server_start_folder(http_server *server, const char *folder) {
  return start(server, folder, NULL, 0);
}

void http_server_stop(http_server *server) {
  kill(server->process, SIGKILL);
  waitpid(server->process, NULL, 0);
  munmap((void *)server->log, sizeof(http_server_log));
}

void http_server_url(const http_server *server, const char *path, char *url, size_t size) {
  snprintf(url, size, "http://127.0.0.1:%d%s", server->port, path);
}
