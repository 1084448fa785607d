/* A class goes while a template that names it comes: neither sees the other one's worker end, and one of them is refused. */
#include "base/clock.h"
#include "tests/unit/pools_support.h"

static void put_class(struct pools *t, const char *text)
{
    struct pools_end e = {0};
    struct vf_class c;
    struct vf_error err;
    cr_assert_eq(vf_class_parse(text, strlen(text), NULL, &c, &err), 0, "%s", err.msg);
    cr_assert_eq(vf_runtimes_put_class(vf_pools_runtimes(t->p), &c, pools_on_end, &e, &err), 0,
                 "%s", err.msg);
    POOLS_WAIT(t, e.done);
    cr_assert_eq(e.err.code, VF_OK, "%s", e.err.msg);
}

/* Begins to; on failure nothing was begun. */
static int add_template(struct pools *t, const char *name, const char *class, struct pools_end *e)
{
    char text[300];
    struct vf_spec spec;
    *e = (struct pools_end){0};
    snprintf(text, sizeof(text),
             "{\"name\":\"%s\",\"class\":\"%s\",\"memory\":{\"size_mib\":16},"
             "\"boot\":{\"kernel\":\"/proc/self/exe\"}}",
             name, class);
    cr_assert_eq(vf_spec_parse(text, strlen(text), NULL, NULL, &spec, &e->err), 0, "%s",
                 e->err.msg);
    int r = vf_pools_add(t->p, &spec, pools_on_end, e, &e->err);
    vf_spec_free(&spec);
    return r;
}

static void remove_class(struct pools *t, const char *name, struct pools_end *e)
{
    *e = (struct pools_end){0};
    cr_assert_eq(vf_runtimes_remove_class(vf_pools_runtimes(t->p), name, pools_on_end, e, &e->err),
                 0);
}

Test(pools_classes, a_template_that_is_being_added_uses_its_class, .timeout = 60)
{
    struct pools t;
    struct pools_end e;
    pools_open(&t);
    put_class(&t, "{\"name\":\"fast\",\"vmm\":\"null\"}");
    cr_assert_eq(add_template(&t, "web", "fast", &e), 0, "%s", e.err.msg);
    cr_assert_not(e.done);
    const char *user = vf_pools_class_user(t.p, "fast");
    cr_assert_not_null(user, "the class may go, although a template that names it comes");
    cr_expect_str_eq(user, "web");
    cr_expect_null(vf_pools_class_user(t.p, "null"));
    POOLS_WAIT(&t, e.done);
    cr_assert_eq(e.err.code, VF_OK, "%s", e.err.msg);
    cr_expect_str_eq(vf_pools_class_user(t.p, "fast"), "web");
    pools_close(&t);
}

/* A kernel that is not there is found out by the worker. */
Test(pools_classes, one_that_failed_uses_nothing, .timeout = 60)
{
    static const char text[] = "{\"name\":\"web\",\"class\":\"fast\",\"memory\":{\"size_mib\":16},"
                               "\"boot\":{\"kernel\":\"/nonexistent/kernel\"}}";
    struct pools t;
    struct pools_end e = {0};
    struct vf_spec spec;
    pools_open(&t);
    put_class(&t, "{\"name\":\"fast\",\"vmm\":\"null\"}");
    cr_assert_eq(vf_spec_parse(text, strlen(text), NULL, NULL, &spec, &e.err), 0);
    cr_assert_eq(vf_pools_add(t.p, &spec, pools_on_end, &e, &e.err), 0, "%s", e.err.msg);
    vf_spec_free(&spec);
    cr_expect_not_null(vf_pools_class_user(t.p, "fast"));
    POOLS_WAIT(&t, e.done);
    cr_expect_eq(e.err.code, VF_NOT_FOUND, "%s", e.err.msg);
    cr_expect_null(vf_pools_class_user(t.p, "fast"));
    pools_close(&t);
}

/* Under way, and waiting for its turn. */
Test(pools_classes, no_template_takes_a_class_that_is_being_removed, .timeout = 60)
{
    struct pools_end first, second, e;
    struct pools t;
    pools_open(&t);
    put_class(&t, "{\"name\":\"fast\",\"vmm\":\"null\"}");
    put_class(&t, "{\"name\":\"slow\",\"vmm\":\"null\"}");
    remove_class(&t, "fast", &first);
    remove_class(&t, "slow", &second);
    cr_expect_lt(add_template(&t, "web", "fast", &e), 0, "its class is going");
    cr_expect_eq(e.err.code, VF_CONFLICT);
    cr_expect_str_eq(e.err.msg, "class: the class \"fast\" is being removed");
    cr_expect_str_eq(e.err.hint, "name another class, or set it again once it is gone");
    cr_expect_lt(add_template(&t, "web", "slow", &e), 0, "its class is going");
    cr_expect_eq(e.err.code, VF_CONFLICT);
    POOLS_WAIT(&t, first.done && second.done);
    cr_expect_lt(add_template(&t, "web", "fast", &e), 0);
    cr_expect_eq(e.err.code, VF_NOT_FOUND, "%s", e.err.msg);
    /* A removal that fails holds up nobody. */
    remove_class(&t, "fast", &first);
    POOLS_WAIT(&t, first.done);
    cr_expect_eq(first.err.code, VF_NOT_FOUND);
    put_class(&t, "{\"name\":\"fast\",\"vmm\":\"null\"}");
    cr_assert_eq(add_template(&t, "web", "fast", &e), 0, "%s", e.err.msg);
    POOLS_WAIT(&t, e.done);
    cr_expect_eq(e.err.code, VF_OK, "%s", e.err.msg);
    pools_close(&t);
}
