/* A list of connections and since when, under one lock. See stats_guard.h.
 *
 * A connection leaves the list before libmicrohttpd closes its descriptor, so what is shut down under the lock is
 * still that connection. Shut down, it looks to libmicrohttpd as if its peer had gone.
 */
#include "pool/stats_guard.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include "base/clock.h"

#define LOOK_EVERY_US INT64_C(1000000)

struct guarded {
    LIST_ENTRY(guarded) entry;
    int fd;
    int64_t since_us;
};

struct vf_stats_guard {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    LIST_HEAD(guarded_list, guarded) connections;
    int64_t limit_us;
    bool stop;
};

static void end_overdue(struct vf_stats_guard *g)
{
    int64_t now_us = vf_now_us();

    for (struct guarded *c = LIST_FIRST(&g->connections); c != NULL; c = LIST_NEXT(c, entry)) {
        if (now_us - c->since_us > g->limit_us)
            shutdown(c->fd, SHUT_RDWR);
    }
}

static void *watch(void *arg)
{
    struct vf_stats_guard *g = (struct vf_stats_guard *)arg;

    pthread_mutex_lock(&g->lock);
    while (!g->stop) {
        int64_t next_us = vf_now_us() + LOOK_EVERY_US;
        struct timespec next = {.tv_sec = (time_t)(next_us / 1000000),
                                .tv_nsec = (long)(next_us % 1000000) * 1000};

        end_overdue(g);
        pthread_cond_timedwait(&g->stopped, &g->lock, &next);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

int vf_stats_guard_start(int64_t limit_us, struct vf_stats_guard **ret, struct vf_error *err)
{
    struct vf_stats_guard *g = (struct vf_stats_guard *)calloc(1, sizeof(*g));
    pthread_condattr_t attr;
    int r;

    if (g == NULL)
        return vf_fail(err, VF_NO_MEMORY, "stats: no memory");
    g->limit_us = limit_us;
    LIST_INIT(&g->connections);
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* vf_now_us' */
    pthread_cond_init(&g->stopped, &attr);
    pthread_condattr_destroy(&attr);
    r = pthread_create(&g->thread, NULL, watch, g);
    if (r != 0) {
        pthread_cond_destroy(&g->stopped);
        pthread_mutex_destroy(&g->lock);
        free(g);
        return vf_fail_errno(err, r, "stats: can't start a thread");
    }
    *ret = g;
    return 0;
}

void vf_stats_guard_stop(struct vf_stats_guard *g)
{
    if (g == NULL)
        return;
    pthread_mutex_lock(&g->lock);
    g->stop = true;
    pthread_cond_signal(&g->stopped);
    pthread_mutex_unlock(&g->lock);
    pthread_join(g->thread, NULL);
    pthread_cond_destroy(&g->stopped);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static void begin(struct vf_stats_guard *g, struct MHD_Connection *connection, void **place)
{
    int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    struct guarded *c = (struct guarded *)calloc(1, sizeof(*c));

    if (c == NULL) { /* not served without a guard */
        shutdown(fd, SHUT_RDWR);
        return;
    }
    c->fd = fd;
    c->since_us = vf_now_us();
    pthread_mutex_lock(&g->lock);
    LIST_INSERT_HEAD(&g->connections, c, entry);
    pthread_mutex_unlock(&g->lock);
    *place = c;
}

static void end(struct vf_stats_guard *g, struct guarded *c)
{
    if (c == NULL)
        return;
    pthread_mutex_lock(&g->lock);
    LIST_REMOVE(c, entry);
    pthread_mutex_unlock(&g->lock);
    free(c);
}

void vf_stats_guard_on_connection(void *guard, struct MHD_Connection *c, void **place,
                                  enum MHD_ConnectionNotificationCode what)
{
    struct vf_stats_guard *g = (struct vf_stats_guard *)guard;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        begin(g, c, place);
        return;
    }
    end(g, (struct guarded *)*place);
    *place = NULL;
}

void vf_stats_guard_on_completed(void *guard, struct MHD_Connection *c, void **state,
                                 enum MHD_RequestTerminationCode how)
{
    struct vf_stats_guard *g = (struct vf_stats_guard *)guard;
    struct guarded *place =
        (struct guarded *)MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT)
            ->socket_context;

    (void)state;
    (void)how;
    if (place == NULL)
        return;
    pthread_mutex_lock(&g->lock);
    place->since_us = vf_now_us();
    pthread_mutex_unlock(&g->lock);
}
