/* One line an event. See log.h.
 *
 * Text:  2026-01-02T03:04:05.678901Z WARN [vm-7] message: the error's text (code timeout; hint: …)
 * JSON:  {"time":…,"level":"warn","vm":"vm-7","msg":…,"code":…,"error":…,"hint":…}
 *
 * A line is put together on the stack and leaves in one write(2) under a lock. In text, control
 * characters, invalid UTF-8 and the backslash itself are written as \xNN and \\. A descriptor that
 * takes nothing (full, closed) loses the line: logging never fails and never waits for a reader who
 * made it non-blocking.
 */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/json.h"
#include "base/utf8.h"

/* A longer message is cut. Every byte of it may become four. */
#define MAX_MESSAGE 2048
#define MAX_LINE (4 * (MAX_MESSAGE + (int)sizeof(struct vf_error)) + 512)

static struct {
    pthread_mutex_t lock;
    int fd;
    enum vf_log_level min;
    enum vf_log_format format;
} out = {PTHREAD_MUTEX_INITIALIZER, STDERR_FILENO, VF_LOG_INFO, VF_LOG_TEXT};

static const char *const level_names[] = {
    [VF_LOG_DEBUG] = "debug", [VF_LOG_INFO] = "info", [VF_LOG_WARN] = "warn",
    [VF_LOG_ERROR] = "error", [VF_LOG_OFF] = "off",
};

void vf_log_setup(int fd, enum vf_log_level min, enum vf_log_format format)
{
    pthread_mutex_lock(&out.lock);
    out.fd = fd;
    out.min = min;
    out.format = format;
    pthread_mutex_unlock(&out.lock);
}

int vf_log_parse_level(const char *name, enum vf_log_level *ret_level)
{
    for (int i = VF_LOG_DEBUG; i <= VF_LOG_OFF; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *ret_level = (enum vf_log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

struct line {
    char buf[MAX_LINE];
    size_t len;
};

/* Adds text that is ours. Room for the final newline is always kept. */
static void add(struct line *l, const char *text)
{
    size_t n = strlen(text), room = sizeof(l->buf) - 1 - l->len;

    if (n > room)
        n = room;
    memcpy(l->buf + l->len, text, n);
    l->len += n;
}

/* Adds text that anybody may have written. */
static void add_escaped(struct line *l, const char *text)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < len;) {
        char piece[20] = "";
        uint32_t cp = 0;
        size_t n = vf_utf8_next(text + i, len - i, &cp);

        if (n == 0 || vf_utf8_is_control(cp)) {
            if (n == 0)
                n = 1;
            for (size_t k = 0; k < n; k++)
                snprintf(piece + 4 * k, 5, "\\x%02x", (unsigned char)text[i + k]);
        } else if (cp == '\\') {
            memcpy(piece, "\\\\", 3);
        } else {
            memcpy(piece, text + i, n);
        }
        if (strlen(piece) > sizeof(l->buf) - 1 - l->len)
            return;
        add(l, piece);
        i += n;
    }
}

static void text_line(struct line *l, const char *at, enum vf_log_level level, const char *vm,
                      const char *msg, const struct vf_error *err)
{
    static const char *const names[] = {"DEBUG ", "INFO ", "WARN ", "ERROR "};

    add(l, at);
    add(l, " ");
    add(l, names[level]);
    if (vm != NULL) {
        add(l, "[");
        add_escaped(l, vm);
        add(l, "] ");
    }
    add_escaped(l, msg);
    if (err != NULL) {
        add(l, ": ");
        add_escaped(l, err->msg);
        add(l, " (code ");
        add(l, vf_code_name(err->code));
        if (err->hint[0] != '\0') {
            add(l, "; hint: ");
            add_escaped(l, err->hint);
        }
        add(l, ")");
    }
}

/* Malloc'd, without a newline; NULL without memory. */
static char *json_line(const char *at, enum vf_log_level level, const char *vm, const char *msg,
                       const struct vf_error *err)
{
    struct vf_json_writer w = {0};

    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "time", at);
    vf_jw_string(&w, "level", level_names[level]);
    if (vm != NULL)
        vf_jw_string(&w, "vm", vm);
    vf_jw_string(&w, "msg", msg);
    if (err != NULL) {
        vf_jw_string(&w, "code", vf_code_name(err->code));
        vf_jw_string(&w, "error", err->msg);
        if (err->hint[0] != '\0')
            vf_jw_string(&w, "hint", err->hint);
    }
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

/* Under the lock: lines of two threads never mix. */
static void write_line(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(out.fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        data += n;
        len -= (size_t)n;
    }
}

static void timestamp(char *buf, size_t size)
{
    struct timespec ts;
    struct tm tm;
    size_t n;

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    n = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(buf + n, size - n, ".%06ldZ", ts.tv_nsec / 1000);
}

static void emit(enum vf_log_level level, const char *vm, const struct vf_error *err,
                 const char *fmt, va_list ap)
{
    struct line l;
    char msg[MAX_MESSAGE], at[40];
    char *json = NULL;
    int n = vsnprintf(msg, sizeof(msg), fmt, ap);

    if (n < 0)
        msg[0] = '\0';
    else if ((size_t)n >= sizeof(msg))
        msg[vf_utf8_cut(msg, sizeof(msg) - 1)] = '\0';

    pthread_mutex_lock(&out.lock);
    if (level >= out.min && level < VF_LOG_OFF) {
        timestamp(at, sizeof(at)); /* under the lock: in the order of the lines */
        if (out.format == VF_LOG_JSON)
            json = json_line(at, level, vm, msg, err);
        if (json != NULL) {
            size_t len = strlen(json);

            json[len] = '\n'; /* in the NUL's place: one write */
            write_line(json, len + 1);
        } else { /* also what is left to do without memory */
            l.len = 0;
            text_line(&l, at, level, vm, msg, err);
            l.buf[l.len++] = '\n';
            write_line(l.buf, l.len);
        }
    }
    pthread_mutex_unlock(&out.lock);
    free(json);
}

void vf_log(enum vf_log_level level, const char *vm, const char *fmt, ...)
{
    int saved = errno;
    va_list ap;

    va_start(ap, fmt);
    emit(level, vm, NULL, fmt, ap);
    va_end(ap);
    errno = saved;
}

void vf_log_error(enum vf_log_level level, const char *vm, const struct vf_error *err,
                  const char *fmt, ...)
{
    int saved = errno;
    va_list ap;

    va_start(ap, fmt);
    emit(level, vm, err, fmt, ap);
    va_end(ap);
    errno = saved;
}
