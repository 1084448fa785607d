/* The Firecracker driver: life cycle of one Firecracker process.
 *
 * create: make the files in the VM's directory, watch it, launch Firecracker there, wait for its socket and ask for its
 * version, send the set-up (firecracker_ask.c); one to be restored is left empty, so it may stand by for any
 * template. start: InstanceStart. pause and resume: PATCH /vm. save and restore: firecracker_snapshot.c. stop:
 * SIGKILL; then the files go, every handle is closed and the front is told that the VM is gone. firecracker_adopt.c:
 * one that an earlier process has launched.
 *
 * A graceful stop is the same: Firecracker has no request to quit, Ctrl+Alt+Del reaches only guests with a driver
 * for its keyboard, and nothing is lost, because it keeps no writes back: what the guest wrote is in the page cache.
 *
 * On the way: the process ends (firecracker_ask.c: its last answer, else its exit and last words make the error); with
 * status 0 it was the guest who ended, by a reset or a power off.
 */
#include "vmm/firecracker.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"

/* Its vsock is deaf after a pause and a resume in versions before. */
#define PARKS_PAUSED VF_FIRECRACKER_VERSION(1, 17, 0)
#define END_MS 10000
/* It makes its table of descriptors as large as its limit is: 8 MiB of the kernel's memory each, where the limit is a
 * million. This many serve a vsock with all the connections it takes. */
#define MAX_FILES 2048

static void capabilities(const char *version, struct vf_vmm_caps *ret)
{
    *ret = (struct vf_vmm_caps){
        .save = true,
        .balloon = true,
        .console = true,
        .standby = true,
        .park_paused = !version || vf_firecracker_version(version) >= PARKS_PAUSED,
        .channel_serial = true,
        .channel_vsock = true,
        .serial_fifos = true,
        .kvm = true,
        .adopt = true,
        .early_channel = true,
        .nic_queues = 1,
    };
}

static int alloc(uv_loop_t *loop, struct vf_vm **ret_vm, struct vf_error *err)
{
    (void)loop;
    struct vf_firecracker *f = calloc(1, sizeof(*f));
    if (!f)
        return vf_fail(err, VF_NO_MEMORY, "Firecracker driver");
    f->process.pidfd = f->output.fd = f->memory_fd = f->save_dirfd = f->dirfd = -1;
    *ret_vm = &f->vm;
    return 0;
}

static void free_vm(struct vf_vm *vm)
{
    vf_firecracker_forget_setup((struct vf_firecracker *)vm);
    free(vm);
}

/* ---- the end: all handles closed, then gone */

static void on_process_closed(uv_handle_t *h)
{
    struct vf_process *p = h->data;
    vf_vm_handle_closed(p->data);
}

static void on_handle_closed(uv_handle_t *h)
{
    vf_vm_handle_closed(h->data);
}

static void close_handle(struct vf_firecracker *f, void *handle, bool *open)
{
    if (!*open)
        return;
    *open = false;
    f->vm.closing++;
    uv_close(handle, on_handle_closed);
}

static void close_handles(struct vf_firecracker *f)
{
    struct vf_vm *vm = &f->vm;
    if (!vf_vm_close_begin(vm))
        return;
    vf_firecracker_drop_save(f);
    vf_firecracker_remove_files(f);
    vf_close_fd(&f->memory_fd);
    vm->closing += vf_process_close(&f->process, on_process_closed);
    vm->closing += vf_vmm_http_close(f->http, vf_vm_handle_closed, vm);
    vf_vmm_pipe_close(&f->output);
    close_handle(f, &f->watch, &f->watching);
    close_handle(f, &f->wait, &f->wait_open);
    vf_close_fd(&f->dirfd);
    vf_vm_close_end(vm);
}

static void stop(struct vf_vm *vm, bool graceful)
{
    struct vf_firecracker *f = (struct vf_firecracker *)vm;
    (void)graceful;
    if (f->launched && !f->process.exited && f->process.polling) {
        vf_process_kill(&f->process, SIGKILL);
        return;
    }
    if (f->launched && !f->process.exited) /* create failed between launch and watch */
        vf_process_end(&f->process, END_MS, NULL);
    vf_firecracker_report_end(f);
    close_handles(f);
}

static void detach(struct vf_vm *vm)
{
    struct vf_firecracker *f = (struct vf_firecracker *)vm;
    f->files = 0;
    close_handles(f);
}

/* ---- what it says, and that it has ended */

static void on_exit_process(struct vf_process *p, const struct vf_exit *how)
{
    struct vf_firecracker *f = p->data;
    if (f->vm.close_begun)
        return;
    vf_vmm_pipe_say(&f->output); /* what it said last is still in there */
    bool stopping = f->vm.stopping;
    vf_firecracker_ended(f, how);
    if (stopping)
        close_handles(f);
}

int vf_firecracker_open_handles(struct vf_firecracker *f, int output, struct vf_error *err)
{
    f->output.fd = output;
    int r = vf_process_watch(&f->process, f->vm.loop, on_exit_process, f, err);
    if (r < 0)
        return r;
    if ((r = uv_timer_init(f->vm.loop, &f->wait)) < 0)
        return vf_fail_errno(err, r, "timer");
    f->wait.data = f;
    f->wait_open = true;
    return vf_vmm_pipe_open(&f->output, &f->vm, vf_vmm_pipe_say, err);
}

/* ---- create */

/* Firecracker takes letters, digits and '-'. */
static void id_for(const char *id, char ret[64])
{
    size_t i = 0;
    for (; i < 63 && id[i]; i++)
        ret[i] = isalnum((unsigned char)id[i]) ? id[i] : '-';
    ret[i] = 0;
}

/* The log goes to the standard error, which is our pipe: opened anew for both directions, it is never broken. Errors
 * only, for it warns of what is right, too. */
static int launch(struct vf_firecracker *f, const struct vf_vm_config *c,
                  const struct vf_firecracker_pieces *p, int output, struct vf_error *err)
{
    char id[64];
    id_for(c->id, id);
    char *argv[] = {(char *)c->binary,
                    "--api-sock",
                    VF_FIRECRACKER_API_NAME,
                    "--id",
                    id,
                    "--log-path",
                    "/proc/self/fd/2",
                    "--level",
                    "Error",
                    c->no_sandbox ? "--no-seccomp" : NULL,
                    NULL};
    struct vf_launch l = {
        .binary = c->binary,
        .argv = argv,
        .fds = &c->memory_fd,
        .n_fds = 1,
        .output = output,
        .has_stdio = p->input >= 0,
        .input_fd = p->input,
        .output_fd = p->output,
        .has_cwd = true,
        .cwd_fd = f->dirfd,
        .has_netns = c->has_netns,
        .netns_fd = c->netns_fd,
        .net_admin = vf_vm_needs_net_admin(c),
        .max_files = MAX_FILES,
        .die_with_parent = c->die_with_parent,
        .record = p->record,
    };
    f->launched_us = vf_now_us();
    int r = vf_process_launch(&l, &f->process, err);
    if (r < 0)
        return r;
    f->launched = true;
    f->vm.info.pid = f->process.pid;
    f->vm.info.process_us = vf_now_us() - f->launched_us;
    return 0;
}

static int launch_with_output(struct vf_firecracker *f, const struct vf_vm_config *c,
                              const struct vf_firecracker_pieces *p, struct vf_error *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return vf_fail_errno(err, errno, "pipe");
    int r = launch(f, c, p, fds[1], err);
    vf_close_fd(&fds[1]);
    if (r == 0)
        return vf_firecracker_open_handles(f, fds[0], err);
    vf_close_fd(&fds[0]);
    return r;
}

static int keep_memory(struct vf_firecracker *f, const struct vf_vm_config *c, struct vf_error *err)
{
    if (!c->memory_shared || c->incoming)
        return 0;
    f->memory_fd = fcntl(c->memory_fd, F_DUPFD_CLOEXEC, 0);
    return f->memory_fd < 0 ? vf_fail_errno(err, errno, "memory_fd") : 0;
}

static int create(struct vf_vm *vm, const struct vf_vm_config *c, struct vf_error *err)
{
    struct vf_firecracker *f = (struct vf_firecracker *)vm;
    struct vf_firecracker_pieces p = {-1, -1, -1};
    int r = vf_firecracker_prepare(f, c, err);
    if (r == 0)
        r = vf_firecracker_make_files(f, c, &p, err);
    if (r == 0)
        r = keep_memory(f, c, err);
    if (r == 0)
        r = vf_vmm_http_open(vm->loop, f->dirfd, VF_FIRECRACKER_API_NAME, &f->http, err);
    if (r == 0)
        r = vf_firecracker_watch(f, err);
    if (r == 0)
        r = launch_with_output(f, c, &p, err);
    vf_close_fd(&p.record);
    vf_close_fd(&p.input);
    vf_close_fd(&p.output);
    return r;
}

/* ---- start, pause, resume */

static void on_started(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                       const struct vf_error *err)
{
    (void)reply;
    if (!err)
        vf_vm_emit(&f->vm, VF_VM_EVENT_RESUMED, NULL);
    vf_vm_op_done(&f->vm, err);
}

static int start(struct vf_vm *vm, struct vf_error *err)
{
    return vf_firecracker_ask((struct vf_firecracker *)vm, "PUT", "/actions",
                              "{\"action_type\":\"InstanceStart\"}", on_started, err);
}

static void switched(struct vf_firecracker *f)
{
    bool paused = f->vm.op == VF_VM_OP_PAUSE;
    if (paused || f->vm.op == VF_VM_OP_RESUME)
        vf_vm_emit(&f->vm, paused ? VF_VM_EVENT_PAUSED : VF_VM_EVENT_RESUMED, NULL);
    vf_vm_op_done(&f->vm, NULL);
}

/* It refused; that is no failure if it is what it should be already. */
static void on_state(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                     const struct vf_error *err)
{
    const char *want = f->vm.op == VF_VM_OP_PAUSE ? "Paused" : "Running", *state = "";
    if (!err)
        state = vf_json_str(vf_json_get(reply->json, "state"), "");
    if (err)
        vf_vm_op_done(&f->vm, err);
    else if (strcmp(state, want) == 0)
        switched(f);
    else
        vf_vm_op_done(&f->vm, &f->refusal);
}

static void on_switched(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                        const struct vf_error *err)
{
    (void)reply;
    if (!err)
        switched(f);
    else if (err->code != VF_VMM_FAILED)
        vf_vm_op_done(&f->vm, err);
    else {
        f->refusal = *err;
        vf_firecracker_go_on(f, "GET", "/", NULL, on_state);
    }
}

static int pause_vm(struct vf_vm *vm, struct vf_error *err)
{
    return vf_firecracker_ask((struct vf_firecracker *)vm, "PATCH", "/vm", "{\"state\":\"Paused\"}",
                              on_switched, err);
}

static int resume(struct vf_vm *vm, struct vf_error *err)
{
    return vf_firecracker_ask((struct vf_firecracker *)vm, "PATCH", "/vm",
                              "{\"state\":\"Resumed\"}", on_switched, err);
}

/* ---- balloon, info */

/* Other VMMs keep the target for a driver to come; this one takes it only once there is one. */
static void on_balloon(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                       const struct vf_error *err)
{
    struct vf_error e;
    (void)reply;
    if (!err || err->code != VF_VMM_FAILED || !strstr(err->msg, "not activated")) {
        vf_vm_op_done(&f->vm, err);
        return;
    }
    vf_fail(&e, VF_CONFLICT, "the guest has not started its balloon's driver");
    vf_hint(&e, "ask again once it has, or leave the balloon out of a guest without that driver");
    vf_vm_op_done(&f->vm, &e);
}

static int balloon(struct vf_vm *vm, uint64_t target, struct vf_error *err)
{
    struct vf_firecracker *f = (struct vf_firecracker *)vm;
    char body[40];
    if (!f->balloon)
        return vf_fail(err, VF_UNSUPPORTED, "this VM has no balloon device");
    snprintf(body, sizeof(body), "{\"amount_mib\":%llu}",
             (unsigned long long)((vm->info.memory_size - target) >> 20));
    return vf_firecracker_ask(f, "PATCH", "/balloon", body, on_balloon, err);
}

/* How much the guest has given back is in the balloon's statistics only, which would wake it every second: it
 * stays unknown. */
static void on_info(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                    const struct vf_error *err)
{
    struct vf_error e;
    const char *state = err ? "" : vf_json_str(vf_json_get(reply->json, "state"), "");
    if (err)
        vf_vm_op_done(&f->vm, err);
    else if (strcmp(state, "Running") == 0 || strcmp(state, "Paused") == 0 ||
             strcmp(state, "Not started") == 0)
        vf_vm_op_done(&f->vm, NULL);
    else {
        vf_fail(&e, VF_PROTOCOL, "Firecracker's state is '%.64s'", state);
        vf_vm_op_done(&f->vm, &e);
    }
}

static int info(struct vf_vm *vm, struct vf_error *err)
{
    return vf_firecracker_ask((struct vf_firecracker *)vm, "GET", "/", NULL, on_info, err);
}

static const char *const state_files[] = {VF_FIRECRACKER_STATE_FILE, NULL};

const struct vf_vmm_ops vf_firecracker_ops = {
    .name = "firecracker",
    .state_files = state_files,
    .capabilities = capabilities,
    .alloc = alloc,
    .create = create,
    .adopt = vf_firecracker_adopt,
    .start = start,
    .pause = pause_vm,
    .save = vf_firecracker_save,
    .restore = vf_firecracker_restore,
    .resume = resume,
    .balloon = balloon,
    .info = info,
    .stop = stop,
    .detach = detach,
    .free = free_vm,
};
