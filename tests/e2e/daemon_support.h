/* What tests of the daemon share: a vmfactoryd of their own in a scratch directory, and a raw HTTP client, which
 * can be as rude as a test needs it.
 *
 *     struct dmn d;
 *     dmn_open(&d, NULL);                              // state and run directory, started, ready
 *     dmn_null_template(&d, "web", 4);                 // VMs in memory, four of them parked
 *     char *vm = dmn_call(&d, 201, "POST", "/v1/vms", "{\"template\":\"web\"}");
 *     …
 *     dmn_close(&d);                                   // stopped; fails on a VM's directory that is left
 *
 * All of it fails the test itself. Waiting ends with an event or after DMN_LONG_MS.
 */
#ifndef VF_TESTS_E2E_DAEMON_SUPPORT_H
#define VF_TESTS_E2E_DAEMON_SUPPORT_H

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/json.h"

#define DMN_LONG_MS 60000
#define DMN_MAX_ARGS 32

struct dmn {
    char dir[64];     /* scratch, absolute: state/, log */
    char run_dir[64]; /* scratch for run/, in memory where that is possible, as /run is */
    char state[80], run[80];
    pid_t pid; /* 0: not running */
    int pidfd, notify_fd;
    const char *args[DMN_MAX_ARGS];
};

/* args: more of the command line, NULL-ended, or NULL; they stay the caller's. dmn_open is dmn_prepare and
 * dmn_start. */
void dmn_open(struct dmn *d, const char *const *args);
void dmn_prepare(struct dmn *d, const char *const *args);
/* Starts the daemon and waits until it says that it is ready. */
void dmn_start(struct dmn *d);
/* True: it is ready; false: it has ended, and dmn_wait tells how. */
bool dmn_try_start(struct dmn *d);
/* The same as dmn_start, but it is expected to end by itself: its exit status. */
int dmn_start_fails(struct dmn *d);
/* SIGKILL, then dmn_start goes on in the same directories. */
void dmn_kill(struct dmn *d);
/* SIGTERM; its exit status, or 128 + a signal's number. */
int dmn_stop(struct dmn *d);
/* Waits for its end, whatever it comes of. */
int dmn_wait(struct dmn *d);
void dmn_signal(struct dmn *d, int signum);
/* Stops it if it runs (which must end with status 0), and removes the directories. */
void dmn_close(struct dmn *d);
/* All it has logged; the test frees it. */
char *dmn_log(const struct dmn *d);
/* Processes that were started by this path (a VMM's, best a name in d->dir that nobody else uses). */
int dmn_vmms(const char *name);
/* Directories of VMs in the run directory; descriptors, KiB of resident memory of the daemon. */
int dmn_vm_dirs(const struct dmn *d);
/* Until there are n: a VM is out of every count before its directory is removed. */
void dmn_await_vm_dirs(const struct dmn *d, int64_t n);
int dmn_fds(const struct dmn *d);
int64_t dmn_rss_kib(const struct dmn *d);

/* Lets every user connect to api.sock: as one who is no admin. Takes root. */
void dmn_let_all_in(struct dmn *d);

/* ---- one request, one answer. The body is malloc'd and NUL-terminated. body: NULL: none */
char *dmn_call(struct dmn *d, int want_status, const char *method, const char *path,
               const char *body);
/* The same, parsed; the test deletes it. */
struct vf_json *dmn_json(struct dmn *d, int want_status, const char *method, const char *path,
                         const char *body);
/* A member by its path, "lease.uid". */
const struct vf_json *dmn_get(const struct vf_json *j, const char *path);
const char *dmn_str(const struct vf_json *j, const char *path);
int64_t dmn_int(const struct vf_json *j, const char *path); /* -1: not there */

/* Adds a template of VMs in memory, and warms it: parked > 0. */
void dmn_null_template(struct dmn *d, const char *name, int parked);
/* Waits until member of GET path is at least (exactly) n, looking again at each event; true counts as 1. */
void dmn_wait_for(struct dmn *d, const char *path, const char *member, int64_t n);
void dmn_wait_least(struct dmn *d, const char *path, const char *member, int64_t n);

/* ---- a connection */
struct dmn_conn {
    int fd;
    char *buf; /* what was received and not used yet: len bytes at at */
    size_t at, len, cap;
    int status;
    char head[8192]; /* of the last answer, with its lines */
    int64_t left;    /* of its body, or of the chunk */
    bool chunked, ended, eof;
};

/* socket: "api.sock", "stats.sock" */
void dmn_dial(struct dmn *d, struct dmn_conn *c, const char *socket);
void dmn_hang_up(struct dmn_conn *c);
/* All of it, however long that takes. Returns false if the peer closed. */
bool dmn_send(struct dmn_conn *c, const void *data, size_t len);
/* A request with Host and Content-Length; headers: more of them, each ending in \r\n, or NULL. */
void dmn_ask(struct dmn_conn *c, const char *method, const char *path, const char *headers,
             const char *body);
/* Reads an answer's head; its status, or 0 if the peer closed instead. 100 Continue is skipped. */
int dmn_head(struct dmn_conn *c);
/* A header of it, in a static buffer, or NULL. */
const char *dmn_header(const struct dmn_conn *c, const char *name);
/* Up to size bytes of the body; 0: its end. */
size_t dmn_body(struct dmn_conn *c, void *buf, size_t size);
/* All that is left of it, malloc'd, NUL-terminated. */
char *dmn_rest(struct dmn_conn *c);
/* The next line of it without its newline; false: the end. */
bool dmn_line(struct dmn_conn *c, char *buf, size_t size);
/* Exactly size bytes as they come, of an upgraded connection; false: closed before. */
bool dmn_bytes(struct dmn_conn *c, void *buf, size_t size);
/* Waits until the peer closes; what comes before is thrown away. */
void dmn_await_close(struct dmn_conn *c);

#endif
