/* A connection that leaves HTTP: connect -> request -> 101 -> the caller's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/client/internal.h"

/* What the daemon said instead of 101. */
static int refused(struct vf_conn *c, const struct vf_http_head *head, const char *protocol,
                   int64_t deadline_us, struct vmfactory_error *err)
{
    struct vf_error e = {0};
    char *answer;
    size_t len;
    int r;

    if (head->status < 400)
        return vf_client_fail_as(err, -EPROTO, "protocol", NULL,
                                 "the daemon does not speak %s (status %d)", protocol,
                                 head->status);
    r = vf_client_read_body(c, head, deadline_us, &answer, &len, &e);
    if (r < 0)
        return vf_client_fail(err, &e, r);
    r = vf_client_refused(head, answer, len, err);
    free(answer);
    return r;
}

int vf_client_upgrade(const struct vmfactory *h, struct vf_conn *c, const char *path,
                      const char *protocol, const char *body, int64_t deadline_us,
                      struct vmfactory_error *err)
{
    struct vf_http_head head;
    struct vf_error e = {0};
    char more[100], *text;
    size_t len = 0;
    int r;

    snprintf(more, sizeof(more), "Connection: Upgrade\r\nUpgrade: %s\r\n", protocol);
    text = vf_client_compose("POST", path, more, body, &len);
    if (text == NULL)
        return vf_client_fail_as(err, -ENOMEM, "no_memory", NULL, "out of memory");
    r = vf_client_open(h, c, deadline_us, err);
    if (r < 0)
        goto out;
    r = vf_conn_send(c, text, len, deadline_us, NULL, &e);
    /* A daemon that refuses it may close at once: its answer lies there. */
    if (r == 0 || r == -EPIPE || r == -ECONNRESET)
        r = vf_client_read_head(c, deadline_us, &head, &e);
    if (r == -ENODATA)
        r = vf_client_fail_as(err, -ECONNRESET, "disconnected", NULL,
                              "the connection ended before the answer");
    else if (r < 0)
        r = vf_client_fail(err, &e, r);
    else if (head.status != 101 || strcmp(head.upgrade, protocol) != 0)
        r = refused(c, &head, protocol, deadline_us, err);
out:
    free(text);
    return r;
}
