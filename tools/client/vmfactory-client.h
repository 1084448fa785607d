/* libvmfactory-client: VMs from a vmfactoryd, for runtimes. Plain C, blocking with deadlines, no threads and
 * no event loop of its own.
 *
 *     vmfactory_connect -> vmfactory_acquire -> vmfactory_exec … -> vmfactory_release -> vmfactory_close
 *
 * A handle keeps one connection and makes a new one when that has ended; use one handle per thread. Any thread
 * may use any handle, one at a time. A request that may have been carried out is never sent twice, unless that
 * changes nothing (GET, DELETE).
 *
 * Functions return 0, or a negative errno with *err filled (err may be NULL); outputs (ret_*) are untouched
 * then. Times are in milliseconds or microseconds, as their names say. The library sends no signal and gets no
 * SIGPIPE from the daemon's sockets; for descriptors that vmfactory_exec is to write to, that is up to the caller.
 */
#ifndef VMFACTORY_CLIENT_H
#define VMFACTORY_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMFACTORY_API __attribute__((visibility("default")))

/* code: the daemon's ("busy", "not_found", …), or one of the library's own, with status 0:
 *   unreachable    no daemon answers on the socket                                  -ECONNREFUSED
 *   disconnected   the connection ended before the answer; the request may have been carried out  -ECONNRESET
 *   timeout        a deadline passed; it may have been carried out, too             -ETIMEDOUT
 *   protocol       what answers is no vmfactoryd                                    -EPROTO
 *   cancelled      the cancel descriptor became readable                            -ECANCELED
 *   invalid_argument, no_memory, io                                                 -EINVAL, -ENOMEM, -EIO
 */
struct vmfactory_error {
    char code[32];
    char message[768]; /* UTF-8, one line */
    char hint[256];    /* what to do about it; may be empty */
    int status;        /* of HTTP; 0: there was no answer */
    int retry_after_s; /* 0: not said */
};

struct vmfactory; /* a handle */

/* socket_path NULL: $VMFACTORY_SOCKET, else /run/vmfactory/api.sock, else $XDG_RUNTIME_DIR/vmfactory/api.sock,
 * whichever exists. Connects, so that a daemon that is not there shows at once. */
VMFACTORY_API int vmfactory_connect(const char *socket_path, struct vmfactory **ret,
                                    struct vmfactory_error *err);
/* NULL is fine. */
VMFACTORY_API void vmfactory_close(struct vmfactory *h);
/* For each call that has no deadline of its own; 60000 at first, negative: none. */
VMFACTORY_API void vmfactory_set_timeout_ms(struct vmfactory *h, int64_t timeout_ms);
/* While fd is readable, every call on h ends with "cancelled"; nothing is read from it. -1: none, as at first. */
VMFACTORY_API void vmfactory_set_cancel_fd(struct vmfactory *h, int fd);
/* Where it is connected to. Valid as long as h. */
VMFACTORY_API const char *vmfactory_socket_path(const struct vmfactory *h);

/* --- any request */
struct vmfactory_response {
    int status; /* 200 to 299 */
    char *body; /* NUL-terminated, not counted in len; never NULL */
    size_t len;
    int64_t roundtrip_us; /* from the request's first byte sent to the answer's last byte read */
};
/* path: "/v1/pools", with its query. body: JSON, or NULL. Any status from 400 on is a failure, described by
 * *err. timeout_ms 0: the handle's. */
VMFACTORY_API int vmfactory_request(struct vmfactory *h, const char *method, const char *path,
                                    const char *body, int64_t timeout_ms,
                                    struct vmfactory_response *ret, struct vmfactory_error *err);
/* A path with a name in it, percent-encoded: ("/v1/pools/", name, "/drain"). free(3) it; NULL without memory. */
VMFACTORY_API char *vmfactory_path(const char *before, const char *segment, const char *after);
VMFACTORY_API void vmfactory_response_free(struct vmfactory_response *r);

struct vmfactory_version {
    char name[32], version[32];
    int api;
    int64_t pid, uptime_ms;
    bool admin; /* may the caller do everything? */
};
VMFACTORY_API int vmfactory_version(struct vmfactory *h, struct vmfactory_version *ret,
                                    struct vmfactory_error *err);

/* --- VMs */
#define VMFACTORY_MAX_PORTS 64
#define VMFACTORY_MAX_TAPS 8
struct vmfactory_port { /* of the daemon's host, that leads to the guest */
    int guest;          /* 1 to 65535 */
    int host;           /* 0 in an acquire: a free one of the daemon's range */
    bool udp;           /* else TCP */
};
/* What a VM's network card is connected to, if its template's network is external, and what the guest is told about it.
 * Either a tap by its name, which is for admins, or by descriptors; strings that are NULL stay as the template has them. */
struct vmfactory_external {
    const char *netns; /* absolute path of the namespace that the tap is in; NULL: the daemon's */
    const char *tap;
    /* One for each queue, at most VMFACTORY_MAX_TAPS, made with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR. The daemon gets
     * copies: they stay the caller's, who may close them once the acquire has returned. */
    const int *tap_fds;
    size_t n_tap_fds;
    const char *mac;                 /* "02:00:5e:10:00:01" */
    const char *address4, *gateway4; /* "10.1.2.3/24", "10.1.2.1" */
    const char *address6, *gateway6;
};
struct vmfactory_acquire_options {
    const char *template_name;
    const char *const *
        require; /* accept only these of "hit", "standby", "clone", "cold"; NULL-ended; NULL: any */
    int64_t timeout_ms; /* for the daemon; 0: its default, 30000 */
    int64_t ttl_ms;     /* of the lease; 0: no end */
    /* Ports of the host for this lease; NULL: those of the template's spec, else n_ports of them, which may be 0. */
    const struct vmfactory_port *ports;
    size_t n_ports;
    const struct vmfactory_external *external; /* NULL: none */
};
struct vmfactory_vm {
    char id[64];
    char template_name[64];
    char state[16];
    char source[16];       /* "hit", "standby", "clone" or "cold" */
    char reason[256];      /* why this source */
    int64_t generation;    /* of the template; 0: none (a cold boot) */
    int64_t pid;           /* of the VMM; 0: unknown */
    int64_t expires_in_ms; /* of the lease; -1: no end */
    int64_t total_us;      /* what the daemon needed for it */
    int64_t roundtrip_us;  /* what the caller saw: request sent -> answer read */
    char *json;            /* the whole answer */
    /* Its network; mode "none" if it has none. */
    char network_mode[16];
    char address4[16], address6[46]; /* where the daemon's host reaches the guest; "": nowhere */
    char netns[256];    /* path of the namespace that its VMM is in; "": the daemon's */
    char interface[16]; /* of the daemon's host, that leads to it; "": none */
    struct vmfactory_port ports[VMFACTORY_MAX_PORTS];
    size_t n_ports;
};
/* On a kept connection this costs one write and, if the daemon answers in one piece, one read; with tap_fds, a connection
 * of its own beside it, until the answer. */
VMFACTORY_API int vmfactory_acquire(struct vmfactory *h, const struct vmfactory_acquire_options *o,
                                    struct vmfactory_vm *ret, struct vmfactory_error *err);
VMFACTORY_API int vmfactory_get_vm(struct vmfactory *h, const char *id, struct vmfactory_vm *ret,
                                   struct vmfactory_error *err);
/* ttl_ms from now on; 0: no end. ret may be NULL. */
VMFACTORY_API int vmfactory_renew(struct vmfactory *h, const char *id, int64_t ttl_ms,
                                  struct vmfactory_vm *ret, struct vmfactory_error *err);
/* Destroys the VM; returns when nothing of it is left. Again: no error. */
VMFACTORY_API int vmfactory_release(struct vmfactory *h, const char *id,
                                    struct vmfactory_error *err);
VMFACTORY_API void vmfactory_vm_free(struct vmfactory_vm *vm);

/* --- commands in a VM */
struct vmfactory_exec_options {
    const char *const *argv; /* NULL-ended */
    const char *const *env;  /* "NAME=value", NULL-ended; NULL: the agent's own */
    const char *cwd;         /* NULL: the agent's */
    int64_t timeout_ms;      /* the guest's command is killed then; 0: none */
    /* Standard input: a descriptor that is read as the command takes it, -1: none; or data. */
    int stdin_fd;
    const void *stdin_data;
    size_t stdin_len;
    /* Where output goes: to on_output if it is set, else to these; -1: nowhere. */
    int stdout_fd, stderr_fd;
    /* stream: 1 stdout, 2 stderr. Not 0: end at once, with "cancelled". */
    int (*on_output)(void *arg, int stream, const void *data, size_t len);
    void *arg;
    /* Each byte read from it is a signal's number for the command; 0: end at once. -1: none. */
    int signal_fd;
};
#define VMFACTORY_EXEC_OPTIONS_INIT                                       \
    {                                                                     \
        .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .signal_fd = -1 \
    }
struct vmfactory_exit {
    int code;   /* -1: ended by signal */
    int signal; /* 0: none */
    bool timed_out;
};
/* Runs until the command has ended and its output is written. On a connection of its own: h may be used
 * meanwhile. When the call fails, the command is killed. */
VMFACTORY_API int vmfactory_exec(struct vmfactory *h, const char *id,
                                 const struct vmfactory_exec_options *o, struct vmfactory_exit *ret,
                                 struct vmfactory_error *err);

/* --- pools */
struct vmfactory_pool {
    char template_name[64];
    char state[16]; /* "absent", "loading", "building", "ready", "quarantined" */
    char reason[256];
    int64_t generation; /* 0: none */
    bool drained;
    int64_t target, parked, making, leased, waiting;
    bool build_running;
    char build_stage[32];
    int64_t build_attempts; /* since the daemon's start */
    char refill_state
        [32]; /* "idle", "running", "backoff", "pressure", "drained", "waiting for a template" */
    char refill_reason[256];
    int64_t refill_failures_in_row;
    struct vmfactory_error build_error, refill_error; /* code "": none */
    char *json;
};
VMFACTORY_API int vmfactory_get_pool(struct vmfactory *h, const char *template_name,
                                     struct vmfactory_pool *ret, struct vmfactory_error *err);
VMFACTORY_API void vmfactory_pool_free(struct vmfactory_pool *p);

/* Has the template built if need be and count VMs parked (0: as many as are configured), and waits for it.
 * progress (may be NULL) is called after each look at the pool. Fails when a build that this began has failed, when
 * refilling failed three times in a row, or after timeout_ms (0: 300000; negative: never). ret: the pool at
 * the end, may be NULL. */
VMFACTORY_API int vmfactory_warm(struct vmfactory *h, const char *template_name, int64_t count,
                                 int64_t timeout_ms,
                                 void (*progress)(void *arg, const struct vmfactory_pool *p),
                                 void *arg, struct vmfactory_pool *ret,
                                 struct vmfactory_error *err);

/* --- events */
struct vmfactory_events;
struct vmfactory_event { /* strings are "" where there is none; valid until the next call */
    int64_t seq;
    const char *time, *event, *template_name, *vm, *code, *message;
    int64_t count;    /* of "missed": how many */
    const char *json; /* the line itself, without a newline */
};
/* since: the seq to begin after; 0: all that are kept; negative: only new ones. follow false: ends when all were
 * told. On a connection of its own. */
VMFACTORY_API int vmfactory_events_open(struct vmfactory *h, int64_t since, bool follow,
                                        struct vmfactory_events **ret, struct vmfactory_error *err);
/* 1 and *ret; 0: the stream has ended; negative: failed (-ETIMEDOUT: none within timeout_ms, go on as you like).
 * timeout_ms negative: no deadline. */
VMFACTORY_API int vmfactory_events_next(struct vmfactory_events *e, int64_t timeout_ms,
                                        struct vmfactory_event *ret, struct vmfactory_error *err);
VMFACTORY_API void vmfactory_events_close(struct vmfactory_events *e); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
