/* What a runtime class pins is fetched by builds and by nothing else; what can't be fetched, or is not what was pinned,
 * fails the build, and one that still fetches can be ended.
 */
#include "tests/e2e/classes_support.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"

Test(factory_classes_fetch, what_can_t_be_fetched_fails_the_build, .timeout = 60)
{
    struct cls c;
    cls_open(&c);
    cls_put_asset(&c, "gone", "kernel", "file:///nonexistent/kernel", sup_guest_file("tiny.elf"));
    cls_put_pinned(&c, "sandboxes", "qemu", "\"kernel\":\"gone\"");
    struct vf_spec spec = cls_tiny("sandboxes", VF_ACCEL_TCG);
    cls_without_kernel(&spec);
    struct vf_error e = fac_build_fails(&c.f, &spec, VF_NOT_FOUND, "fetch: ");
    cr_expect(strstr(e.msg, "gone"), "%s", e.msg);
    e = fac_cold_fails(&c.f, &spec, VF_NOT_FOUND, "asset gone: was not fetched yet");
    cr_expect(strstr(e.hint, "`vmfactory asset fetch gone`"), "%s", e.hint);
    vf_spec_free(&spec);
    cls_close(&c);
}

/* Of the same size and modification time before and after. */
static void flip_last_byte(const char *path)
{
    struct stat st;
    char b;
    cr_assert_eq(chmod(path, 0600), 0);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && fstat(fd, &st) == 0 && pread(fd, &b, 1, st.st_size - 1) == 1);
    b ^= 1;
    cr_assert_eq(pwrite(fd, &b, 1, st.st_size - 1), 1);
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    cr_assert_eq(futimens(fd, times), 0);
    cr_assert_eq(close(fd), 0);
}

/* Neither takes another program for the pinned one. */
Test(factory_classes_fetch, a_file_that_is_not_what_was_pinned_fails_builds_and_boots,
     .timeout = 60)
{
    char path[PATH_MAX];
    struct cls c;
    cls_open(&c);
    cls_put_file_asset(&c, "guest", "kernel", sup_guest_file("tiny.elf"));
    cls_put_pinned(&c, "sandboxes", "qemu", "\"kernel\":\"guest\"");
    struct vf_spec spec = cls_tiny("sandboxes", VF_ACCEL_TCG);
    cls_without_kernel(&spec);
    vf_generation_unref(cls_build(&c, &spec));
    cls_stored_path(&c, sup_guest_file("tiny.elf"), path);
    fac_destroy(&c.f, fac_cold(&c.f, &spec));
    fac_mark(&c.f);
    flip_last_byte(path);
    struct vf_error e = fac_build_fails(&c.f, &spec, VF_CORRUPT, "asset guest: ");
    cr_expect(strstr(e.hint, "`vmfactory asset verify guest`"), "%s", e.hint);
    e = fac_cold_fails(&c.f, &spec, VF_CORRUPT, "asset guest: the SHA-256 of its file is ");
    cr_expect(strstr(e.msg, strrchr(path, '/') + 1), "%s", e.msg);
    cr_expect(strstr(e.hint, "`vmfactory asset verify guest`"), "%s", e.hint);
    flip_last_byte(path);
    fac_destroy(&c.f, fac_cold(&c.f, &spec));
    vf_spec_free(&spec);
    cls_close(&c);
}

struct pending {
    struct vf_build_request *req;
    bool fetching, done;
    struct vf_error err;
};

static void on_stage(void *arg, const char *stage)
{
    struct pending *p = arg;
    p->fetching |= strcmp(stage, "fetch") == 0;
}

static void on_built(void *arg, struct vf_generation *gen, const struct vf_error *err)
{
    struct pending *p = arg;
    cr_assert_null(gen);
    p->done = true;
    p->err = *err;
}

/* A server that takes the connection and says nothing. */
static int silent_server(char ret_url[64])
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 4) == 0 &&
              getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    snprintf(ret_url, 64, "http://127.0.0.1:%d/kernel", ntohs(a.sin_port));
    return fd;
}

static void on_connection(uv_poll_t *h, int status, int events)
{
    bool *came = h->data;
    (void)status;
    (void)events;
    *came = true;
    uv_close((uv_handle_t *)h, NULL);
}

static void fetch_is_ended(bool by_close)
{
    struct cls c;
    struct pending p = {0};
    struct vf_error e;
    bool came = false;
    char url[64];
    cls_open(&c);
    int server = silent_server(url);
    cls_put_asset(&c, "slow", "kernel", url, sup_guest_file("tiny.elf"));
    cls_put_pinned(&c, "sandboxes", "qemu", "\"kernel\":\"slow\"");
    struct vf_spec spec = cls_tiny("sandboxes", VF_ACCEL_TCG);
    cls_without_kernel(&spec);
    int r = vf_factory_build(c.f.sync.factory, &spec, on_stage, on_built, &p, &p.req, &e);
    cr_assert_eq(r, 0, "%s", e.msg);
    uv_poll_t poll = {.data = &came};
    cr_assert_eq(uv_poll_init(&c.f.sync.loop, &poll, server), 0);
    cr_assert_eq(uv_poll_start(&poll, UV_READABLE, on_connection), 0);
    while (!came && !p.done) /* it is really under way then */
        uv_run(&c.f.sync.loop, UV_RUN_ONCE);
    cr_assert(came && p.fetching && !p.done, "%s", p.err.msg);
    VF_CLEANUP_FD int conn = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    cr_assert_geq(conn, 0);
    if (by_close)
        fac_shut(&c.f);
    else {
        vf_build_cancel(p.req);
        while (!p.done)
            uv_run(&c.f.sync.loop, UV_RUN_ONCE);
    }
    cr_assert(p.done);
    fac_expect(&p.err, VF_CANCELLED, "build of tiny: cancelled");
    cr_assert_eq(close(server), 0);
    vf_close_fd(&conn);
    vf_spec_free(&spec);
    cls_close(&c);
}

Test(factory_classes_fetch, a_build_is_cancelled_while_it_fetches, .timeout = 60)
{
    fetch_is_ended(false);
}

Test(factory_classes_fetch, the_factory_is_closed_while_it_fetches, .timeout = 60)
{
    fetch_is_ended(true);
}
