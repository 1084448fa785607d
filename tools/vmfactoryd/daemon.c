/* The daemon's life. See daemon.h.
 *
 *     run directory locked, sockets bound -> stats answer (not ready) -> pools adopt what runs -> API -> READY=1
 *     SIGHUP: settings, runtime classes and assets read again
 *     SIGTERM: API refuses, then closes -> pools close -> the rest -> exit
 *
 * Requests that come before the API is there wait in the socket's queue. Stopping is bounded by stop_timeout_ms, and
 * a second signal cuts it short; what is left then is adopted or cleaned up by the next daemon, as after a kill.
 */
#include "daemon.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/version.h"
#include "event_log.h"
#include "notify.h"
#include "pool/api.h"
#include "pool/events.h"
#include "pool/ledger.h"
#include "pool/pools.h"
#include "pool/stall.h"
#include "pool/stats.h"
#include "pool/stats_server.h"
#include "sockets.h"

#define MAX_LEFT 4096 /* VMs counted when stopping takes too long */

struct daemon {
    const struct options *options;
    struct vf_settings settings;
    struct sockets sockets;
    gid_t admin_gid;
    struct vf_events *events;
    struct event_log *event_log;
    struct vf_stats *stats;
    struct vf_stats_server *stats_server;
    struct vf_pools *pools;
    struct vf_api *api;
    struct vf_stall *stall;
    struct vf_ledger *ledger;
    uv_loop_t loop;
    uv_signal_t term, interrupt, hangup;
    uv_timer_t watchdog, stop_timer, close_timer;
    int64_t began_us;
    bool stopping;
    int exit_code;
};

/* --- stopping: each part ends only when those that use it have */

static void on_stall_stopped(void *arg)
{
    struct daemon *d = arg;

    d->stall = NULL;
    uv_stop(&d->loop);
}

static void on_pools_closed(void *arg)
{
    struct daemon *d = arg;

    d->pools = NULL;
    vf_stall_stop(d->stall, on_stall_stopped, d);
}

static void on_ledger_stopped(void *arg)
{
    struct daemon *d = arg;

    vf_pools_close(d->pools, on_pools_closed, d);
}

static void on_api_closed(void *arg)
{
    struct daemon *d = arg;

    d->api = NULL;
    if (d->ledger != NULL)
        vf_ledger_stop(d->ledger, on_ledger_stopped, d);
    else
        on_ledger_stopped(d);
}

/* Not much can be done: the next daemon cleans up. */
static void on_stop_timeout(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    static struct vf_vm_process left[MAX_LEFT];
    int n = d->pools != NULL ? vf_pools_processes(d->pools, left, MAX_LEFT) : 0;

    vf_log(VF_LOG_ERROR, NULL,
           "not stopped within %" PRId64 " ms (stop_timeout_ms): %s still open, %d VM processes "
           "left for the next daemon to adopt or clean up",
           d->settings.stop_timeout_ms, d->api != NULL ? "API and pools" : "pools", n);
    _exit(EXIT_FAILED);
}

static void on_answered(uv_timer_t *timer)
{
    struct daemon *d = timer->data;

    vf_api_close(d->api, on_api_closed, d);
}

static void stop(struct daemon *d, const char *why, int exit_code)
{
    if (d->stopping)
        return;
    d->stopping = true;
    d->exit_code = exit_code;
    vf_log(VF_LOG_INFO, NULL, "stopping: %s", why);
    notify("STOPPING=1\nSTATUS=stopping: %s", why);
    vf_stats_set_ready(d->stats, false);
    vf_event(d->events, "daemon.stopping", NULL, NULL, VF_EVENT_ALL, NULL, "%s", why);
    uv_timer_start(&d->stop_timer, on_stop_timeout, (uint64_t)d->settings.stop_timeout_ms, 0);
    if (d->api == NULL) {
        on_api_closed(d);
        return;
    }
    /* Who waits for a VM is told so; the answers go out in this turn of the loop. */
    vf_api_quiesce(d->api);
    vf_pools_refuse(d->pools);
    uv_timer_start(&d->close_timer, on_answered, 0, 0);
}

static void on_terminate(uv_signal_t *handle, int signum)
{
    struct daemon *d = handle->data;

    if (d->stopping) {
        vf_log(VF_LOG_WARN, NULL, "%s again: ending at once; the next daemon cleans up",
               strsignal(signum));
        _exit(EXIT_FAILED);
    }
    stop(d, strsignal(signum), EXIT_OK);
}

/* --- settings */

static int reload(struct daemon *d, struct vf_error *err)
{
    struct vf_settings fresh;
    char *waiting = NULL;
    int r = options_settings(d->options, &fresh, err);

    if (r < 0)
        return r;
    r = vf_settings_apply(&d->settings, &fresh, &waiting, err);
    vf_settings_free(&fresh);
    if (r < 0)
        return r;
    vf_log_setup(STDERR_FILENO, (enum vf_log_level)d->settings.log_level,
                 (enum vf_log_format)d->settings.log_format);
    vf_pools_settings_changed(d->pools);
    vf_log(VF_LOG_INFO, NULL, "settings read again%s%s",
           waiting != NULL ? "; a restart is needed for " : "", waiting != NULL ? waiting : "");
    vf_event(d->events, "daemon.settings", NULL, NULL, VF_EVENT_ALL, NULL,
             "settings read again%s%s", waiting != NULL ? "; a restart is needed for " : "",
             waiting != NULL ? waiting : "");
    free(waiting);
    return 0;
}

static void on_classes_read(void *arg, const struct vf_error *err)
{
    struct daemon *d = arg;

    (void)err;                          /* told and logged as an event; those in force stay */
    if (d->api != NULL && !d->stopping) /* else READY is still to come, or never will */
        notify("READY=1");
}

static void on_hangup(uv_signal_t *handle, int signum)
{
    struct daemon *d = handle->data;
    struct vf_error err;

    (void)signum;
    if (d->stopping)
        return;
    notify_reloading();
    if (reload(d, &err) < 0) {
        vf_log_error(VF_LOG_ERROR, NULL, &err, "settings not read again, the old ones hold");
        vf_event(d->events, "daemon.settings", NULL, NULL, VF_EVENT_ALL, &err,
                 "settings not read again, the old ones hold");
    }
    if (vf_runtimes_reload(vf_pools_runtimes(d->pools), on_classes_read, d, &err) < 0) {
        vf_log_error(VF_LOG_ERROR, NULL, &err, "classes not read again, those in force stay");
        on_classes_read(d, &err);
    }
}

/* --- starting */

/* Those that were adopted: nothing else is there yet. */
static int count_leases(const struct daemon *d)
{
    static const struct vf_caller self = {.uid = 0, .admin = true};
    struct vf_slot *vm = NULL;
    int n = 0;

    while ((vm = vf_pools_next_vm(d->pools, vm, &self, false)) != NULL)
        n++;
    return n;
}

static int serve(struct daemon *d, struct vf_error *err)
{
    int r = vf_api_open(&d->loop, d->sockets.sockets[SOCKET_API].fd, d->pools, d->events,
                        &d->settings, d->admin_gid, &d->api, err);

    if (r < 0)
        return vf_wrap(err, "API");
    d->sockets.sockets[SOCKET_API].fd = -1;
    r = vf_ledger_start(&d->loop, d->pools, &d->ledger, err);
    return r < 0 ? vf_wrap(err, "ledger") : 0;
}

static void on_adopted(void *arg, const struct vf_error *failed)
{
    struct daemon *d = arg;
    struct vf_error err;
    int leased;
    int64_t took_ms = (vf_now_us() - d->began_us) / 1000;

    if (d->stopping)
        return;
    if (failed != NULL || serve(d, &err) < 0) {
        vf_log_error(VF_LOG_ERROR, NULL, failed != NULL ? failed : &err, "can't start");
        stop(d, "it could not start", EXIT_FAILED);
        return;
    }
    vf_stats_set_ready(d->stats, true);
    leased = count_leases(d);
    vf_log(VF_LOG_INFO, NULL, "ready after %" PRId64 " ms; %d VMs are leased", took_ms, leased);
    vf_event(d->events, "daemon.started", NULL, NULL, VF_EVENT_ALL, NULL,
             "ready after %" PRId64 " ms; %d VMs are leased", took_ms, leased);
    notify("READY=1\nSTATUS=ready; %d VMs are leased", leased);
}

static int open_stats(struct daemon *d, struct vf_error *err)
{
    int r;

    d->stats = vf_stats_new();
    d->events = vf_events_new();
    d->event_log = d->events != NULL ? event_log_start(d->events, &d->settings) : NULL;
    if (d->stats == NULL || d->event_log == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory");
    r = vf_stats_server_start(d->stats, d->sockets.sockets[SOCKET_STATS].fd,
                              d->settings.stats_listen, (int)d->settings.max_connections,
                              &d->stats_server, err);
    if (r < 0)
        return vf_wrap(err, "stats socket");
    d->sockets.sockets[SOCKET_STATS].fd = -1;
    return 0;
}

static void open_loop(struct daemon *d)
{
    struct {
        uv_signal_t *handle;
        int signum;
        uv_signal_cb cb;
    } const signals[] = {{&d->term, SIGTERM, on_terminate},
                         {&d->interrupt, SIGINT, on_terminate},
                         {&d->hangup, SIGHUP, on_hangup}};

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        uv_signal_init(&d->loop, signals[i].handle);
        signals[i].handle->data = d;
        uv_signal_start(signals[i].handle, signals[i].cb, signals[i].signum);
    }
    uv_timer_init(&d->loop, &d->stop_timer);
    d->stop_timer.data = d;
    uv_timer_init(&d->loop, &d->close_timer);
    d->close_timer.data = d;
    notify_watchdog(&d->loop, &d->watchdog);
}

static void close_loop(struct daemon *d)
{
    uv_handle_t *const handles[] = {(uv_handle_t *)&d->term,        (uv_handle_t *)&d->interrupt,
                                    (uv_handle_t *)&d->hangup,      (uv_handle_t *)&d->stop_timer,
                                    (uv_handle_t *)&d->close_timer, (uv_handle_t *)&d->watchdog};

    for (size_t i = 0; i < sizeof(handles) / sizeof(handles[0]); i++)
        uv_close(handles[i], NULL);
    uv_run(&d->loop, UV_RUN_DEFAULT);
    int r = uv_loop_close(&d->loop);
    assert(r == 0);
    (void)r;
}

/* Everything that can refuse at once. On failure what was opened is closed by the caller. */
static int start(struct daemon *d, struct vf_error *err)
{
    int r = find_group(d->settings.admin_group, &d->admin_gid, err);

    if (r == 0)
        r = sockets_open(&d->settings, &d->sockets, err);
    if (r == 0)
        r = open_stats(d, err);
    if (r == 0)
        r = vf_stall_start(&d->loop, d->stats, &d->stall, err);
    if (r == 0)
        r = vf_pools_open(&d->loop, &d->settings, d->events, d->stats, on_adopted, d, &d->pools,
                          err);
    return r;
}

int daemon_run(const struct options *o, struct vf_settings *settings)
{
    struct daemon d = {.options = o, .settings = *settings, .began_us = vf_now_us()};
    struct vf_error err;
    int r;

    d.sockets = (struct sockets){.dirfd = -1, .lock_fd = -1, .sockets = {{.fd = -1}, {.fd = -1}}};
    if (notify_open(&err) < 0)
        vf_log_error(VF_LOG_WARN, NULL, &err, "the service manager will hear nothing");
    vf_log(VF_LOG_INFO, NULL, "vmfactoryd %s starts: pid %d, state %s, run %s", VF_VERSION,
           (int)getpid(), d.settings.state_dir, d.settings.run_dir);
    r = uv_loop_init(&d.loop);
    if (r < 0) {
        vf_log(VF_LOG_ERROR, NULL, "can't start: loop: %s", uv_strerror(r));
        vf_settings_free(&d.settings);
        return EXIT_FAILED;
    }
    open_loop(&d);
    if (start(&d, &err) < 0) {
        vf_log_error(VF_LOG_ERROR, NULL, &err, "can't start");
        d.exit_code = err.code == VF_CONFLICT ? EXIT_IN_USE : EXIT_FAILED;
        if (d.stall != NULL)
            vf_stall_stop(d.stall, on_stall_stopped, &d);
    }
    if (d.exit_code == EXIT_OK || d.stall != NULL)
        uv_run(&d.loop, UV_RUN_DEFAULT); /* until on_stall_stopped */
    close_loop(&d);
    vf_stats_server_stop(d.stats_server);
    event_log_stop(d.event_log);
    vf_events_free(d.events);
    vf_stats_free(d.stats);
    sockets_close(&d.sockets);
    vf_settings_free(&d.settings);
    if (d.stopping)
        vf_log(VF_LOG_INFO, NULL, "stopped");
    notify_close();
    return d.exit_code;
}
