/* The daemon is killed at each step of making, recycling and removing a slot: its next start leaves nothing over. And
 * what only looks like ours stays. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "tests/e2e/net_support.h"

TestSuite(net_killed, .timeout = 120);

/* In a process of its own that dies at the failpoint: makes two slots, recycles one, destroys it. */
static void die_at(struct net *n, const char *point)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        struct vf_nets *s;
        struct vf_net *a, *b;
        struct vf_error e = {0};
        if (vf_nets_open(&n->cfg, &s, &e) < 0) {
            fprintf(stderr, "XX %s\n", e.msg);
            _exit(9);
        }
        if (vf_net_make(s, &net_plain, NULL) < 0 || vf_failpoint_arm(point) < 0)
            _exit(1);
        if (vf_net_make(s, &net_plain, NULL) < 0 || vf_net_take(s, &net_plain, &a, NULL) < 0 ||
            vf_net_take(s, &net_plain, &b, NULL) < 0)
            _exit(2);
        struct vf_policy p = {
            .egress = VF_EGRESS_DENY, .ports = {{IPPROTO_TCP, 80, 80}}, .n_ports = 1};
        if (vf_net_set(a, &p, NULL) < 0 || vf_net_give_back(a, NULL, NULL) < 0 ||
            vf_net_destroy(b, NULL) < 0)
            _exit(3);
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: status %#x", point, status);
}

Test(net_killed, at_each_step_and_nothing_is_left)
{
    struct net n;
    struct vf_error e;
    int points = 0;
    net_open(&n, "net_killed", "at_each_step_and_nothing_is_left");
    vf_nets_close(n.slots);
    for (int i = 0; vf_failpoint_names[i]; i++) {
        struct vf_sweep sweep;
        if (strncmp(vf_failpoint_names[i], "net.", 4) != 0)
            continue;
        points++;
        die_at(&n, vf_failpoint_names[i]);
        cr_assert_gt(net_count_records(), 0, "%s: the kill came too late", vf_failpoint_names[i]);
        cr_assert_eq(vf_nets_open(&n.cfg, &n.slots, &e), 0, "%s: %s", vf_failpoint_names[i], e.msg);
        cr_assert_eq(vf_nets_sweep(n.slots, &sweep, &e), 0, "%s: %s", vf_failpoint_names[i], e.msg);
        cr_expect_geq(sweep.removed, 1);
        cr_expect_eq(sweep.foreign, 0, "%s: %s", vf_failpoint_names[i], sweep.names);
        cr_expect_eq(net_count_names(), 0, "%s", vf_failpoint_names[i]);
        cr_expect_eq(net_count_links("vf-"), 0, "%s", vf_failpoint_names[i]);
        cr_expect_eq(net_count_records(), 0, "%s", vf_failpoint_names[i]);
        cr_expect_not(strstr(net_shell("nft list table inet vmfactory"), "elements"), "%s",
                      vf_failpoint_names[i]);
        vf_nets_close(n.slots);
        cr_expect_str_empty(net_shell("nft list ruleset"));
    }
    cr_expect_geq(points, 12);
}

Test(net_killed, what_only_looks_like_ours_stays)
{
    struct net n;
    struct vf_error e;
    struct vf_sweep sweep;
    net_open(&n, "net_killed", "what_only_looks_like_ours_stays");
    net_shell("ip netns add vf-1; ip netns add vf-blue; ip netns add avf-0;"
              "ip link add vf-2 type veth peer name other; ip tuntap add vf-3 mode tap;"
              "ip tuntap add vf-tap mode tap;"
              "nft add table inet vmfactory-theirs; nft add table ip vmfactory; nft add table "
              "netdev vmfactory");
    vf_nets_close(n.slots);
    die_at(&n, "net.slot.joined");
    cr_assert_eq(vf_nets_open(&n.cfg, &n.slots, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_nets_sweep(n.slots, &sweep, &e), 0, "%s", e.msg);
    cr_expect_eq(sweep.removed, 2);
    cr_expect_eq(sweep.foreign, 5, "%s", sweep.names); /* vf-1 vf-blue vf-2 vf-3 vf-tap */
    cr_expect(strstr(sweep.names, "vf-blue") && strstr(sweep.names, "vf-tap"), "%s", sweep.names);

    /* New ones pass the names by. */
    static const char *const expected[] = {"vf-0", "vf-4", "vf-5"};
    struct vf_net *slots[3];
    for (int i = 0; i < 3; i++) {
        struct vf_net_info info;
        slots[i] = net_slot(&n);
        vf_net_info(slots[i], &info);
        cr_expect_str_eq(info.name, expected[i]);
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(vf_net_destroy(slots[i], &e), 0, "%s", e.msg);
    vf_nets_close(n.slots);
    const char *names = net_shell("ls /run/netns; ip -o link; nft list tables");
    static const char *const still[] = {"vf-1",
                                        "vf-blue",
                                        "avf-0",
                                        "vf-2@",
                                        "vf-3:",
                                        "vf-tap:",
                                        "table inet vmfactory-theirs",
                                        "table ip vmfactory",
                                        "table netdev vmfactory"};
    for (size_t i = 0; i < sizeof(still) / sizeof(still[0]); i++)
        cr_expect(strstr(names, still[i]), "%s is gone:\n%s", still[i], names);
    cr_expect_not(strstr(names, "table inet vmfactory\n"));
}

/* Somebody who takes each name as soon as it is recorded, before a namespace is kept under it. */
static void *take_names(void *arg)
{
    int *watch = arg;
    union {
        struct inotify_event e;
        char b[4096];
    } u;
    while (read(*watch, &u, sizeof(u)) > 0 && !(u.e.mask & IN_IGNORED)) {
        int number, fd;
        char path[64];
        if (sscanf(u.e.name, "%d.json", &number) != 1)
            continue;
        snprintf(path, sizeof(path), "/run/netns/vf-%d", number);
        if ((fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444)) >= 0)
            close(fd);
    }
    return NULL;
}

Test(net_killed, a_name_that_somebody_takes_meanwhile_stays_theirs)
{
    struct net n;
    struct vf_error e;
    pthread_t thread;
    int r = 0, watch = inotify_init1(IN_CLOEXEC);
    net_open(&n, "net_killed", "a_name_that_somebody_takes_meanwhile_stays_theirs");
    int wd = inotify_add_watch(watch, NET_RUN, IN_MOVED_TO);
    cr_assert_geq(wd, 0);
    cr_assert_eq(pthread_create(&thread, NULL, take_names, &watch), 0);
    /* Until they were the first. */
    for (int i = 0; i < 100 && r == 0; i++) {
        struct vf_net *slot;
        r = vf_net_make(n.slots, &net_plain, &e);
        if (r == 0 && vf_net_take(n.slots, &net_plain, &slot, &e) == 0)
            cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    }
    cr_assert_eq(r, -EBUSY);
    cr_expect_eq(e.code, VF_CONFLICT, "%s", e.msg);
    cr_expect_geq(net_count_names(), 1, "theirs is gone: %s", e.msg);
    cr_expect_eq(net_count_records(), 0);
    cr_expect_eq(inotify_rm_watch(watch, wd), 0); /* which ends the thread */
    pthread_join(thread, NULL);
    close(watch);
    vf_nets_close(n.slots);
    cr_expect_geq(net_count_names(), 1);
}

Test(net_killed, a_table_of_our_name_that_is_not_ours_is_refused)
{
    struct net n;
    struct vf_error e;
    net_open(&n, "net_killed", "a_table_of_our_name_that_is_not_ours_is_refused");
    vf_nets_close(n.slots);
    net_shell("nft add table inet vmfactory; nft add chain inet vmfactory theirs");
    cr_expect_lt(vf_nets_open(&n.cfg, &n.slots, &e), 0);
    cr_expect_eq(e.code, VF_CONFLICT);
    cr_expect(strstr(e.msg, "table vmfactory") && strstr(e.msg, "not ours"), "%s", e.msg);
    cr_expect(strstr(net_shell("nft list table inet vmfactory"), "theirs"));
}

/* Its VM lives on: the slot goes on working, and is taken over with its ports; only the other one is swept. */
Test(net_killed, a_slot_in_use_is_adopted_with_its_traffic)
{
    struct net n;
    struct vf_error e;
    struct vf_net *slot = NULL;
    struct vf_sweep sweep;
    net_open(&n, "net_killed", "a_slot_in_use_is_adopted_with_its_traffic");
    net_outside(&n);
    vf_nets_close(n.slots);
    pid_t pid = fork();
    if (pid == 0) { /* the daemon before */
        struct vf_nets *s;
        struct vf_error e2;
        struct vf_policy p = {
            .ports = {{IPPROTO_UDP, 8080, 80}}, .n_ports = 1, .egress = VF_EGRESS_DENY};
        if (vf_nets_open(&n.cfg, &s, &e2) == 0 && vf_net_make(s, &net_plain, &e2) == 0 &&
            vf_net_make(s, &net_plain, &e2) == 0 && vf_net_take(s, &net_plain, &slot, &e2) == 0 &&
            vf_net_set(slot, &p, &e2) == 0)
            raise(SIGKILL);
        fprintf(stderr, "%s\n", e2.msg);
        _exit(1);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status));
    cr_assert_eq(net_count_records(), 2);

    cr_assert_eq(vf_nets_open(&n.cfg, &n.slots, &e), 0, "%s", e.msg);
    cr_expect_eq(vf_net_adopt(n.slots, 7, -1, &slot, &e), -ENOENT);
    cr_assert_eq(vf_net_adopt(n.slots, 1, -1, &slot, &e), 0, "%s",
                 e.msg); /* the last made is taken first */
    cr_assert_eq(vf_nets_sweep(n.slots, &sweep, &e), 0, "%s", e.msg);
    cr_expect_eq(sweep.removed, 1);
    cr_expect_eq(sweep.foreign, 0, "%s", sweep.names);
    cr_expect_eq(net_count_names(), 1);
    const char *rules = net_shell("nft list table inet vmfactory");
    cr_expect(strstr(rules, "8080"), "%s", rules);
    cr_expect(strstr(rules, "vf-1") && !strstr(rules, "vf-0"), "%s", rules);

    /* Another start, with other prefixes: it can't be taken over, and is swept. */
    static const char *const others[] = {"10.211.0.0/24", NULL};
    struct vf_nets_config cfg = n.cfg;
    struct vf_nets *again = NULL;
    struct vf_net *no = NULL;
    cfg.prefixes = others;
    cr_assert_eq(vf_nets_open(&cfg, &again, &e), 0, "%s", e.msg);
    cr_expect_eq(vf_net_adopt(again, 1, -1, &no, &e), -EBUSY);
    cr_expect(strstr(e.msg, "other prefixes"), "%s", e.msg);
    vf_nets_close(again);
    vf_net_forget(slot);
    vf_nets_close(n.slots);
    cr_assert_eq(vf_nets_open(&n.cfg, &n.slots, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_adopt(n.slots, 1, -1, &slot, &e), 0, "%s", e.msg);

    /* Its policy is taken back all the same. */
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    cr_expect_not(strstr(net_shell("nft list table inet vmfactory"), "8080"));
    cr_assert_eq(vf_net_take(n.slots, &net_plain, &slot, &e), 0, "%s", e.msg);
    int out = net_udp(n.outside.ns, NET_OUT4, 7000);
    struct net_packet p = net_packet(slot, NET_OUT4, 7000, "free");
    net_guest_send(slot, &p);
    cr_expect_not_null(net_udp_receive(out, NET_TIMEOUT_MS, NULL, NULL));
    close(out);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}
