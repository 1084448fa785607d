/* kill -9 while an asset comes in, at each step of its way: nothing half is ever in the store, and the next fetch takes
 * up what there is. Not among the unit tests: ThreadSanitizer wants no threads in a child.
 */
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "tests/e2e/asset_tls.h"

static struct asx x;

static void setup(void)
{
    ast_open(&x.t);
}

static void teardown(void)
{
    ast_close(&x.t);
}

TestSuite(asset_killed, .init = setup, .fini = teardown, .timeout = 60);

static void bring_in(const char *kind)
{
    char url[500];
    struct vf_asset a;
    struct ast_fetch f;

    ast_make_source(&x.t, url);
    ast_asset(&a, "thing", kind, url, x.t.sha256, 0, "");
    ast_begin(&x.t, &a, &f);
    vf_asset_free(&a);
    ast_await(&x.t, &f);
    cr_assert_eq(f.err.code, VF_OK, "%s", f.err.msg);
}

/* In a child: a store of its own, one fetch, to its end. */
static void fetch_until(const char *point, const struct vf_asset *a)
{
    struct ast mine = x.t;
    struct ast_fetch f;

    if (vf_failpoint_arm(point) != 0 || uv_loop_init(&mine.loop) != 0)
        _exit(1);
    ast_reopen(&mine);
    ast_begin(&mine, a, &f);
    while (!f.done)
        uv_run(&mine.loop, UV_RUN_ONCE);
    _exit(2);
}

static void die_at(const char *point)
{
    char url[500];
    struct vf_asset a;
    int status;
    pid_t pid;

    ast_make_source(&x.t, url);
    ast_asset(&a, "thing", "vmm", url, x.t.sha256, 0, "");
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        fetch_until(point, &a);
    vf_asset_free(&a);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: %d", point, status);
}

Test(asset_killed, at_each_step)
{
    static const struct {
        const char *point;
        bool there, part;
    } after[] = {{"asset.part.written", false, true},
                 {"asset.before-rename", false, true},
                 {"asset.after-rename", true, false}};
    size_t tried = 0;

    for (size_t i = 0; i < sizeof(after) / sizeof(*after); i++) {
        ast_body(&x.t, 600000, (unsigned)i + 20);
        die_at(after[i].point);
        cr_expect_eq(ast_part(&x.t, x.t.sha256) > 0, after[i].part, "%s", after[i].point);
        if (after[i].there)
            ast_expect_there(&x.t, 0555);
        else
            ast_expect_absent(&x.t, false);
        bring_in("vmm"); /* goes on from there */
        ast_expect_there(&x.t, 0555);
    }
    for (size_t i = 0; vf_failpoint_names[i] != NULL; i++)
        tried += strncmp(vf_failpoint_names[i], "asset.", 6) == 0;
    cr_expect_eq(tried, sizeof(after) / sizeof(*after), "one has no test");
}

/* The mode is set before the name: what a crash leaves between the two can be taken up by who may not do everything. */
static void take_up_read_only(const char *url)
{
    struct ast mine = x.t;
    struct ast_fetch f;
    struct vf_asset a;
    char path[500];

    snprintf(mine.dir, sizeof(mine.dir), "%s/theirs", x.t.scratch.path);
    if (uv_loop_init(&mine.loop) != 0 || mkdir(mine.dir, 0700) != 0 ||
        (geteuid() == 0 &&
         (chmod(x.t.scratch.path, 0755) != 0 || chown(mine.dir, 65534, 65534) != 0 ||
          setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0)))
        _exit(1);
    ast_reopen(&mine);
    ast_put_part(&mine, x.t.sha256, x.t.body, 1000);
    snprintf(path, sizeof(path), "%s/partial/%s", mine.dir, x.t.sha256);
    if (chmod(path, 0444) != 0 || open(path, O_RDWR | O_CLOEXEC) >= 0)
        _exit(1);
    ast_asset(&a, "thing", "image", url, x.t.sha256, 0, "");
    ast_begin(&mine, &a, &f);
    while (!f.done)
        uv_run(&mine.loop, UV_RUN_ONCE);
    _exit(f.err.code == VF_OK ? 0 : 2);
}

Test(asset_killed, a_part_that_is_read_only_already)
{
    char url[500];
    int status;
    pid_t pid;

    ast_make_source(&x.t, url);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        take_up_read_only(url);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", status);
}

/* ---- half-way through a transfer */

/* In a child that was made before there were threads: fetches the URL that comes down the pipe. */
static void fetch_from_pipe(int fd, const char *more)
{
    char url[200] = "";
    struct vf_asset a;

    if (read(fd, url, sizeof(url) - 1) <= 0)
        _exit(1);
    ast_asset(&a, "thing", "image", url, x.t.sha256, (int64_t)x.t.len, more);
    fetch_until("asset.part.written", &a);
}

Test(asset_killed, half_way_through_a_transfer)
{
    char url[200], range[64], ca[400];
    struct vf_error err;
    int64_t part;
    int pipes[2], status;
    pid_t pid;

    snprintf(ca, sizeof(ca), "\"ca_file\":\"%s/ca.pem\"", x.t.scratch.path);
    cr_assert_eq(pipe2(pipes, O_CLOEXEC), 0);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        fetch_from_pipe(pipes[0], ca);
    asx_start(&x);
    struct asv_route *r = asx_serve(&x, "/a", NULL, url);
    cr_assert_eq(write(pipes[1], url, strlen(url)), (ssize_t)strlen(url));
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%x", status);
    part = ast_part(&x.t, x.t.sha256);
    cr_assert(part > 0 && part < (int64_t)x.t.len, "%d", (int)part);
    ast_expect_absent(&x.t, false);
    cr_expect_eq(asx_fetch(&x, url, &err), VF_OK, "%s", err.msg);
    snprintf(range, sizeof(range), "bytes=%d-", (int)part);
    cr_expect_str_eq(r->got_range, range);
    ast_expect_there(&x.t, 0444);
    asx_stop(&x);
    close(pipes[0]);
    close(pipes[1]);
}
