/* The daemon's life: what it locks, what it tells the service manager, sockets handed over to it, settings read again,
 * refusals with their exit codes. VMs play no part here. */
#include "tests/e2e/daemon_support.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/version.h"

TestSuite(daemon_life, .timeout = 120);

enum { FAILED = 1, USAGE = 2, IN_USE = 3 };

/* Waits for a datagram with text in it. */
static void await_notify(struct dmn *d, const char *text)
{
    int64_t deadline = vf_deadline_after_ms(DMN_LONG_MS);
    char got[1024];

    for (;;) {
        struct pollfd p = {.fd = d->notify_fd, .events = POLLIN};
        int r = poll(&p, 1, vf_deadline_left_ms(deadline));
        ssize_t n;

        cr_assert(r > 0 || errno == EINTR, "no \"%s\" came", text);
        while ((n = recv(d->notify_fd, got, sizeof(got) - 1, MSG_DONTWAIT)) > 0) {
            got[n] = '\0';
            if (strstr(got, text) != NULL)
                return;
        }
    }
}

static void expect_logged(const struct dmn *d, const char *text)
{
    char *log = dmn_log(d);

    cr_expect_not_null(strstr(log, text), "not logged: %s\n%s", text, log);
    free(log);
}

static mode_t mode_of(const struct dmn *d, const char *name)
{
    char path[200];
    struct stat st;

    snprintf(path, sizeof(path), "%s/%s", d->run, name);
    return stat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}

static void write_in(const char *dir, const char *name, const char *text)
{
    VF_CLEANUP_FD int fd = -1;
    struct vf_error err;

    cr_assert_eq(vf_open_dir(dir, 1, 0700, &fd, &err), 0, "%s", err.msg);
    cr_assert_eq(vf_write_file(fd, name, text, strlen(text), 0600, &err), 0, "%s", err.msg);
}

Test(daemon_life, a_second_daemon_is_refused)
{
    struct dmn d, other;
    char want[200];

    dmn_open(&d, NULL);
    snprintf(want, sizeof(want), "run directory %s: is in use by vmfactoryd pid %d", d.run,
             (int)d.pid);
    dmn_prepare(&other, NULL);
    snprintf(other.run, sizeof(other.run), "%s", d.run);
    cr_expect_eq(dmn_start_fails(&other), IN_USE);
    expect_logged(&other, want);
    dmn_close(&other);

    snprintf(want, sizeof(want), "store %s: in use by pid %d", d.state, (int)d.pid);
    dmn_prepare(&other, NULL);
    snprintf(other.state, sizeof(other.state), "%s", d.state);
    cr_expect_eq(dmn_start_fails(&other), IN_USE);
    expect_logged(&other, want);
    cr_expect_eq(mode_of(&other, "api.sock"), 0, "it leaves no socket");
    dmn_close(&other);

    free(dmn_call(&d, 200, "GET", "/v1/version", NULL)); /* the first is as it was */
    dmn_close(&d);
}

Test(daemon_life, sockets_of_a_killed_daemon_are_replaced)
{
    struct dmn d;

    dmn_open(&d, NULL);
    dmn_kill(&d);
    cr_expect_neq(mode_of(&d, "api.sock"), 0);
    dmn_start(&d);
    free(dmn_call(&d, 200, "GET", "/v1/version", NULL));
    cr_expect_eq(dmn_stop(&d), 0);
    cr_expect_eq(mode_of(&d, "api.sock"), 0);
    cr_expect_eq(mode_of(&d, "stats.sock"), 0);
    dmn_close(&d);
}

Test(daemon_life, modes)
{
    const struct group *g = getgrgid(getegid());
    char set[100];
    const char *const alone[] = {"--set", "group=", NULL}, *const shared[] = {"--set", set, NULL};
    struct dmn d;

    dmn_open(&d, alone);
    cr_expect_eq(mode_of(&d, "."), 0700);
    cr_expect_eq(mode_of(&d, "api.sock"), 0600);
    cr_expect_eq(mode_of(&d, "stats.sock"), 0600);
    dmn_close(&d);

    cr_assert_not_null(g);
    snprintf(set, sizeof(set), "group=%s", g->gr_name);
    dmn_open(&d, shared);
    cr_expect_eq(mode_of(&d, "."), 0755);
    cr_expect_eq(mode_of(&d, "vms"), 0700);
    cr_expect_eq(mode_of(&d, "api.sock"), 0660);
    cr_expect_eq(mode_of(&d, "stats.sock"), 0660);
    dmn_close(&d);
}

Test(daemon_life, refusals)
{
    static const struct {
        const char *args[3];
        int status;
        const char *says;
    } cases[] = {
        {{"--set", "max_vms=-1"}, USAGE, "max_vms: must be at least 0 (is -1)"},
        {{"--set", "max_vmz=1"}, USAGE, "did you mean \"max_vms\"?"},
        {{"--set", "max_vms"}, USAGE, "must be NAME=VALUE"},
        {{"--config", "/nonexistent/x.json"}, USAGE, "/nonexistent/x.json"},
        {{"--colour"}, USAGE, "unknown option colour"},
        {{"chek"}, USAGE, "did you mean check?"},
        {{"check", "twice"}, USAGE, "unexpected argument twice"},
        {{"--log-level"}, USAGE, "--log-level: needs a value"},
        {{"--json"}, USAGE, "goes with \"config\""},
    };
    struct dmn d;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        dmn_prepare(&d, cases[i].args);
        cr_expect_eq(dmn_start_fails(&d), cases[i].status, "%s", cases[i].args[0]);
        expect_logged(&d, cases[i].says);
        dmn_close(&d);
    }

    dmn_prepare(&d, NULL); /* others could put their socket in the place of ours */
    cr_assert_eq(mkdir(d.run, 0700), 0);
    cr_assert_eq(chmod(d.run, 0777), 0);
    cr_expect_eq(dmn_start_fails(&d), FAILED);
    expect_logged(&d, "others could replace what is in it");
    dmn_close(&d);

    dmn_prepare(&d, NULL);
    write_in(d.run, "api.sock", "somebody's file");
    cr_expect_eq(dmn_start_fails(&d), FAILED);
    expect_logged(&d, "api.sock: is there already, and is no socket");
    cr_expect_eq(mode_of(&d, "api.sock"), 0600, "it is still there");
    dmn_close(&d);
}

Test(daemon_life, what_the_service_manager_hears)
{
    struct dmn d;

    setenv("WATCHDOG_USEC", "20000", 1);
    unsetenv("WATCHDOG_PID");
    dmn_open(&d, NULL);
    await_notify(&d, "WATCHDOG=1");
    await_notify(&d, "WATCHDOG=1");
    dmn_signal(&d, SIGHUP);
    await_notify(&d, "RELOADING=1\nMONOTONIC_USEC=");
    await_notify(&d, "READY=1");
    dmn_signal(&d, SIGTERM);
    await_notify(&d, "STOPPING=1\nSTATUS=stopping");
    cr_expect_eq(dmn_wait(&d), 0);
    dmn_close(&d);
}

/* Datagrams come in order: none of a watchdog is among those until STOPPING=1. */
Test(daemon_life, a_watchdog_for_another_process_is_none)
{
    struct dmn d;
    char got[1024] = "";
    struct pollfd p;
    ssize_t n;

    setenv("WATCHDOG_USEC", "2000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    dmn_open(&d, NULL);
    free(dmn_call(&d, 200, "GET", "/v1/version", NULL));
    dmn_signal(&d, SIGTERM);
    p = (struct pollfd){.fd = d.notify_fd, .events = POLLIN};
    while (strstr(got, "STOPPING=1") == NULL && poll(&p, 1, DMN_LONG_MS) > 0) {
        n = recv(d.notify_fd, got, sizeof(got) - 1, MSG_DONTWAIT);
        got[n > 0 ? n : 0] = '\0';
        cr_expect_null(strstr(got, "WATCHDOG"), "%s", got);
    }
    cr_expect_not_null(strstr(got, "STOPPING=1"));
    cr_expect_eq(dmn_wait(&d), 0);
    dmn_close(&d);
}

Test(daemon_life, settings_are_read_again)
{
    char path[100];
    const char *const args[] = {"--config", path, "--set", "quarantine_after=7", NULL};
    struct dmn d;

    dmn_prepare(&d, args);
    snprintf(path, sizeof(path), "%s/v.json", d.dir);
    write_in(d.dir, "v.json", "{\"group\":\"\",\"max_connections\":40}");
    dmn_start(&d);

    write_in(d.dir, "v.json", "{\"group\":\"\",\"max_connections\":40,\"heartbeat_ms\":-1}");
    dmn_signal(&d, SIGHUP);
    await_notify(&d, "READY=1");
    expect_logged(&d, "settings not read again, the old ones hold");
    expect_logged(&d, "heartbeat_ms: must be at least 0 ms (is -1)");

    write_in(d.dir, "v.json", "{\"group\":\"\",\"max_connections\":41,\"log_format\":\"json\"}");
    dmn_signal(&d, SIGHUP);
    await_notify(&d, "READY=1");
    expect_logged(&d, "\"msg\":\"settings read again; a restart is needed for max_connections\"");
    free(dmn_call(&d, 200, "GET", "/v1/version", NULL));
    dmn_close(&d);
}

static void expect_not_logged(const struct dmn *d, const char *text)
{
    char *log = dmn_log(d);

    cr_expect_null(strstr(log, text), "logged: %s\n%s", text, log);
    free(log);
}

/* What happens to templates is logged; leases, of which there may be thousands a second, only for debugging. */
Test(daemon_life, what_happens_is_logged)
{
    static const char *const debug[] = {"--log-level", "debug", NULL};
    struct dmn d;

    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 1);
    free(dmn_call(&d, 201, "POST", "/v1/vms", "{\"template\":\"web\"}"));
    expect_logged(&d, "INFO template.built web: generation 1");
    expect_not_logged(&d, "vm.leased");
    dmn_close(&d);

    dmn_open(&d, debug);
    dmn_null_template(&d, "web", 1);
    free(dmn_call(&d, 201, "POST", "/v1/vms", "{\"template\":\"web\"}"));
    expect_logged(&d, "vm.leased web");
    dmn_close(&d);
}

/* A listening socket as systemd hands it over, below dir. */
static int listen_in(const char *dir, const char *name)
{
    VF_CLEANUP_FD int dirfd = -1;
    struct vf_error err;
    int fd = -1, high;

    cr_assert_eq(vf_open_dir(dir, 1, 0700, &dirfd, &err), 0, "%s", err.msg);
    cr_assert_eq(vf_unix_listen(dirfd, name, 16, &fd, &err), 0, "%s", err.msg);
    high = fcntl(fd, F_DUPFD_CLOEXEC, 10); /* out of the way of 3 and 4 */
    close(fd);
    return high;
}

/* In the child: becomes a daemon that was given these as 3 and 4, and reports to an abstract socket. */
static void become_activated(const struct dmn *d, int stats_fd, int api_fd, const char *notify_name)
{
    const char *tests = getenv("VF_TESTS");
    char path[4096], pid[20], log[100];
    int fd;

    snprintf(path, sizeof(path), "%s/../vmfactoryd", tests != NULL ? tests : "build/tests");
    snprintf(log, sizeof(log), "%s/log", d->dir);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "stats:api", 1);
    setenv("NOTIFY_SOCKET", notify_name, 1);
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || dup2(fd, 2) < 0 || dup2(stats_fd, 3) < 0 || dup2(api_fd, 4) < 0)
        _exit(125);
    execl(path, path, "--state", d->state, "--run", d->run, (char *)NULL);
    _exit(126);
}

/* A datagram socket in the abstract namespace, called "@…" as NOTIFY_SOCKET has it. */
static int listen_abstract(char *name, size_t size)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int len = snprintf(name, size, "@vf-test-%d", (int)getpid());

    cr_assert_geq(fd, 0);
    memcpy(a.sun_path + 1, name + 1, (size_t)len - 1);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)len)),
                 0, "%s", strerror(errno));
    return fd;
}

Test(daemon_life, sockets_handed_over)
{
    struct dmn d, handed;
    char notify_name[60];
    struct dmn_conn c;
    char *body;
    int api, stats;

    dmn_prepare(&d, NULL);
    handed = d;
    snprintf(handed.run, sizeof(handed.run), "%s/handed", d.dir);
    api = listen_in(handed.run, "api.sock");
    stats = listen_in(handed.run, "stats.sock");
    d.notify_fd = listen_abstract(notify_name, sizeof(notify_name));
    d.pid = fork();
    if (d.pid == 0)
        become_activated(&d, stats, api, notify_name);
    close(api);
    close(stats);
    d.pidfd = (int)syscall(SYS_pidfd_open, d.pid, 0);
    cr_assert_geq(d.pidfd, 0);

    body = dmn_call(&handed, 200, "GET", "/v1/version", NULL);
    cr_expect_not_null(strstr(body, "\"" VF_VERSION "\""), "%s", body);
    free(body);
    dmn_dial(&handed, &c, "stats.sock");
    dmn_ask(&c, "GET", "/healthz", NULL, NULL);
    cr_expect_eq(dmn_head(&c), 200);
    dmn_hang_up(&c);

    cr_expect_eq(mode_of(&d, "api.sock"), 0, "it needs none of its own");
    cr_expect_eq(dmn_stop(&d), 0);
    cr_expect_neq(mode_of(&handed, "api.sock"), 0, "they are systemd's");
    cr_expect_neq(mode_of(&handed, "stats.sock"), 0);
    dmn_close(&d);
}

static void run_command(const char *args, char *buf, size_t size)
{
    const char *tests = getenv("VF_TESTS");
    char command[4300];
    FILE *f;
    size_t n;

    snprintf(command, sizeof(command), "'%s/../vmfactoryd' %s",
             tests != NULL ? tests : "build/tests", args);
    f = popen(command, "re");
    cr_assert_not_null(f);
    n = fread(buf, 1, size - 1, f);
    buf[n] = '\0';
    cr_expect_eq(pclose(f), 0, "%s: %s", args, buf);
}

Test(daemon_life, commands)
{
    static char text[65536];
    struct vf_json *j;

    run_command("--version", text, sizeof(text));
    cr_expect_str_eq(text, "vmfactoryd " VF_VERSION "\n");
    run_command("config --json --set group= --set max_vms=12 --state here", text, sizeof(text));
    j = vf_json_parse(text, strlen(text));
    cr_expect_eq(vf_json_int(vf_json_get(j, "max_vms"), 0), 12);
    cr_expect_eq(vf_json_str(vf_json_get(j, "state_dir"), "")[0], '/');
    vf_json_delete(j);
    run_command("--help", text, sizeof(text));
    cr_expect_not_null(strstr(text, "psi_some_percent"));
    run_command("config", text, sizeof(text));
    cr_expect_not_null(strstr(text, "psi_some_percent"));
    run_command("generate man", text, sizeof(text));
    cr_expect_not_null(strstr(text, ".SH SETTINGS"));
    run_command("check", text, sizeof(text));
}
