/* The event monitor: JSON objects over several lines, an empty line after each, written into a FIFO in the VM's
 * directory.
 *
 * The VMM never waits for a reader: it writes without blocking, and drops what does not fit, or what nobody reads
 * after this process has ended; the next one opens the FIFO again. So an event may be torn, and its beginning may be of
 * the past: what is no JSON is passed over. PAUSED and RESUMED are not taken from here, for they are what our own
 * requests do (cloud_hypervisor.c), and would come after the answers.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "vmm/cloud_hypervisor.h"

static void on_event(struct vf_ch *c, const struct vf_json *ev)
{
    const char *source = vf_json_str(vf_json_get(ev, "source"), "");
    const char *event = vf_json_str(vf_json_get(ev, "event"), "");
    const char *what = vf_json_str(vf_json_get(vf_json_get(ev, "properties"), "event"), "");
    if (c->quit_asked)
        return; /* its shutdown is our doing */
    if (strcmp(source, "vm") == 0 && strcmp(event, "shutdown") == 0)
        vf_vm_emit(&c->vm, VF_VM_EVENT_GUEST_SHUTDOWN, "power off");
    else if (strcmp(source, "vm") == 0 && strcmp(event, "rebooting") == 0)
        vf_vm_emit(&c->vm, VF_VM_EVENT_GUEST_SHUTDOWN, "reset");
    else if (strcmp(source, "guest") == 0 && strcmp(event, "panic") == 0)
        vf_vm_emit(&c->vm, VF_VM_EVENT_GUEST_PANICKED, what);
}

/* Takes the whole ones out of c->event. */
static void split(struct vf_ch *c)
{
    char *end;
    while (!c->vm.close_begun && (end = memmem(c->event, c->event_len, "\n\n", 2))) {
        size_t len = (size_t)(end - c->event);
        struct vf_json *ev = c->event_skip ? NULL : vf_json_parse(c->event, len);
        c->event_len -= len + 2;
        memmove(c->event, end + 2, c->event_len);
        c->event_skip = false;
        if (ev)
            on_event(c, ev);
        vf_json_delete(ev);
    }
    if (c->event_len < sizeof(c->event) - 1)
        return;
    /* Too long to be one of its events; the last byte may be half of its end. */
    c->event_skip = true;
    c->event[0] = c->event[c->event_len - 1];
    c->event_len = 1;
}

void vf_ch_read_events(struct vf_vmm_pipe *p)
{
    struct vf_ch *c = (struct vf_ch *)p->vm;
    for (int i = 0; i < 16 && !c->vm.close_begun; i++) {
        ssize_t n =
            read(c->events.fd, c->event + c->event_len, sizeof(c->event) - 1 - c->event_len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            uv_poll_stop(&c->events.poll);
            return;
        }
        c->event_len += (size_t)n;
        split(c);
    }
}
