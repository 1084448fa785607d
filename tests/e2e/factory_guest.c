/* What a VM says of itself: by what it proved, and by commands that ask again. */
#include "tests/e2e/factory_support.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "factory/instance.h"

#define MAX_ARGS 16
#define CLOCK_LIMIT_US 50000

static const char *run(struct fac *f, struct vf_instance *vm, char *const *argv)
{
    static char text[4][4096];
    static int next;
    char *p = text[next++ % 4];
    struct vf_exec_options o = {.argv = argv, .timeout_ms = 30000};
    struct vf_sync_output out;
    struct vf_error e;
    int r = vf_sync_run(&f->sync, vm, &o, NULL, 0, &out, &e);
    cr_assert_eq(r, 0, "%s: %s", argv[0], e.msg);
    cr_assert(!out.status.signaled && out.status.code == 0, "%s: status %d: %s", argv[0],
              out.status.code, out.errout);
    snprintf(p, sizeof(text[0]), "%s", out.out);
    size_t n = strlen(p);
    if (n && p[n - 1] == '\n')
        p[n - 1] = 0;
    vf_sync_output_free(&out);
    return p;
}

const char *fac_say(struct fac *f, struct vf_instance *vm, ...)
{
    char *argv[MAX_ARGS + 1];
    int n = 0;
    va_list ap;
    va_start(ap, vm);
    while (n < MAX_ARGS && (argv[n] = va_arg(ap, char *)))
        n++;
    va_end(ap);
    argv[n] = NULL;
    return run(f, vm, argv);
}

const char *fac_sh(struct fac *f, struct vf_instance *vm, const char *script)
{
    return fac_say(f, vm, "/bin/sh", "-c", script, (char *)NULL);
}

/* ---- one VM */

static bool is_linux(const struct vf_instance *vm)
{
    return vm->spec.agent.channel == VF_CHANNEL_VIRTIO_SERIAL;
}

static const char *random_of(struct fac *f, struct vf_instance *vm)
{
    return is_linux(vm) ? fac_sh(f, vm, "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'")
                        : fac_say(f, vm, "random", "16", (char *)NULL);
}

static bool is_hex(const char *s, size_t len)
{
    return strlen(s) == len && strspn(s, "0123456789abcdef") == len;
}

void fac_check_stages(const struct vf_instance *vm, const char *due)
{
    char text[256] = "";
    int n;
    const struct vf_stage *st = vf_instance_stages(vm, &n);
    for (int i = 0; i < n; i++) {
        size_t len = strlen(text);
        snprintf(text + len, sizeof(text) - len, "%s%s", i ? " " : "", st[i].name);
        cr_assert_geq(st[i].us, 0, "stage %s took %lld us", st[i].name, (long long)st[i].us);
    }
    cr_assert_str_eq(text, due);
}

static void check_identity(struct fac *f, struct vf_instance *vm, const struct vf_proof *p)
{
    const char *id = vf_instance_id(vm);
    bool linux_guest = is_linux(vm);
    const char *said = linux_guest ? fac_sh(f, vm, "cat /etc/machine-id")
                                   : fac_say(f, vm, "machine-id", (char *)NULL);
    cr_assert_str_eq(said, p->machine_id, "%s: machine-id", id);
    said = fac_say(f, vm, "hostname", (char *)NULL);
    cr_assert_str_eq(said, p->hostname, "%s: hostname", id);
    if (vm->spec.network.mode && linux_guest) {
        said = fac_sh(f, vm,
                      "for d in /sys/class/net/*; do [ ${d##*/} = lo ] || cat $d/address; done");
        cr_assert_str_eq(said, p->mac, "%s: MAC", id);
    } else if (!vm->spec.network.mode)
        cr_assert_str_eq(p->mac, "", "%s has no NIC, but a MAC", id);
}

void fac_check_proved(struct fac *f, struct vf_instance *vm, const struct vf_generation *gen)
{
    const struct vf_proof *p = vf_instance_proof(vm);
    const char *id = vf_instance_id(vm);
    cr_assert(is_hex(p->boot_id, 32), "%s: boot id '%s'", id, p->boot_id);
    cr_assert(is_hex(p->entropy_sha256, 64), "%s: digest '%s'", id, p->entropy_sha256);
    cr_assert(is_hex(p->sample, 32), "%s: sample '%s'", id, p->sample);
    cr_assert(is_hex(p->machine_id, 32), "%s: machine-id '%s'", id, p->machine_id);
    cr_assert(p->hostname[0], "%s: no hostname", id);
    cr_assert_eq(p->nonce_matched, gen != NULL, "%s: nonce", id);
    cr_assert(p->clock_offset_us <= CLOCK_LIMIT_US && p->clock_offset_us >= -CLOCK_LIMIT_US,
              "%s: the clock is %lld us off", id, (long long)p->clock_offset_us);
    if (gen) {
        cr_assert_eq(vf_instance_source(vm), VF_SOURCE_CLONE);
        cr_assert_eq(p->generation, gen->number);
        cr_assert_str_eq(p->nonce, gen->manifest.nonce);
        cr_assert_str_eq(p->boot_id, gen->manifest.boot_id);
        cr_assert_str_neq(p->sample, gen->manifest.sample);
    } else {
        cr_assert_eq(vf_instance_source(vm), VF_SOURCE_COLD);
        cr_assert_eq(p->generation, 0);
        cr_assert_str_eq(p->nonce, "");
    }
    check_identity(f, vm, p);
}

void fac_check_proof(struct fac *f, struct vf_instance *vm, const struct vf_generation *gen)
{
    fac_check_proved(f, vm, gen);
    fac_check_stages(vm, gen ? "prepare vmm restore resume prove" : "prepare vmm start boot renew");
}

/* ---- several */

void fac_check_differ(struct fac *f, struct vf_instance *const *vms, int n)
{
    char(*drawn)[64] = calloc((size_t)n, sizeof(*drawn));
    cr_assert(drawn);
    for (int i = 0; i < n; i++) {
        const struct vf_proof *a = vf_instance_proof(vms[i]);
        snprintf(drawn[i], sizeof(drawn[i]), "%s", random_of(f, vms[i]));
        cr_assert(is_hex(drawn[i], 32), "random bytes '%s'", drawn[i]);
        for (int k = 0; k < i; k++) {
            const struct vf_proof *b = vf_instance_proof(vms[k]);
            cr_assert_str_neq(drawn[i], drawn[k], "VMs %d and %d drew the same", i, k);
            cr_assert_str_neq(a->sample, b->sample);
            cr_assert_str_neq(a->entropy_sha256, b->entropy_sha256);
            cr_assert_str_neq(a->machine_id, b->machine_id);
            cr_assert_str_neq(a->hostname, b->hostname);
            cr_assert_str_neq(vf_instance_dir(vms[i]), vf_instance_dir(vms[k]));
            /* In a slot each is the same inside. */
            if (a->mac[0] && vms[i]->spec.network.mode == VF_NETWORK_EXTERNAL)
                cr_assert_str_neq(a->mac, b->mac);
        }
    }
    free(drawn);
}
