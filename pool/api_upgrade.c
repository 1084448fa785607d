/* See api_upgrade.h. The API's end waits until the last of them is closed. */
#include "pool/api_upgrade.h"

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct vf_api_upgrade *u = poll->data;

    if (status < 0 || (events & UV_DISCONNECT))
        vf_api_upgrade_end(u);
    else if (!u->closing)
        u->ops->ready(u, events);
}

void vf_api_upgrade_poll(struct vf_api_upgrade *u, int events)
{
    events |= UV_DISCONNECT;
    if (u->closing)
        return;
    if (events != u->polled && uv_poll_start(&u->poll, events, on_poll) < 0) {
        vf_api_upgrade_end(u);
        return;
    }
    u->polled = events;
}

static void on_closed(uv_handle_t *h)
{
    struct vf_api_upgrade *u = h->data;
    struct vf_http_upgraded *up = u->up;
    struct vf_api *a = u->api;
    bool last;

    if (u->next != NULL)
        u->next->prev = u->prev;
    if (u->prev != NULL)
        u->prev->next = u->next;
    else
        a->upgrades = u->next;
    last = a->upgrades == NULL && !a->http_closing;
    u->ops->freed(u);
    vf_http_upgrade_close(
        up); /* it may be what the server's end waits for, and then a is no more */
    if (last)
        vf_api_upgrades_over(a);
}

void vf_api_upgrade_end(struct vf_api_upgrade *u)
{
    if (u->closing)
        return;
    u->closing = true;
    u->ops->ended(u);
    uv_close((uv_handle_t *)&u->poll, on_closed);
}

void vf_api_upgrades_end(struct vf_api *a)
{
    for (struct vf_api_upgrade *u = a->upgrades; u != NULL; u = u->next)
        vf_api_upgrade_end(u);
}

static void on_failed(void *arg)
{
    struct vf_api_upgrade *u = arg;

    u->closing = true;
    u->ops->ended(u);
    u->ops->freed(u);
}

static void on_upgraded(void *arg, struct vf_http_upgraded *up, int fd, const char *extra,
                        size_t extra_len)
{
    struct vf_api_upgrade *u = arg;

    if (uv_poll_init(u->api->loop, &u->poll, fd) < 0) {
        vf_http_upgrade_close(up);
        on_failed(u);
        return;
    }
    u->poll.data = u;
    u->up = up;
    u->fd = fd;
    u->next = u->api->upgrades;
    if (u->next != NULL)
        u->next->prev = u;
    u->api->upgrades = u;
    if (u->api->closing)
        vf_api_upgrade_end(u);
    else
        u->ops->begun(u, extra, extra_len);
}

void vf_api_upgrade(struct vf_http_req *req, struct vf_api *a, struct vf_api_upgrade *u,
                    const struct vf_api_upgrade_ops *ops)
{
    u->ops = ops;
    u->api = a;
    vf_http_reply_upgrade(req, ops->protocol, on_upgraded, on_failed, u);
}
