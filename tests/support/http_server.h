/* A small HTTP server on 127.0.0.1, in a process of its own, that serves one body in good and bad ways:
 *
 *   /file        whole, or the part that a Range asks for
 *   /no-range    whole, whatever is asked
 *   /cut         half of it, then the connection ends; a Range is served to the end
 *   /unsized     whole, without Content-Length
 *   /shifted     a part that begins one byte behind the one asked for
 *   /missing     404
 *   /elsewhere   redirects to /file
 *   /local       redirects to file:///etc/hostname
 *   /loop        redirects to itself
 *   /silent      takes the request and never answers
 *   /refuse-range  416 for a Range, else whole
 *
 * or the files of a folder by their names, each whole or the part that a Range asks for; of those in /broken/
 * half comes before the connection ends, unless a Range asks for the rest.
 */
#ifndef KAPPA_TESTS_HTTP_SERVER_H
#define KAPPA_TESTS_HTTP_SERVER_H

#include <stddef.h>
#include <sys/types.h>

/* What the server saw; shared with its process. */
typedef struct http_server_log {
  int requests;
  int ranges;            /* requests with a Range */
  long last_range_begin; /* of the last one */
} http_server_log;

typedef struct http_server {
  pid_t process;
  int port;
  volatile http_server_log *log;
} http_server;

/* Starts the server; the body is copied with the process.  Returns 0, or -1. */
int http_server_start(http_server *server, const char *body, size_t size);
/* Same for the files of a folder, which are read when they are asked for. */
int http_server_start_folder(http_server *server, const char *folder);
void http_server_stop(http_server *server);

/* Writes the URL of a path ("/file"). */
void http_server_url(const http_server *server, const char *path, char *url, size_t size);

#endif
