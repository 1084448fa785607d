/* vmfactory-demo: builds a template, clones it, cold-boots once, proves each VM and prints a table.
 *
 * Exits 0 if every proof held, 1 if one failed or something broke, 130 after SIGINT or SIGTERM. It leaves
 * nothing behind.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "factory/measure.h"
#include "tools/common/floor.h"
#include "tools/common/sync.h"
#include "vmm/vmm.h"

#define CLONES 4
#define VMS (CLONES + 1)
#define CLOCK_LIMIT_US 50000

/* What the guest says of itself through a command, beside what its agent proved. */
struct row {
    struct vf_instance *vm;
    char random[33], machine_id[33], hostname[64], mac[18];
    int64_t clock_us;
    struct vf_memory_use memory; /* at hand-over, before the command */
    int64_t total_us;
    struct vf_floor_times floor;
};

static int failures;

static void check(bool ok, const char *fmt, const char *a, const char *b)
{
    if (ok)
        return;
    failures++;
    fputs("PROOF FAILED: ", stdout);
    printf(fmt, a, b);
    putchar('\n');
}

static void say_stage(void *arg, const char *stage)
{
    (void)arg;
    printf(" %s", stage);
    fflush(stdout);
}

static int64_t stage_us(const struct vf_instance *vm, const char *name)
{
    int n;
    const struct vf_stage *st = vf_instance_stages(vm, &n);
    for (int i = 0; i < n; i++)
        if (strcmp(st[i].name, name) == 0)
            return st[i].us;
    return -1;
}

static int64_t total_us(const struct vf_instance *vm)
{
    int n;
    int64_t sum = 0;
    const struct vf_stage *st = vf_instance_stages(vm, &n);
    for (int i = 0; i < n; i++)
        sum += st[i].us;
    return sum;
}

/* One command in each VM: what it sees of itself. */
static int look_inside(struct vf_sync *s, struct row *r, struct vf_error *err)
{
    static char *const argv[] = {
        "/bin/sh", "-c",
        "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo; cat /etc/machine-id; "
        "hostname; "
        "for d in /sys/class/net/*; do [ ${d##*/} = lo ] || { cat $d/address; break; }; done",
        NULL};
    struct vf_exec_options o = {.argv = argv, .timeout_ms = 20000};
    struct vf_sync_output out;
    int n = vf_sync_run(s, r->vm, &o, NULL, 0, &out, err);
    if (n < 0)
        return vf_wrap(err, "command in %s", vf_instance_id(r->vm));
    int fields =
        sscanf(out.out, "%32s %32s %63s %17s", r->random, r->machine_id, r->hostname, r->mac);
    if (out.status.code != 0 || fields < 3)
        n = vf_fail(err, VF_GUEST_FAILED, "command in %s: status %d, said '%.60s' '%.60s'",
                    vf_instance_id(r->vm), out.status.code, out.out, out.errout);
    vf_sync_output_free(&out);
    return n;
}

static void check_rows(const struct row *rows, const struct vf_generation *gen)
{
    for (int i = 0; i < VMS; i++) {
        const struct vf_proof *p = vf_instance_proof(rows[i].vm);
        const char *id = vf_instance_id(rows[i].vm);
        bool clone = i < CLONES;
        check(p->nonce_matched == clone, "%s: nonce %s", id, clone ? "missing" : "in a cold boot");
        if (clone) {
            check(strcmp(p->nonce, gen->manifest.nonce) == 0, "%s: nonce %s is not the template's",
                  id, p->nonce);
            check(strcmp(p->boot_id, gen->manifest.boot_id) == 0,
                  "%s: boot id %s is not the template's", id, p->boot_id);
        } else
            check(strcmp(p->boot_id, gen->manifest.boot_id) != 0,
                  "%s: cold boot with the template's boot id %s", id, p->boot_id);
        check(strcmp(p->machine_id, rows[i].machine_id) == 0, "%s: /etc/machine-id says %s", id,
              rows[i].machine_id);
        check(strcmp(p->hostname, rows[i].hostname) == 0, "%s: hostname says %s", id,
              rows[i].hostname);
        check(strcmp(p->mac, rows[i].mac) == 0, "%s: the NIC says %s", id, rows[i].mac);
        check(p->clock_offset_us <= CLOCK_LIMIT_US && p->clock_offset_us >= -CLOCK_LIMIT_US,
              "%s: clock is off%s", id, "");
        for (int k = 0; k < i; k++) {
            const char *other = vf_instance_id(rows[k].vm);
            check(strcmp(rows[i].random, rows[k].random) != 0, "%s and %s: same random bytes", id,
                  other);
            check(strcmp(rows[i].machine_id, rows[k].machine_id) != 0, "%s and %s: same machine-id",
                  id, other);
            check(strcmp(rows[i].hostname, rows[k].hostname) != 0, "%s and %s: same hostname", id,
                  other);
            check(!rows[i].mac[0] || strcmp(rows[i].mac, rows[k].mac) != 0, "%s and %s: same MAC",
                  id, other);
        }
    }
}

static void ms(int64_t us)
{
    if (us < 0)
        printf(" %8s", "-");
    else
        printf(" %8.1f", (double)us / 1000);
}

static void print_times(const struct row *rows)
{
    printf("\n%-14s %-6s %8s %8s %8s %8s %8s %8s   %s\n", "ms", "source", "vmm", "restore",
           "resume", "boot", "prove", "total", "by hand");
    for (int i = 0; i < VMS; i++) {
        const struct vf_instance *vm = rows[i].vm;
        bool clone = i < CLONES;
        printf("%-14s %-6s", vf_instance_id(vm), vf_source_names[vf_instance_source(vm)]);
        ms(stage_us(vm, "vmm"));
        ms(stage_us(vm, "restore"));
        ms(stage_us(vm, "resume"));
        ms(stage_us(vm, "boot"));
        ms(stage_us(vm, clone ? "prove" : "renew"));
        ms(rows[i].total_us);
        printf("  ");
        ms(rows[i].floor.total);
        putchar('\n');
    }
}

static void print_proofs(const struct row *rows)
{
    printf("\n%-14s %-17s %-33s %8s %-33s %-18s %8s\n", "proof", "nonce restored",
           "16 random bytes", "clock ms", "machine-id", "MAC", "copied");
    for (int i = 0; i < VMS; i++) {
        const struct vf_proof *p = vf_instance_proof(rows[i].vm);
        printf("%-14s %-17.16s %-33s %+8.1f %-33s %-18s", vf_instance_id(rows[i].vm),
               p->nonce_matched ? p->nonce : "(booted)", rows[i].random,
               (double)p->clock_offset_us / 1000, rows[i].machine_id,
               rows[i].mac[0] ? rows[i].mac : "(no NIC)");
        if (i < CLONES)
            printf(" %5lld KiB\n", (long long)rows[i].memory.guest_anonymous);
        else
            printf(" %9s\n", "all");
    }
}

static int make_vms(struct vf_sync *s, struct vf_generation *gen, const struct vf_spec *spec,
                    const struct vf_floor *floor, struct row *rows, struct vf_error *err)
{
    for (int i = 0; i < VMS; i++) {
        bool clone = i < CLONES;
        printf("%s %d of %d\n", clone ? "clone" : "cold boot", clone ? i + 1 : 1,
               clone ? CLONES : 1);
        int r = clone ? vf_sync_clone(s, gen, NULL, &rows[i].vm, err)
                      : vf_sync_cold(s, spec, NULL, &rows[i].vm, err);
        if (r < 0)
            return vf_wrap(err, "%s", clone ? "clone" : "cold boot");
        rows[i].total_us = total_us(rows[i].vm);
        if (clone) {
            pid_t pid = vf_vm_info_of(vf_instance_vm(rows[i].vm))->pid;
            r = vf_measure_memory(pid, &rows[i].memory, err);
        }
        if (r == 0)
            r = look_inside(s, &rows[i], err);
        rows[i].floor.total = -1;
        if (r == 0 && !spec->boot.has_root) /* the floor knows no disks */
            r = clone ? vf_floor_clone(floor, gen, 1, &rows[i].floor, err)
                      : vf_floor_cold(floor, spec, (enum vf_accel)gen->manifest.vmm.accel,
                                      &rows[i].floor, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int demo(struct vf_sync *s, const char *spec_path, const struct vf_floor *floor,
                struct vf_error *err)
{
    struct vf_spec spec;
    struct vf_generation *gen = NULL;
    struct row rows[VMS] = {0};
    int64_t began = vf_now_us(), resident = 0;
    int r = vf_spec_load(spec_path, &spec, err);
    if (r < 0)
        return r;
    printf("building template %s:", spec.name);
    fflush(stdout);
    r = vf_sync_build(s, &spec, say_stage, &gen, err);
    putchar('\n');
    if (r == 0) {
        const struct vf_manifest *m = &gen->manifest;
        printf("template %s generation %lld: %s %s, %s, %lld MiB, built in %.1f s\n", spec.name,
               (long long)gen->number, m->vmm.name, m->vmm.version, vf_accel_names[m->vmm.accel],
               (long long)spec.memory.size_mib, (double)(vf_now_us() - began) / 1e6);
        r = make_vms(s, gen, &spec, floor, rows, err);
    }
    if (r == 0)
        r = vf_measure_resident(gen->memory_fd, &resident, err);
    if (r == 0) {
        check_rows(rows, gen);
        print_times(rows);
        print_proofs(rows);
        printf(
            "\ntemplate memory, shared by all clones: %lld KiB. by hand: vmfactory-floor, the same "
            "steps with plain system calls.\n",
            (long long)resident);
        printf("%s\n", failures ? "SOME PROOFS FAILED" : "All proofs held.");
    }
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    return r;
}

static int usage(int status)
{
    fprintf(status ? stderr : stdout,
            "usage: vmfactory-demo --spec FILE [--qemu FILE]\n"
            "Builds the template of the spec, clones it %d times, cold-boots it once, and proves "
            "each VM.\n",
            CLONES);
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"spec", required_argument, NULL, 's'},
                                            {"qemu", required_argument, NULL, 'q'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *spec = NULL, *qemu = NULL;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'h')
            return usage(0);
        if (c == 's')
            spec = optarg;
        else if (c == 'q')
            qemu = optarg;
        else
            return usage(2);
    }
    if (!spec || optind != argc)
        return usage(2);

    struct vf_sync s;
    struct vf_error err;
    setvbuf(stdout, NULL, _IOLBF, 0); /* into a pipe, too */
    struct vf_sync_options o = {.qemu = qemu};
    struct vf_floor floor = {.program = vf_floor_find()};
    int r = vf_sync_open(&s, &o, &err);
    if (r == 0)
        r = vf_sync_qemu(&s, &floor.qemu, &err);
    if (r == 0)
        r = demo(&s, spec, &floor, &err);
    if (vf_sync_interrupted(&s) && (r == 0 || err.code != VF_CANCELLED))
        r = vf_fail(&err, VF_CANCELLED, "interrupted by a signal");
    vf_sync_close(&s);
    free((char *)floor.program);
    if (r < 0)
        fprintf(stderr, "vmfactory-demo: %s%s%s\n", err.msg, err.hint[0] ? "\n  " : "", err.hint);
    if (r < 0 && err.code == VF_CANCELLED)
        return 130;
    return r < 0 || failures ? 1 : 0;
}
