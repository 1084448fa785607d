/* What a launched process may do, by its launcher's privileges. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/fd.h"
#include "vmm/process.h"

#define BIT(cap) (1ull << (cap))
#define FILES (BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH))

static void need_root(const char *name)
{
    if (geteuid() == 0)
        return;
    fprintf(stderr, "SKIPPED process_privileges.%s: needs root\n", name);
    cr_skip_test();
}

struct sets {
    uint64_t permitted, effective, inheritable, bounding, ambient;
};

static uint64_t set_of(const char *status, const char *name)
{
    const char *at = strstr(status, name);
    cr_assert_not_null(at, "%s", name);
    return strtoull(at + strlen(name), NULL, 16);
}

static struct sets parse(const char *status)
{
    return (struct sets){set_of(status, "CapPrm:"), set_of(status, "CapEff:"),
                         set_of(status, "CapInh:"), set_of(status, "CapBnd:"),
                         set_of(status, "CapAmb:")};
}

static struct sets own_sets(void)
{
    char *text;
    size_t len;
    cr_assert_eq(vf_read_file(AT_FDCWD, "/proc/self/status", 65536, &text, &len, NULL), 0);
    struct sets s = parse(text);
    free(text);
    return s;
}

/* Launches what tells its own; l: its other wishes. */
static struct sets sets_of_a_launched(struct vf_launch l)
{
    char *argv[] = {"cat", "/proc/self/status", NULL}, text[8192];
    struct vf_process p;
    struct vf_error e;
    int fds[2];
    size_t len = 0;
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    l.binary = "/bin/cat";
    l.argv = argv;
    l.output = fds[1];
    l.record = -1;
    cr_assert_eq(vf_process_launch(&l, &p, &e), 0, "%s", e.msg);
    close(fds[1]);
    for (ssize_t n; (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0;)
        len += (size_t)n;
    text[len] = 0;
    close(fds[0]);
    vf_process_end(&p, 10000, NULL);
    vf_process_close(&p, NULL);
    return parse(text);
}

static void set_own(uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2];
    for (int i = 0; i < 2; i++)
        d[i] = (struct __user_cap_data_struct){.effective = (uint32_t)(permitted >> 32 * i),
                                               .permitted = (uint32_t)(permitted >> 32 * i),
                                               .inheritable = (uint32_t)(inheritable >> 32 * i)};
    cr_assert_eq(syscall(SYS_capset, &header, d), 0, "%s", strerror(errno));
}

/* Somebody else, with these capabilities left, also to what he runs. */
static void become(uid_t uid, uint64_t kept)
{
    cr_assert_eq(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), 0);
    cr_assert_eq(setgroups(0, NULL), 0);
    cr_assert_eq(setresgid(uid, uid, uid), 0);
    cr_assert_eq(setresuid(uid, uid, uid), 0);
    set_own(kept, kept);
    for (unsigned long cap = 0; cap < 64; cap++)
        if (kept & BIT(cap))
            cr_assert_eq(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0), 0);
}

Test(process_privileges, roots_process_keeps_those_over_files)
{
    need_root("roots_process_keeps_those_over_files");
    struct sets own = own_sets(), s = sets_of_a_launched((struct vf_launch){0});
    if (!(own.effective & BIT(CAP_SETPCAP)))
        cr_skip_test();
    uint64_t kept = (FILES | BIT(CAP_IPC_LOCK)) & own.permitted;
    cr_expect_eq(s.bounding, kept, "%llx", (unsigned long long)s.bounding);
    cr_expect_eq(s.effective, kept);
    cr_expect_eq(s.permitted, kept);
    cr_expect_eq(s.ambient | s.inheritable, 0);
    struct sets after = own_sets();
    cr_expect_arr_eq(&after, &own, sizeof(own), "the launcher's own have changed");
}

Test(process_privileges, what_is_needed_stays)
{
    need_root("what_is_needed_stays");
    struct sets own = own_sets();
    if (!(own.effective & BIT(CAP_SETPCAP)) || !(own.effective & BIT(CAP_NET_ADMIN)))
        cr_skip_test();
    struct sets s = sets_of_a_launched((struct vf_launch){.net_admin = true});
    cr_expect(s.effective & BIT(CAP_NET_ADMIN));
    cr_expect_not(s.effective & BIT(CAP_SYS_PTRACE));
    s = sets_of_a_launched((struct vf_launch){.userfaults = true});
    cr_expect_not(s.effective & BIT(CAP_NET_ADMIN));
    cr_expect_eq(s.effective & BIT(CAP_SYS_PTRACE), own.effective & BIT(CAP_SYS_PTRACE));
}

/* As a service of systemd's with User= and AmbientCapabilities=. */
Test(process_privileges, ambient_ones_go)
{
    need_root("ambient_ones_go");
    uint64_t kept = BIT(CAP_NET_ADMIN) | BIT(CAP_SYS_ADMIN) | BIT(CAP_DAC_OVERRIDE);
    if ((own_sets().permitted & kept) != kept)
        cr_skip_test();
    become(65534, kept);
    struct sets s = sets_of_a_launched((struct vf_launch){0});
    cr_expect_eq(s.effective, BIT(CAP_DAC_OVERRIDE), "%llx", (unsigned long long)s.effective);
    cr_expect_eq(s.ambient, BIT(CAP_DAC_OVERRIDE));
    s = sets_of_a_launched((struct vf_launch){.net_admin = true});
    cr_expect_eq(s.effective, BIT(CAP_DAC_OVERRIDE) | BIT(CAP_NET_ADMIN));
}

Test(process_privileges, without_any_it_is_launched_as_well)
{
    need_root("without_any_it_is_launched_as_well");
    become(65534, 0);
    struct sets s = sets_of_a_launched((struct vf_launch){.die_with_parent = true});
    cr_expect_eq(s.effective | s.permitted | s.ambient, 0);
}

/* Root that may not take anything from its bounding set, as in a container: exec gives its process all that is in it,
 * and the signal of the parent's death must outlive that. */
Test(process_privileges, without_setpcap_the_end_still_comes_with_the_parents)
{
    need_root("without_setpcap_the_end_still_comes_with_the_parents");
    int fds[2];
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    pid_t launcher = fork();
    if (launcher == 0) {
        char *argv[] = {"cat", NULL};
        struct vf_process p;
        int input[2];
        prctl(PR_CAPBSET_DROP, CAP_SETPCAP, 0, 0, 0);
        set_own(own_sets().permitted & ~BIT(CAP_SETPCAP), 0);
        struct vf_launch l = {.binary = "/bin/cat",
                              .argv = argv,
                              .output = fds[1],
                              .has_stdio = true,
                              .die_with_parent = true,
                              .record = -1};
        if (pipe(input) < 0) /* inherited, so that its input never ends */
            _exit(1);
        l.input_fd = input[0];
        l.output_fd = fds[1];
        l.fds = &input[1];
        l.n_fds = 1;
        _exit(vf_process_launch(&l, &p, NULL) < 0);
    }
    int status;
    close(fds[1]);
    cr_assert_eq(waitpid(launcher, &status, 0), launcher);
    cr_assert_eq(status, 0);
    struct pollfd end = {.fd = fds[0], .events = POLLIN};
    cr_assert_eq(poll(&end, 1, 10000), 1, "it lives on");
    close(fds[0]);
}

/* ---- into a namespace */

Test(process_privileges, who_may_not_enter_a_namespace_is_told)
{
    need_root("who_may_not_enter_a_namespace_is_told");
    char *argv[] = {"true", NULL};
    struct vf_process p;
    struct vf_error e;
    VF_CLEANUP_FD int ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    struct vf_launch l = {.binary = "/bin/true",
                          .argv = argv,
                          .output = 2,
                          .has_netns = true,
                          .netns_fd = ns,
                          .record = -1};
    become(65534, 0);
    cr_assert_eq(vf_process_launch(&l, &p, &e), vf_code_errno(VF_PERMISSION));
    cr_expect_str_eq(e.msg, "launch /bin/true: enter the network namespace (netns_fd): "
                            "Operation not permitted");
    cr_expect_not_null(strstr(e.hint, "CAP_SYS_ADMIN"), "%s", e.hint);
    cr_expect_eq(waitpid(-1, NULL, WNOHANG), -1, "a child is left");
}

Test(process_privileges, what_is_no_namespace_is_told)
{
    char *argv[] = {"true", NULL};
    struct vf_process p;
    struct vf_error e;
    VF_CLEANUP_FD int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct vf_launch l = {.binary = "/bin/true",
                          .argv = argv,
                          .output = 2,
                          .has_netns = true,
                          .netns_fd = file,
                          .record = -1};
    cr_assert_eq(vf_process_launch(&l, &p, &e), vf_code_errno(VF_INVALID_ARGUMENT));
    cr_expect_not_null(strstr(e.msg, "(netns_fd): it is no network namespace"), "%s", e.msg);
    l.netns_fd = -1;
    cr_assert_neq(vf_process_launch(&l, &p, &e), 0);
    cr_expect_not_null(strstr(e.msg, "(netns_fd)"), "%s", e.msg);
    cr_expect_eq(waitpid(-1, NULL, WNOHANG), -1, "a child is left");
}
