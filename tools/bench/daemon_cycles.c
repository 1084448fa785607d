/* Acquire, hold, release, think, and again: what a number of clients do at the same time. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "tools/bench/daemon.h"

enum { ACQUIRING, HOLDING, RELEASING };

/* Evenly spread from 0 to twice mean. */
static int64_t around(int64_t mean)
{
    return mean ? random() % (2 * mean + 1) : 0;
}

static void compose(struct load_conn *c, const char *method, const char *target, const char *body)
{
    client_compose(c->request, sizeof(c->request), method, target, body);
}

static void next(struct load_conn *c)
{
    struct cycles *y = c->load->arg;
    char text[128];
    if (c->step == HOLDING && y->keep)
        memcpy(y->kept[y->n_kept++], c->id, sizeof(c->id));
    else if (c->step == HOLDING) {
        c->step = RELEASING;
        snprintf(text, sizeof(text), "/v1/vms/%s", c->id);
        compose(c, "DELETE", text, NULL);
        if (y->hold_us)
            c->due_us = vf_now_us() + around(y->hold_us);
        return;
    }
    if (y->begun == y->count) {
        c->due_us = VF_NEVER;
        return;
    }
    y->begun++;
    c->step = ACQUIRING;
    snprintf(text, sizeof(text), "{\"template\":\"%s\"}", y->template_name);
    compose(c, "POST", "/v1/vms", text);
    if (y->think_us)
        c->due_us = vf_now_us() + around(y->think_us);
}

static bool unexpected(struct load_conn *c, int status, const char *body)
{
    vf_fail(&c->load->err, VF_PROTOCOL, "%s: status %d: %.500s",
            c->step == ACQUIRING ? "acquire" : "release", status, body);
    return false;
}

static bool answered(struct load_conn *c, int status, const char *body, int64_t us)
{
    struct cycles *y = c->load->arg;
    const char *id;
    if (c->step == RELEASING)
        return status == 204 || unexpected(c, status, body);
    if (status == 429) { /* not counted, tried again */
        y->refused++;
        y->begun--;
        return true;
    }
    id = strstr(body, "\"id\":\"");
    if (status != 201 || !id)
        return unexpected(c, status, body);
    snprintf(c->id, sizeof(c->id), "%.12s", id + 6);
    y->hits += strstr(body, "\"source\":\"hit\"") != NULL;
    y->took_us = vf_now_us() - y->began_us;
    series_add(&y->acquire, us);
    c->step = HOLDING;
    return true;
}

int cycles_run(struct cycles *y, struct bench_daemon *d, struct vf_error *err)
{
    struct load l = {
        .d = d, .path = d->api, .n = y->clients, .next = next, .answered = answered, .arg = y};
    y->kept = y->keep ? calloc((size_t)y->count, sizeof(*y->kept)) : NULL;
    if (y->keep && !y->kept)
        return vf_fail(err, VF_NO_MEMORY, "cycles");
    y->began_us = vf_now_us();
    int r = load_run(&l, err);
    for (int64_t i = 0; r == 0 && i < y->n_kept; i++)
        r = pool_release(&d->control, y->kept[i], err);
    free(y->kept);
    return r;
}
