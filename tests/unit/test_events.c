/* Events: their form, who sees which, readers that are too slow, readers that leave while they are told. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "pool/events.h"

TestSuite(events, .timeout = 60);

static void count(void *arg)
{
    ++*(int *)arg;
}

static int64_t seq_of(const char *line)
{
    struct vf_json *j = vf_json_parse(line, strlen(line));
    int64_t seq = vf_json_int(vf_json_get(j, "seq"), -1);

    vf_json_delete(j);
    return seq;
}

Test(events, an_event_is_one_line_with_what_is_known)
{
    struct vf_events *e = vf_events_new();
    struct vf_event_follower *f = vf_event_follow(e, -1, 1000, false, count, &(int){0});
    struct vf_error err = {0};
    const char *line;
    struct vf_json *j;

    vf_fail(&err, VF_VMM_DIED, "qemu: killed by signal 9");
    vf_event(e, "vm.died", "web", "vm-1", VF_EVENT_ALL, &err, "while %s", "parked");
    line = vf_event_next(f);
    cr_assert_not_null(line);
    cr_expect_eq(strchr(line, '\n'), line + strlen(line) - 1, "one line: %s", line);
    j = vf_json_parse(line, strlen(line));
    cr_expect_eq(vf_json_int(vf_json_get(j, "seq"), -1), 1);
    cr_expect_str_eq(vf_json_str(vf_json_get(j, "event"), ""), "vm.died");
    cr_expect_str_eq(vf_json_str(vf_json_get(j, "template"), ""), "web");
    cr_expect_str_eq(vf_json_str(vf_json_get(j, "vm"), ""), "vm-1");
    cr_expect_str_eq(vf_json_str(vf_json_get(j, "code"), ""), "vmm_died");
    cr_expect_str_eq(vf_json_str(vf_json_get(j, "message"), ""),
                     "while parked: qemu: killed by signal 9");
    int y, mo, d, h, mi, s, ms, end = 0;
    const char *at = vf_json_str(vf_json_get(j, "time"), "");
    sscanf(at, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &y, &mo, &d, &h, &mi, &s, &ms, &end);
    cr_expect(end == 24 && at[end] == '\0', "%s", at);
    vf_json_delete(j);

    vf_event(e, "daemon.started", NULL, NULL, VF_EVENT_ALL, NULL, "%s", "");
    line = vf_event_next(f);
    cr_assert_not_null(line);
    cr_expect_null(strstr(line, "template"));
    cr_expect_null(strstr(line, "\"vm\""));
    cr_expect_null(strstr(line, "code"));
    cr_expect_null(strstr(line, "message"));
    cr_expect_null(vf_event_next(f));
    cr_expect_eq(vf_events_last(e), 2);
    vf_event_unfollow(f);
    vf_events_free(e);
}

Test(events, a_long_message_is_cut_between_characters)
{
    struct vf_events *e = vf_events_new();
    struct vf_event_follower *f = vf_event_follow(e, 0, 0, true, count, &(int){0});
    char text[3001];

    for (size_t i = 0; i < 3000; i += 3)
        memcpy(text + i, "\xe2\x82\xac", 3);
    text[3000] = '\0';
    vf_event(e, "x", NULL, NULL, VF_EVENT_ALL, NULL, "%s", text);
    const char *line = vf_event_next(f);
    cr_assert_not_null(line);
    cr_expect_null(strstr(line, "\xef\xbf\xbd"), "no half character");
    cr_expect_lt(strlen(line), 1200);
    vf_event_unfollow(f);
    vf_events_free(e);
}

Test(events, a_follower_is_told_once_when_it_has_read_all)
{
    struct vf_events *e = vf_events_new();
    int told = 0;
    struct vf_event_follower *f = vf_event_follow(e, -1, 0, true, count, &told);

    vf_event(e, "a", NULL, NULL, VF_EVENT_ALL, NULL, "%s", "");
    cr_expect_eq(told, 0, "it has not asked yet");
    cr_expect_not_null(vf_event_next(f));
    cr_expect_null(vf_event_next(f));
    vf_event(e, "b", NULL, NULL, VF_EVENT_ALL, NULL, "%s", "");
    vf_event(e, "c", NULL, NULL, VF_EVENT_ALL, NULL, "%s", "");
    cr_expect_eq(told, 1);
    cr_expect_eq(seq_of(vf_event_next(f)), 2);
    cr_expect_eq(seq_of(vf_event_next(f)), 3);
    cr_expect_null(vf_event_next(f));
    vf_event_unfollow(f);
    vf_events_free(e);
}

Test(events, others_events_are_not_shown)
{
    struct vf_events *e = vf_events_new();
    struct vf_event_follower *mine = vf_event_follow(e, 0, 1000, false, count, &(int){0});
    struct vf_event_follower *admin = vf_event_follow(e, 0, 5, true, count, &(int){0});

    vf_event(e, "vm.leased", "web", "theirs", 1001, NULL, "%s", "");
    vf_event(e, "vm.leased", "web", "mine", 1000, NULL, "%s", "");
    vf_event(e, "pool.warm", "web", NULL, VF_EVENT_ALL, NULL, "%s", "");
    vf_event(e, "vm.leased", "web", "roots", 0, NULL, "%s", "");
    cr_expect_eq(seq_of(vf_event_next(mine)), 2);
    cr_expect_eq(seq_of(vf_event_next(mine)), 3);
    cr_expect_null(vf_event_next(mine));
    for (int64_t i = 1; i <= 4; i++)
        cr_expect_eq(seq_of(vf_event_next(admin)), i);
    vf_event_unfollow(mine);
    vf_event_unfollow(admin);
    vf_events_free(e);
}

Test(events, where_to_begin)
{
    struct vf_events *e = vf_events_new();
    struct {
        int64_t since, first;
        const char *missed;
    } const cases[] = {
        {-1, 0, NULL},    {0, 11, NULL},    {3, 11, "{\"event\":\"missed\",\"count\":7}\n"},
        {10, 11, NULL},   {500, 501, NULL}, {1034, 0, NULL},
        {9999, 11, NULL}, /* of an earlier daemon */
    };

    for (int i = 0; i < VF_EVENTS_KEPT + 10; i++)
        vf_event(e, "x", NULL, NULL, VF_EVENT_ALL, NULL, "%d", i);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vf_event_follower *f = vf_event_follow(e, cases[i].since, 0, true, count, &(int){0});
        const char *line = vf_event_next(f);

        if (cases[i].missed != NULL) {
            cr_expect_str_eq(line, cases[i].missed);
            line = vf_event_next(f);
        }
        cr_expect_eq(line != NULL ? seq_of(line) : 0, cases[i].first, "since %" PRId64,
                     cases[i].since);
        vf_event_unfollow(f);
    }
    vf_events_free(e);
}

Test(events, a_slow_reader_learns_how_many_it_missed)
{
    struct vf_events *e = vf_events_new();
    struct vf_event_follower *f = vf_event_follow(e, -1, 1000, false, count, &(int){0});
    const char *line;
    char copy[256];
    int64_t expect = 12;

    vf_event(e, "x", "kept-by-the-reader", NULL, VF_EVENT_ALL, NULL, "%s", "");
    line = vf_event_next(f);
    cr_assert_not_null(line);
    snprintf(copy, sizeof(copy), "%s", line);
    for (int i = 0; i < VF_EVENTS_KEPT + 10; i++) /* every other one is somebody else's */
        vf_event(e, "x", NULL, NULL, i % 2 ? 1001 : 1000, NULL, "%d", i);
    cr_expect_str_eq(line, copy, "what it was given stays until it asks again");
    cr_expect_str_eq(vf_event_next(f), "{\"event\":\"missed\",\"count\":5}\n");
    while ((line = vf_event_next(f)) != NULL) {
        cr_assert_eq(seq_of(line), expect);
        expect += 2;
    }
    cr_expect_eq(expect, 2 + VF_EVENTS_KEPT + 10);
    vf_event_unfollow(f);
    vf_events_free(e);
}

/* Each that is told lets go of itself and of its neighbour, and the last causes another event. */
struct leaver {
    struct vf_events *e;
    struct vf_event_follower *f;
    struct leaver *neighbour;
};
static void leave(void *arg)
{
    struct leaver *l = arg;

    vf_event_unfollow(l->f);
    l->f = NULL;
    if (l->neighbour != NULL && l->neighbour->f != NULL) {
        vf_event_unfollow(l->neighbour->f);
        l->neighbour->f = NULL;
    }
    vf_event(l->e, "left", NULL, NULL, VF_EVENT_ALL, NULL, "%s", "");
}

Test(events, followers_may_leave_while_they_are_told)
{
    struct vf_events *e = vf_events_new();
    struct leaver l[9] = {0};

    for (int i = 0; i < 9; i++) {
        l[i] = (struct leaver){.e = e, .neighbour = i % 2 ? &l[i - 1] : i < 8 ? &l[i + 1] : NULL};
        l[i].f = vf_event_follow(e, -1, 0, true, leave, &l[i]);
        cr_assert_null(vf_event_next(l[i].f));
    }
    vf_event(e, "x", NULL, NULL, VF_EVENT_ALL, NULL, "%s", "");
    for (int i = 0; i < 9; i++)
        cr_expect_null(l[i].f);
    cr_expect_eq(vf_events_last(e), 1 + 5);
    vf_events_free(e);
}
