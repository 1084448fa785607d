/* A real Prometheus scrapes the stats server's TCP listener, and answers a query from what it read.
 *
 *     server on 127.0.0.1 -> prometheus with a config of ours -> its API: target up, unit known, value right
 *
 * That it knows a unit shows that it was given OpenMetrics: the older format has none.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/json.h"
#include "pool/stats.h"
#include "pool/stats_server.h"
#include "tests/e2e/support.h"
#include "tests/unit/scratch.h"

#define PROMETHEUS "/usr/bin/prometheus"
#define AGAIN_MS 100 /* between two looks at what only Prometheus knows */

static int dial(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_geq(fd, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
        return fd;
    close(fd);
    return -1;
}

/* The JSON of an answer 200, or NULL if there is none yet. */
static struct vf_json *get(uint16_t port, const char *path)
{
    static char buf[1 << 18];
    struct vf_json *j = NULL;
    char request[256], *body;
    size_t len = 0;
    int VF_CLEANUP_FD fd = dial(port);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ssize_t n = 1;

    if (fd < 0)
        return NULL;
    snprintf(request, sizeof(request),
             "GET %s HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n", path);
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        return NULL;
    while (n > 0 && len < sizeof(buf) - 1 && poll(&p, 1, 5000) == 1) {
        n = recv(fd, buf + len, sizeof(buf) - 1 - len, 0);
        len += n > 0 ? (size_t)n : 0;
    }
    buf[len] = '\0';
    body = strstr(buf, "\r\n\r\n");
    if (body != NULL && strncmp(buf, "HTTP/1.0 200", 12) == 0)
        j = vf_json_parse(body + 4, strlen(body + 4));
    return j;
}

/* A port that is free now. */
static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static pid_t start_prometheus(const struct scratch *dir, uint16_t own_port, uint16_t stats_port)
{
    char config[512], arg[3][300];
    struct vf_error err;
    pid_t pid;

    snprintf(config, sizeof(config),
             "global:\n"
             "  scrape_interval: 1s\n"
             "  scrape_timeout: 1s\n"
             "scrape_configs:\n"
             "  - job_name: vmfactory\n"
             "    static_configs:\n"
             "      - targets: ['127.0.0.1:%u']\n",
             stats_port);
    cr_assert_eq(vf_write_file(dir->fd, "prometheus.yml", config, strlen(config), 0644, &err), 0);
    snprintf(arg[0], sizeof(arg[0]), "--config.file=%s/prometheus.yml", dir->path);
    snprintf(arg[1], sizeof(arg[1]), "--storage.tsdb.path=%s/data", dir->path);
    snprintf(arg[2], sizeof(arg[2]), "--web.listen-address=127.0.0.1:%u", own_port);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        int log = openat(dir->fd, "log", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

        prctl(PR_SET_PDEATHSIG, SIGKILL); /* also if this test crashes */
        if (log >= 0 && dup2(log, 1) >= 0 && dup2(log, 2) >= 0)
            execl(PROMETHEUS, PROMETHEUS, arg[0], arg[1], arg[2], (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void stop_prometheus(pid_t pid)
{
    int64_t deadline_us = vf_deadline_after_ms(20000);
    int status;

    kill(pid, SIGTERM);
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (vf_now_us() > deadline_us) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return;
        }
        poll(NULL, 0, AGAIN_MS);
    }
}

/* ---- what its API says; each returns true once it says what is wanted */

static bool target_is_up(const struct vf_json *j)
{
    const struct vf_json *t = vf_json_at(vf_json_get(vf_json_get(j, "data"), "activeTargets"), 0);
    const char *error = vf_json_str(vf_json_get(t, "lastError"), "");

    cr_expect_str_eq(error, "", "the scrape failed: %s", error);
    return strcmp(vf_json_str(vf_json_get(t, "health"), ""), "up") == 0;
}

static bool value_is_three(const struct vf_json *j)
{
    const struct vf_json *result = vf_json_at(vf_json_get(vf_json_get(j, "data"), "result"), 0);

    return strcmp(vf_json_str(vf_json_get(vf_json_get(result, "metric"), "template"), ""),
                  "o\"dd\\") == 0 &&
           strcmp(vf_json_str(vf_json_at(vf_json_get(result, "value"), 1), ""), "3") == 0;
}

static bool bucket_is_three(const struct vf_json *j)
{
    const struct vf_json *result = vf_json_at(vf_json_get(vf_json_get(j, "data"), "result"), 0);

    return strcmp(vf_json_str(vf_json_at(vf_json_get(result, "value"), 1), ""), "3") == 0;
}

static bool unit_is_bytes(const struct vf_json *j)
{
    const struct vf_json *m =
        vf_json_at(vf_json_get(vf_json_get(j, "data"), "vmfactory_vm_pss_bytes"), 0);

    return strcmp(vf_json_str(vf_json_get(m, "unit"), ""), "bytes") == 0 &&
           strcmp(vf_json_str(vf_json_get(m, "type"), ""), "gauge") == 0;
}

static const struct {
    const char *what, *path;
    bool (*holds)(const struct vf_json *j);
} wanted[] = {
    {"the target is up", "/api/v1/targets", target_is_up},
    {"the counter arrived", "/api/v1/query?query=vmfactory_leases_total", value_is_three},
    {"the histogram arrived",
     "/api/v1/query?query=vmfactory_acquire_duration_seconds_bucket%7Ble=%220.001%22,"
     "source=%22clone%22%7D",
     bucket_is_three},
    {"the unit is known", "/api/v1/metadata?metric=vmfactory_vm_pss_bytes", unit_is_bytes},
};

/* True once it holds; false at the deadline, or if Prometheus has ended. */
static bool wait_for(int i, uint16_t port, pid_t pid, int64_t deadline_us)
{
    for (;;) {
        struct vf_json *j = get(port, wanted[i].path);
        bool holds = j != NULL && wanted[i].holds(j);
        siginfo_t ended = {0};

        vf_json_delete(j);
        if (holds || vf_now_us() > deadline_us ||
            waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT) < 0 ||
            ended.si_pid == pid)
            return holds;
        poll(NULL, 0, AGAIN_MS);
    }
}

static void print_log(const struct scratch *dir)
{
    struct vf_error err;
    char *log;
    size_t len;

    if (vf_read_file(dir->fd, "log", 1 << 20, &log, &len, &err) < 0)
        return;
    fprintf(stderr, "%s\n", log);
    free(log);
}

Test(stats, prometheus_scrapes_it, .timeout = 120)
{
    int64_t deadline_us = vf_deadline_after_ms(SUP_LONG_MS);
    struct vf_stats *s;
    struct vf_stats_template *t;
    struct vf_stats_server *srv;
    struct vf_error err;
    struct scratch dir;
    bool all = true;
    uint16_t port;
    pid_t pid;
    int fd;

    if (access(PROMETHEUS, X_OK) != 0)
        sup_skip("stats", "prometheus_scrapes_it", "no " PROMETHEUS);
    scratch_open(&dir);
    s = vf_stats_new();
    t = vf_stats_template(s, "o\"dd\\");
    for (int i = 0; i < 3; i++)
        vf_stats_acquired(t, VF_GOT_CLONE, 700, NULL, 0);
    cr_assert_eq(vf_unix_listen(dir.fd, "stats.sock", 16, &fd, &err), 0, "%s", err.msg);
    cr_assert_eq(vf_stats_server_start(s, fd, "127.0.0.1:0", 16, &srv, &err), 0, "%s", err.msg);
    port = free_port();
    pid = start_prometheus(&dir, port, vf_stats_server_port(srv));
    for (int i = 0; i < (int)(sizeof(wanted) / sizeof(wanted[0])) && all; i++) {
        all = wait_for(i, port, pid, deadline_us);
        cr_expect(all, "%s", wanted[i].what);
    }
    stop_prometheus(pid);
    if (!all)
        print_log(&dir);
    vf_stats_server_stop(srv);
    vf_stats_free(s);
    scratch_close(&dir);
}
