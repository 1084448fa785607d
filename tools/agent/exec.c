/* Commands as streams.
 *
 *     EXEC -> spawn -> EXEC_OK -> STDOUT, STDERR as the window allows -> child reaped
 *          -> what it left in its pipes -> the ends of both -> EXIT
 *
 * A command is over when its first process is: what that left in the pipes still goes out, but a
 * child it left running (a daemon started by a warm-up command) holds up nothing. When its deadline
 * passes its process group is killed, and what the window does not take at once is dropped.
 *
 * Pipes are watched edge by edge, with a flag for each that says whether it is worth trying, since a
 * pipe that must wait for credit would otherwise wake the loop for ever.
 *
 * What fails on the way: a command that does not start is answered with ERROR; a host that sends more
 * stdin than the window breaks the protocol, and the command is killed; stdin nobody reads any more
 * is credited and dropped.
 */
#include "tools/agent/agent.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_EXECS 64
#define CHUNK 8192
/* A command's way out of the queue at its end: the ends of two streams, EXIT. */
#define END_FRAMES 3
/* How long killed commands are waited for. */
#define END_TIMEOUT_NS 1000000000

struct output {
    int fd;        /* -1: ended and said so */
    bool readable; /* as far as is known */
    int64_t left;  /* bytes still to send once the child is gone; -1: until the end */
};

static struct exec {
    bool used;
    uint32_t id;
    pid_t pid; /* 0: reaped */
    int status;
    bool timed_out;
    int64_t deadline_ns;  /* 0: none */
    uint32_t window;      /* bytes of output the host still takes */
    struct output out[2]; /* stdout, stderr */
    int in_fd;            /* -1: closed */
    bool in_writable, in_ended;
    uint8_t *in; /* VF_WIRE_WINDOW bytes once the pipe was full, used as a ring */
    uint32_t in_head, in_held;
    uint32_t credit_due; /* input that was consumed and not yet told */
} execs[MAX_EXECS];
static int n_used; /* no slot at or after this one is in use */
static int epoll_fd;

void exec_setup(int fd)
{
    epoll_fd = fd;
}

static struct exec *find(uint32_t id)
{
    for (int i = 0; i < n_used; i++)
        if (execs[i].used && execs[i].id == id)
            return &execs[i];
    return NULL;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void release(struct exec *e)
{
    close_fd(&e->in_fd);
    close_fd(&e->out[0].fd);
    close_fd(&e->out[1].fd);
    free(e->in);
    e->in = NULL;
    e->used = false;
    while (n_used > 0 && !execs[n_used - 1].used)
        n_used--;
}

/* The group exists as long as its first process is not reaped. */
static void kill_group(const struct exec *e, int sig)
{
    if (e->pid > 0)
        kill(-e->pid, sig);
}

static bool any_alive(void)
{
    for (int i = 0; i < n_used; i++)
        if (execs[i].used && execs[i].pid > 0)
            return true;
    return false;
}

void exec_reaped(pid_t pid, int status)
{
    for (int i = 0; i < n_used; i++) {
        struct exec *e = &execs[i];
        if (!e->used || e->pid != pid)
            continue;
        e->pid = 0;
        e->status = status;
        close_fd(&e->in_fd);
        /* What is in the pipes now is all the command wrote; others may go on writing. */
        for (int k = 0; k < 2; k++) {
            int n = 0;
            if (e->out[k].fd >= 0 && ioctl(e->out[k].fd, FIONREAD, &n) == 0)
                e->out[k].left = n;
            e->out[k].readable = true;
        }
    }
}

void exec_end_all(void)
{
    if (n_used == 0)
        return;
    int64_t end = now_ns() + END_TIMEOUT_NS;
    sigset_t child;
    int status;

    for (int i = 0; i < n_used; i++)
        if (execs[i].used)
            kill_group(&execs[i], SIGKILL);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    /* They are gone at once, but for one in a system call that can't be interrupted. */
    while (any_alive()) {
        int64_t left_ns = end - now_ns();
        pid_t pid = waitpid(-1, &status, WNOHANG);
        struct timespec wait = {.tv_sec = left_ns / 1000000000, .tv_nsec = left_ns % 1000000000};
        if (pid > 0)
            exec_reaped(pid, status);
        else if (left_ns <= 0 || (sigtimedwait(&child, NULL, &wait) < 0 && errno != EINTR))
            break;
    }
    while (n_used > 0)
        release(&execs[n_used - 1]);
}

static int watch(int slot, int which, int fd, uint32_t events)
{
    /* 0 and 1 are taken by the channel and the signals. */
    struct epoll_event ev = {.events = events | EPOLLET,
                             .data.u64 = 16 + (uint64_t)slot * 4 + (uint64_t)which};

    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : -errno;
}

void exec_start(const struct vf_wire_frame *f)
{
    int slot = 0, fds[3];
    size_t len;
    const uint8_t *p = vf_wire_find(f, VF_TAG_DEADLINE_MS, &len);

    if (find(f->id)) {
        send_error(f->id, EEXIST, "this stream is open");
        return;
    }
    while (slot < MAX_EXECS && execs[slot].used)
        slot++;
    if (slot == MAX_EXECS) {
        send_error(f->id, EAGAIN, "too many commands at once");
        return;
    }
    pid_t pid = spawn(f, fds);
    if (pid < 0) {
        send_error(f->id, -pid, strerror(-pid));
        return;
    }
    struct exec *e = &execs[slot];
    *e = (struct exec){.used = true,
                       .id = f->id,
                       .pid = pid,
                       .window = VF_WIRE_WINDOW,
                       .in_fd = fds[0],
                       .in_writable = true,
                       .out = {{fds[1], true, -1}, {fds[2], true, -1}}};
    if (slot >= n_used)
        n_used = slot + 1;
    if (p && len == 4 && vf_wire_u32(p) > 0)
        e->deadline_ns = now_ns() + (int64_t)vf_wire_u32(p) * 1000000;
    if (watch(slot, 0, fds[0], EPOLLOUT) != 0 || watch(slot, 1, fds[1], EPOLLIN) != 0 ||
        watch(slot, 2, fds[2], EPOLLIN) != 0) {
        kill_group(e, SIGKILL);
        release(e);
        send_error(f->id, ENOMEM, "epoll");
        return;
    }
    vf_wire_start(&writer, VF_MSG_EXEC_OK, e->id);
    vf_wire_put_u32(&writer, VF_TAG_PID, (uint32_t)pid);
    channel_send();
}

void exec_event(uint64_t data)
{
    uint64_t slot = (data - 16) / 4, which = (data - 16) % 4;

    if (data < 16 || slot >= MAX_EXECS || !execs[slot].used)
        return;
    if (which == 0)
        execs[slot].in_writable = true;
    else if (which <= 2)
        execs[slot].out[which - 1].readable = true;
}

/* --- input */

/* Writes as much as the pipe takes. Returns how much; all of it where nobody reads any more. */
static size_t write_input(struct exec *e, const uint8_t *p, size_t len)
{
    size_t done = 0;

    while (done < len && e->in_fd >= 0 && e->in_writable) {
        ssize_t n = write(e->in_fd, p + done, len - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN)
            e->in_writable = false;
        else if (errno != EINTR)
            close_fd(&e->in_fd);
    }
    return e->in_fd < 0 ? len : done;
}

static void pump_input(struct exec *e)
{
    while (e->in_held > 0) {
        uint32_t n = VF_WIRE_WINDOW - e->in_head;
        if (n > e->in_held)
            n = e->in_held;
        uint32_t done = (uint32_t)write_input(e, e->in + e->in_head, n);
        if (done == 0)
            return;
        e->in_head = (e->in_head + done) % VF_WIRE_WINDOW;
        e->in_held -= done;
        e->credit_due += done;
    }
    if (e->in_ended)
        close_fd(&e->in_fd);
}

void exec_stdin(const struct vf_wire_frame *f)
{
    struct exec *e = find(f->id);
    size_t len;
    const uint8_t *p = vf_wire_find(f, VF_TAG_DATA, &len);

    if (!e)
        return; /* it has ended; EXIT is on its way */
    if (!p) {
        e->in_ended = true;
        pump_input(e);
        return;
    }
    size_t done = e->in_held == 0 ? write_input(e, p, len) : 0;
    e->credit_due += (uint32_t)done;
    p += done;
    len -= done;
    if (len == 0)
        return;
    if (!e->in)
        e->in = malloc(VF_WIRE_WINDOW);
    if (!e->in || e->in_ended || len > VF_WIRE_WINDOW - e->in_held) {
        kill_group(e, SIGKILL);
        close_fd(&e->in_fd);
        e->in_held = 0;
        return;
    }
    uint32_t tail = (e->in_head + e->in_held) % VF_WIRE_WINDOW;
    size_t until_wrap = VF_WIRE_WINDOW - tail < len ? VF_WIRE_WINDOW - tail : len;
    memcpy(e->in + tail, p, until_wrap);
    memcpy(e->in, p + until_wrap, len - until_wrap);
    e->in_held += (uint32_t)len;
}

/* Told in large steps while the command runs, since each is a message. */
static void send_credit(struct exec *e)
{
    if (e->credit_due < VF_WIRE_WINDOW / 4)
        return;
    vf_wire_start(&writer, VF_MSG_CREDIT, e->id);
    vf_wire_put_u32(&writer, VF_TAG_BYTES, e->credit_due);
    channel_send();
    e->credit_due = 0;
}

/* --- output */

static void send_output(const struct exec *e, int which, const void *data, size_t len)
{
    vf_wire_start(&writer, which == 0 ? VF_MSG_STDOUT : VF_MSG_STDERR, e->id);
    if (len > 0)
        vf_wire_put(&writer, VF_TAG_DATA, data, len);
    channel_send();
}

/* Sends one piece. Returns true if there may be more. */
static bool pump_output(struct exec *e, int which)
{
    static uint8_t data[CHUNK];
    struct output *o = &e->out[which];
    size_t max = e->window < CHUNK ? e->window : CHUNK;

    if (o->fd < 0 || !o->readable)
        return false;
    if (o->left >= 0 && (uint64_t)o->left < max)
        max = (size_t)o->left;
    ssize_t n = 0;
    if (o->left != 0) {
        if (max == 0 || !channel_room(END_FRAMES))
            return false;
        n = read(o->fd, data, max);
        if (n < 0 && errno == EINTR)
            return true;
        if (n < 0 && errno == EAGAIN && o->left < 0) {
            o->readable = false;
            return false;
        }
    }
    if (n > 0) {
        e->window -= (uint32_t)n;
        if (o->left > 0)
            o->left -= n;
        send_output(e, which, data, (size_t)n);
        return true;
    }
    if (!channel_room(END_FRAMES))
        return false;
    close_fd(&o->fd);
    send_output(e, which, NULL, 0);
    return false;
}

/* Says how the command ended, once all that is to be said before has been. Returns true if so. */
static bool finish(struct exec *e)
{
    if (e->pid != 0 || !channel_room(END_FRAMES))
        return false;
    for (int k = 0; k < 2 && e->timed_out; k++) {
        if (e->out[k].fd < 0)
            continue;
        close_fd(&e->out[k].fd);
        send_output(e, k, NULL, 0);
    }
    if (e->out[0].fd >= 0 || e->out[1].fd >= 0)
        return false;
    vf_wire_start(&writer, VF_MSG_EXIT, e->id);
    if (WIFSIGNALED(e->status))
        vf_wire_put_u32(&writer, VF_TAG_SIGNAL, (uint32_t)WTERMSIG(e->status));
    else
        vf_wire_put_u32(&writer, VF_TAG_STATUS, (uint32_t)WEXITSTATUS(e->status));
    if (e->timed_out)
        vf_wire_put(&writer, VF_TAG_TIMED_OUT, NULL, 0);
    channel_send();
    release(e);
    return true;
}

bool exec_pump(void)
{
    bool more = false;
    int64_t now = 0;

    for (int i = 0; i < n_used; i++) {
        struct exec *e = &execs[i];
        if (!e->used)
            continue;
        if (e->deadline_ns != 0 && !e->timed_out) {
            now = now ? now : now_ns();
            if (now >= e->deadline_ns) {
                e->timed_out = true;
                kill_group(e, SIGKILL);
            }
        }
        pump_input(e);
        if (channel_room(END_FRAMES))
            send_credit(e);
        bool out = pump_output(e, 0), err = pump_output(e, 1);
        if (out || err)
            more = true;
        else
            finish(e);
    }
    return more;
}

void exec_credit(const struct vf_wire_frame *f)
{
    struct exec *e = find(f->id);
    size_t len;
    const uint8_t *p = vf_wire_find(f, VF_TAG_BYTES, &len);

    if (!e || !p || len != 4)
        return;
    uint32_t bytes = vf_wire_u32(p);
    e->window = bytes > VF_WIRE_WINDOW - e->window ? VF_WIRE_WINDOW : e->window + bytes;
}

void exec_kill(const struct vf_wire_frame *f)
{
    struct exec *e = find(f->id);
    size_t len;
    const uint8_t *p = vf_wire_find(f, VF_TAG_SIGNAL, &len);

    if (e && p && len == 4 && vf_wire_u32(p) >= 1 && vf_wire_u32(p) <= 64)
        kill_group(e, (int)vf_wire_u32(p));
}

int exec_timeout_ms(void)
{
    int64_t first = INT64_MAX;

    for (int i = 0; i < n_used; i++)
        if (execs[i].used && execs[i].deadline_ns != 0 && !execs[i].timed_out &&
            execs[i].deadline_ns < first)
            first = execs[i].deadline_ns;
    if (first == INT64_MAX)
        return -1;
    int64_t left_ms = (first - now_ns()) / 1000000 + 1;
    return left_ms < 0 ? 0 : left_ms > 1000000 ? 1000000 : (int)left_ms;
}
