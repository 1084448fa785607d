/* vmfactory-bench: the factory against the floor and against cold boots, in turn, in one run.
 *
 * For each VMM and guest that this host can run it builds the template, then times clones, parked clones resumed,
 * clones made at once, cold boots and saves. Times are whole: from the call to its callback.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/bench/bench.h"

enum { PART_CHAIN = 1, PART_DAEMON = 2, PART_SOAK = 4, PART_SAVES = 8, PART_NETS = 16 };

static int usage(int status)
{
    fputs(
        "usage: vmfactory-bench --specs DIR [OPTION…]\n"
        "  --specs DIR     where linux.json and tiny.json are\n"
        "  --clones N      clones a guest (20), each also parked and woken\n"
        "  --colds N       cold boots a guest (5)\n"
        "  --saves N       saves more of each guest (3), where the VMM leaves shared memory alone "
        "in "
        "turn\n"
        "                  with saves of 4 GiB\n"
        "  --bursts N      rounds of clones at once, Linux (3); --burst N: how many at once (16)\n"
        "  --guest NAME    only linux, or only tiny\n"
        "  --vmm NAME      only qemu, cloud-hypervisor or firecracker; more than once: these\n"
        "  --qemu FILE, --cloud-hypervisor FILE, --firecracker FILE    instead of the one on PATH\n"
        "  --stages        the time of each stage, too\n"
        "  --chain, --daemon, --soak, --save-scaling    only the clone chain, only a daemon's "
        "speed, only\n"
        "                  whether it grows, only saves of both sizes; together: these\n"
        "  --networks      only what networks cost a daemon's callers; needs root, and leaves this "
        "machine's\n"
        "                  own network alone\n"
        "  --soaks N       cycles of the soak, null driver (10000); --soaks-qemu N: QEMU, tiny "
        "guest (200)\n"
        "  --json          for programs\n",
        status ? stderr : stdout);
    return status;
}

static int number(const char *text, int max)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (*end || end == text || v < 0 || v > max) {
        fprintf(stderr, "vmfactory-bench: '%s': a number from 0 to %d is needed\n", text, max);
        exit(2);
    }
    return (int)v;
}

/* The daemon is told the same path, and runs elsewhere. */
static const char *absolute(const char *path)
{
    char *ret = realpath(path, NULL);
    if (!ret) {
        fprintf(stderr, "vmfactory-bench: %s: %s\n", path, strerror(errno));
        exit(2);
    }
    return ret;
}

static void want(struct bench *b, const char *name)
{
    for (int i = 0; bench_vmms[i] != VF_SPEC_VMM_COUNT; i++)
        if (strcmp(vf_spec_vmm_names[bench_vmms[i]], name) == 0) {
            b->wanted[bench_vmms[i]] = true;
            return;
        }
    fprintf(stderr, "vmfactory-bench: --vmm '%s': qemu, cloud-hypervisor or firecracker\n", name);
    exit(2);
}

static int run_guest(struct bench *b, const char *specs, const struct subject *of, const char *only,
                     struct vf_error *err)
{
    if ((only && strcmp(only, of->guest) != 0) || !bench_can(b, of))
        return 0;
    fprintf(stderr, "measuring: %s, %s guest on %s\n", vf_spec_vmm_names[of->vmm], of->guest,
            vf_accel_names[of->accel]);
    return bench_guest(b, specs, of, err);
}

static int run_chain(struct bench *b, const char *specs, const char *only, struct vf_error *err)
{
    static const struct subject tcg[] = {{VF_SPEC_VMM_QEMU, "linux", VF_ACCEL_TCG},
                                         {VF_SPEC_VMM_QEMU, "tiny", VF_ACCEL_TCG}};
    int r = 0;
    for (int i = 0; r == 0 && i < 2; i++)
        r = run_guest(b, specs, &tcg[i], only, err);
    for (int i = 0; r == 0 && bench_vmms[i] != VF_SPEC_VMM_COUNT; i++)
        r = run_guest(b, specs, &(struct subject){bench_vmms[i], "tiny", VF_ACCEL_KVM}, only, err);
    return r;
}

static void report(struct bench *b, unsigned parts, bool stages, bool json)
{
    if (json) {
        report_json(b);
        return;
    }
    if (parts & (PART_CHAIN | PART_SAVES))
        report_table(b, stages);
    figures_table(b);
    if (parts & PART_CHAIN)
        report_vmms(b);
}

static int open_all(struct bench *b, const struct vf_sync_options *o, struct vf_error *err)
{
    b->floor.program = vf_floor_find();
    int r = vf_sync_open(&b->sync, o, err);
    if (r < 0)
        return r;
    b->floor.dir = b->sync.dir;
    for (int i = 0; bench_vmms[i] != VF_SPEC_VMM_COUNT; i++)
        b->floor.binaries[bench_vmms[i]] = vf_factory_binary(b->sync.factory, bench_vmms[i]);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"specs", required_argument, NULL, 's'},
                                            {"clones", required_argument, NULL, 'n'},
                                            {"colds", required_argument, NULL, 'c'},
                                            {"saves", required_argument, NULL, 'w'},
                                            {"bursts", required_argument, NULL, 'b'},
                                            {"burst", required_argument, NULL, 'B'},
                                            {"guest", required_argument, NULL, 'g'},
                                            {"qemu", required_argument, NULL, 'q'},
                                            {"cloud-hypervisor", required_argument, NULL, 'Q'},
                                            {"firecracker", required_argument, NULL, 'f'},
                                            {"vmm", required_argument, NULL, 'v'},
                                            {"stages", no_argument, NULL, 't'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"chain", no_argument, NULL, 'C'},
                                            {"daemon", no_argument, NULL, 'D'},
                                            {"soak", no_argument, NULL, 'S'},
                                            {"save-scaling", no_argument, NULL, 'W'},
                                            {"networks", no_argument, NULL, 'N'},
                                            {"soaks", required_argument, NULL, 'k'},
                                            {"soaks-qemu", required_argument, NULL, 'K'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct bench *b = calloc(1, sizeof(*b));
    struct vf_sync_options o = {0};
    const char *specs = NULL, *only = NULL;
    bool stages = false, json = false, some = false;
    unsigned parts = 0;
    if (!b)
        abort();
    b->clones = 20;
    b->colds = 5;
    b->saves = 3;
    b->bursts = 3;
    b->burst_size = 16;
    b->hit_rounds = 10;
    b->linux_vms = 18;
    b->soak_null = 10000;
    b->soak_qemu = 200;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;)
        switch (c) {
        case 's':
            specs = optarg;
            break;
        case 'n':
            b->clones = number(optarg, 100000);
            break;
        case 'c':
            b->colds = number(optarg, 1000);
            break;
        case 'w':
            b->saves = number(optarg, 1000);
            break;
        case 'b':
            b->bursts = number(optarg, 1000);
            break;
        case 'B':
            b->burst_size = number(optarg, 64);
            break;
        case 'g':
            only = optarg;
            break;
        case 'q':
            o.qemu = absolute(optarg);
            break;
        case 'Q':
            o.cloud_hypervisor = absolute(optarg);
            break;
        case 'f':
            o.firecracker = absolute(optarg);
            break;
        case 'v':
            want(b, optarg);
            some = true;
            break;
        case 't':
            stages = true;
            break;
        case 'j':
            json = true;
            break;
        case 'C':
            parts |= PART_CHAIN;
            break;
        case 'D':
            parts |= PART_DAEMON;
            break;
        case 'S':
            parts |= PART_SOAK;
            break;
        case 'W':
            parts |= PART_SAVES;
            break;
        case 'N':
            parts |= PART_NETS;
            break;
        case 'k':
            b->soak_null = number(optarg, 10000000);
            break;
        case 'K':
            b->soak_qemu = number(optarg, 1000000);
            break;
        case 'h':
            return usage(0);
        default:
            return usage(2);
        }
    if (!specs || optind != argc)
        return usage(2);
    if (!parts) /* --guest is about the chain alone */
        parts = only ? PART_CHAIN : PART_CHAIN | PART_DAEMON | PART_SOAK;
    b->saves_only = !(parts & PART_CHAIN);
    for (int i = 0; !some && bench_vmms[i] != VF_SPEC_VMM_COUNT; i++)
        b->wanted[bench_vmms[i]] = true;

    struct vf_error err;
    if (parts & PART_NETS && bench_nets_enter(&err) < 0) {
        fprintf(stderr, "vmfactory-bench: %s\n  %s\n", err.msg, err.hint);
        return 1;
    }
    int r = open_all(b, &o, &err);
    if (r == 0 && parts & (PART_CHAIN | PART_SAVES))
        r = run_chain(b, specs, only, &err);
    if (r == 0 && parts & PART_DAEMON)
        r = bench_daemon(b, specs, &err);
    if (r == 0 && parts & PART_SOAK)
        r = bench_soak(b, specs, &err);
    if (r == 0 && parts & PART_NETS)
        r = bench_nets(b, specs, &err);
    if (r == 0)
        report(b, parts, stages, json);
    vf_sync_close(&b->sync);
    if (r < 0)
        fprintf(stderr, "vmfactory-bench: %s%s%s\n", err.msg, err.hint[0] ? "\n  " : "", err.hint);
    return r < 0 ? (err.code == VF_CANCELLED ? 130 : 1) : 0;
}
