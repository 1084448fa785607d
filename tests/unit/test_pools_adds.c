/* Adding a template while something else happens to it: what is refused is not on the disk, and what is on the disk is in
 * force. */
#include "base/clock.h"
#include "base/fd.h"
#include "tests/unit/pools_support.h"

/* Begins to; on failure nothing was begun. */
static int add(struct pools *t, const char *mode, int mib, struct pools_end *e)
{
    char text[300];
    struct vf_spec spec;
    *e = (struct pools_end){0};
    snprintf(text, sizeof(text),
             "{\"name\":\"web\",\"class\":\"null\",\"memory\":{\"size_mib\":%d},"
             "\"network\":{\"mode\":\"%s\"},\"boot\":{\"kernel\":\"/proc/self/exe\"}}",
             mib, mode);
    cr_assert_eq(vf_spec_parse(text, strlen(text), NULL, NULL, &spec, &e->err), 0, "%s",
                 e->err.msg);
    int r = vf_pools_add(t->p, &spec, pools_on_end, e, &e->err);
    vf_spec_free(&spec);
    return r;
}

static void added(struct pools *t, const char *mode, int mib)
{
    struct pools_end e;
    cr_assert_eq(add(t, mode, mib, &e), 0, "%s", e.err.msg);
    POOLS_WAIT(t, e.done);
    cr_assert_eq(e.err.code, VF_OK, "%s", e.err.msg);
}

/* In force, and after a restart. */
static void expect_mib(struct pools *t, int mib)
{
    cr_expect_eq(vf_pool_spec(pools_pool(t, "web"))->memory.size_mib, mib);
    pools_reopen(t);
    cr_expect_eq(vf_pool_spec(pools_pool(t, "web"))->memory.size_mib, mib);
}

static int set_target(struct pools *t, int64_t n, struct vf_error *err)
{
    struct vf_pool *pool = pools_pool(t, "web");
    struct vf_pool_config c = *vf_pool_config(pool);
    c.target = n;
    return vf_pool_set(pool, &c, err);
}

Test(pools_adds, what_does_not_fit_the_pool_is_not_kept, .timeout = 60)
{
    struct pools t;
    struct pools_end e;
    pools_open(&t);
    added(&t, "none", 16);
    cr_assert_eq(set_target(&t, 2, &e.err), 0, "%s", e.err.msg);
    cr_expect_lt(add(&t, "external", 32, &e), 0, "its VMs can't wait in a pool");
    cr_expect_eq(e.err.code, VF_INVALID_ARGUMENT);
    cr_expect_not_null(strstr(e.err.msg, "target: "), "%s", e.err.msg);
    expect_mib(&t, 16);
    pools_close(&t);
}

Test(pools_adds, of_two_at_once_the_first_counts, .timeout = 60)
{
    struct pools_end first, same, other;
    struct pools t;
    pools_open(&t);
    cr_assert_eq(add(&t, "none", 16, &first), 0, "%s", first.err.msg);
    cr_expect_eq(add(&t, "none", 16, &same), 0, "%s", same.err.msg);
    cr_expect_lt(add(&t, "none", 32, &other), 0);
    cr_expect_eq(other.err.code, VF_CONFLICT);
    cr_expect_str_eq(other.err.msg, "template web is being added with another spec");
    POOLS_WAIT(&t, first.done && same.done);
    cr_expect_eq(first.err.code, VF_OK, "%s", first.err.msg);
    cr_expect_eq(same.err.code, VF_OK, "%s", same.err.msg);
    expect_mib(&t, 16);
    added(&t, "none", 32); /* now it takes the place */
    expect_mib(&t, 32);
    pools_close(&t);
}

Test(pools_adds, it_stays_while_it_is_added_again, .timeout = 60)
{
    struct pools_end again, removal = {0};
    struct pools t;
    pools_open(&t);
    added(&t, "none", 16);
    cr_assert_eq(add(&t, "none", 32, &again), 0, "%s", again.err.msg);
    cr_expect_lt(vf_pools_remove(t.p, "web", pools_on_end, &removal, &removal.err), 0);
    cr_expect_eq(removal.err.code, VF_CONFLICT);
    cr_expect_str_eq(removal.err.msg, "template web is being added again");
    POOLS_WAIT(&t, again.done);
    cr_expect_eq(again.err.code, VF_OK, "%s", again.err.msg);
    expect_mib(&t, 32);
    removal = (struct pools_end){0};
    cr_assert_eq(vf_pools_remove(t.p, "web", pools_on_end, &removal, &removal.err), 0, "%s",
                 removal.err.msg);
    POOLS_WAIT(&t, removal.done);
    cr_expect_eq(removal.err.code, VF_OK, "%s", removal.err.msg);
    pools_close(&t);
}

Test(pools_adds, settings_fit_what_is_coming, .timeout = 60)
{
    struct pools_end e;
    struct vf_error err;
    struct pools t;
    pools_open(&t);
    added(&t, "none", 16);
    cr_assert_eq(add(&t, "external", 32, &e), 0, "%s", e.err.msg);
    cr_expect_lt(set_target(&t, 1, &err), 0);
    cr_expect_eq(err.code, VF_INVALID_ARGUMENT);
    cr_expect_lt(vf_pool_warm(pools_pool(&t, "web"), 1, &err), 0);
    cr_expect_eq(err.code, VF_INVALID_ARGUMENT, "%s", err.msg);
    POOLS_WAIT(&t, e.done);
    cr_expect_eq(e.err.code, VF_OK, "%s", e.err.msg);
    expect_mib(&t, 32);
    pools_close(&t);
}

/* Its answer comes while the daemon stops: it is kept, and the answer says so. */
Test(pools_adds, a_daemon_that_stops_keeps_it, .timeout = 60)
{
    struct pools_end e;
    struct pools t;
    pools_open(&t);
    cr_assert_eq(add(&t, "none", 16, &e), 0, "%s", e.err.msg);
    pools_reopen(&t);
    cr_expect(e.done);
    cr_expect_eq(e.err.code, VF_CANCELLED);
    cr_expect_not_null(strstr(e.err.msg, "there when it starts again"), "%s", e.err.msg);
    expect_mib(&t, 16);
    pools_close(&t);
}
