/* The command against a real daemon, with VMs in memory: what it prints, what it exits with, and that nothing stays
 * leased however it ends. */
#include "tests/e2e/daemon_support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/fd.h"

TestSuite(command, .timeout = 240);

static struct dmn d;
static char out[65536], errout[65536]; /* of the last command */

static void slurp(const char *name, char *buf, size_t size)
{
    char path[200];
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), "%s/%s", d.dir, name);
    f = fopen(path, "re");
    cr_assert_not_null(f, "%s", path);
    n = fread(buf, 1, size - 1, f);
    buf[n] = '\0';
    fclose(f);
}

static const char *binary(void)
{
    static char path[4096];
    const char *tests = getenv("VF_TESTS");

    snprintf(path, sizeof(path), "%s/../vmfactory", tests != NULL ? tests : "build/tests");
    cr_assert_eq(access(path, X_OK), 0, "%s: %s", path, strerror(errno));
    return path;
}

/* Runs a line of shell in which V is the command; its exit status. Output is in out and errout afterwards. */
static int shell(const char *line)
{
    char text[2000], socket[200];
    int status;

    snprintf(socket, sizeof(socket), "%s/api.sock", d.run);
    setenv("VMFACTORY_SOCKET", socket, 1);
    setenv("V", binary(), 1);
    setenv("D", d.dir, 1);
    snprintf(text, sizeof(text), "{ %s\n} >%s/out 2>%s/err", line, d.dir, d.dir);
    fflush(NULL);
    status = system(text);
    slurp("out", out, sizeof(out));
    slurp("err", errout, sizeof(errout));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define EXPECT_SHELL(want, line)                                           \
    do {                                                                   \
        int got_ = shell(line);                                            \
        cr_assert_eq(got_, want, "%s: %d\n%s%s", line, got_, out, errout); \
    } while (0)
#define EXPECT_HAS(text, what) \
    cr_expect_not_null(strstr(text, what), "no \"%s\" in:\n%s", what, text)

static void open_pool(int parked)
{
    dmn_open(&d, NULL);
    if (parked > 0)
        dmn_null_template(&d, "web", parked);
}

Test(command, a_templates_life)
{
    open_pool(0);
    EXPECT_SHELL(
        0, "echo '{\"name\":\"x\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16}}' >$D/x.json; "
           "$V template add $D/x.json --name web");
    EXPECT_HAS(out, "template web added");
    EXPECT_SHELL(0, "$V template ls");
    EXPECT_HAS(out, "absent");
    EXPECT_SHELL(0, "$V warm web --count 3 --timeout 60");
    EXPECT_HAS(out, "web is warm: 3 parked, generation 1");
    EXPECT_HAS(errout, "parked\n");
    EXPECT_SHELL(0, "$V status");
    EXPECT_HAS(out, "3/3");
    EXPECT_SHELL(0, "$V config | grep quarantine_after");
    EXPECT_HAS(out, "yes");
    EXPECT_SHELL(0, "$V status --json");
    EXPECT_HAS(out, "{\"daemon\":{\"name\":\"vmfactory\"");
    EXPECT_SHELL(0, "$V pool set web max=9 target=2 autosize=false park=running");
    EXPECT_HAS(out, "\"max\": 9");
    EXPECT_SHELL(1, "$V pool set web targte=2");
    EXPECT_HAS(errout, "did you mean \"target\"");
    EXPECT_SHELL(2, "$V pool set web max");
    EXPECT_SHELL(0, "$V drain web");
    EXPECT_HAS(out, "drained");
    EXPECT_SHELL(0, "$V warm web --count 1 --json");
    EXPECT_HAS(out, "\"parked\":1");
    EXPECT_SHELL(0, "$V template show web");
    EXPECT_HAS(out, "\"size_mib\": 16");
    EXPECT_SHELL(0, "$V events --since 0 --no-follow | grep -c vm.parked");
    EXPECT_SHELL(0, "$V events --since 0 --no-follow --json");
    EXPECT_HAS(out, "\"event\":\"template.built\"");
    EXPECT_SHELL(0, "$V template rm web");
    EXPECT_SHELL(1, "$V template show web");
    EXPECT_SHELL(1, "$V --json template show web");
    EXPECT_HAS(errout, "{\"error\":{\"code\":\"not_found\"");
    dmn_close(&d);
}

Test(command, a_lease)
{
    open_pool(2);
    EXPECT_SHELL(0, "id=$($V acquire web --ttl 10m --require hit) && echo \"$id\" && $V ps");
    EXPECT_HAS(errout, "hit (");
    EXPECT_HAS(out, "leased");
    EXPECT_SHELL(0, "id=$($V ps --json | sed 's/.*\"id\":\"\\([0-9a-f]*\\)\".*/\\1/'); "
                    "$V exec $id -- hostname && $V renew $id --ttl 1h && $V release $id $id");
    EXPECT_HAS(out, "ends in ");
    EXPECT_HAS(out, "released");
    EXPECT_SHELL(1, "$V release nosuchvm");
    EXPECT_SHELL(125, "$V exec nosuchvm -- true");
    EXPECT_SHELL(0, "$V ps | wc -l");
    cr_expect_eq(atoi(out), 1, "only the heads: %s", out);
    EXPECT_SHELL(0, "$V ps --parked | grep -c parked");
    dmn_close(&d);
}

Test(command, run_ends_as_the_command_does)
{
    open_pool(2);
    EXPECT_SHELL(0, "$V run web --verbose -- echo one two");
    cr_expect_str_eq(out, "one two\n");
    EXPECT_HAS(errout, "lease");
    EXPECT_SHELL(7, "$V run web -- exit 7");
    EXPECT_SHELL(0, "$V run web -- complain loudly");
    cr_expect_str_eq(out, "");
    EXPECT_HAS(errout, "loudly");
    EXPECT_SHELL(0, "seq 100000 >$D/in; $V run web -- cat <$D/in | cmp - $D/in");
    EXPECT_SHELL(0, "$V run web --no-stdin -- cat");
    EXPECT_SHELL(0, "$V run web -- flood 3000000 | wc -c");
    cr_expect_eq(atoi(out), 3000000, "%s", out);
    EXPECT_SHELL(124, "id=$($V acquire web) && $V exec $id --timeout 100ms -- hang; r=$?; "
                      "$V release $id; exit $r");
    EXPECT_SHELL(125, "$V run nosuchtemplate -- true");
    EXPECT_SHELL(125, "$V run web");
    /* Who reads leaves before the end; so does the VM. */
    EXPECT_SHELL(0, "$V run web -- flood 30000000 | head -c 10 >/dev/null");
    cr_expect_str_eq(errout, "");
    dmn_wait_for(&d, "/v1/pools/web", "leased", 0);
    dmn_close(&d);
}

/* Starts the command, which is to be verbose, and waits until it holds its VM; *ret_out is the read end of its
 * output. */
static pid_t start(const char *const *argv, int *ret_out)
{
    char text[4096] = "";
    size_t len = 0;
    char socket[200];
    pid_t self = getpid(), pid;
    int fds[2];

    snprintf(socket, sizeof(socket), "%s/api.sock", d.run);
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != self)
            _exit(126);
        setenv("VMFACTORY_SOCKET", socket, 1);
        dup2(fds[1], 1);
        dup2(fds[1], 2);
        execv(binary(), (char *const *)argv);
        _exit(126);
    }
    cr_assert_gt(pid, 0);
    close(fds[1]);
    do {
        ssize_t n = read(fds[0], text + len, sizeof(text) - 1 - len);

        cr_assert_gt(n, 0, "it ended: %s", text);
        len += (size_t)n;
        text[len] = '\0';
    } while (strstr(text, "seen from here") == NULL);
    *ret_out = fds[0];
    return pid;
}

static int end_of(pid_t pid)
{
    int status;

    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The signal goes to the command in the VM, which dies of it; the VM is released. */
Test(command, signals_are_passed_on)
{
    static const char *const argv[] = {"vmfactory", "run", "web", "--verbose", "--", "hang", NULL};
    static const int signals[] = {SIGINT, SIGTERM};
    int fd;

    open_pool(1);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        pid_t pid = start(argv, &fd);

        cr_assert_eq(kill(pid, signals[i]), 0);
        cr_expect_eq(end_of(pid), 128 + signals[i]);
        dmn_wait_for(&d, "/v1/pools/web", "leased", 0);
        close(fd);
    }
    dmn_close(&d);
}

/* Killed without a chance to release: the lease stays, as the daemon's rules say, until somebody ends it. */
Test(command, a_lease_outlives_the_command_that_was_killed)
{
    static const char *const argv[] = {"vmfactory", "run", "web", "--verbose", "--", "hang", NULL};
    pid_t pid;
    int fd;

    open_pool(1);
    pid = start(argv, &fd);
    cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_expect_eq(end_of(pid), 128 + SIGKILL);
    close(fd);
    EXPECT_SHELL(0, "$V release $($V ps --json | sed 's/.*\"id\":\"\\([0-9a-f]*\\)\".*/\\1/')");
    dmn_wait_for(&d, "/v1/pools/web", "leased", 0);
    dmn_close(&d);
}

Test(command, exit_codes)
{
    open_pool(1);
    EXPECT_SHELL(2, "$V");
    EXPECT_SHELL(2, "$V wram web");
    EXPECT_HAS(errout, "did you mean \"warm\"");
    EXPECT_SHELL(2, "$V warm");
    EXPECT_SHELL(1, "$V warm nosuchtemplate");
    EXPECT_SHELL(0, "$V --help && $V run --help && $V --version");
    EXPECT_SHELL(0, "$V doctor --json");
    EXPECT_HAS(out, "\"ok\":true");
    EXPECT_SHELL(0, "$V version");
    EXPECT_SHELL(3, "$V --socket $D/none ps");
    EXPECT_SHELL(125, "$V --socket $D/none run web -- true");
    EXPECT_HAS(errout, "no daemon reached");
    /* Output that can't be written is no success. */
    EXPECT_SHELL(1, "$V ps >/dev/full");
    EXPECT_SHELL(1, "$V acquire web >/dev/full");
    dmn_wait_for(&d, "/v1/pools/web", "leased", 0);
    cr_expect_eq(dmn_stop(&d), 0);
    EXPECT_SHELL(3, "$V status");
    dmn_close(&d);
}

/* Refused for now: one lease of this template at most. */
Test(command, refused_for_now)
{
    open_pool(1);
    EXPECT_SHELL(0, "$V pool set web max_leases=1 && $V acquire web");
    EXPECT_SHELL(4, "$V acquire web");
    EXPECT_SHELL(4, "$V --json acquire web");
    EXPECT_HAS(errout, "\"status\":429");
    EXPECT_SHELL(0, "$V release $($V ps --json | sed 's/.*\"id\":\"\\([0-9a-f]*\\)\".*/\\1/')");
    dmn_close(&d);
}

/* A kernel that is none: QEMU ends, the build fails, and warm says so instead of waiting. */
Test(command, warm_fails_when_the_build_does)
{
    open_pool(0);
    EXPECT_SHELL(0,
                 "echo none >$D/kernel; echo "
                 "'{\"name\":\"bad\",\"accel\":\"tcg\",\"boot\":{\"kernel\":\"kernel\"},"
                 "\"agent\":{\"channel\":\"serial\"}}' >$D/bad.json; $V template add $D/bad.json");
    EXPECT_SHELL(1, "$V warm bad --timeout 100");
    EXPECT_HAS(errout, "template bad can't be built");
    dmn_close(&d);
}

Test(command, top_and_bench)
{
    open_pool(2);
    EXPECT_SHELL(0, "$V bench web --count 40 --concurrency 4 --json");
    EXPECT_HAS(out, "\"done\":40,\"failed\":0");
    EXPECT_SHELL(0, "$V bench web --count 10 --new-connection");
    EXPECT_HAS(out, "10 acquired and released");
    EXPECT_SHELL(0, "$V top");
    EXPECT_HAS(out, "HIT P50");
    EXPECT_SHELL(1, "$V bench nosuchtemplate --count 3");
    EXPECT_HAS(errout, "3 of 3 failed");
    dmn_close(&d);
}

Test(command, the_c_example)
{
    const char *build = getenv("VF_BUILD");
    char line[600];

    open_pool(1);
    snprintf(line, sizeof(line), "LD_LIBRARY_PATH=%s %s/example-acquire web exit 9",
             build != NULL ? build : "build", build != NULL ? build : "build");
    EXPECT_SHELL(9, line);
    EXPECT_HAS(errout, "hit in");
    dmn_wait_for(&d, "/v1/pools/web", "leased", 0);
    dmn_close(&d);
}

Test(command, the_python_example)
{
    char line[600], root[600] = __FILE__, *tail = strstr(root, "tests/e2e/");

    if (system("command -v python3 >/dev/null") != 0)
        cr_skip("SKIPPED: no python3");
    if (tail == root)
        strcpy(root, ".");
    else
        *tail = 0;
    open_pool(1);
    snprintf(line, sizeof(line), "python3 %s/tools/client/examples/acquire.py web exit 9", root);
    EXPECT_SHELL(9, line);
    EXPECT_HAS(errout, "hit in");
    dmn_wait_for(&d, "/v1/pools/web", "leased", 0);
    dmn_close(&d);
}
