/* One request to Firecracker at a time, and what can come of it.
 *
 * Happy path of a create: Firecracker binds its socket itself, in the VM's directory, which is watched (inotify); as
 * the name appears GET /version is asked, then the set-up's requests one after the other.
 * On the way: between bind and listen nobody takes a connection (asked again, a bounded number of times); it answers
 * with an error (the operation fails); it ends, where an answer that it gave just before says more than how it ended
 * (a failed load ends Firecracker by design): so the end is told only once no answer can come any more; it closes the
 * connection and lives.
 */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "vmm/firecracker.h"

#define CLOSED_GRACE_MS 1000
#define AT_ONCE 20 /* attempts without a pause */
#define MAX_ATTEMPTS 50
#define MAX_PAUSE_MS 32

/* ms 0: at the loop's next turn. */
static void start_wait(struct vf_firecracker *f, int64_t ms, uv_timer_cb cb)
{
    if (f->wait_open)
        vf_timer_at(&f->wait, ms ? vf_deadline_after_ms(ms) : 0, cb);
}

/* ---- the end of the process */

void vf_firecracker_report_end(struct vf_firecracker *f)
{
    struct vf_vm *vm = &f->vm;
    if (!f->ended || vm->exited)
        return;
    if (f->wait_open)
        uv_timer_stop(&f->wait);
    if (f->ended_by_guest &&
        (vm->info.state == VF_VM_RUNNING || vm->op == VF_VM_OP_START || vm->op == VF_VM_OP_RESUME))
        vf_vm_emit(vm, VF_VM_EVENT_GUEST_SHUTDOWN, NULL);
    if (!vm->exited) /* else the callback has called stop */
        vf_vm_process_exited(vm, f->ended_how);
}

static void on_no_answer(uv_timer_t *t)
{
    vf_firecracker_report_end(t->data);
}

void vf_firecracker_ended(struct vf_firecracker *f, const struct vf_exit *how)
{
    f->ended = true;
    /* It ends well only when its guest has, by a reset or a power off. A triple fault, which is a reset, too, makes it
     * end with 0 or 1, as two of its threads race; then its log tells. */
    f->ended_by_guest =
        !how->signaled && !how->unknown &&
        (how->code == 0 || strstr(vf_vm_last_words(&f->vm), "exit reason on vcpu run: Shutdown"));
    vf_exit_text(how, f->ended_how, sizeof(f->ended_how));
    /* What it has sent is still to be read, then the connection ends. */
    if (f->on_reply && !f->vm.stopping)
        start_wait(f, CLOSED_GRACE_MS, on_no_answer);
    else
        vf_firecracker_report_end(f);
}

/* ---- a request */

static void on_silence(uv_timer_t *t)
{
    struct vf_firecracker *f = t->data;
    static const char words[] = "Firecracker closed its API connection, but lives";
    struct vf_error e;
    if (f->ended || f->vm.stopping)
        return;
    vf_fail(&e, VF_PROTOCOL, "%s", words);
    vf_vm_op_done(&f->vm, &e);
    vf_vm_emit(&f->vm, VF_VM_EVENT_FAILED, words);
}

static void on_version(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                       const struct vf_error *err);

static void on_answer(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_firecracker *f = arg;
    vf_firecracker_cb cb = f->on_reply;
    f->on_reply = NULL;
    if (f->vm.close_begun)
        return;
    bool lost = err && err->code == VF_VMM_DIED;
    if (f->vm.op == VF_VM_OP_NONE) {
        /* Cancelled, or too late. */
    } else if (!lost || (cb == on_version && !f->ended))
        cb(f, reply, err);
    else if (!f->ended)
        start_wait(f, CLOSED_GRACE_MS, on_silence); /* mostly a process about to be reaped */
    if (f->ended && !f->on_reply && !f->vm.close_begun)
        vf_firecracker_report_end(f);
}

int vf_firecracker_ask(struct vf_firecracker *f, const char *method, const char *path,
                       const char *body, vf_firecracker_cb cb, struct vf_error *err)
{
    struct vf_vmm_http_request r = {.method = method, .path = path, .body = body};
    if (f->on_reply)
        return vf_fail(err, VF_CONFLICT, "%s: another request is under way", path);
    if (f->ended)
        return vf_fail(err, VF_VMM_DIED, "%s: the process has ended", path);
    int ret = vf_vmm_http_send(f->http, &r, on_answer, f, err);
    if (ret == 0)
        f->on_reply = cb;
    return ret;
}

void vf_firecracker_go_on(struct vf_firecracker *f, const char *method, const char *path,
                          const char *body, vf_firecracker_cb cb)
{
    struct vf_error e;
    if (vf_firecracker_ask(f, method, path, body, cb, &e) < 0 && !f->ended)
        vf_vm_op_done(&f->vm, &e);
}

/* ---- create: the socket, the version, the set-up */

static void next_setup(struct vf_firecracker *f);

static void on_setup(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                     const struct vf_error *err)
{
    (void)reply;
    if (err)
        vf_vm_op_done(&f->vm, err);
    else
        next_setup(f);
}

static void next_setup(struct vf_firecracker *f)
{
    if (f->next_setup == f->n_setup) {
        vf_firecracker_forget_setup(f);
        vf_vm_op_done(&f->vm, NULL);
        return;
    }
    const struct vf_firecracker_request *r = &f->setup[f->next_setup++];
    vf_firecracker_go_on(f, r->method, r->path, r->body, on_setup);
}

static void ask_version(struct vf_firecracker *f)
{
    if (f->vm.op == VF_VM_OP_CREATE && !f->on_reply && !f->ended && !f->vm.close_begun)
        vf_firecracker_go_on(f, "GET", "/version", NULL, on_version);
}

static void on_pause_over(uv_timer_t *t)
{
    ask_version(t->data);
}

/* Bound, but nobody listens yet: it will within microseconds, unless it gets no CPU. */
static void ask_again(struct vf_firecracker *f, const struct vf_error *err)
{
    struct vf_error e;
    if (++f->attempts < MAX_ATTEMPTS) {
        int over = f->attempts - AT_ONCE;
        int64_t ms = over <= 0 ? 0 : over < 6 ? 1 << (over - 1) : MAX_PAUSE_MS;
        start_wait(f, ms, on_pause_over);
        return;
    }
    vf_fail(&e, VF_PROTOCOL, "Firecracker takes no requests: %s", err->msg);
    vf_vm_op_done(&f->vm, &e);
}

static void on_version(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                       const struct vf_error *err)
{
    struct vf_vm_info *info = &f->vm.info;
    struct vf_error e;
    if (err && err->code == VF_VMM_DIED) {
        ask_again(f, err);
        return;
    }
    if (err) {
        vf_vm_op_done(&f->vm, err);
        return;
    }
    uv_fs_event_stop(&f->watch);
    info->connect_us = vf_now_us() - f->launched_us;
    const char *version = vf_json_str(vf_json_get(reply->json, "firecracker_version"), "");
    snprintf(info->version, sizeof(info->version), "%s", version);
    f->version = vf_firecracker_version(version);
    if (vf_firecracker_check_version(f, &e) < 0 || vf_firecracker_fit_setup(f, &e) < 0)
        vf_vm_op_done(&f->vm, &e);
    else
        next_setup(f);
}

static void on_file(uv_fs_event_t *w, const char *name, int events, int status)
{
    struct vf_firecracker *f = w->data;
    (void)events;
    if (status >= 0 && f->attempts == 0 && (!name || strcmp(name, VF_FIRECRACKER_API_NAME) == 0))
        ask_version(f);
}

int vf_firecracker_watch(struct vf_firecracker *f, struct vf_error *err)
{
    char path[40];
    int r = uv_fs_event_init(f->vm.loop, &f->watch);
    if (r < 0)
        return vf_fail_errno(err, r, "watch the VM's directory");
    f->watch.data = f;
    f->watching = true;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", f->dirfd);
    if ((r = uv_fs_event_start(&f->watch, on_file, path, 0)) == 0)
        return 0;
    int ret = vf_fail_errno(err, r, "watch the VM's directory");
    if (r == UV_ENOSPC || r == UV_EMFILE)
        vf_hint(err, "raise fs.inotify.max_user_%s", r == UV_ENOSPC ? "watches" : "instances");
    return ret;
}
