/* The part of the benchmark that measures a daemon: a real vmfactoryd in a scratch directory, asked over its
 * sockets.
 *
 *     daemon_run.c     starts and stops it; what it has: memory, descriptors, threads, files
 *     daemon_client.c  one connection: a request is sent, its answer read
 *     daemon_pool.c    templates, pools, acquire and release
 *     daemon_vms.c     figures of VMs handed out one at a time: which daemon, which pool
 *     daemon_hits.c    and how they are taken
 *     daemon_load.c    many connections in one thread
 *     daemon_cycles.c  clients that acquire, hold, release
 *     daemon_many.c    figures of 1,000 VMs, and of 64 clients
 *     daemon_soak.c    does it grow?
 *     daemon_nets.c    VMs with a network beside the same without
 *     daemon_report.c  the table and the JSON
 */
#ifndef VF_TOOLS_BENCH_DAEMON_H
#define VF_TOOLS_BENCH_DAEMON_H

#include <stdarg.h>
#include <stdbool.h>
#include <sys/types.h>
#include "base/json.h"
#include "tools/bench/bench.h"

/* --- daemon_client.c */
struct client {
    const char *path; /* of the socket */
    int fd;           /* -1: not connected */
    char *buf;        /* the last answer, NUL-terminated */
    size_t len, cap;
    int status;
    char *body; /* in buf */
};
/* Connects if it is not, sends, reads the whole answer. Any status is success. */
int client_ask(struct client *c, const char *method, const char *target, const char *body,
               struct vf_error *err);
void client_close(struct client *c);
void client_free(struct client *c);
int client_connect(const char *path, int *ret_fd, struct vf_error *err);
/* A request as text; its length, or -1 if it doesn't fit. body may be NULL. */
int client_compose(char *buf, size_t size, const char *method, const char *target,
                   const char *body);
/* Has text, NUL-terminated at len, a whole answer? Then its length, else 0; -1: it is none of ours. */
ssize_t client_answer_length(const char *text, size_t len, int *ret_status, size_t *ret_body);

/* --- daemon_run.c */
struct daemon_use { /* what a daemon has */
    int64_t rss_kib, fds, threads, files;
};
struct bench_daemon {
    struct bench *bench;
    char dir[64], state[96], run_base[64], run[96], api[112], stats[112];
    pid_t pid;
    struct client control;
};
/* settings: "name=value", NULL-ended. Close also after a failure. */
int daemon_open(struct bench_daemon *d, struct bench *b, const char *const *settings,
                struct vf_error *err);
int daemon_close(struct bench_daemon *d, struct vf_error *err);
/* How many VMs have a directory. */
int64_t daemon_vm_dirs(const struct bench_daemon *d);
int daemon_use(const struct bench_daemon *d, struct daemon_use *ret, struct vf_error *err);

/* --- daemon_pool.c */
struct got { /* an acquired VM */
    char id[16], source[16];
    int64_t round_trip_us; /* request sent (before that: connected, if it was not) to answer read */
    int64_t total_us;      /* by the daemon's own clock */
    int64_t stages_us;     /* of that, the VM's own */
};
/* A spec's text with these values. */
#define NULL_SPEC "{\"name\":\"null\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16}}"
int pool_add(struct bench_daemon *d, const char *spec, const char *base_dir, struct vf_error *err);
int pool_add_subject(struct bench_daemon *d, const char *specs, const struct subject *of,
                     struct vf_error *err);
/* Sets, warms, and waits until it is as set. config: JSON. */
int pool_fill(struct bench_daemon *d, const char *name, const char *config, struct vf_error *err);
/* Waits until so many are parked and on standby, and nothing is leased, in the making or being released. */
int pool_await(struct bench_daemon *d, const char *name, struct vf_error *err);
/* require: a source, or NULL. */
int pool_acquire(struct client *c, const char *name, const char *require, struct got *ret,
                 struct vf_error *err);
int pool_release(struct client *c, const char *id, struct vf_error *err);

/* --- daemon_load.c */
struct load;
struct load_conn {
    struct load *load;
    int fd;
    char *buf;
    size_t len, cap, sent, request_len;
    char request[512], id[16];
    int64_t due_us;   /* not before; VF_NEVER: it has nothing more to ask */
    int64_t asked_us; /* 0: no answer is awaited */
    int step;
};
struct load {
    struct bench_daemon *d;
    const char *path;
    int n;
    /* Fills c->request, or sets due_us to VF_NEVER. */
    void (*next)(struct load_conn *c);
    /* The answer to it; false ends everything, with l->err filled. */
    bool (*answered)(struct load_conn *c, int status, const char *body, int64_t us);
    void *arg;
    struct vf_error err;
};
int load_run(struct load *l, struct vf_error *err);

/* --- daemon_cycles.c: acquire and release by many clients */
struct cycles {
    int clients;
    int64_t count;             /* VMs, in all */
    int64_t think_us, hold_us; /* on average, evenly spread from 0 to twice that; 0: none */
    bool keep;                 /* release them after all were acquired */
    const char *template_name;
    struct series acquire;          /* round trips */
    int64_t hits, refused, took_us; /* took_us: from the first to the last acquire's answer */
    /* inside */
    int64_t begun, began_us;
    char (*kept)[16];
    int64_t n_kept;
};
int cycles_run(struct cycles *c, struct bench_daemon *d, struct vf_error *err);

/* --- daemon_hits.c: template name; guest: for the figures' names */
/* On VMs parked running, n a round, one after the other and each after a pause. also: takes the times of the former,
 * a new connection each; may be NULL. */
int hits(struct bench_daemon *d, const char *name, const char *guest, int rounds, int n,
         struct series *also, struct vf_error *err);
/* In turn with clones of gen woken by hand. */
int paused_hits(struct bench_daemon *d, const char *name, const char *guest,
                struct vf_generation *gen, struct vf_error *err);
int standby_and_clone(struct bench_daemon *d, const char *name, const char *guest,
                      struct vf_error *err);

/* --- the figures */
int daemon_vms(struct bench *b, const char *specs, struct vf_error *err);
/* running: hits on VMs parked running too. */
int daemon_guest(struct bench *b, const char *specs, const struct subject *of, bool running,
                 struct vf_error *err);
int daemon_many(struct bench *b, struct vf_error *err);

/* --- daemon_report.c. A figure to be filled; its name is copied, against is not. */
struct figure *figure_add(struct bench *b, enum figure_judge judge, double target,
                          const char *against, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Of a single value. */
void figure_value(struct bench *b, enum figure_judge judge, double target, const char *unit,
                  double value, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

#endif
