/* The Cloud Hypervisor driver: life cycle of one process of it.
 *
 * create: bind the API socket in the VM's directory (it listens before the process is there, so nothing is polled
 * for), make the event monitor's FIFO, launch, ask vmm.ping for the version; unless it is to be restored, vm.create
 * and vm.add-net for each NIC that goes by descriptors. start: vm.boot. pause, resume: vm.pause, vm.resume; a refusal is
 * no failure if vm.info then says that the VM is in that state. stop: vmm.shutdown if graceful, else SIGKILL; then every
 * handle is closed and the front is told that the VM is gone.
 *
 * On the way: the process ends (its exit and last words make the error); it answers with an error (the innermost cause
 * makes it); it closes the connection and lives (after a grace the operation fails).
 */
#include "vmm/cloud_hypervisor.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/async.h"
#include "base/clock.h"
#include "base/fd.h"

#define CLOSED_GRACE_MS 1000
#define END_MS 10000

static void capabilities(const char *version, struct vf_vmm_caps *ret)
{
    *ret = (struct vf_vmm_caps){
        .save = true,
        .shared_memory_save = true,
        .linked_memory = true,
        .balloon = true,
        .console = true,
        .standby = true,
        .park_paused = true,
        .channel_serial = true,
        .channel_vsock = true,
        .kvm = true,
        .qcow2 = true,
        .nic_fds = true,
        .nic_queues = VF_VM_MAX_QUEUE_PAIRS,
        .on_demand = !version || atoi(version) >= VF_CH_ON_DEMAND_MAJOR,
        .prefault = true,
        .mergeable = true,
        .adopt = true,
    };
}

static int alloc(uv_loop_t *loop, struct vf_vm **ret_vm, struct vf_error *err)
{
    (void)loop;
    struct vf_ch *c = calloc(1, sizeof(*c));
    if (!c)
        return vf_fail(err, VF_NO_MEMORY, "Cloud Hypervisor driver");
    c->process.pidfd = c->output.fd = c->events.fd = c->dirfd = c->save_fd = c->work_fd = -1;
    *ret_vm = &c->vm;
    return 0;
}

static void free_vm(struct vf_vm *vm)
{
    struct vf_ch *c = (struct vf_ch *)vm;
    if (c->has_cfg)
        vf_ch_config_free(&c->cfg);
    free(c);
}

/* ---- the end: all handles closed, then gone */

static void on_process_closed(uv_handle_t *h)
{
    struct vf_process *p = h->data;
    vf_vm_handle_closed(p->data);
}

const char *const vf_ch_file_names[] = {"api.sock", VF_LINK_SOCKET_NAME, VF_LINK_VSOCK_NAME,
                                        "events", VF_PROCESS_NAME};
static_assert(sizeof(vf_ch_file_names) / sizeof(*vf_ch_file_names) == VF_CH_FILE_COUNT,
              "a name per file");

static void remove_files(struct vf_ch *c)
{
    for (int i = 0; i < VF_CH_FILE_COUNT; i++)
        if (c->files & 1u << i)
            unlinkat(c->dirfd, vf_ch_file_names[i], 0);
    vf_ch_forget_save(c);
    if (c->files)
        vf_ch_work_end(c, c->dirfd, VF_CH_RESTORE_DIR);
    vf_close_fd(&c->work_fd);
}

static void close_handles(struct vf_ch *c)
{
    struct vf_vm *vm = &c->vm;
    if (!vf_vm_close_begin(vm))
        return;
    remove_files(c);
    vm->closing += vf_vmm_http_close(c->http, vf_vm_handle_closed, vm);
    c->http = NULL;
    vf_close_fd(&c->dirfd);
    vm->closing += vf_process_close(&c->process, on_process_closed);
    vf_vmm_pipe_close(&c->output);
    vf_vmm_pipe_close(&c->events);
    vf_vm_close_end(vm);
}

static void on_exit_process(struct vf_process *p, const struct vf_exit *how)
{
    struct vf_ch *c = p->data;
    if (c->vm.close_begun)
        return;
    /* What it said last is still in the pipes. */
    vf_vmm_pipe_say(&c->output);
    if (c->events.open)
        vf_ch_read_events(&c->events);
    if (c->vm.close_begun)
        return;
    char text[96];
    vf_exit_text(how, text, sizeof(text));
    bool stopping = c->vm.stopping;
    vf_vm_process_exited(&c->vm, text);
    if (stopping)
        close_handles(c);
}

static void on_quit(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_ch *c = arg;
    (void)reply;
    if (err && !c->vm.close_begun && err->code != VF_VMM_DIED)
        vf_process_kill(&c->process, SIGKILL);
}

static void stop(struct vf_vm *vm, bool graceful)
{
    struct vf_ch *c = (struct vf_ch *)vm;
    if (!c->launched || c->process.exited) {
        close_handles(c);
        return;
    }
    if (!c->process.polling) { /* create failed between launch and watch */
        vf_process_end(&c->process, END_MS, NULL);
        close_handles(c);
        return;
    }
    c->quit_asked = true;
    if (graceful && c->http &&
        vf_ch_send(c, false, "vmm.shutdown", NULL, NULL, 0, on_quit, NULL) == 0)
        return; /* the front's grace timer comes back with graceful = false */
    vf_process_kill(&c->process, SIGKILL);
}

static void detach(struct vf_vm *vm)
{
    struct vf_ch *c = (struct vf_ch *)vm;
    c->files = 0;
    close_handles(c);
}

/* ---- requests */

int vf_ch_send(struct vf_ch *c, bool get, const char *name, const char *body, const int *fds,
               int n_fds, vf_vmm_http_cb cb, struct vf_error *err)
{
    char path[64];
    snprintf(path, sizeof(path), "/api/v1/%s", name);
    struct vf_vmm_http_request r = {.method = get ? "GET" : "PUT",
                                    .path = path,
                                    .name = name,
                                    .body = body,
                                    .fds = fds,
                                    .n_fds = n_fds};
    return vf_vmm_http_send(c->http, &r, cb, c, err);
}

static void on_silence(uv_timer_t *t)
{
    struct vf_vm *vm = t->data;
    struct vf_error e;
    if (vm->exited || vm->stopping)
        return;
    vf_fail(&e, VF_PROTOCOL, "Cloud Hypervisor closed its API connection, but lives");
    vf_vm_op_done(vm, &e);
}

void vf_ch_op_done(struct vf_ch *c, const struct vf_error *err)
{
    struct vf_vm *vm = &c->vm;
    if (!err || err->code != VF_VMM_DIED) {
        vf_vm_op_done(vm, err);
        return;
    }
    /* Mostly a process about to be reaped. One that lives has this long, or what is left of the deadline. */
    if (!vm->exited && !vm->stopping && uv_timer_get_due_in(&vm->timer) > CLOSED_GRACE_MS)
        vf_timer_at(&vm->timer, vf_deadline_after_ms(CLOSED_GRACE_MS), on_silence);
}

bool vf_ch_ended(struct vf_ch *c, enum vf_vm_op op, const struct vf_error *err)
{
    if (c->vm.close_begun || c->vm.stopping || c->vm.op != op)
        return true;
    if (err)
        vf_ch_op_done(c, err);
    return err != NULL;
}

int vf_ch_major(const struct vf_ch *c)
{
    return atoi(c->vm.info.version);
}

/* "53.0.0"; older ones have a v before it. */
int vf_ch_take_version(struct vf_ch *c, const struct vf_json *ping, struct vf_error *err)
{
    const char *version = vf_json_str(vf_json_get(ping, "version"), "");
    version += *version == 'v';
    if (*version < '0' || *version > '9' || strlen(version) >= sizeof(c->vm.info.version))
        return vf_fail(err, VF_PROTOCOL, "vmm.ping: the answer has no version");
    snprintf(c->vm.info.version, sizeof(c->vm.info.version), "%s", version);
    if (vf_ch_major(c) >= VF_CH_MIN_MAJOR)
        return 0;
    vf_fail(err, VF_UNSUPPORTED, "Cloud Hypervisor %s is too old: at least %d.0 is needed", version,
            VF_CH_MIN_MAJOR);
    return vf_hint(err, "before it, a clone's process could write to the memory of its template");
}

void vf_ch_take_info(struct vf_ch *c, const struct vf_json *info)
{
    int64_t actual = vf_json_int(vf_json_get(info, "memory_actual_size"), 0);
    if (c->cfg.balloon && actual > 0 && (uint64_t)actual <= c->vm.info.memory_size)
        c->vm.info.balloon_actual = (uint64_t)actual;
}

/* ---- create */

static void created(struct vf_ch *c)
{
    c->vm.info.connect_us = vf_now_us() - c->launched_us;
    vf_ch_op_done(c, NULL);
}

static void add_nics(struct vf_ch *c);

static void on_nic_added(void *arg, const struct vf_vmm_http_reply *reply,
                         const struct vf_error *err)
{
    struct vf_ch *c = arg;
    (void)reply;
    if (vf_ch_ended(c, VF_VM_OP_CREATE, err))
        return;
    c->next_nic++;
    add_nics(c);
}

static void add_nics(struct vf_ch *c)
{
    struct vf_error e;
    while (c->next_nic < c->cfg.n_nics && !c->cfg.nics[c->next_nic].n_fds)
        c->next_nic++;
    if (c->next_nic >= c->cfg.n_nics) {
        vf_ch_config_close_taps(&c->cfg);
        created(c);
        return;
    }
    const struct vf_vm_nic *n = &c->cfg.nics[c->next_nic];
    VF_CLEANUP_FREE char *body = vf_ch_add_net_body(&c->cfg, c->next_nic);
    int r = body ? vf_ch_send(c, false, "vm.add-net", body, n->fds, n->n_fds, on_nic_added, &e)
                 : vf_fail(&e, VF_NO_MEMORY, "vm.add-net");
    if (r < 0)
        vf_ch_op_done(c, &e);
}

static void on_created(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_ch *c = arg;
    (void)reply;
    if (!vf_ch_ended(c, VF_VM_OP_CREATE, err))
        add_nics(c);
}

static void on_ping(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_ch *c = arg;
    struct vf_error e;
    if (vf_ch_ended(c, VF_VM_OP_CREATE, err))
        return;
    int r = vf_ch_take_version(c, reply->json, &e);
    if (r == 0 && c->vm.incoming) {
        created(c);
        return;
    }
    VF_CLEANUP_FREE char *body = r == 0 ? vf_ch_create_body(&c->cfg) : NULL;
    if (r == 0)
        r = body ? vf_ch_send(c, false, "vm.create", body, NULL, 0, on_created, &e)
                 : vf_fail(&e, VF_NO_MEMORY, "vm.create");
    if (r < 0)
        vf_ch_op_done(c, &e);
}

/* Everything that needs undoing by hand until the handles own it. */
struct pieces {
    int api, events_read, events_write, output_read, output_write, record;
};

static void close_pieces(struct pieces *p)
{
    vf_close_fd(&p->api);
    vf_close_fd(&p->events_read);
    vf_close_fd(&p->events_write);
    vf_close_fd(&p->output_read);
    vf_close_fd(&p->output_write);
    vf_close_fd(&p->record);
}

static int make_fifo(struct vf_ch *c, struct pieces *p, struct vf_error *err)
{
    const char *name = vf_ch_file_names[VF_CH_EVENTS];
    if (mkfifoat(c->dirfd, name, 0600) < 0)
        return vf_fail_errno(err, errno, "FIFO '%s'", name);
    p->events_read = openat(c->dirfd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (p->events_read >= 0)
        p->events_write = openat(c->dirfd, name, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    return p->events_write < 0 ? vf_fail_errno(err, errno, "FIFO '%s'", name) : 0;
}

static int make_pieces(struct vf_ch *c, const struct vf_vm_config *cfg, struct pieces *p,
                       struct vf_error *err)
{
    c->dirfd = fcntl(cfg->dirfd, F_DUPFD_CLOEXEC, 0);
    if (c->dirfd < 0)
        return vf_fail_errno(err, errno, "the VM's directory");
    int r = vf_unix_listen(c->dirfd, vf_ch_file_names[VF_CH_API_SOCKET], 16, &p->api, err);
    if (r < 0)
        return r;
    /* Whoever has that name has the directory: all the others are its own. */
    c->files = 1u << VF_CH_API_SOCKET | 1u << VF_CH_EVENTS;
    if (cfg->channel == VF_CHANNEL_SERIAL)
        c->files |= 1u << VF_CH_AGENT_SOCKET;
    if (cfg->channel == VF_CHANNEL_VSOCK)
        c->files |= 1u << VF_CH_VSOCK_SOCKET;
    if ((r = vf_process_record(c->dirfd, VF_PROCESS_NAME, &p->record, err)) < 0)
        return r;
    c->files |= 1u << VF_CH_RECORD;
    if ((r = make_fifo(c, p, err)) < 0)
        return r;
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return vf_fail_errno(err, errno, "pipe");
    p->output_read = fds[0];
    p->output_write = fds[1];
    return 0;
}

static int launch(struct vf_ch *c, const struct vf_vm_config *cfg, struct pieces *p,
                  struct vf_error *err)
{
    char api[32], events[32];
    snprintf(api, sizeof(api), "fd=%d", VF_CH_FD_API);
    snprintf(events, sizeof(events), "fd=%d", VF_CH_FD_EVENTS);
    char *argv[] = {
        (char *)cfg->binary, "--api-socket", api, "--event-monitor", events, NULL, NULL, NULL};
    if (cfg->no_sandbox) {
        argv[5] = "--seccomp";
        argv[6] = "false";
    }
    int fds[] = {p->api, p->events_write, cfg->memory_fd};
    struct vf_launch l = {
        .binary = cfg->binary,
        .argv = argv,
        .fds = fds,
        .n_fds = sizeof(fds) / sizeof(*fds),
        .output = p->output_write,
        .has_cwd = true,
        .cwd_fd = c->dirfd,
        .has_netns = cfg->has_netns,
        .netns_fd = cfg->netns_fd,
        .net_admin = vf_vm_needs_net_admin(cfg),
        .userfaults = cfg->restore_mode == VF_RESTORE_ON_DEMAND,
        .die_with_parent = cfg->die_with_parent,
        .record = p->record,
    };
    c->launched_us = vf_now_us();
    int r = vf_process_launch(&l, &c->process, err);
    if (r < 0)
        return r;
    c->launched = true;
    c->vm.info.pid = c->process.pid;
    c->vm.info.process_us = vf_now_us() - c->launched_us;
    return 0;
}

int vf_ch_open_handles(struct vf_ch *c, int output, int events, struct vf_error *err)
{
    c->output.fd = output;
    c->events.fd = events;
    int r = vf_process_watch(&c->process, c->vm.loop, on_exit_process, c, err);
    if (r == 0)
        r = vf_vmm_pipe_open(&c->output, &c->vm, vf_vmm_pipe_say, err);
    if (r == 0)
        r = vf_vmm_pipe_open(&c->events, &c->vm, vf_ch_read_events, err);
    if (r == 0)
        r = vf_vmm_http_open(c->vm.loop, c->dirfd, vf_ch_file_names[VF_CH_API_SOCKET], &c->http,
                             err);
    return r;
}

static int create(struct vf_vm *vm, const struct vf_vm_config *cfg, struct vf_error *err)
{
    struct vf_ch *c = (struct vf_ch *)vm;
    struct pieces p = {-1, -1, -1, -1, -1, -1};
    if (!cfg->binary || cfg->binary[0] != '/')
        return vf_fail(err, VF_INVALID_ARGUMENT, "binary: an absolute path is needed");
    int r = vf_ch_config_copy(cfg, &c->cfg, err);
    if (r < 0)
        return r;
    c->has_cfg = true;
    r = make_pieces(c, cfg, &p, err);
    if (r == 0)
        r = launch(c, cfg, &p, err);
    if (r == 0)
        r = vf_ch_open_handles(c, vf_steal_fd(&p.output_read), vf_steal_fd(&p.events_read), err);
    if (r == 0)
        r = vf_ch_send(c, true, "vmm.ping", NULL, NULL, 0, on_ping, err);
    close_pieces(&p);
    return r;
}

/* ---- start, pause, resume, balloon, info */

static void on_booted(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_ch *c = arg;
    (void)reply;
    if (vf_ch_ended(c, VF_VM_OP_START, err))
        return;
    vf_vm_emit(&c->vm, VF_VM_EVENT_RESUMED, NULL);
    vf_ch_op_done(c, NULL);
}

static int start(struct vf_vm *vm, struct vf_error *err)
{
    return vf_ch_send((struct vf_ch *)vm, false, "vm.boot", NULL, NULL, 0, on_booted, err);
}

/* The VM is where pause or resume was to bring it. */
static void moved(struct vf_ch *c)
{
    vf_vm_emit(&c->vm, c->vm.op == VF_VM_OP_PAUSE ? VF_VM_EVENT_PAUSED : VF_VM_EVENT_RESUMED, NULL);
    vf_ch_op_done(c, NULL);
}

static void on_moved_info(void *arg, const struct vf_vmm_http_reply *reply,
                          const struct vf_error *err)
{
    struct vf_ch *c = arg;
    enum vf_vm_op op = c->vm.op == VF_VM_OP_PAUSE ? VF_VM_OP_PAUSE : VF_VM_OP_RESUME;
    if (err && err->code == VF_VMM_FAILED)
        err = &c->refusal;
    if (vf_ch_ended(c, op, err))
        return;
    const char *state = vf_json_str(vf_json_get(reply->json, "state"), "unknown");
    if (strcmp(state, op == VF_VM_OP_PAUSE ? "Paused" : "Running") == 0)
        moved(c);
    else
        vf_ch_op_done(c, &c->refusal);
}

static void on_moved(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_ch *c = arg;
    struct vf_error e;
    enum vf_vm_op op = c->vm.op == VF_VM_OP_PAUSE ? VF_VM_OP_PAUSE : VF_VM_OP_RESUME;
    (void)reply;
    /* Asked only now, since mostly there is nothing to ask for. */
    if (err && err->code == VF_VMM_FAILED && c->vm.op == op && !c->vm.stopping &&
        vf_ch_send(c, true, "vm.info", NULL, NULL, 0, on_moved_info, &e) == 0) {
        c->refusal = *err;
        return;
    }
    if (!vf_ch_ended(c, op, err))
        moved(c);
}

static int pause_vm(struct vf_vm *vm, struct vf_error *err)
{
    return vf_ch_send((struct vf_ch *)vm, false, "vm.pause", NULL, NULL, 0, on_moved, err);
}

static int resume(struct vf_vm *vm, struct vf_error *err)
{
    return vf_ch_send((struct vf_ch *)vm, false, "vm.resume", NULL, NULL, 0, on_moved, err);
}

static void on_resized(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_ch *c = arg;
    (void)reply;
    if (!vf_ch_ended(c, VF_VM_OP_BALLOON, err))
        vf_ch_op_done(c, NULL);
}

static int balloon(struct vf_vm *vm, uint64_t target, struct vf_error *err)
{
    struct vf_ch *c = (struct vf_ch *)vm;
    char body[64];
    if (!c->cfg.balloon)
        return vf_fail(err, VF_UNSUPPORTED, "this VM has no balloon device");
    snprintf(body, sizeof(body), "{\"desired_balloon\":%llu}",
             (unsigned long long)(vm->info.memory_size - target));
    return vf_ch_send(c, false, "vm.resize", body, NULL, 0, on_resized, err);
}

static void on_info(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_ch *c = arg;
    if (vf_ch_ended(c, VF_VM_OP_QUERY, err))
        return;
    vf_ch_take_info(c, reply->json);
    vf_ch_op_done(c, NULL);
}

static void on_alive(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    (void)reply;
    if (!vf_ch_ended(arg, VF_VM_OP_QUERY, err))
        vf_ch_op_done(arg, NULL);
}

/* Before a restore there is no VM to be asked for. */
static int info(struct vf_vm *vm, struct vf_error *err)
{
    struct vf_ch *c = (struct vf_ch *)vm;
    if (vm->incoming && vm->info.state == VF_VM_CREATED)
        return vf_ch_send(c, true, "vmm.ping", NULL, NULL, 0, on_alive, err);
    return vf_ch_send(c, true, "vm.info", NULL, NULL, 0, on_info, err);
}

static const char *const state_files[] = {VF_CH_CONFIG, VF_CH_STATE, NULL};

const struct vf_vmm_ops vf_cloud_hypervisor_ops = {
    .name = "cloud-hypervisor",
    .state_files = state_files,
    .capabilities = capabilities,
    .alloc = alloc,
    .create = create,
    .adopt = vf_ch_adopt,
    .start = start,
    .pause = pause_vm,
    .save = vf_ch_save,
    .restore = vf_ch_restore,
    .resume = resume,
    .balloon = balloon,
    .info = info,
    .stop = stop,
    .detach = detach,
    .free = free_vm,
};
