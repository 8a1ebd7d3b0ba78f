#include "core/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

kp_status kp_fail(kp_error *error, kp_status status, const char *format, ...) {
  if (error == NULL) return status;
  va_list arguments;
  va_start(arguments, format);
  error->status = status;
  vsnprintf(error->message, sizeof error->message, format, arguments);
  va_end(arguments);
  return status;
}

kp_status kp_fail_errno(kp_error *error, kp_status status, const char *format, ...) {
  int code = errno;
  if (error == NULL) return status;
  va_list arguments;
  va_start(arguments, format);
  error->status = status;
  vsnprintf(error->message, sizeof error->message, format, arguments);
  va_end(arguments);
  size_t length = strlen(error->message);
  snprintf(error->message + length, sizeof error->message - length, ": %s", strerror(code));
  return status;
}

kp_status kp_context(kp_error *error, const char *format, ...) {
  if (error == NULL) return KP_ERR_INPUT;
  char inner[sizeof error->message];
  memcpy(inner, error->message, sizeof inner);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error->message, sizeof error->message, format, arguments);
  va_end(arguments);
  size_t length = strlen(error->message);
  snprintf(error->message + length, sizeof error->message - length, ": %s", inner);
  return error->status;
}
