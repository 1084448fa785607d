/* What the end-to-end tests share: a loop that runs until something has happened or a deadline fails the
 * test, a directory that is gone afterwards, a count of what a test left behind, VMs and a small
 * client of the agent protocol.
 *
 *     struct sup s;
 *     sup_open(&s);
 *     struct sup_vm *v = sup_vm_new(&s, target, "a");
 *     …
 *     sup_close(&s);    // fails on a live handle, descriptor, child process or file
 *
 * All of it fails the test itself; only what is named try_ or returns a code hands errors back.
 */
#ifndef VF_TESTS_E2E_SUPPORT_H
#define VF_TESTS_E2E_SUPPORT_H

#include <criterion/criterion.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>
#include "base/wire.h"
#include "vmm/null.h"

#define SUP_MAX_VMS 256
#define SUP_MAX_FDS 512
#define SUP_LONG_MS 60000 /* no test waits longer for one thing */

struct sup_vm;

struct sup {
    uv_loop_t loop;
    char dir[64]; /* absolute */
    int dirfd;
    char *fds[SUP_MAX_FDS]; /* what each descriptor was at the beginning, or NULL */
    struct sup_vm *vms[SUP_MAX_VMS];
    int n_vms;
};

void sup_open(struct sup *s);
/* Every VM must have been stopped by sup_vm_stop, everything else closed by the test. */
void sup_close(struct sup *s);
/* Only the checks, in the middle of a test: no child, and no descriptor more than at the beginning but
 * for `more` of them. */
void sup_check_leaks(struct sup *s, int more);
/* Descriptors open now. */
int sup_count_fds(void);
int sup_highest_fd(void);
int sup_count_children(void);
/* Names in a directory, without . and .. */
int sup_count_files(int dirfd);

/* Runs the loop until *flag; fails the test after timeout_ms with what. */
void sup_run(struct sup *s, const bool *flag, int64_t timeout_ms, const char *what);
/* Waits until the loop has something to do, *also (may be NULL) is ready, or the deadline. */
void sup_wait_loop(struct sup *s, int64_t deadline_us, struct pollfd *also);
/* n turns of the loop that do not wait. */
void sup_turns(struct sup *s, int n);

/* "SKIPPED suite.name: reason" to stderr, then the test is counted as skipped. */
#define sup_skip(suite, name, ...) sup_skip_(suite, name, __VA_ARGS__)
void sup_skip_(const char *suite, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- targets: driver, accelerator, guest */

struct sup_target {
    const char *name;
    const char *driver;
    enum vf_accel accel;
    bool linux_guest; /* else tiny */
    bool vsock;       /* the agent's channel; else the guest's usual one */
};
extern const struct sup_target sup_null, sup_qemu_kvm_tiny, sup_qemu_tcg_tiny, sup_qemu_tcg_linux,
    sup_cloud_hypervisor_tiny, sup_firecracker_tiny, sup_cloud_hypervisor_tiny_vsock,
    sup_firecracker_tiny_vsock;
/* NULL if the target can run here, else the reason why not. */
const char *sup_target_missing(const struct sup_target *t);
/* The QEMU to use: $VF_QEMU or Debian's. */
const char *sup_qemu(void);
/* $VF_CLOUD_HYPERVISOR, $VF_FIRECRACKER or on PATH, behind the shim where this host needs it (tests/fakes/kvm-shim.c);
 * NULL: there is none. */
const char *sup_cloud_hypervisor(void);
const char *sup_firecracker(void);
/* The one of a target's driver; NULL: there is none. */
const char *sup_target_binary(const struct sup_target *t);
/* $VF_BUILD/guest/name; in a static buffer. */
const char *sup_guest_file(const char *name);

/* ---- VMs */

enum { SUP_MAX_EVENTS = 64 };

struct sup_op {
    bool done;
    int calls; /* of the callback */
    enum vf_code code;
    struct vf_error err;
};

struct sup_vm {
    struct sup *s;
    const struct sup_target *target;
    struct vf_vm *vm;
    struct vf_vm_config cfg;
    char name[32];
    int dirfd;
    int own_memory;   /* -1: it has that of somebody else */
    struct sup_op op; /* the last one submitted */
    struct sup_op stop;
    enum vf_vm_event_type events[SUP_MAX_EVENTS];
    char detail[256]; /* of the last event */
    int n_events;
    int exited_events;
    bool exited, failed; /* such an event came */
};

/* A VM with a directory of its own, not yet created; cfg is filled for a template of target. */
struct sup_vm *sup_vm_new(struct sup *s, const struct sup_target *t, const char *name);
/* Another vm for v, whose own was let go and freed: to adopt with sup_on_done and &v->op, then sup_wait. */
void sup_vm_renew(struct sup_vm *v);
/* The end of an operation: arg is its struct sup_op. */
void sup_on_done(void *arg, const struct vf_error *err);
/* A clone's config: the template's memory as it was saved, private, incoming. */
struct sup_vm *sup_vm_clone_of(struct sup *s, const struct sup_vm *tpl, const char *name);
/* A memfd of the target's size, or a file with a name for a driver that needs one; the test closes it. */
int sup_memory(const struct sup_target *t);
/* Whether the target's driver saves from a file with a name only. */
bool sup_linked_memory(const struct sup_target *t);
/* A memfd with the same content, as the clones of such a target get it; the test closes it. */
int sup_clone_memory(const struct sup_target *t, int fd);
/* Removes what sup_memory has given names to: for sup_close. */
void sup_remove_linked(void);
/* The digest of all of it, hexadecimal, 65 bytes. */
void sup_digest(int fd, char ret_hex[65]);
/* A directory below s->dir; the test closes it. */
int sup_dir(struct sup *s, const char *name);

/* Submits; the result is the submission's. dirfd is used by save and restore. */
int sup_try(struct sup_vm *v, enum vf_vm_op op, int dirfd, int64_t timeout_ms,
            struct vf_error *err);
/* Submits (which must succeed) and waits for the end; returns its code, v->op.err has the words. */
enum vf_code sup_do(struct sup_vm *v, enum vf_vm_op op, int dirfd, int64_t timeout_ms);
/* The same, and it must succeed. */
void sup_must(struct sup_vm *v, enum vf_vm_op op, int dirfd);
/* Waits for what sup_try submitted. */
enum vf_code sup_wait(struct sup_vm *v);
/* Stops and waits until it is gone, frees the VM, checks that its directory is empty. v stays valid. */
void sup_vm_stop(struct sup_vm *v, int64_t grace_ms);
void sup_vm_stop_begin(struct sup_vm *v, int64_t grace_ms);
void sup_vm_stop_end(struct sup_vm *v);
/* SIGKILL from outside. */
void sup_vm_kill(struct sup_vm *v);
/* From now on it answers nothing (SIGSTOP, or by script). */
void sup_vm_hang(struct sup_vm *v);
/* Created, started, paused and saved in one go into dirfd, then killed; memory stays in fd. */
void sup_make_saved(struct sup *s, const struct sup_target *t, int memory_fd, int dirfd);
/* "paused", … or the names of all events so far, separated by spaces, but for those of start. */
const char *sup_events(const struct sup_vm *v);

/* ---- the agent's client. Runs the loop while it waits, for the null driver's agent lives there. */

struct sup_agent {
    struct sup *s;
    int fd, out_fd; /* read from and written to: one and the same but for FIFOs */
    uint32_t id;
    struct vf_wire_writer w; /* of the message under construction */
    struct vf_wire_reader reader;
    uint8_t in[4096];
    size_t in_pos, in_len;
    struct vf_wire_frame frame; /* the last one received */
};

struct sup_hello {
    uint8_t boot_id[16], nonce[32];
    bool has_nonce;
    uint32_t features;
};

/* Connects to the agent's channel of v, whichever kind it is. */
struct sup_agent *sup_agent_open(struct sup_vm *v);
void sup_agent_close(struct sup_agent *a);
/* Starts a message of type under a new id: put records into a->w, then ask or send. */
void sup_agent_start(struct sup_agent *a, uint8_t type);
int sup_agent_send(struct sup_agent *a, int64_t timeout_ms);
/* Bytes as they are, which must find room. */
void sup_agent_send_raw(struct sup_agent *a, const char *bytes, size_t len);
/* The next whole frame; 0, -ETIMEDOUT, -EPIPE. */
int sup_agent_receive(struct sup_agent *a, int64_t timeout_ms);
/* Sends and waits for a frame with the same id, which is in a->frame. */
int sup_agent_ask(struct sup_agent *a, int64_t timeout_ms);
/* Says hello until it is answered, however long the guest boots, up to timeout_ms. */
int sup_agent_hello(struct sup_agent *a, int64_t timeout_ms, struct sup_hello *ret);
void sup_agent_plant(struct sup_agent *a, const uint8_t nonce[32]);
/* RENEW with fresh entropy: the sample that came back; the digest is checked. */
void sup_agent_reseed(struct sup_agent *a, uint8_t ret_sample[16]);
/* Runs a command; returns its exit status; *ret_out: its stdout, NUL-terminated, at most size - 1. */
int sup_agent_exec(struct sup_agent *a, const char *const *argv, char *ret_out, size_t size);

#endif
