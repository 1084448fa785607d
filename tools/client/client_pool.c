/* A pool, and waiting until it is warm. See vmfactory-client.h.
 *
 *     events are opened -> POST warm -> look -> an event, or a second, has gone by -> look … -> parked >= target
 *
 * Events only wake it up: what counts is what the pool says. So a lost event costs a second, no more.
 */
#include "tools/client/internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"

#define LOOK_EVERY_MS 1000
/* Not more often than this, however many events there are. */
#define LOOK_AT_MOST_EVERY_US 50000
#define REFILL_TRIES 3

int vf_client_parse_pool(char *body, size_t len, struct vmfactory_pool *ret,
                         struct vmfactory_error *err)
{
    struct vf_json *j = vf_json_parse(body, len);
    const struct vf_json *build = vf_json_get(j, "build"), *refill = vf_json_get(j, "refill");
    struct vmfactory_pool p = {.json = body};

    vf_client_copy(p.template_name, sizeof(p.template_name),
                   vf_json_str(vf_json_get(j, "template"), ""));
    if (p.template_name[0] == '\0') {
        vf_json_delete(j);
        free(body);
        return vf_client_fail_as(err, -EPROTO, "protocol", NULL, "the answer is no pool");
    }
    vf_client_copy(p.state, sizeof(p.state), vf_json_str(vf_json_get(j, "state"), ""));
    vf_client_copy(p.reason, sizeof(p.reason), vf_json_str(vf_json_get(j, "reason"), ""));
    p.generation = vf_json_int(vf_json_get(j, "generation"), 0);
    p.drained = vf_json_bool(vf_json_get(j, "drained"), false);
    p.target = vf_json_int(vf_json_get(vf_json_get(j, "config"), "target"), 0);
    p.parked = vf_json_int(vf_json_get(j, "parked"), 0);
    p.making = vf_json_int(vf_json_get(j, "making"), 0);
    p.leased = vf_json_int(vf_json_get(j, "leased"), 0);
    p.waiting = vf_json_int(vf_json_get(j, "waiting"), 0);
    p.build_running = vf_json_bool(vf_json_get(build, "running"), false);
    vf_client_copy(p.build_stage, sizeof(p.build_stage),
                   vf_json_str(vf_json_get(build, "stage"), ""));
    p.build_attempts = vf_json_int(vf_json_get(build, "attempts"), 0);
    vf_client_copy(p.refill_state, sizeof(p.refill_state),
                   vf_json_str(vf_json_get(refill, "state"), ""));
    vf_client_copy(p.refill_reason, sizeof(p.refill_reason),
                   vf_json_str(vf_json_get(refill, "reason"), ""));
    p.refill_failures_in_row = vf_json_int(vf_json_get(refill, "failures_in_row"), 0);
    vf_client_read_error(vf_json_get(build, "error"), &p.build_error);
    vf_client_read_error(vf_json_get(refill, "error"), &p.refill_error);
    vf_json_delete(j);
    *ret = p;
    return 0;
}

static int pool_request(struct vmfactory *h, const char *method, const char *name,
                        const char *suffix, const char *body, struct vmfactory_pool *ret,
                        struct vmfactory_error *err)
{
    char *path = vmfactory_path("/v1/pools/", name, suffix);
    struct vmfactory_response answer;
    int r;

    if (path == NULL)
        return vf_client_fail_as(err, -ENOMEM, "no_memory", NULL, "out of memory");
    r = vmfactory_request(h, method, path, body, 0, &answer, err);
    free(path);
    return r < 0 ? r : vf_client_parse_pool(answer.body, answer.len, ret, err);
}

int vmfactory_get_pool(struct vmfactory *h, const char *template_name, struct vmfactory_pool *ret,
                       struct vmfactory_error *err)
{
    return pool_request(h, "GET", template_name, "", NULL, ret, err);
}

void vmfactory_pool_free(struct vmfactory_pool *p)
{
    free(p->json);
    p->json = NULL;
}

/* Why p will not get warm by itself, as a failure; 0 if it may. attempts_before: builds begun before this wish. */
static int hopeless(const struct vmfactory_pool *p, int64_t attempts_before,
                    struct vmfactory_error *err)
{
    if (!p->build_running && p->build_error.code[0] != '\0' && p->build_attempts > attempts_before)
        return vf_client_fail_as(err, -EREMOTEIO, p->build_error.code, p->build_error.hint,
                                 "template %s can't be built: %s", p->template_name,
                                 p->build_error.message);
    if (p->refill_failures_in_row >= REFILL_TRIES)
        return vf_client_fail_as(
            err, -EREMOTEIO, p->refill_error.code[0] != '\0' ? p->refill_error.code : "io",
            p->refill_error.hint, "%lld clones of %s in a row have failed: %s",
            (long long)p->refill_failures_in_row, p->template_name,
            p->refill_error.code[0] != '\0' ? p->refill_error.message : "no reason is given");
    if (p->drained)
        return vf_client_fail_as(err, -EBUSY, "conflict", "warm it again",
                                 "pool %s was drained meanwhile", p->template_name);
    return 0;
}

/* Without events: waits until until_us, or for the cancel descriptor. */
static int pause_until(struct vmfactory *h, int64_t until_us, struct vmfactory_error *err)
{
    struct pollfd p = {.fd = h->conn.cancel_fd, .events = POLLIN};
    int left;

    while ((left = vf_deadline_left_ms(until_us)) != 0)
        if (poll(&p, 1, left) > 0)
            return vf_client_fail_as(err, -ECANCELED, "cancelled", NULL, "cancelled");
    return 0;
}

/* Returns when something may have changed. */
static int await_change(struct vmfactory *h, struct vmfactory_events **ev, const char *name,
                        int64_t deadline_us, int64_t looked_us, struct vmfactory_error *err)
{
    int64_t until_us = vf_deadline_after_ms(LOOK_EVERY_MS);
    struct vmfactory_event event;
    int r;

    if (deadline_us < until_us)
        until_us = deadline_us;
    while (*ev != NULL && vf_now_us() < until_us) {
        r = vmfactory_events_next(*ev, vf_deadline_left_ms(until_us), &event, err);
        if (r == -ECANCELED)
            return r;
        if (r <= 0 && r != -ETIMEDOUT) {
            /* The daemon ended the stream: the next look says whether it is still there. */
            vmfactory_events_close(*ev);
            *ev = NULL;
        }
        if (r > 0 && (event.template_name[0] == '\0' || strcmp(event.template_name, name) == 0) &&
            looked_us + LOOK_AT_MOST_EVERY_US < until_us)
            until_us = looked_us + LOOK_AT_MOST_EVERY_US;
    }
    return pause_until(h, until_us, err);
}

static int late(const struct vmfactory_pool *p, struct vmfactory_error *err)
{
    return vf_client_fail_as(
        err, -ETIMEDOUT, "timeout",
        "it goes on in the background; see vmfactory status, or give it more time",
        "pool %s has %lld of %lld VMs parked%s%s%s%s", p->template_name, (long long)p->parked,
        (long long)p->target, p->build_running ? "; the template is being built: " : "",
        p->build_running ? p->build_stage : "", p->refill_reason[0] != '\0' ? "; refilling: " : "",
        p->refill_reason);
}

int vmfactory_warm(struct vmfactory *h, const char *template_name, int64_t count,
                   int64_t timeout_ms, void (*progress)(void *arg, const struct vmfactory_pool *p),
                   void *arg, struct vmfactory_pool *ret, struct vmfactory_error *err)
{
    int64_t deadline_us = vf_deadline_after_ms(timeout_ms != 0 ? timeout_ms : 300000);
    int64_t attempts_before, target, looked_us;
    struct vmfactory_events *ev = NULL;
    struct vmfactory_pool p;
    char body[64] = "{}";
    int r;

    r = vmfactory_get_pool(h, template_name, &p, err);
    if (r < 0)
        return r;
    /* A build that is under way is joined: it counts as this wish's. */
    attempts_before = p.build_attempts - (p.build_running ? 1 : 0);
    vmfactory_pool_free(&p);
    r = vmfactory_events_open(h, -1, true, &ev, err);
    if (r < 0)
        return r;
    if (count > 0)
        snprintf(body, sizeof(body), "{\"count\":%lld}", (long long)count);
    r = pool_request(h, "POST", template_name, "/warm", body, &p, err);
    if (r < 0) {
        vmfactory_events_close(ev);
        return r;
    }
    for (;;) {
        looked_us = vf_now_us();
        if (progress != NULL)
            progress(arg, &p);
        target = count > 0 && count < p.target ? count : p.target;
        if (p.parked >= target && p.parked > 0)
            break;
        r = hopeless(&p, attempts_before, err);
        if (r == 0 && looked_us >= deadline_us)
            r = late(&p, err);
        if (r == 0)
            r = await_change(h, &ev, template_name, deadline_us, looked_us, err);
        vmfactory_pool_free(&p);
        if (r == 0)
            r = vmfactory_get_pool(h, template_name, &p, err);
        if (r < 0) {
            vmfactory_events_close(ev);
            return r;
        }
    }
    vmfactory_events_close(ev);
    if (ret != NULL)
        *ret = p;
    else
        vmfactory_pool_free(&p);
    return 0;
}
