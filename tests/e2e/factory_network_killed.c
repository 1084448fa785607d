/* Its process is killed at each step of a VM with a network: the next one finds a VM to discard, a slot to sweep away,
 * and then nothing is left.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "tests/e2e/factory_net.h"

TestSuite(factory_network_killed, .timeout = 240);

/* In the process that dies: a VM is made and destroyed. */
static _Noreturn void live(const struct vf_sync_options *options, const char *failpoint)
{
    static const char *const prefixes[] = {"10.210.0.0/29", "fd76:6d01::/125", NULL};
    struct vf_networks_config cfg = {.run_dir = NET_RUN, .prefixes = prefixes};
    struct vf_sync_options o = *options;
    struct vf_sync s;
    struct vf_instance *vm;
    struct vf_error e;
    struct vf_spec spec = facnet_tiny("tiny", VF_NETWORK_NAT);
    o.on_traffic = NULL;
    if (vf_networks_open(&cfg, &o.networks, &e) < 0 || vf_sync_open(&s, &o, &e) < 0)
        _exit(2);
    vf_failpoint_arm(failpoint);
    if (vf_sync_cold(&s, &spec, NULL, &vm, &e) < 0) {
        fprintf(stderr, "%s: %s\n", failpoint, e.msg);
        _exit(3);
    }
    vf_sync_destroy(&s, vm);
    _exit(4); /* not reached */
}

static void dies_at(struct facnet *n, const char *failpoint)
{
    int status;
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        live(&n->f.options, failpoint);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status), "%s was not reached: status %d", failpoint, WEXITSTATUS(status));
}

static void discard_all(struct facnet *n)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/run", n->f.options.dir);
    DIR *d = opendir(path);
    cr_assert(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct facnet_done done = {0};
        struct vf_error err;
        if (e->d_name[0] == '.')
            continue;
        cr_assert_eq(vf_factory_discard(n->f.sync.factory, e->d_name, facnet_on_done, &done, &err),
                     0, "%s", err.msg);
        facnet_wait(n, &done);
        cr_assert_eq(done.err.code, VF_OK, "%s", done.err.msg);
    }
    closedir(d);
}

static void nothing_is_left(struct facnet *n, const char *failpoint)
{
    struct vf_sweep s;
    struct vf_error e;
    discard_all(n);
    cr_assert_eq(vf_networks_sweep(n->networks, &s, &e), 0, "%s: %s", failpoint, e.msg);
    cr_assert_eq(s.failed, 0, "%s", failpoint);
    cr_assert_eq(s.foreign, 0, "%s: %s", failpoint, s.names);
    while (waitpid(-1, NULL, WNOHANG) > 0) /* VMMs that had ended before */
        ;
    cr_assert_eq(fac_run_dirs(&n->f), 0, "%s", failpoint);
    cr_assert_eq(sup_count_children(), 0, "%s: a process is left", failpoint);
    cr_assert_eq(net_count_names(), 0, "%s: a namespace is left", failpoint);
    cr_assert_eq(net_count_links("vf-"), 0, "%s: an interface is left", failpoint);
    cr_assert_str_empty(net_shell("find " NET_RUN " -name '*.json'"), "%s", failpoint);
}

static bool is_of_a_life(const char *failpoint)
{
    static const char *const of_others[] = {"factory.restored", "factory.resumed",
                                            "factory.adopt.connected", NULL}; /* of clones */
    static const char *const prefixes[] = {"factory.",  "launch.",      "network.",
                                           "net.slot.", "net.recycle.", NULL};
    for (int i = 0; of_others[i]; i++)
        if (strcmp(of_others[i], failpoint) == 0)
            return false;
    for (int i = 0; prefixes[i]; i++)
        if (strncmp(prefixes[i], failpoint, strlen(prefixes[i])) == 0)
            return true;
    return false;
}

Test(factory_network_killed, at_each_step)
{
    struct facnet n;
    int steps = 0;
    FACNET_KVM_OR_SKIP("factory_network_killed", "at_each_step");
    facnet_open(&n, "factory_network_killed", "at_each_step", 4,
                &(struct vf_sync_options){.trial_clones = -1, .outlive = true});
    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    for (int i = 0; vf_failpoint_names[i]; i++) {
        const char *name = vf_failpoint_names[i];
        if (!is_of_a_life(name))
            continue;
        steps++;
        fac_shut(&n.f);
        vf_networks_close(n.networks);
        n.networks = NULL;
        dies_at(&n, name);
        facnet_reopen(&n);
        nothing_is_left(&n, name);
        /* And what comes next is none the worse for it. */
        if (steps % 4 == 0) {
            struct vf_spec spec = facnet_tiny("tiny", VF_NETWORK_NAT);
            fac_destroy(&n.f, fac_cold(&n.f, &spec));
            vf_spec_free(&spec);
        }
    }
    cr_assert_geq(steps, 14);
    facnet_close(&n);
}
