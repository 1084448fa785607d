/* The QEMU driver: life cycle of one QEMU process.
 *
 * create: record the process to be, bind the sockets in the VM's directory and connect to QMP (a listening socket takes a
 * connection before anyone accepts, so nothing is polled for), launch QEMU with the listeners inherited,
 * wait for its greeting, negotiate, done. start and resume: `cont`. pause: `stop`. save and restore:
 * qemu_migrate.c. stop: `quit` if graceful, else SIGKILL; then every handle is closed and the front is
 * told that the VM is gone. qemu_adopt.c: a QEMU that an earlier process has launched.
 *
 * On the way: the process ends (its exit and last words make the error), QMP breaks (the VM is of no
 * more use, though it may live: the operation fails, the caller stops it).
 */
#include "vmm/qemu.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"

#define MIN_MAJOR 7
#define MIN_MINOR 2
#define CLOSED_GRACE_MS 1000
#define END_MS 10000

static void capabilities(const char *version, struct vf_vmm_caps *ret)
{
    (void)version; /* the same since the oldest that create accepts */
    *ret = (struct vf_vmm_caps){
        .save = true,
        .shared_memory_save = true,
        .balloon = true,
        .console = true,
        .standby = true,
        .park_paused = true,
        .channel_virtio_serial = true,
        .channel_serial = true,
        .kvm = true,
        .tcg = true,
        .adopt = true,
        .early_channel = true,
        .qcow2 = true,
        .nic_fds = true,
        .nic_queues = VF_VM_MAX_QUEUE_PAIRS,
        .nic_bare = true,
    };
}

static int alloc(uv_loop_t *loop, struct vf_vm **ret_vm, struct vf_error *err)
{
    (void)loop;
    struct vf_qemu *q = calloc(1, sizeof(*q));
    if (!q)
        return vf_fail(err, VF_NO_MEMORY, "QEMU driver");
    q->process.pidfd = q->qmp.fd = q->output.fd = q->console.fd = q->dirfd = -1;
    *ret_vm = &q->vm;
    return 0;
}

static void free_vm(struct vf_vm *vm)
{
    free(vm);
}

/* ---- the end: all handles closed, then gone */

static void on_process_closed(uv_handle_t *h)
{
    struct vf_process *p = h->data;
    vf_vm_handle_closed(p->data);
}

static void on_qmp_closed(uv_handle_t *h)
{
    struct vf_qmp *qmp = h->data;
    vf_vm_handle_closed(qmp->arg);
}

const char *const vf_qemu_file_names[] = {"qmp.sock", "agent.sock", "console.sock",
                                          VF_PROCESS_NAME};
static_assert(sizeof(vf_qemu_file_names) / sizeof(*vf_qemu_file_names) == VF_QEMU_FILE_COUNT,
              "a name per file");

static void close_handles(struct vf_qemu *q)
{
    struct vf_vm *vm = &q->vm;
    if (!vf_vm_close_begin(vm))
        return;
    for (int i = 0; i < VF_QEMU_FILE_COUNT; i++)
        if (q->files & 1u << i)
            unlinkat(q->dirfd, vf_qemu_file_names[i], 0);
    vf_close_fd(&q->dirfd);
    vm->closing += vf_process_close(&q->process, on_process_closed);
    vm->closing += vf_qmp_close(&q->qmp, on_qmp_closed);
    vf_vmm_pipe_close(&q->output);
    vf_vmm_pipe_close(&q->console);
    vf_vm_close_end(vm);
}

static void on_exit_process(struct vf_process *p, const struct vf_exit *how)
{
    struct vf_qemu *q = p->data;
    if (q->vm.close_begun)
        return;
    /* What it said last is still in the pipe. */
    vf_vmm_pipe_say(&q->output);
    vf_vmm_pipe_say(&q->console);
    char text[96];
    vf_exit_text(how, text, sizeof(text));
    bool stopping = q->vm.stopping;
    vf_vm_process_exited(&q->vm, text);
    if (stopping)
        close_handles(q);
}

static void stop(struct vf_vm *vm, bool graceful)
{
    struct vf_qemu *q = (struct vf_qemu *)vm;
    if (!q->launched || q->process.exited) {
        close_handles(q);
        return;
    }
    if (!q->process.polling) { /* create failed between launch and watch */
        vf_process_end(&q->process, END_MS, NULL);
        close_handles(q);
        return;
    }
    if (graceful && vf_qmp_execute(&q->qmp, "quit", NULL, -1, NULL, NULL, NULL) == 0)
        return; /* the front's grace timer comes back with graceful = false */
    vf_process_kill(&q->process, SIGKILL);
}

static void detach(struct vf_vm *vm)
{
    struct vf_qemu *q = (struct vf_qemu *)vm;
    q->files = 0;
    close_handles(q);
}

/* ---- QMP */

void vf_qemu_op_done(struct vf_qemu *q, const struct vf_error *err)
{
    if (!err || err->code != VF_VMM_DIED)
        vf_vm_op_done(&q->vm, err);
}

static void on_negotiated(void *arg, const struct vf_json *ret, const struct vf_error *err)
{
    struct vf_qemu *q = arg;
    (void)ret;
    if (!err)
        q->vm.info.connect_us = vf_now_us() - q->launched_us;
    vf_qemu_op_done(q, err);
}

static void on_capabilities(void *arg, const struct vf_json *ret, const struct vf_error *err)
{
    (void)ret;
    if (err)
        vf_qemu_op_done(arg, err);
}

static void op_failed(struct vf_qemu *q, int r, const struct vf_error *err)
{
    if (r < 0)
        vf_qemu_op_done(q, err);
}

static void on_greeting(void *arg, const char *version)
{
    struct vf_qemu *q = arg;
    struct vf_error e;
    int major = 0, minor = 0;
    snprintf(q->vm.info.version, sizeof(q->vm.info.version), "%s", version);
    if (sscanf(version, "%d.%d", &major, &minor) != 2 || major < MIN_MAJOR ||
        (major == MIN_MAJOR && minor < MIN_MINOR)) {
        vf_fail(&e, VF_UNSUPPORTED, "QEMU %s is too old: at least %d.%d is needed", version,
                MIN_MAJOR, MIN_MINOR);
        vf_hint(&e, "install a newer qemu-system-x86, or give the path of one");
        vf_qemu_op_done(q, &e);
        return;
    }
    int r = vf_qmp_execute(&q->qmp, "qmp_capabilities", NULL, -1, on_capabilities, q, &e);
    if (r == 0 && q->adopted)
        r = vf_qemu_ask_adopted(q, &e);
    else if (r == 0)
        r = vf_qmp_execute(&q->qmp, "migrate-set-capabilities",
                           "{\"capabilities\":[{\"capability\":\"events\",\"state\":true},"
                           "{\"capability\":\"x-ignore-shared\",\"state\":true}]}",
                           -1, on_negotiated, q, &e);
    op_failed(q, r, &e);
}

static void on_unexpected_stop(void *arg, const struct vf_json *ret, const struct vf_error *err)
{
    struct vf_qemu *q = arg;
    const char *status = err ? "unknown" : vf_json_str(vf_json_get(ret, "status"), "unknown");
    char detail[128];
    if (strcmp(status, "paused") == 0 || strcmp(status, "running") == 0 ||
        strcmp(status, "shutdown") == 0)
        return;
    snprintf(detail, sizeof(detail), "the VM stopped: %.64s%s", status,
             strcmp(status, "internal-error") == 0 && q->vm.info.accel == VF_ACCEL_KVM
                 ? " (this host's KVM can't run this guest)"
                 : "");
    vf_vm_emit(&q->vm, VF_VM_EVENT_FAILED, detail);
}

static void on_event(void *arg, const char *name, const struct vf_json *data)
{
    struct vf_qemu *q = arg;
    struct vf_vm *vm = &q->vm;
    if (strcmp(name, "MIGRATION") == 0)
        vf_qemu_on_migration(q, vf_json_str(vf_json_get(data, "status"), ""));
    else if (strcmp(name, "STOP") == 0) {
        if (vm->op == VF_VM_OP_PAUSE)
            vf_vm_emit(vm, VF_VM_EVENT_PAUSED, NULL);
        else if (vm->info.state == VF_VM_RUNNING)
            vf_qmp_execute(&q->qmp, "query-status", NULL, -1, on_unexpected_stop, q, NULL);
    } else if (strcmp(name, "RESUME") == 0)
        vf_vm_emit(vm, VF_VM_EVENT_RESUMED, NULL);
    else if (strcmp(name, "SHUTDOWN") == 0) {
        if (vf_json_bool(vf_json_get(data, "guest"), false))
            vf_vm_emit(vm, VF_VM_EVENT_GUEST_SHUTDOWN,
                       vf_json_str(vf_json_get(data, "reason"), ""));
    } else if (strcmp(name, "GUEST_PANICKED") == 0)
        vf_vm_emit(vm, VF_VM_EVENT_GUEST_PANICKED, vf_json_str(vf_json_get(data, "action"), ""));
}

static void on_silence(uv_timer_t *t)
{
    struct vf_vm *vm = t->data;
    struct vf_error e;
    if (vm->exited || vm->stopping)
        return;
    vf_fail(&e, VF_PROTOCOL, "QEMU closed its QMP connection, but lives");
    vf_vm_op_done(vm, &e);
    vf_vm_emit(vm, VF_VM_EVENT_FAILED, "QEMU closed its QMP connection, but lives");
}

static void on_broken(void *arg, const struct vf_error *err)
{
    struct vf_qemu *q = arg;
    struct vf_vm *vm = &q->vm;
    if (err->code != VF_VMM_DIED) {
        vf_vm_op_done(vm, err);
        vf_vm_emit(vm, VF_VM_EVENT_FAILED, err->msg);
        return;
    }
    /* A closed connection is mostly a process about to be reaped, and that tells more. A VMM that closes
     * and lives has this long, or what is left of the deadline of the operation under way. */
    if (!vm->exited && !vm->stopping &&
        (vm->op == VF_VM_OP_NONE || uv_timer_get_due_in(&vm->timer) > CLOSED_GRACE_MS))
        vf_timer_at(&vm->timer, vf_deadline_after_ms(CLOSED_GRACE_MS), on_silence);
}

static const struct vf_qmp_callbacks qmp_callbacks = {on_greeting, on_event, on_broken};

/* ---- create */

/* Everything that needs undoing by hand until the handles own it. */
struct pieces {
    int qmp_listen, agent_listen, console_listen;
    int qmp, console, output_read, output_write, record;
};

static void close_pieces(struct pieces *p)
{
    vf_close_fd(&p->qmp_listen);
    vf_close_fd(&p->agent_listen);
    vf_close_fd(&p->console_listen);
    vf_close_fd(&p->qmp);
    vf_close_fd(&p->console);
    vf_close_fd(&p->output_read);
    vf_close_fd(&p->output_write);
    vf_close_fd(&p->record);
}

static int make_socket(struct vf_qemu *q, int i, int *ret_fd, struct vf_error *err)
{
    int r = vf_unix_listen(q->dirfd, vf_qemu_file_names[i], 4, ret_fd, err);
    if (r == 0)
        q->files |= 1u << i;
    return r;
}

static int make_pieces(struct vf_qemu *q, const struct vf_vm_config *c, struct pieces *p,
                       struct vf_error *err)
{
    q->dirfd = fcntl(c->dirfd, F_DUPFD_CLOEXEC, 0);
    if (q->dirfd < 0)
        return vf_fail_errno(err, errno, "the VM's directory");
    int r = make_socket(q, VF_QEMU_QMP_SOCKET, &p->qmp_listen, err);
    if (r == 0)
        r = vf_unix_connect(q->dirfd, vf_qemu_file_names[VF_QEMU_QMP_SOCKET], &p->qmp, err);
    if (r == 0)
        r = vf_process_record(q->dirfd, VF_PROCESS_NAME, &p->record, err);
    if (r < 0)
        return r;
    q->files |= 1u << VF_QEMU_RECORD;
    if (c->channel != VF_CHANNEL_NONE &&
        (r = make_socket(q, VF_QEMU_AGENT_SOCKET, &p->agent_listen, err)) < 0)
        return r;
    if (c->console) {
        if ((r = make_socket(q, VF_QEMU_CONSOLE_SOCKET, &p->console_listen, err)) < 0)
            return r;
        if ((r = vf_unix_connect(q->dirfd, vf_qemu_file_names[VF_QEMU_CONSOLE_SOCKET], &p->console,
                                 err)) < 0)
            return r;
    }
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return vf_fail_errno(err, errno, "pipe");
    p->output_read = fds[0];
    p->output_write = fds[1];
    return 0;
}

static int launch(struct vf_qemu *q, const struct vf_vm_config *c, struct pieces *p,
                  struct vf_error *err)
{
    struct vf_qemu_fds fds = {p->qmp_listen, p->agent_listen, p->console_listen, c->memory_fd};
    struct vf_qemu_args args;
    int r = vf_qemu_args_build(&args, c, q->vm.info.accel, &fds, err);
    if (r < 0)
        return r;
    struct vf_launch l = {
        .binary = c->binary,
        .argv = args.argv,
        .fds = args.fds,
        .n_fds = args.n_fds,
        .output = p->output_write,
        .has_netns = c->has_netns,
        .netns_fd = c->netns_fd,
        .net_admin = vf_vm_needs_net_admin(c),
        .die_with_parent = c->die_with_parent,
        .record = p->record,
    };
    q->launched_us = vf_now_us();
    r = vf_process_launch(&l, &q->process, err);
    vf_qemu_args_free(&args);
    if (r < 0)
        return r;
    q->launched = true;
    q->vm.info.pid = q->process.pid;
    q->vm.info.process_us = vf_now_us() - q->launched_us;
    return 0;
}

int vf_qemu_open_handles(struct vf_qemu *q, int qmp, int output, int console, struct vf_error *err)
{
    q->output.fd = output;
    q->console.fd = console;
    int r = vf_process_watch(&q->process, q->vm.loop, on_exit_process, q, err);
    if (r < 0 || (r = vf_vmm_pipe_open(&q->output, &q->vm, vf_vmm_pipe_say, err)) < 0 ||
        (r = vf_vmm_pipe_open(&q->console, &q->vm, vf_vmm_pipe_say, err)) < 0) {
        vf_close_fd(&qmp);
        return r;
    }
    return vf_qmp_open(&q->qmp, q->vm.loop, qmp, &qmp_callbacks, q, err);
}

static int create(struct vf_vm *vm, const struct vf_vm_config *c, struct vf_error *err)
{
    struct vf_qemu *q = (struct vf_qemu *)vm;
    struct pieces p = {-1, -1, -1, -1, -1, -1, -1, -1};
    if (!c->binary || c->binary[0] != '/')
        return vf_fail(err, VF_INVALID_ARGUMENT, "binary: an absolute path is needed");
    q->balloon = c->balloon;
    int r = make_pieces(q, c, &p, err);
    if (r == 0)
        r = launch(q, c, &p, err);
    if (r == 0)
        r = vf_qemu_open_handles(q, vf_steal_fd(&p.qmp), vf_steal_fd(&p.output_read),
                                 vf_steal_fd(&p.console), err);
    close_pieces(&p);
    return r;
}

/* ---- start, pause, resume, balloon, info */

static void on_plain_reply(void *arg, const struct vf_json *ret, const struct vf_error *err)
{
    struct vf_qemu *q = arg;
    (void)ret;
    vf_qemu_op_done(q, err);
}

static int run(struct vf_vm *vm, struct vf_error *err)
{
    struct vf_qemu *q = (struct vf_qemu *)vm;
    return vf_qmp_execute(&q->qmp, "cont", NULL, -1, on_plain_reply, q, err);
}

static int pause_vm(struct vf_vm *vm, struct vf_error *err)
{
    struct vf_qemu *q = (struct vf_qemu *)vm;
    return vf_qmp_execute(&q->qmp, "stop", NULL, -1, on_plain_reply, q, err);
}

static int balloon(struct vf_vm *vm, uint64_t target, struct vf_error *err)
{
    struct vf_qemu *q = (struct vf_qemu *)vm;
    char args[64];
    if (!q->balloon)
        return vf_fail(err, VF_UNSUPPORTED, "this VM has no balloon device");
    snprintf(args, sizeof(args), "{\"value\":%llu}", (unsigned long long)target);
    return vf_qmp_execute(&q->qmp, "balloon", args, -1, on_plain_reply, q, err);
}

static void on_balloon_info(void *arg, const struct vf_json *ret, const struct vf_error *err)
{
    struct vf_qemu *q = arg;
    if (err && err->code != VF_VMM_FAILED) {
        vf_qemu_op_done(q, err);
        return;
    }
    /* The device answers only once the guest has its driver up: no figure is no error. */
    int64_t actual = err ? 0 : vf_json_int(vf_json_get(ret, "actual"), 0);
    q->vm.info.balloon_actual = actual > 0 ? (uint64_t)actual : 0;
    vf_qemu_op_done(q, NULL);
}

static void on_status(void *arg, const struct vf_json *ret, const struct vf_error *err)
{
    struct vf_qemu *q = arg;
    struct vf_error e;
    if (err) {
        vf_qemu_op_done(q, err);
        return;
    }
    const char *status = vf_json_str(vf_json_get(ret, "status"), "");
    if (strcmp(status, "internal-error") == 0 || strcmp(status, "io-error") == 0 ||
        strcmp(status, "guest-panicked") == 0) {
        vf_fail(&e, VF_VMM_FAILED, "QEMU's run state is %s", status);
        vf_qemu_op_done(q, &e);
        return;
    }
    if (!q->balloon)
        vf_qemu_op_done(q, NULL);
    else
        op_failed(q, vf_qmp_execute(&q->qmp, "query-balloon", NULL, -1, on_balloon_info, q, &e),
                  &e);
}

static int info(struct vf_vm *vm, struct vf_error *err)
{
    struct vf_qemu *q = (struct vf_qemu *)vm;
    return vf_qmp_execute(&q->qmp, "query-status", NULL, -1, on_status, q, err);
}

static const char *const state_files[] = {VF_QEMU_STATE_FILE, NULL};

const struct vf_vmm_ops vf_qemu_ops = {
    .name = "qemu",
    .state_files = state_files,
    .capabilities = capabilities,
    .alloc = alloc,
    .create = create,
    .adopt = vf_qemu_adopt,
    .start = run,
    .pause = pause_vm,
    .save = vf_qemu_save,
    .restore = vf_qemu_restore,
    .resume = run,
    .balloon = balloon,
    .info = info,
    .stop = stop,
    .detach = detach,
    .free = free_vm,
};
