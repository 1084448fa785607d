/* The stream of events: a connection of its own, an unending chunked body, one JSON object a line. */
#include "tools/client/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"

/* Longer than any event; a line that never ends is refused. */
#define MAX_LINE 16384

struct vmfactory_events {
    struct vf_conn conn;
    struct vf_http_body body;
    char line[MAX_LINE]; /* what of the next line has come */
    size_t len;
    char shown[MAX_LINE]; /* the last one told, and its parsed form */
    struct vf_json *parsed;
};

/* Sends the request and reads the head of the answer. */
static int begin(struct vmfactory *h, struct vmfactory_events *ev, const char *path,
                 struct vmfactory_error *err)
{
    int64_t deadline_us = vf_client_deadline(h, 0);
    struct vf_http_head head;
    struct vf_error e = {0};
    char *text, *answer;
    size_t len;
    int r;

    r = vf_client_open(h, &ev->conn, deadline_us, err);
    if (r < 0)
        return r;
    text = vf_client_compose("GET", path, "", NULL, &len);
    if (text == NULL)
        return vf_client_fail_as(err, -ENOMEM, "no_memory", NULL, "out of memory");
    r = vf_conn_send(&ev->conn, text, len, deadline_us, NULL, &e);
    free(text);
    if (r == 0)
        r = vf_client_read_head(&ev->conn, deadline_us, &head, &e);
    if (r == -ENODATA)
        return vf_client_fail_as(err, -ECONNRESET, "disconnected", NULL,
                                 "the connection ended before the answer");
    if (r == 0 && head.status >= 400) {
        r = vf_client_read_body(&ev->conn, &head, deadline_us, &answer, &len, &e);
        if (r == 0) {
            r = vf_client_refused(&head, answer, len, err);
            free(answer);
            return r;
        }
    }
    if (r == 0 && head.status == 101)
        r = vf_fail(&e, VF_PROTOCOL, "the daemon changed the protocol unasked");
    if (r == 0)
        r = vf_http_body_begin(&ev->body, &head, &e);
    return r < 0 ? vf_client_fail(err, &e, r) : 0;
}

int vmfactory_events_open(struct vmfactory *h, int64_t since, bool follow,
                          struct vmfactory_events **ret, struct vmfactory_error *err)
{
    struct vmfactory_events *ev = calloc(1, sizeof(*ev));
    char path[80] = "/v1/events";
    int r;

    if (ev == NULL)
        return vf_client_fail_as(err, -ENOMEM, "no_memory", NULL, "out of memory");
    ev->conn = VF_CONN_INIT;
    ev->conn.cancel_fd = h->conn.cancel_fd;
    if (since >= 0)
        snprintf(path, sizeof(path), "/v1/events?since=%lld%s", (long long)since,
                 follow ? "" : "&follow=false");
    else if (!follow)
        snprintf(path, sizeof(path), "/v1/events?follow=false");
    r = begin(h, ev, path, err);
    if (r < 0) {
        vmfactory_events_close(ev);
        return r;
    }
    *ret = ev;
    return 0;
}

static const char *text_of(const struct vf_json *j, const char *key)
{
    return vf_json_str(vf_json_get(j, key), "");
}

static int show(struct vmfactory_events *ev, struct vmfactory_event *ret, struct vf_error *e)
{
    const struct vf_json *j;

    memcpy(ev->shown, ev->line, ev->len);
    ev->shown[ev->len] = '\0';
    vf_json_delete(ev->parsed);
    ev->parsed = vf_json_parse(ev->shown, ev->len);
    ev->len = 0;
    j = ev->parsed;
    if (!vf_json_is_object(j))
        return vf_fail(e, VF_PROTOCOL, "an event is no JSON object");
    *ret = (struct vmfactory_event){
        .seq = vf_json_int(vf_json_get(j, "seq"), 0),
        .time = text_of(j, "time"),
        .event = text_of(j, "event"),
        .template_name = text_of(j, "template"),
        .vm = text_of(j, "vm"),
        .code = text_of(j, "code"),
        .message = text_of(j, "message"),
        .count = vf_json_int(vf_json_get(j, "count"), 0),
        .json = ev->shown,
    };
    return 1;
}

/* Takes what has come up to the end of a line: 1 if there is one, 0 if not. */
static int take_line(struct vmfactory_events *ev, struct vf_error *e)
{
    struct vf_conn *c = &ev->conn;
    const char *payload, *end;
    size_t used, n;
    int r;

    for (;;) {
        struct vf_http_body before = ev->body;

        r = vf_http_body_next(&ev->body, c->buf + c->start, c->end - c->start, &used, &payload, &n,
                              e);
        if (r <= 0)
            return r;
        end = n > 0 ? memchr(payload, '\n', n) : NULL;
        if (end != NULL && (size_t)(end + 1 - payload) < n) {
            /* More than this line: take the piece again, up to its end. */
            ev->body = before;
            r = vf_http_body_next(&ev->body, payload, (size_t)(end + 1 - payload), &used, &payload,
                                  &n, e);
            if (r <= 0)
                return r;
        }
        if (n > MAX_LINE - 1 - ev->len)
            return vf_fail(e, VF_PROTOCOL, "too long an event");
        memcpy(ev->line + ev->len, payload, n);
        ev->len += n;
        vf_conn_take(c, used);
        if (end != NULL) {
            ev->len--;
            return 1;
        }
    }
}

int vmfactory_events_next(struct vmfactory_events *ev, int64_t timeout_ms,
                          struct vmfactory_event *ret, struct vmfactory_error *err)
{
    int64_t deadline_us = vf_deadline_after_ms(timeout_ms);
    struct vf_error e = {0};
    int r;

    for (;;) {
        r = take_line(ev, &e);
        if (r > 0 && ev->len == 0)
            continue;
        if (r > 0)
            r = show(ev, ret, &e);
        if (r != 0)
            break;
        if (ev->body.state == VF_HTTP_DONE)
            return 0;
        r = vf_conn_fill(&ev->conn, deadline_us, &e);
        if (r == 0)
            r = vf_fail(&e, VF_PROTOCOL, "the connection ended within the events");
        if (r < 0)
            break;
    }
    return r < 0 ? vf_client_fail(err, &e, r) : r;
}

void vmfactory_events_close(struct vmfactory_events *ev)
{
    if (ev == NULL)
        return;
    vf_conn_close(&ev->conn);
    vf_json_delete(ev->parsed);
    free(ev);
}
