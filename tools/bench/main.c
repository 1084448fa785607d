/* vmfactory-bench: the factory against the floor and against cold boots, in turn, in one run.
 *
 * For each guest that this host can run it builds the template, then times clones, parked clones resumed,
 * clones made at once, cold boots and saves. Times are whole: from the call to its callback.
 */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tools/bench/bench.h"

enum { PART_CHAIN = 1, PART_DAEMON = 2, PART_SOAK = 4 };

static int usage(int status)
{
    fputs(
        "usage: vmfactory-bench --specs DIR [OPTION…]\n"
        "  --specs DIR     where linux.json and tiny.json are\n"
        "  --clones N      clones a guest (20), each also parked and woken\n"
        "  --colds N       cold boots a guest (5)\n"
        "  --saves N       saves of 4 GiB beside 256 MiB, Linux (3)\n"
        "  --bursts N      rounds of clones at once, Linux (3); --burst N: how many at once (16)\n"
        "  --guest NAME    only linux, or only tiny\n"
        "  --qemu FILE     instead of the one on PATH\n"
        "  --stages        the time of each stage, too\n"
        "  --chain, --daemon, --soak    only the clone chain, only a daemon's speed, only whether "
        "it grows;\n"
        "                  together: these\n"
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

static bool kvm_opens(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static int run_guest(struct bench *b, const char *specs, const char *guest, enum vf_accel accel,
                     const char *only, struct vf_error *err)
{
    char file[4096];
    if (only && strcmp(only, guest) != 0)
        return 0;
    fprintf(stderr, "measuring: %s guest on %s\n", guest, vf_accel_names[accel]);
    snprintf(file, sizeof(file), "%s/%s.json", specs, guest);
    return bench_guest(b, file, guest, accel, err);
}

static int run_chain(struct bench *b, const char *specs, const char *only, struct vf_error *err)
{
    int r = run_guest(b, specs, "linux", VF_ACCEL_TCG, only, err);
    b->bursts = 0;
    if (r == 0)
        r = run_guest(b, specs, "tiny", VF_ACCEL_TCG, only, err);
    if (r == 0 && !kvm_opens())
        fprintf(stderr, "SKIPPED tiny guest on kvm: /dev/kvm does not open\n");
    else if (r == 0)
        r = run_guest(b, specs, "tiny", VF_ACCEL_KVM, only, err);
    return r;
}

static void report(struct bench *b, unsigned parts, bool stages, bool json)
{
    if (json) {
        report_json(b);
        return;
    }
    if (parts & PART_CHAIN)
        report_table(b, stages);
    figures_table(b);
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
                                            {"stages", no_argument, NULL, 't'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"chain", no_argument, NULL, 'C'},
                                            {"daemon", no_argument, NULL, 'D'},
                                            {"soak", no_argument, NULL, 'S'},
                                            {"soaks", required_argument, NULL, 'k'},
                                            {"soaks-qemu", required_argument, NULL, 'K'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct bench *b = calloc(1, sizeof(*b));
    const char *specs = NULL, *only = NULL, *qemu = NULL;
    bool stages = false, json = false;
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
            qemu = optarg;
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
    b->big = b->saves > 0;

    struct vf_error err;
    struct vf_sync_options o = {.qemu = qemu};
    b->floor.program = vf_floor_find();
    int r = vf_sync_open(&b->sync, &o, &err);
    if (r == 0)
        r = vf_sync_binary(&b->sync, VF_SPEC_VMM_QEMU, &b->floor.binaries[VF_SPEC_VMM_QEMU], &err);
    if (r == 0 && parts & PART_CHAIN)
        r = run_chain(b, specs, only, &err);
    if (r == 0 && parts & PART_DAEMON)
        r = bench_daemon(b, specs, &err);
    if (r == 0 && parts & PART_SOAK)
        r = bench_soak(b, specs, &err);
    if (r == 0)
        report(b, parts, stages, json);
    vf_sync_close(&b->sync);
    if (r < 0)
        fprintf(stderr, "vmfactory-bench: %s%s%s\n", err.msg, err.hint[0] ? "\n  " : "", err.hint);
    return r < 0 ? (err.code == VF_CANCELLED ? 130 : 1) : 0;
}
