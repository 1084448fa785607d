/* Structured logging to one descriptor, one line an event, text or JSON.
 *
 * A line carries time, level, the VM's id (if any), the message and the error's fields (if any).
 * Library code returns errors; only the edge logs, once. Control characters are escaped, so that
 * what a guest or VMM says can't forge a line. Thread-safe: one write(2) a line.
 */
#ifndef VF_BASE_LOG_H
#define VF_BASE_LOG_H

#include "base/error.h"

enum vf_log_level { VF_LOG_DEBUG, VF_LOG_INFO, VF_LOG_WARN, VF_LOG_ERROR, VF_LOG_OFF };
enum vf_log_format { VF_LOG_TEXT, VF_LOG_JSON };

/* Default: stderr, VF_LOG_INFO, text. */
void vf_log_setup(int fd, enum vf_log_level min, enum vf_log_format format);
/* "debug", "info", "warn", "error", "off". Returns 0 or -EINVAL. */
int vf_log_parse_level(const char *name, enum vf_log_level *ret_level);

/* vm may be NULL. */
void vf_log(enum vf_log_level level, const char *vm, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with an error's code, message and hint as fields of their own. */
void vf_log_error(enum vf_log_level level, const char *vm, const struct vf_error *err,
                  const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
