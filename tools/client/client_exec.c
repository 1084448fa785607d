/* A command in a VM, with its streams. See vmfactory-client.h.
 *
 *     POST …/exec, Upgrade -> 101 -> frames both ways until EXIT -> what is left of the output is written
 *
 * One poll(2) loop. Backpressure: at most one frame of input waits for the daemon, and nothing is read from the
 * daemon while output waits for its descriptor, of which at most PIPE_BUF bytes are written at once: so many
 * never block a pipe that poll called writable, even if others write into it too.
 */
#include "tools/client/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "tools/client/frames.h"

#define STDIN_PIECE 16384
#define MAX_SIGNALS 64
#define SIGNAL_PAYLOAD 4

struct talk {
    const struct vmfactory_exec_options *o;
    struct vf_conn conn;
    int cancel_fd;
    /* to the daemon: one frame of input, or signals; start..end waits */
    uint8_t out[VF_FRAME_HEADER + STDIN_PIECE + MAX_SIGNALS * (VF_FRAME_HEADER + SIGNAL_PAYLOAD)];
    size_t out_start, out_end;
    bool stdin_over, signals_over;
    size_t stdin_given; /* of stdin_data */
    /* from the daemon: the payload that is being taken */
    bool in_frame;
    enum vf_frame_type type;
    uint32_t left;
    char exit_text[4096];
    size_t exit_len;
    bool done;
};

static int write_body(const struct vmfactory_exec_options *o, char **ret,
                      struct vmfactory_error *err)
{
    struct vf_json_writer w = {0};

    vf_jw_begin(&w, NULL, '{');
    vf_jw_begin(&w, "argv", '[');
    for (size_t i = 0; o->argv[i] != NULL; i++)
        vf_jw_string(&w, NULL, o->argv[i]);
    vf_jw_end(&w, ']');
    if (o->env != NULL) {
        vf_jw_begin(&w, "env", '[');
        for (size_t i = 0; o->env[i] != NULL; i++)
            vf_jw_string(&w, NULL, o->env[i]);
        vf_jw_end(&w, ']');
    }
    if (o->cwd != NULL)
        vf_jw_string(&w, "cwd", o->cwd);
    if (o->timeout_ms > 0)
        vf_jw_int(&w, "timeout_ms", o->timeout_ms);
    vf_jw_end(&w, '}');
    *ret = vf_jw_finish(&w);
    if (*ret == NULL)
        return vf_client_fail_as(err, -ENOMEM, "no_memory", NULL, "out of memory");
    return 0;
}

/* Asks for the command on a new connection; afterwards frames go both ways on it. */
static int begin(struct vmfactory *h, const char *id, struct talk *t, struct vmfactory_error *err)
{
    char *path = vmfactory_path("/v1/vms/", id, "/exec"), *body = NULL;
    int r;

    r = write_body(t->o, &body, err);
    if (r == 0 && path == NULL)
        r = vf_client_fail_as(err, -ENOMEM, "no_memory", NULL, "out of memory");
    if (r == 0)
        r = vf_client_upgrade(h, &t->conn, path, "vmfactory-exec", body, vf_client_deadline(h, 0),
                              err);
    free(path);
    free(body);
    return r;
}

/* Nothing waits for the daemon: takes the next input of the command. */
static void take_stdin(struct talk *t)
{
    uint8_t *payload = t->out + VF_FRAME_HEADER;
    ssize_t n = 0;

    if (t->o->stdin_fd >= 0) {
        n = read(t->o->stdin_fd, payload, STDIN_PIECE);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        /* A terminal that went away, a directory: for the command, input ends. */
        if (n < 0)
            n = 0;
    } else if (t->o->stdin_len > t->stdin_given) {
        size_t some = t->o->stdin_len - t->stdin_given;

        n = (ssize_t)(some < STDIN_PIECE ? some : STDIN_PIECE);
        memcpy(payload, (const char *)t->o->stdin_data + t->stdin_given, (size_t)n);
        t->stdin_given += (size_t)n;
    }
    vf_frame_header(t->out, VF_FRAME_STDIN, (uint32_t)n);
    t->out_start = 0;
    t->out_end = VF_FRAME_HEADER + (size_t)n;
    t->stdin_over = n == 0;
}

static int take_signals(struct talk *t, struct vf_error *err)
{
    uint8_t bytes[MAX_SIGNALS];
    size_t room = (sizeof(t->out) - t->out_end) / (VF_FRAME_HEADER + SIGNAL_PAYLOAD);
    ssize_t n;

    n = read(t->o->signal_fd, bytes, room < sizeof(bytes) ? room : sizeof(bytes));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n <= 0) {
        t->signals_over = true;
        return 0;
    }
    for (ssize_t i = 0; i < n; i++) {
        uint8_t *p = t->out + t->out_end;

        if (bytes[i] == 0)
            return vf_fail(err, VF_CANCELLED, "ended before the command had");
        vf_frame_header(p, VF_FRAME_SIGNAL, SIGNAL_PAYLOAD);
        memset(p + VF_FRAME_HEADER, 0, 3);
        p[VF_FRAME_HEADER + 3] = bytes[i];
        t->out_end += VF_FRAME_HEADER + SIGNAL_PAYLOAD;
    }
    return 0;
}

static int send_some(struct talk *t, struct vf_error *err)
{
    ssize_t n = send(t->conn.fd, t->out + t->out_start, t->out_end - t->out_start,
                     MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n >= 0)
        t->out_start += (size_t)n;
    else if (errno == EPIPE || errno == ECONNRESET)
        /* The command has ended without reading its input; how, is still to be read. */
        t->out_start = t->out_end, t->stdin_over = t->signals_over = true;
    else if (errno != EAGAIN && errno != EINTR)
        return vf_fail_errno(err, errno, "send");
    if (t->out_start == t->out_end)
        t->out_start = t->out_end = 0;
    return 0;
}

/* Gives some of the payload that has come to whom it is for. */
static int deliver(struct talk *t, struct vf_error *err)
{
    size_t have = t->conn.end - t->conn.start, n = have < t->left ? have : t->left;
    const char *data = t->conn.buf + t->conn.start;
    int fd = t->type == VF_FRAME_STDOUT ? t->o->stdout_fd : t->o->stderr_fd;

    if (t->type == VF_FRAME_EXIT) {
        if (n > sizeof(t->exit_text) - t->exit_len)
            return vf_fail(err, VF_PROTOCOL, "too long an exit status");
        memcpy(t->exit_text + t->exit_len, data, n);
        t->exit_len += n;
    } else if (t->o->on_output != NULL) {
        if (n > 0 && t->o->on_output(t->o->arg, (int)t->type, data, n) != 0)
            return vf_fail(err, VF_CANCELLED, "ended before the command had");
    } else if (fd >= 0 && n > 0) {
        ssize_t w = write(fd, data, n < PIPE_BUF ? n : PIPE_BUF);

        if (w < 0 && errno != EAGAIN && errno != EINTR) {
            int errnum = errno;

            vf_fail(err, VF_IO, "write the command's output: %s", strerror(errnum));
            return -errnum;
        }
        n = w > 0 ? (size_t)w : 0;
    }
    vf_conn_take(&t->conn, n);
    t->left -= (uint32_t)n;
    if (t->left == 0) {
        t->in_frame = false;
        t->done = t->type == VF_FRAME_EXIT;
    }
    return 0;
}

/* The descriptor that what has come waits for, or -1: it can be taken at once, or nothing has come. */
static int waits_for(const struct talk *t)
{
    if (!t->in_frame || t->left == 0 || t->conn.end == t->conn.start || t->o->on_output != NULL)
        return -1;
    return t->type == VF_FRAME_STDOUT   ? t->o->stdout_fd
           : t->type == VF_FRAME_STDERR ? t->o->stderr_fd
                                        : -1;
}

/* Takes frames as far as it goes without waiting. */
static int take_frames(struct talk *t, struct vf_error *err)
{
    int r;

    while (!t->done && waits_for(t) < 0) {
        if (!t->in_frame) {
            r = vf_frame_parse(t->conn.buf + t->conn.start, t->conn.end - t->conn.start, &t->type,
                               &t->left, err);
            if (r <= 0)
                return r;
            vf_conn_take(&t->conn, VF_FRAME_HEADER);
            t->in_frame = true;
            continue;
        }
        if (t->left > 0 && t->conn.end == t->conn.start)
            return 0;
        r = deliver(t, err);
        if (r < 0)
            return r;
    }
    return 0;
}

enum { AT_SOCKET, AT_STDIN, AT_OUTPUT, AT_SIGNALS, AT_CANCEL, AT_COUNT };

/* One turn: waits for what can go on, and does it. */
static int turn(struct talk *t, struct vf_error *err)
{
    bool idle = t->out_end == 0, stdin_now = idle && !t->stdin_over;
    bool signals_now =
        !t->signals_over && sizeof(t->out) - t->out_end >= VF_FRAME_HEADER + SIGNAL_PAYLOAD;
    int output = waits_for(t), r = 0;
    struct pollfd p[AT_COUNT] = {
        [AT_SOCKET] = {.fd = t->conn.fd,
                       .events = (short)((output < 0 ? POLLIN : 0) | (idle ? 0 : POLLOUT))},
        [AT_STDIN] = {.fd = stdin_now ? t->o->stdin_fd : -1, .events = POLLIN},
        [AT_OUTPUT] = {.fd = output, .events = POLLOUT},
        [AT_SIGNALS] = {.fd = signals_now ? t->o->signal_fd : -1, .events = POLLIN},
        [AT_CANCEL] = {.fd = t->cancel_fd, .events = POLLIN},
    };

    if (stdin_now && t->o->stdin_fd < 0) {
        take_stdin(t);
        return 0;
    }
    /* A peer that has hung up is always ready: it must not turn this into a spin while output waits. */
    if (p[AT_SOCKET].events == 0)
        p[AT_SOCKET].fd = -1;
    if (poll(p, AT_COUNT, -1) < 0)
        return errno == EINTR ? 0 : vf_fail_errno(err, errno, "poll");
    if (p[AT_CANCEL].revents != 0)
        return vf_fail(err, VF_CANCELLED, "cancelled");
    if (p[AT_SIGNALS].revents != 0)
        r = take_signals(t, err);
    if (r == 0 && p[AT_STDIN].revents != 0 && t->out_end == 0)
        take_stdin(t);
    if (r == 0 && t->out_end > 0)
        r = send_some(t, err);
    if (r == 0 && p[AT_OUTPUT].revents != 0)
        r = deliver(t, err);
    if (r == 0 && (p[AT_SOCKET].revents & (POLLIN | POLLHUP | POLLERR)) != 0 && output < 0) {
        r = vf_conn_fill(&t->conn, VF_NEVER, err);
        /* Reset: it has closed with input of ours unread. */
        if (r == 0 || r == -ECONNRESET)
            return vf_fail(err, VF_PROTOCOL,
                           "the connection ended before the command's exit status");
    }
    return r < 0 ? r : take_frames(t, err);
}

static int read_exit(const struct talk *t, struct vmfactory_exit *ret, struct vmfactory_error *err)
{
    struct vf_json *j = vf_json_parse(t->exit_text, t->exit_len);
    const struct vf_json *e = vf_json_get(j, "exit");
    struct vmfactory_error failed;
    int r = 0;

    vf_client_read_error(vf_json_get(j, "error"), &failed);
    if (failed.code[0] != '\0')
        r = vf_client_fail_as(err, -EREMOTEIO, failed.code, failed.hint, "%s", failed.message);
    else if (!vf_json_is_object(e))
        r = vf_client_fail_as(err, -EPROTO, "protocol", NULL, "the command's exit status is none");
    else
        *ret = (struct vmfactory_exit){
            .code = (int)vf_json_int(vf_json_get(e, "code"), -1),
            .signal = (int)vf_json_int(vf_json_get(e, "signal"), 0),
            .timed_out = vf_json_bool(vf_json_get(e, "timed_out"), false),
        };
    vf_json_delete(j);
    return r;
}

int vmfactory_exec(struct vmfactory *h, const char *id, const struct vmfactory_exec_options *o,
                   struct vmfactory_exit *ret, struct vmfactory_error *err)
{
    struct talk *t = calloc(1, sizeof(*t));
    struct vf_error e = {0};
    int r;

    if (t == NULL)
        return vf_client_fail_as(err, -ENOMEM, "no_memory", NULL, "out of memory");
    t->o = o;
    t->conn = VF_CONN_INIT;
    t->conn.cancel_fd = t->cancel_fd = h->conn.cancel_fd;
    r = begin(h, id, t, err);
    if (r < 0)
        goto out;
    /* From here on the loop watches it. */
    t->conn.cancel_fd = -1;
    r = take_frames(t, &e);
    while (r >= 0 && !t->done)
        r = turn(t, &e);
    r = r < 0 ? vf_client_fail(err, &e, r) : read_exit(t, ret, err);
out:
    vf_conn_close(&t->conn);
    free(t);
    return r;
}
