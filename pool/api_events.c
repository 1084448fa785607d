/* GET /v1/events: the ring's lines, as fast as the caller reads them. What it is too slow for it misses, and is
 * told how much that was: nothing is queued for it. */
#include "pool/api_internal.h"

#include <stdlib.h>
#include <string.h>

struct stream {
    struct vf_http_req *req;
    struct vf_event_follower *follower;
    const char *line; /* the follower's, NULL: none */
    size_t at;        /* how much of it is sent */
    bool follow;
};

static void on_more(void *arg)
{
    struct stream *s = arg;

    if (s->follow)
        vf_http_stream_more(s->req);
}

static ssize_t next(void *arg, char *buf, size_t size)
{
    struct stream *s = arg;
    size_t len = 0;

    while (len < size) {
        size_t n;

        if (s->line == NULL) {
            s->line = vf_event_next(s->follower);
            s->at = 0;
        }
        if (s->line == NULL)
            break;
        n = strlen(s->line + s->at);
        n = n < size - len ? n : size - len;
        memcpy(buf + len, s->line + s->at, n);
        len += n;
        s->at += n;
        if (s->line[s->at] == '\0')
            s->line = NULL;
    }
    return len == 0 && !s->follow ? -1 : (ssize_t)len;
}

static void closed(void *arg)
{
    struct stream *s = arg;

    vf_event_unfollow(s->follower);
    free(s);
}

void vf_api_events(struct vf_http_req *req, void *arg)
{
    static const char *const known[] = {"since", "follow", NULL};
    struct vf_api *a = arg;
    const struct vf_caller *who = vf_http_caller(req);
    struct vf_error err = {0};
    struct stream *s;
    int64_t since = -1;
    bool follow = true;

    if (!vf_api_query(req, known) || !vf_api_query_int(req, "since", &since) ||
        !vf_api_query_bool(req, "follow", &follow))
        return;
    if (!follow && since < 0)
        since = 0; /* there would be nothing else to show */
    s = calloc(1, sizeof(*s));
    if (s != NULL) {
        s->req = req;
        s->follow = follow;
        s->follower = vf_event_follow(a->events, since, who->uid, who->admin, on_more, s);
    }
    if (s == NULL || s->follower == NULL) {
        free(s);
        vf_fail(&err, VF_NO_MEMORY, "events");
        vf_http_reply_error(req, &err, 0);
        return;
    }
    vf_http_reply_stream(req, 200, "application/x-ndjson",
                         &(struct vf_http_stream){next, closed, s});
}
