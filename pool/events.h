/* What happens, told to whoever listens: a ring of the last events, and those who follow it.
 *
 * An event is one JSON object on one line, {"seq","time","event","template","vm",…}. A follower reads from
 * the ring at its own pace: one that is too slow misses events and is told how many.
 */
#ifndef VF_POOL_EVENTS_H
#define VF_POOL_EVENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/error.h"

#define VF_EVENTS_KEPT 1024

struct vf_events;
struct vf_events *vf_events_new(void);
void vf_events_free(struct vf_events *e); /* no follower may be left (asserted) */

#define VF_EVENT_ALL ((uid_t)-1) /* no holder: everyone may see it */
/* name: "vm.leased", "vm.died", "template.quarantined", …; template, vm, message may be NULL. err may be
 * NULL: its code and message become "code" and "message". holder: only this uid and admins see it. */
void vf_event(struct vf_events *e, const char *name, const char *template_name, const char *vm,
              uid_t holder, const struct vf_error *err, const char *fmt, ...)
    __attribute__((format(printf, 7, 8)));

struct vf_event_follower;
/* more: called on the loop when there is something new after a vf_event_next that found nothing. since: the seq
 * to begin after; < 0: only what comes from now on. uid, admin: whose eyes. NULL without memory. */
struct vf_event_follower *vf_event_follow(struct vf_events *e, int64_t since, uid_t uid, bool admin,
                                          void (*more)(void *arg), void *arg);
/* The next line, with its newline; valid until the next call. NULL: none now. */
const char *vf_event_next(struct vf_event_follower *f);
void vf_event_unfollow(struct vf_event_follower *f);
int64_t vf_events_last(const struct vf_events *e);

#endif
