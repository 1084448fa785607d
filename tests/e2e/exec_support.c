/* See exec_support.h. */
#include "tests/e2e/exec_support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include "base/clock.h"

void exe_open(struct exe *v)
{
    struct vf_json *j;

    dmn_open(&v->d, NULL);
    dmn_null_template(&v->d, "web", 0);
    j = dmn_json(&v->d, 201, "POST", "/v1/vms", "{\"template\":\"web\"}");
    snprintf(v->path, sizeof(v->path), "/v1/vms/%.20s", dmn_str(j, "id"));
    snprintf(v->exec, sizeof(v->exec), "%s/exec", v->path);
    vf_json_delete(j);
}

void exe_close(struct exe *v)
{
    free(dmn_call(&v->d, 204, "DELETE", v->path, NULL));
    cr_expect_eq(dmn_vm_dirs(&v->d), 0);
    dmn_close(&v->d);
}

char *exe_run(struct exe *v, const char *body)
{
    return dmn_call(&v->d, 200, "POST", v->exec, body);
}

void exe_expect_run(struct exe *v, const char *body, const char *want)
{
    char *got = exe_run(v, body);

    cr_expect_str_eq(got, want, "%s: %s", body, got);
    free(got);
}

void exe_expect_none_runs(struct exe *v)
{
    for (int i = 0; i < 64; i++)
        exe_expect_run(v, "{\"argv\":[\"cat\"],\"stdin\":\"x\"}",
                       "{\"stream\":\"stdout\",\"data\":\"x\"}\n"
                       "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
}

void exe_expect_fds(struct exe *v, int before)
{
    int now = dmn_fds(&v->d);

    cr_expect_leq(now, before + 2, "%d, were %d", now, before);
}

void exe_upgrade(struct exe *v, struct dmn_conn *c, const char *body)
{
    dmn_dial(&v->d, c, "api.sock");
    dmn_ask(c, "POST", v->exec, EXE_UPGRADE, body);
    cr_assert_eq(dmn_head(c), 101, "%d", c->status);
    cr_expect_str_eq(dmn_header(c, "Upgrade"), "vmfactory-exec");
}

bool exe_send_frame(struct dmn_conn *c, enum vf_exec_frame type, const void *data, size_t len)
{
    uint8_t head[VF_EXEC_FRAME_HEADER];

    vf_exec_frame_header(head, type, len);
    return dmn_send(c, head, sizeof(head)) && dmn_send(c, data, len);
}

int exe_receive_frame(struct dmn_conn *c, const char **ret_data, size_t *ret_len)
{
    static char data[VF_EXEC_FRAME_MAX + 1];
    uint8_t head[VF_EXEC_FRAME_HEADER];

    if (!dmn_bytes(c, head, sizeof(head)))
        return -1;
    cr_assert(head[1] == 0 && head[2] == 0 && head[3] == 0);
    *ret_len = (size_t)head[4] << 24 | (size_t)head[5] << 16 | (size_t)head[6] << 8 | head[7];
    cr_assert_leq(*ret_len, VF_EXEC_FRAME_MAX);
    cr_assert(dmn_bytes(c, data, *ret_len));
    data[*ret_len] = '\0';
    *ret_data = data;
    return head[0];
}

void exe_wait_full(struct exe *v, const struct dmn_conn *c)
{
    int64_t deadline = vf_deadline_after_ms(DMN_LONG_MS), last = -1;

    /* Other requests are served meanwhile, and each takes turns of the daemon's loop. */
    for (int same = 0; same < 20; same++) {
        int64_t rss;
        char text[1];
        ssize_t n = recv(c->fd, text, 1, MSG_PEEK | MSG_DONTWAIT);

        cr_assert(n == 1 || errno == EAGAIN);
        free(dmn_call(&v->d, 200, "GET", v->path, NULL));
        rss = dmn_rss_kib(&v->d);
        if (rss != last)
            same = 0;
        last = rss;
        cr_assert_gt(vf_deadline_left_ms(deadline), 0);
    }
}
