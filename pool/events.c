/* The ring of events. See events.h.
 *
 *     vf_event -> a line, numbered -> the ring, in the place of the one VF_EVENTS_KEPT before it
 *              -> followers that had read all are told once -> vf_event_next, each at its own pace
 *
 * A line is shared: it leaves the ring when it is overwritten and memory when the last follower that was given
 * it asks for the next. What a follower had not read yet when it was overwritten is counted for it.
 */
#include "pool/events.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/utf8.h"

#define MAX_MESSAGE 1024

struct line {
    int refs;
    uid_t holder;
    char text[];
};

struct vf_event_follower {
    struct vf_events *events;
    struct vf_event_follower *prev, *next;
    int64_t at;       /* the seq it reads next */
    int64_t missed;   /* overwritten before it read them, and not told yet */
    bool waiting;     /* has read all, to be told of more */
    struct line *has; /* what it was given last */
    char missed_text[64];
    uid_t uid;
    bool admin;
    void (*more)(void *arg);
    void *arg;
};

struct vf_events {
    struct line *kept[VF_EVENTS_KEPT]; /* seq % VF_EVENTS_KEPT; NULL: there was no memory for it */
    int64_t last;                      /* the newest seq; 0: none yet */
    struct vf_event_follower *followers;
    struct vf_event_follower *telling; /* whose turn is next in tell() */
};

struct vf_events *vf_events_new(void)
{
    return calloc(1, sizeof(struct vf_events));
}

static void unref(struct line *l)
{
    if (l != NULL && --l->refs == 0)
        free(l);
}

void vf_events_free(struct vf_events *e)
{
    if (e == NULL)
        return;
    assert(e->followers == NULL);
    for (size_t i = 0; i < VF_EVENTS_KEPT; i++)
        unref(e->kept[i]);
    free(e);
}

int64_t vf_events_last(const struct vf_events *e)
{
    return e->last;
}

static int64_t first_kept(const struct vf_events *e)
{
    return e->last < VF_EVENTS_KEPT ? 1 : e->last - VF_EVENTS_KEPT + 1;
}

/* One without a holder is everyone's; one there was no memory for is counted by all. */
static bool visible(const struct vf_event_follower *f, const struct line *l)
{
    return l == NULL || f->admin || l->holder == VF_EVENT_ALL || l->holder == f->uid;
}

static void optional(struct vf_json_writer *w, const char *key, const char *value)
{
    if (value != NULL && value[0] != '\0')
        vf_jw_string(w, key, value);
}

static struct line *make_line(int64_t seq, const char *name, const char *template_name,
                              const char *vm, uid_t holder, const struct vf_error *err,
                              const char *msg)
{
    struct vf_json_writer w = {0};
    struct line *l = NULL;
    char at[VF_RFC3339_SIZE], *text;
    size_t len;

    vf_rfc3339_ms(vf_realtime_ns() / 1000000, at);
    vf_jw_begin(&w, NULL, '{');
    vf_jw_int(&w, "seq", seq);
    vf_jw_string(&w, "time", at);
    vf_jw_string(&w, "event", name);
    optional(&w, "template", template_name);
    optional(&w, "vm", vm);
    optional(&w, "code", err != NULL ? vf_code_name(err->code) : NULL);
    optional(&w, "message", msg);
    vf_jw_end(&w, '}');
    text = vf_jw_finish(&w);
    len = text != NULL ? strlen(text) : 0;
    if (text != NULL)
        l = malloc(sizeof(*l) + len + 2);
    if (l != NULL) {
        l->refs = 1;
        l->holder = holder;
        memcpy(l->text, text, len);
        memcpy(l->text + len, "\n", 2);
    }
    free(text);
    return l;
}

/* Tells all that wait. One that is told may unfollow, itself or others, and may even cause another event: that one tells
 * everybody who is left. */
static void tell(struct vf_events *e)
{
    e->telling = e->followers;
    while (e->telling != NULL) {
        struct vf_event_follower *f = e->telling;

        e->telling = f->next;
        if (f->waiting) {
            f->waiting = false;
            f->more(f->arg);
        }
    }
}

void vf_event(struct vf_events *e, const char *name, const char *template_name, const char *vm,
              uid_t holder, const struct vf_error *err, const char *fmt, ...)
{
    struct line **place = &e->kept[(e->last + 1) % VF_EVENTS_KEPT];
    char msg[MAX_MESSAGE] = "";
    int64_t lost = e->last + 1 - VF_EVENTS_KEPT;
    va_list ap;
    int n = 0;

    if (fmt != NULL && fmt[0] != '\0') {
        va_start(ap, fmt);
        n = vsnprintf(msg, sizeof(msg), fmt, ap);
        va_end(ap);
        n = n < 0 ? 0 : n;
    }
    if (err != NULL && (size_t)n < sizeof(msg))
        n += snprintf(msg + n, sizeof(msg) - (size_t)n, "%s%s", n > 0 ? ": " : "", err->msg);
    if ((size_t)n >= sizeof(msg))
        msg[vf_utf8_cut(msg, sizeof(msg) - 1)] = '\0';

    for (struct vf_event_follower *f = e->followers; lost > 0 && f != NULL; f = f->next) {
        if (f->at <= lost) {
            f->at = lost + 1;
            f->missed += visible(f, *place);
        }
    }
    unref(*place);
    *place = make_line(++e->last, name, template_name, vm, holder, err, msg);
    tell(e);
}

struct vf_event_follower *vf_event_follow(struct vf_events *e, int64_t since, uid_t uid, bool admin,
                                          void (*more)(void *arg), void *arg)
{
    struct vf_event_follower *f = calloc(1, sizeof(*f));
    int64_t first = first_kept(e);

    if (f == NULL)
        return NULL;
    f->events = e;
    f->uid = uid;
    f->admin = admin;
    f->more = more;
    f->arg = arg;
    /* A number that was never reached is from an earlier daemon: all of this one's events are new then. */
    if (since > e->last)
        since = 0;
    f->at = since < 0 ? e->last + 1 : since + 1;
    if (f->at < first) {
        f->missed = since > 0 ? first - f->at : 0;
        f->at = first;
    }
    f->next = e->followers;
    if (f->next != NULL)
        f->next->prev = f;
    e->followers = f;
    return f;
}

const char *vf_event_next(struct vf_event_follower *f)
{
    struct vf_events *e = f->events;

    unref(f->has);
    f->has = NULL;
    for (;;) {
        struct line *l = f->at <= e->last ? e->kept[f->at % VF_EVENTS_KEPT] : NULL;

        if (f->missed > 0) {
            snprintf(f->missed_text, sizeof(f->missed_text),
                     "{\"event\":\"missed\",\"count\":%" PRId64 "}\n", f->missed);
            f->missed = 0;
            return f->missed_text;
        }
        if (f->at > e->last) {
            f->waiting = true;
            return NULL;
        }
        f->at++;
        if (l == NULL) {
            f->missed++;
        } else if (visible(f, l)) {
            l->refs++;
            f->has = l;
            return l->text;
        }
    }
}

void vf_event_unfollow(struct vf_event_follower *f)
{
    struct vf_events *e = f->events;

    if (e->telling == f)
        e->telling = f->next;
    if (f->next != NULL)
        f->next->prev = f->prev;
    if (f->prev != NULL)
        f->prev->next = f->next;
    else
        e->followers = f->next;
    unref(f->has);
    free(f);
}
