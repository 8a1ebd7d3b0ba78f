#include "data/download.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/atomic_file.h"
#include "core/file.h"
#include "core/path.h"
#include "core/sha256.h"

/* Why a callback stopped curl. */
typedef enum stop_reason {
  STOP_NONE,
  STOP_WRITE,    /* the disk refused; write_errno says why */
  STOP_TOO_LONG, /* more bytes than the file has */
  STOP_ANSWER,   /* neither 200 nor 206 */
  STOP_RANGE,    /* a part that was not asked for */
  STOP_VERSION,  /* a part of another version of the file */
  STOP_USER,
} stop_reason;

/* Bytes of a server's name for one version of a file. */
enum { TAG_SIZE = 128 };

/* One transfer into the open .part file. */
typedef struct transfer {
  const kp_download_options *options;
  CURL *curl;
  int file;            /* open for writing */
  int64_t begin;       /* bytes of the file that earlier transfers left and this one keeps */
  int64_t received;    /* bytes of this transfer */
  int64_t range_begin; /* from the answer's Content-Range, or -1 */
  char tag[TAG_SIZE];  /* from the answer's ETag, or empty */
  char kept[TAG_SIZE]; /* the version that the bytes of earlier transfers are of; empty: the checksum tells */
  bool started;        /* the first bytes, or the end, were seen */
  stop_reason stop;
  int write_errno;
  char curl_message[CURL_ERROR_SIZE];
} transfer;

static long answer_code(const transfer *t) {
  long code = 0;
  curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &code);
  return code;
}

/* A weak tag (W/"…") does not promise the same bytes, and one that does not fit cannot be compared. */
static void take_tag(transfer *t, const char *text) {
  text += strspn(text, " \t");
  const char *end = text[0] == '"' ? strchr(text + 1, '"') : NULL;
  if (end == NULL || end - text + 1 >= TAG_SIZE) return;
  memcpy(t->tag, text, (size_t)(end - text) + 1);
  t->tag[end - text + 1] = 0;
}

/* Every answer on the way (redirects) begins with its own status line, which forgets earlier headers. */
static size_t on_header(char *line, size_t unit, size_t count, void *context) {
  transfer *t = context;
  size_t size = unit * count;
  char text[TAG_SIZE + 16] = {0};
  memcpy(text, line, size < sizeof text - 1 ? size : sizeof text - 1);
  if (strncmp(text, "HTTP/", 5) == 0) {
    t->range_begin = -1;
    t->tag[0] = 0;
  }
  if (strncasecmp(text, "ETag:", 5) == 0) take_tag(t, text + 5);
  if (strncasecmp(text, "Content-Range:", 14) == 0 &&
      sscanf(text + 14, " bytes %" SCNd64 "-", &t->range_begin) != 1)
    t->range_begin = -1;
  return size;
}

/* Decides, when the first bytes come, whether they go on where the .part ends or replace it. */
static bool start_body(transfer *t) {
  t->started = true;
  long code = answer_code(t);
  if (code != 200 && code != 206) {
    t->stop = STOP_ANSWER;
    return false;
  }
  if (code == 206 && t->range_begin != t->begin) {
    t->stop = STOP_RANGE;
    return false;
  }
  if (code == 206 && t->kept[0] != 0 && strcmp(t->kept, t->tag) != 0) {
    t->stop = STOP_VERSION;
    return false;
  }
  if (code == 200) t->begin = 0;
  if (ftruncate(t->file, t->begin) == 0 && lseek(t->file, t->begin, SEEK_SET) == t->begin) return true;
  /* A device in place of the file cannot be cut; writing to it tells whether it takes the bytes. */
  if (errno == EINVAL && t->begin == 0) return true;
  t->write_errno = errno;
  t->stop = STOP_WRITE;
  return false;
}

static bool write_whole(transfer *t, const char *data, size_t size) {
  while (size > 0) {
    ssize_t written = write(t->file, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      t->write_errno = errno;
      t->stop = STOP_WRITE;
      return false;
    }
    data += written;
    size -= (size_t)written;
  }
  return true;
}

static size_t on_body(char *data, size_t unit, size_t count, void *context) {
  transfer *t = context;
  size_t size = unit * count;
  if (!t->started && !start_body(t)) return 0;
  int64_t expected = t->options->size;
  if (expected > 0 && t->begin + t->received + (int64_t)size > expected) {
    t->stop = STOP_TOO_LONG;
    return 0;
  }
  if (!write_whole(t, data, size)) return 0;
  t->received += (int64_t)size;
  return size;
}

static int on_progress(void *context, curl_off_t total, curl_off_t done, curl_off_t up_total, curl_off_t up) {
  (void)up_total;
  (void)up;
  transfer *t = context;
  if (t->options->progress == NULL) return 0;
  int64_t whole = t->options->size > 0 ? t->options->size : total > 0 ? t->begin + total : 0;
  if (t->options->progress(t->options->context, t->begin + done, whole)) return 0;
  t->stop = STOP_USER;
  return 1;
}

static kp_status stopped(const transfer *t, kp_error *error) {
  const kp_download_options *options = t->options;
  switch (t->stop) {
  case STOP_WRITE:
    errno = t->write_errno;
    return kp_fail_errno(error, KP_ERR_IO, "cannot write %s.part", options->path);
  case STOP_TOO_LONG:
    return kp_fail(error, KP_ERR_INPUT,
                   "%s is longer than the %" PRId64 " bytes expected: it is another file", options->url,
                   options->size);
  case STOP_ANSWER:
    return kp_fail(error, KP_ERR_IO, "%s: the server answered %ld", options->url, answer_code(t));
  case STOP_RANGE:
    return kp_fail(error, KP_ERR_IO, "%s: the server sent bytes from %" PRId64 " on when asked from %" PRId64,
                   options->url, t->range_begin, t->begin);
  case STOP_VERSION:
    return kp_fail(error, KP_ERR_IO,
                   "%s is another version than when the download began: run again to begin anew",
                   options->url);
  default:
    return kp_fail(error, KP_ERR_INTERRUPTED, "the download of %s was stopped after %" PRId64 " bytes",
                   options->url, t->begin + t->received);
  }
}

/* What went wrong, in words that say what to do. */
static kp_status explain(const transfer *t, CURLcode code, kp_error *error) {
  const char *url = t->options->url;
  const bool resumable = t->options->sha256 != NULL || t->tag[0] != 0;
  const char *again = resumable ? "; run again to go on from there" : "";
  int64_t there = t->begin + t->received;
  if (t->stop != STOP_NONE) return stopped(t, error);
  switch (code) {
  case CURLE_UNSUPPORTED_PROTOCOL:
  case CURLE_URL_MALFORMAT:
    return kp_fail(error, KP_ERR_INPUT, "%s leads to something other than http:// or https://", url);
  case CURLE_COULDNT_RESOLVE_PROXY:
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_CONNECT:
    return kp_fail(error, KP_ERR_IO, "cannot reach the server of %s: %s; is there a network?", url,
                   t->curl_message);
  case CURLE_HTTP_RETURNED_ERROR:
    return kp_fail(error, KP_ERR_IO, "%s: the server answered %ld%s", url, answer_code(t),
                   answer_code(t) == 404 ? " (not found)" : "");
  case CURLE_TOO_MANY_REDIRECTS: return kp_fail(error, KP_ERR_IO, "%s redirects without end", url);
  case CURLE_OPERATION_TIMEDOUT:
    return kp_fail(error, KP_ERR_IO, "%s: the server was silent too long; %" PRId64 " bytes are there%s", url,
                   there, again);
  case CURLE_PARTIAL_FILE:
  case CURLE_RECV_ERROR:
  case CURLE_GOT_NOTHING:
    return kp_fail(error, KP_ERR_IO, "%s: the connection was cut; %" PRId64 " bytes are there%s", url, there,
                   again);
  default:
    return kp_fail(error, KP_ERR_IO, "cannot download %s: %s", url,
                   t->curl_message[0] != 0 ? t->curl_message : curl_easy_strerror(code));
  }
}

static long or_default(long value, long fallback) {
  return value > 0 ? value : fallback;
}

static void limit_protocols(CURL *curl) {
#if LIBCURL_VERSION_NUM >= 0x075500
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
#else
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
  curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

/* Asks for the rest alone; of a file without a checksum only if it is still the version that began. */
static struct curl_slist *set_range(transfer *t) {
  char range[32], condition[TAG_SIZE + 16];
  struct curl_slist *headers = NULL;
  if (t->begin == 0) return NULL;
  snprintf(range, sizeof range, "%" PRId64 "-", t->begin);
  curl_easy_setopt(t->curl, CURLOPT_RANGE, range);
  if (t->kept[0] == 0) return NULL;
  snprintf(condition, sizeof condition, "If-Range: %s", t->kept);
  headers = curl_slist_append(NULL, condition);
  curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, headers);
  return headers;
}

static void set_options(transfer *t) {
  CURL *curl = t->curl;
  curl_easy_setopt(curl, CURLOPT_URL, t->options->url);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "kappa");
  limit_protocols(curl);
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 10L);
  curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, or_default(t->options->connect_seconds, 30));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, or_default(t->options->stall_seconds, 60));
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, t->curl_message);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, t);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t);
}

/* Runs the transfer.  *stale tells that the server has no bytes behind those that are there. */
static kp_status run_transfer(transfer *t, bool *stale, kp_error *error) {
  t->curl = curl_easy_init();
  if (t->curl == NULL) return kp_fail(error, KP_ERR_MEMORY, "cannot start curl");
  set_options(t);
  struct curl_slist *headers = set_range(t);
  CURLcode code = curl_easy_perform(t->curl);
  kp_status status = KP_OK;
  *stale = code == CURLE_HTTP_RETURNED_ERROR && answer_code(t) == 416 && t->begin > 0;
  if (code == CURLE_OK && !t->started && !start_body(t)) code = CURLE_WRITE_ERROR; /* an empty body */
  if (code != CURLE_OK) status = explain(t, code, error);
  curl_easy_cleanup(t->curl);
  curl_slist_free_all(headers);
  return status;
}

/* The file beside the .part that keeps the version of what is in there; only where no checksum is known. */
static kp_status tag_path(const char *part, char path[KP_PATH_SIZE], kp_error *error) {
  if (snprintf(path, KP_PATH_SIZE, "%s.tag", part) < KP_PATH_SIZE) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "the path %.60s... is too long", part);
}

static void read_tag(const char *path, char tag[TAG_SIZE]) {
  char *text;
  size_t size;
  tag[0] = 0;
  if (kp_file_read_all(path, TAG_SIZE - 1, &text, &size, NULL) != KP_OK) return;
  if (size > 2 && text[0] == '"' && text[size - 1] == '"' && strpbrk(text, "\r\n") == NULL)
    memcpy(tag, text, size + 1);
  free(text);
}

/* Behind a transfer that broke off.  Without the tag, which a full disk may refuse, the next one begins anew.
 */
static void keep_tag(const char *path, const transfer *t) {
  const bool usable = t->stop != STOP_RANGE && t->stop != STOP_VERSION && t->stop != STOP_ANSWER;
  const char *tag = t->started ? t->tag : t->kept;
  if (usable && tag[0] != 0) kp_file_write_atomic(path, tag, strlen(tag), NULL);
}

/* One transfer into <path>.part, keeping its first `begin` bytes. */
static kp_status transfer_part(const kp_download_options *options, const char *part, int64_t begin,
                               bool *stale, kp_error *error) {
  transfer t = {.options = options, .begin = begin, .range_begin = -1};
  char tag[KP_PATH_SIZE];
  *stale = false;
  KP_TRY(tag_path(part, tag, error));
  if (options->sha256 == NULL && begin > 0) read_tag(tag, t.kept);
  unlink(tag); /* so that a process that is killed leaves none that is wrong */
  t.file = open(part, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (t.file < 0) return kp_fail_errno(error, KP_ERR_IO, "cannot open %s", part);
  kp_status status = run_transfer(&t, stale, error);
  if (status == KP_OK && fsync(t.file) != 0)
    status = kp_fail_errno(error, KP_ERR_IO, "cannot write %s", part);
  if (close(t.file) != 0 && status == KP_OK)
    status = kp_fail_errno(error, KP_ERR_IO, "cannot write %s", part);
  if (status != KP_OK && options->sha256 == NULL) keep_tag(tag, &t);
  return status;
}

/* Whether a regular file stands at `path` with the checksum; an unknown checksum matches nothing. */
static bool is_complete(const char *path, const char *sha256) {
  char found[KP_SHA256_HEX_SIZE];
  if (sha256 == NULL || kp_path_kind_of(path) != KP_PATH_FILE) return false;
  return kp_sha256_file(path, found, NULL) == KP_OK && strcmp(found, sha256) == 0;
}

/* How many bytes of the .part may be kept. */
static int64_t resumable_bytes(const kp_download_options *options, const char *part) {
  struct stat information;
  char path[KP_PATH_SIZE], tag[TAG_SIZE] = "";
  if (options->sha256 == NULL && tag_path(part, path, NULL) == KP_OK) read_tag(path, tag);
  if (options->sha256 == NULL && tag[0] == 0) return 0;
  if (stat(part, &information) != 0 || !S_ISREG(information.st_mode)) return 0;
  if (options->size > 0 && information.st_size >= options->size) return 0;
  return information.st_size;
}

static kp_status check_part(const kp_download_options *options, const char *part, kp_error *error) {
  char found[KP_SHA256_HEX_SIZE];
  if (options->sha256 == NULL) return KP_OK;
  KP_TRY(kp_sha256_file(part, found, error));
  if (strcmp(found, options->sha256) == 0) return KP_OK;
  unlink(part);
  return kp_fail(
      error, KP_ERR_INPUT,
      "what %s gave has sha256 %s, expected was %s; it was removed: try again, or use another mirror",
      options->url, found, options->sha256);
}

kp_status kp_download(const kp_download_options *options, kp_error *error) {
  char part[KP_PATH_SIZE];
  if (is_complete(options->path, options->sha256)) return KP_OK;
  if (snprintf(part, sizeof part, "%s.part", options->path) >= (int)sizeof part)
    return kp_fail(error, KP_ERR_INPUT, "the path %.60s... is too long", options->path);
  if (!is_complete(part, options->sha256)) {
    bool stale;
    kp_status status = transfer_part(options, part, resumable_bytes(options, part), &stale, error);
    if (stale) status = transfer_part(options, part, 0, &stale, error);
    KP_TRY(status);
    KP_TRY(check_part(options, part, error));
  }
  if (rename(part, options->path) != 0)
    return kp_fail_errno(error, KP_ERR_IO, "cannot rename %s to %s", part, options->path);
  return KP_OK;
}
