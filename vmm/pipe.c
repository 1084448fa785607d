/* Happy path: watch, read as it is readable, stop at the end of file, close.
 * On the way: the other end fails or goes: it is watched no longer, and stays open until it is closed.
 */
#include "vmm/pipe.h"

#include <errno.h>
#include <unistd.h>
#include "base/fd.h"

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct vf_vmm_pipe *p = poll->data;
    (void)events;
    if (status < 0)
        uv_poll_stop(poll);
    else
        p->on_readable(p);
}

int vf_vmm_pipe_open(struct vf_vmm_pipe *p, struct vf_vm *vm,
                     void (*on_readable)(struct vf_vmm_pipe *p), struct vf_error *err)
{
    if (p->fd < 0)
        return 0;
    p->vm = vm;
    p->on_readable = on_readable;
    int r = uv_poll_init(vm->loop, &p->poll, p->fd);
    if (r == 0) {
        p->poll.data = p;
        p->open = true;
        r = uv_poll_start(&p->poll, UV_READABLE, on_poll);
    }
    return r < 0 ? vf_fail_errno(err, r, "watch what %s says", vm->ops->name) : 0;
}

void vf_vmm_pipe_say(struct vf_vmm_pipe *p)
{
    char buf[4096];
    ssize_t n = -1;
    if (!p->open)
        return;
    for (int i = 0; i < 16; i++) {
        n = read(p->fd, buf, sizeof(buf));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        vf_vm_say(p->vm, buf, (size_t)n);
    }
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        uv_poll_stop(&p->poll);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct vf_vmm_pipe *p = h->data;
    vf_close_fd(&p->fd);
    vf_vm_handle_closed(p->vm);
}

void vf_vmm_pipe_close(struct vf_vmm_pipe *p)
{
    if (!p->open) {
        vf_close_fd(&p->fd);
        return;
    }
    p->open = false;
    p->vm->closing++;
    uv_close((uv_handle_t *)&p->poll, on_handle_closed);
}
