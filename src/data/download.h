/* Fetches one file by HTTP.
 *
 * The bytes go to <path>.part, which becomes <path> only when the transfer is complete and its checksum is
 * right.  A transfer that broke off goes on where it stopped, provided that the checksum is known, or that
 * the server names the version of the file (a strong ETag, kept in <path>.part.tag) and still has it:
 * otherwise nobody could tell whether the two halves belong together, so it starts anew.  The library's
 * proxies and certificates are those that curl finds by itself (http_proxy, https_proxy, no_proxy). */
#ifndef KAPPA_DATA_DOWNLOAD_H
#define KAPPA_DATA_DOWNLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

/* Called several times a second with the bytes there and the bytes in all (0 while unknown).  Returns false
 * to stop: the download then fails with KP_ERR_INTERRUPTED and can be resumed. */
typedef bool (*kp_download_progress)(void *context, int64_t done, int64_t total);

typedef struct kp_download_options {
  const char *url;               /* http:// or https:// */
  const char *path;              /* of the file; its folder must exist */
  const char *sha256;            /* 64 lower-case digits; NULL when unknown */
  int64_t size;                  /* bytes; 0 when unknown */
  long connect_seconds;          /* to reach the server; 0 means 30 */
  long stall_seconds;            /* without a byte; 0 means 60 */
  kp_download_progress progress; /* may be NULL */
  void *context;                 /* for progress */
} kp_download_options;

/* Downloads the file.  A file that is there with the right checksum is left alone, without any network.
 * After a wrong checksum the .part is removed; after any other failure it stays, to be resumed. */
kp_status kp_download(const kp_download_options *options, kp_error *error);

#endif
